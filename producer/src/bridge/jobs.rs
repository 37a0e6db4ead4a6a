//! Step 2 of the way of an event: its job goes through the fleet.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use cipherscore_common::broker::Broker;
use cipherscore_common::telemetry::trace;
use cipherscore_common::{FormName, OwnerStore};
use tokio::time::{Instant, sleep};
use tracing::{Instrument, Span};

use super::BridgeError;
use super::fate::Fate;
use super::gather::{Gathered, Group, JobSlot, Lane};
use super::models::Model;
use super::parts::{NextTry, Parts};
use super::pipeline::{Pipeline, pauses};
use super::record::{DeadCode, DeadReason};
use super::state::{Place, Stage};
use crate::events::Events;
use crate::matrix::Matrix;
use crate::stream::StreamError;

impl<B: Broker, S: OwnerStore> Pipeline<B, S> {
    /// Each job takes as many events as the form wants that costs less.
    pub(super) fn score(self: &Arc<Self>, lane: &Arc<Lane>, group: Group) {
        let Group { mut events, slot } = group;
        let slot = Arc::new(slot);
        let begun = Instant::now();
        for event in &mut events {
            self.state.stage(Stage::Gather, begun - event.since);
            event.gathering = Span::none();
        }
        while let Some(first) = events.first() {
            let form = first.model.form_for(events.len());
            let (name, max_rows) = (form.target.form, form.max_rows.max(1));
            let rest = events.split_off(events.len().min(max_rows));
            let job = std::mem::replace(&mut events, rest);
            let (pipeline, lane, slot) = (Arc::clone(self), Arc::clone(lane), Arc::clone(&slot));
            self.spawn(async move { pipeline.score_job(&lane, job, name, slot).await });
        }
    }

    /// Whatever is wrong with single events, others of the job have their scores.
    async fn score_job(
        self: &Arc<Self>,
        lane: &Arc<Lane>,
        job: Vec<Gathered>,
        form: Option<FormName>,
        slot: Arc<JobSlot>,
    ) {
        let (mut parts, mut pauses, mut slot) = (Parts::new(job), pauses(), Some(slot));
        let mut waiter = None;
        while let Some(part) = parts.next() {
            let begun = Instant::now();
            let model = current(lane, &part.events);
            let fate = match self.integers(&model, form, &part.events).await {
                Ok(rows) => {
                    drop(waiter.take());
                    lane.outage.is_over();
                    self.scored(&model, part.events, &rows, begun.elapsed());
                    continue;
                }
                Err(error) => Fate::of(error),
            };
            let (next, reason) = match fate {
                Fate::Wait(reason) => {
                    self.wait_for_fleet(lane, part.events, &reason);
                    continue;
                }
                Fate::Failed(reason) => (parts.failed(part), reason),
                Fate::Refused(reason) => (parts.refused(part), reason),
                Fate::Dead(reason) => (NextTry::Dead(part.events), reason),
                Fate::End(error) => return self.end(error.into()),
            };
            lane.outage.is_over();
            match next {
                NextTry::Split => self.state.meters().split(),
                NextTry::Dead(events) => self.end_all_dead(events, &reason),
                NextTry::Again => {
                    waiter = Some(self.state.waits(Place::Fleet, &reason));
                    // While it waits its slot is free for others.
                    drop(slot.take());
                    sleep(pauses.take()).await;
                    slot = JobSlot::wait(&lane.slots).await.map(Arc::new);
                }
            }
        }
    }

    /// The results of a job, each to its event.
    fn scored(
        self: &Arc<Self>,
        model: &Model,
        job: Vec<Gathered>,
        rows: &Matrix<i64>,
        took: Duration,
    ) {
        if let Err(fault) = require_same(rows.len(), job.len()) {
            return self.end(fault);
        }
        for (event, integers) in job.into_iter().zip(rows.rows()) {
            self.state.stage(Stage::Score, took);
            match model.client().scores(integers) {
                Ok(scores) => {
                    let score = Arc::new(self.format.write(&event, &scores));
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

    /// Events of a model wait for the fleet together, and are gathered again with what came meanwhile.
    fn wait_for_fleet(self: &Arc<Self>, lane: &Arc<Lane>, events: Vec<Gathered>, reason: &str) {
        let waiter = self.state.waits(Place::Fleet, reason);
        let Some(pause) = lane.outage.wait(events, waiter) else { return };
        let (pipeline, lane) = (Arc::clone(self), Arc::clone(lane));
        self.spawn(async move {
            sleep(pause).await;
            let events = pipeline.renew_rows(&lane, lane.outage.take());
            if events.is_empty() {
                lane.outage.is_over();
            }
            events.into_iter().for_each(|event| pipeline.gather(&lane, event));
        });
    }

    /// Events that wait would do so for ever if nobody answers their model any more: where another one
    /// has taken its place, it scores them. What it does not take is a dead letter.
    fn renew_rows(self: &Arc<Self>, lane: &Lane, events: Vec<Gathered>) -> Vec<Gathered> {
        let model = Arc::clone(&lane.model.read());
        let renew = |mut event: Gathered| {
            if !model.takes_rows_of(&event.model) {
                let read = self.reader.read(&event.held.record);
                let row =
                    read.and_then(|read| model.row(&read.data, self.reader.absent_is_missing()));
                match row {
                    Ok(row) => event.row = row,
                    Err(reason) => {
                        self.end_dead(event.held, reason);
                        return None;
                    }
                }
            }
            event.model = Arc::clone(&model);
            Some(event)
        };
        events.into_iter().filter_map(renew).collect()
    }

    async fn integers(
        &self,
        model: &Model,
        form: Option<FormName>,
        job: &[Gathered],
    ) -> Result<Matrix<i64>, StreamError> {
        let form = model.form(form);
        let width = model.client().interface().features.count();
        let values = job.iter().flat_map(|event| event.row.iter().copied()).collect();
        let (rows, max_rows) = (Matrix::new(width, values), u32::try_from(form.max_rows));
        let max_rows = max_rows.ok().and_then(NonZeroU32::new);
        let (target, encryption, told) = (&form.target, &form.encryption, Events::ignored());
        let span = trace::shared_step("score", job.iter().map(|event| &event.held.span));
        let scored = self.fleet.score(target, encryption, rows, max_rows, &told);
        let rows = scored.instrument(span).await?;
        let name = form.target.form.map_or("", FormName::as_str);
        self.state.meters().answered(&model.name, name, rows.len() as u64);
        Ok(rows)
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

/// Scores are those of their events by their places.
fn require_same(scores: usize, events: usize) -> Result<(), BridgeError> {
    match scores == events {
        true => Ok(()),
        false => Err(BridgeError::Fault(format!("{scores} scores of {events} events"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_that_may_be_of_others_end_the_bridge() {
        assert!(require_same(3, 3).is_ok());
        for scores in [2, 4] {
            let fault = require_same(scores, 3);
            assert!(fault.is_err_and(|fault| fault.to_string().contains("of 3 events")));
        }
    }
}
