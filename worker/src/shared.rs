//! What all jobs of a worker share.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cipherscore_common::broker::Broker;
use cipherscore_common::message::{Message, Outcome, Timestamp};
use cipherscore_common::{
    Activity, ErrorClass, Lease, PRESENCE_LEASE, Presence, Store, StoreError,
};
use parking_lot::RwLock;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::config::WorkerSection;
use crate::failure::Failure;
use crate::full_queues::FullQueues;
use crate::in_flight::InFlight;
use crate::memory::Memory;
use crate::metrics::{Metrics, Step};
use crate::models::Models;
use crate::pulse::Underway;
use crate::slots::{Pools, Slots};
use crate::validate::{Rules, ValidJob};
use crate::watched::Watched;

/// After what time without an answer the store does not count as one that answers: three
/// announcements.
const LONGEST_STORE_SILENCE: Duration = PRESENCE_LEASE;

/// What all jobs of a worker share.
pub(crate) struct Shared<B, S> {
    /// Which worker, for people.
    pub(crate) name: String,
    pub(crate) broker: Watched<B>,
    pub(crate) store: S,
    pub(crate) rules: Rules,
    /// How long outputs wait in the store to be fetched.
    pub(crate) reply_lease: Lease,
    pub(crate) in_flight: InFlight,
    pub(crate) full_queues: FullQueues,
    pub(crate) memory: Arc<Memory>,
    /// The only place where anything is computed.
    pub(crate) pools: Pools,
    pub(crate) services: Services,
    /// Jobs that are evaluated at a time.
    pub(crate) slots: Arc<Slots>,
    pub(crate) metrics: Arc<Metrics>,
    /// What is on its way to the broker.
    pub(crate) sending: Underway,
    /// How long the broker may take to confirm a message.
    pub(crate) confirm_timeout: Duration,
    /// Cancelled when the worker stops without waiting for its jobs any longer.
    pub(crate) abort: CancellationToken,
    models: RwLock<Arc<Models>>,
    scored: AtomicU64,
    failed: AtomicU64,
    key_fetches: AtomicU64,
    started_ms: u64,
}

impl<B: Broker, S: Store> Shared<B, S> {
    pub(crate) fn new(
        section: &WorkerSection,
        broker: B,
        store: S,
        pools: Pools,
        models: Models,
    ) -> Self {
        let rules = Rules {
            tenants: section.tenants,
            worker_users: section.worker_users.clone(),
            gateway_users: section.gateway_users.clone(),
            max_job_rows: section.max_job_rows,
            max_job_bytes: section.max_job_size.as_u64(),
            max_returns: section.max_returns,
        };
        let memory = Memory::new(section.memory.as_u64(), section.max_keys_per_tenant.get());
        let slots = section.slots.map_or(pools.threads(), NonZeroUsize::get);
        let metrics = Arc::new(Metrics::new(&memory.counts));
        metrics.loaded(&models);
        let sending = Underway::default();
        Self {
            name: name(&section.name),
            broker: Watched::new(broker, metrics.clone(), sending.clone()),
            store,
            rules,
            reply_lease: section.reply_lease,
            in_flight: InFlight::default(),
            full_queues: FullQueues::default(),
            memory: Arc::new(memory),
            pools,
            services: Services::new(metrics.clone()),
            slots: Arc::new(Slots::new(slots)),
            metrics,
            sending,
            confirm_timeout: section.confirm_timeout,
            abort: CancellationToken::new(),
            models: RwLock::new(Arc::new(models)),
            scored: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            key_fetches: AtomicU64::new(0),
            started_ms: Timestamp::now().millis(),
        }
    }

    /// The models that there are now. A job keeps the one that it began with.
    pub(crate) fn models(&self) -> Arc<Models> {
        self.models.read().clone()
    }

    /// Puts other models in the place of those that there are.
    pub(crate) fn replace_models(&self, models: Models) {
        self.metrics.loaded(&models);
        *self.models.write() = Arc::new(models);
    }

    /// What it means that the store did not do something that is not wrong with the job. Only one
    /// that is out of reach stops the others: whatever else a tenant can bring about itself.
    pub(crate) fn store_failure(&self, error: &StoreError) -> Failure {
        if error.class() == ErrorClass::Unavailable {
            self.services.store_is_away(&error.to_string());
        }
        Failure::Later(error.to_string())
    }

    pub(crate) fn count(&self, outcome: &Outcome) {
        let counter = match outcome {
            Outcome::Scored(_) => &self.scored,
            Outcome::Failed { .. } => &self.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_key_fetch(&self) {
        self.key_fetches.fetch_add(1, Ordering::Relaxed);
    }

    /// How many evaluation keys were fetched from the store.
    pub(crate) fn key_fetches(&self) -> u64 {
        self.key_fetches.load(Ordering::Relaxed)
    }

    /// A job begins that was not done before, as far as is known.
    pub(crate) fn begins(&self, message: &Message, job: &ValidJob) {
        let waited = self.metrics.begun(message);
        let (queue, rows, returned) = (message.routing_key.as_str(), job.rows, job.returned);
        let form = job.form.name.map(tracing::field::display);
        debug!(
            queue,
            key = job.key_id.map(tracing::field::display),
            form,
            rows,
            returned,
            ?waited,
            "begun"
        );
    }

    /// Does a step of a job, and notes how long it takes.
    pub(crate) async fn timed<T>(&self, step: Step, work: impl Future<Output = T>) -> T {
        let started = Instant::now();
        let done = work.await;
        self.metrics.step(step, started.elapsed());
        done
    }

    /// Waits; says no when the worker stops first.
    pub(crate) async fn pause(&self, time: Duration) -> bool {
        tokio::select! {
            () = tokio::time::sleep(time) => true,
            () = self.abort.cancelled() => false,
        }
    }

    /// When the worker started, in milliseconds since 1970.
    pub(crate) fn started_ms(&self) -> u64 {
        self.started_ms
    }

    /// How this worker describes itself.
    pub(crate) fn presence(&self) -> Presence {
        let answered = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let models = self.models();
        Presence {
            worker: self.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_ms: self.started_ms,
            models: models.ids().collect(),
            kinds: models.kinds(),
            slots: self.slots.all(),
            jobs: self.in_flight.len(),
            answered: answered(&self.scored) + answered(&self.failed),
            key_cache_bytes: self.memory.usage().key_bytes,
            activity: Activity {
                announced_ms: Timestamp::now().millis(),
                busy: self.slots.busy(),
                failed: answered(&self.failed),
                rows: self.metrics.rows(),
                longest_wait_ms: None,
                unacknowledged: self.metrics.unacknowledged.len() as u64,
                oldest_unacknowledged_ms: self.metrics.unacknowledged.oldest().map(millis),
            },
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The configured name, or one that differs from that of other workers.
fn name(configured: &str) -> String {
    if !configured.is_empty() {
        return configured.to_owned();
    }
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = match host.trim() {
        "" => "worker",
        host => host,
    };
    format!("{host}-{}", std::process::id())
}

/// Whether the services that a worker needs are there.
pub(crate) struct Services {
    metrics: Arc<Metrics>,
    store_answered: watch::Sender<Option<Instant>>,
    store_away: watch::Sender<bool>,
    consuming: watch::Sender<bool>,
    last_tick: watch::Sender<Instant>,
}

impl Services {
    fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            store_answered: watch::Sender::new(None),
            store_away: watch::Sender::new(false),
            consuming: watch::Sender::new(false),
            last_tick: watch::Sender::new(Instant::now()),
        }
    }

    /// No job is begun until the store answers again.
    pub(crate) fn store_is_away(&self, reason: &str) {
        if !self.store_away.send_replace(true) {
            self.metrics.store_went_away();
            warn!(reason, "the store is away: no job is begun until it is back");
        }
    }

    pub(crate) fn store_is_back(&self) {
        self.store_answered.send_replace(Some(Instant::now()));
        if self.store_away.send_replace(false) {
            info!("the store is back");
        }
    }

    /// Whether the store answered, and not long ago: it is asked with every announcement.
    pub(crate) fn does_store_answer(&self) -> bool {
        let answered = *self.store_answered.borrow();
        !self.is_store_away() && answered.is_some_and(|at| at.elapsed() < LONGEST_STORE_SILENCE)
    }

    pub(crate) fn is_store_away(&self) -> bool {
        *self.store_away.borrow()
    }

    /// Whoever waits for the store to go or to come back.
    pub(crate) fn watch_store(&self) -> watch::Receiver<bool> {
        self.store_away.subscribe()
    }

    pub(crate) fn set_consuming(&self, consuming: bool) {
        self.consuming.send_replace(consuming);
    }

    pub(crate) fn is_consuming(&self) -> bool {
        *self.consuming.borrow()
    }

    /// The supervisor's sign of life.
    pub(crate) fn tick(&self) {
        self.last_tick.send_replace(Instant::now());
    }

    pub(crate) fn since_tick(&self) -> Duration {
        self.last_tick.borrow().elapsed()
    }
}
