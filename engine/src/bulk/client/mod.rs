//! The data owner's side: columns encrypted, replies decrypted.
//!
//! Column j of a ring batch has the phase `b_j + a_j s = m_j + t e_j`: the mask a_j is expanded from
//! the ring batch's mask seed, the body b_j is uploaded, m_j has the rows and e_j is the error. Seeds
//! of masks and of noise are fresh and independent for each ring batch: a second body under one
//! mask would give the difference of two plaintexts away.

mod decrypt;
mod encrypt;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use thiserror::Error;
use zeroize::Zeroizing;

use super::parameters::Parameters;
use super::ring::Ring;
use super::secret::SecretKey;
use crate::rlwe::sampling::EntropyError;
use crate::rlwe::words::WordsError;
#[cfg(test)]
pub(super) use encrypt::Seeds;

/// Rows that cannot be encrypted, or replies that are none.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BulkClientError {
    /// The secret key is of another ring.
    #[error("the secret key has {found} coefficients, where the ring has {expected}")]
    Secret {
        /// Coefficients of the key.
        found: usize,
        /// N.
        expected: usize,
    },
    /// An integer that would wrap modulo t.
    #[error("row {row} of column {column} does not fit the plaintext modulus")]
    Range {
        /// Counted from 0.
        row: usize,
        /// Counted from 0.
        column: u32,
    },
    /// More than memory can hold.
    #[error("{rows} rows of {columns} columns are more than memory can hold")]
    TooLarge {
        /// Rows asked for.
        rows: usize,
        /// Columns, or outputs.
        columns: usize,
    },
    /// [`Stop`](crate::evaluator::Stop) said so.
    #[error("encryption was stopped")]
    Stopped,
    /// A reply of another length.
    #[error("the reply has {found} bytes, where {expected} are expected")]
    Length {
        /// Bytes of the reply.
        found: usize,
        /// Bytes of such a reply.
        expected: usize,
    },
    /// Shapes that no reply has.
    #[error("no reply has {primes} primes and degree {degree}")]
    Shape {
        /// Primes of the reply.
        primes: u32,
        /// Degree of its outputs.
        degree: u32,
    },
    /// Words of a reply that are no residues.
    #[error("reply: {0}")]
    Words(#[from] WordsError),
    /// No randomness.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
}

/// What outputs of a reply look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyShape {
    /// Rows of the upload.
    pub rows: usize,
    /// Outputs of each row.
    pub outputs: usize,
    /// D: an output has D + 1 components.
    pub degree: u32,
    /// The first primes, modulo which the components are.
    pub primes: u32,
}

/// Encrypts and decrypts under one secret. Its secrets are wiped when dropped, never printed.
pub struct BulkClient {
    ring: Arc<Ring>,
    /// s at the evaluation points, prime by prime.
    secret: Vec<Zeroizing<Vec<u64>>>,
    /// -s there.
    negative_secret: Vec<Zeroizing<Vec<u64>>>,
}

impl fmt::Debug for BulkClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BulkClient({:?})", self.ring.parameters())
    }
}

impl BulkClient {
    /// Of a secret whose dimension is the ring's.
    pub fn new(ring: Arc<Ring>, secret: &SecretKey) -> Result<Self, BulkClientError> {
        let (found, expected) = (secret.dimension(), ring.dimension());
        if found != expected {
            return Err(BulkClientError::Secret { found, expected });
        }
        let evaluated = ring.primes().iter().map(|prime| secret.evaluated(prime));
        let secret: Vec<_> = evaluated.collect();
        let negative = ring.primes().iter().zip(&secret).map(|(prime, words)| {
            let negative = words.iter().map(|&word| prime.montgomery.negate(word));
            Zeroizing::new(negative.collect())
        });
        Ok(Self { negative_secret: negative.collect(), secret, ring })
    }

    fn parameters(&self) -> &Parameters {
        self.ring.parameters()
    }
}
