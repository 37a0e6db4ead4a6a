//! Files that another program encrypted, through the queue.
//!
//! The files of one job are published in the order in which they are given, and answered in any.
//! Which job an output waits for is in a [note](crate::note) beside it, so that the same call goes on
//! where an earlier one ended: the same ciphertexts are published under the same id.

mod files;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cipherscore_artifact::content::{Content, OtherContent, owner_of_evaluation_key};
use cipherscore_common::broker::Broker;
use cipherscore_common::message::Timestamp;
use cipherscore_common::topology::{InvalidReplyQueue, ReplyQueue};
use cipherscore_common::{
    Blob, EvaluationKeyId, FormName, JobId, Lease, ModelId, OwnerId, OwnerStore, StoreError, Tenant,
};
use cipherscore_engine::evaluator::EvaluationError;
use serde::Serialize;
use thiserror::Error;
use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, timeout_at};

use self::files::{Files, FilesJournal, Naming};
use crate::blocking::blocking;
use crate::client::{Client, ClientError, InFlight};
use crate::driver::{Driver, Sink, Source, Target, Unit};
use crate::evaluation_keys::KeySource;
use crate::events::{Event, Events};
use crate::files::{read_bounded, read_start};
use crate::key_folder::KeyFolderError;
use crate::note::{NoteError, NoteFile};
use crate::score::unique_client;
use crate::settings::ProducerSection;

/// Bytes of an evaluation key by which it is known whose it is.
const KEY_START_BYTES: usize = 64;
/// Largest ciphertext file, in bytes.
pub const MAX_INPUT_BYTES: usize = 1 << 30;

/// What is to be evaluated.
pub struct SubmitRequest {
    /// By which model.
    pub model_id: ModelId,
    /// Serialised evaluation keys, unless the model needs none.
    pub evaluation_key: Option<PathBuf>,
    /// The files of each job.
    pub jobs: Vec<JobFiles>,
    /// How long replies are waited for, and how much time a job has.
    pub timeout: Lease,
    /// Tenant, lane, bounds and times.
    pub settings: ProducerSection,
}

/// Files of one job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobFiles {
    /// A file of many rows, or the values of one row, a file each.
    pub inputs: Vec<PathBuf>,
    /// Where the outputs go: a file of many rows, or values a file each. Its note is beside the
    /// first.
    pub outputs: Vec<PathBuf>,
}

/// What came of the files of one job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Submitted {
    /// The files.
    pub inputs: Vec<PathBuf>,
    /// The last job that was made of them.
    pub job: JobId,
    /// None without a result.
    pub outputs: Vec<PathBuf>,
    /// Which worker answered, if one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
    /// Why there is no result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Why a submission ended before its end. The same call goes on from its notes.
#[derive(Debug, Error)]
pub enum SubmitError {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A job without a place for its note.
    #[error("a job without an output file; give it one")]
    NoOutput,
    /// A note.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// Outputs with notes of more than one submission, which have a reply queue each.
    #[error("these outputs wait for jobs of several interrupted commands; repeat each of them")]
    SeveralCommands,
    /// No name of a reply queue.
    #[error(transparent)]
    Name(#[from] InvalidReplyQueue),
    /// Broker or store.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The evaluation key.
    #[error(transparent)]
    Key(#[from] KeyFolderError),
    /// The evaluation key as a blob.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file that is something else.
    #[error("{path}: {reason}")]
    Content {
        /// Which file.
        path: PathBuf,
        /// What it is, and what is needed.
        reason: OtherContent,
    },
    /// Rows and evaluation key of two owners.
    #[error(transparent)]
    Owner(EvaluationError),
    /// Files of rows in several forms, each of which has a key of its own.
    #[error("some of these files hold single rows and some many at a time: submit them apart")]
    SeveralForms,
    /// The model has another number of outputs than there are files for them.
    #[error("a result of {values} values, for which {files} files of --output are given")]
    Outputs {
        /// Values of the result.
        values: usize,
        /// Files for them.
        files: usize,
    },
    /// The runtime is shutting down, or a step panicked.
    #[error("the submission was stopped: {0}")]
    Stopped(#[from] JoinError),
}

/// Has files evaluated, and waits for their results. Dropped at any time, it can be gone on with.
///
/// # Errors
/// What keeps all jobs from results; what keeps one from them is in what came of it.
pub async fn submit<B: Broker, S: OwnerStore>(
    broker: Arc<B>,
    store: Arc<S>,
    request: SubmitRequest,
    events: Events,
) -> Result<Vec<Submitted>, SubmitError> {
    let deadline = Instant::now() + request.timeout.duration();
    let SubmitRequest { model_id, evaluation_key, jobs, timeout, settings } = request;
    let notes = jobs.iter().map(open_note).collect::<Result<Vec<_>, _>>()?;
    let name = match client_of(&notes)? {
        Some(name) => name.to_owned(),
        None => unique_client(&settings.client),
    };
    let queue = ReplyQueue::new(&settings.tenant, &name)?;
    let options = settings.client_options();
    let client = Client::open(broker, store, queue, options, events.clone()).await?;
    let time = Some(timeout.duration());
    let mut driver = Driver::new(client, settings.key_lease, time, events.clone());
    let mut units = Vec::with_capacity(jobs.len());
    for (files, note) in jobs.into_iter().zip(notes) {
        let unit = driver.unit::<FilesJournal>();
        if let Some(found) = note.found(Timestamp::now()) {
            let (job, model_id, owner_id) = (found.job, found.model_id, found.owner_id);
            let flight = InFlight { job, model_id, owner_id, version: None, payload: None };
            unit.expect(flight, None)?;
        }
        units.push((unit, Arc::new(Files::new(files, note))));
    }
    let files: Vec<_> = units.iter().map(|(_, files)| Arc::clone(files)).collect();
    let form = blocking(move || form_of(&files)).await??;
    let key = match evaluation_key {
        Some(path) => Some(put_key(&driver, &settings.tenant, path, form).await?),
        None => None,
    };
    driver.listen();
    let tenant = settings.tenant;
    let naming = Naming { tenant, client: name, key_id: key.as_ref().map(|key| key.id), model_id };
    let made_by = key.as_ref().map(|key| key.made_by);
    let target = Target { model_id, form, key: key.map(|key| (key.id, key.source)) };
    let submission = Submission { driver, naming, target, made_by, events };
    let files: Vec<_> = units.iter().map(|(_, files)| Arc::clone(files)).collect();
    let submitted = Arc::new(submission).run(units, deadline).await?;
    let ended = submitted.into_iter().zip(files).map(|(ended, files)| match ended {
        Some(ended) => Ok(ended),
        None => files.give_up(format!("no reply within {timeout}; see `cipherscore status`")),
    });
    ended.collect()
}

fn open_note(files: &JobFiles) -> Result<NoteFile, SubmitError> {
    let output = files.outputs.first().ok_or(SubmitError::NoOutput)?;
    Ok(NoteFile::open(output)?)
}

/// Whose reply queue the jobs of an earlier process have, if there are any.
fn client_of(notes: &[NoteFile]) -> Result<Option<&str>, SubmitError> {
    let now = Timestamp::now();
    let mut clients = notes.iter().filter_map(|note| Some(note.found(now)?.client.as_str()));
    let client = clients.next();
    match clients.all(|other| Some(other) == client) {
        true => Ok(client),
        false => Err(SubmitError::SeveralCommands),
    }
}

/// The form of all files, where they say it.
fn form_of(files: &[Arc<Files>]) -> Result<Option<FormName>, SubmitError> {
    let mut forms = files.iter().map(|files| files.form());
    let Some(first) = forms.next() else { return Ok(None) };
    let first = first?;
    for form in forms {
        if form? != first {
            return Err(SubmitError::SeveralForms);
        }
    }
    Ok(first)
}

/// Under whose client key an evaluation key was made; none of a key that names no owner.
#[derive(Debug, Clone, Copy)]
struct MadeBy(Option<OwnerId>);

/// An evaluation key that is in the store.
struct PutKey {
    id: EvaluationKeyId,
    source: KeySource,
    made_by: MadeBy,
}

async fn put_key<B: Broker, S: OwnerStore>(
    driver: &Driver<B, S>,
    tenant: &Tenant,
    path: PathBuf,
    form: Option<FormName>,
) -> Result<PutKey, SubmitError> {
    let source = KeySource::File(path.clone(), form);
    let (read_from, tenant) = (source.clone(), tenant.clone());
    let read = move || {
        let start = read_start(&path, KEY_START_BYTES).map_err(in_file(&path))?;
        let bytes = Arc::unwrap_or_clone(read_from.read()?);
        // A secret in its place would be in the store.
        require(Content::EvaluationKey, &path, &bytes)?;
        let made_by = MadeBy(owner_of_evaluation_key(&start));
        Ok::<_, SubmitError>((Blob::evaluation_key(&tenant, bytes)?, made_by))
    };
    let (key, made_by) = blocking(read).await??;
    Ok(PutKey { id: driver.put_key(&key).await?, source, made_by })
}

/// A file of this kind, or of one that its bytes do not tell.
fn read_as(content: Content, path: &Path) -> Result<Vec<u8>, SubmitError> {
    let bytes = read_bounded(path, MAX_INPUT_BYTES).map_err(in_file(path))?;
    require(content, path, &bytes)?;
    Ok(bytes)
}

fn require(content: Content, path: &Path, bytes: &[u8]) -> Result<(), SubmitError> {
    let other = |reason| SubmitError::Content { path: path.to_owned(), reason };
    content.require(bytes).map_err(other)
}

/// What jobs of one submission share.
struct Submission<B: Broker, S: OwnerStore> {
    driver: Driver<B, S>,
    naming: Naming,
    target: Target,
    /// Of the evaluation key, if there is one.
    made_by: Option<MadeBy>,
    events: Events,
}

impl<B: Broker, S: OwnerStore> Submission<B, S> {
    /// Publishes every job and waits for every reply, until the deadline.
    async fn run(
        self: Arc<Self>,
        units: Vec<(Unit<B, S>, Arc<Files>)>,
        deadline: Instant,
    ) -> Result<Vec<Option<Submitted>>, SubmitError> {
        let mut submitted: Vec<_> = units.iter().map(|_| None).collect();
        let mut tasks = JoinSet::new();
        for (index, (unit, files)) in units.into_iter().enumerate() {
            let (passed, turn) = oneshot::channel();
            let job = Arc::clone(&self).job(unit, files, passed);
            tasks.spawn(async move { Ok::<_, SubmitError>((index, job.await?)) });
            // One after the other, each when the broker has the one before. One that fails says so
            // below.
            if !matches!(timeout_at(deadline, turn).await, Ok(Ok(()))) {
                break;
            }
        }
        while let Ok(Some(ended)) = timeout_at(deadline, tasks.join_next()).await {
            let (index, ended) = ended??;
            submitted[index] = Some(ended);
        }
        tasks.shutdown().await;
        Ok(submitted)
    }

    /// Takes the files of one job through the queue. `passed` is told when it is the turn of the
    /// next ones.
    async fn job(
        self: Arc<Self>,
        mut unit: Unit<B, S>,
        files: Arc<Files>,
        passed: oneshot::Sender<()>,
    ) -> Result<Submitted, SubmitError> {
        let (naming, events) = (self.naming.clone(), self.events.clone());
        let (made_of, read_as, made_by) = (Arc::clone(&files), Arc::clone(&files), self.made_by);
        let source = Source {
            target: self.target.clone(),
            payload_bytes: files.payload_bytes(),
            make: Arc::new(move || made_of.read(made_by)),
        };
        let sink = Sink {
            read: Arc::new(move |outputs, _| Ok(read_as.results(&outputs)?)),
            journal: FilesJournal::new(Arc::clone(&files), naming, events, passed),
        };
        let submitted = self.driver.run(&mut unit, &source, &sink).await?;
        let rows = files.rows().into();
        self.events.tell(match &submitted.error {
            None => Event::Scored { rows },
            Some(reason) => Event::Failed { rows, reason: reason.clone() },
        });
        Ok(submitted)
    }
}

fn in_file(path: &Path) -> impl FnOnce(io::Error) -> SubmitError {
    |source| SubmitError::File { path: path.to_owned(), source }
}
