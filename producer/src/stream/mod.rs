//! Rows in memory through the queue, call after call over the same connections.
//!
//! What [`score`](crate::score) does for a file that must survive a crash, this does for a process
//! that holds its rows and wants its scores: nothing is written down. Rows are cut into parts, each
//! part is a job, encryption runs beside publishing, and parts are decrypted in the order in which
//! they are answered. A call has the results of all its rows or an error; jobs of a call that ended
//! early are taken back.
//!
//! Several calls share one reply queue, one bound of jobs in flight, and the knowledge of which
//! evaluation keys are in the store.

mod ask;

use std::num::NonZeroU32;
use std::sync::Arc;

use cipherscore_common::broker::Broker;
use cipherscore_common::message::Timestamp;
use cipherscore_common::topology::ReplyQueue;
use cipherscore_common::{EvaluationKeyId, JobId, ModelId, Store, StoreError};
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use self::ask::{Asking, Unanswered};
use crate::client::{Answer, Client, ClientError, JobRequest};
use crate::evaluation_keys::{EvaluationKeys, KeySource, KeyStep};
use crate::events::{Event, Events};
use crate::key_folder::KeyFolderError;
use crate::matrix::Matrix;
use crate::model::{Encryption, EncryptionError};
use crate::parts::{MAX_JOBS_OF_PART, PayloadRoom, blocking, due_in, remedy};
use crate::score::unique_client;
use crate::settings::ProducerSection;

/// Why a call has no results.
#[derive(Debug, Error)]
pub enum StreamError {
    /// Broker or store.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The keys.
    #[error(transparent)]
    Keys(#[from] KeyFolderError),
    /// Rows that cannot be encrypted, or outputs that cannot be decrypted.
    #[error(transparent)]
    Encryption(#[from] EncryptionError),
    /// Workers did not evaluate some rows.
    #[error("rows {first} to {last} have no results (job {job}): {reason}")]
    Failed {
        /// Number of the first of them, from 1.
        first: u64,
        /// Number of the last of them.
        last: u64,
        /// The last job that was made of them.
        job: JobId,
        /// Why.
        reason: String,
    },
    /// Nothing reads replies any more.
    #[error("replies are no longer received: {0}")]
    Ended(String),
    /// The runtime is shutting down, or a step panicked.
    #[error("the call was stopped: {0}")]
    Stopped(#[from] JoinError),
}

/// Which model jobs name, and with which key it is evaluated.
#[derive(Debug, Clone)]
pub struct Target {
    /// The model.
    pub model_id: ModelId,
    /// The evaluation key, unless the model needs none.
    pub key: Option<(EvaluationKeyId, KeySource)>,
}

/// Makes the payload of a part; each time anew.
type Make = Arc<dyn Fn() -> Result<Vec<u8>, EncryptionError> + Send + Sync>;
/// Reads the outputs of a part.
type Read<T> = Arc<dyn Fn(&[u8]) -> Result<T, EncryptionError> + Send + Sync>;

/// A part of a call: rows as their payload is made, and outputs as they are read.
struct Part<T> {
    /// Position of its first row.
    first: u64,
    rows: u32,
    /// About.
    payload_bytes: u64,
    make: Make,
    read: Read<T>,
}

/// Connections, and what calls share. Calls run on the runtime in which they are awaited.
pub struct Stream<B: Broker, S: Store> {
    shared: Arc<Shared<B, S>>,
}

struct Shared<B: Broker, S: Store> {
    asking: Asking<B, S>,
    keys: EvaluationKeys<B, S>,
    settings: ProducerSection,
    /// Jobs of all calls.
    in_flight: Semaphore,
    /// Payloads that are encrypted and not yet at the broker or in the store.
    payloads: PayloadRoom,
    events: Events,
}

impl<B: Broker, S: Store> Stream<B, S> {
    /// Reaches both services, and makes a reply queue that nobody else has. A service that is away
    /// is an error here, since its address may be wrong; later it is waited for.
    pub async fn open(
        broker: Arc<B>,
        store: Arc<S>,
        settings: ProducerSection,
        events: Events,
    ) -> Result<Self, StreamError> {
        // Something small, to see whether it answers.
        store.marks(&settings.tenant, JobId::random()).await?;
        let queue = ReplyQueue::new(&settings.tenant, &unique_client(&settings.client))
            .map_err(|error| StreamError::Ended(error.to_string()))?;
        let options = settings.client_options();
        let client = Client::open(broker, store, queue, options, events.clone()).await?;
        let shared = Shared {
            asking: Asking::start(client.clone(), events.clone()),
            keys: EvaluationKeys::new(client, settings.key_lease),
            in_flight: Semaphore::new(settings.in_flight.get().into()),
            payloads: PayloadRoom::new(),
            settings,
            events,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Decrypted integers of rows, in their order. `scored` is told of rows as they come back.
    ///
    /// # Errors
    /// A row that the model cannot take, before anything is published; and whatever keeps any row
    /// from a result.
    pub async fn score(
        &self,
        target: &Target,
        encryption: &Arc<dyn Encryption>,
        rows: Matrix<f64>,
        rows_per_job: Option<NonZeroU32>,
        scored: &Events,
    ) -> Result<Matrix<i64>, StreamError> {
        let rows = Arc::new(rows);
        let (checking, checked) = (Arc::clone(encryption), Arc::clone(&rows));
        blocking(move || checking.model().check(&checked, 1)).await??;
        let model = encryption.model();
        let outputs = model.interface().outputs;
        let part_rows = rows_per_job.unwrap_or_else(|| model.rows_per_job(None)).get();
        let parts = (0..rows.len()).step_by(part_rows as usize).map(|first| {
            let count = part_rows.min(u32::try_from(rows.len() - first).unwrap_or(u32::MAX));
            let (encrypting, decrypting) = (Arc::clone(encryption), Arc::clone(encryption));
            let rows = Arc::clone(&rows);
            Part {
                first: first as u64,
                rows: count,
                payload_bytes: model.payload_bytes(count),
                make: Arc::new(move || encrypting.encrypt(&rows.part(first, count as usize))),
                read: Arc::new(move |outputs| decrypting.decrypt(outputs, count)),
            }
        });
        let results = self.all(target, parts, scored).await?;
        let mut integers = Vec::with_capacity(rows.len() * outputs);
        results.iter().for_each(|part| integers.extend_from_slice(part.values()));
        Ok(Matrix::new(outputs, integers))
    }

    /// Outputs of payloads that another program encrypted, each with its number of rows, in their
    /// order.
    ///
    /// # Errors
    /// Whatever keeps any of them from its outputs.
    pub async fn evaluate(
        &self,
        target: &Target,
        payloads: Vec<(u32, Vec<u8>)>,
        scored: &Events,
    ) -> Result<Vec<Vec<u8>>, StreamError> {
        let mut first = 0;
        let parts = payloads.into_iter().map(|(rows, payload)| {
            let part = Part {
                first,
                rows,
                payload_bytes: payload.len() as u64,
                make: Arc::new(move || Ok(payload.clone())),
                read: Arc::new(|outputs| Ok(outputs.to_vec())),
            };
            first += u64::from(rows);
            part
        });
        self.all(target, parts, scored).await
    }

    /// Runs parts side by side and keeps their order. The first failure ends all of them.
    async fn all<T: Send + 'static>(
        &self,
        target: &Target,
        parts: impl Iterator<Item = Part<T>>,
        scored: &Events,
    ) -> Result<Vec<T>, StreamError> {
        let mut tasks = JoinSet::new();
        for (number, part) in parts.enumerate() {
            let (shared, target) = (Arc::clone(&self.shared), target.clone());
            let scored = scored.clone();
            tasks.spawn(async move {
                let result = shared.part(&target, part, &scored).await?;
                Ok::<_, StreamError>((number, result))
            });
        }
        let mut results = Vec::with_capacity(tasks.len());
        while let Some(done) = tasks.join_next().await {
            results.push(done??);
        }
        results.sort_by_key(|(number, _)| *number);
        Ok(results.into_iter().map(|(_, result)| result).collect())
    }
}

impl<B: Broker, S: Store> Shared<B, S> {
    /// Makes jobs of a part until one has an answer that can be read.
    async fn part<T: Send + 'static>(
        &self,
        target: &Target,
        part: Part<T>,
        scored: &Events,
    ) -> Result<T, StreamError> {
        let _room = self.in_flight.acquire().await;
        let mut step = KeyStep::Once;
        let mut jobs = 0;
        loop {
            let published = Instant::now();
            jobs += 1;
            let (job, answer) = self.ask(target, &part, step).await?;
            let (reason, next) = match answer {
                Some(Answer::Scored(outputs)) => {
                    let read = Arc::clone(&part.read);
                    match blocking(move || read(&outputs)).await? {
                        Ok(result) => {
                            scored.tell(Event::Scored { rows: part.rows.into() });
                            return Ok(result);
                        }
                        Err(error) => (error.to_string(), Some(KeyStep::Once)),
                    }
                }
                Some(Answer::Failed { code, reason }) => {
                    (format!("{code}: {reason}"), remedy(code, published))
                }
                Some(Answer::Lost { reason }) => {
                    (format!("the outputs are lost: {reason}"), Some(KeyStep::Once))
                }
                None => ("not answered by its deadline".into(), Some(KeyStep::Once)),
            };
            match next {
                Some(next) if jobs < MAX_JOBS_OF_PART => {
                    self.events.tell(Event::PublishedAgain { reason });
                    step = next;
                }
                _ => {
                    let (first, last) = (part.first + 1, part.first + u64::from(part.rows));
                    return Err(StreamError::Failed { first, last, job, reason });
                }
            }
        }
    }

    /// Encrypts and publishes one job of a part, and waits for its answer: none, if it is too late.
    async fn ask<T>(
        &self,
        target: &Target,
        part: &Part<T>,
        step: KeyStep,
    ) -> Result<(JobId, Option<Answer>), StreamError> {
        let id = JobId::random();
        let time = self.settings.job_deadline();
        let deadline = time.map(|time| Timestamp::now().after(time));
        let due = time.and_then(due_in);
        let room = self.payloads.take(part.payload_bytes).await;
        let make = Arc::clone(&part.make);
        let (payload, ()) = tokio::try_join!(
            async { Ok::<_, StreamError>(blocking(move || make()).await??) },
            self.keys.prepare::<StreamError>(target.key.as_ref(), step),
        )?;
        let request = JobRequest {
            id,
            model_id: target.model_id,
            key_id: target.key.as_ref().map(|(id, _)| *id),
            rows: part.rows,
            deadline,
            correlation_id: None,
            payload,
        };
        let asked = self.asking.publish(request).await?;
        drop(room);
        match asked.answer(due).await {
            Ok(answer) => Ok((id, Some(answer))),
            Err(Unanswered::TooLate) => Ok((id, None)),
            Err(Unanswered::Ended(reason)) => Err(StreamError::Ended(reason)),
        }
    }
}
