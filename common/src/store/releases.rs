//! How much was said about hidden models, by evaluation key.

use std::future::Future;
use std::time::Duration;

use super::StoreError;
use crate::{EvaluationKeyId, Tenant};

/// How long it is remembered what was released under a key, after the last time: longer than keys
/// are used.
pub const RELEASED_LEASE: Duration = Duration::from_secs(400 * 24 * 60 * 60);

/// Counts coefficients of hidden replies. Cheap to share: every method takes `&self`.
pub trait ReleaseStore: Send + Sync {
    /// Counts coefficients of hidden replies that were computed under an evaluation key, repeated
    /// ones included; returns how many there were in all. What replies say about a hidden model
    /// beyond its scores grows with them.
    fn count_released(
        &self,
        tenant: &Tenant,
        key: EvaluationKeyId,
        coefficients: u64,
    ) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// How many coefficients were released under an evaluation key.
    fn released(
        &self,
        tenant: &Tenant,
        key: EvaluationKeyId,
    ) -> impl Future<Output = Result<u64, StoreError>> + Send;
}
