//! What a key of the row form has been through, beside the key.
//!
//! | file | content |
//! |---|---|
//! | `rows.state` | JSON: which key, answered rows, bad replies; made with the key, replaced whole |
//! | `rows.uploads` | 64 bytes for each file that was encrypted (digest of the upload, zeros) and once more when it is answered (digest of the upload, SHA-256 of the reply); appended |
//! | `rows.lock` | locked by whoever reads or writes the two |
//!
//! Rows are counted ahead, in blocks that grow with what is used, so that a stream of events does not
//! wait for the disk at every row: a process that is killed loses what is left of its block. Bad
//! replies are counted one by one, before anything is said of them.

#[cfg(test)]
mod tests;
mod uploads;

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use cipherscore_engine::rows::client::{MAX_ANSWERED_ROWS, ReplyCounts};
use cipherscore_engine::rows::secret::RowKeyId;
use cipherscore_ids::Digest;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::files::{Access, write_atomically};
use crate::model::{EngineError, KeyLog, Receipt, SentFile};

pub(crate) const STATE: &str = "rows.state";
pub(crate) const UPLOADS: &str = "rows.uploads";
const LOCK: &str = "rows.lock";

/// Version of `rows.state`.
const FORMAT_VERSION: u32 = 1;
/// Most rows that are counted ahead.
const MAX_BLOCK_ROWS: u64 = 1024;
/// Longest `rows.state`, in bytes.
const MAX_STATE_BYTES: u64 = 4096;

/// Why it is not known what a key has been through, or cannot be kept.
#[derive(Debug, Error)]
pub enum KeyLogError {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It was made with the key.
    #[error(
        "{0} is missing, which was made with the keys and counts what must be limited: how often this \
         key was used is not known any more. Make new keys with `cipherscore keygen --rotate`"
    )]
    Missing(PathBuf),
    /// Not what is written here.
    #[error("{path} is damaged: {reason}. Make new keys with `cipherscore keygen --rotate`")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The keys were replaced meanwhile.
    #[error("{0} is of another key than the one in use: the keys of the folder were replaced")]
    OtherKey(PathBuf),
}

/// `rows.state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    format_version: u32,
    /// Id of the key.
    key: Digest,
    /// Of good replies, with those that are counted ahead.
    answered_rows: u64,
    bad_replies: u32,
}

/// Rows that this process has counted ahead.
#[derive(Default)]
struct Block {
    left: u64,
    /// Rows of this process.
    used: u64,
}

/// The log of the key in a folder.
pub struct KeyLogInFolder {
    folder: PathBuf,
    block: Mutex<Block>,
    /// The key that it is used for, to give back what is left.
    key: Mutex<Option<RowKeyId>>,
}

impl KeyLogInFolder {
    /// Names a folder; nothing is read or written yet.
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), block: Mutex::default(), key: Mutex::default() }
    }

    /// Begins the log of a new key, in the place of what is there.
    pub(crate) fn begin(&self, key: RowKeyId) -> Result<(), KeyLogError> {
        let _lock = self.lock()?;
        remove(&self.folder.join(UPLOADS))?;
        let key = Digest::from_bytes(key.0);
        self.write(State { format_version: FORMAT_VERSION, key, answered_rows: 0, bad_replies: 0 })
    }

    /// Removes what is there of a key that has no log.
    pub(crate) fn remove(&self) -> Result<(), KeyLogError> {
        [STATE, UPLOADS, LOCK].iter().try_for_each(|name| remove(&self.folder.join(name)))
    }

    /// Unlocked when it is closed, however the process ends.
    pub(crate) fn lock(&self) -> Result<File, KeyLogError> {
        let path = self.folder.join(LOCK);
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        let locked = private(&mut options).open(&path).and_then(|file| {
            file.lock()?;
            Ok(file)
        });
        locked.map_err(in_file(&path))
    }

    fn read(&self, key: RowKeyId) -> Result<State, KeyLogError> {
        let path = self.folder.join(STATE);
        let mut text = Vec::new();
        match File::open(&path) {
            Ok(file) => {
                file.take(MAX_STATE_BYTES).read_to_end(&mut text).map_err(in_file(&path))?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(KeyLogError::Missing(path));
            }
            Err(source) => return Err(KeyLogError::Io { path, source }),
        };
        let damaged = |reason: String| KeyLogError::Damaged { path: path.clone(), reason };
        let state: State =
            serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        if state.format_version != FORMAT_VERSION {
            return Err(damaged(format!("version {}", state.format_version)));
        }
        match state.key == Digest::from_bytes(key.0) {
            true => Ok(state),
            false => Err(KeyLogError::OtherKey(path)),
        }
    }

    fn write(&self, state: State) -> Result<(), KeyLogError> {
        let path = self.folder.join(STATE);
        let mut text = serde_json::to_vec(&state).expect("a state is JSON");
        text.push(b'\n');
        write_atomically(&path, Access::Owner, |file| file.write_all(&text)).map_err(in_file(&path))
    }

    /// The counts as they are now, less what this process has counted ahead.
    pub(crate) fn counts_of(&self, key: RowKeyId) -> Result<ReplyCounts, KeyLogError> {
        let block = self.block.lock();
        let _lock = self.lock()?;
        let state = self.read(key)?;
        let answered_rows = state.answered_rows.saturating_sub(block.left);
        Ok(ReplyCounts { answered_rows, bad: state.bad_replies })
    }

    fn count_locked(
        &self,
        key: RowKeyId,
        step: &mut dyn FnMut(&mut ReplyCounts),
    ) -> Result<(), KeyLogError> {
        // The block is this process's, and the file everybody's.
        let mut block = self.block.lock();
        let _lock = self.lock()?;
        let mut state = self.read(key)?;
        *self.key.lock() = Some(key);
        let before = state.answered_rows.saturating_sub(block.left);
        let mut counts = ReplyCounts { answered_rows: before, bad: state.bad_replies };
        step(&mut counts);
        let rows = counts.answered_rows.saturating_sub(before);
        let is_bad = counts.bad != state.bad_replies;
        if !is_bad && rows <= block.left {
            block.left -= rows;
            block.used += rows;
            return Ok(());
        }
        state.bad_replies = counts.bad;
        let mut left = block.left.saturating_sub(rows);
        if rows > block.left {
            // As many as were used, so that a short process leaves few behind when it is killed.
            let ahead = (block.used + rows).min(MAX_BLOCK_ROWS);
            left = ahead.min(MAX_ANSWERED_ROWS.saturating_sub(counts.answered_rows));
        }
        state.answered_rows = counts.answered_rows.saturating_add(left);
        self.write(state)?;
        block.left = left;
        block.used += rows;
        Ok(())
    }

    /// Gives back the rows that were counted ahead.
    fn give_back(&mut self) -> Result<(), KeyLogError> {
        let left = self.block.get_mut().left;
        let (Some(key), true) = (*self.key.get_mut(), left > 0) else { return Ok(()) };
        let _lock = self.lock()?;
        let state = self.read(key)?;
        let answered_rows = state.answered_rows.saturating_sub(left);
        self.write(State { answered_rows, ..state })
    }

    fn append(&self, key: RowKeyId, record: uploads::Record) -> Result<(), KeyLogError> {
        let _lock = self.lock()?;
        self.read(key)?;
        let path = self.folder.join(UPLOADS);
        uploads::append(&path, record).map_err(in_file(&path))
    }

    fn find(&self, key: RowKeyId, upload: Receipt) -> Result<Option<SentFile>, KeyLogError> {
        let _lock = self.lock()?;
        self.read(key)?;
        let path = self.folder.join(UPLOADS);
        uploads::find(&path, upload).map_err(in_file(&path))
    }
}

/// A crash leaves the rows counted that are given back here.
impl Drop for KeyLogInFolder {
    fn drop(&mut self) {
        // What cannot be given back is lost, and nothing else.
        let _ = self.give_back();
    }
}

impl KeyLog for KeyLogInFolder {
    fn counts(&self, key: RowKeyId) -> Result<ReplyCounts, EngineError> {
        Ok(self.counts_of(key)?)
    }

    fn count(
        &self,
        key: RowKeyId,
        step: &mut dyn FnMut(&mut ReplyCounts),
    ) -> Result<(), EngineError> {
        Ok(self.count_locked(key, step)?)
    }

    fn sent_file(&self, key: RowKeyId, upload: Receipt) -> Result<(), EngineError> {
        Ok(self.append(key, uploads::Record { upload, reply: None })?)
    }

    fn find_file(&self, key: RowKeyId, upload: Receipt) -> Result<Option<SentFile>, EngineError> {
        Ok(self.find(key, upload)?)
    }

    fn answered_file(
        &self,
        key: RowKeyId,
        upload: Receipt,
        reply: Digest,
    ) -> Result<(), EngineError> {
        Ok(self.append(key, uploads::Record { upload, reply: Some(reply) })?)
    }
}

fn in_file(path: &Path) -> impl FnOnce(io::Error) -> KeyLogError {
    |source| KeyLogError::Io { path: path.to_owned(), source }
}

fn remove(path: &Path) -> Result<(), KeyLogError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(in_file(path)(source)),
        _ => Ok(()),
    }
}

/// A file that is made where there is none, for its owner's eyes only.
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    options.create(true).truncate(false)
}
