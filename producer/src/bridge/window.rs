//! Which events are underway, and which were settled lately: what comes again is not scored again.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroUsize;
use std::sync::Arc;

use cipherscore_common::Digest;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::OwnedSemaphorePermit;

use super::record::{Claim, Record};

/// What a remembered event takes beside its score, in bytes.
const SETTLED_BYTES: usize = 256;

/// A second arrival of an event that is underway: it is settled with the first, and takes its room
/// until then.
pub(super) struct Repeated {
    pub(super) claim: Box<dyn Claim>,
    pub(super) room: OwnedSemaphorePermit,
}

/// What to do about an arrival.
pub(super) enum Seen {
    /// It is new, and underway from now on.
    New(Underway, Repeated),
    /// The same is underway, and will settle this one too.
    Underway,
    /// The same was settled: this one may be settled at once, with its score.
    Settled(Repeated, Arc<Record>),
}

/// Clones are the same window.
#[derive(Clone)]
pub(super) struct Window(Arc<Mutex<State>>);

struct State {
    /// Events that are underway, each with what came of it again.
    underway: HashMap<Digest, Vec<Repeated>>,
    /// Events that were settled, each with its score where somebody may want it again.
    settled: HashMap<Digest, Option<Arc<Record>>>,
    /// The oldest first.
    order: VecDeque<Digest>,
    capacity: usize,
    /// What the scores of settled events take, and may take, in bytes.
    bytes: usize,
    max_bytes: usize,
}

impl State {
    /// Remembers an event, and forgets the oldest ones that there is no room for.
    fn remember(&mut self, key: Digest, score: Option<Arc<Record>>) {
        self.bytes += bytes_of(score.as_ref());
        self.settled.insert(key, score);
        self.order.push_back(key);
        while self.order.len() > self.capacity || self.bytes > self.max_bytes {
            let Some(oldest) = self.order.pop_front() else { return };
            let forgotten = self.settled.remove(&oldest).flatten();
            self.bytes -= bytes_of(forgotten.as_ref());
        }
    }
}

fn bytes_of(score: Option<&Arc<Record>>) -> usize {
    score.map_or(0, |score| score.bytes() + SETTLED_BYTES)
}

impl Window {
    /// Remembers so many settled events, whose scores, where somebody may want them again, take at most
    /// so many bytes.
    pub(super) fn new(capacity: NonZeroUsize, max_bytes: usize) -> Self {
        let (underway, settled, order) = Default::default();
        let capacity = capacity.get();
        let state = State { underway, settled, order, capacity, bytes: 0, max_bytes };
        Self(Arc::new(Mutex::new(state)))
    }

    pub(super) fn arrive(&self, key: Digest, arrival: Repeated) -> Seen {
        let mut state = self.state();
        match state.settled.get(&key) {
            Some(Some(score)) => return Seen::Settled(arrival, Arc::clone(score)),
            // All of a source want scores, or none does.
            Some(None) => return Seen::Settled(arrival, Arc::default()),
            None => {}
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

    /// Its score is safe, and is remembered where it may be wanted again: returns what came of it
    /// again meanwhile.
    pub(super) fn settled(mut self, score: Option<Arc<Record>>) -> Vec<Repeated> {
        self.is_settled = true;
        let mut state = self.window.state();
        let copies = state.underway.remove(&self.key).unwrap_or_default();
        state.remember(self.key, score);
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
    use cipherscore_common::broker::{Settled, Settling};
    use tokio::sync::Semaphore;

    use super::*;
    use crate::bridge::record::Ended;

    struct Unsettled;

    impl Claim for Unsettled {
        fn settle(self: Box<Self>, _: &Ended) -> Settling {
            Box::pin(async { Ok(Settled::Told) })
        }
    }

    fn arrival() -> Repeated {
        let room = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        Repeated { claim: Box::new(Unsettled), room }
    }

    fn new(window: &Window, key: Digest) -> Underway {
        match window.arrive(key, arrival()) {
            Seen::New(underway, _) => underway,
            _ => panic!("it is new"),
        }
    }

    #[test]
    fn what_comes_again_is_settled_with_the_first_or_at_once() {
        let window = Window::new(NonZeroUsize::MIN, 0);
        let [one, other] = [b"one".as_slice(), b"other"].map(Digest::of);
        let underway = new(&window, one);
        assert!(matches!(window.arrive(one, arrival()), Seen::Underway));
        assert_eq!(underway.settled(None).len(), 1);
        assert!(matches!(window.arrive(one, arrival()), Seen::Settled(..)));
        assert!(new(&window, other).settled(None).is_empty());
        // One is remembered, and that is the other one now.
        assert!(matches!(window.arrive(other, arrival()), Seen::Settled(..)));
        drop(new(&window, one));
        drop(new(&window, one));
    }

    #[test]
    fn what_was_a_dead_letter_is_new_when_it_comes_again() {
        let window = Window::new(NonZeroUsize::MIN, 0);
        let one = Digest::of(b"one");
        let underway = new(&window, one);
        assert!(matches!(window.arrive(one, arrival()), Seen::Underway));
        assert_eq!(underway.forgotten().len(), 1);
        assert!(new(&window, one).settled(None).is_empty());
    }

    #[test]
    fn scores_are_remembered_as_far_as_there_is_memory() {
        let score = |bytes| Arc::new(Record { body: vec![0; bytes], ..Record::default() });
        let window = Window::new(NonZeroUsize::MIN.saturating_add(9), 2 * (SETTLED_BYTES + 100));
        let keys: Vec<_> = (0..4).map(|id: u8| Digest::of(&[id])).collect();
        for key in &keys[..3] {
            new(&window, *key).settled(Some(score(100)));
        }
        let Seen::Settled(_, again) = window.arrive(keys[2], arrival()) else { panic!("settled") };
        assert_eq!(again.body.len(), 100);
        assert!(matches!(window.arrive(keys[1], arrival()), Seen::Settled(..)));
        // There was no room for the first one.
        drop(new(&window, keys[0]));
        // One that there is no room for at all leaves none.
        new(&window, keys[3]).settled(Some(score(1000)));
        keys.iter().for_each(|key| drop(new(&window, *key)));
        assert_eq!(window.state().bytes, 0);
    }
}
