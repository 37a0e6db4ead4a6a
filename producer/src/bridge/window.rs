//! Which events are underway, and which were settled lately: what comes again is not scored again.

use std::collections::{HashMap, HashSet, VecDeque};
use std::num::NonZeroUsize;
use std::sync::Arc;

use cipherscore_common::Digest;
use cipherscore_common::broker::Settlement;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::OwnedSemaphorePermit;

/// A second arrival of an event that is underway: it is settled with the first, and takes its room
/// until then.
pub(super) struct Repeated {
    pub(super) settlement: Settlement,
    pub(super) room: OwnedSemaphorePermit,
}

/// What to do about an arrival.
pub(super) enum Seen {
    /// It is new, and underway from now on.
    New(Underway, Repeated),
    /// The same is underway, and will settle this one too.
    Underway,
    /// The same was settled: this one may be settled at once.
    Settled(Repeated),
}

/// Clones are the same window.
#[derive(Clone)]
pub(super) struct Window(Arc<Mutex<State>>);

struct State {
    /// Events that are underway, each with what came of it again.
    underway: HashMap<Digest, Vec<Repeated>>,
    settled: HashSet<Digest>,
    /// The oldest first.
    order: VecDeque<Digest>,
    capacity: usize,
}

impl Window {
    /// Remembers so many settled events.
    pub(super) fn new(capacity: NonZeroUsize) -> Self {
        let (underway, settled, order) = Default::default();
        let state = State { underway, settled, order, capacity: capacity.get() };
        Self(Arc::new(Mutex::new(state)))
    }

    pub(super) fn arrive(&self, key: Digest, arrival: Repeated) -> Seen {
        let mut state = self.state();
        if state.settled.contains(&key) {
            return Seen::Settled(arrival);
        }
        if let Some(copies) = state.underway.get_mut(&key) {
            copies.push(arrival);
            return Seen::Underway;
        }
        state.underway.insert(key, Vec::new());
        Seen::New(Underway { window: self.clone(), key, is_settled: false }, arrival)
    }

    /// No code panics while it holds the lock.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }
}

/// An event that is underway. Dropped before it is settled, it may come again.
pub(super) struct Underway {
    window: Window,
    key: Digest,
    is_settled: bool,
}

impl Underway {
    /// Its dead letter is safe: returns what came of it again meanwhile. Whoever mends what kept it from
    /// a score sends it once more, so it is new when it comes then.
    pub(super) fn forgotten(mut self) -> Vec<Repeated> {
        self.is_settled = true;
        self.window.state().underway.remove(&self.key).unwrap_or_default()
    }

    /// Its score is safe: returns what came of it again meanwhile.
    pub(super) fn settled(mut self) -> Vec<Repeated> {
        self.is_settled = true;
        let mut state = self.window.state();
        let copies = state.underway.remove(&self.key).unwrap_or_default();
        state.settled.insert(self.key);
        state.order.push_back(self.key);
        if state.order.len() > state.capacity
            && let Some(oldest) = state.order.pop_front()
        {
            state.settled.remove(&oldest);
        }
        copies
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        if !self.is_settled {
            self.window.state().underway.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use cipherscore_common::broker::{Disposition, Settle, Settled, Settling};
    use tokio::sync::Semaphore;

    use super::*;

    struct Unsettled;

    impl Settle for Unsettled {
        fn settle(self: Box<Self>, _: Disposition) -> Settling {
            Box::pin(async { Ok(Settled::Told) })
        }
    }

    fn arrival() -> Repeated {
        let room = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        Repeated { settlement: Settlement::new(Unsettled), room }
    }

    fn new(window: &Window, key: Digest) -> Underway {
        match window.arrive(key, arrival()) {
            Seen::New(underway, _) => underway,
            _ => panic!("it is new"),
        }
    }

    #[test]
    fn what_comes_again_is_settled_with_the_first_or_at_once() {
        let window = Window::new(NonZeroUsize::MIN);
        let [one, other] = [b"one".as_slice(), b"other"].map(Digest::of);
        let underway = new(&window, one);
        assert!(matches!(window.arrive(one, arrival()), Seen::Underway));
        assert_eq!(underway.settled().len(), 1);
        assert!(matches!(window.arrive(one, arrival()), Seen::Settled(_)));
        assert!(new(&window, other).settled().is_empty());
        // One is remembered, and that is the other one now.
        assert!(matches!(window.arrive(other, arrival()), Seen::Settled(_)));
        drop(new(&window, one));
        drop(new(&window, one));
    }

    #[test]
    fn what_was_a_dead_letter_is_new_when_it_comes_again() {
        let window = Window::new(NonZeroUsize::MIN);
        let one = Digest::of(b"one");
        let underway = new(&window, one);
        assert!(matches!(window.arrive(one, arrival()), Seen::Underway));
        assert_eq!(underway.forgotten().len(), 1);
        assert!(new(&window, one).settled().is_empty());
    }
}
