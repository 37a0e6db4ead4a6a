//! Bodies of messages: bincode 2, little-endian, integers of fixed length.

use bincode::config::{Configuration, Fixint, Limit, LittleEndian};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Payload, StoredPayload};
use crate::Digest;
use crate::store::{CHUNK_BYTES, MAX_BLOB_BYTES};

/// Version of bodies that this program writes, and the only one it reads.
pub const PROTOCOL_VERSION: u16 = 1;
/// Largest payload that travels in a message, in bytes. Larger ones go to the store.
pub const MAX_INLINE_BYTES: usize = 1 << 20;
/// Largest body of a message, in bytes: an inline payload, or the digests of a stored one.
pub const MAX_BODY_BYTES: usize = MAX_INLINE_BYTES + 64;
/// Longest text about an error, in bytes. Longer ones are cut.
pub const MAX_REASON_BYTES: usize = 4096;

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

const CONFIGURATION: Configuration<LittleEndian, Fixint, Limit<MAX_BODY_BYTES>> =
    bincode::config::standard()
        .with_little_endian()
        .with_fixed_int_encoding()
        .with_limit::<MAX_BODY_BYTES>();

/// Body of a job, and of a reply with outputs.
#[derive(Debug, Serialize, Deserialize)]
enum PayloadForm {
    Inline(Vec<u8>),
    Stored { sha256: [u8; 32], bytes: u64, chunks: Vec<[u8; 32]> },
}

/// Writes a payload with its version before it.
pub(super) fn write_payload(payload: &Payload) -> Vec<u8> {
    match payload {
        // By hand rather than through the form, which would copy up to a megabyte once more.
        Payload::Inline(bytes) => {
            let mut body = Vec::with_capacity(14 + bytes.len());
            body.extend(PROTOCOL_VERSION.to_le_bytes());
            body.extend(0_u32.to_le_bytes());
            body.extend((bytes.len() as u64).to_le_bytes());
            body.extend(bytes);
            body
        }
        Payload::Stored(stored) => encode(&PayloadForm::Stored {
            sha256: stored.sha256.bytes(),
            bytes: stored.bytes,
            chunks: stored.chunks.iter().map(|digest| digest.bytes()).collect(),
        }),
    }
}

/// Reads a payload.
pub(super) fn read_payload(body: &[u8]) -> Result<Payload, BodyError> {
    match decode(body)? {
        PayloadForm::Inline(bytes) if bytes.len() > MAX_INLINE_BYTES => {
            Err(BodyError::Form(format!("an inline payload of more than {MAX_INLINE_BYTES} bytes")))
        }
        PayloadForm::Inline(bytes) => Ok(Payload::Inline(bytes)),
        PayloadForm::Stored { sha256, bytes, chunks } => {
            let expected = bytes.div_ceil(CHUNK_BYTES as u64);
            if !(1..=MAX_BLOB_BYTES).contains(&bytes) || chunks.len() as u64 != expected {
                return Err(BodyError::Form(format!(
                    "{bytes} stored bytes in {} chunks",
                    chunks.len()
                )));
            }
            let chunks = chunks.into_iter().map(Digest::from_bytes).collect();
            Ok(Payload::Stored(StoredPayload { sha256: Digest::from_bytes(sha256), bytes, chunks }))
        }
    }
}

/// Writes the body of a reply without outputs: why there are none, for people.
pub(super) fn write_reason(reason: &str) -> Vec<u8> {
    let mut end = reason.len().min(MAX_REASON_BYTES);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    encode(&&reason[..end])
}

/// Reads why there are no outputs.
pub(super) fn read_reason(body: &[u8]) -> Result<String, BodyError> {
    decode(body)
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    let mut body = PROTOCOL_VERSION.to_le_bytes().to_vec();
    bincode::serde::encode_into_std_write(value, &mut body, CONFIGURATION)
        .expect("memory takes every byte, and the values are bounded");
    body
}

fn decode<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Result<T, BodyError> {
    if body.len() > MAX_BODY_BYTES {
        return Err(BodyError::TooLarge(body.len()));
    }
    let Some((version, rest)) = body.split_first_chunk() else {
        return Err(BodyError::Form("shorter than its version".into()));
    };
    let version = u16::from_le_bytes(*version);
    if version != PROTOCOL_VERSION {
        return Err(BodyError::Version(version));
    }
    let decoded = bincode::serde::decode_from_slice(rest, CONFIGURATION);
    let (value, read) = decoded.map_err(|error| BodyError::Form(error.to_string()))?;
    match rest.len() - read {
        0 => Ok(value),
        left => Err(BodyError::Form(format!("{left} bytes after its end"))),
    }
}
