//! Where payloads come from, and where outputs go.

use std::sync::Arc;
use std::time::Duration;

use cipherscore_common::OwnerId;
use cipherscore_common::message::MAX_PLANNED;

use super::{Journal, Target};
use crate::key_folder::KeyFolderError;
use crate::model::{Encrypted, Encryption, EncryptionError, Finality, Receipt};

/// Encrypted rows of one job.
pub(crate) struct Payload {
    pub(crate) rows: u32,
    /// Whose client key encrypted them, where that is known.
    pub(crate) owner: Option<OwnerId>,
    pub(crate) bytes: Vec<u8>,
    /// What the outputs are read with, if anything is needed.
    pub(crate) receipt: Option<Receipt>,
    /// How long it is planned to take on one thread, where that is known.
    pub(crate) planned: Option<Duration>,
}

impl Payload {
    /// Of rows that were encrypted here.
    pub(crate) fn new(encryption: &dyn Encryption, rows: u32, encrypted: Encrypted) -> Self {
        let Encrypted { body, receipt } = encrypted;
        let cost = encryption.model().cost(rows.into());
        let planned = cost.map(|cost| Duration::from_secs_f64(cost.microseconds / 1e6));
        let planned = planned.filter(|planned| *planned <= MAX_PLANNED);
        Self { rows, owner: encryption.owner(), bytes: body, receipt, planned }
    }
}

/// Where the payloads of a unit's jobs come from.
pub(crate) struct Source<E> {
    pub(crate) target: Target,
    /// Size of a payload, about.
    pub(crate) payload_bytes: u64,
    /// Makes one; each time anew.
    pub(crate) make: Arc<dyn Fn() -> Result<Payload, E> + Send + Sync>,
}

/// Reads outputs of a payload with such a receipt, or says why they are none.
pub(crate) type Read<T> =
    Arc<dyn Fn(Vec<u8>, Option<Receipt>) -> Result<T, Unreadable> + Send + Sync>;

/// Why outputs are none.
pub(crate) enum Unreadable {
    /// A new job may have others.
    Passing(String),
    /// A new job of the same rows must not follow: whoever has made a bad reply would see it.
    Final(String, Finality),
    /// Nothing is known of them: they are for a process that can keep what the key has been through.
    NoLog(KeyFolderError),
}

impl From<String> for Unreadable {
    fn from(reason: String) -> Self {
        Self::Passing(reason)
    }
}

impl From<EncryptionError> for Unreadable {
    fn from(error: EncryptionError) -> Self {
        let finality = error.finality();
        match (error, finality) {
            (EncryptionError::KeyLog(reason), _) => Self::NoLog(KeyFolderError::NoLog(reason)),
            (error, Some(finality)) => Self::Final(error.to_string(), finality),
            (error, None) => Self::Passing(error.to_string()),
        }
    }
}

/// Where the outputs of a unit's jobs go.
pub(crate) struct Sink<J: Journal> {
    pub(crate) read: Read<J::Results>,
    pub(crate) journal: J,
}
