//! Bodies of messages: the version, then bincode 2, little-endian, with integers of fixed length.

use bincode::config::{Configuration, Fixint, Limit, LittleEndian};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Payload, ProtocolVersion, StoredPayload};
use crate::stored::{CHUNK_BYTES, MAX_BLOB_BYTES};
use crate::{Digest, OwnerId};

/// Largest payload that is written into a message, in bytes, whichever the version. Larger ones go to
/// the store.
pub const MAX_INLINE_BYTES: usize = MAX_BODY_BYTES - 2 - OWNER_BYTES - 4 - 8;
/// Largest body of a message, in bytes: 1 MiB, and version, form and length. A body of any later
/// version is not larger, so that whoever reads older ones only can say so.
pub const MAX_BODY_BYTES: usize = 2 + 4 + 8 + (1 << 20);
/// Bytes of an owner id.
const OWNER_BYTES: usize = 16;
/// Longest text about an error, in bytes. Longer ones are cut.
pub const MAX_REASON_BYTES: usize = 4096;

/// A stranger's length decides nothing: what is longer than the limit is not allocated.
const CONFIGURATION: Configuration<LittleEndian, Fixint, Limit<MAX_BODY_BYTES>> =
    bincode::config::standard()
        .with_little_endian()
        .with_fixed_int_encoding()
        .with_limit::<MAX_BODY_BYTES>();

/// Why a body cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BodyError {
    /// Of another version.
    #[error("the body has protocol version {0}; this program speaks versions 1 and 2")]
    Version(u16),
    /// Its payload is in the store under a kind of digest that this program does not know.
    #[error("the payload has a digest of kind {0}; this program knows kind 0, SHA-256")]
    DigestKind(u32),
    /// Not of the documented form.
    #[error("the body is not of the documented form: {0}")]
    Form(String),
    /// Larger than it may be.
    #[error("the body has {0} bytes; at most {MAX_BODY_BYTES} are allowed")]
    TooLarge(usize),
}

/// Body of a job, and of a reply with outputs, in version 1.
#[derive(Serialize, Deserialize)]
enum PayloadV1<'a> {
    #[serde(with = "serde_bytes", borrow)]
    Inline(&'a [u8]),
    Stored(StoredForm),
}

/// The same in version 2. The owner id is here and not in a header, since a worker of version 1 that
/// hands on a job which it has not read leaves out headers that it does not know.
#[derive(Serialize, Deserialize)]
struct PayloadV2<'a> {
    /// Zeros where there is none.
    owner: [u8; OWNER_BYTES],
    #[serde(borrow)]
    form: FormV2<'a>,
}

#[derive(Serialize, Deserialize)]
enum FormV2<'a> {
    #[serde(with = "serde_bytes", borrow)]
    Inline(&'a [u8]),
    Stored {
        digest_kind: u32,
        stored: StoredForm,
    },
}

/// A payload, and whose it is: the rows of a job, or the outputs of a reply.
#[derive(Debug)]
pub(super) struct OwnedPayload {
    pub(super) owner: Option<OwnerId>,
    pub(super) payload: Payload,
}

/// What a digest of version 2 is of kind 0. Others are for later.
const SHA_256: u32 = 0;

/// Where a payload is in the store.
#[derive(Serialize, Deserialize)]
struct StoredForm {
    digest: [u8; 32],
    bytes: u64,
    chunks: Vec<[u8; 32]>,
}

impl From<&StoredPayload> for StoredForm {
    fn from(stored: &StoredPayload) -> Self {
        let chunks = stored.chunks.iter().map(|digest| digest.to_bytes()).collect();
        Self { digest: stored.sha256.to_bytes(), bytes: stored.bytes, chunks }
    }
}

impl StoredForm {
    fn read(self) -> Result<Payload, BodyError> {
        let Self { digest, bytes, chunks } = self;
        let (expected, count) = (bytes.div_ceil(CHUNK_BYTES as u64), chunks.len() as u64);
        if !(1..=MAX_BLOB_BYTES).contains(&bytes) || count != expected {
            return Err(BodyError::Form(format!("{bytes} stored bytes in {count} chunks")));
        }
        let chunks = chunks.into_iter().map(Digest::from_bytes).collect();
        Ok(Payload::Stored(StoredPayload { sha256: Digest::from_bytes(digest), bytes, chunks }))
    }
}

/// Writes a payload with its version before it, and whose it is, where the version has that.
pub(super) fn write_payload(
    version: ProtocolVersion,
    owner: Option<OwnerId>,
    payload: &Payload,
) -> Vec<u8> {
    let owner = owner.map_or([0; OWNER_BYTES], OwnerId::to_bytes);
    let most = match payload {
        Payload::Inline(bytes) => bytes.len(),
        Payload::Stored(stored) => 32 * stored.chunks.len(),
    };
    match (version, payload) {
        (ProtocolVersion::V1, Payload::Inline(bytes)) => {
            encode(version, &PayloadV1::Inline(bytes), most)
        }
        (ProtocolVersion::V1, Payload::Stored(stored)) => {
            encode(version, &PayloadV1::Stored(stored.into()), most)
        }
        (ProtocolVersion::V2, Payload::Inline(bytes)) => {
            encode(version, &PayloadV2 { owner, form: FormV2::Inline(bytes) }, most)
        }
        (ProtocolVersion::V2, Payload::Stored(stored)) => {
            let form = FormV2::Stored { digest_kind: SHA_256, stored: stored.into() };
            encode(version, &PayloadV2 { owner, form }, most)
        }
    }
}

/// Reads a payload.
pub(super) fn read_payload(body: &[u8]) -> Result<OwnedPayload, BodyError> {
    match split_version(body)? {
        (ProtocolVersion::V1, rest) => {
            let payload = match decode(rest)? {
                PayloadV1::Inline(bytes) => Payload::Inline(bytes.to_vec()),
                PayloadV1::Stored(stored) => stored.read()?,
            };
            Ok(OwnedPayload { owner: None, payload })
        }
        (ProtocolVersion::V2, rest) => {
            let PayloadV2 { owner, form } = decode(rest)?;
            let payload = match form {
                FormV2::Inline(bytes) => Payload::Inline(bytes.to_vec()),
                FormV2::Stored { digest_kind: SHA_256, stored } => stored.read()?,
                FormV2::Stored { digest_kind, .. } => {
                    return Err(BodyError::DigestKind(digest_kind));
                }
            };
            Ok(OwnedPayload { owner: OwnerId::from_bytes(owner), payload })
        }
    }
}

/// Whether the payload is in the body, and not in the store. No byte of it is copied.
pub(super) fn has_payload(body: &[u8]) -> bool {
    split_version(body).is_ok_and(|(version, rest)| match version {
        ProtocolVersion::V1 => matches!(decode(rest), Ok(PayloadV1::Inline(_))),
        ProtocolVersion::V2 => {
            matches!(decode(rest), Ok(PayloadV2 { form: FormV2::Inline(_), .. }))
        }
    })
}

/// Writes the body of a reply without outputs: why there are none, for people.
pub(super) fn write_reason(version: ProtocolVersion, reason: &str) -> Vec<u8> {
    let reason = &reason[..reason.floor_char_boundary(MAX_REASON_BYTES)];
    encode(version, &reason, reason.len())
}

/// Reads why there are no outputs.
pub(super) fn read_reason(body: &[u8]) -> Result<String, BodyError> {
    let (_, rest) = split_version(body)?;
    let reason: &str = decode(rest)?;
    match reason.len() {
        0..=MAX_REASON_BYTES => Ok(reason.to_owned()),
        length => Err(BodyError::Form(format!("a reason of {length} bytes"))),
    }
}

/// Reads what every body begins with. Another version may differ in all that follows, and in its
/// headers.
pub(super) fn read_version(body: &[u8]) -> Result<ProtocolVersion, BodyError> {
    split_version(body).map(|(version, _)| version)
}

fn encode(version: ProtocolVersion, value: &impl Serialize, most: usize) -> Vec<u8> {
    // With room for all lengths and numbers around the bytes.
    let mut body = Vec::with_capacity(most + 64);
    body.extend(version.number().to_le_bytes());
    bincode::serde::encode_into_std_write(value, &mut body, CONFIGURATION)
        .expect("memory takes every byte, and writing knows no limit");
    body
}

fn decode<'a, T: Deserialize<'a>>(rest: &'a [u8]) -> Result<T, BodyError> {
    let decoded = bincode::serde::borrow_decode_from_slice(rest, CONFIGURATION);
    let (value, read) = decoded.map_err(|error| BodyError::Form(error.to_string()))?;
    match rest.len() - read {
        0 => Ok(value),
        left => Err(BodyError::Form(format!("{left} bytes after its end"))),
    }
}

/// The version, and what follows it.
fn split_version(body: &[u8]) -> Result<(ProtocolVersion, &[u8]), BodyError> {
    if body.len() > MAX_BODY_BYTES {
        return Err(BodyError::TooLarge(body.len()));
    }
    let short = || BodyError::Form("it is shorter than its version".into());
    let (version, rest) = body.split_first_chunk().ok_or_else(short)?;
    let version = u16::from_le_bytes(*version);
    let known = ProtocolVersion::ALL.into_iter().find(|known| known.number() == version);
    Ok((known.ok_or(BodyError::Version(version))?, rest))
}
