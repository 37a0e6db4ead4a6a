//! One worker at a time, in a process of its own, with private services and two data owners.

#![allow(dead_code, reason = "each test binary uses a part of this")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cipherscore_chaos::fleet::Start;
use cipherscore_chaos::load::Load;
use cipherscore_chaos::owner::Owner;
use cipherscore_chaos::run::{expect_consumers, how_to_start, write_models};
use cipherscore_chaos::services::Services;
use cipherscore_chaos::worker::EXECUTIONS;
use cipherscore_common::broker::Broker;
use cipherscore_common::broker::amqp::AmqpBroker;
use cipherscore_common::topology::{Lane, job_queue};
use cipherscore_common::{JobId, ModelId};
use cipherscore_testbed::{Process, RabbitMqOptions};
use tempfile::TempDir;

/// How long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// The data owners, in their order.
pub(crate) const LINEAR: usize = 0;
pub(crate) const TREE: usize = 1;
/// Rows of the tree that take some seconds.
pub(crate) const LONG: usize = 38;

/// Services, a load that is published by hand, and how a worker is started.
pub(crate) struct Scene {
    pub(crate) services: Services,
    pub(crate) folder: TempDir,
    pub(crate) models: BTreeSet<ModelId>,
    pub(crate) broker: AmqpBroker,
    pub(crate) load: Arc<Load>,
    pub(crate) start: Start,
}

impl Scene {
    pub(crate) async fn new(options: RabbitMqOptions) -> Self {
        let owners = vec![
            Owner::open("ann", "breast_cancer_logistic_regression").unwrap(),
            Owner::open("bob", "iris_decision_tree").unwrap(),
        ];
        let folder = tempfile::tempdir().unwrap();
        let models = write_models(&folder, &owners).unwrap();
        let services = tokio::task::spawn_blocking(|| Services::start(options)).await;
        let services = services.unwrap().unwrap();
        let program = env!("CARGO_BIN_EXE_cipherscore-chaos").into();
        let start = how_to_start(program, &folder, &services, 1, 16);
        let load = Arc::new(Load::open(owners, &services).await.unwrap());
        tokio::spawn(load.clone().receive());
        let broker = services.broker().unwrap();
        Self { services, folder, models, broker, load, start }
    }

    /// A worker that takes jobs, with more settings.
    pub(crate) async fn worker(&self, settings: &[&str]) -> Process {
        let mut start = self.start.clone();
        start.settings.extend(settings.iter().map(ToString::to_string));
        self.worker_of(start).await
    }

    /// A worker that takes jobs, started so.
    pub(crate) async fn worker_of(&self, start: Start) -> Process {
        let worker = start.worker().unwrap();
        expect_consumers(&self.broker, &self.models, 1).await.unwrap();
        worker
    }

    pub(crate) async fn publish(&self, owner: usize, rows: usize) {
        self.load.publish_rows(owner, JobId::random(), 0, rows).await.unwrap();
    }

    pub(crate) fn executions(&self) -> u64 {
        let tally = std::fs::metadata(self.folder.path().join(EXECUTIONS));
        tally.map_or(0, |tally| tally.len())
    }

    pub(crate) async fn executions_are(&self, count: u64) {
        wait(|| self.executions() >= count).await;
        assert_eq!(self.executions(), count);
    }

    pub(crate) async fn answered(&self, count: usize) {
        wait(|| self.load.ledger.standing().answered >= count).await;
        let standing = self.load.ledger.standing();
        assert_eq!((standing.answered, standing.wrong, standing.duplicates), (count, 0, 0));
    }

    /// Nothing waits, nothing is unsettled: the workers' queues are empty without them.
    pub(crate) async fn nothing_is_left(&self) {
        for id in &self.models {
            let queue = job_queue(*id, Lane::Normal);
            let state = self.broker.queue_state(&queue).await.unwrap().unwrap();
            assert_eq!((state.messages, state.consumers), (0, 0));
        }
    }
}

pub(crate) async fn wait(is_so: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "it does not happen");
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

pub(crate) async fn ended(worker: &mut Process) {
    let started = Instant::now();
    while !worker.has_ended() {
        assert!(started.elapsed() < PATIENCE, "it does not end:\n{}", worker.printed());
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}
