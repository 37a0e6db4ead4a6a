//! What a data owner needs of a store.

use std::future::Future;

use super::marks::MarkStore;
use super::{BlobStore, StoreError};
use crate::{JobId, Tenant};

/// Evaluation keys and payloads, and jobs that are taken back: what a data owner needs of a store, and
/// no more. Every store with marks is one.
pub trait OwnerStore: BlobStore + 'static {
    /// Whether it answers, and lets this tenant in.
    fn check(&self, tenant: &Tenant) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Asks the workers not to evaluate a job.
    fn cancel(
        &self,
        tenant: &Tenant,
        job: JobId,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}

impl<S: BlobStore + MarkStore + 'static> OwnerStore for S {
    /// By asking for something small.
    async fn check(&self, tenant: &Tenant) -> Result<(), StoreError> {
        self.marks(tenant, JobId::random()).await.map(drop)
    }

    async fn cancel(&self, tenant: &Tenant, job: JobId) -> Result<(), StoreError> {
        self.mark_cancelled(tenant, job).await
    }
}
