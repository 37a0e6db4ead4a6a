//! One part of the input: what its jobs are made of, and where its results go.

use std::sync::Arc;

use cipherscore_common::broker::Broker;
use cipherscore_common::message::Timestamp;
use cipherscore_common::{Digest, JobId, OwnerStore};
use tokio::sync::{mpsc, oneshot};

use super::ScoreError;
use super::ledger::Ledger;
use super::record::Record;
use crate::blocking::{Interest, blocking};
use crate::client::ClientError;
use crate::driver::{
    Cause, Counts, Driver, Failure, Heard, Journal, NewJob, NoResults, Payload, Sink, Source,
    Taken, Target, Ticket, Unit,
};
use crate::matrix::Matrix;
use crate::model::Encryption;

/// What is done about a part that failed for good.
const NOT_AGAIN: &str = "The same command does not try these rows again, as the worker would see that \
                         its reply was bad; to try them all the same, score to another --output";

/// Rows of a part. Shared with the task that encrypts them.
pub(super) type Rows = Arc<Matrix<f64>>;

/// Everything that parts of a run share.
pub(super) struct Scoring<B: Broker, S: OwnerStore> {
    pub(super) driver: Driver<B, S>,
    pub(super) encryption: Arc<dyn Encryption>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) target: Target,
    /// The run's, without which nothing is encrypted.
    pub(super) interest: Interest,
}

/// What became of a part.
pub(super) struct Ended {
    pub(super) part: u64,
    pub(super) end: Result<(), Failure>,
    pub(super) jobs: Counts,
}

impl<B: Broker, S: OwnerStore> Scoring<B, S> {
    pub(super) fn unit(&self) -> Unit<B, S> {
        self.driver.unit::<PartJournal>()
    }

    /// Takes a part through the queue. Its rows come when they are read; answers to jobs of an
    /// earlier run are taken before. `idle` is told when none of those is counted on any more.
    pub(super) async fn part(
        self: Arc<Self>,
        part: u64,
        mut unit: Unit<B, S>,
        mut rows: oneshot::Receiver<Rows>,
        idle: mpsc::UnboundedSender<u64>,
    ) -> Result<Ended, ScoreError> {
        let sink = self.sink(part);
        let end = loop {
            tokio::select! {
                rows = &mut rows, if !unit.awaits() => {
                    // Without its rows, the run has ended.
                    let rows = rows.map_err(|_| ClientError::ShuttingDown)?;
                    break self.driver.run(&mut unit, &self.source(rows), &sink).await?;
                }
                arrived = unit.next() => match self.driver.take(&unit, &sink, arrived?).await? {
                    Taken::Ended(end) => {
                        unit.close().await;
                        break end;
                    }
                    Taken::Without(without) if without.may_pass() => {
                        self.driver.put_off(&unit, &sink, without).await?;
                        let _ = idle.send(part);
                    }
                    Taken::Without(without) => {
                        break self.driver.fail(&mut unit, &sink, without).await?;
                    }
                    Taken::Nothing => {}
                }
            }
        };
        Ok(Ended { part, end, jobs: unit.counts() })
    }

    fn source(&self, rows: Rows) -> Source<ScoreError> {
        let count = u32::try_from(rows.len()).unwrap_or(u32::MAX);
        let (encryption, stop) = (Arc::clone(&self.encryption), self.interest.is_gone());
        Source {
            target: self.target.clone(),
            payload_bytes: encryption.model().payload_bytes(count),
            make: Arc::new(move || {
                let encrypted = encryption.encrypt_unless(&rows, &stop)?;
                Ok(Payload::new(&*encryption, count, encrypted))
            }),
        }
    }

    fn sink(&self, part: u64) -> Sink<PartJournal> {
        let ledger = Arc::clone(&self.ledger);
        let rows = u32::try_from(ledger.header().part_rows(part)).unwrap_or(u32::MAX);
        let encryption = Arc::clone(&self.encryption);
        Sink {
            read: Arc::new(
                move |outputs, receipt| Ok(encryption.decrypt(&outputs, rows, receipt)?),
            ),
            journal: PartJournal { ledger, part },
        }
    }
}

/// A part in the ledger.
pub(super) struct PartJournal {
    ledger: Arc<Ledger>,
    part: u64,
}

impl Journal for PartJournal {
    type Results = Matrix<i64>;
    type End = Result<(), Failure>;
    type Error = ScoreError;

    const OUTLIVES: bool = true;

    async fn begin(&self, new: NewJob) -> Result<Option<Ticket>, ScoreError> {
        let NewJob { ticket, follows, receipt } = new;
        let (ledger, part) = (Arc::clone(&self.ledger), self.part);
        let deadline_ms = ticket.deadline.map(Timestamp::millis);
        let note = move || {
            let wanted = ledger.submitting(ticket.job, part, deadline_ms, receipt)?;
            if follows {
                ledger.sync()?;
            }
            Ok::<_, ScoreError>(wanted.then_some(ticket))
        };
        blocking(note).await?
    }

    async fn published(&self, job: JobId, payload: Option<Digest>) -> Result<(), ScoreError> {
        let (ledger, part) = (Arc::clone(&self.ledger), self.part);
        let submitted = Record::Submitted { job, part, payload };
        Ok(blocking(move || ledger.append(&submitted)).await??)
    }

    async fn end(
        &self,
        heard: Heard,
        end: Result<Matrix<i64>, NoResults>,
    ) -> Result<Self::End, ScoreError> {
        let (ledger, part, job) = (Arc::clone(&self.ledger), self.part, heard.job);
        let note = move || match end {
            Ok(results) => ledger.finish(job, part, &results).map(Ok),
            Err(NoResults { reason, cause }) => {
                let is_final = matches!(cause, Cause::Final(_));
                let reason = if is_final { format!("{reason}. {NOT_AGAIN}") } else { reason };
                let failed = ledger.fail(job, part, &reason, is_final);
                failed.map(|()| Err(Failure { job, reason }))
            }
        };
        Ok(blocking(note).await??)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

    use cipherscore_common::ModelId;

    use super::*;
    use crate::model::Receipt;
    use crate::score::record::{FORMAT_VERSION, Header};

    fn open(folder: &std::path::Path) -> (Arc<Ledger>, crate::score::past::Past) {
        let digest = Digest::from_bytes([0; 32]);
        let header = Header {
            format_version: FORMAT_VERSION,
            model_id: ModelId::new(digest),
            evaluation_key_id: None,
            form: None,
            client_key_sha256: digest,
            tenant: "tenant".parse().unwrap(),
            input_sha256: digest,
            reading: None,
            rows: 3,
            rows_per_job: 1,
            outputs: 1,
            client: "client".into(),
        };
        let (ledger, past) = Ledger::open(folder, header, true).unwrap();
        (Arc::new(ledger), past)
    }

    #[tokio::test]
    async fn the_ledger_tells_the_next_run_what_became_of_each_part() {
        let folder = tempfile::TempDir::new().unwrap();
        let (ledger, _) = open(folder.path());
        let payload = Digest::from_bytes([7; 32]);
        let mut tickets = Vec::new();
        let receipt = Some(Receipt(Digest::from_bytes([5; 32])));
        for part in 0..3 {
            let journal = PartJournal { ledger: Arc::clone(&ledger), part };
            let ticket = Ticket::of_earlier(JobId::random(), Some(Timestamp::from_millis(9)));
            let begun =
                journal.begin(NewJob { ticket, follows: part == 1, receipt }).await.unwrap();
            assert_eq!(begun, Some(ticket));
            journal.published(ticket.job, Some(payload)).await.unwrap();
            let heard = Heard { job: ticket.job, worker: None };
            let end = match part {
                0 => Some(Ok(Matrix::new(1, vec![5]))),
                1 => Some(Err(NoResults { reason: "why not".into(), cause: Cause::Outputs })),
                _ => None,
            };
            if let Some(end) = end {
                let failure = Failure { job: ticket.job, reason: "why not".into() };
                let expected = if end.is_ok() { Ok(()) } else { Err(failure) };
                assert_eq!(journal.end(heard, end).await.unwrap(), expected);
            }
            tickets.push(ticket);
        }
        let late = PartJournal { ledger: Arc::clone(&ledger), part: 0 };
        let new = NewJob { ticket: tickets[2], follows: false, receipt: None };
        assert_eq!(late.begin(new).await.unwrap(), None, "the part has its results");
        drop((late, ledger));

        let (ledger, past) = open(folder.path());
        assert!(past.finished.contains(0) && !past.finished.contains(1));
        assert_eq!(ledger.results(0).unwrap().values(), [5]);
        let unanswered: Vec<_> = past.unanswered.into_iter().collect();
        let [(2, jobs)] = unanswered.as_slice() else { panic!("{unanswered:?}") };
        assert_eq!((jobs[0].job, jobs[0].payload), (tickets[2].job, Some(payload)));
        assert_eq!((jobs[0].deadline, jobs[0].confirmed), (tickets[2].deadline, true));
        assert_eq!(jobs[0].receipt, receipt);
    }
}
