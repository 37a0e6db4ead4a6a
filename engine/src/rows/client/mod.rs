//! The data owner's side of the row engine: rows encrypted, replies decrypted.
//!
//! A reply is believed only so far as it goes: see [`ReplyCounts`] for what a worker could learn from
//! replies that it has made up.

mod decrypt;
mod encrypt;
#[cfg(any(test, feature = "prepared-rows"))]
mod ticket;

use std::fmt;
use std::sync::Arc;

use cipherscore_ids::{ModelId, OwnerId};
use thiserror::Error;
use zeroize::Zeroizing;

use super::domain::DIGEST_BYTES;
use super::layout::RowLayout;
use super::parameters::{InvalidRowParameters, RowParameters};
use super::ring::RowRing;
use super::secret::{RowKeyError, RowKeyId, RowSecretKey};
use crate::rlwe::sampling::EntropyError;
#[cfg(test)]
pub(super) use encrypt::RowSeeds;
#[cfg(any(test, feature = "prepared-rows"))]
pub use ticket::RowTicket;

/// Bad replies under one key after which it is not used any more.
///
/// A worker that makes up a reply can choose phases at the boundary between two messages, so that
/// whether the reply is good or bad depends on a few coefficients of the secret. Each bad reply ends
/// a series of such questions.
pub const MAX_BAD_REPLIES: u32 = 8;
/// Most rows that are answered under one key. It limits Q, the outputs over which what replies say of
/// a model beyond its scores adds up, and nothing else: a thousand made-up replies whose scores are
/// published are the whole key.
pub const MAX_ANSWERED_ROWS: u64 = 1 << 20;

/// Rows that cannot be encrypted, or replies that are none.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RowClientError {
    /// Parameters that no client should use.
    #[error(transparent)]
    Parameters(#[from] InvalidRowParameters),
    /// The secret key is of another ring or modulus.
    #[error(transparent)]
    Key(#[from] RowKeyError),
    /// Not as many bits as the model has columns.
    #[error("row {row} has {found} bits, where the model has {expected} columns")]
    Columns {
        /// From 0.
        row: usize,
        /// Bits of the row.
        found: usize,
        /// m.
        expected: usize,
    },
    /// No rows, or more than memory can hold.
    #[error("{0} rows cannot be encrypted at a time")]
    Rows(usize),
    /// Not a reply, another version of it, or one of other parameters or another number of rows.
    #[error("not a reply of the row engine to this model and so many rows")]
    Format,
    /// A reply that was damaged on its way.
    #[error("the reply is damaged: its digest is wrong")]
    Damaged,
    /// A reply to something else.
    #[error("the reply answers another upload")]
    OtherUpload,
    /// A reply that this key and model do not have. It counts.
    #[error(
        "bad reply: it decrypts to no scores (bad reply {bad} of at most {MAX_BAD_REPLIES} under this \
         key); do not tell those who run the worker, and do not send the rows again before you know why"
    )]
    Bad {
        /// Bad replies under this key, with this one.
        bad: u32,
    },
    /// [`MAX_BAD_REPLIES`] are reached.
    #[error(
        "{MAX_BAD_REPLIES} bad replies: the key is burned, as each may have told a dishonest worker \
         something of it; stop using that worker, and make a new key"
    )]
    Burned,
    /// More than [`MAX_ANSWERED_ROWS`], with these.
    #[error(
        "with these rows, more than {MAX_ANSWERED_ROWS} would be answered under this key: make a new one"
    )]
    UsedUp,
    /// No randomness.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
}

/// What a key has been through. Whoever keeps the key keeps this with it, on disk before the reply's
/// scores are given to anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplyCounts {
    /// Rows of good replies.
    pub answered_rows: u64,
    /// Bad replies.
    pub bad: u32,
}

impl ReplyCounts {
    /// Refuses a key that must not be used any more, or not for so many rows.
    pub fn require_usable(&self, rows: usize) -> Result<(), RowClientError> {
        if self.bad >= MAX_BAD_REPLIES {
            return Err(RowClientError::Burned);
        }
        match self.answered_rows.saturating_add(rows as u64) > MAX_ANSWERED_ROWS {
            true => Err(RowClientError::UsedUp),
            false => Ok(()),
        }
    }
}

/// Binds a reply to an upload; kept from encryption to decryption.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UploadDigest(pub [u8; DIGEST_BYTES]);

/// Rows on their way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowUpload {
    /// What is sent.
    pub bytes: Vec<u8>,
    /// What the reply is checked against.
    pub digest: UploadDigest,
}

/// Encrypts and decrypts for one model under one secret. Its secrets are wiped when dropped, never
/// printed.
pub struct RowClient {
    ring: Arc<RowRing>,
    parameters: RowParameters,
    layout: RowLayout,
    model: ModelId,
    owner: OwnerId,
    key: RowKeyId,
    /// s at the evaluation points, prime by prime.
    secret: Vec<Zeroizing<Vec<u64>>>,
}

impl fmt::Debug for RowClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RowClient({:?})", self.parameters)
    }
}

impl RowClient {
    /// Checks the parameters, which are a stranger's, and that the secret is of their ring.
    pub fn new(
        ring: Arc<RowRing>,
        parameters: RowParameters,
        model: ModelId,
        owner: OwnerId,
        secret: &RowSecretKey,
    ) -> Result<Self, RowClientError> {
        parameters.validate()?;
        if *ring.parameters() != parameters.keys || !secret.fits(&parameters.keys) {
            return Err(RowKeyError::Parameters.into());
        }
        let evaluated = ring.primes().iter().map(|prime| secret.evaluated(prime)).collect();
        Ok(Self {
            layout: parameters.layout(),
            key: secret.id(),
            secret: evaluated,
            ring,
            parameters,
            model,
            owner,
        })
    }

    /// What both sides have agreed on.
    pub fn parameters(&self) -> &RowParameters {
        &self.parameters
    }
}
