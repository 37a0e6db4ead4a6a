//! The folder that a run can be gone on from: `OUTPUT.ledger`, for its owner's eyes only.
//!
//! | file | content |
//! |---|---|
//! | `jobs.jsonl` | one record a line, appended: what became of which job |
//! | `results.bin` | decrypted integers, 64 bits each, little-endian, every row at its place |
//! | `lock` | locked while a run has the folder |
//!
//! A part of the input counts as finished when its record is on the disk, which comes after its
//! results. What the process was writing when it died is cut off. Parts that are finished at the
//! same time wait for the disk at the same time: no lock is held meanwhile.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cipherscore_common::JobId;
use parking_lot::Mutex;

pub use super::ledger_error::LedgerError;
use super::ledger_error::io_error;
use super::past::{Found, Parts, Past};
use super::record::{Difference, Header, Record};
use crate::matrix::Matrix;
use crate::model::Receipt;

const JOBS: &str = "jobs.jsonl";
const RESULTS: &str = "results.bin";
const LOCK: &str = "lock";

/// Longest reason that is kept, in characters.
const MAX_REASON_CHARS: usize = 1000;
/// How long another run's lock is waited for.
const LOCK_PATIENCE: Duration = Duration::from_secs(4);

pub(super) struct Ledger {
    folder: PathBuf,
    header: Header,
    jobs: Mutex<Jobs>,
    results: Mutex<File>,
    /// The same two files, to wait for the disk.
    jobs_disk: File,
    results_disk: File,
    /// Unlocked when it is closed, however the process ends.
    _lock: File,
}

/// `jobs.jsonl`.
struct Jobs {
    file: File,
    /// Parts that this run finished, or that failed for good. Behind the same lock as the file, so that no job is begun
    /// for a part after its end.
    ended: Parts,
}

impl Jobs {
    fn append(&mut self, record: &Record) -> io::Result<()> {
        let mut line = serde_json::to_vec(record).expect("records are JSON");
        line.push(b'\n');
        let end = self.file.stream_position()?;
        self.file.write_all(&line).inspect_err(|_| {
            // On a full disk, half a line: nothing that comes later is written behind it.
            let _ = self.file.set_len(end).and_then(|()| self.file.seek(SeekFrom::Start(end)));
        })
    }
}

impl Ledger {
    /// Opens the ledger of a run, or begins one. The rows per job of an earlier run are kept,
    /// unless this one must have its own.
    pub(super) fn open(
        folder: &Path,
        run: Header,
        must_have_rows: bool,
    ) -> Result<(Self, Past), LedgerError> {
        create_folder(folder).map_err(|source| io_error(folder, source))?;
        let lock = lock_folder(folder)?;
        let path = folder.join(JOBS);
        let mut jobs = open_file(&path)?;
        let Found { header, past, end } = Found::read(&jobs, &path)?;
        let cut = jobs.set_len(end).and_then(|()| jobs.seek(SeekFrom::End(0)));
        cut.map_err(|source| io_error(&path, source))?;
        let is_new = header.is_none();
        let header = header.unwrap_or_else(|| run.clone());
        let rows = must_have_rows && header.rows_per_job != run.rows_per_job;
        let difference = header.difference(&run).or(rows.then_some(Difference::RowsPerJob));
        if let Some(difference) = difference {
            return Err(LedgerError::Other { path: folder.to_owned(), difference });
        }
        let results = open_file(&folder.join(RESULTS))?;
        let again = |file: &File| file.try_clone().map_err(|source| io_error(folder, source));
        let ledger = Self {
            folder: folder.to_owned(),
            header,
            jobs_disk: again(&jobs)?,
            results_disk: again(&results)?,
            jobs: Mutex::new(Jobs { file: jobs, ended: Parts::default() }),
            results: Mutex::new(results),
            _lock: lock,
        };
        if is_new {
            ledger.append(&Record::Header(run))?;
            ledger.sync()?;
        }
        Ok((ledger, past))
    }

    /// What the run is of.
    pub(super) fn header(&self) -> &Header {
        &self.header
    }

    /// The header says something that cannot be.
    pub(super) fn damaged(&self, reason: String) -> LedgerError {
        LedgerError::Damaged { path: self.folder.join(JOBS), line: 1, reason }
    }

    /// Appends a record. A crash of the machine may lose it, unless [`Ledger::sync`] comes after.
    pub(super) fn append(&self, record: &Record) -> Result<(), LedgerError> {
        let written = self.jobs.lock().append(record);
        written.map_err(|source| self.in_jobs(source))
    }

    /// Notes that a job is about to be published, unless its part has ended: then nobody wants
    /// it, and it is not to be published.
    pub(super) fn submitting(
        &self,
        job: JobId,
        part: u64,
        deadline_ms: Option<u64>,
        receipt: Option<Receipt>,
    ) -> Result<bool, LedgerError> {
        let mut jobs = self.jobs.lock();
        if jobs.ended.contains(part) {
            return Ok(false);
        }
        let written = jobs.append(&Record::Submitting { job, part, deadline_ms, receipt });
        written.map(|()| true).map_err(|source| self.in_jobs(source))
    }

    /// Whether this run ended a part.
    #[cfg(test)]
    fn has_ended(&self, part: u64) -> bool {
        self.jobs.lock().ended.contains(part)
    }

    fn in_jobs(&self, source: io::Error) -> LedgerError {
        io_error(&self.folder.join(JOBS), source)
    }

    /// Brings the records to the disk.
    pub(super) fn sync(&self) -> Result<(), LedgerError> {
        self.jobs_disk.sync_data().map_err(|source| self.in_jobs(source))
    }

    /// Brings the results of a part to the disk, and then that it is finished.
    pub(super) fn finish(
        &self,
        job: JobId,
        part: u64,
        results: &Matrix<i64>,
    ) -> Result<(), LedgerError> {
        let words = results.values().iter();
        let bytes: Vec<u8> = words.flat_map(|word| word.to_le_bytes()).collect();
        let write = || {
            {
                let mut file = self.results.lock();
                file.seek(SeekFrom::Start(self.offset(part)))?;
                file.write_all(&bytes)?;
            }
            self.results_disk.sync_data()
        };
        write().map_err(|source| io_error(&self.folder.join(RESULTS), source))?;
        {
            let mut jobs = self.jobs.lock();
            let written = jobs.append(&Record::Finished { job, part });
            written.map_err(|source| self.in_jobs(source))?;
            jobs.ended.insert(part);
        }
        self.sync()
    }

    /// Notes that a part failed, in this run or for good.
    pub(super) fn fail(
        &self,
        job: JobId,
        part: u64,
        reason: &str,
        is_final: bool,
    ) -> Result<(), LedgerError> {
        let reason = reason.chars().take(MAX_REASON_CHARS).collect();
        {
            let mut jobs = self.jobs.lock();
            let written = jobs.append(&Record::Failed { job, part, reason, is_final });
            written.map_err(|source| self.in_jobs(source))?;
            if is_final {
                jobs.ended.insert(part);
            }
        }
        self.sync()
    }

    /// The results of a finished part.
    pub(super) fn results(&self, part: u64) -> Result<Matrix<i64>, LedgerError> {
        let width = self.header.outputs;
        let rows = usize::try_from(self.header.part_rows(part)).unwrap_or_default();
        let mut bytes = vec![0; rows * width * size_of::<i64>()];
        let mut read = || {
            let mut file = self.results.lock();
            file.seek(SeekFrom::Start(self.offset(part)))?;
            file.read_exact(&mut bytes)
        };
        read().map_err(|source| io_error(&self.folder.join(RESULTS), source))?;
        let (words, _) = bytes.as_chunks();
        let words = words.iter().map(|word| i64::from_le_bytes(*word)).collect();
        Ok(Matrix::new(width, words))
    }

    /// Removes the folder: its scores are elsewhere.
    pub(super) fn remove(&self) -> Result<(), LedgerError> {
        std::fs::remove_dir_all(&self.folder).map_err(|source| io_error(&self.folder, source))
    }

    /// Where the results of a part begin.
    fn offset(&self, part: u64) -> u64 {
        let row_bytes = (self.header.outputs * size_of::<i64>()) as u64;
        part * u64::from(self.header.rows_per_job) * row_bytes
    }
}

/// Waits for a moment: a run that was dropped in this process may be finishing a write.
fn lock_folder(folder: &Path) -> Result<File, LedgerError> {
    let path = folder.join(LOCK);
    let lock = open_file(&path)?;
    let started = Instant::now();
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            Err(TryLockError::WouldBlock) if started.elapsed() < LOCK_PATIENCE => {
                std::thread::sleep(LOCK_PATIENCE / 200);
            }
            Err(TryLockError::WouldBlock) => return Err(LedgerError::InUse(folder.to_owned())),
            Err(TryLockError::Error(source)) => return Err(io_error(&path, source)),
        }
    }
}

fn open_file(path: &Path) -> Result<File, LedgerError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    options.open(path).map_err(|source| io_error(path, source))
}

fn create_folder(path: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        builder.mode(0o700);
    }
    builder.create(path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

    use cipherscore_common::{Digest, EvaluationKeyId, ModelId};

    use super::*;
    use crate::score::record::FORMAT_VERSION;

    #[test]
    fn no_job_is_begun_for_a_part_that_has_ended() {
        let folder = tempfile::TempDir::new().unwrap();
        let digest = Digest::from_bytes([0; 32]);
        let header = Header {
            format_version: FORMAT_VERSION,
            model_id: ModelId::new(digest),
            evaluation_key_id: Some(EvaluationKeyId::new(digest)),
            form: None,
            client_key_sha256: digest,
            tenant: "tenant".parse().unwrap(),
            input_sha256: digest,
            reading: None,
            rows: 2,
            rows_per_job: 1,
            outputs: 1,
            client: "client".into(),
        };
        let (ledger, _) = Ledger::open(folder.path(), header.clone(), true).unwrap();
        let job = JobId::random();
        assert!(ledger.submitting(job, 0, None, None).unwrap());
        ledger.finish(job, 0, &Matrix::new(1, vec![1])).unwrap();
        assert!(!ledger.submitting(JobId::random(), 0, None, None).unwrap());
        assert!(ledger.submitting(JobId::random(), 1, None, None).unwrap());
        assert!(ledger.has_ended(0) && !ledger.has_ended(1));
        let other = JobId::random();
        ledger.fail(other, 1, "for now", false).unwrap();
        assert!(ledger.submitting(other, 1, None, None).unwrap());
        ledger.fail(other, 1, "bad", true).unwrap();
        assert!(!ledger.submitting(JobId::random(), 1, None, None).unwrap());
        drop(ledger);
        let (_, past) = Ledger::open(folder.path(), header, true).unwrap();
        assert!(past.unanswered.is_empty());
        assert_eq!(past.failed[&1].reason, "bad");
    }
}
