//! What a key that wears out has been through.
//!
//! A key of the row form must not be used after some bad replies, nor for more than some rows: see
//! [`ReplyCounts`]. Whoever has the key keeps that beside it. A reply in a file says which upload it
//! answers; that these keys have encrypted it is known from here as well.

use std::collections::HashMap;

use cipherscore_engine::rows::client::ReplyCounts;
use cipherscore_engine::rows::secret::RowKeyId;
use cipherscore_ids::Digest;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::EngineError;

/// Binds a reply to the rows that it answers: kept from encryption to decryption, with the job. No
/// secret. None of a form whose replies name nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Receipt(pub Digest);

/// What is known of an upload that went out in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SentFile {
    /// Digest of the first reply to it that was decrypted, if one was.
    pub reply: Option<Digest>,
}

/// Keeps what a key has been through, for as long as there is the key.
pub trait KeyLog: Send + Sync {
    /// The counts as they are now.
    ///
    /// # Errors
    /// They are not known, or are of another key.
    fn counts(&self, key: RowKeyId) -> Result<ReplyCounts, EngineError>;

    /// Calls `step` once with the counts, while nobody else has them. What it makes of them is kept for
    /// good when this returns.
    ///
    /// # Errors
    /// As [`KeyLog::counts`], or they cannot be kept: then nothing of what `step` did may be told.
    fn count(
        &self,
        key: RowKeyId,
        step: &mut dyn FnMut(&mut ReplyCounts),
    ) -> Result<(), EngineError>;

    /// An upload goes out in a file.
    ///
    /// # Errors
    /// It cannot be kept.
    fn sent_file(&self, key: RowKeyId, upload: Receipt) -> Result<(), EngineError>;

    /// What is known of such an upload; none of one that is not known.
    ///
    /// # Errors
    /// It cannot be read.
    fn find_file(&self, key: RowKeyId, upload: Receipt) -> Result<Option<SentFile>, EngineError>;

    /// A file's upload is answered.
    ///
    /// # Errors
    /// It cannot be kept.
    fn answered_file(
        &self,
        key: RowKeyId,
        upload: Receipt,
        reply: Digest,
    ) -> Result<(), EngineError>;
}

/// For a key that is in memory and nowhere else.
#[derive(Default)]
pub struct KeyLogInMemory(Mutex<InMemory>);

#[derive(Default)]
struct InMemory {
    counts: ReplyCounts,
    files: HashMap<Receipt, SentFile>,
}

impl KeyLog for KeyLogInMemory {
    fn counts(&self, _key: RowKeyId) -> Result<ReplyCounts, EngineError> {
        Ok(self.0.lock().counts)
    }

    fn count(
        &self,
        _key: RowKeyId,
        step: &mut dyn FnMut(&mut ReplyCounts),
    ) -> Result<(), EngineError> {
        step(&mut self.0.lock().counts);
        Ok(())
    }

    fn sent_file(&self, _key: RowKeyId, upload: Receipt) -> Result<(), EngineError> {
        self.0.lock().files.insert(upload, SentFile { reply: None });
        Ok(())
    }

    fn find_file(&self, _key: RowKeyId, upload: Receipt) -> Result<Option<SentFile>, EngineError> {
        Ok(self.0.lock().files.get(&upload).copied())
    }

    fn answered_file(
        &self,
        _key: RowKeyId,
        upload: Receipt,
        reply: Digest,
    ) -> Result<(), EngineError> {
        self.0.lock().files.insert(upload, SentFile { reply: Some(reply) });
        Ok(())
    }
}
