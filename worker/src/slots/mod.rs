//! How many jobs are evaluated at a time, and on which threads.
//!
//! Beside the ordinary slots there is a reserved one, with a thread of its own, for jobs that are
//! planned to be over soon. It is one more, not one of them: while nobody needs it, it costs nothing,
//! and long jobs lose no thread to it. A quick job takes an ordinary slot, and with it all threads,
//! only while no long job has one: on the threads of a long job it would wait for it. If a long one
//! begins before it computes, it computes on the reserved thread, whichever slot it has.
//!
//! A quick job that waits for memory or for its key has no slot meanwhile: others that only compute
//! would wait for it. When it goes on, it is served before those that have not begun.

#[cfg(test)]
mod tests;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
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
    /// For those that have begun.
    freed_for_begun: Notify,
}

struct State {
    free: usize,
    is_reserved_free: bool,
    /// Ordinary slots of jobs that may take long.
    long: usize,
    /// Quick jobs that have begun and gave their slot back.
    paused: usize,
    /// Those of them that want one again.
    resuming: usize,
}

impl State {
    /// What a quick job may have now.
    fn for_quick(&self) -> Option<Taken> {
        match (self.free > 0 && self.long == 0, self.is_reserved_free) {
            (true, _) => Some(Taken::Ordinary { is_long: false }),
            (false, true) => Some(Taken::Reserved),
            (false, false) => None,
        }
    }

    fn take(&mut self, taken: Taken) {
        match taken {
            Taken::Ordinary { is_long } => {
                self.free -= 1;
                self.long += usize::from(is_long);
            }
            Taken::Reserved => self.is_reserved_free = false,
            Taken::All => {
                self.free = 0;
                self.is_reserved_free = false;
            }
        }
    }

    fn give_back(&mut self, taken: Taken, all: usize) {
        match taken {
            Taken::Ordinary { is_long } => {
                self.free += 1;
                self.long -= usize::from(is_long);
            }
            Taken::Reserved => self.is_reserved_free = true,
            Taken::All => {
                self.free = all;
                self.is_reserved_free = true;
            }
        }
    }
}

/// A slot, given back when it is dropped.
pub(crate) struct Slot {
    slots: Arc<Slots>,
    /// Nothing while a quick job waits.
    taken: Mutex<Option<Taken>>,
}

impl Slot {
    fn taken(&self) -> Option<Taken> {
        *self.taken.lock()
    }

    /// Waits for something other than threads. A quick job leaves its slot to others meanwhile, unless
    /// there is nothing to wait for.
    pub(crate) async fn wait<T>(&self, waiting: impl Future<Output = T>) -> T {
        let mut waiting = pin!(waiting);
        let at_once = poll_fn(|context| Poll::Ready(waiting.as_mut().poll(context))).await;
        if let Poll::Ready(done) = at_once {
            return done;
        }
        let Some(pause) = self.pause() else { return waiting.await };
        let done = waiting.await;
        pause.end().await;
        done
    }

    /// Gives the slot of a quick job back.
    fn pause(&self) -> Option<Pause<'_>> {
        let mut taken = self.taken.lock();
        let quick = taken.filter(|it| matches!(*it, Taken::Reserved | QUICK))?;
        let mut state = self.slots.lock();
        state.give_back(quick, self.slots.all);
        state.paused += 1;
        *taken = None;
        drop((state, taken));
        self.slots.tell();
        Some(Pause { slot: self, resumes: false })
    }

    /// Whether who needs this could have had it. To a quick job the slot of a long one is no loss: there
    /// is the reserved one.
    pub(crate) fn suits(&self, need: Need) -> bool {
        match self.taken() {
            Some(Taken::Ordinary { is_long: true }) => need != Need::Quick,
            Some(Taken::Reserved) => need != Need::Ordinary,
            Some(QUICK | Taken::All) => true,
            None => false,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    Ordinary { is_long: bool },
    Reserved,
    All,
}

/// An ordinary slot of a quick job.
const QUICK: Taken = Taken::Ordinary { is_long: false };

/// A quick job without a slot. Dropped, it needs none any more.
struct Pause<'a> {
    slot: &'a Slot,
    resumes: bool,
}

impl Pause<'_> {
    /// Waits for a slot.
    async fn end(mut self) {
        let slots = &self.slot.slots;
        slots.lock().resuming += 1;
        self.resumes = true;
        loop {
            let mut freed = pin!(slots.freed_for_begun.notified());
            freed.as_mut().enable();
            if self.take() {
                return;
            }
            freed.await;
        }
    }

    /// Takes a slot, if there is one now.
    fn take(&self) -> bool {
        let mut taken = self.slot.taken.lock();
        let mut state = self.slot.slots.lock();
        *taken = state.for_quick();
        taken.iter().for_each(|quick| state.take(*quick));
        taken.is_some()
    }
}

impl Drop for Pause<'_> {
    fn drop(&mut self) {
        let mut state = self.slot.slots.lock();
        state.paused -= 1;
        state.resuming -= usize::from(self.resumes);
        drop(state);
        // Others may have waited for this one to be served.
        self.slot.slots.tell();
    }
}

impl Slots {
    /// So many ordinary ones, and the reserved one.
    pub(crate) fn new(all: usize) -> Self {
        let state = State { free: all, is_reserved_free: true, long: 0, paused: 0, resuming: 0 };
        let (freed, freed_for_begun) = (Notify::new(), Notify::new());
        Self { all, state: Mutex::new(state), freed, freed_for_begun }
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
            // Those that have begun go first.
            Need::Quick if state.resuming == 0 => state.for_quick()?,
            Need::Ordinary if state.free > 0 => Taken::Ordinary { is_long: true },
            Need::Alone
                if state.free == self.all && state.is_reserved_free && state.paused == 0 =>
            {
                Taken::All
            }
            _ => return None,
        };
        state.take(taken);
        drop(state);
        Some(Slot { slots: Arc::clone(self), taken: Mutex::new(Some(taken)) })
    }

    /// Waits until a slot was given back since this was asked last. For one who waits.
    pub(crate) async fn freed(&self) {
        self.freed.notified().await;
    }

    /// Something was given back.
    fn tell(&self) {
        self.freed.notify_one();
        self.freed_for_begun.notify_waiters();
    }

    /// No code panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let Some(taken) = self.taken.get_mut().take() else { return };
        self.slots.lock().give_back(taken, self.slots.all);
        self.slots.tell();
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
        match slot.taken() {
            // A quick job without a slot prepares its key.
            None | Some(Taken::Reserved) => &self.reserved,
            Some(QUICK) if slot.slots.lock().long > 0 => &self.reserved,
            Some(Taken::Ordinary { .. } | Taken::All) => &self.ordinary,
        }
    }
}
