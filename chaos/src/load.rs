//! Jobs out, replies in, every reply looked at.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use cipherscore_common::broker::Broker;
use cipherscore_common::broker::amqp::AmqpBroker;
use cipherscore_common::message::{
    ErrorCode, Job, JobTerms, Payload, ProtocolVersion, Timestamp, headers,
};
use cipherscore_common::topology::{Lane, ReplyQueue};
use cipherscore_common::{JobId, Lease, RedisStore};
use cipherscore_producer::client::{
    Answer, Client, ClientOptions, InFlight, JobRequest, Received, Replies,
};
use cipherscore_producer::events::{Event, Events};
use fastrand::Rng;
use tokio::task::JoinSet;

use crate::ledger::{Expected, Ledger};
use crate::owner::Owner;
use crate::services::Services;
use crate::worker::{KILLS, PANICS};

/// Most rows of a job.
const MAX_ROWS: usize = 16;
/// How often jobs are published: those of one interval at once, so that workers have some waiting.
const BURST: Duration = Duration::from_secs(1);
/// Pause before something is published again.
const PAUSE: Duration = Duration::from_millis(250);

/// Data owners, each with a client of its own.
pub struct Load {
    owners: Vec<Owner>,
    clients: Vec<Client<AmqpBroker, RedisStore>>,
    broker: AmqpBroker,
    /// What was asked, and what came.
    pub ledger: Ledger,
    /// Jobs that were published.
    pub published: AtomicUsize,
    suppressed: Arc<AtomicUsize>,
    rows: AtomicUsize,
}

/// What is published, and how fast.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// How many jobs.
    pub jobs: usize,
    /// In which time.
    pub time: Duration,
    /// Jobs of a hundred that nobody can do.
    pub poison_percent: f64,
    /// For rows and poison.
    pub seed: u64,
}

impl Load {
    /// Connects the owners, and puts their keys into the store.
    pub async fn open(owners: Vec<Owner>, services: &Services) -> anyhow::Result<Self> {
        let broker = services.owners_broker()?;
        let store = Arc::new(services.store()?);
        let suppressed = Arc::new(AtomicUsize::new(0));
        let mut clients = Vec::new();
        for owner in &owners {
            let counter = suppressed.clone();
            let events = Events::new(move |event| {
                if matches!(event, Event::ReplyDropped { .. }) {
                    counter.fetch_add(1, Ordering::SeqCst);
                }
            });
            let queue = ReplyQueue::new(&owner.tenant, "chaos")?;
            let (broker, store) = (Arc::new(services.owners_broker()?), store.clone());
            let options = ClientOptions::default();
            let client = Client::open(broker, store, queue, options, events).await?;
            if let Some(key) = &owner.key {
                client.ensure_key(key, Lease::DEFAULT).await?;
            }
            clients.push(client);
        }
        Ok(Self {
            owners,
            clients,
            broker,
            ledger: Ledger::default(),
            published: AtomicUsize::new(0),
            suppressed,
            rows: AtomicUsize::new(0),
        })
    }

    /// Replies that the clients dropped.
    pub fn suppressed(&self) -> usize {
        self.suppressed.load(Ordering::SeqCst)
    }

    /// Rows with scores.
    pub fn rows(&self) -> usize {
        self.rows.load(Ordering::SeqCst)
    }

    /// The owners.
    pub fn owners(&self) -> &[Owner] {
        &self.owners
    }

    /// Publishes all jobs, and waits until the broker has them.
    pub async fn publish(self: &Arc<Self>, pace: Pace) -> anyhow::Result<()> {
        let mut random = Rng::with_seed(pace.seed);
        let started = Instant::now();
        let mut publishing = JoinSet::new();
        for number in 0..pace.jobs {
            let due = pace.time.mul_f64(number as f64 / pace.jobs as f64);
            let burst = BURST * u32::try_from(due.as_millis() / BURST.as_millis())?;
            tokio::time::sleep_until((started + burst).into()).await;
            let poison = random.f64() * 100.0 < pace.poison_percent;
            let (load, seed) = (self.clone(), random.u64(..));
            publishing.spawn(async move { load.publish_one(number, poison, seed).await });
            self.published.fetch_add(1, Ordering::SeqCst);
            while let Some(published) = publishing.try_join_next() {
                published??;
            }
        }
        while let Some(published) = publishing.join_next().await {
            published??;
        }
        Ok(())
    }

    async fn publish_one(&self, number: usize, poison: bool, seed: u64) -> anyhow::Result<()> {
        let mut random = Rng::with_seed(seed);
        let index = number % self.owners.len();
        let (owner, id) = (&self.owners[index], JobId::random());
        if poison {
            return self.publish_poison(index, id, random.usize(..3)).await;
        }
        let first = random.usize(..owner.rows());
        let most = if owner.key.is_some() { 1 } else { MAX_ROWS };
        let count = random.usize(1..=most.min(owner.rows() - first));
        self.publish_rows(index, id, first, count).await
    }

    /// Publishes one job of these rows of an owner.
    pub async fn publish_rows(
        &self,
        index: usize,
        id: JobId,
        first: usize,
        count: usize,
    ) -> anyhow::Result<()> {
        self.ledger.ask(id, Expected::Scores { owner: index, first, count });
        let payload = self.owners[index].encrypt(first, count)?;
        self.submit(index, id, count, payload, None).await
    }

    /// Publishes one job of the first rows of an owner with a deadline, and says what must come of
    /// it.
    pub async fn publish_until(
        &self,
        index: usize,
        count: usize,
        deadline: Timestamp,
        expected: Expected,
    ) -> anyhow::Result<()> {
        let id = JobId::random();
        self.ledger.ask(id, expected);
        let payload = self.owners[index].encrypt(0, count)?;
        self.submit(index, id, count, payload, Some(deadline)).await
    }

    async fn publish_poison(&self, index: usize, id: JobId, kind: usize) -> anyhow::Result<()> {
        let (code, payload) = match kind {
            0 => (ErrorCode::Poison, KILLS),
            1 => (ErrorCode::Internal, PANICS),
            _ => (ErrorCode::Malformed, PANICS),
        };
        self.ledger.ask(id, Expected::Dead(code));
        match code {
            ErrorCode::Malformed => self.publish_malformed(index, id, payload).await,
            _ => self.submit(index, id, 1, payload.to_vec(), None).await,
        }
    }

    async fn submit(
        &self,
        index: usize,
        id: JobId,
        rows: usize,
        payload: Vec<u8>,
        deadline: Option<Timestamp>,
    ) -> anyhow::Result<()> {
        let owner = &self.owners[index];
        let request = JobRequest {
            form: None,
            planned: None,
            id,
            model_id: owner.model_id,
            key_id: owner.key_id(),
            owner_id: owner.encryption.owner(),
            rows: u32::try_from(rows)?,
            deadline,
            correlation_id: None,
            payload,
        };
        self.clients[index].submit(request).await?;
        Ok(())
    }

    /// A job that does not say how many rows it has. The client would not send it.
    async fn publish_malformed(
        &self,
        index: usize,
        id: JobId,
        payload: &[u8],
    ) -> anyhow::Result<()> {
        let (owner, client) = (&self.owners[index], &self.clients[index]);
        client.expect(InFlight {
            job: id,
            model_id: owner.model_id,
            owner_id: owner.encryption.owner(),
            version: Some(ProtocolVersion::V2),
            payload: None,
        });
        let job = Job {
            version: ProtocolVersion::V2,
            id,
            tenant: owner.tenant.clone(),
            reply_to: client.reply_queue().clone(),
            correlation_id: None,
            model_id: owner.model_id,
            lane: Lane::Normal,
            key_id: owner.key_id(),
            rows: 1,
            deadline: None,
            terms: JobTerms::default(),
            attempt: 0,
            trace: None,
            payload: Payload::Inline(payload.to_vec()),
        };
        let mut message = job.to_message();
        message.headers.remove(headers::ROWS);
        while let Err(error) = self.broker.publish(&message).await {
            anyhow::ensure!(error.is_temporary(), error);
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Takes replies for ever; ends by an error only.
    pub async fn receive(self: Arc<Self>) -> anyhow::Result<()> {
        let mut receiving = JoinSet::new();
        for client in &self.clients {
            let (replies, load) = (client.replies(), self.clone());
            receiving.spawn(async move { load.receive_all(replies).await });
        }
        receiving.join_next().await.context("no clients")??
    }

    async fn receive_all(
        &self,
        mut replies: Replies<AmqpBroker, RedisStore>,
    ) -> anyhow::Result<()> {
        loop {
            let received = replies.next().await?;
            let wrong = self.look_at(&received)?;
            self.ledger.answer(received.job, wrong);
            received.ack().await;
        }
    }

    /// What is wrong with a reply.
    fn look_at(
        &self,
        received: &Received<AmqpBroker, RedisStore>,
    ) -> anyhow::Result<Option<String>> {
        let Some(expected) = self.ledger.expected(received.job) else { return Ok(None) };
        Ok(match (expected, &received.answer) {
            (Expected::Scores { owner, first, count }, Answer::Scored(outputs)) => {
                self.rows.fetch_add(count, Ordering::SeqCst);
                let right = self.owners[owner].is_right(first, count, outputs)?;
                (!right).then(|| format!("other scores than those of {count} rows from {first}"))
            }
            (Expected::Dead(code), Answer::Failed { code: found, .. }) if code == *found => None,
            (expected, answer) => Some(format!("{answer:?} instead of {expected:?}")),
        })
    }
}
