//! What is looked up when somebody asks.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use cipherscore_common::ModelId;
use cipherscore_common::broker::QueueState;
use cipherscore_common::topology::Lane;
use parking_lot::Mutex;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::labels::{JobQueueLabels, ModelLabels, QueueLabel};
use super::{Metrics, add, add_in};

/// How full queues were when they were last looked at.
#[derive(Debug, Default)]
pub(crate) struct QueueStates {
    /// Of models.
    pub(crate) jobs: Vec<(ModelId, Lane, QueueState)>,
    /// Of dead letters and the like, by name.
    pub(crate) shared: Vec<(String, QueueState)>,
}

/// How things stand when somebody asks.
pub(crate) struct Moment {
    /// Since 1970.
    pub(crate) started_seconds: u64,
    pub(crate) slots: u64,
    pub(crate) slots_busy: u64,
    pub(crate) is_reserved_slot_busy: bool,
    /// From their beginning to the word to the broker.
    pub(crate) jobs: u64,
    /// Deliveries that were taken and are not settled.
    pub(crate) unacknowledged: u64,
    /// For how long the oldest of them has been here; nothing without any.
    pub(crate) oldest_unacknowledged: Duration,
    pub(crate) models: u64,
    pub(crate) is_consuming: bool,
    pub(crate) does_store_answer: bool,
    pub(crate) memory_limit_bytes: u64,
    /// By keys, running jobs, and what models keep for their next job.
    pub(crate) memory_used_bytes: u64,
    pub(crate) key_bytes: u64,
    pub(crate) keys: u64,
}

pub(crate) struct Gauges {
    started: Gauge,
    slots: Gauge,
    slots_busy: Gauge,
    reserved_slot_busy: Gauge,
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
            reserved_slot_busy: add(
                r,
                "reserved_slot_busy",
                "1 while the slot beside them is taken, which only quick jobs have",
                plain(),
            ),
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
                "Memory for keys, running jobs and what models keep for their next job",
                plain(),
            ),
            memory_used: add_in(
                r,
                Unit::Bytes,
                "memory_used",
                "Memory of keys, running jobs as admitted, and what models keep for their next job",
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
        *self.queues.lock() = states;
    }

    fn show(&self, moment: &Moment) {
        let set = |gauge: &Gauge, value: u64| {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        set(&self.started, moment.started_seconds);
        set(&self.slots, moment.slots);
        set(&self.slots_busy, moment.slots_busy);
        set(&self.reserved_slot_busy, moment.is_reserved_slot_busy.into());
        set(&self.jobs, moment.jobs);
        set(&self.unacknowledged, moment.unacknowledged);
        self.oldest_unacknowledged.set(moment.oldest_unacknowledged.as_secs_f64());
        set(&self.models, moment.models);
        set(&self.consuming, moment.is_consuming.into());
        set(&self.store_up, moment.does_store_answer.into());
        set(&self.memory_limit, moment.memory_limit_bytes);
        set(&self.memory_used, moment.memory_used_bytes);
        set(&self.key_cache, moment.key_bytes);
        set(&self.keys, moment.keys);
    }

    fn show_queues(&self, models: &ModelLabels, states: &QueueStates) {
        self.job_messages.clear();
        self.job_consumers.clear();
        self.messages.clear();
        for (id, lane, state) in &states.jobs {
            let model = models.label(Some(*id));
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

impl Metrics {
    /// Everything, as OpenMetrics text.
    pub(crate) fn render(&self, moment: &Moment) -> String {
        let states = self.gauges.queues.lock();
        self.gauges.show(moment);
        self.gauges.show_queues(&self.models, &states);
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
