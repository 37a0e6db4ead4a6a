//! Marks on jobs, and who works: small, short-lived, beside the blobs.

use std::future::Future;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::{JobId, Tenant};

/// How long a job stays marked as done: longer than a broker takes to deliver it again.
pub const DONE_LEASE: Duration = Duration::from_secs(60 * 60);
/// How long a job stays marked as cancelled: as long as one may wait in a queue.
pub const CANCEL_LEASE: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How long a worker that says nothing more is still listed.
pub const PRESENCE_LEASE: Duration = Duration::from_secs(30);

/// What is marked on a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Marks {
    /// Its reply is at the broker.
    pub done: bool,
    /// Somebody does not want it any more.
    pub cancelled: bool,
}

/// A worker, as it describes itself to `cipherscore status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Presence {
    /// Which worker.
    pub worker: String,
    /// Version of its program.
    pub version: String,
    /// When it started, in milliseconds since 1970.
    pub started_ms: u64,
    /// Its models.
    pub models: Vec<crate::ModelId>,
    /// Jobs that it evaluates at a time.
    pub slots: usize,
    /// Jobs that it has now.
    pub jobs: usize,
    /// Jobs that it has answered.
    pub answered: u64,
    /// Memory of the evaluation keys that it holds prepared, in bytes.
    pub key_cache_bytes: u64,
}

/// Keeps marks and presences.
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

    /// Lists this worker for [`PRESENCE_LEASE`].
    fn announce(&self, presence: &Presence) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Takes this worker off the list.
    fn leave(&self, worker: &str) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// The workers that are listed, by name.
    fn workers(&self) -> impl Future<Output = Result<Vec<Presence>, StoreError>> + Send;
}
