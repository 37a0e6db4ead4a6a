//! Why and when an evaluation ends before it is done.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Instant;

use cipherscore_common::message::{ErrorCode, Timestamp};
use tokio::sync::Notify;

use crate::failure::Failure;

/// Who wants it to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum StopReason {
    /// Somebody cancelled the job.
    Cancelled = 1,
    /// The worker stops.
    Shutdown = 2,
}

/// Looked at between the steps of an evaluation, and waited for by what waits. Clones are one.
#[derive(Debug, Clone)]
pub(crate) struct Stop {
    asked: Arc<Asked>,
    deadline: Option<Instant>,
}

#[derive(Debug, Default)]
struct Asked {
    /// 0, or a [`StopReason`].
    reason: AtomicU8,
    changed: Notify,
}

impl Stop {
    pub(crate) fn new(deadline: Option<Timestamp>) -> Self {
        let left = deadline.map(|deadline| deadline.left(Timestamp::now()));
        // A deadline beyond what the clock can say is none.
        let deadline = left.and_then(|left| Instant::now().checked_add(left));
        Self { asked: Arc::default(), deadline }
    }

    /// Asks for the end. The first reason stays.
    pub(crate) fn ask(&self, reason: StopReason) {
        let order = Ordering::Relaxed;
        let _ = self.asked.reason.compare_exchange(0, reason as u8, order, order);
        self.asked.changed.notify_waiters();
    }

    /// Whether to end now. Cheap enough to ask between bootstraps.
    pub(crate) fn is_asked(&self) -> bool {
        self.asked.reason.load(Ordering::Relaxed) != 0
            || self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Waits until it is time to end.
    pub(crate) async fn asked(&self) {
        loop {
            let changed = self.asked.changed.notified();
            tokio::pin!(changed);
            // From here on no call of `ask` is missed.
            changed.as_mut().enable();
            if self.is_asked() {
                return;
            }
            match self.deadline {
                Some(deadline) => {
                    let _ = tokio::time::timeout_at(deadline.into(), changed).await;
                }
                None => changed.await,
            }
        }
    }

    /// What becomes of a job that was ended.
    pub(crate) fn failure(&self) -> Failure {
        match self.asked.reason.load(Ordering::Relaxed) {
            1 => Failure::refused(ErrorCode::Cancelled, "it was cancelled"),
            2 => Failure::Abandoned,
            _ => Failure::refused(ErrorCode::DeadlineExceeded, "its deadline passed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn it_ends_by_deadline_or_by_word() {
        let stop = Stop::new(Some(Timestamp::now().after(Duration::from_secs(60))));
        assert!(!stop.is_asked());
        let stop = Stop::new(Some(Timestamp::from_millis(1)));
        stop.asked().await;
        assert!(matches!(stop.failure(), Failure::Refused(refusal)
            if refusal.code == ErrorCode::DeadlineExceeded));

        let stop = Stop::new(None);
        let (waits, asks) = (stop.clone(), stop.clone());
        tokio::join!(waits.asked(), async { asks.ask(StopReason::Cancelled) });
        stop.ask(StopReason::Shutdown);
        assert!(matches!(stop.failure(), Failure::Refused(refusal)
            if refusal.code == ErrorCode::Cancelled));
    }
}
