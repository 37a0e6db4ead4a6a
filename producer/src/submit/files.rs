//! Files of one job: read as its payload, written from its outputs, and the note between.

use std::path::Path;
use std::sync::Arc;

use cipherscore_artifact::content::Content;
use cipherscore_artifact::files::{FORM_BYTES, form_of_rows_file};
use cipherscore_common::message::Timestamp;
use cipherscore_common::{Digest, EvaluationKeyId, FormName, JobId, ModelId, OwnerId, Tenant};
use cipherscore_concrete::framing::{frame_values, split_values};
use cipherscore_engine::evaluator::require_one_owner;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;

use super::{JobFiles, MadeBy, SubmitError, Submitted, in_file, read_as};
use crate::blocking::blocking;
use crate::driver::{Heard, Journal, NewJob, NoResults, Payload, Ticket};
use crate::events::{Event, Events};
use crate::files::{Access, read_start, write_atomically};
use crate::model::{RowsFile, read_rows_file, write_rows_file};
use crate::note::{Note, NoteFile};

/// What notes of one submission have in common.
#[derive(Debug, Clone)]
pub(super) struct Naming {
    pub(super) model_id: ModelId,
    pub(super) key_id: Option<EvaluationKeyId>,
    pub(super) tenant: Tenant,
    pub(super) client: String,
}

/// Files of one job.
pub(super) struct Files {
    files: JobFiles,
    state: Mutex<State>,
}

struct State {
    /// None when the job is over.
    note: Option<NoteFile>,
    /// The last job that was made of them.
    job: JobId,
    /// Whether any was made.
    begun: bool,
    /// Whether the job is one of an earlier process.
    again: bool,
    /// How many rows the file says that it has: none, where the files are the values of one row, as
    /// Concrete's client writes them.
    rows: Option<u32>,
    /// Whose the file says that they are.
    owner: Option<OwnerId>,
    /// Of what was read last.
    payload_sha256: Option<Digest>,
}

impl Files {
    pub(super) fn new(files: JobFiles, note: NoteFile) -> Self {
        let (note, job, rows, owner) = (Some(note), JobId::random(), None, None);
        let (begun, again, payload_sha256) = (false, false, None);
        let state = State { note, job, begun, again, rows, owner, payload_sha256 };
        Self { files, state: Mutex::new(state) }
    }

    /// Size of all inputs, about. One that is not there is found when it is read.
    pub(super) fn payload_bytes(&self) -> u64 {
        let sizes = self.files.inputs.iter().filter_map(|path| path.metadata().ok());
        sizes.map(|file| file.len()).sum()
    }

    /// The form of their rows, where they say it.
    pub(super) fn form(&self) -> Result<Option<FormName>, SubmitError> {
        match self.files.inputs.as_slice() {
            [only] => {
                let start = read_start(only, FORM_BYTES).map_err(in_file(only))?;
                Ok(form_of_rows_file(&start))
            }
            _ => Ok(None),
        }
    }

    /// Rows of the payload that was read last.
    pub(super) fn rows(&self) -> u32 {
        self.state().rows.unwrap_or(1)
    }

    /// The files as a payload. Rows of another owner than the evaluation key's are refused.
    pub(super) fn read(&self, key: Option<MadeBy>) -> Result<Payload, SubmitError> {
        let read = |path: &Path| read_as(Content::Ciphertexts, path);
        let files = self.files.inputs.iter().map(|path| read(path));
        let files = files.collect::<Result<Vec<_>, _>>()?;
        let file = match files.as_slice() {
            [file] => read_rows_file(file).ok(),
            _ => None,
        };
        let (rows, owner, bytes) = match file {
            Some(RowsFile { rows, owner, body }) => (Some(rows), owner, body.to_vec()),
            None => (None, None, frame_values(files)),
        };
        if let Some(MadeBy(key)) = key {
            require_one_owner(owner, key).map_err(SubmitError::Owner)?;
        }
        let digest = Digest::of(&bytes);
        let mut state = self.state();
        (state.rows, state.owner, state.payload_sha256) = (rows, owner, Some(digest));
        // Who decrypts knows from the key folder what was encrypted.
        Ok(Payload { rows: rows.unwrap_or(1), owner, bytes, receipt: None, planned: None })
    }

    /// Outputs in the form of their rows, a file each, or why they are none.
    pub(super) fn results(&self, outputs: &[u8]) -> Result<Vec<Vec<u8>>, String> {
        let (rows, owner) = {
            let state = self.state();
            (state.rows, state.owner)
        };
        if let (Some(rows), [_]) = (rows, self.files.outputs.as_slice()) {
            let rows = usize::try_from(rows).map_err(|error| error.to_string())?;
            let file = write_rows_file(rows, owner, outputs).map_err(|error| error.to_string())?;
            return Ok(vec![file]);
        }
        let values = split_values(outputs).map_err(|error| error.to_string())?;
        Ok(values.into_iter().map(<[u8]>::to_vec).collect())
    }

    fn write(&self, results: &[Vec<u8>]) -> Result<(), SubmitError> {
        let (paths, values) = (&self.files.outputs, results.len());
        if values != paths.len() {
            return Err(SubmitError::Outputs { values, files: paths.len() });
        }
        paths.iter().zip(results).try_for_each(|(path, result)| {
            write_atomically(path, Access::Default, |file| file.write_all(result))
                .map_err(in_file(path))
        })
    }

    /// Notes a job, or finds the one of an earlier process. None when the job is over.
    fn settle(&self, ticket: Ticket, naming: Naming) -> Result<Option<Ticket>, SubmitError> {
        let mut state = self.state();
        let State { note, owner, payload_sha256, begun, .. } = &mut *state;
        let (Some(note), Some(payload_sha256)) = (note, *payload_sha256) else { return Ok(None) };
        let Naming { model_id, key_id, tenant, client } = naming;
        let new = Note {
            job: ticket.job,
            model_id,
            key_id,
            owner_id: *owner,
            tenant,
            payload_sha256,
            client,
            deadline_ms: ticket.deadline.map_or(u64::MAX, Timestamp::millis),
        };
        let kept = match *begun {
            false => note.settle_on(new)?,
            true => note.replace(new)?,
        };
        let (job, deadline) = (kept.job, kept.deadline());
        (state.job, state.begun, state.again) = (job, true, job != ticket.job);
        Ok(Some(match state.again {
            true => Ticket::of_earlier(job, Some(deadline)),
            false => ticket,
        }))
    }

    /// Writes results, if there are any; then the note goes.
    fn end(
        &self,
        heard: Heard,
        end: Result<Vec<Vec<u8>>, String>,
    ) -> Result<Submitted, SubmitError> {
        let error = match end {
            Ok(results) => {
                self.write(&results)?;
                None
            }
            Err(reason) => Some(reason),
        };
        self.remove_note()?;
        let Heard { job, worker } = heard;
        let outputs = match error {
            None => self.files.outputs.clone(),
            Some(_) => Vec::new(),
        };
        Ok(Submitted { inputs: self.files.inputs.clone(), job, outputs, worker, error })
    }

    /// No reply is waited for any more.
    pub(super) fn give_up(&self, reason: String) -> Result<Submitted, SubmitError> {
        let job = self.state().job;
        self.end(Heard { job, worker: None }, Err(reason))
    }

    fn remove_note(&self) -> Result<(), SubmitError> {
        let note = self.state().note.take();
        Ok(note.map_or(Ok(()), NoteFile::remove)?)
    }

    /// No code panics while it holds the lock.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

/// A note beside the first output.
pub(super) struct FilesJournal {
    files: Arc<Files>,
    naming: Naming,
    events: Events,
    /// Told once, when it is the turn of the next job.
    passed: Mutex<Option<oneshot::Sender<()>>>,
}

impl FilesJournal {
    pub(super) fn new(
        files: Arc<Files>,
        naming: Naming,
        events: Events,
        passed: oneshot::Sender<()>,
    ) -> Self {
        Self { files, naming, events, passed: Mutex::new(Some(passed)) }
    }

    fn pass(&self) {
        let passed = self.passed.lock().take();
        if let Some(passed) = passed {
            // Nobody waits for it when the time is over.
            let _ = passed.send(());
        }
    }
}

impl Journal for FilesJournal {
    type Results = Vec<Vec<u8>>;
    type End = Submitted;
    type Error = SubmitError;

    const OUTLIVES: bool = true;

    async fn begin(&self, new: NewJob) -> Result<Option<Ticket>, SubmitError> {
        let (files, naming) = (Arc::clone(&self.files), self.naming.clone());
        blocking(move || files.settle(new.ticket, naming)).await?
    }

    async fn published(&self, job: JobId, _payload: Option<Digest>) -> Result<(), SubmitError> {
        let again = self.files.state().again;
        let inputs = self.files.files.inputs.clone();
        self.events.tell(Event::Submitted { inputs, job, again });
        self.pass();
        Ok(())
    }

    async fn end(
        &self,
        heard: Heard,
        end: Result<Vec<Vec<u8>>, NoResults>,
    ) -> Result<Submitted, SubmitError> {
        let end = end.map_err(|none| none.reason);
        let files = Arc::clone(&self.files);
        let submitted = blocking(move || files.end(heard, end)).await??;
        self.pass();
        Ok(submitted)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

    use std::path::PathBuf;
    use std::time::Duration;

    use super::*;

    /// A journal of one row's file in a folder, and the receiver of its turn.
    fn journal(folder: &Path) -> (FilesJournal, oneshot::Receiver<()>) {
        let paths = |name: &str| vec![folder.join(name)];
        std::fs::write(folder.join("in"), b"row").unwrap();
        let files = JobFiles { inputs: paths("in"), outputs: paths("out") };
        let note = NoteFile::open(&files.outputs[0]).unwrap();
        let naming = Naming {
            model_id: ModelId::of(b"model"),
            key_id: None,
            tenant: "tenant".parse().unwrap(),
            client: "client".into(),
        };
        let (passed, turn) = oneshot::channel();
        let files = Arc::new(Files::new(files, note));
        (FilesJournal::new(files, naming, Events::ignored(), passed), turn)
    }

    fn new(follows: bool) -> NewJob {
        let deadline = Timestamp::now().after(Duration::from_secs(3600));
        NewJob {
            ticket: Ticket::of_earlier(JobId::random(), Some(deadline)),
            follows,
            receipt: None,
        }
    }

    fn noted(folder: &Path) -> Option<Note> {
        let text = std::fs::read(folder.join("out.job")).ok()?;
        serde_json::from_slice(&text).ok()
    }

    #[tokio::test]
    async fn the_note_says_which_job_until_its_results_are_there() {
        let folder = tempfile::tempdir().unwrap();
        let (journal, mut turn) = journal(folder.path());
        let payload = journal.files.read(None).unwrap();
        assert_eq!((payload.rows, payload.bytes), (1, frame_values([b"row"])));
        let first = new(false);
        assert_eq!(journal.begin(first).await.unwrap(), Some(first.ticket));
        let note = noted(folder.path()).unwrap();
        assert_eq!((note.job, Some(note.deadline())), (first.ticket.job, first.ticket.deadline));
        assert!(turn.try_recv().is_err());
        journal.published(first.ticket.job, None).await.unwrap();
        turn.try_recv().unwrap();

        let second = new(true);
        assert_eq!(journal.begin(second).await.unwrap(), Some(second.ticket));
        assert_eq!(noted(folder.path()).unwrap().job, second.ticket.job);
        let results = journal.files.results(&frame_values([b"score"])).unwrap();
        let heard = Heard { job: second.ticket.job, worker: Some("worker".into()) };
        let submitted = journal.end(heard, Ok(results)).await.unwrap();
        let path = |name: &str| -> PathBuf { folder.path().join(name) };
        assert_eq!((submitted.outputs, submitted.error), (vec![path("out")], None));
        assert_eq!(std::fs::read(path("out")).unwrap(), b"score");
        assert!(!path("out.job").exists());
        assert_eq!(journal.begin(new(false)).await.unwrap(), None, "the job is over");
    }

    #[tokio::test]
    async fn a_later_process_goes_on_with_the_same_job() {
        let folder = tempfile::tempdir().unwrap();
        let (earlier, _turn) = journal(folder.path());
        let first = new(false);
        earlier.files.read(None).unwrap();
        earlier.begin(first).await.unwrap();
        drop(earlier);
        let (later, mut turn) = journal(folder.path());
        later.files.read(None).unwrap();
        let kept = later.begin(new(false)).await.unwrap().unwrap();
        assert_eq!((kept.job, kept.deadline), (first.ticket.job, first.ticket.deadline));

        let reason = "no reply within 1s".to_owned();
        let submitted = later.files.give_up(reason.clone()).unwrap();
        assert_eq!((submitted.job, submitted.error), (first.ticket.job, Some(reason)));
        assert!(turn.try_recv().is_err() && noted(folder.path()).is_none());
    }

    #[tokio::test]
    async fn results_that_do_not_fit_the_files_keep_the_note() {
        let folder = tempfile::tempdir().unwrap();
        let (journal, _turn) = journal(folder.path());
        journal.files.read(None).unwrap();
        journal.begin(new(false)).await.unwrap();
        assert!(journal.files.results(b"nonsense").is_err());
        let results = journal.files.results(&frame_values([b"one", b"two"])).unwrap();
        let heard = Heard { job: JobId::random(), worker: None };
        let error = journal.end(heard, Ok(results)).await.unwrap_err().to_string();
        assert_eq!(error, "a result of 2 values, for which 1 files of --output are given");
        assert!(noted(folder.path()).is_some() && !folder.path().join("out").exists());
    }
}
