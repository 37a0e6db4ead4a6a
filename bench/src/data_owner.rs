//! The other end of the queue: publishes jobs, waits for replies, and looks at the clock.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use cipherscore_common::broker::amqp::{AmqpBroker, AmqpConfig, AmqpSubscription};
use cipherscore_common::broker::{
    Broker, BrokerError, Delivery, Disposition, QueuePrefetch, Subscription,
};
use cipherscore_common::message::{Job, Message, Outcome, Payload, Reply, Timings};
use cipherscore_common::topology::{Declare, Lane, ReplyQueue, Topology, job_queue};
use cipherscore_common::{Blob, BlobStore, JobId, ModelId, RedisConfig, RedisStore, Tenant};
use tokio::task::JoinSet;

use crate::workers::WorkerProcess;

/// How long a reply or a worker may take to come.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often we look whether workers came or went.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// How late a timer may be.
const TIMER_LATE: Duration = Duration::from_millis(2);
/// Replies at a time, more than jobs in flight.
const REPLY_PREFETCH: u16 = 256;

/// A client of the private services.
pub(crate) struct DataOwner {
    broker: AmqpBroker,
    store: RedisStore,
    replies: AmqpSubscription,
    pub(crate) reply_to: ReplyQueue,
}

/// What came of some jobs.
pub(crate) struct Round {
    /// From the first publication to the last reply.
    pub(crate) time: Duration,
    pub(crate) answers: Vec<Answer>,
}

/// What came of one job.
pub(crate) struct Answer {
    /// From before its publication to the reply in our hands.
    pub(crate) round_trip: Duration,
    /// The worker's own clock.
    pub(crate) timings: Timings,
    pub(crate) worker: String,
    pub(crate) job: JobId,
    /// Those that are in the message.
    pub(crate) outputs: Option<Vec<u8>>,
}

impl Answer {
    /// Everything but evaluation and key, in seconds.
    pub(crate) fn path(&self) -> f64 {
        let computing = self.timings.evaluate + self.timings.key;
        self.round_trip.saturating_sub(computing).as_secs_f64()
    }
}

impl DataOwner {
    pub(crate) async fn new(broker_url: &str, store_url: &str) -> anyhow::Result<Self> {
        let broker = AmqpBroker::new(AmqpConfig::parse(broker_url)?)?;
        let store = RedisStore::new(&RedisConfig::parse(store_url)?)?;
        let reply_to = ReplyQueue::new(&Tenant::default(), "bench")?;
        broker.declare(&Topology::shared(), Declare::Create).await?;
        broker.declare(&Topology::of_client(&reply_to), Declare::Create).await?;
        let queue = QueuePrefetch { queue: reply_to.to_string(), prefetch: REPLY_PREFETCH };
        let replies = broker.subscribe(&[queue]).await?;
        Ok(Self { broker, store, replies, reply_to })
    }

    pub(crate) async fn put_key(&self, key: &Blob) -> anyhow::Result<()> {
        self.store.put(key, None, &|| ()).await?;
        Ok(())
    }

    /// Waits until these workers, and no others, take jobs of a model.
    pub(crate) async fn expect_workers(
        &self,
        model: ModelId,
        workers: &mut [WorkerProcess],
    ) -> anyhow::Result<()> {
        self.broker.declare(&Topology::of_model(model), Declare::Create).await?;
        let queue = job_queue(model, Lane::Normal);
        let started = Instant::now();
        loop {
            let state = self.broker.queue_state(&queue).await?;
            if state.is_some_and(|state| state.consumers as usize == workers.len()) {
                return Ok(());
            }
            workers.iter_mut().try_for_each(WorkerProcess::require)?;
            ensure!(started.elapsed() < PATIENCE, "the workers do not come or go");
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// Publishes jobs, so many before the replies to earlier ones, until all are answered.
    pub(crate) async fn run(&mut self, jobs: &[Job], in_flight: usize) -> anyhow::Result<Round> {
        // Nothing but the queue is measured: messages are made before the clock starts.
        let messages: Vec<_> = jobs.iter().map(|job| (job.id, job.to_message())).collect();
        let mut messages = messages.into_iter();
        let mut flight = Flight::new(self);
        while flight.answers.len() < jobs.len() {
            while flight.waiting.len() < in_flight
                && let Some((id, message)) = messages.next()
            {
                flight.publish(id, message, Instant::now());
            }
            let arrived = flight.next().await?;
            flight.take(arrived).await?;
        }
        flight.land().await
    }

    /// Publishes jobs at a rate, whatever is answered meanwhile, until all are answered. A round trip
    /// begins when its job is due, but for what a timer is late.
    pub(crate) async fn run_at(
        &mut self,
        jobs: &[Job],
        interval: Duration,
    ) -> anyhow::Result<Round> {
        let messages: Vec<_> = jobs.iter().map(|job| (job.id, job.to_message())).collect();
        let mut messages = messages.into_iter();
        let mut due = tokio::time::interval(interval);
        let mut flight = Flight::new(self);
        while flight.answers.len() < jobs.len() {
            tokio::select! {
                at = due.tick(), if messages.len() > 0 => {
                    let Some((id, message)) = messages.next() else { continue };
                    let (due, now) = (at.into_std(), Instant::now());
                    let is_late = now.saturating_duration_since(due) > TIMER_LATE;
                    flight.publish(id, message, if is_late { due } else { now });
                }
                arrived = flight.next() => flight.take(arrived?).await?,
            }
        }
        flight.land().await
    }
}

/// Jobs that are published and answered, from now on.
struct Flight<'a> {
    owner: &'a mut DataOwner,
    started: Instant,
    /// When each job's round trip began.
    waiting: HashMap<JobId, Instant>,
    publishing: JoinSet<Result<(), BrokerError>>,
    answers: Vec<Answer>,
}

impl<'a> Flight<'a> {
    fn new(owner: &'a mut DataOwner) -> Self {
        let (waiting, publishing, answers) = Default::default();
        Self { owner, started: Instant::now(), waiting, publishing, answers }
    }

    fn publish(&mut self, id: JobId, message: Message, began: Instant) {
        let broker = self.owner.broker.clone();
        self.waiting.insert(id, began);
        self.publishing.spawn(async move { broker.publish(&message).await });
    }

    /// Waits until a message is published, or a reply is here. It may be dropped meanwhile.
    async fn next(&mut self) -> anyhow::Result<Option<Delivery>> {
        tokio::select! {
            Some(published) = self.publishing.join_next() => {
                published??;
                Ok(None)
            }
            delivery = tokio::time::timeout(PATIENCE, self.owner.replies.next()) => {
                Ok(Some(delivery.context("no reply came")??))
            }
        }
    }

    async fn take(&mut self, arrived: Option<Delivery>) -> anyhow::Result<()> {
        if let Some(delivery) = arrived {
            self.answers.extend(take(delivery, &mut self.waiting).await?);
        }
        Ok(())
    }

    /// All are answered: that is the end of the time.
    async fn land(mut self) -> anyhow::Result<Round> {
        let time = self.started.elapsed();
        while let Some(published) = self.publishing.join_next().await {
            published??;
        }
        Ok(Round { time, answers: self.answers })
    }
}

/// Takes a reply; none where it was taken before.
async fn take(
    delivery: Delivery,
    waiting: &mut HashMap<JobId, Instant>,
) -> anyhow::Result<Option<Answer>> {
    let arrived = Instant::now();
    let reply = Reply::from_message(&delivery.message);
    let reply = reply.map_err(|refusal| anyhow::anyhow!("{refusal:?}"))?;
    delivery.settle(Disposition::Ack).await?;
    let began = waiting.remove(&reply.job);
    began.map(|began| answer(reply, arrived.saturating_duration_since(began))).transpose()
}

fn answer(reply: Reply, round_trip: Duration) -> anyhow::Result<Answer> {
    let Reply { job, timings, worker, .. } = reply;
    let answer = |outputs| Answer { round_trip, timings, worker, job, outputs };
    match reply.outcome {
        Outcome::Scored(Payload::Inline(outputs)) => Ok(answer(Some(outputs))),
        Outcome::Scored(Payload::Stored(_)) => Ok(answer(None)),
        Outcome::Failed { code, reason } => anyhow::bail!("a job failed: {code}: {reason}"),
    }
}
