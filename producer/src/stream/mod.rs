//! Rows in memory through the queue, call after call over the same connections.
//!
//! What [`score`](crate::score) does for a file that must survive a crash, this does for a process
//! that holds its rows and wants its scores: nothing is written down. Rows are cut into parts, each
//! part is a job, encryption runs beside publishing, and parts are decrypted in the order in which
//! they are answered. A call has the results of all its rows or an error; jobs of a call that ended
//! early are taken back.
//!
//! Several calls share one reply queue, one bound of jobs in flight for each model, and the knowledge of which
//! evaluation keys are in the store.

mod unkept;

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use cipherscore_common::broker::Broker;
use cipherscore_common::topology::ReplyQueue;
use cipherscore_common::{FormName, JobId, ModelId, OwnerStore, StoreError};
use parking_lot::Mutex;
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};
use tracing::Instrument;

use self::unkept::Unkept;
use crate::blocking::{Interest, blocking};
use crate::client::{Client, ClientError};
pub use crate::driver::{Cause, Target};
use crate::driver::{Driver, NoResults, Payload, Read, Sink, Source};
use crate::events::{Event, Events};
use crate::key_folder::KeyFolderError;
use crate::matrix::Matrix;
use crate::model::{Encryption, EncryptionError, Finality};
use crate::score::unique_client;
use crate::settings::ProducerSection;

/// Why a call has no results.
#[derive(Debug, Error)]
pub enum StreamError {
    /// Broker or store.
    #[error(transparent)]
    Client(ClientError),
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
        /// What kind of reason that is.
        cause: Cause,
    },
    /// Nothing reads replies any more.
    #[error("replies are no longer received: {0}")]
    Ended(String),
    /// The runtime is shutting down, or a step panicked.
    #[error("the call was stopped: {0}")]
    Stopped(#[from] JoinError),
}

impl StreamError {
    /// What makes it final, if it is.
    pub fn finality(&self) -> Option<Finality> {
        match self {
            Self::Encryption(error) => error.finality(),
            Self::Failed { cause: Cause::Final(finality), .. } => Some(*finality),
            _ => None,
        }
    }
}

impl From<ClientError> for StreamError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::NoReplies(reason) => Self::Ended(reason.to_string()),
            error => Self::Client(error),
        }
    }
}

/// A part of a call: rows as their payload is made, and outputs as they are read.
struct Part<T> {
    /// Position of its first row.
    first: u64,
    rows: u32,
    source: Source<StreamError>,
    read: Read<T>,
}

/// Connections, and what calls share. Calls run on the runtime in which they are awaited.
pub struct Stream<B: Broker, S: OwnerStore> {
    shared: Arc<Shared<B, S>>,
}

struct Shared<B: Broker, S: OwnerStore> {
    driver: Driver<B, S>,
    /// Jobs of all calls, for each model that has any: those that nobody takes keep no other model's
    /// from the queue.
    in_flight: Mutex<HashMap<ModelId, Arc<Semaphore>>>,
    per_model: usize,
}

impl<B: Broker, S: OwnerStore> Stream<B, S> {
    /// Reaches both services, and makes a reply queue that nobody else has. A service that is away
    /// is an error here, since its address may be wrong; later it is waited for.
    pub async fn open(
        broker: Arc<B>,
        store: Arc<S>,
        settings: ProducerSection,
        events: Events,
    ) -> Result<Self, StreamError> {
        store.check(&settings.tenant).await?;
        let queue = ReplyQueue::new(&settings.tenant, &unique_client(&settings.client))
            .map_err(|error| StreamError::Ended(error.to_string()))?;
        let options = settings.client_options();
        let client = Client::open(broker, store, queue, options, events.clone()).await?;
        let (key_lease, job_time) = (settings.key_lease, settings.job_deadline());
        let mut driver = Driver::new(client, key_lease, job_time, events);
        driver.listen();
        let (in_flight, per_model) = (Mutex::default(), settings.in_flight.get().into());
        let shared = Shared { driver, in_flight, per_model };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Renews the lease of an evaluation key in the store, and puts it there again if it is gone.
    pub async fn renew_key(&self, target: &Target) -> Result<(), StreamError> {
        self.shared.driver.renew_key::<Unkept<()>>(target).await
    }

    /// Decrypted integers of rows, in their order. `scored` is told of rows as they come back.
    /// Dropped, it encrypts no further row.
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
        let interest = Interest::default();
        let (checking, checked) = (Arc::clone(encryption), Arc::clone(&rows));
        blocking(move || checking.model().check(&checked, 1)).await??;
        let model = encryption.model();
        let outputs = model.interface().outputs;
        let part_rows = rows_per_job.unwrap_or_else(|| model.rows_per_job(None)).get();
        let parts = (0..rows.len()).step_by(part_rows as usize).map(|first| {
            let count = part_rows.min(u32::try_from(rows.len() - first).unwrap_or(u32::MAX));
            let (encrypting, decrypting) = (Arc::clone(encryption), Arc::clone(encryption));
            let (rows, stop) = (Arc::clone(&rows), interest.is_gone());
            let encrypt = move || {
                let part = rows.part(first, count as usize);
                let encrypted = encrypting.encrypt_unless(&part, &stop)?;
                Ok(Payload::new(&*encrypting, count, encrypted))
            };
            let decrypt =
                move |outputs: Vec<u8>, receipt| Ok(decrypting.decrypt(&outputs, count, receipt)?);
            let source = Source {
                target: target.clone(),
                payload_bytes: model.payload_bytes(count),
                make: Arc::new(encrypt),
            };
            Part { first: first as u64, rows: count, source, read: Arc::new(decrypt) }
        });
        // Were the other jobs taken back after a bad reply, whoever made it would see that it was one.
        let is_patient = target.form == Some(FormName::Rows);
        let results = self.all(parts, scored, is_patient).await?;
        let mut integers = Vec::with_capacity(rows.len() * outputs);
        results.iter().for_each(|part| integers.extend_from_slice(part.values()));
        Ok(Matrix::new(outputs, integers))
    }

    /// Outputs of payloads that another program encrypted under a client key without owner id, as
    /// Concrete's are, each with its number of rows, in their order.
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
            let source = Source {
                target: target.clone(),
                payload_bytes: payload.len() as u64,
                make: Arc::new(move || {
                    let (bytes, receipt, planned) = (payload.clone(), None, None);
                    Ok(Payload { rows, owner: None, bytes, receipt, planned })
                }),
            };
            let part = Part { first, rows, source, read: Arc::new(|outputs, _| Ok(outputs)) };
            first += u64::from(rows);
            part
        });
        self.all(parts, scored, false).await
    }

    /// Runs parts side by side and keeps their order. The first failure ends all of them, or, of a
    /// patient call, comes when all of them have ended: one that is final before any other, as who
    /// hears of the other tries again.
    async fn all<T: Send + 'static>(
        &self,
        parts: impl Iterator<Item = Part<T>>,
        scored: &Events,
        is_patient: bool,
    ) -> Result<Vec<T>, StreamError> {
        let mut tasks = JoinSet::new();
        for (number, part) in parts.enumerate() {
            let (shared, scored) = (Arc::clone(&self.shared), scored.clone());
            let run = async move {
                let result = shared.part(part, &scored).await?;
                Ok::<_, StreamError>((number, result))
            };
            tasks.spawn(run.in_current_span());
        }
        let mut results = Vec::with_capacity(tasks.len());
        let mut failure = None;
        while let Some(done) = tasks.join_next().await {
            match done? {
                Ok(result) => results.push(result),
                Err(error) if is_patient => {
                    let is_first = failure.as_ref().is_none_or(|before: &StreamError| {
                        before.finality().is_none() && error.finality().is_some()
                    });
                    failure = if is_first { Some(error) } else { failure };
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(failure) = failure {
            return Err(failure);
        }
        results.sort_by_key(|(number, _)| *number);
        Ok(results.into_iter().map(|(_, result)| result).collect())
    }
}

impl<B: Broker, S: OwnerStore> Shared<B, S> {
    fn room(&self, model: ModelId) -> Arc<Semaphore> {
        let mut in_flight = self.in_flight.lock();
        // A model with no job needs no place.
        in_flight.retain(|_, room| Arc::strong_count(room) > 1);
        let room = in_flight.entry(model);
        Arc::clone(room.or_insert_with(|| Arc::new(Semaphore::new(self.per_model))))
    }

    /// Takes a part through the queue.
    async fn part<T: Send + 'static>(
        &self,
        part: Part<T>,
        scored: &Events,
    ) -> Result<T, StreamError> {
        let Part { first, rows, source, read } = part;
        let room = self.room(source.target.model_id);
        let _room = room.acquire().await;
        let sink = Sink { read, journal: Unkept::new() };
        let mut unit = self.driver.unit::<Unkept<T>>();
        match self.driver.run(&mut unit, &source, &sink).await? {
            Ok(results) => {
                scored.tell(Event::Scored { rows: rows.into() });
                Ok(results)
            }
            Err((job, NoResults { reason, cause })) => {
                let (first, last) = (first + 1, first + u64::from(rows));
                Err(StreamError::Failed { first, last, job, reason, cause })
            }
        }
    }
}
