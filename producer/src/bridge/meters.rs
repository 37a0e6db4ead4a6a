//! What a bridge counts and measures, for Prometheus.

use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use super::record::DeadCode;
use super::state::{Place, Stage};

/// What all names of metrics begin with.
const PREFIX: &str = "cipherscore_bridge";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StageLabel {
    stage: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PlaceLabel {
    place: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabel {
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FormLabel {
    model: String,
    form: &'static str,
}

/// All metrics of a bridge.
pub(super) struct Meters {
    registry: Registry,
    outcomes: Family<OutcomeLabel, Counter>,
    stages: Family<StageLabel, Histogram, fn() -> Histogram>,
    places: Family<PlaceLabel, Gauge>,
    rows: Family<FormLabel, Counter>,
    jobs: Family<FormLabel, Counter>,
    underway: Gauge,
    unsettled: Counter,
    reloads: Family<OutcomeLabel, Counter>,
    splits: Counter,
    requests: Family<StatusLabel, Counter>,
}

/// From half a millisecond to four minutes.
fn stage_histogram() -> Histogram {
    Histogram::new(exponential_buckets(5e-4, 2.0, 20))
}

impl Default for Meters {
    /// Whatever can be is there from the beginning, at zero: a rate needs a first value.
    fn default() -> Self {
        let stages = Family::new_with_constructor(stage_histogram as fn() -> Histogram);
        let mut meters = Self {
            registry: Registry::with_prefix(PREFIX),
            outcomes: Family::default(),
            stages,
            places: Family::default(),
            rows: Family::default(),
            jobs: Family::default(),
            underway: Gauge::default(),
            unsettled: Counter::default(),
            reloads: Family::default(),
            splits: Counter::default(),
            requests: Family::default(),
        };
        meters.register();
        for outcome in
            ["scored", "duplicate"].into_iter().chain(DeadCode::ALL.map(DeadCode::as_str))
        {
            drop(meters.outcomes.get_or_create(&OutcomeLabel { outcome }));
        }
        for stage in Stage::ALL.map(Stage::as_str) {
            drop(meters.stages.get_or_create(&StageLabel { stage }));
        }
        for place in Place::ALL.map(Place::as_str) {
            drop(meters.places.get_or_create(&PlaceLabel { place }));
        }
        meters
    }
}

impl Meters {
    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("events", "Events that were settled", self.outcomes.clone());
        let help = "Time of an event in a part of its way";
        registry.register_with_unit("stage", help, Unit::Seconds, self.stages.clone());
        registry.register("waiting", "1 while this is waited for", self.places.clone());
        registry.register("rows", "Rows that were scored", self.rows.clone());
        registry.register("jobs", "Jobs that were answered", self.jobs.clone());
        let help = "Events that were taken and are not settled";
        registry.register("events_underway", help, self.underway.clone());
        let help = "Events that the source could not be told of: they come again";
        registry.register("lost_settlements", help, self.unsettled.clone());
        registry.register("reloads", "Models that were read again", self.reloads.clone());
        let help = "Jobs that were cut in two, since workers refused them or failed on them";
        registry.register("splits", help, self.splits.clone());
        let help = "Requests over HTTP that were answered";
        registry.register("http_requests", help, self.requests.clone());
    }

    /// As OpenMetrics text, with so many events that are not settled.
    pub(super) fn text(&self, underway: u64) -> String {
        self.underway.set(i64::try_from(underway).unwrap_or(i64::MAX));
        let mut text = String::new();
        text::encode(&mut text, &self.registry).expect("memory takes every character");
        text
    }

    pub(super) fn waits(&self, place: &'static str, waits: bool) {
        self.places.get_or_create(&PlaceLabel { place }).set(i64::from(waits));
    }

    pub(super) fn outcome(&self, outcome: &'static str) {
        self.outcomes.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    pub(super) fn stage(&self, stage: &'static str, time: Duration) {
        self.stages.get_or_create(&StageLabel { stage }).observe(time.as_secs_f64());
    }

    pub(super) fn answered(&self, model: &str, form: &'static str, rows: u64) {
        let label = FormLabel { model: model.to_owned(), form };
        self.rows.get_or_create(&label).inc_by(rows);
        self.jobs.get_or_create(&label).inc();
    }

    pub(super) fn lost_settlement(&self) {
        self.unsettled.inc();
    }

    pub(super) fn split(&self) {
        self.splits.inc();
    }

    pub(super) fn request(&self, status: u16) {
        self.requests.get_or_create(&StatusLabel { status }).inc();
    }

    pub(super) fn reloaded(&self, outcome: &'static str) {
        self.reloads.get_or_create(&OutcomeLabel { outcome }).inc();
    }
}
