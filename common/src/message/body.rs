//! Bodies of messages: the version, then bincode 2, little-endian, with integers of fixed length.

use bincode::config::{Configuration, Fixint, Limit, LittleEndian};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Payload, StoredPayload};
use crate::Digest;
use crate::stored::{CHUNK_BYTES, MAX_BLOB_BYTES};

/// Version of bodies that this program writes, and the only one it reads.
pub const PROTOCOL_VERSION: u16 = 1;
/// Largest payload that travels in a message, in bytes. Larger ones go to the store.
pub const MAX_INLINE_BYTES: usize = 1 << 20;
/// Largest body of a message, in bytes: the largest inline payload, and what is before it: version,
/// form and length.
pub const MAX_BODY_BYTES: usize = 2 + 4 + 8 + MAX_INLINE_BYTES;
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
    #[error("the body has protocol version {0}; this program speaks version {PROTOCOL_VERSION}")]
    Version(u16),
    /// Not of the documented form.
    #[error("the body is not of the documented form: {0}")]
    Form(String),
    /// Larger than it may be.
    #[error("the body has {0} bytes; at most {MAX_BODY_BYTES} are allowed")]
    TooLarge(usize),
}

/// Body of a job, and of a reply with outputs.
#[derive(Serialize, Deserialize)]
enum PayloadForm<'a> {
    #[serde(with = "serde_bytes", borrow)]
    Inline(&'a [u8]),
    Stored {
        sha256: [u8; 32],
        bytes: u64,
        chunks: Vec<[u8; 32]>,
    },
}

/// Writes a payload with its version before it.
pub(super) fn write_payload(payload: &Payload) -> Vec<u8> {
    match payload {
        Payload::Inline(bytes) => encode(&PayloadForm::Inline(bytes), bytes.len()),
        Payload::Stored(stored) => {
            let chunks: Vec<_> = stored.chunks.iter().map(|digest| digest.to_bytes()).collect();
            let (sha256, bytes) = (stored.sha256.to_bytes(), stored.bytes);
            encode(&PayloadForm::Stored { sha256, bytes, chunks }, 32 * stored.chunks.len())
        }
    }
}

/// Reads a payload.
pub(super) fn read_payload(body: &[u8]) -> Result<Payload, BodyError> {
    match decode(body)? {
        PayloadForm::Inline(bytes) => Ok(Payload::Inline(bytes.to_vec())),
        PayloadForm::Stored { sha256, bytes, chunks } => {
            let expected = bytes.div_ceil(CHUNK_BYTES as u64);
            let count = chunks.len() as u64;
            if !(1..=MAX_BLOB_BYTES).contains(&bytes) || count != expected {
                return Err(BodyError::Form(format!("{bytes} stored bytes in {count} chunks")));
            }
            let chunks = chunks.into_iter().map(Digest::from_bytes).collect();
            Ok(Payload::Stored(StoredPayload { sha256: Digest::from_bytes(sha256), bytes, chunks }))
        }
    }
}

/// Writes the body of a reply without outputs: why there are none, for people.
pub(super) fn write_reason(reason: &str) -> Vec<u8> {
    let reason = &reason[..reason.floor_char_boundary(MAX_REASON_BYTES)];
    encode(&reason, reason.len())
}

/// Reads why there are no outputs.
pub(super) fn read_reason(body: &[u8]) -> Result<String, BodyError> {
    let reason: &str = decode(body)?;
    match reason.len() {
        0..=MAX_REASON_BYTES => Ok(reason.to_owned()),
        length => Err(BodyError::Form(format!("a reason of {length} bytes"))),
    }
}

/// Checks what every body begins with. Another version may differ in all that follows, and in its
/// headers.
pub(super) fn check_version(body: &[u8]) -> Result<(), BodyError> {
    split_version(body).map(drop)
}

fn encode(value: &impl Serialize, most: usize) -> Vec<u8> {
    // With room for all lengths and numbers around the bytes.
    let mut body = Vec::with_capacity(most + 64);
    body.extend(PROTOCOL_VERSION.to_le_bytes());
    bincode::serde::encode_into_std_write(value, &mut body, CONFIGURATION)
        .expect("memory takes every byte, and writing knows no limit");
    body
}

fn decode<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, BodyError> {
    let rest = split_version(body)?;
    let decoded = bincode::serde::borrow_decode_from_slice(rest, CONFIGURATION);
    let (value, read) = decoded.map_err(|error| BodyError::Form(error.to_string()))?;
    match rest.len() - read {
        0 => Ok(value),
        left => Err(BodyError::Form(format!("{left} bytes after its end"))),
    }
}

/// What follows the version.
fn split_version(body: &[u8]) -> Result<&[u8], BodyError> {
    if body.len() > MAX_BODY_BYTES {
        return Err(BodyError::TooLarge(body.len()));
    }
    let short = || BodyError::Form("it is shorter than its version".into());
    let (version, rest) = body.split_first_chunk().ok_or_else(short)?;
    match u16::from_le_bytes(*version) {
        PROTOCOL_VERSION => Ok(rest),
        version => Err(BodyError::Version(version)),
    }
}
