//! The loop of a run: parts in, jobs out, replies in.

mod replies;
mod watch;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cipherscore_common::broker::{Broker, BrokerError, QueueState};
use cipherscore_common::message::Timestamp;
use cipherscore_common::{JobId, Store};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use self::replies::ReplyTask;
use super::ScoreError;
use super::input::{Input, InputError};
use super::past::{Parts, Past};
use super::publish::{NewJob, Publisher, Rows, Unreadable};
use crate::client::{Answer, InFlight, Received};
use crate::evaluation_keys::KeyStep;
use crate::events::{Event, Events};
use crate::parts::{MAX_JOBS_OF_PART, blocking, due_in, remedy};
use crate::rows::ExtraColumns;

/// How often deadlines are looked at.
const TICK: Duration = Duration::from_secs(1);

/// Why a part has no results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) job: JobId,
    pub(super) reason: String,
}

/// What came of a run.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) finished: Parts,
    pub(super) failed: BTreeMap<u64, Failure>,
    pub(super) totals: Totals,
}

/// Rows and jobs, counted.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Totals {
    pub(super) scored_before: u64,
    pub(super) failed: u64,
    pub(super) published: u64,
    pub(super) published_again: u64,
}

/// Where a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// To be published when its rows are read.
    Unread,
    /// Being encrypted and published.
    Publishing,
    /// At the broker.
    Waiting,
    /// Its answer is being made durable.
    Settling,
}

/// A part that is neither finished nor failed.
struct Part {
    state: State,
    rows: Option<Rows>,
    /// Jobs of it that may be answered, the newest last.
    jobs: Vec<JobId>,
    /// The one of them that an answer is counted on. The others were given up, or may never have
    /// reached the broker, or were answered before the process ended: none of them keeps a part
    /// from being published again. None while it is unread.
    awaited: Option<JobId>,
    /// Jobs of it so far, in this run.
    published: u32,
    published_at: Instant,
    /// When it is given up that they are answered.
    due: Option<Instant>,
}

impl Part {
    /// No further answer to a job comes.
    fn answered(&mut self, job: JobId) {
        self.jobs.retain(|other| *other != job);
        self.awaited = self.awaited.filter(|awaited| *awaited != job);
    }
}

/// What a task did.
enum Done<B: Broker, S: Store> {
    Published { part: u64, job: JobId, rows: u64 },
    Finished { part: u64 },
    Unreadable { part: u64, unreadable: Box<Unreadable<B, S>> },
    Failed { part: u64, failure: Failure },
    Looked(Result<Option<QueueState>, BrokerError>),
    LetGo,
}

pub(super) struct Run<B: Broker, S: Store> {
    publisher: Arc<Publisher<B, S>>,
    events: Events,
    in_flight: usize,
    job_deadline: Option<Duration>,
    input: Option<Input>,
    next_part: u64,
    parts: HashMap<u64, Part>,
    jobs: HashMap<JobId, u64>,
    tasks: JoinSet<Result<Done<B, S>, ScoreError>>,
    /// When something was heard or the queue was looked at.
    heard: Instant,
    /// Whether the watcher was told that nobody answers.
    silent: bool,
    past: Past,
    outcome: Outcome,
}

impl<B: Broker, S: Store> Run<B, S> {
    pub(super) fn new(
        publisher: Arc<Publisher<B, S>>,
        mut past: Past,
        in_flight: usize,
        job_deadline: Option<Duration>,
        events: Events,
    ) -> Self {
        let finished = std::mem::take(&mut past.finished);
        let outcome = Outcome { finished, failed: BTreeMap::new(), totals: Totals::default() };
        Self {
            publisher,
            events,
            in_flight,
            job_deadline,
            input: None,
            next_part: 0,
            parts: HashMap::new(),
            jobs: HashMap::new(),
            tasks: JoinSet::new(),
            heard: Instant::now(),
            silent: false,
            past,
            outcome,
        }
    }

    /// Until every part is finished or failed.
    pub(super) async fn run(
        mut self,
        path: &Path,
        extra: ExtraColumns,
        republish: bool,
    ) -> Result<Outcome, ScoreError> {
        self.resume(republish);
        let in_input = |source| ScoreError::Input { path: path.to_owned(), source };
        let (opened, encryption) = (path.to_owned(), Arc::clone(&self.publisher.encryption));
        let input = blocking(move || Input::open(&opened, encryption.model(), extra)).await?;
        self.input = Some(input.map_err(in_input)?);
        let mut replies = ReplyTask::start(&self.publisher.client);
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            while self.has_room() {
                self.read_part().await?.map_err(in_input)?;
            }
            if self.parts.is_empty() && self.tasks.is_empty() {
                break;
            }
            tokio::select! {
                received = replies.received.recv() => match received {
                    Some(received) => self.receive(received?),
                    // Without it, the loop waits for what nobody reads.
                    None => return Err(replies.why_it_ended().await),
                },
                Some(done) = self.tasks.join_next(), if !self.tasks.is_empty() => {
                    self.take(done??)?;
                }
                _ = tick.tick() => self.look(),
            }
        }
        self.check_input().await?.map_err(in_input)?;
        Ok(self.outcome)
    }

    /// Takes up what an earlier run left.
    fn resume(&mut self, republish: bool) {
        let header = self.publisher.ledger.header();
        let finished = (0..header.parts()).filter(|part| self.outcome.finished.contains(*part));
        let scored = finished.map(|part| header.part_rows(part)).sum();
        self.outcome.totals.scored_before = scored;
        let mut unanswered = 0;
        for (part, jobs) in std::mem::take(&mut self.past.unanswered) {
            for job in &jobs {
                let in_flight =
                    InFlight { job: job.job, model_id: header.model_id, payload: job.payload };
                self.publisher.client.expect(in_flight);
                self.jobs.insert(job.job, part);
            }
            let confirmed = jobs.last().filter(|job| job.confirmed && !republish);
            unanswered += usize::from(confirmed.is_some());
            self.parts.insert(
                part,
                Part {
                    state: confirmed.map_or(State::Unread, |_| State::Waiting),
                    rows: None,
                    jobs: jobs.iter().map(|job| job.job).collect(),
                    awaited: confirmed.map(|job| job.job),
                    published: 0,
                    published_at: Instant::now(),
                    // A reply that came in time may have waited in the queue since.
                    due: confirmed
                        .and_then(|job| job.deadline)
                        .and_then(|deadline| due_in(deadline.left(Timestamp::now()))),
                },
            );
        }
        if scored > 0 || unanswered > 0 {
            self.events.tell(Event::Resumed { scored, unanswered });
        }
    }

    fn has_room(&self) -> bool {
        let busy = self.parts.values().filter(|part| part.state != State::Unread).count();
        self.next_part < self.publisher.ledger.header().parts() && busy < self.in_flight
    }

    /// Reads the rows of the next part, and publishes them if they have to be.
    async fn read_part(&mut self) -> Result<Result<(), InputError>, ScoreError> {
        let Some(mut input) = self.input.take() else { return Ok(Ok(())) };
        let part = self.next_part;
        let count = self.publisher.ledger.header().part_rows(part);
        let read = move || {
            let rows = input.take(usize::try_from(count).unwrap_or(usize::MAX));
            (rows, input)
        };
        let (rows, input) = blocking(read).await?;
        self.input = Some(input);
        self.next_part += 1;
        let rows = match rows {
            Ok(rows) if rows.len() as u64 == count => Arc::new(rows),
            Ok(_) => return Ok(Err(InputError::Changed)),
            Err(error) => return Ok(Err(error)),
        };
        if self.outcome.finished.contains(part) || self.outcome.failed.contains_key(&part) {
            // Nothing moves an entry of it any more.
            self.end(part);
            return Ok(Ok(()));
        }
        let entry = self.parts.entry(part).or_insert_with(|| Part {
            state: State::Unread,
            rows: None,
            jobs: Vec::new(),
            awaited: None,
            published: 0,
            published_at: Instant::now(),
            due: None,
        });
        entry.rows = Some(rows);
        if entry.state == State::Unread {
            self.publish(part, KeyStep::Once, None);
        }
        Ok(Ok(()))
    }

    /// Makes a new job of a part, or notes that its rows are needed.
    fn publish(&mut self, part: u64, key: KeyStep, replaces: Option<Received<B, S>>) {
        let Some(entry) = self.parts.get_mut(&part) else { return };
        let Some(rows) = entry.rows.clone() else {
            (entry.state, entry.awaited) = (State::Unread, None);
            if let Some(received) = replaces {
                self.note_answered(part, received);
            }
            return;
        };
        let job = JobId::random();
        let deadline = self.job_deadline.map(|time| Timestamp::now().after(time));
        entry.state = State::Publishing;
        entry.jobs.push(job);
        entry.awaited = Some(job);
        entry.published += 1;
        entry.published_at = Instant::now();
        entry.due = self.job_deadline.and_then(due_in);
        self.jobs.insert(job, part);
        let (publisher, count) = (Arc::clone(&self.publisher), rows.len() as u64);
        self.tasks.spawn(async move {
            let new = NewJob { job, part, rows, deadline, key, replaces };
            Ok(match publisher.publish(new).await? {
                true => Done::Published { part, job, rows: count },
                false => Done::LetGo,
            })
        });
    }

    fn receive(&mut self, mut received: Received<B, S>) {
        self.heard = Instant::now();
        if std::mem::take(&mut self.silent) {
            self.events.tell(Event::GoesOn);
        }
        let job = received.job;
        let found = self.jobs.get(&job).and_then(|part| Some((*part, self.parts.get_mut(part)?)));
        let Some((part, entry)) = found else {
            self.let_go(received);
            return;
        };
        if entry.state == State::Settling {
            // The other job of the part was faster. Should its outputs be unreadable, this one
            // is not answered once more.
            entry.answered(job);
            self.jobs.remove(&job);
            self.let_go(received);
            return;
        }
        match received.take_answer() {
            Answer::Scored(outputs) => {
                entry.state = State::Settling;
                let publisher = Arc::clone(&self.publisher);
                self.tasks.spawn(async move {
                    Ok(match publisher.finish(part, outputs, received).await? {
                        Ok(()) => Done::Finished { part },
                        Err(unreadable) => {
                            Done::Unreadable { part, unreadable: Box::new(unreadable) }
                        }
                    })
                });
            }
            Answer::Failed { code, reason } => {
                let remedy = remedy(code, entry.published_at);
                self.without(part, remedy, format!("{code}: {reason}"), received);
            }
            Answer::Lost { reason } => {
                let reason = format!("the outputs are lost: {reason}");
                self.without(part, Some(KeyStep::Once), reason, received);
            }
        }
    }

    /// A job ended without results. `remedy` is what a new one may be tried with.
    fn without(
        &mut self,
        part: u64,
        remedy: Option<KeyStep>,
        reason: String,
        received: Received<B, S>,
    ) {
        let job = received.job;
        self.jobs.remove(&job);
        let Some(entry) = self.parts.get_mut(&part) else { return };
        entry.answered(job);
        match remedy {
            _ if entry.awaited.is_some() => self.let_go(received),
            Some(key) if entry.published < MAX_JOBS_OF_PART => {
                self.outcome.totals.published_again += 1;
                self.events.tell(Event::PublishedAgain { reason });
                self.publish(part, key, Some(received));
            }
            _ => self.fail(part, Failure { job, reason }, Some(received)),
        }
    }

    fn fail(&mut self, part: u64, failure: Failure, received: Option<Received<B, S>>) {
        let Some(entry) = self.parts.get_mut(&part) else { return };
        entry.state = State::Settling;
        let publisher = Arc::clone(&self.publisher);
        self.tasks.spawn(async move {
            publisher.fail(part, failure.job, failure.reason.clone(), received).await?;
            Ok(Done::Failed { part, failure })
        });
    }

    /// Settles a reply that was no use, when the ledger says that there was one: nothing else would
    /// tell the next run that none comes.
    fn note_answered(&mut self, part: u64, received: Received<B, S>) {
        let publisher = Arc::clone(&self.publisher);
        self.tasks.spawn(async move {
            let (job, reason) = (received.job, "to be encrypted again".to_owned());
            publisher.fail(part, job, reason, Some(received)).await?;
            Ok(Done::LetGo)
        });
    }

    /// Settles a reply of which nothing is needed.
    fn let_go(&mut self, received: Received<B, S>) {
        self.tasks.spawn(async move {
            received.ack().await;
            Ok(Done::LetGo)
        });
    }
}
