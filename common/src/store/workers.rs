//! Who works: each worker announces itself until it leaves.

use std::future::Future;

use super::StoreError;
use super::presence::Presence;
use crate::worker_name::is_worker_name;

/// Refuses a name that no worker has.
pub(super) fn check_worker_name(name: &str) -> Result<(), StoreError> {
    is_worker_name(name).then_some(()).ok_or(StoreError::InvalidPresence)
}

/// Keeps the list of workers. Cheap to share: every method takes `&self`.
pub trait PresenceStore: Send + Sync {
    /// Lists this worker for [`PRESENCE_LEASE`](crate::PRESENCE_LEASE).
    fn announce(&self, presence: &Presence) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Takes this worker off the list, if it is on it.
    fn leave(&self, worker: &str) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// The workers that are listed, by name; at most
    /// [`MAX_LISTED_WORKERS`](crate::MAX_LISTED_WORKERS).
    fn workers(&self) -> impl Future<Output = Result<Vec<Presence>, StoreError>> + Send;
}
