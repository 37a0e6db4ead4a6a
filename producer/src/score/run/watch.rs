//! What the tasks of a run did, deadlines, and silence.

use std::sync::Arc;

use cipherscore_common::Store;
use cipherscore_common::broker::{Broker, BrokerError, QueueState};
use tokio::time::Instant;

use super::{Done, Failure, Run, State};
use crate::evaluation_keys::KeyStep;
use crate::events::Event;
use crate::parts::{MAX_JOBS_OF_PART, SILENCE, blocking, reason_of_silence};
use crate::score::input::InputError;
use crate::score::{MAX_FAILED_JOBS, ScoreError};

impl<B: Broker, S: Store> Run<B, S> {
    /// Takes note of what a task did.
    pub(super) fn take(&mut self, done: Done<B, S>) -> Result<(), ScoreError> {
        match done {
            Done::Published { part, job, rows } => {
                self.outcome.totals.published += 1;
                self.events.tell(Event::Published { job, rows });
                if let Some(entry) = self.parts.get_mut(&part)
                    && entry.state == State::Publishing
                    && entry.awaited == Some(job)
                {
                    entry.state = State::Waiting;
                }
            }
            Done::Finished { part } => {
                let rows = self.end(part);
                self.outcome.finished.insert(part);
                self.events.tell(Event::Scored { rows });
            }
            Done::Unreadable { part, unreadable } => {
                if let Some(entry) = self.parts.get_mut(&part) {
                    entry.state = State::Waiting;
                }
                let reason = unreadable.error.to_string();
                self.without(part, Some(KeyStep::Once), reason, unreadable.received);
            }
            Done::Failed { part, failure } => {
                let rows = self.end(part);
                self.outcome.totals.failed += rows;
                let Failure { job, reason } = failure.clone();
                self.events.tell(Event::Failed { rows, reason: reason.clone() });
                self.outcome.failed.insert(part, failure);
                if self.outcome.failed.len() > MAX_FAILED_JOBS {
                    return Err(ScoreError::TooManyFailures { job, reason });
                }
            }
            Done::Looked(state) => self.tell_silence(state),
            Done::LetGo => {}
        }
        Ok(())
    }

    /// Nothing more is wanted of a part. Returns its number of rows.
    pub(super) fn end(&mut self, part: u64) -> u64 {
        for job in self.parts.remove(&part).into_iter().flat_map(|entry| entry.jobs) {
            self.jobs.remove(&job);
            let client = self.publisher.client.clone();
            self.tasks.spawn(async move {
                client.abandon(job).await;
                Ok(Done::LetGo)
            });
        }
        self.publisher.ledger.header().part_rows(part)
    }

    /// Looks for jobs that are overdue, and for a reason when nobody answers.
    pub(super) fn look(&mut self) {
        let now = Instant::now();
        let waiting = || self.parts.iter().filter(|(_, part)| part.state == State::Waiting);
        let overdue = waiting().filter(|(_, part)| part.due.is_some_and(|due| due < now));
        let overdue = overdue.filter_map(|(part, entry)| {
            // What waits, waits for a job.
            entry.awaited.map(|job| (*part, entry.published, job))
        });
        let overdue: Vec<_> = overdue.collect();
        let anything_waits = waiting().next().is_some();
        for (part, published, job) in overdue {
            let reason = "not answered by its deadline".to_owned();
            if published < MAX_JOBS_OF_PART {
                self.outcome.totals.published_again += 1;
                self.events.tell(Event::PublishedAgain { reason });
                self.publish(part, KeyStep::Once, None);
            } else {
                self.fail(part, Failure { job, reason }, None);
            }
        }
        if anything_waits && self.heard.elapsed() >= SILENCE {
            self.heard = Instant::now();
            let publisher = Arc::clone(&self.publisher);
            self.tasks.spawn(async move {
                let model_id = publisher.ledger.header().model_id;
                Ok(Done::Looked(publisher.client.queue_state(model_id).await))
            });
        }
    }

    fn tell_silence(&mut self, state: Result<Option<QueueState>, BrokerError>) {
        let Some(reason) = reason_of_silence("this model", state) else { return };
        self.silent = true;
        self.events.tell(Event::Waiting { reason, again_in: SILENCE });
    }

    /// The second reading must have seen what the first one checked.
    pub(super) async fn check_input(&mut self) -> Result<Result<(), InputError>, ScoreError> {
        let Some(mut input) = self.input.take() else { return Ok(Ok(())) };
        let expected = self.publisher.ledger.header().input_sha256;
        let check = move || match input.take(1)?.is_empty() && input.sha256() == expected {
            true => Ok(()),
            false => Err(InputError::Changed),
        };
        Ok(blocking(check).await?)
    }
}
