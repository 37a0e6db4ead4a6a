//! Why the store did not do it, classified where it happens.

use thiserror::Error;

use super::presence::MAX_PRESENCE_BYTES;
use super::{BlobKind, BlobName};
use crate::Tenant;
use crate::worker_name::MAX_WORKER_LENGTH;

/// Why the store did not do it. No text here names a password.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StoreError {
    /// Not in the store: never put there, removed, or expired.
    #[error("{name} is not in the store")]
    NotFound {
        /// Which blob.
        name: BlobName,
    },
    /// In the store, but not what was put there.
    #[error("{name} is damaged in the store: {reason}")]
    Damaged {
        /// Which blob.
        name: BlobName,
        /// What is wrong with it.
        reason: String,
    },
    /// Put there by a newer cipherscore.
    #[error("{name} has store format version {version}, which this program does not know")]
    UnknownVersion {
        /// Which blob.
        name: BlobName,
        /// Its version.
        version: u32,
    },
    /// Nothing to store.
    #[error("{name} is empty")]
    Empty {
        /// Which blob.
        name: BlobName,
    },
    /// Larger than it may be.
    #[error("{name} has {bytes} bytes; at most {limit} are allowed")]
    TooLarge {
        /// Which blob.
        name: BlobName,
        /// Its size.
        bytes: u64,
        /// What is allowed.
        limit: u64,
    },
    /// More blobs than a list holds.
    #[error("tenant {tenant} has more than {limit} blobs of kind {kind}; they are not listed")]
    TooMany {
        /// Whose.
        tenant: Tenant,
        /// Which.
        kind: BlobKind,
        /// What a list holds.
        limit: usize,
    },
    /// A worker that cannot be listed as it describes itself.
    #[error(
        "a worker is named by 1 to {MAX_WORKER_LENGTH} characters of a-z, A-Z, 0-9, -, . and _, \
         and describes itself in at most {MAX_PRESENCE_BYTES} bytes"
    )]
    InvalidPresence,
    /// Not to be reached, or not answering in time. Later it may.
    #[error("the store at {server} is not available: {reason}")]
    Unavailable {
        /// Address, without credentials.
        server: String,
        /// What happened.
        reason: String,
    },
    /// It has no memory left. Later it may.
    #[error("the store at {server} is full: {reason}")]
    Full {
        /// Address, without credentials.
        server: String,
        /// What it said.
        reason: String,
    },
    /// It does not let us, or we do not trust it: wrong password, no permission, or certificate.
    #[error("the store at {server} refuses: {reason}")]
    Refused {
        /// Address, without credentials.
        server: String,
        /// What it said.
        reason: String,
    },
    /// It answered something that makes no sense.
    #[error("the store at {server} gave an unexpected answer: {reason}")]
    Unexpected {
        /// Address, without credentials.
        server: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// The blob is not there; putting it there helps.
    NotFound,
    /// The blob there is no good; putting it there again helps.
    Damaged,
    /// The same may succeed later.
    Unavailable,
    /// It will not succeed as it is.
    Permanent,
}

impl StoreError {
    /// What to do about it.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::NotFound { .. } => ErrorClass::NotFound,
            Self::Damaged { .. } => ErrorClass::Damaged,
            Self::Unavailable { .. } | Self::Full { .. } => ErrorClass::Unavailable,
            Self::UnknownVersion { .. }
            | Self::Empty { .. }
            | Self::TooLarge { .. }
            | Self::TooMany { .. }
            | Self::InvalidPresence
            | Self::Refused { .. }
            | Self::Unexpected { .. } => ErrorClass::Permanent,
        }
    }

    pub(super) fn not_found(name: &BlobName) -> Self {
        Self::NotFound { name: name.clone() }
    }

    pub(super) fn damaged(name: &BlobName, reason: impl Into<String>) -> Self {
        Self::Damaged { name: name.clone(), reason: reason.into() }
    }
}
