//! Bodies of messages: little-endian, integers of fixed length, nothing optional. Written and read
//! by hand: a stranger's length never decides how much memory is taken.

use thiserror::Error;

use super::{Payload, StoredPayload};
use crate::Digest;
use crate::store::{CHUNK_BYTES, MAX_BLOB_BYTES};

/// Version of bodies that this program writes, and the only one it reads.
pub const PROTOCOL_VERSION: u16 = 1;
/// Largest payload that travels in a message, in bytes. Larger ones go to the store.
pub const MAX_INLINE_BYTES: usize = 1 << 20;
/// Largest body of a message, in bytes: the largest inline payload, and what is before it.
pub const MAX_BODY_BYTES: usize = INLINE_START + MAX_INLINE_BYTES;
/// Longest text about an error, in bytes. Longer ones are cut.
pub const MAX_REASON_BYTES: usize = 4096;

/// Where the bytes of an inline payload begin: after version, form and length.
const INLINE_START: usize = 2 + 4 + 8;
const INLINE: u32 = 0;
const STORED: u32 = 1;

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

/// Writes a payload with its version before it.
pub(super) fn write_payload(payload: &Payload) -> Vec<u8> {
    match payload {
        Payload::Inline(bytes) => {
            let mut body = begin(INLINE_START + bytes.len());
            body.extend(INLINE.to_le_bytes());
            body.extend((bytes.len() as u64).to_le_bytes());
            body.extend(bytes);
            body
        }
        Payload::Stored(stored) => {
            let mut body = begin(54 + 32 * stored.chunks.len());
            body.extend(STORED.to_le_bytes());
            body.extend(stored.sha256.bytes());
            body.extend(stored.bytes.to_le_bytes());
            body.extend((stored.chunks.len() as u64).to_le_bytes());
            stored.chunks.iter().for_each(|digest| body.extend(digest.bytes()));
            body
        }
    }
}

/// Reads a payload.
pub(super) fn read_payload(body: &[u8]) -> Result<Payload, BodyError> {
    let mut rest = Rest::of(body)?;
    let payload = match u32::from_le_bytes(rest.array()?) {
        INLINE => {
            let length = rest.number()?;
            Payload::Inline(rest.take(length)?.to_vec())
        }
        STORED => {
            let sha256 = Digest::from_bytes(rest.array()?);
            let (bytes, count) = (rest.number()?, rest.number()?);
            let expected = bytes.div_ceil(CHUNK_BYTES as u64);
            if !(1..=MAX_BLOB_BYTES).contains(&bytes) || count != expected {
                return Err(BodyError::Form(format!("{bytes} stored bytes in {count} chunks")));
            }
            let chunks = (0..count).map(|_| Ok(Digest::from_bytes(rest.array()?)));
            Payload::Stored(StoredPayload {
                sha256,
                bytes,
                chunks: chunks.collect::<Result<_, _>>()?,
            })
        }
        form => return Err(BodyError::Form(format!("no payload has the form {form}"))),
    };
    rest.end()?;
    Ok(payload)
}

/// Writes the body of a reply without outputs: why there are none, for people.
pub(super) fn write_reason(reason: &str) -> Vec<u8> {
    let reason = &reason[..reason.floor_char_boundary(MAX_REASON_BYTES)];
    let mut body = begin(10 + reason.len());
    body.extend((reason.len() as u64).to_le_bytes());
    body.extend(reason.as_bytes());
    body
}

/// Reads why there are no outputs.
pub(super) fn read_reason(body: &[u8]) -> Result<String, BodyError> {
    let mut rest = Rest::of(body)?;
    let length = rest.number()?;
    if length > MAX_REASON_BYTES as u64 {
        return Err(BodyError::Form(format!("a reason of {length} bytes")));
    }
    let reason = std::str::from_utf8(rest.take(length)?);
    let reason = reason.map_err(|_| BodyError::Form("a reason that is not UTF-8".into()))?;
    rest.end()?;
    Ok(reason.to_owned())
}

/// Checks what every body begins with. Another version may differ in all that follows, and in its
/// headers.
pub(super) fn check_version(body: &[u8]) -> Result<(), BodyError> {
    Rest::of(body).map(drop)
}

fn begin(capacity: usize) -> Vec<u8> {
    let mut body = Vec::with_capacity(capacity);
    body.extend(PROTOCOL_VERSION.to_le_bytes());
    body
}

/// The bytes of a body that are not read yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    /// What follows the version.
    fn of(body: &'a [u8]) -> Result<Self, BodyError> {
        if body.len() > MAX_BODY_BYTES {
            return Err(BodyError::TooLarge(body.len()));
        }
        let mut rest = Self(body);
        match u16::from_le_bytes(rest.array()?) {
            PROTOCOL_VERSION => Ok(rest),
            version => Err(BodyError::Version(version)),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BodyError> {
        let (array, rest) = self.0.split_first_chunk().ok_or_else(Self::short)?;
        self.0 = rest;
        Ok(*array)
    }

    fn number(&mut self) -> Result<u64, BodyError> {
        self.array().map(u64::from_le_bytes)
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], BodyError> {
        let length = usize::try_from(length).map_err(|_| Self::short())?;
        let (taken, rest) = self.0.split_at_checked(length).ok_or_else(Self::short)?;
        self.0 = rest;
        Ok(taken)
    }

    fn end(self) -> Result<(), BodyError> {
        match self.0.len() {
            0 => Ok(()),
            left => Err(BodyError::Form(format!("{left} bytes after its end"))),
        }
    }

    fn short() -> BodyError {
        BodyError::Form("it ends too early".into())
    }
}
