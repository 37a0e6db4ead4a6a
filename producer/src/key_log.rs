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

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
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
/// Bytes of a record of `rows.uploads`.
const RECORD_BYTES: usize = 64;

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

    fn append(&self, key: RowKeyId, record: [[u8; 32]; 2]) -> Result<(), KeyLogError> {
        let _lock = self.lock()?;
        self.read(key)?;
        let path = self.folder.join(UPLOADS);
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        let mut append = || {
            let mut file = private(&mut options).open(&path)?;
            // What a process was writing when it died is cut off.
            let whole = file.metadata()?.len() / RECORD_BYTES as u64 * RECORD_BYTES as u64;
            file.set_len(whole)?;
            file.seek(SeekFrom::End(0))?;
            file.write_all(record.as_flattened())?;
            file.sync_data()
        };
        append().map_err(in_file(&path))
    }

    fn find(&self, key: RowKeyId, upload: Receipt) -> Result<Option<SentFile>, KeyLogError> {
        let _lock = self.lock()?;
        self.read(key)?;
        let path = self.folder.join(UPLOADS);
        let records = match std::fs::read(&path) {
            Ok(records) => records,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(KeyLogError::Io { path, source }),
        };
        let wanted = upload.0.to_bytes();
        let mut found = None;
        for record in records.as_chunks::<RECORD_BYTES>().0 {
            let (of, reply) = record.split_at(32);
            if of == wanted {
                let reply = *reply.first_chunk().expect("half of a record");
                let reply = (reply != [0; 32]).then(|| Digest::from_bytes(reply));
                found = Some(SentFile { reply });
            }
        }
        Ok(found)
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
        Ok(self.append(key, [upload.0.to_bytes(), [0; 32]])?)
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
        Ok(self.append(key, [upload.0.to_bytes(), reply.to_bytes()])?)
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

    use super::*;

    const KEY: RowKeyId = RowKeyId([7; 32]);

    fn begun() -> (tempfile::TempDir, KeyLogInFolder) {
        let folder = tempfile::tempdir().unwrap();
        let log = KeyLogInFolder::new(folder.path());
        log.begin(KEY).unwrap();
        (folder, log)
    }

    /// What a process that begins now finds.
    fn stored(folder: &tempfile::TempDir) -> ReplyCounts {
        KeyLogInFolder::new(folder.path()).counts(KEY).unwrap()
    }

    fn answer(log: &KeyLogInFolder, rows: u64) {
        log.count(KEY, &mut |counts| counts.answered_rows += rows).unwrap();
    }

    fn bad(log: &KeyLogInFolder) {
        log.count(KEY, &mut |counts| counts.bad += 1).unwrap();
    }

    /// Ends a log as a process does that is killed.
    fn kill(log: KeyLogInFolder) {
        std::mem::forget(log);
    }

    #[test]
    fn rows_are_on_the_disk_before_they_are_used() {
        let (folder, log) = begun();
        let mut writes = 0;
        let mut before = 0;
        for row in 1..=5000 {
            answer(&log, 1);
            let on_disk = stored(&folder).answered_rows;
            assert!((row..=row + MAX_BLOCK_ROWS).contains(&on_disk), "{row} {on_disk}");
            assert!(on_disk <= 2 * row, "{row} {on_disk}");
            writes += u32::from(on_disk != before);
            before = on_disk;
            assert_eq!(log.counts(KEY).unwrap().answered_rows, row);
        }
        assert!(writes < 20, "{writes}");
        drop(log);
        assert_eq!(stored(&folder), ReplyCounts { answered_rows: 5000, bad: 0 });
    }

    #[test]
    fn who_is_killed_loses_a_block_and_no_bad_reply() {
        let (folder, log) = begun();
        answer(&log, 3);
        answer(&log, 1);
        bad(&log);
        kill(log);
        let found = stored(&folder);
        assert_eq!(found.bad, 1);
        assert!((4..=8).contains(&found.answered_rows), "{found:?}");
    }

    #[test]
    fn processes_side_by_side_count_together() {
        let (folder, one) = begun();
        let other = KeyLogInFolder::new(folder.path());
        for _ in 0..100 {
            answer(&one, 1);
            answer(&other, 2);
            bad(&one);
        }
        assert_eq!(other.counts(KEY).unwrap().bad, 100);
        drop((one, other));
        assert_eq!(stored(&folder), ReplyCounts { answered_rows: 300, bad: 100 });
    }

    #[test]
    fn threads_side_by_side_count_together() {
        let (folder, log) = begun();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..200).for_each(|_| answer(&log, 1)));
            }
        });
        drop(log);
        assert_eq!(stored(&folder).answered_rows, 800);
    }

    #[test]
    fn no_more_rows_are_counted_ahead_than_there_may_be() {
        let (folder, log) = begun();
        answer(&log, MAX_ANSWERED_ROWS - 10);
        assert_eq!(stored(&folder).answered_rows, MAX_ANSWERED_ROWS);
        answer(&log, 10);
        assert_eq!(log.counts(KEY).unwrap().answered_rows, MAX_ANSWERED_ROWS);
        assert_eq!(stored(&folder).answered_rows, MAX_ANSWERED_ROWS);
    }

    #[test]
    fn a_log_that_is_missing_damaged_or_of_another_key_is_no_new_one() {
        let (folder, log) = begun();
        answer(&log, 1);
        let path = folder.path().join(STATE);
        let said = |log: &KeyLogInFolder| log.counts(KEY).unwrap_err().to_string();
        let text = std::fs::read_to_string(&path).unwrap();
        for damaged in ["", "{}", &text.replace("\"format_version\":1", "\"format_version\":2")] {
            std::fs::write(&path, damaged).unwrap();
            assert!(said(&log).contains("damaged"), "{}", said(&log));
        }
        std::fs::remove_file(&path).unwrap();
        assert!(said(&log).contains("keygen --rotate"), "{}", said(&log));
        assert!(log.count(KEY, &mut |_| panic!("nothing is decrypted")).is_err());
        assert!(log.sent_file(KEY, Receipt(Digest::of(b"upload"))).is_err());
        log.begin(RowKeyId([8; 32])).unwrap();
        assert!(said(&log).contains("another key"), "{}", said(&log));
    }

    #[test]
    fn nothing_is_kept_of_what_cannot_be_kept() {
        let (folder, log) = begun();
        std::fs::remove_dir_all(folder.path()).unwrap();
        assert!(log.count(KEY, &mut |_| panic!("nothing is decrypted")).is_err());
    }

    #[test]
    fn files_are_known_with_the_first_reply_to_them() {
        let (folder, log) = begun();
        let [one, two] = [b"one", b"two"].map(|upload| Receipt(Digest::of(upload)));
        let reply = Digest::of(b"reply");
        assert_eq!(log.find_file(KEY, one).unwrap(), None);
        log.sent_file(KEY, one).unwrap();
        // A process dies while it writes the next.
        let path = folder.path().join(UPLOADS);
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(&two.0.to_bytes()).unwrap();
        assert_eq!(log.find_file(KEY, two).unwrap(), None);
        log.sent_file(KEY, two).unwrap();
        log.answered_file(KEY, one, reply).unwrap();
        let later = KeyLogInFolder::new(folder.path());
        let found = |upload| later.find_file(KEY, upload).unwrap();
        assert_eq!(found(one), Some(SentFile { reply: Some(reply) }));
        assert_eq!(found(two), Some(SentFile { reply: None }));
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 3 * 64);
    }

    #[cfg(unix)]
    #[test]
    fn the_files_are_their_owners() {
        use std::os::unix::fs::PermissionsExt;
        let (folder, log) = begun();
        log.sent_file(KEY, Receipt(Digest::of(b"upload"))).unwrap();
        for name in [STATE, UPLOADS, LOCK] {
            let mode = std::fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }
}
