//! `OUTPUT.job`: which job an output file waits for, so that a submission that was interrupted is
//! gone on with.
//!
//! A note is written before its job is published, and removed when the output is on the disk, before
//! the reply is acknowledged. Whoever finds a note publishes the same job again, under its id: workers
//! do nothing twice, and a reply that came meanwhile waits in the reply queue, which is the same as
//! before.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use cipherscore_common::message::Timestamp;
use cipherscore_common::{Digest, EvaluationKeyId, JobId, ModelId, OwnerId, Tenant};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Longest note, in bytes.
const MAX_NOTE_BYTES: u64 = 4096;

/// Why a note cannot be used.
#[derive(Debug, Error)]
pub enum NoteError {
    /// It cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process waits for the same output.
    #[error("{0} is in use: another submission writes the same output. Wait for it, or stop it")]
    InUse(PathBuf),
    /// Not a note.
    #[error("{path} is not a note of `submit`: {reason}. Remove it, or give another output")]
    NotANote {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A note of something else.
    #[error(
        "{path} waits for other rows, another model or another key. Repeat the command that made \
         it, give another output, or remove it to begin anew"
    )]
    Other {
        /// Which file.
        path: PathBuf,
    },
}

/// A job that was about to be published, or was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// Which job.
    pub job: JobId,
    /// Of which model.
    pub model_id: ModelId,
    /// Under which key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<EvaluationKeyId>,
    /// Under whose client key, where the rows say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner_id: Option<OwnerId>,
    /// Whose.
    pub tenant: Tenant,
    /// Its payload.
    pub payload_sha256: Digest,
    /// Names the reply queue.
    pub client: String,
    /// When workers leave it alone, in milliseconds since 1970.
    pub deadline_ms: u64,
}

impl Note {
    /// When workers leave the job alone.
    pub fn deadline(&self) -> Timestamp {
        Timestamp::from_millis(self.deadline_ms)
    }

    /// Whether both are of the same rows for the same model under the same key.
    fn is_of_the_same(&self, other: &Self) -> bool {
        (self.model_id, self.key_id, &self.tenant, self.payload_sha256)
            == (other.model_id, other.key_id, &other.tenant, other.payload_sha256)
    }
}

/// The place of a note. Locked while it is open, however the process ends.
#[derive(Debug)]
pub struct NoteFile {
    path: PathBuf,
    file: File,
    found: Option<Note>,
}

impl NoteFile {
    /// Opens the note of an output, or makes an empty one.
    pub fn open(output: &Path) -> Result<Self, NoteError> {
        let mut name = output.as_os_str().to_owned();
        name.push(".job");
        let path = PathBuf::from(name);
        let in_note = |source| NoteError::Io { path: path.clone(), source };
        let mut file = loop {
            let file = open(&path).map_err(in_note)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(NoteError::InUse(path)),
                Err(TryLockError::Error(source)) => return Err(in_note(source)),
            }
            // Its last owner may have removed it between the two steps.
            if is_linked(&file).map_err(in_note)? {
                break file;
            }
        };
        let mut text = Vec::new();
        (&mut file).take(MAX_NOTE_BYTES + 1).read_to_end(&mut text).map_err(in_note)?;
        if text.is_empty() {
            return Ok(Self { path, file, found: None });
        }
        let note = match text.len() as u64 > MAX_NOTE_BYTES {
            true => Err(format!("more than {MAX_NOTE_BYTES} bytes")),
            false => serde_json::from_slice(&text).map_err(|error| error.to_string()),
        };
        match note {
            Ok(note) => Ok(Self { path, file, found: Some(note) }),
            Err(reason) => Err(NoteError::NotANote { path, reason }),
        }
    }

    /// What an earlier process left, unless workers leave it alone by now: nobody answers it then.
    pub fn found(&self, now: Timestamp) -> Option<&Note> {
        self.found.as_ref().filter(|note| note.deadline() > now)
    }

    /// The job to publish: the one that was found, if it is of the same rows, or `new`, which is on
    /// the disk then.
    pub fn settle_on(&mut self, new: Note) -> Result<&Note, NoteError> {
        let now = Timestamp::now();
        match self.found.take_if(|found| found.deadline() > now) {
            Some(found) if found.is_of_the_same(&new) => Ok(self.found.insert(found)),
            Some(_) => Err(NoteError::Other { path: self.path.clone() }),
            None => self.replace(new),
        }
    }

    /// Notes another job, which is on the disk then: no answer to the one before will do.
    pub fn replace(&mut self, new: Note) -> Result<&Note, NoteError> {
        let written = self.write(&new);
        written.map_err(|source| NoteError::Io { path: self.path.clone(), source })?;
        Ok(self.found.insert(new))
    }

    fn write(&mut self, note: &Note) -> io::Result<()> {
        let text = serde_json::to_vec(note).expect("notes are JSON");
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        let written = self.file.write_all(&text).and_then(|()| self.file.sync_data());
        written.inspect_err(|_| {
            // On a full disk, a part of it: nobody could go on with that, and no job was published.
            let _ = self.file.set_len(0);
        })
    }

    /// The output is on the disk, or none will come.
    pub fn remove(self) -> Result<(), NoteError> {
        std::fs::remove_file(&self.path)
            .map_err(|source| NoteError::Io { path: self.path.clone(), source })
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    options.open(path)
}

#[cfg(unix)]
fn is_linked(file: &File) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    Ok(file.metadata()?.nlink() > 0)
}

#[cfg(not(unix))]
fn is_linked(_file: &File) -> io::Result<bool> {
    Ok(true)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

    use std::time::Duration;

    use super::*;

    fn note(payload: u8, lifetime: Duration) -> Note {
        let digest = |byte| Digest::from_bytes([byte; 32]);
        Note {
            job: JobId::random(),
            model_id: ModelId::new(digest(1)),
            key_id: Some(EvaluationKeyId::new(digest(2))),
            owner_id: None,
            tenant: "tenant".parse().unwrap(),
            payload_sha256: digest(payload),
            client: "client".into(),
            deadline_ms: Timestamp::now().after(lifetime).millis(),
        }
    }

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn a_job_is_gone_on_with_until_its_deadline() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("result.bin");
        let first = note(3, LONG);
        let mut file = NoteFile::open(&output).unwrap();
        assert_eq!(file.settle_on(first.clone()).unwrap(), &first);
        assert!(matches!(NoteFile::open(&output), Err(NoteError::InUse(_))));
        drop(file);

        let mut file = NoteFile::open(&output).unwrap();
        assert_eq!(file.found(Timestamp::now()), Some(&first));
        assert_eq!(file.found(first.deadline()), None);
        assert_eq!(file.settle_on(note(3, LONG)).unwrap(), &first);
        drop(file);

        let mut file = NoteFile::open(&output).unwrap();
        assert!(matches!(file.settle_on(note(4, LONG)), Err(NoteError::Other { .. })));
        drop(file);

        NoteFile::open(&output).unwrap().remove().unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_job_whose_time_is_over_is_a_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("result.bin");
        let past = note(3, Duration::ZERO);
        NoteFile::open(&output).unwrap().settle_on(past.clone()).unwrap();
        let mut file = NoteFile::open(&output).unwrap();
        let new = note(4, LONG);
        assert_eq!(file.settle_on(new.clone()).unwrap(), &new);
        drop(file);
        let text = std::fs::read(folder.path().join("result.bin.job")).unwrap();
        assert_eq!(serde_json::from_slice::<Note>(&text).unwrap(), new);
    }

    #[test]
    fn other_files_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (output, path) = (folder.path().join("a"), folder.path().join("a.job"));
        for text in ["my own notes", "{}", &" ".repeat(5000)] {
            std::fs::write(&path, text).unwrap();
            let error = NoteFile::open(&output).unwrap_err();
            assert!(matches!(&error, NoteError::NotANote { .. }), "{error}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }
}
