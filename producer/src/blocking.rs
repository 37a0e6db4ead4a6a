//! What computes, or waits for a disk, beside the async runtime.

use tokio::task::JoinError;

/// Runs it on a thread of its own.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    tokio::task::spawn_blocking(work).await
}
