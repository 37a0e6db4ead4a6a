//! What is looked up when somebody asks.

use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};

use cipherscore_common::broker::{Broker, QueueState};
use cipherscore_common::topology::Lane;
use cipherscore_common::{ModelId, Store};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::labels::{JobQueueLabels, QueueLabel};
use super::{Metrics, add, add_in};
use crate::shared::Shared;

/// How full queues were when they were last looked at.
#[derive(Debug, Default)]
pub(crate) struct QueueStates {
    /// Of models.
    pub(crate) jobs: Vec<(ModelId, Lane, QueueState)>,
    /// Of dead letters and the like, by name.
    pub(crate) shared: Vec<(String, QueueState)>,
}

pub(crate) struct Gauges {
    started: Gauge,
    slots: Gauge,
    slots_busy: Gauge,
    jobs: Gauge,
    unacknowledged: Gauge,
    oldest_unacknowledged: Gauge<f64, AtomicU64>,
    models: Gauge,
    consuming: Gauge,
    store_up: Gauge,
    memory_limit: Gauge,
    memory_used: Gauge,
    key_cache: Gauge,
    keys: Gauge,
    job_messages: Family<JobQueueLabels, Gauge>,
    job_consumers: Family<JobQueueLabels, Gauge>,
    messages: Family<QueueLabel, Gauge>,
    /// Also held while the text is made, so that none is half of one look and half of another.
    queues: Mutex<QueueStates>,
}

impl Gauges {
    pub(super) fn new(r: &mut Registry) -> Self {
        let plain = Gauge::default;
        Self {
            started: add_in(
                r,
                Unit::Seconds,
                "start_timestamp",
                "When the worker started, since 1970",
                plain(),
            ),
            slots: add(r, "slots", "Jobs that are evaluated at a time, at most", plain()),
            slots_busy: add(r, "slots_busy", "Slots that are taken", plain()),
            jobs: add(
                r,
                "jobs_running",
                "Jobs from their beginning to the word to the broker",
                plain(),
            ),
            unacknowledged: add(
                r,
                "unacknowledged_deliveries",
                "Deliveries that were taken from the broker and are not settled",
                plain(),
            ),
            oldest_unacknowledged: add_in(
                r,
                Unit::Seconds,
                "oldest_unacknowledged",
                "For how long the oldest of them has been here; 0 without any",
                Gauge::default(),
            ),
            models: add(r, "models", "Models that are loaded", plain()),
            consuming: add(r, "consuming", "1 while messages are taken from queues", plain()),
            store_up: add(r, "store_up", "1 while the store answers", plain()),
            memory_limit: add_in(
                r,
                Unit::Bytes,
                "memory_limit",
                "Memory for keys and running jobs",
                plain(),
            ),
            memory_used: add_in(
                r,
                Unit::Bytes,
                "memory_used",
                "Memory of keys and running jobs, as admitted",
                plain(),
            ),
            key_cache: add_in(r, Unit::Bytes, "key_cache", "Memory of prepared keys", plain()),
            keys: add(r, "key_cache_keys", "Prepared keys", plain()),
            job_messages: add(
                r,
                "job_queue_messages",
                "Jobs that wait at the broker, by model and lane",
                Family::default(),
            ),
            job_consumers: add(
                r,
                "job_queue_consumers",
                "Consumers of a model's queue",
                Family::default(),
            ),
            messages: add(
                r,
                "shared_queue_messages",
                "Messages of a queue that all share: dead letters, retries, replies without owner",
                Family::default(),
            ),
            queues: Mutex::default(),
        }
    }

    /// Puts what was seen in the place of what was seen before.
    pub(crate) fn see_queues(&self, states: QueueStates) {
        *self.queues.lock().unwrap_or_else(PoisonError::into_inner) = states;
    }

    fn look<B: Broker, S: Store>(&self, shared: &Shared<B, S>) {
        let set = |gauge: &Gauge, value: u64| {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        let free = shared.free_slots.available_permits();
        set(&self.started, shared.started_ms() / 1000);
        set(&self.slots, shared.slots as u64);
        set(&self.slots_busy, shared.slots.saturating_sub(free) as u64);
        set(&self.jobs, shared.in_flight.len() as u64);
        let unacknowledged = &shared.metrics.unacknowledged;
        set(&self.unacknowledged, unacknowledged.len() as u64);
        let oldest = unacknowledged.oldest().unwrap_or_default();
        self.oldest_unacknowledged.set(oldest.as_secs_f64());
        set(&self.models, shared.models().ids().count() as u64);
        set(&self.consuming, shared.services.is_consuming().into());
        set(&self.store_up, shared.services.does_store_answer().into());
        let memory = shared.memory.usage();
        set(&self.memory_limit, memory.limit_bytes);
        set(&self.memory_used, memory.used_bytes);
        set(&self.key_cache, memory.key_bytes);
        set(&self.keys, memory.keys as u64);
    }

    fn look_at_queues<B, S>(&self, shared: &Shared<B, S>, states: &QueueStates) {
        self.job_messages.clear();
        self.job_consumers.clear();
        self.messages.clear();
        for (id, lane, state) in &states.jobs {
            let model = shared.metrics.models.label(Some(*id));
            let labels = JobQueueLabels { model, lane: lane.to_string() };
            self.job_messages.get_or_create(&labels).set(state.messages.into());
            self.job_consumers.get_or_create(&labels).set(state.consumers.into());
        }
        for (queue, state) in &states.shared {
            let label = QueueLabel { queue: queue.clone() };
            self.messages.get_or_create(&label).set(state.messages.into());
        }
    }
}

/// Everything, as OpenMetrics text.
pub(crate) fn render<B: Broker, S: Store>(shared: &Shared<B, S>) -> String {
    let Metrics { gauges, registry, .. } = &*shared.metrics;
    let states = gauges.queues.lock().unwrap_or_else(PoisonError::into_inner);
    gauges.look(shared);
    gauges.look_at_queues(shared, &states);
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = encode(&mut text, registry);
    text
}
