//! Publishes jobs and hands out their replies.
//!
//! A job is executed at least once. Its reply is handed out once: a second one to the same job is
//! dropped, and so is one to a job that is not in flight.

mod backoff;
mod expected;
mod replies;
mod versions;

use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use cipherscore_common::broker::{Broker, BrokerError, QueueState, declare_shared};
use cipherscore_common::message::{
    Job, JobTerms, MAX_INLINE_BYTES, Payload, ProtocolVersion, Timestamp, TraceParent, headers,
};
use cipherscore_common::telemetry::trace;
use cipherscore_common::topology::{Declare, Lane, LaneChoice, ReplyQueue, Topology, job_queue};
use cipherscore_common::{
    Blob, BlobKind, BlobName, Digest, ErrorClass, EvaluationKeyId, FormName, JobId, Lease,
    MAX_BLOB_BYTES, ModelId, OwnerId, OwnerStore, Put, StoreError, Tenant,
};
use thiserror::Error;
use tracing::{Instrument, debug};

use self::backoff::Backoff;
use self::expected::Expected;
pub use self::expected::InFlight;
pub use self::replies::{Answer, Received, Replies};
use self::versions::Versions;
use crate::events::Events;

/// How long payloads stay in the store unless told otherwise: as long as a reply queue without a
/// consumer.
pub const PAYLOAD_LEASE: Lease = Lease::days(7);

/// Why a client cannot go on. What passes by itself is waited for, and is no error.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The broker.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no queue of this model.
    #[error(
        "no worker has ever served model {model_id}: its queue is missing at the broker. Check \
         the model id, and start a worker with this model"
    )]
    NoQueue {
        /// Which model.
        model_id: ModelId,
    },
    /// Replies are no longer read, for this reason.
    #[error("{0}")]
    NoReplies(Arc<Self>),
    /// The computing of a digest ended early.
    #[error("the program is shutting down")]
    ShuttingDown,
    /// Rows in a form that a worker of the fleet does not know.
    #[error(
        "a worker of model {model_id} does not know jobs of single rows: upgrade it, or take \
         --form bulk"
    )]
    OldWorkers {
        /// The model.
        model_id: ModelId,
    },
}

/// What a client does the same way for all its jobs.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Which of a model's queues.
    pub lane: LaneChoice,
    /// What to do about the reply queue.
    pub declare: Declare,
    /// How long payloads stay in the store.
    pub payload_lease: Lease,
    /// Replies that may be unsettled at a time.
    pub prefetch: NonZeroU16,
    /// Largest outputs that are read from the store, in bytes.
    pub max_reply_bytes: u64,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            lane: LaneChoice::default(),
            declare: Declare::default(),
            payload_lease: PAYLOAD_LEASE,
            prefetch: NonZeroU16::MIN.saturating_add(15),
            max_reply_bytes: MAX_BLOB_BYTES,
        }
    }
}

/// A job that is to be published.
#[derive(Debug, Clone)]
pub struct JobRequest {
    /// Which job: [`JobId::random`], unless it must be known before.
    pub id: JobId,
    /// Which model.
    pub model_id: ModelId,
    /// In which form its rows are encrypted; none of a model that can have one only.
    pub form: Option<FormName>,
    /// How long it is planned to take on one thread, where that is known.
    pub planned: Option<Duration>,
    /// Which key; none for a linear circuit.
    pub key_id: Option<EvaluationKeyId>,
    /// Whose rows; none where the client key has no owner id.
    pub owner_id: Option<OwnerId>,
    /// How many rows.
    pub rows: u32,
    /// When the scores are of no use any more.
    pub deadline: Option<Timestamp>,
    /// Comes back with the reply.
    pub correlation_id: Option<String>,
    /// The encrypted rows.
    pub payload: Vec<u8>,
}

/// Publishes jobs for one reply queue. Clones are the same client.
///
/// No two clients may have the same reply queue at the same time: each would drop what the other
/// waits for.
pub struct Client<B, S> {
    shared: Arc<Shared<B, S>>,
}

struct Shared<B, S> {
    broker: Arc<B>,
    store: Arc<S>,
    queue: ReplyQueue,
    options: ClientOptions,
    events: Events,
    expected: Expected,
    versions: Versions,
}

impl<B, S> Clone for Client<B, S> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<B: Broker, S: OwnerStore> Client<B, S> {
    /// Declares the reply queue, as `options` say. A broker that is away is an error here, since
    /// its address may be wrong; later it is waited for.
    pub async fn open(
        broker: Arc<B>,
        store: Arc<S>,
        queue: ReplyQueue,
        options: ClientOptions,
        events: Events,
    ) -> Result<Self, ClientError> {
        let (expected, versions) = (Expected::default(), Versions::default());
        let shared = Shared { broker, store, queue, options, events, expected, versions };
        let client = Self { shared: Arc::new(shared) };
        if client.shared.options.declare == Declare::Create {
            declare_shared(&*client.shared.broker).await?;
        }
        client.declare_own().await?;
        Ok(client)
    }

    async fn declare_own(&self) -> Result<(), BrokerError> {
        let topology = Topology::of_client(&self.shared.queue);
        self.shared.broker.declare(&topology, self.shared.options.declare).await
    }

    /// Whose jobs these are.
    pub fn tenant(&self) -> &Tenant {
        self.shared.queue.tenant()
    }

    /// Where their replies come.
    pub fn reply_queue(&self) -> &ReplyQueue {
        &self.shared.queue
    }

    /// Puts an evaluation key into the store, or renews its lease if it is there.
    pub async fn ensure_key(&self, key: &Blob, lease: Lease) -> Result<Put, ClientError> {
        let Shared { store, events, .. } = &*self.shared;
        let mut backoff = Backoff::new(events);
        loop {
            match store.put(key, Some(lease), &|| ()).await {
                Err(error) if error.class() == ErrorClass::Unavailable => {
                    backoff.wait(&error).await;
                }
                put => {
                    backoff.over();
                    return Ok(put?);
                }
            }
        }
    }

    /// Puts an evaluation key into the store in the place of whatever is there under its id.
    pub async fn replace_key(&self, key: &Blob, lease: Lease) -> Result<(), ClientError> {
        self.remove(key.name()).await;
        self.ensure_key(key, lease).await.map(|_| ())
    }

    /// Publishes a job and waits until the broker has it, however long it is away. From then on
    /// its reply is waited for. Dropped before, the job may be published all the same.
    pub async fn submit(&self, request: JobRequest) -> Result<InFlight, ClientError> {
        let (payload, stored) = self.place(request.payload).await?;
        let (job, model_id, owner_id) = (request.id, request.model_id, request.owner_id);
        let version = self.shared.versions.current(model_id);
        let (form, planned) = (request.form, request.planned);
        // Workers before version 2 know the other form alone, and would take the rows for it.
        if form == Some(FormName::Rows) && version == ProtocolVersion::V1 {
            return Err(ClientError::OldWorkers { model_id });
        }
        let in_flight =
            InFlight { job, model_id, owner_id, version: Some(version), payload: stored };
        let mut message = Job {
            version,
            id: job,
            tenant: self.tenant().clone(),
            reply_to: self.shared.queue.clone(),
            correlation_id: request.correlation_id,
            model_id,
            lane: self.shared.options.lane.of_job(form, planned),
            key_id: request.key_id,
            rows: request.rows,
            deadline: request.deadline,
            terms: JobTerms { owner_id, form, planned, ..JobTerms::default() },
            attempt: 0,
            trace: Some(TraceParent::random()),
            payload,
        }
        .to_message();
        message.set(headers::PUBLISHED, Timestamp::now().millis());
        let span = trace::send(&message);
        trace::carry(&span, &mut message);
        // Before it is published, since the reply may be faster than the confirm.
        self.expect(in_flight);
        let mut backoff = Backoff::new(&self.shared.events);
        loop {
            let error = match self.shared.broker.publish(&message).instrument(span.clone()).await {
                Ok(()) => break,
                Err(error) => error,
            };
            if !error.is_temporary() {
                self.forget(job);
                return Err(match error {
                    BrokerError::Unroutable { .. } => ClientError::NoQueue { model_id },
                    error => error.into(),
                });
            }
            // Whether it was stored is not known. Under the same id, a second copy does no harm.
            backoff.wait(&error).await;
        }
        backoff.over();
        debug!(%job, model = %model_id, "job published");
        Ok(in_flight)
    }

    /// Waits for the reply of a job that an earlier process published.
    pub fn expect(&self, job: InFlight) {
        self.shared.expected.insert(job);
    }

    /// Waits no more for the reply of a job: when it comes, it is dropped.
    pub fn forget(&self, job: JobId) {
        self.shared.expected.remove(job);
    }

    /// As [`Client::forget`], and takes the job's rows out of the store, if they are there: a worker
    /// that has not begun has nothing to do then.
    pub async fn abandon(&self, job: JobId) {
        let payload = self.shared.expected.payload(job);
        self.forget(job);
        if let Some(id) = payload {
            self.remove(&self.blob(BlobKind::Job, id)).await;
        }
    }

    /// The replies, as they come. One stream for each client.
    pub fn replies(&self) -> Replies<B, S> {
        Replies::new(self.clone())
    }

    /// Asks the workers not to evaluate a job. One that is not done by then is answered with
    /// [`Cancelled`](cipherscore_common::message::ErrorCode::Cancelled).
    pub async fn cancel(&self, job: JobId) -> Result<(), ClientError> {
        Ok(self.shared.store.cancel(self.tenant(), job).await?)
    }

    /// How many jobs of a model wait in the lanes that this client's may take, and how many workers take
    /// them; `None` when it has no queue.
    pub async fn queue_state(&self, model_id: ModelId) -> Result<Option<QueueState>, BrokerError> {
        let lanes = match self.shared.options.lane {
            LaneChoice::Only(lane) => vec![lane],
            LaneChoice::Auto => Lane::ALL.to_vec(),
        };
        let mut all: Option<QueueState> = None;
        for lane in lanes {
            let state = self.shared.broker.queue_state(&job_queue(model_id, lane)).await?;
            let Some(QueueState { messages, consumers }) = state else { return Ok(None) };
            all = Some(match all {
                None => QueueState { messages, consumers },
                Some(all) => QueueState {
                    messages: all.messages.saturating_add(messages),
                    // Whatever lane has nobody has jobs that nobody takes.
                    consumers: all.consumers.min(consumers),
                },
            });
        }
        Ok(all)
    }

    /// Puts a payload where it belongs: into the message, or into the store.
    async fn place(&self, bytes: Vec<u8>) -> Result<(Payload, Option<Digest>), ClientError> {
        if bytes.len() <= MAX_INLINE_BYTES {
            return Ok((Payload::Inline(bytes), None));
        }
        let tenant = self.tenant().clone();
        let made =
            tokio::task::spawn_blocking(move || Blob::payload(&tenant, BlobKind::Job, bytes));
        let (blob, stored) = made.await.map_err(|_| ClientError::ShuttingDown)??;
        self.ensure_key(&blob, self.shared.options.payload_lease).await?;
        let digest = stored.sha256;
        Ok((Payload::Stored(stored), Some(digest)))
    }

    fn blob(&self, kind: BlobKind, id: Digest) -> BlobName {
        BlobName { tenant: self.tenant().clone(), kind, id }
    }

    /// Takes a blob out of the store. What stays there goes with its lease.
    async fn remove(&self, name: &BlobName) {
        let _ = self.shared.store.remove(name).await;
    }
}
