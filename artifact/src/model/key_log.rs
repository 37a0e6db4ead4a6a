//! What a key that wears out has been through.
//!
//! A key of the row form must not be used after some bad replies, nor for more than some rows: see
//! [`ReplyCounts`]. Whoever has the key keeps that beside it. A reply in a file says which upload it
//! answers; that these keys have encrypted it is known from here as well.

use std::collections::HashMap;

use cipherscore_engine::rows::client::{MAX_ANSWERED_ROWS, ReplyCounts};
use cipherscore_engine::rows::secret::RowKeyId;
use cipherscore_ids::Digest;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::EngineError;

/// Most files that are encrypted under a key: each has a row, and no more rows are answered.
pub const MAX_SENT_FILES: u64 = MAX_ANSWERED_ROWS;

/// [`MAX_SENT_FILES`] are reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "{MAX_SENT_FILES} files were encrypted under this key, each with a row at least, and no more rows \
     than that are answered: make new keys with `cipherscore keygen --rotate`"
)]
pub struct TooManyFiles;

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

/// Looks at what is known of a file's upload, if it is known, and at the counts, and may change these.
/// Says whether the reply at hand is the upload's answer from then on.
pub type AnswerStep<'a> = dyn FnMut(Option<SentFile>, &mut ReplyCounts) -> bool + 'a;

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
    /// It cannot be kept, or there are [`MAX_SENT_FILES`].
    fn sent_file(&self, key: RowKeyId, upload: Receipt) -> Result<(), EngineError>;

    /// As [`KeyLog::count`], of a reply to an upload that went out in a file. Whether it was answered,
    /// and that it is now, are one step: of two replies that come at the same time, the one that is
    /// second finds the first. Counts and answer are kept together, or neither is.
    ///
    /// # Errors
    /// As [`KeyLog::count`].
    fn answer_file(
        &self,
        key: RowKeyId,
        upload: Receipt,
        reply: Digest,
        step: &mut AnswerStep<'_>,
    ) -> Result<(), EngineError>;
}

/// For a key that is in memory and nowhere else. Its files take about 100 MB when there are as many as
/// there may be.
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
        let files = &mut self.0.lock().files;
        if files.len() as u64 >= MAX_SENT_FILES {
            return Err(TooManyFiles.into());
        }
        files.insert(upload, SentFile { reply: None });
        Ok(())
    }

    fn answer_file(
        &self,
        _key: RowKeyId,
        upload: Receipt,
        reply: Digest,
        step: &mut AnswerStep<'_>,
    ) -> Result<(), EngineError> {
        let InMemory { counts, files } = &mut *self.0.lock();
        if step(files.get(&upload).copied(), counts) {
            files.insert(upload, SentFile { reply: Some(reply) });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

    use super::*;

    #[test]
    fn files_in_memory_are_as_many_as_rows_may_be() {
        let (log, key) = (KeyLogInMemory::default(), RowKeyId([7; 32]));
        let send = |number: u64| {
            let mut digest = [0; 32];
            digest[..8].copy_from_slice(&number.to_le_bytes());
            log.sent_file(key, Receipt(Digest::from_bytes(digest)))
        };
        (0..MAX_SENT_FILES).for_each(|number| send(number).unwrap());
        let said = send(MAX_SENT_FILES).unwrap_err().to_string();
        assert!(said.contains("keygen --rotate"), "{said}");
    }
}
