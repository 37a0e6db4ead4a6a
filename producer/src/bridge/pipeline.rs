//! The way of an event, from its arrival to the word to its source.
//!
//! 1. It is read; what came before is dropped; it waits for others.
//! 2. Its job goes through the fleet: `jobs`.
//! 3. Its score goes to the sink, or, where it can have none, itself to the dead letters.
//! 4. Only then is its source told.
//!
//! Whatever is away at any step is waited for, with the event unsettled.

use std::sync::Arc;
use std::time::Duration;

use cipherscore_common::broker::{Broker, Settled};
use cipherscore_common::telemetry::trace;
use cipherscore_common::{OwnerStore, Pauses};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::{Instant, sleep};
use tracing::{Instrument, Span};

use super::BridgeError;
use super::events::EventReader;
use super::gather::{Gathered, Held, Lane};
use super::record::{
    Arrival, Claim, DeadCode, DeadLetterSink, DeadReason, EndError, Ended, Record, ScoreSink,
};
use super::scores::ScoreFormat;
use super::state::{BridgeState, Place, Stage};
use super::turns::Turns;
use super::window::{Repeated, Seen, Underway, Window};
use crate::stream::Stream;

/// First pause before something that is away is tried again.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

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
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
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
        let Arrival { record, claim } = arrival;
        let arrived = Instant::now();
        let event = match self.reader.read(&record) {
            Ok(event) => event,
            Err(reason) => {
                let (underway, turn, span) = (None, None, trace::event(None, None));
                let held = Held { record, claim, underway, turn, arrived, room, span };
                return self.end_dead(held, reason);
            }
        };
        let (underway, Repeated { claim, room }) =
            match self.window.arrive(event.key, Repeated { claim, room }) {
                Seen::New(underway, first) => (Some(underway), first),
                // Counted when the first one is settled.
                Seen::Underway => return,
                Seen::Settled(copy, score) => {
                    let pipeline = Arc::clone(self);
                    let told = async move {
                        pipeline.tell_again(copy, &Ended::Scored(score)).await;
                    };
                    return self.spawn(told);
                }
            };
        let turn = event.order.map(|key| self.turns.take(key));
        let [parent, state] = event.trace.each_ref().map(|text| text.as_deref());
        let span = trace::event(parent, state);
        let held = Held { record, claim, underway, turn, arrived, room, span };
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
            since: arrived,
            gathering: Span::none(),
        };
        self.gather(&lane, gathered);
    }

    /// It waits for others that share a job with it.
    pub(super) fn gather(&self, lane: &Lane, mut event: Gathered) {
        event.since = Instant::now();
        event.gathering = trace::step_of(&event.held.span, "gather");
        if lane.events.send(event).is_err() {
            self.end(BridgeError::Fault("nothing makes jobs of events any more".into()));
        }
    }

    /// Steps 3 and 4 of an event with a score.
    pub(super) async fn end_scored(&self, mut held: Held, score: Arc<Record>) {
        if let Some(turn) = &mut held.turn {
            turn.wait().await;
        }
        let begun = Instant::now();
        let put = self.until(Place::Sink, || self.sink.put(&score));
        if put.instrument(trace::step_of(&held.span, "sink")).await {
            self.state.stage(Stage::Sink, begun.elapsed());
            self.state.scored();
            let kept = held.claim.wants_score().then(|| Arc::clone(&score));
            let copies = held.underway.take().map(|underway| underway.settled(kept));
            self.settle(held, copies.unwrap_or_default(), &Ended::Scored(score)).await;
        }
    }

    /// Steps 3 and 4 of an event without one.
    pub(super) fn end_dead(self: &Arc<Self>, mut held: Held, reason: DeadReason) {
        let pipeline = Arc::clone(self);
        self.spawn(async move {
            let keep = || pipeline.dead_letters.keep(&held.record, &reason);
            let kept = pipeline.until(Place::DeadLetters, keep);
            if !kept.instrument(trace::step_of(&held.span, "dead letter")).await {
                return;
            }
            tracing::warn!(code = reason.code.as_str(), "an event has no score");
            // Those behind it must not pass those before it.
            if let Some(turn) = &mut held.turn {
                turn.wait().await;
            }
            pipeline.state.dead_lettered(reason.code);
            let copies = held.underway.take().map(Underway::forgotten);
            let ended = Ended::Dead(Arc::new(reason));
            pipeline.settle(held, copies.unwrap_or_default(), &ended).await;
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

    /// Step 4, of the event and of whatever came of it again. Its room is free last: who waits for that
    /// may end the process.
    async fn settle(&self, held: Held, copies: Vec<Repeated>, ended: &Ended) {
        let Held { claim, turn, arrived, room, span, .. } = held;
        drop(turn);
        let begun = Instant::now();
        self.tell(claim, ended).await;
        for copy in copies {
            self.tell_again(copy, ended).await;
        }
        self.state.stage(Stage::Settle, begun.elapsed());
        self.state.stage(Stage::Whole, arrived.elapsed());
        drop(span);
        drop(room);
    }

    async fn tell_again(&self, Repeated { claim, room }: Repeated, ended: &Ended) {
        self.state.duplicate();
        self.tell(claim, ended).await;
        drop(room);
    }

    async fn tell(&self, claim: Box<dyn Claim>, ended: &Ended) {
        if !matches!(claim.settle(ended).await, Ok(Settled::Told)) {
            self.state.meters().lost_settlement();
        }
    }

    pub(super) fn end(&self, error: BridgeError) {
        // Somebody was faster, or it ends already.
        let _ = self.fatal.send(error);
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
