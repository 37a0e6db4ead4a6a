//! The way of an event, from its arrival to the word to its source.
//!
//! 1. It is read; what came before is dropped; it waits for others.
//! 2. Its job goes through the fleet.
//! 3. Its score goes to the sink, or, where it can have none, itself to the dead letters.
//! 4. Only then is its source told.
//!
//! Whatever is away at any step is waited for, with the event unsettled.

use std::sync::Arc;
use std::time::Duration;

use cipherscore_common::broker::{Broker, Disposition, Settled};
use cipherscore_common::{FormName, OwnerStore, Pauses};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::{Instant, sleep};

use super::BridgeError;
use super::events::EventReader;
use super::fate::Fate;
use super::gather::{Gathered, Group, Held, Lane};
use super::models::Model;
use super::record::{Arrival, DeadCode, DeadLetterSink, DeadReason, EndError, Record, ScoreSink};
use super::scores::ScoreFormat;
use super::state::{BridgeState, Place, Stage};
use super::turns::Turns;
use super::window::{Repeated, Seen, Underway, Window};
use crate::events::Events;
use crate::matrix::Matrix;
use crate::stream::{Stream, StreamError};

/// First pause before something that is away is tried again.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How often rows are tried again on which workers fail.
const INTERNAL_RETRIES: u32 = 5;

/// Pauses of what is tried until it succeeds.
pub(super) fn pauses() -> Pauses {
    Pauses::new(FIRST_PAUSE, LONGEST_PAUSE)
}

/// What the ways of all events share.
pub(super) struct Pipeline<B: Broker, S: OwnerStore> {
    pub(super) fleet: Stream<B, S>,
    pub(super) sink: Box<dyn ScoreSink>,
    pub(super) dead_letters: Box<dyn DeadLetterSink>,
    pub(super) reader: EventReader,
    pub(super) format: ScoreFormat,
    pub(super) window: Window,
    pub(super) turns: Turns,
    pub(super) state: Arc<BridgeState>,
    /// Why the bridge cannot go on.
    pub(super) fatal: mpsc::UnboundedSender<BridgeError>,
    /// Its other end is the bridge's, and goes with it.
    pub(super) alive: watch::Receiver<()>,
}

/// Ends the bridge when the task that holds it panics: its events would be taken, and nothing else,
/// for ever.
struct Panics(mpsc::UnboundedSender<BridgeError>);

impl Drop for Panics {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Somebody was faster, or it ends already.
            let _ = self.0.send(BridgeError::Fault("a step of an event panicked".into()));
        }
    }
}

impl<B: Broker, S: OwnerStore> Pipeline<B, S> {
    /// Does it beside everything else, for as long as there is a bridge.
    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut alive = self.alive.clone();
        let panics = Panics(self.fatal.clone());
        tokio::spawn(async move {
            let _panics = panics;
            tokio::select! {
                // Nothing is ever said: it ends.
                _ = alive.changed() => {}
                () = work => {}
            }
        });
    }

    /// Step 1. `lane_of` says which model scores an event with such a route.
    pub(super) fn take(
        self: &Arc<Self>,
        arrival: Arrival,
        room: OwnedSemaphorePermit,
        lane_of: impl Fn(Option<&str>) -> Option<Arc<Lane>>,
    ) {
        self.state.taken();
        let Arrival { record, settlement } = arrival;
        let arrived = Instant::now();
        let event = match self.reader.read(&record) {
            Ok(event) => event,
            Err(reason) => {
                let (underway, turn) = (None, None);
                let held = Held { record, settlement, underway, turn, arrived, room };
                return self.end_dead(held, reason);
            }
        };
        let repeated = Repeated { settlement, room };
        let (underway, Repeated { settlement, room }) =
            match self.window.arrive(event.key, repeated) {
                Seen::New(underway, first) => (Some(underway), first),
                // Counted when the first one is settled.
                Seen::Underway => return,
                Seen::Settled(copy) => {
                    let pipeline = Arc::clone(self);
                    self.spawn(async move { pipeline.tell_again(copy).await });
                    return;
                }
            };
        let turn = event.order.map(|key| self.turns.take(key));
        let held = Held { record, settlement, underway, turn, arrived, room };
        let Some(lane) = lane_of(event.route.as_deref()) else {
            let route = event.route.map_or("nothing".into(), |route| format!("{route:?}"));
            let text = format!("no model scores events that say {route} at events.route");
            return self.end_dead(held, DeadReason::new(DeadCode::NoRoute, text));
        };
        let model = Arc::clone(&lane.model.read());
        let row = match model.row(&event.data, self.reader.absent_is_missing()) {
            Ok(row) => row,
            Err(reason) => return self.end_dead(held, reason),
        };
        let gathered = Gathered {
            held,
            key: event.key,
            id: event.id,
            source: event.source,
            fields: event.fields,
            trace: event.trace,
            received: event.received,
            row,
            model,
        };
        if lane.events.send(gathered).is_err() {
            self.end(BridgeError::Fault("nothing makes jobs of events any more".into()));
        }
    }

    /// Step 2: one job for each so many rows as the form takes that costs less.
    pub(super) fn score(self: &Arc<Self>, lane: &Arc<Lane>, group: Group) {
        let Group { mut events, slot } = group;
        let slot = Arc::new(slot);
        let Some(first) = events.first() else { return };
        let max_rows = first.model.form_for(events.len()).max_rows;
        while !events.is_empty() {
            let rest = events.split_off(events.len().min(max_rows));
            let job = std::mem::replace(&mut events, rest);
            let (pipeline, lane, slot) = (Arc::clone(self), Arc::clone(lane), Arc::clone(&slot));
            self.spawn(async move { pipeline.score_job(&lane, job, slot).await });
        }
    }

    /// While it waits for the fleet its slot is free for others.
    async fn score_job(
        self: &Arc<Self>,
        lane: &Lane,
        mut job: Vec<Gathered>,
        slot: Arc<OwnedSemaphorePermit>,
    ) {
        let begun = Instant::now();
        for event in &job {
            self.state.stage(Stage::Gather, begun - event.held.arrived);
        }
        let (mut pauses, mut waiter, mut slot) = (pauses(), None, Some(slot));
        let mut internal_errors = 0;
        let (model, rows) = loop {
            let model = current(lane, &job);
            let reason = match self.integers(&model, &job).await {
                Ok(rows) => break (model, rows),
                Err(error) => match Fate::of(error) {
                    Fate::Wait(reason) => reason,
                    Fate::Few(reason) if internal_errors < INTERNAL_RETRIES => {
                        internal_errors += 1;
                        reason
                    }
                    Fate::Few(reason) | Fate::Dead(reason) => {
                        return self.end_all_dead(job, &reason);
                    }
                    Fate::End(error) => return self.end(error.into()),
                },
            };
            waiter = Some(self.state.waits(Place::Fleet, &reason));
            drop(slot.take());
            sleep(pauses.take()).await;
            job = self.renew_rows(lane, job);
            if job.is_empty() {
                return;
            }
            // It is never closed.
            slot = Arc::clone(&lane.slots).acquire_owned().await.ok().map(Arc::new);
        };
        drop((waiter, slot));
        if rows.len() != job.len() {
            let (rows, events) = (rows.len(), job.len());
            return self.end(BridgeError::Fault(format!("{rows} scores of {events} events")));
        }
        let took = begun.elapsed();
        for (event, integers) in job.into_iter().zip(rows.rows()) {
            self.state.stage(Stage::Score, took);
            match model.client().scores(integers) {
                Ok(scores) => {
                    let score = self.format.write(&event, &scores);
                    let pipeline = Arc::clone(self);
                    self.spawn(async move { pipeline.end_scored(event.held, score).await });
                }
                Err(error) => {
                    let reason = DeadReason::new(DeadCode::NotScored, error.to_string());
                    self.end_dead(event.held, reason);
                }
            }
        }
    }

    fn end_all_dead(self: &Arc<Self>, job: Vec<Gathered>, reason: &str) {
        for event in job {
            self.end_dead(event.held, DeadReason::new(DeadCode::NotScored, reason));
        }
    }

    /// Events that wait would do so for ever if nobody answers their model any more: where another one
    /// has taken its place, it scores them. What it does not take is a dead letter.
    fn renew_rows(self: &Arc<Self>, lane: &Lane, job: Vec<Gathered>) -> Vec<Gathered> {
        let model = Arc::clone(&lane.model.read());
        if job.first().is_none_or(|event| model.takes_rows_of(&event.model)) {
            return job;
        }
        let renew = |mut event: Gathered| {
            let read = self.reader.read(&event.held.record);
            let row = read.and_then(|read| model.row(&read.data, self.reader.absent_is_missing()));
            match row {
                Ok(row) => {
                    (event.row, event.model) = (row, Arc::clone(&model));
                    Some(event)
                }
                Err(reason) => {
                    self.end_dead(event.held, reason);
                    None
                }
            }
        };
        job.into_iter().filter_map(renew).collect()
    }

    async fn integers(&self, model: &Model, job: &[Gathered]) -> Result<Matrix<i64>, StreamError> {
        let form = model.form_for(job.len());
        let width = model.client().interface().features.count();
        let values = job.iter().flat_map(|event| event.row.iter().copied()).collect();
        let (rows, max_rows) = (Matrix::new(width, values), u32::try_from(form.max_rows));
        let max_rows = max_rows.ok().and_then(std::num::NonZeroU32::new);
        let (target, encryption, told) = (&form.target, &form.encryption, Events::ignored());
        let rows = self.fleet.score(target, encryption, rows, max_rows, &told).await?;
        let name = form.target.form.map_or("", FormName::as_str);
        self.state.answered(&model.name, name, rows.len() as u64);
        Ok(rows)
    }

    /// Steps 3 and 4 of an event with a score.
    async fn end_scored(&self, mut held: Held, score: Record) {
        if let Some(turn) = &mut held.turn {
            turn.wait().await;
        }
        let begun = Instant::now();
        if self.until(Place::Sink, || self.sink.put(&score)).await {
            self.state.stage(Stage::Sink, begun.elapsed());
            self.state.scored();
            self.settle(held, Underway::settled).await;
        }
    }

    /// Steps 3 and 4 of an event without one.
    fn end_dead(self: &Arc<Self>, mut held: Held, reason: DeadReason) {
        let pipeline = Arc::clone(self);
        self.spawn(async move {
            let keep = || pipeline.dead_letters.keep(&held.record, &reason);
            if !pipeline.until(Place::DeadLetters, keep).await {
                return;
            }
            tracing::warn!(code = reason.code.as_str(), "an event has no score");
            // Those behind it must not pass those before it.
            if let Some(turn) = &mut held.turn {
                turn.wait().await;
            }
            pipeline.state.dead_lettered(reason.code);
            pipeline.settle(held, Underway::forgotten).await;
        });
    }

    /// Tries until it is done; false when it never will be, and the bridge ends.
    async fn until<'a>(
        &self,
        place: Place,
        attempt: impl Fn() -> super::record::Waiting<'a, Result<(), EndError>>,
    ) -> bool {
        let (mut pauses, mut waiter) = (pauses(), None);
        loop {
            match attempt().await {
                Ok(()) => {
                    drop(waiter);
                    return true;
                }
                Err(EndError::Away(reason)) => {
                    waiter = Some(self.state.waits(place, &reason));
                    sleep(pauses.take()).await;
                }
                Err(EndError::Gone(reason)) => {
                    self.end(BridgeError::End { place: place.as_str(), reason });
                    return false;
                }
            }
        }
    }

    /// Step 4, of the event and of whatever came of it again.
    async fn settle(&self, held: Held, leave: fn(Underway) -> Vec<Repeated>) {
        let Held { settlement, underway, turn, arrived, room, .. } = held;
        drop(turn);
        let begun = Instant::now();
        let copies = underway.map(leave).unwrap_or_default();
        self.tell(Repeated { settlement, room }).await;
        for copy in copies {
            self.tell_again(copy).await;
        }
        self.state.stage(Stage::Settle, begun.elapsed());
        self.state.stage(Stage::Whole, arrived.elapsed());
    }

    async fn tell_again(&self, copy: Repeated) {
        self.state.duplicate();
        self.tell(copy).await;
    }

    async fn tell(&self, Repeated { settlement, room }: Repeated) {
        if !matches!(settlement.settle(Disposition::Ack).await, Ok(Settled::Told)) {
            self.state.lost_settlement();
        }
        drop(room);
    }

    fn end(&self, error: BridgeError) {
        // Somebody was faster, or it ends already.
        let _ = self.fatal.send(error);
    }
}

/// The model of a job: with the keys of this moment, as long as its rows are the same ones.
fn current(lane: &Lane, job: &[Gathered]) -> Arc<Model> {
    let current = Arc::clone(&lane.model.read());
    match job.first() {
        Some(event) if !current.takes_rows_of(&event.model) => Arc::clone(&event.model),
        _ => current,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_told() {
        let (fatal, mut fatalities) = mpsc::unbounded_channel();
        let calm = Panics(fatal.clone());
        tokio::spawn(async move { drop(calm) }).await.unwrap();
        assert!(fatalities.try_recv().is_err());
        let panics = Panics(fatal);
        let task = tokio::spawn(async move {
            let _panics = panics;
            panic!("as a step might");
        });
        assert!(task.await.is_err_and(|error| error.is_panic()));
        assert!(matches!(fatalities.try_recv(), Ok(BridgeError::Fault(_))));
    }
}
