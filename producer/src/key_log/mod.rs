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
//!
//! A bad reply to a file is in both files. `rows.state` names the file with the count, in one step, and
//! `rows.uploads` after it: whoever comes behind a process that was killed between them completes it.

mod ahead;
#[cfg(test)]
mod tests;
mod uploads;

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cipherscore_engine::rows::client::ReplyCounts;
use cipherscore_engine::rows::secret::RowKeyId;
use cipherscore_ids::Digest;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use self::ahead::Ahead;
use self::uploads::{Record, Uploads};
use crate::files::{Access, write_atomically};
use crate::model::{AnswerStep, EngineError, KeyLog, Receipt, TooManyFiles};

pub(crate) const STATE: &str = "rows.state";
pub(crate) const UPLOADS: &str = "rows.uploads";
const LOCK: &str = "rows.lock";

/// Version of `rows.state`.
const FORMAT_VERSION: u32 = 1;
/// Longest `rows.state`, in bytes.
const MAX_STATE_BYTES: u64 = 4096;
/// How long is waited while others have the lock: the decryption of a row takes less than a
/// millisecond, and the writing of new keys behind a passphrase seconds.
const LOCK_WAIT: Duration = Duration::from_secs(60);
/// How often it is asked for meanwhile.
const LOCK_POLL: Duration = Duration::from_millis(2);

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
    /// Another process has the lock, and does not give it back.
    #[error(
        "{} has been locked by another process for {} s: end the process that uses these keys (`fuser \
         {}` says which one it is), and repeat this", .path.display(), .waited.as_secs(), .path.display()
    )]
    Locked {
        /// Which file.
        path: PathBuf,
        /// How long it was waited for.
        waited: Duration,
    },
    /// No more files may be encrypted.
    #[error(transparent)]
    TooManyFiles(#[from] TooManyFiles),
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
    /// The file whose reply was counted last. `rows.uploads` has it too, unless a process was killed
    /// before it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answered_file: Option<AnsweredFile>,
}

/// A file's upload and the first reply to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AnsweredFile {
    upload: Receipt,
    reply: Digest,
}

/// The log of the key in a folder.
pub struct KeyLogInFolder {
    folder: PathBuf,
    own: Mutex<Own>,
}

/// What a process knows of the log by itself.
#[derive(Default)]
struct Own {
    /// The key that it is used for, to give back what is left.
    key: Option<RowKeyId>,
    ahead: Ahead,
    uploads: Uploads,
}

impl KeyLogInFolder {
    /// Names a folder; nothing is read or written yet.
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), own: Mutex::default() }
    }

    /// Begins the log of a new key, in the place of what is there.
    pub(crate) fn begin(&self, key: RowKeyId) -> Result<(), KeyLogError> {
        let _lock = self.lock()?;
        remove(&self.folder.join(UPLOADS))?;
        let key = Digest::from_bytes(key.0);
        self.write(State {
            format_version: FORMAT_VERSION,
            key,
            answered_rows: 0,
            bad_replies: 0,
            answered_file: None,
        })
    }

    /// Removes what is there of a key that has no log.
    pub(crate) fn remove(&self) -> Result<(), KeyLogError> {
        [STATE, UPLOADS, LOCK].iter().try_for_each(|name| remove(&self.folder.join(name)))
    }

    /// Unlocked when it is closed, however the process ends.
    pub(crate) fn lock(&self) -> Result<File, KeyLogError> {
        self.lock_within(LOCK_WAIT)
    }

    fn lock_within(&self, time: Duration) -> Result<File, KeyLogError> {
        let path = self.folder.join(LOCK);
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        let file = private(&mut options).open(&path).map_err(in_file(&path))?;
        let began = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::Error(error)) => return Err(in_file(&path)(error)),
                Err(TryLockError::WouldBlock) if began.elapsed() >= time => {
                    return Err(KeyLogError::Locked { path, waited: time });
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_POLL),
            }
        }
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
        let own = self.own.lock();
        let _lock = self.lock()?;
        Ok(counts(self.read(key)?, own.ahead.of_this_process()))
    }

    fn count_locked(
        &self,
        key: RowKeyId,
        step: &mut dyn FnMut(&mut ReplyCounts),
    ) -> Result<(), KeyLogError> {
        // What is its own is this process's, and the file everybody's.
        let mut own = self.own.lock();
        let _lock = self.lock()?;
        let state = self.read(key)?;
        self.step(&mut own, state, &mut |counts| {
            step(counts);
            None
        })
    }

    fn answer_locked(
        &self,
        key: RowKeyId,
        upload: Receipt,
        reply: Digest,
        step: &mut AnswerStep<'_>,
    ) -> Result<(), KeyLogError> {
        let mut own = self.own.lock();
        let _lock = self.lock()?;
        let state = self.read(key)?;
        self.catch_up(&mut own, state)?;
        let found = own.uploads.get(upload);
        self.step(&mut own, state, &mut |counts| {
            step(found, counts).then_some(AnsweredFile { upload, reply })
        })
    }

    /// One step behind both locks: its counts and the file that it answers are kept.
    fn step(
        &self,
        own: &mut Own,
        mut state: State,
        step: &mut dyn FnMut(&mut ReplyCounts) -> Option<AnsweredFile>,
    ) -> Result<(), KeyLogError> {
        let ahead = own.ahead.of_this_process();
        let before = counts(state, ahead);
        let mut after = before;
        let answered = step(&mut after);
        let (ahead, stored) = ahead.after(before, after);
        if let Some(ReplyCounts { answered_rows, bad }) = stored {
            state.answered_file = answered.or(state.answered_file);
            self.write(State { answered_rows, bad_replies: bad, ..state })?;
        }
        own.ahead = ahead;
        own.key = Some(RowKeyId(state.key.to_bytes()));
        answered.map_or(Ok(()), |answered| self.append(answered.into()))
    }

    /// Reads what other processes know of files, and completes what one was killed at.
    fn catch_up(&self, own: &mut Own, state: State) -> Result<(), KeyLogError> {
        let path = self.folder.join(UPLOADS);
        own.uploads.catch_up(&path).map_err(in_file(&path))?;
        let Some(answered) = state.answered_file else { return Ok(()) };
        match own.uploads.get(answered.upload) {
            Some(found) if found.reply.is_some() => Ok(()),
            _ => {
                self.append(answered.into())?;
                own.uploads.catch_up(&path).map_err(in_file(&path))
            }
        }
    }

    /// Gives back the rows that were counted ahead.
    fn give_back(&mut self) -> Result<(), KeyLogError> {
        let Own { key, ahead, .. } = self.own.get_mut();
        let left = ahead.of_this_process().left;
        let (Some(key), true) = (*key, left > 0) else { return Ok(()) };
        let _lock = self.lock()?;
        let state = self.read(key)?;
        let answered_rows = state.answered_rows.saturating_sub(left);
        self.write(State { answered_rows, ..state })
    }

    fn append(&self, record: Record) -> Result<(), KeyLogError> {
        let path = self.folder.join(UPLOADS);
        uploads::append(&path, record).map_err(in_file(&path))
    }

    fn send(&self, key: RowKeyId, upload: Receipt) -> Result<(), KeyLogError> {
        let mut own = self.own.lock();
        let _lock = self.lock()?;
        let state = self.read(key)?;
        self.catch_up(&mut own, state)?;
        match own.uploads.has_room() {
            true => self.append(Record { upload, reply: None }),
            false => Err(TooManyFiles.into()),
        }
    }
}

/// The counts, less what a process has counted ahead.
fn counts(state: State, ahead: Ahead) -> ReplyCounts {
    let answered_rows = state.answered_rows.saturating_sub(ahead.left);
    ReplyCounts { answered_rows, bad: state.bad_replies }
}

impl From<AnsweredFile> for Record {
    fn from(AnsweredFile { upload, reply }: AnsweredFile) -> Self {
        Self { upload, reply: Some(reply) }
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
        Ok(self.send(key, upload)?)
    }

    fn answer_file(
        &self,
        key: RowKeyId,
        upload: Receipt,
        reply: Digest,
        step: &mut AnswerStep<'_>,
    ) -> Result<(), EngineError> {
        Ok(self.answer_locked(key, upload, reply, step)?)
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
