//! Marks on jobs: small, short-lived, beside the blobs.

use std::future::Future;
use std::time::Duration;

use super::StoreError;
use crate::{JobId, Tenant};

/// How long a job stays marked as done: longer than a broker takes to deliver it again.
pub const DONE_LEASE: Duration = Duration::from_secs(60 * 60);
/// How long a job stays marked as cancelled: as long as one may wait in a queue.
pub const CANCEL_LEASE: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How long it is remembered how often a job was begun alone: longer than the broker takes to
/// deliver it again and again.
pub const ALONE_LEASE: Duration = Duration::from_secs(24 * 60 * 60);
/// What is marked on a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Marks {
    /// Its reply is at the broker.
    pub done: bool,
    /// Somebody does not want it any more.
    pub cancelled: bool,
}

/// Keeps marks. Cheap to share: every method takes `&self`.
pub trait MarkStore: Send + Sync {
    /// What is marked on a job.
    fn marks(
        &self,
        tenant: &Tenant,
        job: JobId,
    ) -> impl Future<Output = Result<Marks, StoreError>> + Send;

    /// Marks a job as done, for [`DONE_LEASE`].
    fn mark_done(
        &self,
        tenant: &Tenant,
        job: JobId,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Marks a job as cancelled, for [`CANCEL_LEASE`].
    fn mark_cancelled(
        &self,
        tenant: &Tenant,
        job: JobId,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Which of these jobs are cancelled, in their order.
    fn cancelled(
        &self,
        jobs: &[(Tenant, JobId)],
    ) -> impl Future<Output = Result<Vec<bool>, StoreError>> + Send;

    /// Adds to what a job that came back is blamed with, since it is begun once more, alone;
    /// returns all of it. Forgotten after [`ALONE_LEASE`].
    fn blame(
        &self,
        tenant: &Tenant,
        job: JobId,
        more: u32,
    ) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Takes back some of it: the worker did not die of the job. Less than nothing is nothing, as
    /// where the store has forgotten it.
    fn forgive(
        &self,
        tenant: &Tenant,
        job: JobId,
        less: u32,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}
