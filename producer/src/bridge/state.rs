//! What a bridge says of itself: what it waits for, what it counted, and how long things took.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use cipherscore_common::health::{Condition, Health};
use parking_lot::Mutex;
use serde::Serialize;
use tracing::{info, warn};

use super::meters::Meters;
use super::record::DeadCode;
use crate::events::{Event, Events};

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
    pub(super) const ALL: [Self; 4] = [Self::Source, Self::Fleet, Self::Sink, Self::DeadLetters];

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
    pub(super) const ALL: [Self; 5] =
        [Self::Gather, Self::Score, Self::Sink, Self::Settle, Self::Whole];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Gather => "gather",
            Self::Score => "score",
            Self::Sink => "sink",
            Self::Settle => "settle",
            Self::Whole => "whole",
        }
    }
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
pub(super) struct Waiter {
    state: Arc<BridgeState>,
    place: Place,
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.state.goes_on(self.place, |waiters| waiters.held -= 1);
    }
}

/// What a bridge says of itself, for whoever watches.
#[derive(Default)]
pub struct BridgeState {
    counted: Counted,
    waiting: Mutex<BTreeMap<Place, Waiters>>,
    started: AtomicBool,
    meters: Meters,
}

impl BridgeState {
    /// As OpenMetrics text.
    pub fn metrics(&self) -> String {
        self.meters.text(self.counts().underway())
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
    pub(super) fn waits(self: &Arc<Self>, place: Place, reason: &str) -> Waiter {
        self.begins(place, reason, |waiters| waiters.held += 1);
        Waiter { state: Arc::clone(self), place }
    }

    fn begins(&self, place: Place, reason: &str, count: impl FnOnce(&mut Waiters)) {
        let mut waiting = self.waiting.lock();
        let waiters = waiting.entry(place).or_default();
        count(waiters);
        self.meters.waits(place.as_str(), true);
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
            self.meters.waits(place.as_str(), false);
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
        self.meters.outcome(outcome);
    }

    pub(super) fn stage(&self, stage: Stage, time: Duration) {
        self.meters.stage(stage.as_str(), time);
    }

    /// What else is counted.
    pub(super) fn meters(&self) -> &Meters {
        &self.meters
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
