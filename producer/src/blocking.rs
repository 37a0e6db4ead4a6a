//! What computes, or waits for a disk, beside the async runtime.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::JoinError;

/// Runs it on a thread of its own.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    tokio::task::spawn_blocking(work).await
}

/// Held by whoever waits for work on other threads, which a dropped future does not end. When this
/// is dropped, the work may stop.
#[derive(Default)]
pub(crate) struct Interest(Arc<AtomicBool>);

impl Interest {
    /// For the work: whether nobody waits for it any more.
    pub(crate) fn is_gone(&self) -> impl Fn() -> bool + Send + Sync + 'static + use<> {
        let gone = Arc::clone(&self.0);
        move || gone.load(Ordering::Relaxed)
    }
}

impl Drop for Interest {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
