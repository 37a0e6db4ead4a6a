//! The data owner's secret of the row engine.
//!
//! It belongs to one ring and one modulus, and to no other engine: keys of two of them under one
//! secret may be differences of samples that share their masks.

use std::fmt;

use thiserror::Error;
use zeroize::Zeroizing;

use super::domain::{DIGEST_BYTES, Domain, ring_bytes};
use super::parameters::RowKeyParameters;
use crate::rlwe::prime_ring::PrimeRing;
use crate::rlwe::sampling::{EntropyError, Noise};
use crate::rlwe::words::WordsError;

/// First bytes of a secret key.
pub const ROW_SECRET_MAGIC: [u8; 8] = *b"CSROWSSK";
pub(super) const VERSION: u32 = 1;
/// Bytes before a secret key's coefficients: magic, version, N, number of primes.
const HEADER_BYTES: usize = 20;

/// Keys of the row engine that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RowKeyError {
    /// Not of this format, or of another version of it.
    #[error("not {0} of the row engine, or one of another version")]
    Format(&'static str),
    /// Made for other parameters.
    #[error("the key was made for other parameters")]
    Parameters,
    /// Too few bytes, or too many.
    #[error("the key has {found} bytes, where {expected} are expected")]
    Length {
        /// How many there are.
        found: usize,
        /// How many there should be.
        expected: usize,
    },
    /// A coefficient of a secret that is not -1, 0 or 1.
    #[error("the secret key is not ternary: it is damaged")]
    NotTernary,
    /// Words that are no residues.
    #[error("evaluation key: {0}")]
    Words(#[from] WordsError),
}

/// Names a secret, and every evaluation key that is made of it, whatever its steps; a hash of the
/// secret, its ring and its modulus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RowKeyId(pub [u8; DIGEST_BYTES]);

/// A uniform ternary element of one ring with one modulus. Wiped when dropped, never printed.
#[derive(Clone)]
pub struct RowSecretKey {
    ring_dimension: u32,
    primes: u32,
    coefficients: Zeroizing<Vec<i64>>,
}

impl fmt::Debug for RowSecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RowSecretKey({} coefficients)", self.coefficients.len())
    }
}

impl RowSecretKey {
    /// Draws a fresh one.
    pub fn generate(parameters: &RowKeyParameters) -> Result<Self, EntropyError> {
        Ok(Self::draw(parameters, &Noise::fresh()?))
    }

    pub(super) fn draw(parameters: &RowKeyParameters, noise: &Noise) -> Self {
        let mut coefficients = Zeroizing::new(vec![0; parameters.dimension()]);
        noise.stream(0).ternary(&mut coefficients);
        let RowKeyParameters { ring_dimension, primes, .. } = *parameters;
        Self { ring_dimension, primes, coefficients }
    }

    /// Whether it is of this ring and modulus.
    pub fn fits(&self, parameters: &RowKeyParameters) -> bool {
        (self.ring_dimension, self.primes) == (parameters.ring_dimension, parameters.primes)
    }

    /// Magic, version, N, number of primes, and a byte for each coefficient: 255, 0 or 1. Handle with
    /// care.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(HEADER_BYTES + self.coefficients.len()));
        bytes.extend(ROW_SECRET_MAGIC);
        for word in [VERSION, self.ring_dimension, self.primes] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(self.coefficients.iter().map(|coefficient| coefficient.to_le_bytes()[0]));
        bytes
    }

    /// Reads what [`Self::to_bytes`] writes, for the same ring and modulus.
    pub fn from_bytes(bytes: &[u8], parameters: &RowKeyParameters) -> Result<Self, RowKeyError> {
        const WHAT: RowKeyError = RowKeyError::Format("a secret key");
        let (header, coefficients) = bytes.split_at_checked(HEADER_BYTES).ok_or(WHAT)?;
        if header[..8] != ROW_SECRET_MAGIC || header[8..12] != VERSION.to_le_bytes() {
            return Err(WHAT);
        }
        if header[12..] != ring_bytes(parameters) {
            return Err(RowKeyError::Parameters);
        }
        let expected = HEADER_BYTES + parameters.dimension();
        if bytes.len() != expected {
            return Err(RowKeyError::Length { found: bytes.len(), expected });
        }
        let signed = coefficients.iter().map(|&byte| i64::from(byte.cast_signed()));
        let coefficients = Zeroizing::new(signed.collect::<Vec<_>>());
        let wrong = coefficients.iter().fold(false, |wrong, c| wrong | (c.unsigned_abs() > 1));
        let RowKeyParameters { ring_dimension, primes, .. } = *parameters;
        match wrong {
            true => Err(RowKeyError::NotTernary),
            false => Ok(Self { ring_dimension, primes, coefficients }),
        }
    }

    /// A hash of the secret.
    pub fn id(&self) -> RowKeyId {
        RowKeyId(Domain::KeyId.digest(&[&self.to_bytes()]))
    }

    /// The secret at the evaluation points of a prime.
    pub(super) fn evaluated(&self, prime: &PrimeRing) -> Zeroizing<Vec<u64>> {
        let mut words = Zeroizing::new(vec![0; self.coefficients.len()]);
        prime.residues(&self.coefficients, &mut words);
        prime.forward(&mut words);
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::tests::models::{fixed_secret, parameters};

    #[test]
    fn secrets_are_fresh_and_survive_bytes() {
        let parameters = parameters().keys;
        let secret = RowSecretKey::generate(&parameters).unwrap();
        let bytes = secret.to_bytes();
        assert_eq!(bytes.len(), 20 + 8192);
        let read = RowSecretKey::from_bytes(&bytes, &parameters).unwrap();
        assert_eq!((read.id(), read.to_bytes()), (secret.id(), bytes));
        assert_ne!(RowSecretKey::generate(&parameters).unwrap().id(), secret.id());
        assert_eq!(format!("{secret:?}"), "RowSecretKey(8192 coefficients)");
    }

    #[test]
    fn other_secret_keys_are_refused() {
        let parameters = parameters().keys;
        let bytes = fixed_secret(&parameters).to_bytes().to_vec();
        let read = |bytes: &[u8]| RowSecretKey::from_bytes(bytes, &parameters).map(|_| ());
        let changed = |at: usize, to: u8| {
            let mut bytes = bytes.clone();
            bytes[at] = to;
            read(&bytes)
        };
        let format = Err(RowKeyError::Format("a secret key"));
        assert_eq!(read(&bytes), Ok(()));
        assert_eq!((read(&[]), read(&bytes[..19])), (format.clone(), format.clone()));
        assert_eq!((changed(0, b'X'), changed(8, 2)), (format.clone(), format));
        // Another ring, and another modulus.
        assert_eq!(changed(13, 16), Err(RowKeyError::Parameters));
        assert_eq!(changed(16, 4), Err(RowKeyError::Parameters));
        for (at, wrong) in [(20, 2), (20, 254), (8211, 128), (2000, 127)] {
            assert_eq!(changed(at, wrong), Err(RowKeyError::NotTernary));
        }
        let longer = [bytes.as_slice(), &[0]].concat();
        for (bytes, found) in [(&bytes[..20], 20), (&bytes[..8211], 8211), (&longer, 8213)] {
            assert_eq!(read(bytes), Err(RowKeyError::Length { found, expected: 8212 }));
        }
    }
}
