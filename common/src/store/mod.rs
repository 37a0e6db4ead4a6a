//! The store of evaluation keys, models and large bodies: one seam, in Redis and in memory.

mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub(crate) mod marks;
pub(crate) mod memory;
pub(crate) mod owner;
pub(crate) mod presence;
pub(crate) mod reader;
pub(crate) mod redis;
pub(crate) mod releases;
pub(crate) mod results;
pub(crate) mod uploads;
pub(crate) mod workers;

use std::fmt;
use std::future::Future;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use error::{ErrorClass, StoreError};

use self::marks::MarkStore;
use self::releases::ReleaseStore;
use self::results::ResultStore;
use self::uploads::UploadStore;
use self::workers::PresenceStore;

use crate::stored::StoredPayload;
pub use crate::stored::{CHUNK_BYTES, MAX_BLOB_BYTES};
use crate::{Digest, EvaluationKeyId, Lease, ModelId, Tenant};

/// Most blobs of one tenant and kind that a list holds.
pub const MAX_LISTED_BLOBS: usize = 10_000;

/// What a blob is. The text of it is part of names in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BlobKind {
    /// An evaluation key, as `keygen` or Concrete's client wrote it.
    Key,
    /// An imported `server.zip`.
    Model,
    /// The rows of a job, too many for a message.
    Job,
    /// The outputs of a reply, too many for a message.
    Reply,
    /// The `client.zip` of a model, for gateways to hand out. Workers cannot read it.
    Client,
}

impl BlobKind {
    /// Whether blobs of this kind have the id of a model, and not their own digest.
    pub(crate) fn is_named_by_model(self) -> bool {
        matches!(self, Self::Model | Self::Client)
    }
}

impl fmt::Display for BlobKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key => "key",
            Self::Model => "model",
            Self::Job => "job",
            Self::Reply => "reply",
            Self::Client => "client",
        })
    }
}

/// Where a blob is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobName {
    /// Whose it is.
    pub tenant: Tenant,
    /// What it is.
    pub kind: BlobKind,
    /// The digest in its [`EvaluationKeyId`] or [`ModelId`], or of a payload.
    pub id: Digest,
}

impl BlobName {
    /// Of an evaluation key.
    pub fn evaluation_key(tenant: &Tenant, id: EvaluationKeyId) -> Self {
        Self { tenant: tenant.clone(), kind: BlobKind::Key, id: id.digest() }
    }

    /// Of a model.
    pub fn model(tenant: &Tenant, id: ModelId) -> Self {
        Self { tenant: tenant.clone(), kind: BlobKind::Model, id: id.digest() }
    }

    /// Of the `client.zip` of a model.
    pub fn client_zip(tenant: &Tenant, id: ModelId) -> Self {
        Self { tenant: tenant.clone(), kind: BlobKind::Client, id: id.digest() }
    }
}

impl fmt::Display for BlobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} of tenant {}", self.kind, self.id, self.tenant)
    }
}

/// A blob on its way into the store. Its digest is computed when it is made, so that no store
/// does so between two awaits.
#[derive(Clone)]
pub struct Blob {
    name: BlobName,
    bytes: Vec<u8>,
    sha256: Digest,
    /// Under what its chunks are sent: the same each time, so that a put that is tried again, as while a store is
    /// slow, takes no more room there.
    upload: u64,
}

impl Blob {
    /// An evaluation key, whose id is its digest.
    pub fn evaluation_key(tenant: &Tenant, bytes: Vec<u8>) -> Result<Self, StoreError> {
        let sha256 = Digest::of(&bytes);
        Self::new(BlobName::evaluation_key(tenant, EvaluationKeyId::new(sha256)), bytes, sha256)
    }

    /// A model, whose id is not the digest of these bytes.
    pub fn model(tenant: &Tenant, id: ModelId, bytes: Vec<u8>) -> Result<Self, StoreError> {
        let sha256 = Digest::of(&bytes);
        Self::new(BlobName::model(tenant, id), bytes, sha256)
    }

    /// A `client.zip`, whose id is that of its model.
    pub fn client_zip(tenant: &Tenant, id: ModelId, bytes: Vec<u8>) -> Result<Self, StoreError> {
        let sha256 = Digest::of(&bytes);
        Self::new(BlobName::client_zip(tenant, id), bytes, sha256)
    }

    /// A payload on its way to or from the workers, whose id is its digest; and how a message names
    /// it.
    pub fn payload(
        tenant: &Tenant,
        kind: BlobKind,
        bytes: Vec<u8>,
    ) -> Result<(Self, StoredPayload), StoreError> {
        let sha256 = Digest::of(&bytes);
        let stored = StoredPayload {
            sha256,
            bytes: bytes.len() as u64,
            chunks: bytes.chunks(CHUNK_BYTES).map(Digest::of).collect(),
        };
        let name = BlobName { tenant: tenant.clone(), kind, id: sha256 };
        Ok((Self::new(name, bytes, sha256)?, stored))
    }

    fn new(name: BlobName, bytes: Vec<u8>, sha256: Digest) -> Result<Self, StoreError> {
        let length = bytes.len() as u64;
        match length {
            0 => Err(StoreError::Empty { name }),
            1..=MAX_BLOB_BYTES => Ok(Self { name, bytes, sha256, upload: random_upload() }),
            _ => Err(StoreError::TooLarge { name, bytes: length, limit: MAX_BLOB_BYTES }),
        }
    }

    /// Where it goes.
    pub fn name(&self) -> &BlobName {
        &self.name
    }

    /// What is stored.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What the store will say of it.
    pub fn info(&self, lease: Option<Lease>) -> BlobInfo {
        BlobInfo {
            name: self.name.clone(),
            bytes: self.bytes.len() as u64,
            sha256: self.sha256,
            created_by: env!("CARGO_PKG_VERSION").to_owned(),
            expires_in: lease.map(Lease::duration),
            upload: self.upload,
        }
    }
}

/// Differs from every other upload's; not a secret. The standard library seeds its maps from the
/// system's random numbers.
fn random_upload() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Never the bytes.
impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes)", self.name, self.bytes.len())
    }
}

/// A blob that is in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobInfo {
    /// Where it is.
    pub name: BlobName,
    /// Size, from 1 to [`MAX_BLOB_BYTES`].
    pub bytes: u64,
    /// Digest of all bytes.
    pub sha256: Digest,
    /// Version of the program that put it there.
    pub created_by: String,
    /// Time until it is gone, if nobody renews it.
    pub expires_in: Option<Duration>,
    /// Which upload of it this is, where a store keeps more than one.
    upload: u64,
}

impl BlobInfo {
    /// What a store says of a payload or an evaluation key, whose ids are their digests.
    pub fn of_digest(
        name: &BlobName,
        bytes: u64,
        created_by: String,
        expires_in: Option<Duration>,
    ) -> Self {
        Self { name: name.clone(), bytes, sha256: name.id, created_by, expires_in, upload: 0 }
    }

    /// Number of chunks.
    pub fn chunks(&self) -> u64 {
        self.bytes.div_ceil(CHUNK_BYTES as u64)
    }

    /// Length of a chunk, in bytes.
    fn chunk_length(&self, index: u64) -> u64 {
        let start = index * CHUNK_BYTES as u64;
        self.bytes.saturating_sub(start).min(CHUNK_BYTES as u64)
    }
}

/// What a put did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Put {
    /// Sent all bytes.
    Stored,
    /// Found the same bytes there, and renewed their lease.
    AlreadyThere,
}

/// Called after every chunk that was sent.
pub type Progress<'a> = &'a (dyn Fn() + Sync);

/// Keeps blobs, whole or not at all. Cheap to share: every method takes `&self`.
///
/// Futures may be dropped at any time: a put that was given up leaves no blob, and what was there
/// before stays.
pub trait BlobStore: Send + Sync {
    /// Stores a blob for the length of a lease, or for good. One of the same name and digest is
    /// renewed rather than sent again, unless chunks of it are lost.
    fn put(
        &self,
        blob: &Blob,
        lease: Option<Lease>,
        progress: Progress<'_>,
    ) -> impl Future<Output = Result<Put, StoreError>> + Send;

    /// Describes a blob.
    fn info(&self, name: &BlobName) -> impl Future<Output = Result<BlobInfo, StoreError>> + Send;

    /// One chunk, of the right length but not checked further: [`BlobReader`] does.
    ///
    /// [`BlobReader`]: crate::BlobReader
    fn chunk(
        &self,
        info: &BlobInfo,
        index: u64,
    ) -> impl Future<Output = Result<Vec<u8>, StoreError>> + Send;

    /// Sets the time until the blob is gone, to more or to less; `None` keeps it for good.
    fn touch(
        &self,
        name: &BlobName,
        lease: Option<Lease>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Takes a blob out, with whatever an unfinished upload of it left.
    fn remove(&self, name: &BlobName) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// All blobs of a tenant and kind, by id.
    fn list(
        &self,
        tenant: &Tenant,
        kind: BlobKind,
    ) -> impl Future<Output = Result<Vec<BlobInfo>, StoreError>> + Send;
}

/// Everything that a worker or a client needs of a store.
pub trait Store: BlobStore + MarkStore + ReleaseStore + PresenceStore + 'static {}

impl<S: BlobStore + MarkStore + ReleaseStore + PresenceStore + 'static> Store for S {}

/// Everything that a gateway needs of a store.
pub trait GatewayStore: Store + UploadStore + ResultStore {}

impl<S: Store + UploadStore + ResultStore> GatewayStore for S {}
