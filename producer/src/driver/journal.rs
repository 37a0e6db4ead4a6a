//! What is kept of jobs, and where: the seam between the driver and whoever uses it.

use std::time::Duration;

use cipherscore_common::message::{ErrorCode, Timestamp};
use cipherscore_common::{Digest, JobId, StoreError};
use tokio::task::JoinError;
use tokio::time::Instant;

use super::due_in;
use crate::client::ClientError;
use crate::key_folder::KeyFolderError;
use crate::model::{Finality, Receipt};

/// A job that is about to be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    /// Which job.
    pub(crate) job: JobId,
    /// When workers leave it alone.
    pub(crate) deadline: Option<Timestamp>,
    /// When its reply is not waited for any more.
    pub(crate) due: Option<Instant>,
}

impl Ticket {
    /// A new job with so much time.
    pub(super) fn new(time: Option<Duration>) -> Self {
        let deadline = time.map(|time| Timestamp::now().after(time));
        Self { job: JobId::random(), deadline, due: time.and_then(due_in) }
    }

    /// A job of an earlier process. A reply that came in time may have waited in the queue since.
    pub(crate) fn of_earlier(job: JobId, deadline: Option<Timestamp>) -> Self {
        let due = deadline.and_then(|deadline| due_in(deadline.left(Timestamp::now())));
        Self { job, deadline, due }
    }
}

/// A job whose payload is made, and that is to be kept before it is published.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewJob {
    /// Id and deadline, unless the journal says others.
    pub(crate) ticket: Ticket,
    /// Whether it follows a job that was answered, and whose reply goes when this one is in the
    /// journal.
    pub(crate) follows: bool,
    /// What its outputs are read with: to be kept with it.
    pub(crate) receipt: Option<Receipt>,
}

/// The last thing that was heard of a unit's job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Heard {
    /// Which job.
    pub(crate) job: JobId,
    /// Which worker answered it, if one did.
    pub(crate) worker: Option<String>,
}

/// Keeps what a unit's jobs are and what came of them, so that a process that ends at any point can
/// be gone on with: as a ledger, as a note, or not at all.
pub(crate) trait Journal: Send + Sync {
    /// Results of a unit, as they are read from outputs.
    type Results: Send + 'static;
    /// What remains of a unit when it has ended.
    type End: Send;
    /// Why nothing can be kept, and whatever else ends the process.
    type Error: From<ClientError>
        + From<KeyFolderError>
        + From<StoreError>
        + From<JoinError>
        + Send
        + 'static;

    /// Whether jobs are waited for by a later process. If not, those of a unit that is dropped are
    /// taken back.
    const OUTLIVES: bool;

    /// A job is about to be published. Returns the one that is: `new`, or one of an earlier process
    /// under its id; none when the unit has ended meanwhile. On return it is kept; where it follows
    /// another, durably.
    fn begin(
        &self,
        new: NewJob,
    ) -> impl Future<Output = Result<Option<Ticket>, Self::Error>> + Send;

    /// The broker has a job, and the store its payload, if it is there.
    fn published(
        &self,
        job: JobId,
        payload: Option<Digest>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// A unit ends by a job, with results, or with the reason why there are none. On return that is
    /// durable: the reply goes then, and not before.
    fn end(
        &self,
        heard: Heard,
        end: Result<Self::Results, NoResults>,
    ) -> impl Future<Output = Result<Self::End, Self::Error>> + Send;
}

/// Why a unit ends without results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NoResults {
    pub(crate) reason: String,
    pub(crate) cause: Cause,
}

/// What keeps rows from results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The reply to the last job says so.
    Refused(ErrorCode),
    /// There was no reply by the deadline of the last job.
    Overdue,
    /// The store lost the outputs.
    Lost,
    /// The outputs are none.
    Outputs,
    /// Nothing that a worker could see may follow, and no later process may try the same rows either.
    Final(Finality),
}

/// Why a unit has no results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The last job that was made of it.
    pub(crate) job: JobId,
    pub(crate) reason: String,
}
