//! Waiting for results: woken by this gateway when it keeps one, and by the clock for those that another
//! one keeps.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use cipherscore_common::{JobId, Pauses, Tenant};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// How soon a waiter looks again on its own, and how long it pauses at the most.
const FIRST_LOOK: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What is waited for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Awaited {
    /// The result of a job.
    Job(Tenant, JobId),
    /// Any result of a client.
    Client(Tenant, String),
}

/// Those who wait, by what they wait for.
#[derive(Default)]
pub(crate) struct Waiters(Arc<Mutex<Places>>);

/// How many wait for a thing, and how they are woken.
type Places = HashMap<Awaited, (usize, Arc<Notify>)>;

/// Held by who waits.
struct Waiter {
    waiters: Arc<Mutex<Places>>,
    awaited: Awaited,
    notify: Arc<Notify>,
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut waiters = self.waiters.lock();
        if let Some((held, _)) = waiters.get_mut(&self.awaited) {
            *held -= 1;
            if *held == 0 {
                waiters.remove(&self.awaited);
            }
        }
    }
}

impl Waiters {
    /// Something came: whoever waits for it looks.
    pub(crate) fn wake(&self, awaited: &Awaited) {
        let notify = self.0.lock().get(awaited).map(|(_, notify)| Arc::clone(notify));
        if let Some(notify) = notify {
            notify.notify_waiters();
        }
    }

    /// How many things are waited for.
    pub(crate) fn len(&self) -> u64 {
        self.0.lock().len() as u64
    }

    fn waiter(&self, awaited: Awaited) -> Waiter {
        let mut waiters = self.0.lock();
        let (held, notify) = waiters.entry(awaited.clone()).or_default();
        *held += 1;
        Waiter { waiters: Arc::clone(&self.0), awaited, notify: Arc::clone(notify) }
    }

    /// Looks until there is something, until the time is over, or until `stop`.
    pub(crate) async fn wait<T, E, F: Future<Output = Result<Option<T>, E>>>(
        &self,
        awaited: Awaited,
        time: Duration,
        stop: &CancellationToken,
        mut look: impl FnMut() -> F,
    ) -> Result<Option<T>, E> {
        let end = Instant::now() + time;
        let waiter = self.waiter(awaited);
        let mut pauses = Pauses::new(FIRST_LOOK, LONGEST_PAUSE);
        loop {
            let mut woken = std::pin::pin!(waiter.notify.notified());
            // Before looking, so that nothing is missed between looking and waiting.
            woken.as_mut().enable();
            if let Some(found) = look().await? {
                return Ok(Some(found));
            }
            let now = Instant::now();
            if now >= end || stop.is_cancelled() {
                return Ok(None);
            }
            tokio::select! {
                () = woken => {}
                () = sleep_until(end.min(now + pauses.take())) => {}
                () = stop.cancelled() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn awaited() -> Awaited {
        Awaited::Client(Tenant::default(), "c".into())
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_woken_and_looks_by_the_clock() {
        let (waiters, stop, looks) =
            (Waiters::default(), CancellationToken::new(), AtomicU32::new(0));
        let seconds = Duration::from_secs;
        let look = || async {
            let looks = looks.fetch_add(1, Ordering::Relaxed);
            Ok::<_, ()>((looks >= 3).then_some(looks))
        };
        let began = Instant::now();
        let waits = waiters.wait(awaited(), seconds(60), &stop, look);
        let wakes = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            assert_eq!(waiters.len(), 1);
            waiters.wake(&awaited());
        };
        assert_eq!(tokio::join!(waits, wakes).0, Ok(Some(3)));
        // Woken at 10 ms; then by itself after 200 and 400.
        assert!(began.elapsed() < seconds(1), "{:?}", began.elapsed());
        assert_eq!(waiters.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_has_an_end() {
        let (waiters, stop) = (Waiters::default(), CancellationToken::new());
        let never = || async { Ok::<Option<()>, ()>(None) };
        let began = Instant::now();
        assert_eq!(waiters.wait(awaited(), Duration::from_secs(30), &stop, never).await, Ok(None));
        assert_eq!(began.elapsed(), Duration::from_secs(30));
        stop.cancel();
        assert_eq!(waiters.wait(awaited(), Duration::from_secs(30), &stop, never).await, Ok(None));
        assert_eq!(began.elapsed(), Duration::from_secs(30));
    }
}
