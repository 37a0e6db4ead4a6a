//! What keys and values have in common on the wire: unpacked Cap'n Proto streams, payloads of
//! little-endian words, parameters that must equal the artifact's.

use capnp::message::{Reader, ReaderOptions};
use capnp::serialize::BufferSegments;
use cipherscore_engine::client_keys::ClientKeyError;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::concrete_capnp::{Compression, KeyType, modulus, payload, shape};

/// Words that one `Data` blob may hold: Cap'n Proto counts bytes in 29 bits.
pub(crate) const MAX_BLOB_WORDS: usize = ((1 << 29) - 2) / 8;

/// Pointers that a message may nest. Concrete's nest 8.
const MAX_NESTING: i32 = 16;

/// Bytes that are not what they should be.
#[derive(Debug, Error)]
pub enum WireError {
    /// Not Cap'n Proto, or with pointers that lead nowhere.
    #[error("not readable as Cap'n Proto: {0}")]
    Unreadable(#[from] capnp::Error),
    /// Well-formed, but not for this artifact.
    #[error("{what} does not belong to this artifact: {field} is {found}, {expected} is specified")]
    Mismatch {
        /// What was being read.
        what: &'static str,
        /// The field that differs.
        field: &'static str,
        /// Its value.
        found: String,
        /// The value that the artifact specifies.
        expected: String,
    },
    /// Keys that contradict themselves.
    #[error(transparent)]
    Keys(#[from] ClientKeyError),
}

/// Reads one message; every byte must belong to it.
pub(crate) fn read_message<'a>(
    what: &'static str,
    mut bytes: &'a [u8],
) -> Result<Reader<BufferSegments<&'a [u8]>>, WireError> {
    // Every word may be reached once, and a little more: amplification is what the limit is
    // there to prevent, and large keys are above the library's default.
    let options = ReaderOptions {
        traversal_limit_in_words: Some(bytes.len() / 8 * 2 + 1024),
        nesting_limit: MAX_NESTING,
    };
    let length = bytes.len();
    let message = capnp::serialize::read_message_from_flat_slice(&mut bytes, options)?;
    if bytes.is_empty() {
        return Ok(message);
    }
    Err(mismatch(what, "length in bytes", length, length - bytes.len()))
}

pub(crate) fn mismatch(
    what: &'static str,
    field: &'static str,
    found: impl ToString,
    expected: impl ToString,
) -> WireError {
    WireError::Mismatch { what, field, found: found.to_string(), expected: expected.to_string() }
}

/// Checks fields against the artifact and names the first that differs.
pub(crate) struct Expect(pub(crate) &'static str);

impl Expect {
    pub(crate) fn equal<T: PartialEq + std::fmt::Debug>(
        &self,
        field: &'static str,
        found: T,
        expected: T,
    ) -> Result<(), WireError> {
        if found == expected {
            return Ok(());
        }
        Err(mismatch(self.0, field, format!("{found:?}"), format!("{expected:?}")))
    }

    /// Concrete compares variances to 1e-40 too, since they travel through decimal JSON.
    pub(crate) fn variance(&self, found: f64, expected: f64) -> Result<(), WireError> {
        const TOLERANCE: f64 = 1e-40;
        match (found - expected).abs() <= TOLERANCE {
            true => Ok(()),
            false => Err(mismatch(self.0, "variance", found, expected)),
        }
    }

    pub(crate) fn enumerant<T: PartialEq + std::fmt::Debug>(
        &self,
        field: &'static str,
        found: Result<T, capnp::NotInSchema>,
        expected: T,
    ) -> Result<(), WireError> {
        match found {
            Ok(found) => self.equal(field, found, expected),
            Err(other) => Err(mismatch(self.0, field, other, format!("{expected:?}"))),
        }
    }

    pub(crate) fn native(&self, modulus: modulus::Reader<'_>) -> Result<(), WireError> {
        match modulus.get_modulus().which() {
            Ok(modulus::modulus::Native(_)) => Ok(()),
            _ => Err(mismatch(self.0, "modulus", "another one", "2^64")),
        }
    }

    pub(crate) fn binary(&self, key: Result<KeyType, capnp::NotInSchema>) -> Result<(), WireError> {
        self.enumerant("key type", key, KeyType::Binary)
    }

    pub(crate) fn seeded(
        &self,
        compression: Result<Compression, capnp::NotInSchema>,
    ) -> Result<(), WireError> {
        self.enumerant("compression", compression, Compression::Seed)
    }

    pub(crate) fn shape(
        &self,
        field: &'static str,
        shape: shape::Reader<'_>,
        expected: &[usize],
    ) -> Result<(), WireError> {
        let dimensions = shape.get_dimensions()?;
        if dimensions.iter().map(|size| size as usize).eq(expected.iter().copied()) {
            return Ok(());
        }
        // A stranger's list may be long: a few sizes say enough.
        let shown: Vec<u32> = dimensions.iter().take(8).collect();
        Err(mismatch(self.0, field, format!("{shown:?}"), format!("{expected:?}")))
    }

    /// The payload's words, which must be as many as specified: checked before anything of that
    /// size is allocated.
    pub(crate) fn words(
        &self,
        payload: payload::Reader<'_>,
        expected: usize,
    ) -> Result<Vec<u64>, WireError> {
        let blobs = payload.get_data()?;
        let mut found = 0usize;
        for blob in blobs {
            found = found.saturating_add(blob?.len());
        }
        self.equal("payload length in bytes", found, expected * 8)?;
        let mut words = Vec::with_capacity(expected);
        for blob in blobs {
            let blob = blob?;
            let (chunks, rest) = blob.as_chunks::<8>();
            self.equal("bytes beyond whole words in a blob", rest.len(), 0)?;
            words.extend(chunks.iter().map(|chunk| u64::from_le_bytes(*chunk)));
        }
        Ok(words)
    }
}

/// Writes words as one payload, in as few blobs as possible, as Concrete does.
///
/// `parts` are concatenated; only the split into blobs depends on their total length.
pub(crate) fn write_words(payload: payload::Builder<'_>, parts: &[&[u64]]) {
    let total: usize = parts.iter().map(|part| part.len()).sum();
    let mut words = parts.iter().copied().flatten();
    let blobs = total.div_ceil(MAX_BLOB_WORDS);
    let mut list = payload.init_data(length_u32(blobs));
    for blob in 0..blobs {
        let length = MAX_BLOB_WORDS.min(total - blob * MAX_BLOB_WORDS);
        // Wiped, since the words may be a client key's.
        let mut bytes = Zeroizing::new(vec![0u8; length * 8]);
        for (bytes, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(&mut words) {
            *bytes = word.to_le_bytes();
        }
        list.set(length_u32(blob), &bytes);
    }
}

/// Validated parameters keep every length far below 2^32.
pub(crate) fn length_u32(length: usize) -> u32 {
    u32::try_from(length).expect("validated parameters keep lengths below 2^32")
}

pub(crate) fn write_shape(mut shape: shape::Builder<'_>, sizes: &[usize]) {
    let mut dimensions = shape.reborrow().init_dimensions(length_u32(sizes.len()));
    for (index, &size) in (0u32..).zip(sizes) {
        dimensions.set(index, length_u32(size));
    }
}

pub(crate) fn write_native(modulus: modulus::Builder<'_>) {
    modulus.init_modulus().init_native();
}
