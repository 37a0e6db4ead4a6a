//! How many jobs are evaluated at a time, and on which threads.
//!
//! Beside the ordinary slots there is a reserved one, with a thread of its own, for jobs that are
//! planned to be over soon. It is one more, not one of them: while nobody needs it, it costs nothing,
//! and long jobs lose no thread to it. A quick job takes an ordinary slot, and with it all threads,
//! only while no long job has one: on the threads of a long job it would wait for it. If a long one
//! begins before it computes, it computes on the reserved thread, whichever slot it has.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use parking_lot::{Mutex, MutexGuard};
use rayon::{ThreadPool, ThreadPoolBuilder};
use tokio::sync::Notify;

use crate::pulse::Progress;

/// What a job needs to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Any slot on whose threads no long job is, since it is planned to be over soon.
    Quick,
    /// An ordinary slot.
    Ordinary,
    /// All slots.
    Alone,
}

/// The slots. Who waits for one asks again when one was given back.
pub(crate) struct Slots {
    /// Ordinary ones.
    all: usize,
    state: Mutex<State>,
    freed: Notify,
}

struct State {
    free: usize,
    is_reserved_free: bool,
    /// Ordinary slots of jobs that may take long.
    long: usize,
}

/// A slot, given back when it is dropped.
pub(crate) struct Slot {
    slots: Arc<Slots>,
    taken: Taken,
}

impl Slot {
    /// Whether who needs this could have had it. To a quick job the slot of a long one is no loss: there
    /// is the reserved one.
    pub(crate) fn suits(&self, need: Need) -> bool {
        match self.taken {
            Taken::Ordinary { is_long: true } => need != Need::Quick,
            Taken::Reserved => need != Need::Ordinary,
            Taken::Ordinary { is_long: false } | Taken::All => true,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    Ordinary { is_long: bool },
    Reserved,
    All,
}

impl Slots {
    /// So many ordinary ones, and the reserved one.
    pub(crate) fn new(all: usize) -> Self {
        let state = State { free: all, is_reserved_free: true, long: 0 };
        Self { all, state: Mutex::new(state), freed: Notify::new() }
    }

    /// Ordinary slots.
    pub(crate) fn all(&self) -> usize {
        self.all
    }

    /// Ordinary slots that are taken.
    pub(crate) fn busy(&self) -> usize {
        self.all - self.lock().free
    }

    /// Whether the reserved slot is taken.
    pub(crate) fn is_reserved_busy(&self) -> bool {
        !self.lock().is_reserved_free
    }

    /// A slot for what a job needs, if there is one now.
    pub(crate) fn take(self: &Arc<Self>, need: Need) -> Option<Slot> {
        let mut state = self.lock();
        let taken = match need {
            Need::Quick if state.free > 0 && state.long == 0 => Taken::Ordinary { is_long: false },
            Need::Quick if state.is_reserved_free => Taken::Reserved,
            Need::Ordinary if state.free > 0 => Taken::Ordinary { is_long: true },
            Need::Alone if state.free == self.all && state.is_reserved_free => Taken::All,
            _ => return None,
        };
        match taken {
            Taken::Ordinary { is_long } => {
                state.free -= 1;
                state.long += usize::from(is_long);
            }
            Taken::Reserved => state.is_reserved_free = false,
            Taken::All => {
                state.free = 0;
                state.is_reserved_free = false;
            }
        }
        drop(state);
        Some(Slot { slots: Arc::clone(self), taken })
    }

    /// Waits until a slot was given back since this was asked last. For one who waits.
    pub(crate) async fn freed(&self) {
        self.freed.notified().await;
    }

    /// No code panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.slots.lock();
        match self.taken {
            Taken::Ordinary { is_long } => {
                state.free += 1;
                state.long -= usize::from(is_long);
            }
            Taken::Reserved => state.is_reserved_free = true,
            Taken::All => {
                state.free = self.slots.all;
                state.is_reserved_free = true;
            }
        }
        drop(state);
        self.slots.freed.notify_one();
    }
}

/// Threads, and whether what they compute gets further.
pub(crate) struct Pool {
    pub(crate) threads: ThreadPool,
    /// Of these threads alone: steps that others make say nothing of what hangs here.
    pub(crate) progress: Progress,
}

/// The threads: the only place where anything is computed.
pub(crate) struct Pools {
    ordinary: Pool,
    /// Of the reserved slot: one thread.
    reserved: Pool,
}

impl Pools {
    /// So many ordinary threads; 0 is as many as there are processors.
    pub(crate) fn start(threads: usize) -> anyhow::Result<Self> {
        let start = |threads, name: fn(usize) -> String| {
            let pool = ThreadPoolBuilder::new().num_threads(threads).thread_name(name).build();
            let threads = pool.context("the threads cannot be started")?;
            anyhow::Ok(Pool { threads, progress: Progress::default() })
        };
        Ok(Self {
            ordinary: start(threads, |index| format!("evaluate-{index}"))?,
            reserved: start(1, |_| "evaluate-quick".into())?,
        })
    }

    /// Ordinary threads.
    pub(crate) fn threads(&self) -> usize {
        self.ordinary.threads.current_num_threads()
    }

    /// For how long none of what some of the threads compute has got further.
    pub(crate) fn silence(&self) -> Duration {
        self.ordinary.progress.silence().max(self.reserved.progress.silence())
    }

    /// Where a job with this slot computes what it begins now: a quick one beside a long one on the
    /// reserved thread, since the others are the long one's.
    pub(crate) fn of(&self, slot: &Slot) -> &Pool {
        match slot.taken {
            Taken::Reserved => &self.reserved,
            Taken::Ordinary { is_long: false } if slot.slots.lock().long > 0 => &self.reserved,
            Taken::Ordinary { .. } | Taken::All => &self.ordinary,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(slot: Option<Slot>) -> Taken {
        slot.unwrap().taken
    }

    #[test]
    fn quick_jobs_have_all_slots_while_no_job_is_long_and_one_while_some_are() {
        let slots = Arc::new(Slots::new(2));
        let first = slots.take(Need::Quick).unwrap();
        let second = slots.take(Need::Quick).unwrap();
        let third = slots.take(Need::Quick).unwrap();
        let kinds = [&first, &second, &third].map(|slot| slot.taken);
        let ordinary = Taken::Ordinary { is_long: false };
        assert_eq!(kinds, [ordinary, ordinary, Taken::Reserved]);
        assert!(slots.take(Need::Quick).is_none() && slots.take(Need::Ordinary).is_none());
        assert_eq!((slots.busy(), slots.is_reserved_busy()), (2, true));
        drop((second, third));

        let long = slots.take(Need::Ordinary).unwrap();
        assert_eq!(taken(slots.take(Need::Quick)), Taken::Reserved);
        drop(first);
        // A slot is free, and its threads are those of the long job.
        let reserved = slots.take(Need::Quick).unwrap();
        assert_eq!(reserved.taken, Taken::Reserved);
        assert!(slots.take(Need::Quick).is_none());
        assert!(slots.take(Need::Ordinary).is_some());
        drop(long);
        assert_eq!(taken(slots.take(Need::Quick)), ordinary);
    }

    #[test]
    fn a_quick_job_beside_a_long_one_computes_on_the_reserved_thread_whichever_slot_it_has() {
        let (slots, pools) = (Arc::new(Slots::new(2)), Pools::start(1).unwrap());
        let is_reserved = |slot: &Slot| std::ptr::eq(pools.of(slot), &pools.reserved);
        let quick = slots.take(Need::Quick).unwrap();
        assert!(!is_reserved(&quick));
        let long = slots.take(Need::Ordinary).unwrap();
        assert_eq!((is_reserved(&quick), is_reserved(&long)), (true, false));
        drop(long);
        assert!(!is_reserved(&quick));
    }

    #[test]
    fn what_hangs_is_silent_whatever_the_other_threads_compute() {
        const SHORT: Duration = Duration::from_millis(20);
        let pools = Pools::start(1).unwrap();
        for (hangs, other) in
            [(&pools.ordinary, &pools.reserved), (&pools.reserved, &pools.ordinary)]
        {
            let _hangs = hangs.progress.begin();
            std::thread::sleep(SHORT);
            drop(other.progress.begin());
            let _works = other.progress.begin();
            let silence = pools.silence();
            assert!(silence >= SHORT - Duration::from_millis(1), "{silence:?}");
        }
        assert_eq!(pools.silence(), Duration::ZERO, "nothing is computed");
    }

    #[test]
    fn long_jobs_never_have_the_reserved_slot() {
        let slots = Arc::new(Slots::new(1));
        let _long = slots.take(Need::Ordinary).unwrap();
        assert!(slots.take(Need::Ordinary).is_none());
        assert!(!slots.is_reserved_busy());
    }

    #[test]
    fn alone_is_beside_nothing() {
        let slots = Arc::new(Slots::new(2));
        for need in [Need::Quick, Need::Ordinary] {
            let other = slots.take(need);
            assert!(slots.take(Need::Alone).is_none());
            drop(other);
        }
        let long = slots.take(Need::Ordinary);
        let reserved = slots.take(Need::Quick);
        drop(long);
        assert!(slots.take(Need::Alone).is_none(), "a quick job is evaluated");
        drop(reserved);
        let alone = slots.take(Need::Alone).unwrap();
        assert_eq!((slots.busy(), slots.is_reserved_busy()), (2, true));
        assert!(slots.take(Need::Quick).is_none() && slots.take(Need::Ordinary).is_none());
        drop(alone);
        assert_eq!((slots.busy(), slots.is_reserved_busy()), (0, false));
    }

    #[tokio::test]
    async fn what_is_given_back_before_anybody_waits_is_not_missed() {
        let slots = Arc::new(Slots::new(1));
        drop(slots.take(Need::Ordinary));
        let freed = tokio::time::timeout(std::time::Duration::from_secs(60), slots.freed()).await;
        assert!(freed.is_ok());
    }
}
