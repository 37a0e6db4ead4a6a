//! Takes jobs through the queue: published, awaited, remedied and published again, until each unit
//! has results, or a reason why it has none.
//!
//! A unit is what one job has: a part of a [file](crate::score), a part of a
//! [call](crate::stream), or the files of a [submission](crate::submit). They differ in where a
//! payload comes from and how outputs are read ([`Source`], [`Sink`]), and in what outlives the
//! process ([`Journal`]); the way is the same.
//!
//! 1. The payload is made, and the evaluation key is seen to.
//! 2. The journal has the job. The reply to the job before goes.
//! 3. The broker has the job, and the journal notes that.
//! 4. Its reply comes. Results become durable in the journal, and then, and not before, the message
//!    goes. Without results, [`Remedy`] says whether a new job may have some: on to 1.
//!
//! Results of any job of a unit will do, and the first ones win. Where none comes by the deadline,
//! the next job is made, and the one before is still accepted.

mod ends;
mod inboxes;
mod journal;
mod remedy;
mod room;
#[cfg(test)]
mod tests;
mod unit;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use cipherscore_common::broker::Broker;
use cipherscore_common::message::ErrorCode;
use cipherscore_common::{Blob, EvaluationKeyId, FormName, JobId, Lease, ModelId, OwnerStore};
use tokio::task::JoinSet;
use tokio::time::Instant;

pub(crate) use self::ends::{Payload, Read, Sink, Source, Unreadable};
use self::inboxes::Inboxes;
pub use self::journal::Cause;
pub(crate) use self::journal::{Failure, Heard, Journal, NewJob, NoResults, Ticket};
use self::remedy::{MAX_JOBS_OF_UNIT, Remedy};
use self::room::PayloadRoom;
use self::unit::Jobs;
pub(crate) use self::unit::{Arrived, Counts, Unit};
use crate::blocking::blocking;
use crate::client::{Answer, Client, ClientError, JobRequest, Received};
use crate::evaluation_keys::{EvaluationKeys, KeySource, KeyStep};
use crate::events::{Event, Events};

/// How long after its deadline a reply may still come.
const REPLY_GRACE: Duration = Duration::from_secs(30);

/// When a reply to a job with so much time is not waited for any more, by a clock that nobody sets:
/// were it the time of day, a jump of it would have every job published again. Never, where that is
/// beyond what the clock can say.
fn due_in(time: Duration) -> Option<Instant> {
    Instant::now().checked_add(time.saturating_add(REPLY_GRACE))
}

/// Which model jobs name, and with which key it is evaluated.
#[derive(Debug, Clone)]
pub struct Target {
    /// The model.
    pub model_id: ModelId,
    /// The form that rows are encrypted in; none of a model that can have one only.
    pub form: Option<FormName>,
    /// The evaluation key of that form, unless it needs none.
    pub key: Option<(EvaluationKeyId, KeySource)>,
}

/// What came of something that arrived.
pub(crate) enum Taken<B: Broker, S: OwnerStore, End> {
    /// The unit has ended.
    Ended(End),
    /// The job that was counted on has no results.
    Without(Box<Without<B, S>>),
    /// Nothing that the unit needs.
    Nothing,
}

/// A job without results.
pub(crate) struct Without<B: Broker, S: OwnerStore> {
    job: JobId,
    reason: String,
    cause: Cause,
    /// How a new job may be tried, if it may.
    step: Option<KeyStep>,
    /// Its reply, if one came.
    received: Option<Box<Received<B, S>>>,
}

impl<B: Broker, S: OwnerStore> Without<B, S> {
    /// Whether a new job may have results.
    pub(crate) fn may_pass(&self) -> bool {
        self.step.is_some()
    }
}

/// How the next job of a unit is made.
struct Next<B: Broker, S: OwnerStore> {
    step: KeyStep,
    /// The reply to the job before, which can go when this one is in the journal.
    replaces: Option<Box<Received<B, S>>>,
}

/// Publishes jobs of units and gives each unit its answers.
pub(crate) struct Driver<B: Broker, S: OwnerStore> {
    client: Client<B, S>,
    keys: EvaluationKeys<B, S>,
    /// Payloads that are encrypted and not yet at the broker or in the store.
    payloads: PayloadRoom,
    inboxes: Arc<Inboxes<B, S>>,
    /// Between a job's making and its deadline.
    job_time: Option<Duration>,
    events: Events,
    /// Reads replies. Ends with this.
    tasks: JoinSet<()>,
}

impl<B: Broker, S: OwnerStore> Driver<B, S> {
    /// Does nothing before [`Driver::listen`].
    pub(crate) fn new(
        client: Client<B, S>,
        key_lease: Lease,
        job_time: Option<Duration>,
        events: Events,
    ) -> Self {
        Self {
            keys: EvaluationKeys::new(client.clone(), key_lease),
            payloads: PayloadRoom::new(),
            inboxes: Inboxes::new(client.clone(), events.clone()),
            client,
            job_time,
            events,
            tasks: JoinSet::new(),
        }
    }

    /// Begins to read replies. Those to jobs that no unit expects are dropped.
    pub(crate) fn listen(&mut self) {
        self.inboxes.listen(&mut self.tasks);
    }

    /// A unit that keeps its jobs as `J` does.
    pub(crate) fn unit<J: Journal>(&self) -> Unit<B, S> {
        Unit::new(Arc::clone(&self.inboxes), J::OUTLIVES)
    }

    /// Sees to an evaluation key before any job needs it.
    pub(crate) async fn prepare_key<J: Journal>(&self, target: &Target) -> Result<(), J::Error> {
        self.keys.prepare(target.key.as_ref(), KeyStep::Once).await
    }

    /// Renews an evaluation key's lease, whatever this process has put into the store before.
    pub(crate) async fn renew_key<J: Journal>(&self, target: &Target) -> Result<(), J::Error> {
        self.keys.prepare(target.key.as_ref(), KeyStep::Ensure(Instant::now())).await
    }

    /// Puts an evaluation key that is at hand into the store.
    pub(crate) async fn put_key(&self, key: &Blob) -> Result<EvaluationKeyId, ClientError> {
        self.keys.put(key).await
    }

    /// Makes jobs of a unit until one has results, or none can be expected to.
    pub(crate) async fn run<J: Journal>(
        &self,
        unit: &mut Unit<B, S>,
        source: &Source<J::Error>,
        sink: &Sink<J>,
    ) -> Result<J::End, J::Error> {
        let mut next = Next { step: KeyStep::Once, replaces: None };
        loop {
            let without = match self.round(unit, source, sink, next).await? {
                Ok(end) => {
                    unit.close().await;
                    return Ok(end);
                }
                Err(without) => without,
            };
            match without.step {
                Some(step) if unit.counts().begun < MAX_JOBS_OF_UNIT => {
                    self.tell_again(unit, without.reason);
                    next = Next { step, replaces: without.received };
                }
                _ => return self.fail(unit, sink, without).await,
            }
        }
    }

    /// One job, from its payload to its answer.
    async fn round<J: Journal>(
        &self,
        unit: &mut Unit<B, S>,
        source: &Source<J::Error>,
        sink: &Sink<J>,
        next: Next<B, S>,
    ) -> Result<Result<J::End, Box<Without<B, S>>>, J::Error> {
        let mut early = None;
        {
            let Unit { jobs, inbox } = &mut *unit;
            let jobs = &*jobs;
            // Jobs before this one may be answered meanwhile.
            let may_be_early = jobs.accepts_any();
            let mut publishing = pin!(self.publish(jobs, source, sink, next));
            loop {
                tokio::select! {
                    published = &mut publishing => break published?,
                    reply = inbox.reply(), if may_be_early && early.is_none() => {
                        match self.take_for(jobs, sink, reply?).await? {
                            Taken::Ended(end) => early = Some(Ok(end)),
                            Taken::Without(without) => early = Some(Err(without)),
                            Taken::Nothing => {}
                        }
                    }
                }
            }
        }
        if let Some(early) = early {
            return Ok(early);
        }
        loop {
            let arrived = unit.next().await?;
            match self.take(unit, sink, arrived).await? {
                Taken::Ended(end) => return Ok(Ok(end)),
                Taken::Without(without) => return Ok(Err(without)),
                Taken::Nothing => {}
            }
        }
    }

    /// Makes and publishes a job. Returns when the broker has it, or when the unit has ended
    /// meanwhile, and it is not published.
    async fn publish<J: Journal>(
        &self,
        jobs: &Jobs<B, S>,
        source: &Source<J::Error>,
        sink: &Sink<J>,
        next: Next<B, S>,
    ) -> Result<(), J::Error> {
        let ticket = Ticket::new(self.job_time);
        jobs.begin(ticket);
        let Target { model_id, form, key } = &source.target;
        let _room = self.payloads.take(source.payload_bytes).await;
        let make = Arc::clone(&source.make);
        let (payload, ()) = tokio::try_join!(
            async { blocking(move || make()).await? },
            self.keys.prepare::<J::Error>(key.as_ref(), next.step),
        )?;
        let follows = next.replaces.is_some();
        let receipt = payload.receipt;
        let ticket = sink.journal.begin(NewJob { ticket, follows, receipt }).await?;
        if let Some(received) = next.replaces {
            received.ack().await;
        }
        let Some(ticket) = ticket else { return Ok(()) };
        jobs.publish(ticket, *model_id, receipt)?;
        let request = JobRequest {
            id: ticket.job,
            model_id: *model_id,
            form: *form,
            planned: payload.planned,
            key_id: key.as_ref().map(|(id, _)| *id),
            owner_id: payload.owner,
            rows: payload.rows,
            deadline: ticket.deadline,
            correlation_id: None,
            payload: payload.bytes,
        };
        let in_flight = self.client.submit(request).await?;
        sink.journal.published(ticket.job, in_flight.payload).await?;
        jobs.published();
        self.events.tell(Event::Published { job: ticket.job, rows: payload.rows.into() });
        Ok(())
    }

    /// Takes what arrived for a unit.
    pub(crate) async fn take<J: Journal>(
        &self,
        unit: &Unit<B, S>,
        sink: &Sink<J>,
        arrived: Arrived<B, S>,
    ) -> Result<Taken<B, S, J::End>, J::Error> {
        self.take_for(&unit.jobs, sink, arrived).await
    }

    async fn take_for<J: Journal>(
        &self,
        jobs: &Jobs<B, S>,
        sink: &Sink<J>,
        arrived: Arrived<B, S>,
    ) -> Result<Taken<B, S, J::End>, J::Error> {
        let mut received = match arrived {
            Arrived::Reply(received) => received,
            Arrived::Overdue(job) => {
                jobs.give_up(job);
                let (reason, step) = ("not answered by its deadline".into(), Some(KeyStep::Once));
                let without = Without { job, reason, cause: Cause::Overdue, step, received: None };
                return Ok(Taken::Without(Box::new(without)));
            }
        };
        let job = received.job;
        let (reason, cause, remedy) = match received.take_answer() {
            Answer::Scored(outputs) => {
                let (read, receipt) = (Arc::clone(&sink.read), jobs.receipt(job));
                match blocking(move || read(outputs, receipt)).await? {
                    Ok(results) => return Self::end(jobs, sink, received, Ok(results)).await,
                    // Whichever job it answers, what follows is what follows results.
                    Err(Unreadable::Final(reason, finality)) => {
                        let none = NoResults { reason, cause: Cause::Final(finality) };
                        return Self::end(jobs, sink, received, Err(none)).await;
                    }
                    Err(Unreadable::NoLog(error)) => {
                        // Where there is a later process, it gets the reply.
                        if !J::OUTLIVES {
                            jobs.answered(job);
                            received.ack().await;
                        }
                        return Err(error.into());
                    }
                    Err(Unreadable::Passing(reason)) => (reason, Cause::Outputs, Remedy::Again),
                }
            }
            Answer::Failed { code: code @ ErrorCode::UnsupportedVersion, reason } => {
                let (reason, remedy) = other_version(&received, &reason);
                (reason, Cause::Refused(code), remedy)
            }
            Answer::Failed { code, reason } => {
                (format!("{code}: {reason}"), Cause::Refused(code), Remedy::of(code))
            }
            Answer::Lost { reason } => {
                (format!("the outputs are lost: {reason}"), Cause::Lost, Remedy::Again)
            }
        };
        let Some(published) = jobs.answered(job) else {
            received.ack().await;
            return Ok(Taken::Nothing);
        };
        let (step, received) = (remedy.key_step(published), Some(received));
        Ok(Taken::Without(Box::new(Without { job, reason, cause, step, received })))
    }

    /// A unit ends by a reply.
    async fn end<J: Journal>(
        jobs: &Jobs<B, S>,
        sink: &Sink<J>,
        received: Box<Received<B, S>>,
        end: Result<J::Results, NoResults>,
    ) -> Result<Taken<B, S, J::End>, J::Error> {
        let end = sink.journal.end(heard(&received), end).await?;
        jobs.answered(received.job);
        received.ack().await;
        Ok(Taken::Ended(end))
    }

    /// Lets go of a job of an earlier process whose rows are not here yet: they are published when
    /// they are. Nothing but the journal would tell the next process that no answer comes.
    pub(crate) async fn put_off<J: Journal>(
        &self,
        unit: &Unit<B, S>,
        sink: &Sink<J>,
        without: Box<Without<B, S>>,
    ) -> Result<(), J::Error> {
        self.tell_again(unit, without.reason);
        if let Some(received) = without.received {
            let reason = "to be encrypted again".to_owned();
            let none = NoResults { reason, cause: without.cause };
            sink.journal.end(heard(&received), Err(none)).await?;
            received.ack().await;
        }
        Ok(())
    }

    /// A unit ends without results.
    pub(crate) async fn fail<J: Journal>(
        &self,
        unit: &mut Unit<B, S>,
        sink: &Sink<J>,
        without: Box<Without<B, S>>,
    ) -> Result<J::End, J::Error> {
        let Without { job, reason, cause, received, .. } = *without;
        let heard =
            received.as_ref().map_or(Heard { job, worker: None }, |received| heard(received));
        let end = sink.journal.end(heard, Err(NoResults { reason, cause })).await?;
        if let Some(received) = received {
            received.ack().await;
        }
        unit.close().await;
        Ok(end)
    }

    fn tell_again(&self, unit: &Unit<B, S>, reason: String) {
        unit.jobs.again();
        self.events.tell(Event::PublishedAgain { reason });
    }
}

fn heard<B: Broker, S: OwnerStore>(received: &Received<B, S>) -> Heard {
    Heard { job: received.job, worker: Some(received.worker.clone()) }
}

/// What is done about a job whose version its worker does not speak: the next one is written in an
/// older version, if there is one.
fn other_version<B: Broker, S: OwnerStore>(
    received: &Received<B, S>,
    reason: &str,
) -> (String, Remedy) {
    let code = ErrorCode::UnsupportedVersion;
    match received.speak_older() {
        Some(older) => {
            let next = format!(
                "jobs of this model are written in protocol version {} now",
                older.number()
            );
            (format!("{code}: {reason}; {next}"), Remedy::Again)
        }
        None => (format!("{code}: {reason}"), Remedy::of(code)),
    }
}
