//! A file of rows of any length, through the queue.
//!
//! The input is cut into parts of so many rows, and each part is a job. A bounded number of jobs is
//! in flight, and only their rows are in memory. What became of each job is in a ledger beside the
//! output, so that the same command goes on where an earlier one ended:
//!
//! * a part with results is not published again;
//! * a job that the broker had, and that is not answered, is waited for until its deadline: its
//!   reply may be in the reply queue already, which is the same as before;
//! * a job of which it is not known whether the broker had it is encrypted again at once, as a
//!   new job, since nobody shall see two encryptions under one id. Both ids are accepted, and the
//!   first answer wins;
//! * a part that failed is tried again.
//!
//! The output appears at the end, whole, with a line for each row of the input. The line of a row
//! without scores is empty, and `OUTPUT.failed.csv` says why. The ledger is removed when every job
//! has results. A row that the model does not take fails alone: another one is encrypted in its place,
//! whose scores nobody sees.

mod input;
mod ledger;
mod ledger_error;
mod output;
mod part;
mod past;
mod record;
mod run;
mod size;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use cipherscore_common::broker::Broker;
use cipherscore_common::topology::ReplyQueue;
use cipherscore_common::{Digest, FormName, JobId, ModelId, OwnerStore, StoreError};
use serde::Serialize;
use thiserror::Error;
use tokio::task::JoinError;

pub use self::input::InputError;
pub use self::ledger::LedgerError;
pub use self::record::Difference;
pub use self::size::RowsPerJob;

use self::ledger::Ledger;
use self::part::{PartJournal, Scoring};
use self::record::{FORMAT_VERSION, Header};
use self::run::{Outcome, Run, Totals};
use crate::blocking::{Interest, blocking};
use crate::client::{Client, ClientError};
use crate::driver::{Driver, Target};
use crate::evaluation_keys::KeySource;
use crate::events::{Event, Events};
use crate::key_folder::{KeyFolder, KeyFolderError};
use crate::model::{ClientModel, Encryption, EncryptionError, RefusedRow};
use crate::rows::{RowFormat, ScoreColumns, WriteScoresError};
use crate::settings::ProducerSection;

/// Jobs that may fail before a run is given up: whatever is wrong is wrong with all of them.
pub const MAX_FAILED_JOBS: usize = 1000;

/// What is to be scored, and how.
pub struct ScoreRequest {
    /// The model, as its data owners see it, and the data owner's secret key.
    pub encryption: Arc<dyn Encryption>,
    /// Which model workers must evaluate.
    pub model_id: ModelId,
    /// Where the secret key came from, with the evaluation key beside it.
    pub keys: KeyFolder,
    /// CSV with a row of raw features a line.
    pub input: PathBuf,
    /// How it is written.
    pub format: RowFormat,
    /// CSV to write.
    pub output: PathBuf,
    /// What a line of it holds.
    pub columns: ScoreColumns,
    /// How the input is cut.
    pub rows_per_job: RowsPerJob,
    /// Publish the unanswered jobs of an earlier run again at once.
    pub republish: bool,
    /// Tenant, lane, bounds and times.
    pub settings: ProducerSection,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ScoreReport {
    /// Which model.
    pub model_id: ModelId,
    /// In which form rows were encrypted; none of a model that can have one only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub form: Option<FormName>,
    /// Rows of the input.
    pub rows: u64,
    /// Rows that had scores from an earlier run.
    pub rows_scored_before: u64,
    /// Rows that have scores now.
    pub rows_scored: u64,
    /// Rows without scores.
    pub rows_failed: u64,
    /// Rows of a job.
    pub rows_per_job: u32,
    /// Jobs of this run.
    pub jobs_published: u64,
    /// How many of them were the same rows once more.
    pub jobs_published_again: u64,
    /// How long it took.
    pub seconds: f64,
    /// Where the scores are.
    pub output: PathBuf,
    /// Where the rows without scores are listed, if there are any.
    pub failed: Option<PathBuf>,
}

/// Why a run ended before its end. The same command goes on from its ledger.
#[derive(Debug, Error)]
pub enum ScoreError {
    /// The input.
    #[error("{path}: {source}")]
    Input {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: InputError,
    },
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// Broker or store.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The keys.
    #[error(transparent)]
    Keys(#[from] KeyFolderError),
    /// The evaluation key as a blob.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Encryption.
    #[error(transparent)]
    Encryption(#[from] EncryptionError),
    /// The output.
    #[error("{path}: {source}")]
    Output {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: WriteScoresError,
    },
    /// Too many jobs failed.
    #[error("more than {MAX_FAILED_JOBS} jobs failed; the last one, {job}: {reason}")]
    TooManyFailures {
        /// The last one.
        job: JobId,
        /// Why.
        reason: String,
    },
    /// The runtime is shutting down, or a step of it panicked.
    #[error("the run was stopped: {0}")]
    Stopped(#[from] JoinError),
}

/// Scores a file. Dropped at any time, it can be gone on with.
pub async fn score<B: Broker, S: OwnerStore>(
    broker: Arc<B>,
    store: Arc<S>,
    request: ScoreRequest,
    events: Events,
) -> Result<ScoreReport, ScoreError> {
    let started = Instant::now();
    let ScoreRequest { encryption, model_id, keys, input, format, .. } = request;
    let (output, columns, settings) = (request.output, request.columns, request.settings);
    let (rows_per_job, republish) = (request.rows_per_job, request.republish);

    let checked = {
        let (encryption, path, format) = (Arc::clone(&encryption), input.clone(), format.clone());
        blocking(move || input::check(&path, encryption.model(), format)).await?
    };
    let checked = checked.map_err(|source| ScoreError::Input { path: input.clone(), source })?;
    events.tell(Event::Checked { rows: checked.rows });

    let form = encryption.model().form();
    let (evaluation_key, client_key) = keys.digests(form)?;
    let header = Header {
        format_version: FORMAT_VERSION,
        model_id,
        evaluation_key_id: evaluation_key,
        form: Header::form_of(form),
        client_key_sha256: client_key,
        tenant: settings.tenant.clone(),
        input_sha256: checked.sha256,
        reading: reading_of(&format, encryption.model(), &checked.refused),
        rows: checked.rows,
        rows_per_job: rows_per_job.get(),
        outputs: encryption.model().interface().outputs,
        client: unique_client(&settings.client),
    };
    let folder = beside(&output, "ledger");
    let opened = blocking(move || Ledger::open(&folder, header, rows_per_job.is_given()));
    let (ledger, past) = opened.await??;
    let ledger = Arc::new(ledger);

    let options = size::client_options(&settings, encryption.model(), ledger.header());
    let queue = ReplyQueue::new(&settings.tenant, &ledger.header().client)
        .map_err(|error| ledger.damaged(error.to_string()))?;
    let client = Client::open(broker, store, queue, options, events.clone()).await?;
    let key_id = match encryption.model().interface().needs_key {
        true => Some(evaluation_key.ok_or_else(|| keys.no_evaluation_key())?),
        false => None,
    };
    let key = key_id.map(|id| (id, KeySource::Folder(keys, form)));
    let target = Target { model_id, form, key };
    let job_time = settings.job_deadline();
    let driver = Driver::new(client, settings.key_lease, job_time, events.clone());
    driver.prepare_key::<PartJournal>(&target).await?;

    let in_flight = size::in_flight(&settings, encryption.model(), ledger.header().rows_per_job);
    let (ours, its) = (Arc::clone(&encryption), Arc::clone(&ledger));
    let interest = Interest::default();
    let scoring = Scoring { driver, encryption: ours, ledger: its, target, interest };
    let run = Run::new(scoring, past, republish, in_flight, events)?;
    let outcome = run.run(&input, format).await?;
    let (written, encryption_of) = (output.clone(), Arc::clone(&encryption));
    let mut totals = outcome.totals;
    totals.failed += without_scores(&checked.refused, &outcome, ledger.header());
    let refused = checked.refused;
    let write = move || {
        let header = ledger.header().clone();
        output::write(&written, columns, encryption_of.model(), &ledger, &outcome, &refused)?;
        Ok::<_, ScoreError>(header)
    };
    let header = blocking(write).await??;
    Ok(ScoreReport { form, ..report(&header, totals, output, started) })
}

/// What decides which values the rows of an input have, beside its bytes; none where nothing is said of it and no
/// row is refused.
fn reading_of(
    format: &RowFormat,
    model: &dyn ClientModel,
    refused: &[RefusedRow],
) -> Option<Digest> {
    let marks = model.interface().features.missing();
    let usual = RowFormat::from(format.first_line);
    let RowFormat { separator, missing, categories, .. } = format;
    let is_usual = *format == usual && marks.is_empty() && refused.is_empty();
    let rows: Vec<_> = refused.iter().map(|refused| refused.row).collect();
    let text = || format!("{separator:?} {missing:?} {categories:?} {marks:?} {rows:?}");
    (!is_usual).then(|| Digest::of(text().as_bytes()))
}

/// Rows that the model does not take, of jobs that did not fail, whose rows are counted already.
fn without_scores(refused: &[RefusedRow], outcome: &Outcome, header: &Header) -> u64 {
    let part = |refused: &&RefusedRow| (refused.row - 1) / u64::from(header.rows_per_job);
    refused.iter().filter(|it| !outcome.failed.contains_key(&part(it))).count() as u64
}

fn report(header: &Header, totals: Totals, output: PathBuf, started: Instant) -> ScoreReport {
    ScoreReport {
        model_id: header.model_id,
        form: header.form,
        rows: header.rows,
        rows_scored_before: totals.scored_before,
        rows_scored: header.rows - totals.failed,
        rows_failed: totals.failed,
        rows_per_job: header.rows_per_job,
        jobs_published: totals.published,
        jobs_published_again: totals.published_again,
        seconds: started.elapsed().as_secs_f64(),
        failed: (totals.failed > 0).then(|| beside(&output, "failed.csv")),
        output,
    }
}

/// Where the ledger of an output is, as [`score`] keeps it.
pub fn ledger_folder(output: &Path) -> PathBuf {
    beside(output, "ledger")
}

/// `OUTPUT.extension`
fn beside(output: &Path, extension: &str) -> PathBuf {
    let mut name = output.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    name.into()
}

/// A name of which no other run has the reply queue.
pub fn unique_client(prefix: &str) -> String {
    let random = JobId::random().to_string();
    // The last part is random; the first ones are the time.
    let random = random.rsplit('-').next().unwrap_or(&random);
    format!("{prefix}-{random}")
}
