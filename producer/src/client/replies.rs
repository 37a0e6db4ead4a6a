//! Replies, as they come.

use std::fmt;

use cipherscore_common::broker::{
    Broker, BrokerError, Delivery, Disposition, QueuePrefetch, Settlement, Subscription,
};
use cipherscore_common::message::{
    ErrorCode, Outcome, Payload, ProtocolVersion, Reply, StoredPayload, Timings,
};
use cipherscore_common::telemetry::trace;
use cipherscore_common::{
    BlobKind, BlobReader, Digest, ErrorClass, JobId, ModelId, OwnerStore, StoreError,
};

use tracing::{Instrument, debug};

use super::backoff::Backoff;
use super::expected::{Arrival, InFlight};
use super::{Client, ClientError};
use crate::events::Event;

/// What came of a job.
#[derive(Clone, PartialEq, Eq)]
pub enum Answer {
    /// The encrypted outputs of its rows.
    Scored(Vec<u8>),
    /// None, and why.
    Failed {
        /// For programs.
        code: ErrorCode,
        /// For people.
        reason: String,
    },
    /// There were outputs, but the store does not have them any more.
    Lost {
        /// What is there instead.
        reason: String,
    },
}

/// Never the bytes.
impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scored(outputs) => write!(f, "outputs of {} bytes", outputs.len()),
            Self::Failed { code, reason } => write!(f, "{code}: {reason}"),
            Self::Lost { reason } => write!(f, "lost: {reason}"),
        }
    }
}

/// The replies of a client's jobs.
pub struct Replies<B: Broker, S> {
    client: Client<B, S>,
    subscription: Option<B::Subscription>,
}

impl<B: Broker, S: OwnerStore> Replies<B, S> {
    pub(super) fn new(client: Client<B, S>) -> Self {
        Self { client, subscription: None }
    }

    /// The next reply to a job in flight. A broker or a store that is away is waited for. Dropped
    /// midway, nothing is lost: what was not handed out comes again.
    pub async fn next(&mut self) -> Result<Received<B, S>, ClientError> {
        loop {
            let delivery = self.delivery().await?;
            let span = trace::receive(&delivery.message);
            if let Some(received) = self.client.receive(delivery).instrument(span).await? {
                debug!(job = %received.job, worker = received.worker, "reply received");
                return Ok(received);
            }
        }
    }

    async fn delivery(&mut self) -> Result<Delivery, ClientError> {
        let events = self.client.shared.events.clone();
        let mut backoff = Backoff::new(&events);
        loop {
            let subscription = match &mut self.subscription {
                Some(subscription) => subscription,
                none => match self.client.subscribe().await {
                    Ok(subscription) => {
                        backoff.over();
                        none.insert(subscription)
                    }
                    Err(error) if error.is_temporary() => {
                        backoff.wait(&error).await;
                        continue;
                    }
                    Err(error) => return Err(error.into()),
                },
            };
            match subscription.next().await {
                Ok(delivery) => return Ok(delivery),
                Err(error) => {
                    // Even when it says that it is for good: the queue may have been taken away,
                    // and is declared again.
                    self.subscription = None;
                    backoff.wait(&error).await;
                }
            }
        }
    }
}

impl<B: Broker, S: OwnerStore> Client<B, S> {
    async fn subscribe(&self) -> Result<B::Subscription, BrokerError> {
        self.declare_own().await?;
        let queue = self.shared.queue.to_string();
        let prefetch = self.shared.options.prefetch.get();
        self.shared.broker.subscribe(&[QueuePrefetch { queue, prefetch }]).await
    }

    /// Settles what nobody waits for; the rest is for the caller.
    async fn receive(&self, delivery: Delivery) -> Result<Option<Received<B, S>>, ClientError> {
        let Delivery { message, settlement, .. } = delivery;
        let reply = match Reply::from_message(&message) {
            Ok(reply) => reply,
            Err(refusal) => {
                self.refuse(settlement, refusal.reason).await;
                return Ok(None);
            }
        };
        drop(message);
        let (job, settlement) = match self.shared.expected.arrive(reply.job, settlement) {
            Arrival::First(job, settlement) => (job, settlement),
            Arrival::Kept => return Ok(None),
            Arrival::Unknown(settlement) => {
                self.shared.events.tell(Event::ReplyDropped { job: reply.job });
                settle(settlement, Disposition::Ack).await;
                // Nobody else reads this queue.
                if let Outcome::Scored(Payload::Stored(stored)) = reply.outcome {
                    self.remove(&self.blob(BlobKind::Reply, stored.sha256)).await;
                }
                return Ok(None);
            }
        };
        // From here on the job counts as handed out, until this is dropped.
        let mut received = Received {
            job: reply.job,
            model_id: job.model_id,
            version: job.version.unwrap_or_default(),
            worker: reply.worker.clone(),
            timings: reply.timings,
            answer: Answer::Lost { reason: String::new() },
            open: Some(Open { in_flight: job, settlement, reply: None }),
            client: self.clone(),
        };
        if let Some(what) = foreign(&reply, &job) {
            if let Some(open) = received.open.take() {
                self.shared.expected.put_back(received.job);
                let reason = format!("the reply to job {} is of another {what}", received.job);
                self.refuse(open.settlement, reason).await;
            }
            return Ok(None);
        }
        received.answer = match reply.outcome {
            Outcome::Failed { code, reason } => Answer::Failed { code, reason },
            Outcome::Scored(Payload::Inline(outputs)) => Answer::Scored(outputs),
            Outcome::Scored(Payload::Stored(stored)) => {
                if let Some(open) = &mut received.open {
                    open.reply = Some(stored.sha256);
                }
                self.fetch(&stored).await?
            }
        };
        Ok(Some(received))
    }

    async fn refuse(&self, settlement: Settlement, reason: String) {
        self.shared.events.tell(Event::ReplyMalformed { reason });
        settle(settlement, Disposition::DeadLetter).await;
    }

    /// Outputs from the store, with the digest that the reply names.
    async fn fetch(&self, stored: &StoredPayload) -> Result<Answer, ClientError> {
        let limit = self.shared.options.max_reply_bytes;
        if stored.bytes > limit {
            let bytes = stored.bytes;
            let reason = format!("outputs of {bytes} bytes, where at most {limit} are expected");
            return Ok(Answer::Lost { reason });
        }
        let mut backoff = Backoff::new(&self.shared.events);
        loop {
            let error = match self.read(stored).await {
                Ok(answer) => {
                    backoff.over();
                    return Ok(answer);
                }
                Err(error) => error,
            };
            match error.class() {
                ErrorClass::Unavailable => backoff.wait(&error).await,
                ErrorClass::NotFound | ErrorClass::Damaged => {
                    return Ok(Answer::Lost { reason: error.to_string() });
                }
                ErrorClass::Permanent => return Err(error.into()),
            }
        }
    }

    async fn read(&self, stored: &StoredPayload) -> Result<Answer, StoreError> {
        let name = self.blob(BlobKind::Reply, stored.sha256);
        let reader = BlobReader::open(&*self.shared.store, &name).await?;
        // The reader checks the bytes against what the store says of them.
        if (reader.info().sha256, reader.info().bytes) != (stored.sha256, stored.bytes) {
            return Ok(Answer::Lost { reason: format!("{name} is something else") });
        }
        reader.read_all(stored.bytes).await.map(Answer::Scored)
    }
}

/// What of a reply is not that of its job: outputs of another model, or of another owner's rows, may
/// decrypt to plausible scores. One of version 1 does not say whose rows they were, and is believed
/// where the job did not say it either: a worker that speaks version 1 only has no outputs for a job
/// of version 2.
fn foreign(reply: &Reply, job: &InFlight) -> Option<&'static str> {
    let scored = matches!(reply.outcome, Outcome::Scored(_));
    let is_other_version = job.version.is_some_and(|version| version != reply.version);
    let is_other_owner = job.owner_id.is_some() && reply.owner_id != job.owner_id;
    match (reply.model_id, reply.version) {
        (Some(model), _) if model != job.model_id => Some("model"),
        (None, _) if scored => Some("model"),
        _ if scored && is_other_version => Some("version of the protocol"),
        (_, ProtocolVersion::V2) if scored && is_other_owner => Some("owner"),
        _ => None,
    }
}

async fn settle(settlement: Settlement, disposition: Disposition) {
    // What the broker was not told comes again, and is settled then.
    let _ = settlement.settle(disposition).await;
}

/// A reply that the broker keeps until [`Received::ack`]. Dropped without it, it comes again.
pub struct Received<B: Broker, S: OwnerStore> {
    /// Which job.
    pub job: JobId,
    /// Which model it names.
    model_id: ModelId,
    /// In which version of the protocol it was written; the newest where that is not known.
    version: ProtocolVersion,
    /// Which worker answered.
    pub worker: String,
    /// Where its time went.
    pub timings: Timings,
    /// What came of the job.
    pub answer: Answer,
    open: Option<Open>,
    client: Client<B, S>,
}

struct Open {
    in_flight: InFlight,
    settlement: Settlement,
    /// Outputs in the store.
    reply: Option<Digest>,
}

impl<B: Broker, S: OwnerStore> Received<B, S> {
    /// The worker does not speak the version of the job. Says in which older one the next jobs of its
    /// model are written, for some minutes; none where there is none.
    pub(crate) fn speak_older(&self) -> Option<ProtocolVersion> {
        self.client.shared.versions.refused(self.model_id, self.version)
    }

    /// The answer by itself, to work on while the message waits.
    pub fn take_answer(&mut self) -> Answer {
        std::mem::replace(&mut self.answer, Answer::Lost { reason: "taken".into() })
    }

    /// The answer is safe: lets go of the message, and of the job's bytes in the store. Should the
    /// broker not hear of it, the reply comes again and is dropped.
    pub async fn ack(mut self) {
        let Some(open) = self.open.take() else { return };
        settle(open.settlement, Disposition::Ack).await;
        for copy in self.client.shared.expected.remove(self.job) {
            settle(copy, Disposition::Ack).await;
        }
        let blobs = [(BlobKind::Job, open.in_flight.payload), (BlobKind::Reply, open.reply)];
        for (kind, id) in blobs {
            if let Some(id) = id {
                self.client.remove(&self.client.blob(kind, id)).await;
            }
        }
    }
}

impl<B: Broker, S: OwnerStore> Drop for Received<B, S> {
    fn drop(&mut self) {
        if self.open.is_some() {
            self.client.shared.expected.put_back(self.job);
        }
    }
}

impl<B: Broker, S: OwnerStore> fmt::Debug for Received<B, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "reply to job {} from {}: {:?}", self.job, self.worker, self.answer)
    }
}
