//! What a worker counts and measures, as `/metrics` tells it to Prometheus.
//!
//! [`Metrics`] is told what happens, one line at the place where it happens; what only *is* so, such
//! as how many slots are busy, is looked up when somebody asks ([`gauges`]). Names, units and
//! meanings are here and in `docs/operations.md`, which a test holds equal.
//!
//! No label holds what a stranger chose: models are those that were loaded here ([`labels`]), and
//! everything else is a word of this program. No key, tenant or job is named.

mod gauges;
mod jobs;
mod labels;
mod services;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cipherscore_common::broker::{
    BrokerError, Delivery, Disposition, Settle, Settlement, Settling,
};
use cipherscore_common::message::{Message, Payload, Timestamp};
use cipherscore_common::{FormName, ModelId};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry, Unit};

use self::gauges::Gauges;
pub(crate) use self::gauges::{Moment, QueueStates};
use self::jobs::JobMetrics;
use self::labels::{
    EXCHANGES, ExchangeLabel, FormLabels, OutcomeLabels, PUBLISH_ERRORS, PublishErrorLabels,
    SCORED, StepLabel, error_name, exchange_name, outcome_name,
};
pub(crate) use self::labels::{ModelLabels, Step};
use self::services::ServiceMetrics;
use crate::failure::Failure;
use crate::models::Models;
use crate::pulse::{Attempt, Underway};
use crate::validate::ValidJob;

/// What all names begin with.
const PREFIX: &str = "cipherscore";
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Longest time in a queue that is believed: longer than any job waits.
const MAX_QUEUE_WAIT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// A histogram of each label, with the buckets of a long range.
type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// How often a key was here when a job needed it.
#[derive(Default)]
pub(crate) struct KeyCacheCounts {
    pub(crate) hits: Counter,
    pub(crate) misses: Counter,
    pub(crate) evictions: Counter,
}

/// What a worker counts and measures. Every method is cheap enough for every job.
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) models: ModelLabels,
    jobs: JobMetrics,
    services: ServiceMetrics,
    /// Deliveries that were taken and are not settled.
    pub(crate) unacknowledged: Underway,
    gauges: Gauges,
    /// One more than the longest time that a job had waited when it began, since the last
    /// announcement; 0 when none began.
    longest_wait_ms: AtomicU64,
    all_rows: AtomicU64,
}

/// From a hundred microseconds to a quarter of an hour.
fn short() -> Histogram {
    Histogram::new(exponential_buckets(1e-4, 3.0, 15))
}

/// From a millisecond to four days.
fn long() -> Histogram {
    Histogram::new(exponential_buckets(1e-3, 4.0, 15))
}

/// Registers a metric without a unit.
fn add<M: Metric + Clone>(r: &mut Registry, name: &str, help: &str, metric: M) -> M {
    r.register(name, help, metric.clone());
    metric
}

/// Registers a metric in a unit.
fn add_in<M: Metric + Clone>(r: &mut Registry, unit: Unit, name: &str, help: &str, metric: M) -> M {
    r.register_with_unit(name, help, unit, metric.clone());
    metric
}

impl Metrics {
    /// Whatever can be is there from the beginning, at zero: a rate needs a first value.
    pub(crate) fn new(keys: &KeyCacheCounts) -> Self {
        let metrics = Self::register(keys);
        for step in Step::ALL {
            drop(metrics.jobs.steps.get_or_create(&StepLabel { step: step.as_str() }));
        }
        for exchange in EXCHANGES {
            drop(metrics.services.confirm.get_or_create(&ExchangeLabel { exchange }));
            for error in PUBLISH_ERRORS {
                drop(
                    metrics
                        .services
                        .publish_errors
                        .get_or_create(&PublishErrorLabels { exchange, error }),
                );
            }
        }
        metrics
    }

    fn register(keys: &KeyCacheCounts) -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        let r = &mut registry;
        r.register("build", "Version of the program", Info::new(vec![("version", VERSION)]));
        add(r, "key_cache_hits", "Jobs whose key was here", keys.hits.clone());
        add(r, "key_cache_misses", "Jobs whose key was not here", keys.misses.clone());
        let help = "Keys that gave their place to others";
        add(r, "key_cache_evictions", help, keys.evictions.clone());
        Self {
            models: ModelLabels::default(),
            jobs: JobMetrics::register(r),
            services: ServiceMetrics::register(r),
            gauges: Gauges::new(r),
            unacknowledged: Underway::default(),
            longest_wait_ms: AtomicU64::new(0),
            all_rows: AtomicU64::new(0),
            registry,
        }
    }

    /// These models were loaded.
    pub(crate) fn loaded(&self, models: &Models) {
        for id in self.models.loaded(models.ids()) {
            for form in models.get(id).iter().flat_map(|forms| forms.iter()) {
                let labels = self.form_labels(Some(id), form.name);
                drop(self.jobs.rows.get_or_create(&labels));
                drop(self.jobs.released.get_or_create(&labels));
                drop(self.jobs.evaluation.get_or_create(&labels));
            }
            let labels = OutcomeLabels { model: id.to_string(), outcome: SCORED };
            drop(self.jobs.outcomes.get_or_create(&labels));
        }
    }

    fn form_labels(&self, model: Option<ModelId>, form: Option<FormName>) -> FormLabels {
        FormLabels { model: self.models.label(model), form: form.map_or("", FormName::as_str) }
    }

    /// A step of a job took so long.
    pub(crate) fn step(&self, step: Step, time: Duration) {
        let label = StepLabel { step: step.as_str() };
        self.jobs.steps.get_or_create(&label).observe(time.as_secs_f64());
    }

    /// A delivery arrived; returns it, so that it is known until it is settled.
    pub(crate) fn delivered(&self, delivery: Delivery) -> Delivery {
        self.services.deliveries.inc();
        if delivery.returned > 0 {
            self.services.redeliveries.inc();
        }
        self.services.last_delivery.set(seconds_since_1970());
        let Delivery { message, queue, returned, settlement } = delivery;
        let unacknowledged = self.unacknowledged.begin();
        let settlement = Settlement::new(Unacknowledged { settlement, unacknowledged });
        Delivery { message, queue, returned, settlement }
    }

    /// Consuming began.
    pub(crate) fn subscribed(&self, before: bool) {
        if before {
            self.services.reconnects.inc();
        }
    }

    /// A job begins; returns how long it waited since it was published. That is its publisher's
    /// word, which is believed within reason.
    pub(crate) fn begun(&self, message: &Message) -> Option<Duration> {
        let wait = Timestamp::now().left(message.published()?);
        if wait > MAX_QUEUE_WAIT {
            return None;
        }
        self.jobs.queue_wait.observe(wait.as_secs_f64());
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        self.longest_wait_ms.fetch_max(wait_ms.saturating_add(1), Ordering::Relaxed);
        Some(wait)
    }

    /// The longest time that a job had waited when it began, of those that began since this was
    /// asked last, in milliseconds.
    pub(crate) fn take_longest_wait_ms(&self) -> Option<u64> {
        self.longest_wait_ms.swap(0, Ordering::Relaxed).checked_sub(1)
    }

    /// What was taken, and nobody heard of.
    pub(crate) fn keep_longest_wait_ms(&self, wait_ms: Option<u64>) {
        let kept = wait_ms.map_or(0, |wait_ms| wait_ms.saturating_add(1));
        self.longest_wait_ms.fetch_max(kept, Ordering::Relaxed);
    }

    /// Rows of all models.
    pub(crate) fn rows(&self) -> u64 {
        self.all_rows.load(Ordering::Relaxed)
    }

    pub(crate) fn key_fetched(&self, fetch: Duration, preparation: Duration) {
        self.jobs.key_fetch.observe(fetch.as_secs_f64());
        self.jobs.key_preparation.observe(preparation.as_secs_f64());
    }

    pub(crate) fn evaluated(&self, job: &ValidJob, time: Duration) {
        let labels = self.form_labels(job.model_id(), job.form.name);
        self.jobs.rows.get_or_create(&labels).inc_by(job.rows.into());
        self.all_rows.fetch_add(job.rows.into(), Ordering::Relaxed);
        self.jobs.evaluation.get_or_create(&labels).observe(time.as_secs_f64());
    }

    pub(crate) fn released(&self, job: &ValidJob, coefficients: u64) {
        let labels = self.form_labels(job.model_id(), job.form.name);
        self.jobs.released.get_or_create(&labels).inc_by(coefficients);
    }

    /// A job ended here, though its reply may not be at the broker yet.
    pub(crate) fn ended(&self, model: Option<ModelId>, outputs: &Result<Payload, Failure>) {
        let (model, outcome) = (self.models.label(model), outcome_name(outputs));
        self.jobs.outcomes.get_or_create(&OutcomeLabels { model, outcome }).inc();
    }

    /// The broker confirmed a message, or did not.
    pub(crate) fn published(
        &self,
        exchange: &str,
        time: Duration,
        published: &Result<(), BrokerError>,
    ) {
        let exchange = exchange_name(exchange);
        match published {
            Ok(()) => {
                self.services
                    .confirm
                    .get_or_create(&ExchangeLabel { exchange })
                    .observe(time.as_secs_f64());
            }
            Err(error) => {
                let error = error_name(error);
                self.services
                    .publish_errors
                    .get_or_create(&PublishErrorLabels { exchange, error })
                    .inc();
            }
        }
    }

    /// The store was found out of reach.
    pub(crate) fn store_went_away(&self) {
        self.services.store_outages.inc();
    }

    /// The broker took no messages for so long.
    pub(crate) fn blocked(&self, time: Duration) {
        self.services.blocked.inc_by(time.as_secs_f64());
    }

    pub(crate) fn gauges(&self) -> &Gauges {
        &self.gauges
    }
}

/// A settlement that is known until it is done.
struct Unacknowledged {
    settlement: Settlement,
    unacknowledged: Attempt,
}

impl Settle for Unacknowledged {
    fn settle(self: Box<Self>, disposition: Disposition) -> Settling {
        let Self { settlement, unacknowledged } = *self;
        Box::pin(async move {
            let settled = settlement.settle(disposition).await;
            drop(unacknowledged);
            settled
        })
    }
}

fn seconds_since_1970() -> f64 {
    // Exact to the millisecond for the next 285,000 years.
    Duration::from_millis(Timestamp::now().millis()).as_secs_f64()
}
