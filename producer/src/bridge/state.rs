//! What a bridge says of itself: what it waits for, what it counted, and how long things took.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use cipherscore_common::health::{Condition, Health};
use parking_lot::Mutex;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use serde::Serialize;
use tracing::{info, warn};

use super::record::DeadCode;
use crate::events::{Event, Events};

/// What all names of metrics begin with.
const PREFIX: &str = "cipherscore_bridge";

/// What a bridge may have to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// Where events come from.
    Source,
    /// Broker, store and workers.
    Fleet,
    /// Where scores go.
    Sink,
    /// Where events without scores go.
    DeadLetters,
}

impl Place {
    const ALL: [Self; 4] = [Self::Source, Self::Fleet, Self::Sink, Self::DeadLetters];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Fleet => "fleet",
            Self::Sink => "sink",
            Self::DeadLetters => "dead_letters",
        }
    }
}

/// A part of an event's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// From its arrival until its job is begun.
    Gather,
    /// Encryption, the fleet, decryption.
    Score,
    /// Until the sink has the score.
    Sink,
    /// Until its source was told.
    Settle,
    /// All of it.
    Whole,
}

impl Stage {
    const ALL: [Self; 5] = [Self::Gather, Self::Score, Self::Sink, Self::Settle, Self::Whole];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Gather => "gather",
            Self::Score => "score",
            Self::Sink => "sink",
            Self::Settle => "settle",
            Self::Whole => "whole",
        }
    }
}

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
struct FormLabel {
    model: String,
    form: &'static str,
}

/// What `/readyz` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BridgeReadiness {
    /// Whether it waits for nothing.
    pub ready: bool,
    /// What it waits for, and why: `source`, `fleet`, `sink`, `dead_letters`.
    pub waiting: BTreeMap<&'static str, String>,
}

/// Events, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct BridgeCounts {
    /// Taken from the source.
    pub taken: u64,
    /// Whose scores are at the sink.
    pub scored: u64,
    /// That have no scores, and are among the dead letters.
    pub dead_lettered: u64,
    /// That came again, and were dropped.
    pub duplicates: u64,
}

impl BridgeCounts {
    /// That are taken and not settled.
    pub fn underway(&self) -> u64 {
        self.taken.saturating_sub(self.scored + self.dead_lettered + self.duplicates)
    }
}

#[derive(Default)]
struct Counted {
    taken: AtomicU64,
    scored: AtomicU64,
    dead_lettered: AtomicU64,
    duplicates: AtomicU64,
}

/// Who waits for a place.
#[derive(Default)]
struct Waiters {
    /// Guards that are held.
    held: usize,
    /// Whether the client of the fleet said so last.
    is_client: bool,
    /// The last one that was given.
    reason: String,
}

/// Held by whoever waits for a place.
#[must_use]
pub(super) struct Waiter<'a> {
    state: &'a BridgeState,
    place: Place,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.state.goes_on(self.place, |waiters| waiters.held -= 1);
    }
}

/// What a bridge says of itself, for whoever watches.
pub struct BridgeState {
    registry: Registry,
    counted: Counted,
    waiting: Mutex<BTreeMap<Place, Waiters>>,
    started: AtomicBool,
    outcomes: Family<OutcomeLabel, Counter>,
    stages: Family<StageLabel, Histogram, fn() -> Histogram>,
    places: Family<PlaceLabel, Gauge>,
    rows: Family<FormLabel, Counter>,
    jobs: Family<FormLabel, Counter>,
    underway: Gauge,
    unsettled: Counter,
    reloads: Family<OutcomeLabel, Counter>,
}

/// From half a millisecond to four minutes.
fn stage_histogram() -> Histogram {
    Histogram::new(exponential_buckets(5e-4, 2.0, 20))
}

impl Default for BridgeState {
    /// Whatever can be is there from the beginning, at zero: a rate needs a first value.
    fn default() -> Self {
        let stages = Family::new_with_constructor(stage_histogram as fn() -> Histogram);
        let mut state = Self {
            registry: Registry::with_prefix(PREFIX),
            counted: Counted::default(),
            waiting: Mutex::default(),
            started: AtomicBool::new(false),
            outcomes: Family::default(),
            stages,
            places: Family::default(),
            rows: Family::default(),
            jobs: Family::default(),
            underway: Gauge::default(),
            unsettled: Counter::default(),
            reloads: Family::default(),
        };
        state.register();
        for outcome in
            ["scored", "duplicate"].into_iter().chain(DeadCode::ALL.map(DeadCode::as_str))
        {
            drop(state.outcomes.get_or_create(&OutcomeLabel { outcome }));
        }
        for stage in Stage::ALL.map(Stage::as_str) {
            drop(state.stages.get_or_create(&StageLabel { stage }));
        }
        for place in Place::ALL.map(Place::as_str) {
            drop(state.places.get_or_create(&PlaceLabel { place }));
        }
        state
    }
}

impl BridgeState {
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
    }

    /// As OpenMetrics text.
    pub fn metrics(&self) -> String {
        self.underway.set(i64::try_from(self.counts().underway()).unwrap_or(i64::MAX));
        let mut text = String::new();
        text::encode(&mut text, &self.registry).expect("memory takes every character");
        text
    }

    /// Whether it waits for anything.
    pub fn readiness(&self) -> BridgeReadiness {
        let mut waiting: BTreeMap<_, _> = self.waiting.lock().iter().map(said).collect();
        if !self.started.load(Ordering::Relaxed) {
            waiting.insert(Place::Fleet.as_str(), "it starts".into());
        }
        BridgeReadiness { ready: waiting.is_empty(), waiting }
    }

    /// Events so far.
    pub fn counts(&self) -> BridgeCounts {
        let Counted { taken, scored, dead_lettered, duplicates } = &self.counted;
        // What is settled is read before what is taken, which it never is more than.
        let [scored, dead_lettered, duplicates] =
            [scored, dead_lettered, duplicates].map(|count| count.load(Ordering::Acquire));
        BridgeCounts { taken: taken.load(Ordering::Acquire), scored, dead_lettered, duplicates }
    }

    /// For the client of the fleet.
    pub fn events(self: &Arc<Self>) -> Events {
        let state = Arc::clone(self);
        Events::new(move |event| match event {
            Event::Waiting { reason, .. } => {
                state.begins(Place::Fleet, &reason, |waiters| waiters.is_client = true);
            }
            Event::GoesOn => state.goes_on(Place::Fleet, |waiters| waiters.is_client = false),
            Event::ReplyMalformed { reason } => warn!(reason, "a reply cannot be read"),
            Event::PublishedAgain { reason } => warn!(reason, "events are encrypted again"),
            _ => {}
        })
    }

    pub(super) fn has_started(&self) {
        self.started.store(true, Ordering::Relaxed);
    }

    /// Something is waited for, until the guard is dropped.
    pub(super) fn waits(&self, place: Place, reason: &str) -> Waiter<'_> {
        self.begins(place, reason, |waiters| waiters.held += 1);
        Waiter { state: self, place }
    }

    fn begins(&self, place: Place, reason: &str, count: impl FnOnce(&mut Waiters)) {
        let mut waiting = self.waiting.lock();
        let waiters = waiting.entry(place).or_default();
        count(waiters);
        self.places.get_or_create(&PlaceLabel { place: place.as_str() }).set(1);
        if waiters.reason != reason {
            reason.clone_into(&mut waiters.reason);
            warn!(place = place.as_str(), reason, "waiting");
        }
    }

    /// One less waits; the place is waited for until nobody does.
    fn goes_on(&self, place: Place, count: impl FnOnce(&mut Waiters)) {
        let mut waiting = self.waiting.lock();
        let Some(waiters) = waiting.get_mut(&place) else { return };
        count(waiters);
        if waiters.held == 0 && !waiters.is_client {
            waiting.remove(&place);
            self.places.get_or_create(&PlaceLabel { place: place.as_str() }).set(0);
            info!(place = place.as_str(), "goes on");
        }
    }

    pub(super) fn taken(&self) {
        self.counted.taken.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn scored(&self) {
        self.outcome("scored", &self.counted.scored);
    }

    pub(super) fn duplicate(&self) {
        self.outcome("duplicate", &self.counted.duplicates);
    }

    pub(super) fn dead_lettered(&self, code: DeadCode) {
        self.outcome(code.as_str(), &self.counted.dead_lettered);
    }

    fn outcome(&self, outcome: &'static str, count: &AtomicU64) {
        count.fetch_add(1, Ordering::AcqRel);
        self.outcomes.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    pub(super) fn stage(&self, stage: Stage, time: Duration) {
        let label = StageLabel { stage: stage.as_str() };
        self.stages.get_or_create(&label).observe(time.as_secs_f64());
    }

    pub(super) fn answered(&self, model: &str, form: &'static str, rows: u64) {
        let label = FormLabel { model: model.to_owned(), form };
        self.rows.get_or_create(&label).inc_by(rows);
        self.jobs.get_or_create(&label).inc();
    }

    pub(super) fn lost_settlement(&self) {
        self.unsettled.inc();
    }

    pub(super) fn reloaded(&self, outcome: &'static str) {
        self.reloads.get_or_create(&OutcomeLabel { outcome }).inc();
    }
}

impl Health for BridgeState {
    /// What cannot go on ends the process.
    fn liveness(&self) -> Condition {
        Condition::new(true, &serde_json::json!({ "alive": true }))
    }

    fn readiness(&self) -> Condition {
        let readiness = self.readiness();
        Condition::new(readiness.ready, &readiness)
    }

    fn metrics(&self) -> String {
        self.metrics()
    }
}

fn said((place, waiters): (&Place, &Waiters)) -> (&'static str, String) {
    (place.as_str(), waiters.reason.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_waited_for_until_nobody_waits() {
        let state = Arc::new(BridgeState::default());
        state.has_started();
        let gauge = |value: u8| format!("waiting{{place=\"fleet\"}} {value}");
        let (one, other) = (state.waits(Place::Fleet, "one"), state.waits(Place::Fleet, "other"));
        let client = state.events();
        client.tell(Event::GoesOn);
        drop(one);
        assert_eq!(state.readiness().waiting["fleet"], "other");
        assert!(state.metrics().contains(&gauge(1)));
        drop(other);
        assert!(state.readiness().ready && state.metrics().contains(&gauge(0)));
    }
}
