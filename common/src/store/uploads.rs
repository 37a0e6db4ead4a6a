//! Blobs that are sent while they arrive: their digest is known at the end, and no more of them than a
//! chunk is held.

use std::future::Future;

use cipherscore_ids::Hasher;

use super::{BlobKind, BlobName, CHUNK_BYTES, MAX_BLOB_BYTES, Put, StoreError};
use crate::stored::StoredPayload;
use crate::{Digest, Lease, Tenant};

/// Parts on their way to become a blob.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct UploadName {
    /// Whose it will be.
    pub tenant: Tenant,
    /// What it will be.
    pub kind: BlobKind,
    /// Differs from every other upload's.
    pub(super) upload: u64,
}

impl UploadName {
    /// Under which its parts are until the digest is known: no blob has this id.
    pub(super) fn pending(&self) -> BlobName {
        let id = Digest::from_bytes([0; 32]);
        BlobName { tenant: self.tenant.clone(), kind: self.kind, id }
    }
}

/// Takes blobs part by part. Cheap to share: every method takes `&self`. Parts of an upload that was
/// given up go after [`UPLOAD_LEASE`](crate::UPLOAD_LEASE) at the latest.
pub trait UploadStore: Send + Sync {
    /// Stores a part: a chunk of the blob that is to be.
    fn put_part(
        &self,
        upload: &UploadName,
        index: u64,
        part: Vec<u8>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Makes the parts the blob of this name, which has the digest of all of them as its id, and so many
    /// bytes. Where it is there already its lease is set, and the parts go.
    fn finish_upload(
        &self,
        upload: &UploadName,
        name: &BlobName,
        bytes: u64,
        lease: Option<Lease>,
    ) -> impl Future<Output = Result<Put, StoreError>> + Send;

    /// Takes the first so many parts out.
    fn give_up(
        &self,
        upload: &UploadName,
        parts: u64,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// Sends a blob while it arrives. It must be [finished](Self::finish) or [given up](Self::give_up);
/// dropped, its parts stay for a time.
pub struct BlobWriter<'a, S> {
    store: &'a S,
    upload: UploadName,
    /// Less than a chunk.
    waiting: Vec<u8>,
    hasher: Hasher,
    bytes: u64,
    chunks: Vec<Digest>,
}

/// A blob that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// As a message names it.
    pub stored: StoredPayload,
    /// Whether it was there before.
    pub put: Put,
}

impl<'a, S: UploadStore> BlobWriter<'a, S> {
    /// Begins to send.
    pub fn new(store: &'a S, tenant: &Tenant, kind: BlobKind) -> Self {
        let upload = UploadName { tenant: tenant.clone(), kind, upload: super::random_upload() };
        let (waiting, hasher) = (Vec::new(), Hasher::default());
        Self { store, upload, waiting, hasher, bytes: 0, chunks: Vec::new() }
    }

    /// So many bytes came so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes more bytes, and sends whatever is a whole chunk.
    pub async fn push(&mut self, mut more: &[u8]) -> Result<(), StoreError> {
        self.bytes += more.len() as u64;
        if self.bytes > MAX_BLOB_BYTES {
            let (name, bytes) = (self.upload.pending(), self.bytes);
            return Err(StoreError::TooLarge { name, bytes, limit: MAX_BLOB_BYTES });
        }
        while !more.is_empty() {
            let (now, later) = more.split_at(more.len().min(CHUNK_BYTES - self.waiting.len()));
            self.waiting.extend_from_slice(now);
            more = later;
            if self.waiting.len() == CHUNK_BYTES {
                self.send().await?;
            }
        }
        Ok(())
    }

    /// The digest of all that came. About a millisecond for each chunk: short enough to stay where it
    /// is.
    pub fn digest(&self) -> Digest {
        let mut hasher = self.hasher.clone();
        hasher.update(&self.waiting);
        hasher.finish()
    }

    /// Makes a blob of what came.
    pub async fn finish(mut self, lease: Option<Lease>) -> Result<Written, StoreError> {
        if !self.waiting.is_empty() {
            self.send().await?;
        }
        let sha256 = self.hasher.finish();
        let UploadName { tenant, kind, .. } = self.upload.clone();
        let name = BlobName { tenant, kind, id: sha256 };
        if self.bytes == 0 {
            return Err(StoreError::Empty { name });
        }
        let put = self.store.finish_upload(&self.upload, &name, self.bytes, lease).await?;
        let stored = StoredPayload { sha256, bytes: self.bytes, chunks: self.chunks };
        Ok(Written { stored, put })
    }

    /// Takes what was sent out of the store.
    pub async fn give_up(self) -> Result<(), StoreError> {
        match self.chunks.len() {
            0 => Ok(()),
            parts => self.store.give_up(&self.upload, parts as u64).await,
        }
    }

    async fn send(&mut self) -> Result<(), StoreError> {
        let part = std::mem::take(&mut self.waiting);
        self.hasher.update(&part);
        let index = self.chunks.len() as u64;
        self.chunks.push(Digest::of(&part));
        self.store.put_part(&self.upload, index, part).await
    }
}
