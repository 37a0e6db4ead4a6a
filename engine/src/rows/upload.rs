//! Uploads: rows of encrypted bits, on their way to the worker.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `CSROWUPL` |
//! | 2 | version, 1 |
//! | 1 | 0: the seeds are fresh; 1: the worker may know them beforehand |
//! | 1 | 0 |
//! | 4 | rows |
//! | 16 | owner id |
//! | 32 | model id |
//! | 32 | key id |
//! | for each row | |
//! | 16 | seed of the mask |
//! | for each prime but the last | the bodies of the m columns modulo that prime, 51 bits each, packed |
//!
//! Numbers are little-endian. The last residue of each body is 0 and is not sent.

use cipherscore_ids::{ModelId, OwnerId};
use thiserror::Error;

use super::domain::{DIGEST_BYTES, Domain, first_bytes, ring_bytes};
use super::parameters::RowParameters;
use super::ring::RowRing;
use super::secret::RowKeyId;
use crate::rlwe::mask::{Masks, SEED_BYTES};
use crate::rlwe::words::{WordsError, pack, packed_len, unpack};

const MAGIC: [u8; 8] = *b"CSROWUPL";
const VERSION: u16 = 1;
/// Bytes before the rows.
pub const UPLOAD_HEADER_BYTES: usize = 96;

/// Where the seeds of an upload's masks come from. A worker that knows none of them beforehand evaluates
/// both in the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeedSource {
    /// Drawn when the rows were encrypted.
    Fresh = 0,
    /// Drawn before there was a row, and sent ahead. Clients write uploads of one row like this; workers
    /// read any number.
    Ahead = 1,
}

/// What is before the rows of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UploadHeader {
    /// Where its seeds come from.
    pub seeds: SeedSource,
    /// How many rows follow.
    pub rows: u32,
    /// Who sends them.
    pub owner: OwnerId,
    /// The model that is to be evaluated.
    pub model: ModelId,
    /// The key under which they are encrypted.
    pub key: RowKeyId,
}

/// Bytes that are no upload, or not one of the model, the key and the number of rows.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UploadError {
    /// Not of this format, or of another version of it.
    #[error("not an upload of the row engine, or one of another version")]
    Format,
    /// Another model or number of rows.
    #[error("the upload is of another {0}")]
    Other(&'static str),
    /// Another client key.
    #[error("the upload is of another client key than the evaluation key")]
    OtherKey,
    /// Words that are no residues.
    #[error("row {row}: {error}")]
    Words {
        /// From 0.
        row: u32,
        /// What is wrong.
        error: WordsError,
    },
}

impl UploadHeader {
    /// The header's bytes.
    pub fn to_bytes(&self) -> [u8; UPLOAD_HEADER_BYTES] {
        let mut bytes = [0; UPLOAD_HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
        bytes[10] = self.seeds as u8;
        bytes[12..16].copy_from_slice(&self.rows.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.owner.to_bytes());
        bytes[32..64].copy_from_slice(&self.model.digest().to_bytes());
        bytes[64..].copy_from_slice(&self.key.0);
        bytes
    }

    /// Whether `bytes` are the header of an upload of these rows, this model and this key, of any
    /// owner with an id, with seeds of any source.
    pub fn check(&self, bytes: &[u8; UPLOAD_HEADER_BYTES]) -> Result<(), UploadError> {
        let expected = self.to_bytes();
        let differs = |range: std::ops::Range<usize>| bytes[range.clone()] != expected[range];
        let nobody = bytes[16..32].iter().all(|byte| *byte == 0);
        let sources = [SeedSource::Fresh as u8, SeedSource::Ahead as u8];
        if differs(0..10) || differs(11..12) || nobody || !sources.contains(&bytes[10]) {
            return Err(UploadError::Format);
        }
        let parts = [(12..16, "number of rows"), (32..64, "model")];
        match parts.into_iter().find(|(range, _)| differs(range.clone())) {
            Some((_, what)) => Err(UploadError::Other(what)),
            None if differs(64..96) => Err(UploadError::OtherKey),
            None => Ok(()),
        }
    }
}

/// Whether bytes begin as an upload does.
pub fn is_row_upload(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

/// Bytes of a row.
pub fn row_len(parameters: &RowParameters) -> usize {
    SEED_BYTES + (parameters.keys.primes as usize - 1) * packed_len(parameters.columns as usize)
}

/// Bytes of an upload; none where no memory has as many.
pub fn upload_len(parameters: &RowParameters, rows: u32) -> Option<usize> {
    row_len(parameters).checked_mul(rows as usize)?.checked_add(UPLOAD_HEADER_BYTES)
}

/// The masks of a row's seed, prime by prime.
pub(super) fn row_masks(ring: &RowRing, seed: &[u8; SEED_BYTES]) -> Masks {
    let seed = Domain::UploadMask.digest(&[&ring_bytes(ring.parameters()), seed]);
    Masks::new(&first_bytes(&seed))
}

/// Appends a row: `bodies` has m words of each prime but the last, prime by prime.
pub(super) fn write_row(
    seed: &[u8; SEED_BYTES],
    bodies: &[u64],
    columns: usize,
    bytes: &mut Vec<u8>,
) {
    bytes.extend(seed);
    for words in bodies.chunks(columns) {
        let start = bytes.len();
        bytes.resize(start + packed_len(columns), 0);
        pack(words, &mut bytes[start..]);
    }
}

/// Reads the bodies of a row modulo a prime, from all that follows its seed.
pub(super) fn read_bodies(
    packed: &[u8],
    ring: &RowRing,
    prime: usize,
    words: &mut [u64],
) -> Result<(), WordsError> {
    let length = packed_len(words.len());
    unpack(&packed[prime * length..][..length], ring.primes()[prime].modulus(), words)
}

/// What binds a reply to an upload.
pub(super) fn upload_digest(header: &[u8; UPLOAD_HEADER_BYTES], rows: &[u8]) -> [u8; DIGEST_BYTES] {
    Domain::Upload.digest(&[header, rows])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_other_uploads_are_refused() {
        let header = UploadHeader {
            seeds: SeedSource::Fresh,
            rows: 3,
            owner: OwnerId::from_bytes([1; 16]).unwrap(),
            model: ModelId::of(b"a model"),
            key: RowKeyId([5; DIGEST_BYTES]),
        };
        let bytes = header.to_bytes();
        assert_eq!(header.check(&bytes), Ok(()));
        let changed = |at: usize| {
            let mut bytes = bytes;
            bytes[at] ^= 1;
            header.check(&bytes)
        };
        for at in (0..10).chain([11]) {
            assert_eq!(changed(at), Err(UploadError::Format), "{at}");
        }
        assert_eq!(changed(10), Ok(()));
        let mut other = bytes;
        other[10] = 2;
        assert_eq!(header.check(&other), Err(UploadError::Format));
        let mut of_nobody = bytes;
        of_nobody[16..32].fill(0);
        assert_eq!(header.check(&of_nobody), Err(UploadError::Format));
        assert_eq!(changed(12), Err(UploadError::Other("number of rows")));
        assert_eq!(changed(20), Ok(()));
        assert_eq!(changed(40), Err(UploadError::Other("model")));
        assert_eq!(changed(95), Err(UploadError::OtherKey));
    }
}
