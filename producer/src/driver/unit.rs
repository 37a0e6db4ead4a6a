//! A unit and its jobs.

use std::collections::HashMap;
use std::sync::Arc;

use cipherscore_common::broker::Broker;
use cipherscore_common::{JobId, ModelId, OwnerStore};
use parking_lot::{Mutex, MutexGuard};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, sleep_until};

use super::inboxes::{Inboxes, Message};
use super::journal::Ticket;
use crate::client::{Client, ClientError, InFlight, Received};
use crate::model::Receipt;

/// Something that concerns a unit.
pub(crate) enum Arrived<B: Broker, S: OwnerStore> {
    /// A reply to one of its jobs.
    Reply(Box<Received<B, S>>),
    /// The job that is awaited was not answered by its deadline.
    Overdue(JobId),
}

/// What one job has: rows, or the files of a submission. Dropped before its end, its jobs are left
/// to a later process, or taken back when none comes.
pub(crate) struct Unit<B: Broker, S: OwnerStore> {
    pub(super) jobs: Jobs<B, S>,
    pub(super) inbox: Inbox<B, S>,
}

/// What arrives for a unit.
pub(super) struct Inbox<B: Broker, S: OwnerStore>(UnboundedReceiver<Message<B, S>>);

/// Jobs of a unit.
pub(super) struct Jobs<B: Broker, S: OwnerStore> {
    inboxes: Arc<Inboxes<B, S>>,
    inbox: UnboundedSender<Message<B, S>>,
    outlive: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Jobs of earlier processes whose replies are not handed out elsewhere.
    expected: Vec<JobId>,
    /// Jobs whose results will do, the newest last.
    accepted: Vec<JobId>,
    /// The one of them that an answer is counted on. The others were given up, or may never have
    /// reached the broker, or were answered before the process ended: none of them keeps a unit
    /// from being published again.
    awaited: Option<Awaited>,
    counts: Counts,
    /// Of all jobs that have one: outputs of any of them may come.
    receipts: HashMap<JobId, Receipt>,
}

#[derive(Clone, Copy)]
struct Awaited {
    job: JobId,
    due: Option<Instant>,
    published: Instant,
}

/// Jobs of a unit that this process made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Begun.
    pub(crate) begun: u32,
    /// At the broker.
    pub(crate) published: u32,
    /// The same rows once more.
    pub(crate) again: u32,
}

impl<B: Broker, S: OwnerStore> Unit<B, S> {
    pub(super) fn new(inboxes: Arc<Inboxes<B, S>>, outlive: bool) -> Self {
        let (sender, receiver) = unbounded_channel();
        let jobs = Jobs { inboxes, inbox: sender, outlive, state: Mutex::default() };
        Self { jobs, inbox: Inbox(receiver) }
    }

    /// Replies to a job of an earlier process come here. It is to be said before the first reply is
    /// read.
    pub(crate) fn expect(
        &self,
        job: InFlight,
        receipt: Option<Receipt>,
    ) -> Result<(), ClientError> {
        let Jobs { inboxes, inbox, .. } = &self.jobs;
        inboxes.wait_for(job.job, job.model_id, inbox)?;
        inboxes.client.expect(job);
        let mut state = self.jobs.state();
        state.expected.push(job.job);
        state.receipts.extend(receipt.map(|receipt| (job.job, receipt)));
        Ok(())
    }

    /// Results of a job that is expected will do, without its being published again.
    pub(crate) fn accept(&self, job: JobId) {
        self.jobs.state().accepted.push(job);
    }

    /// A job that is accepted is counted on.
    pub(crate) fn await_answer(&self, ticket: Ticket) {
        self.jobs.await_answer(ticket);
    }

    /// Whether any job is counted on.
    pub(crate) fn awaits(&self) -> bool {
        self.jobs.state().awaited.is_some()
    }

    /// Jobs of this process.
    pub(crate) fn counts(&self) -> Counts {
        self.jobs.state().counts
    }

    /// The next thing that concerns it. Dropped midway, nothing is lost.
    pub(crate) async fn next(&mut self) -> Result<Arrived<B, S>, ClientError> {
        let awaited = self.jobs.state().awaited;
        let overdue = async {
            match awaited.and_then(|awaited| Some((awaited.job, awaited.due?))) {
                Some((job, due)) => {
                    sleep_until(due).await;
                    job
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            reply = self.inbox.reply() => reply,
            job = overdue => Ok(Arrived::Overdue(job)),
        }
    }

    /// It has ended: no further answer is wanted.
    pub(crate) async fn close(&mut self) {
        self.inbox.0.close();
        while let Ok(message) = self.inbox.0.try_recv() {
            if let Ok(received) = message {
                self.jobs.answered(received.job);
                received.ack().await;
            }
        }
        let client = self.jobs.inboxes.client.clone();
        take_back(client, self.jobs.forget(), !self.jobs.outlive).await;
    }
}

impl<B: Broker, S: OwnerStore> Drop for Unit<B, S> {
    fn drop(&mut self) {
        let jobs = self.jobs.forget();
        if self.jobs.outlive || jobs.is_empty() {
            return;
        }
        let Ok(runtime) = Handle::try_current() else { return };
        self.inbox.0.close();
        // Nobody looked at them any more, and the broker would keep them.
        let mut unread = Vec::new();
        while let Ok(Ok(received)) = self.inbox.0.try_recv() {
            unread.push(received);
        }
        let client = self.jobs.inboxes.client.clone();
        runtime.spawn(async move {
            let is_unread = |job: &JobId| unread.iter().any(|received| received.job == *job);
            let jobs = jobs.into_iter().filter(|job| !is_unread(job)).collect();
            take_back(client, jobs, true).await;
            for received in unread {
                received.ack().await;
            }
        });
    }
}

/// Waits no more for jobs, and takes their rows out of the store.
async fn take_back<B: Broker, S: OwnerStore>(client: Client<B, S>, jobs: Vec<JobId>, cancel: bool) {
    for job in jobs {
        if cancel {
            // A worker that has not begun has nothing to do; one that has, stops.
            let _ = client.cancel(job).await;
        }
        client.abandon(job).await;
    }
}

impl<B: Broker, S: OwnerStore> Inbox<B, S> {
    /// The next reply. Dropped midway, nothing is lost.
    pub(super) async fn reply(&mut self) -> Result<Arrived<B, S>, ClientError> {
        match self.0.recv().await {
            Some(Ok(received)) => Ok(Arrived::Reply(Box::new(received))),
            Some(Err(reason)) => Err(ClientError::NoReplies(reason)),
            // Its unit has the other end.
            None => Err(ClientError::ShuttingDown),
        }
    }
}

impl<B: Broker, S: OwnerStore> Jobs<B, S> {
    /// A job is made. Until it is known which, it is counted on under this name.
    pub(super) fn begin(&self, ticket: Ticket) {
        self.await_answer(ticket);
        self.state().counts.begun += 1;
    }

    /// A job is about to be published.
    pub(super) fn publish(
        &self,
        ticket: Ticket,
        model_id: ModelId,
        receipt: Option<Receipt>,
    ) -> Result<(), ClientError> {
        self.inboxes.wait_for(ticket.job, model_id, &self.inbox)?;
        let mut state = self.state();
        state.accepted.push(ticket.job);
        state.receipts.extend(receipt.map(|receipt| (ticket.job, receipt)));
        drop(state);
        self.await_answer(ticket);
        Ok(())
    }

    /// What outputs of a job are read with.
    pub(super) fn receipt(&self, job: JobId) -> Option<Receipt> {
        self.state().receipts.get(&job).copied()
    }

    pub(super) fn published(&self) {
        self.state().counts.published += 1;
    }

    pub(super) fn again(&self) {
        self.state().counts.again += 1;
    }

    fn await_answer(&self, Ticket { job, due, .. }: Ticket) {
        self.state().awaited = Some(Awaited { job, due, published: Instant::now() });
    }

    /// Whether results of any job will do.
    pub(super) fn accepts_any(&self) -> bool {
        !self.state().accepted.is_empty()
    }

    /// No further answer to a job comes. Returns when the unit's last job was published, unless
    /// another one is counted on.
    pub(super) fn answered(&self, job: JobId) -> Option<Instant> {
        self.inboxes.forget(job);
        let mut state = self.state();
        state.expected.retain(|other| *other != job);
        state.accepted.retain(|other| *other != job);
        match state.awaited {
            Some(awaited) if awaited.job != job => None,
            awaited => {
                state.awaited = None;
                Some(awaited.map_or_else(Instant::now, |awaited| awaited.published))
            }
        }
    }

    /// A job is counted on no more. An answer to it will do all the same.
    pub(super) fn give_up(&self, job: JobId) {
        let mut state = self.state();
        state.awaited = state.awaited.filter(|awaited| awaited.job != job);
    }

    /// Waits for none of them any more. Returns those without an answer.
    fn forget(&self) -> Vec<JobId> {
        let mut state = self.state();
        let mut jobs = std::mem::take(&mut state.expected);
        jobs.append(&mut state.accepted);
        drop(state);
        jobs.sort_unstable();
        jobs.dedup();
        jobs.iter().for_each(|job| self.inboxes.forget(*job));
        jobs
    }

    /// No code panics while it holds the lock.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}
