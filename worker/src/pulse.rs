//! Signs of life of what must never stand still, for `/livez`.
//!
//! A loop that has nothing to do is alive; one that has begun something and gets nowhere is not.
//! Each limit is far above what the slowest machine takes, since whoever asks restarts the worker.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

/// After what time without a step a computation counts as stuck. The longest step is the
/// preparation of a large evaluation key.
pub(crate) const LONGEST_STEP: Duration = Duration::from_secs(10 * 60);

/// Computations of a pool: whether those that run make steps. All share one clock, since one that waits
/// for a thread of the pool stands still for as long as another one takes.
#[derive(Clone)]
pub(crate) struct Progress(Arc<Steps>);

struct Steps {
    began: Instant,
    /// Milliseconds from `began` to the last step.
    last_ms: AtomicU64,
    running: AtomicUsize,
}

/// A computation that runs.
pub(crate) struct Computation(Progress);

impl Default for Progress {
    fn default() -> Self {
        let (last_ms, running) = (AtomicU64::new(0), AtomicUsize::new(0));
        Self(Arc::new(Steps { began: Instant::now(), last_ms, running }))
    }
}

impl Progress {
    /// A computation begins, and runs until this is dropped.
    pub(crate) fn begin(&self) -> Computation {
        self.step();
        self.0.running.fetch_add(1, Ordering::Relaxed);
        Computation(self.clone())
    }

    /// A computation got further.
    pub(crate) fn step(&self) {
        self.0.last_ms.fetch_max(self.now_ms(), Ordering::Relaxed);
    }

    /// For how long none of those that run has got further; nothing when none runs.
    pub(crate) fn silence(&self) -> Duration {
        match self.0.running.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            _ => Duration::from_millis(
                self.now_ms().saturating_sub(self.0.last_ms.load(Ordering::Relaxed)),
            ),
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.0.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Drop for Computation {
    fn drop(&mut self) {
        self.0.step();
        self.0.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What has begun and not ended, such as messages on their way to the broker: when each began. Clones
/// share it.
#[derive(Default, Clone)]
pub(crate) struct Underway(Arc<Attempts>);

#[derive(Default)]
struct Attempts {
    begun: Mutex<BTreeMap<u64, Instant>>,
    next: AtomicU64,
}

/// One of them.
pub(crate) struct Attempt {
    underway: Underway,
    number: u64,
}

impl Underway {
    /// One begins, and lasts until this is dropped.
    pub(crate) fn begin(&self) -> Attempt {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(number, Instant::now());
        Attempt { underway: self.clone(), number }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    /// For how long the oldest has lasted; nothing where there is none.
    pub(crate) fn oldest(&self) -> Option<Duration> {
        self.lock().values().min().map(Instant::elapsed)
    }

    /// No code panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Instant>> {
        self.0.begun.lock()
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.underway.lock().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(20);

    #[test]
    fn only_what_runs_and_makes_no_step_is_silent() {
        let progress = Progress::default();
        std::thread::sleep(SHORT);
        assert_eq!(progress.silence(), Duration::ZERO, "nothing runs");
        let first = progress.begin();
        let second = progress.begin();
        std::thread::sleep(SHORT);
        let (silent, last) = (progress.silence(), progress.0.last_ms.load(Ordering::Relaxed));
        assert!(silent >= SHORT - Duration::from_millis(1), "{silent:?}");
        drop(second);
        assert!(progress.0.last_ms.load(Ordering::Relaxed) > last, "one got further");
        drop(first);
        std::thread::sleep(SHORT);
        assert_eq!(progress.silence(), Duration::ZERO);
    }

    #[test]
    fn the_oldest_attempt_counts() {
        let underway = Underway::default();
        assert_eq!(underway.oldest(), None);
        let first = underway.begin();
        std::thread::sleep(SHORT);
        let second = underway.begin();
        assert!(underway.oldest() >= Some(SHORT));
        let begun: Vec<_> = underway.lock().values().copied().collect();
        drop(first);
        assert_eq!(underway.lock().values().min(), begun.last());
        assert_eq!(underway.len(), 1);
        drop(second);
        assert_eq!((underway.len(), underway.oldest()), (0, None));
    }
}
