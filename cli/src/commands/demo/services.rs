//! Broker and store of the demo: in this process, or those that run elsewhere. The worker is in this
//! process.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use cipherscore_common::broker::amqp::{AmqpBroker, AmqpConfig};
use cipherscore_common::broker::{Broker, MemoryBroker};
use cipherscore_common::topology::{Lane, job_queue};
use cipherscore_common::{MemoryStore, ModelId, RedisConfig, RedisStore, Store};
use cipherscore_worker::config::WorkerConfig;
use cipherscore_worker::{Worker, WorkerHandle};

use crate::commands::recorder;

/// How long the worker may take to take from its queues.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How often they are looked at.
const START_POLL: Duration = Duration::from_millis(50);

/// What a line about a service says.
type Described = (&'static str, String);

/// A broker, a store, and a worker between them.
pub(super) struct Services<B, S> {
    pub(super) broker: B,
    pub(super) store: Arc<S>,
    worker: WorkerHandle<B, S>,
    described: [Described; 3],
}

impl Services<MemoryBroker, MemoryStore> {
    /// All in this process.
    pub(super) async fn embedded(models: &Path) -> anyhow::Result<Self> {
        let places = ["in this process".to_owned(), "in this process".to_owned()];
        let (broker, store) = (MemoryBroker::default(), MemoryStore::default());
        Self::start(broker, [store.clone(), store], places, models).await
    }
}

impl Services<AmqpBroker, RedisStore> {
    /// RabbitMQ and Redis that run already, by their URLs.
    pub(super) async fn running(broker: &str, redis: &str, models: &Path) -> anyhow::Result<Self> {
        let broker = AmqpConfig::parse(broker).context("--broker")?.with_name("cipherscore demo");
        let redis = RedisConfig::parse(redis).context("--redis")?;
        let places = [format!("RabbitMQ, {}", broker.server()), format!("Redis, {redis}")];
        let stores = [RedisStore::new(&redis)?, RedisStore::new(&redis)?];
        Self::start(AmqpBroker::new(broker)?, stores, places, models).await
    }
}

impl<B: Broker + Clone, S: Store> Services<B, S> {
    async fn start(
        broker: B,
        [store, workers_store]: [S; 2],
        [broker_place, store_place]: [String; 2],
        models: &Path,
    ) -> anyhow::Result<Self> {
        let mut config = WorkerConfig::default();
        config.models.folder = Some(models.to_owned());
        config.health.listen = None;
        config.worker.name = "worker-1".into();
        let worker = Worker::open(config, broker.clone(), workers_store, recorder()?).await?;
        let worker = worker.start().await?;
        let described = [
            ("broker", broker_place),
            ("store", store_place),
            ("worker", "in this process".to_owned()),
        ];
        Ok(Self { broker, store: Arc::new(store), worker, described })
    }
}

impl<B: Broker, S: Store> Services<B, S> {
    /// Lines that say what they are.
    pub(super) fn describe(&self) -> &[Described] {
        &self.described
    }

    /// Waits until the worker takes from the queue of every model.
    pub(super) async fn wait_for_worker(&self, models: &[ModelId]) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        for model in models {
            let queue = job_queue(*model, Lane::Normal);
            while self.broker.queue_state(&queue).await?.is_none_or(|state| state.consumers == 0) {
                ensure!(Instant::now() < deadline, "the worker does not take from {queue}");
                tokio::time::sleep(START_POLL).await;
            }
        }
        Ok(())
    }

    /// Ends the worker in order.
    pub(super) async fn end(&mut self) {
        self.worker.drain();
        self.worker.ended().await;
    }
}
