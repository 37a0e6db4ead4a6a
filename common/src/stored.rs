//! How a message names a payload that is in the store.

use crate::Digest;

/// Size of every chunk but the last, in bytes. Larger values stall a Redis for everybody.
pub const CHUNK_BYTES: usize = 1 << 20;
/// Largest blob, in bytes.
pub const MAX_BLOB_BYTES: u64 = 1 << 30;

/// A body in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPayload {
    /// Digest of all bytes, which is the id of the blob.
    pub sha256: Digest,
    /// Size, in bytes.
    pub bytes: u64,
    /// Digest of each chunk, so that one can be used before the next one is there.
    pub chunks: Vec<Digest>,
}
