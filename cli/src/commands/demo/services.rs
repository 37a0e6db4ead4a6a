//! Broker, store and workers of the demo: in this process, or real and private.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use cipherscore_common::broker::Broker;
use cipherscore_common::broker::MemoryBroker;
use cipherscore_common::broker::amqp::{AmqpBroker, AmqpConfig};
use cipherscore_common::topology::{Lane, job_queue};
use cipherscore_common::{MemoryStore, ModelId, RedisConfig, RedisStore, Store};
use cipherscore_testbed::{Process, RabbitMq, Redis};
use cipherscore_worker::config::WorkerConfig;
use cipherscore_worker::{Worker, WorkerHandle};

use crate::commands::recorder;
use crate::progress;

/// How long workers may take to begin.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How long workers may take to end.
const END_TIMEOUT: Duration = Duration::from_secs(10);
/// Worker processes beside real services.
pub(super) const WORKERS: usize = 2;

/// What the demo needs of its services, whichever they are.
pub(super) trait Services {
    type B: Broker;
    type S: Store;

    fn broker(&self) -> Self::B;
    fn store(&self) -> Self::S;
    /// Lines that say what they are.
    fn describe(&self) -> Vec<(&'static str, String)>;
    /// Ends the workers in order.
    async fn end(&mut self) -> anyhow::Result<()>;
}

/// All in this process.
pub(super) struct Embedded {
    broker: MemoryBroker,
    store: MemoryStore,
    worker: WorkerHandle<MemoryBroker, MemoryStore>,
}

impl Embedded {
    pub(super) async fn start(models: &Path) -> anyhow::Result<Self> {
        let (broker, store) = (MemoryBroker::default(), MemoryStore::default());
        let mut config = WorkerConfig::default();
        config.models.folder = Some(models.to_owned());
        config.health.listen = None;
        config.worker.name = "worker-1".into();
        let worker = Worker::open(config, broker.clone(), store.clone(), recorder()?).await?;
        let worker = worker.start().await?;
        Ok(Self { broker, store, worker })
    }
}

impl Services for Embedded {
    type B = MemoryBroker;
    type S = MemoryStore;

    fn broker(&self) -> MemoryBroker {
        self.broker.clone()
    }

    fn store(&self) -> MemoryStore {
        self.store.clone()
    }

    fn describe(&self) -> Vec<(&'static str, String)> {
        let here = || "in this process".to_owned();
        vec![("broker", here()), ("store", here()), ("worker", here())]
    }

    async fn end(&mut self) -> anyhow::Result<()> {
        self.worker.drain();
        self.worker.ended().await;
        Ok(())
    }
}

/// RabbitMQ, Redis and workers as processes of this one, on ports of their own.
pub(super) struct Private {
    // Ended first: they need the others.
    workers: Vec<Process>,
    rabbitmq: RabbitMq,
    redis: Redis,
    seconds: [f64; 2],
}

impl Private {
    pub(super) fn start(models: &Path, json: bool) -> anyhow::Result<Self> {
        let spinner = progress::spinner(json, "starting Redis (installing it if it is missing)");
        let started = Instant::now();
        let redis = Redis::start()?;
        let redis_seconds = started.elapsed().as_secs_f64();
        spinner.set_message("starting RabbitMQ (installing it if it is missing)");
        let started = Instant::now();
        let rabbitmq = RabbitMq::start()?;
        let seconds = [redis_seconds, started.elapsed().as_secs_f64()];
        spinner.finish_and_clear();
        let mut services = Self { workers: Vec::new(), rabbitmq, redis, seconds };
        for number in 1..=WORKERS {
            services.workers.push(services.worker(number, models)?);
        }
        Ok(services)
    }

    /// A worker as an operator would start it; the URLs go by the environment, which other users
    /// cannot read.
    fn worker(&self, number: usize, models: &Path) -> anyhow::Result<Process> {
        let threads = std::thread::available_parallelism()?.get().div_ceil(WORKERS).to_string();
        let (broker, store) = (self.rabbitmq.url(), self.redis.url());
        let (name, models) = (format!("worker-{number}"), models.display().to_string());
        let variables = [
            ("CIPHERSCORE_BROKER_URL", broker.as_str()),
            ("CIPHERSCORE_REDIS_URL", store.as_str()),
            ("CIPHERSCORE_WORKER__NAME", name.as_str()),
            ("CIPHERSCORE_WORKER__THREADS", threads.as_str()),
            ("CIPHERSCORE_MODELS__FOLDER", models.as_str()),
            ("CIPHERSCORE_HEALTH__LISTEN", ""),
        ];
        let program = std::env::current_exe()?;
        Ok(Process::start(&program, &["worker", "start"], &variables)?)
    }

    /// Waits until every worker takes from the queues of every model.
    pub(super) async fn wait_for_workers(&mut self, models: &[ModelId]) -> anyhow::Result<()> {
        let broker = self.broker();
        let deadline = Instant::now() + START_TIMEOUT;
        for model in models {
            let queue = job_queue(*model, Lane::Normal);
            loop {
                let state = broker.queue_state(&queue).await?;
                if state.is_some_and(|state| state.consumers as usize >= WORKERS) {
                    break;
                }
                let late = Instant::now() > deadline;
                for worker in &mut self.workers {
                    if worker.has_ended() {
                        bail!("a worker has ended: {}", worker.printed());
                    }
                }
                ensure!(!late, "the workers do not begin: {}", self.workers[0].printed());
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }
}

impl Services for Private {
    type B = AmqpBroker;
    type S = RedisStore;

    fn broker(&self) -> AmqpBroker {
        let config = AmqpConfig::parse(&self.rabbitmq.url()).expect("our own URL");
        AmqpBroker::new(config.with_name("cipherscore demo")).expect("our own configuration")
    }

    fn store(&self) -> RedisStore {
        let config = RedisConfig::parse(&self.redis.url()).expect("our own URL");
        RedisStore::new(&config).expect("our own configuration")
    }

    fn describe(&self) -> Vec<(&'static str, String)> {
        let [redis, rabbitmq] = self.seconds;
        let workers: Vec<_> = self.workers.iter().map(|one| one.process_id().to_string()).collect();
        vec![
            ("broker", format!("RabbitMQ, private, started in {rabbitmq:.1} s")),
            ("store", format!("Redis, private, started in {redis:.1} s")),
            ("workers", format!("{WORKERS} processes ({})", workers.join(", "))),
        ]
    }

    async fn end(&mut self) -> anyhow::Result<()> {
        for worker in &mut self.workers {
            ensure!(worker.end(END_TIMEOUT)?, "a worker did not end: {}", worker.printed());
        }
        Ok(())
    }
}
