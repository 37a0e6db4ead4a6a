//! The loop of a run: parts in, and what became of them out.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use cipherscore_common::OwnerStore;
use cipherscore_common::broker::Broker;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::input::{Input, InputError};
use super::part::{Ended, Rows, Scoring};
use super::past::{Parts, Past, Unanswered};
use super::{MAX_FAILED_JOBS, ScoreError};
use crate::blocking::blocking;
use crate::client::InFlight;
use crate::driver::{Failure, Ticket, Unit};
use crate::events::{Event, Events};
use crate::rows::RowFormat;

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

/// A part that is neither finished nor failed.
struct Part {
    /// Where its rows go when they are read.
    rows: Option<oneshot::Sender<Rows>>,
    /// Whether a job of it is in flight, or about to be.
    busy: bool,
}

pub(super) struct Run<B: Broker, S: OwnerStore> {
    scoring: Arc<Scoring<B, S>>,
    events: Events,
    in_flight: usize,
    input: Option<Input>,
    next_part: u64,
    parts: HashMap<u64, Part>,
    tasks: JoinSet<Result<Ended, ScoreError>>,
    /// Parts of an earlier run of which no job is counted on, until their rows are read.
    idle: (mpsc::UnboundedSender<u64>, mpsc::UnboundedReceiver<u64>),
    outcome: Outcome,
}

impl<B: Broker, S: OwnerStore> Run<B, S> {
    /// Takes up what an earlier run left, and begins to read replies.
    pub(super) fn new(
        mut scoring: Scoring<B, S>,
        past: Past,
        republish: bool,
        in_flight: usize,
        events: Events,
    ) -> Result<Self, ScoreError> {
        let Past { finished, failed, unanswered } = past;
        let header = scoring.ledger.header();
        let scored = (0..header.parts()).filter(|part| finished.contains(*part));
        let scored = scored.map(|part| header.part_rows(part)).sum();
        let failed_rows = failed.keys().map(|part| header.part_rows(*part)).sum();
        let mut units = Vec::with_capacity(unanswered.len());
        for (part, jobs) in unanswered {
            units.push((part, earlier_unit(&scoring, &jobs, republish)?));
        }
        scoring.driver.listen();
        let totals = Totals { scored_before: scored, failed: failed_rows, ..Totals::default() };
        let mut run = Self {
            scoring: Arc::new(scoring),
            events,
            in_flight,
            input: None,
            next_part: 0,
            parts: HashMap::new(),
            tasks: JoinSet::new(),
            idle: mpsc::unbounded_channel(),
            outcome: Outcome { finished, failed, totals },
        };
        let unanswered = units.iter().filter(|(_, unit)| unit.awaits()).count();
        for (part, unit) in units {
            run.begin(part, unit);
        }
        if scored > 0 || unanswered > 0 {
            run.events.tell(Event::Resumed { scored, unanswered });
        }
        for (part, Failure { reason, .. }) in &run.outcome.failed {
            let rows = run.scoring.ledger.header().part_rows(*part);
            run.events.tell(Event::Failed { rows, reason: reason.clone() });
        }
        Ok(run)
    }

    /// Until every part is finished or failed.
    pub(super) async fn run(
        mut self,
        path: &Path,
        format: RowFormat,
    ) -> Result<Outcome, ScoreError> {
        let in_input = |source| ScoreError::Input { path: path.to_owned(), source };
        let (opened, encryption) = (path.to_owned(), Arc::clone(&self.scoring.encryption));
        let input = blocking(move || Input::open(&opened, encryption.model(), format)).await?;
        self.input = Some(input.map_err(in_input)?);
        loop {
            while self.has_room() {
                self.read_part().await?.map_err(in_input)?;
            }
            tokio::select! {
                ended = self.tasks.join_next() => match ended {
                    Some(ended) => self.take(ended??)?,
                    None => break,
                },
                Some(part) = self.idle.1.recv() => {
                    if let Some(entry) = self.parts.get_mut(&part) {
                        // Its rows may have come meanwhile, and are on their way then.
                        entry.busy = entry.rows.is_none();
                    }
                }
            }
        }
        self.check_input().await?.map_err(in_input)?;
        Ok(self.outcome)
    }

    fn has_room(&self) -> bool {
        let busy = self.parts.values().filter(|part| part.busy).count();
        self.next_part < self.scoring.ledger.header().parts() && busy < self.in_flight
    }

    /// Begins with a part, whose rows come later.
    fn begin(&mut self, part: u64, unit: Unit<B, S>) {
        let (sender, rows) = oneshot::channel();
        self.parts.insert(part, Part { rows: Some(sender), busy: unit.awaits() });
        let (scoring, idle) = (Arc::clone(&self.scoring), self.idle.0.clone());
        self.tasks.spawn(scoring.part(part, unit, rows, idle));
    }

    /// Reads the rows of the next part, and gives them to whoever publishes them.
    async fn read_part(&mut self) -> Result<Result<(), InputError>, ScoreError> {
        let Some(mut input) = self.input.take() else { return Ok(Ok(())) };
        let part = self.next_part;
        let count = self.scoring.ledger.header().part_rows(part);
        let encryption = Arc::clone(&self.scoring.encryption);
        let read = move || {
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            let rows = input.take_admitted(encryption.model(), count);
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
            return Ok(Ok(()));
        }
        if !self.parts.contains_key(&part) {
            self.begin(part, self.scoring.unit());
        }
        if let Some(entry) = self.parts.get_mut(&part) {
            entry.busy = true;
            // Who has ended since needs none.
            let _ = entry.rows.take().map(|sender| sender.send(rows));
        }
        Ok(Ok(()))
    }

    /// Takes note of what became of a part.
    fn take(&mut self, ended: Ended) -> Result<(), ScoreError> {
        let Ended { part, end, jobs } = ended;
        self.parts.remove(&part);
        self.outcome.totals.published += u64::from(jobs.published);
        self.outcome.totals.published_again += u64::from(jobs.again);
        let rows = self.scoring.ledger.header().part_rows(part);
        let Err(failure) = end else {
            self.outcome.finished.insert(part);
            self.events.tell(Event::Scored { rows });
            return Ok(());
        };
        self.outcome.totals.failed += rows;
        let Failure { job, reason } = failure.clone();
        self.events.tell(Event::Failed { rows, reason: reason.clone() });
        self.outcome.failed.insert(part, failure);
        match self.outcome.failed.len() > MAX_FAILED_JOBS {
            true => Err(ScoreError::TooManyFailures { job, reason }),
            false => Ok(()),
        }
    }

    /// The second reading must have seen what the first one checked.
    async fn check_input(&mut self) -> Result<Result<(), InputError>, ScoreError> {
        let Some(mut input) = self.input.take() else { return Ok(Ok(())) };
        let expected = self.scoring.ledger.header().input_sha256;
        let check = move || match input.take(1)?.is_empty() && input.sha256() == expected {
            true => Ok(()),
            false => Err(InputError::Changed),
        };
        Ok(blocking(check).await?)
    }
}

/// A part with jobs of an earlier run. The last of them is counted on, if the broker had it.
fn earlier_unit<B: Broker, S: OwnerStore>(
    scoring: &Scoring<B, S>,
    jobs: &[Unanswered],
    republish: bool,
) -> Result<Unit<B, S>, ScoreError> {
    let model_id = scoring.ledger.header().model_id;
    let owner_id = scoring.encryption.owner();
    let unit = scoring.unit();
    for Unanswered { job, payload, receipt, .. } in jobs.iter().copied() {
        unit.expect(InFlight { job, model_id, owner_id, version: None, payload }, receipt)?;
        unit.accept(job);
    }
    if let Some(last) = jobs.last().filter(|job| job.confirmed && !republish) {
        unit.await_answer(Ticket::of_earlier(last.job, last.deadline));
    }
    Ok(unit)
}
