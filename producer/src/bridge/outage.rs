//! Events that wait for the fleet. All of a model wait together, so that they go in few and large jobs when
//! it is back, however small those were that met the outage.

use std::time::Duration;

use cipherscore_common::Pauses;
use parking_lot::Mutex;

use super::pipeline::pauses;
use super::state::Waiter;

/// Events `E` of a model that wait, if there is an outage.
pub(super) struct Outage<E>(Mutex<State<E>>);

struct State<E> {
    events: Vec<E>,
    pauses: Pauses,
    /// From the first event that had to wait until the fleet has answered for one.
    waiter: Option<Waiter>,
}

impl<E> Default for Outage<E> {
    fn default() -> Self {
        Self(Mutex::new(State { events: Vec::new(), pauses: pauses(), waiter: None }))
    }
}

impl<E> Outage<E> {
    /// Keeps events until they are [taken](Outage::take) by whoever gets a pause from this: after that
    /// pause, of the first that wait. Others are taken with them.
    #[must_use]
    pub(super) fn wait(&self, events: Vec<E>, waiter: Waiter) -> Option<Duration> {
        let mut state = self.0.lock();
        let is_first = state.events.is_empty();
        state.events.extend(events);
        state.waiter = Some(waiter);
        is_first.then(|| state.pauses.take())
    }

    /// The events that wait: they are tried again.
    pub(super) fn take(&self) -> Vec<E> {
        std::mem::take(&mut self.0.lock().events)
    }

    /// The fleet has answered, and is waited for by nobody else.
    pub(super) fn is_over(&self) {
        let mut state = self.0.lock();
        if state.events.is_empty() {
            state.waiter = None;
            state.pauses.reset();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::bridge::state::{BridgeState, Place};

    #[test]
    fn all_that_wait_go_on_together() {
        let (outage, state) = (Outage::default(), Arc::new(BridgeState::default()));
        state.has_started();
        let waits = |events| outage.wait(events, state.waits(Place::Fleet, "away"));
        let first = waits(vec![1, 2]).unwrap();
        assert_eq!((waits(vec![3]), outage.take()), (None, vec![1, 2, 3]));
        // It lasts, and is asked after less often.
        assert!(waits(vec![1]).is_some_and(|second| second == 2 * first));
        outage.is_over();
        assert!(!state.readiness().ready);
        outage.take();
        outage.is_over();
        assert!(state.readiness().ready);
        assert_eq!(waits(vec![4]), Some(first));
    }
}
