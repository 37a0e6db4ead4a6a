//! The jobs that run here, by tenant and id: one that arrives again while it runs is not started
//! again.

use std::collections::HashMap;
use std::sync::Arc;

use cipherscore_common::broker::Settlement;
use cipherscore_common::{JobId, Tenant};
use parking_lot::{Mutex, MutexGuard};

use crate::stop::{Stop, StopReason};

/// A tenant chooses its job ids, and must not stand in another one's way.
pub(crate) type Name = (Tenant, JobId);

/// The table. Clones share it.
#[derive(Default, Clone)]
pub(crate) struct InFlight {
    jobs: Arc<Mutex<HashMap<Name, Entry>>>,
}

struct Entry {
    stop: Stop,
    settlements: Vec<Settlement>,
    /// Whether it is blamed for what becomes of this worker.
    blamed: bool,
}

/// A job that runs; it leaves the table when this is ended or dropped.
pub(crate) struct Running {
    table: InFlight,
    name: Option<Name>,
}

impl InFlight {
    /// No code panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, HashMap<Name, Entry>> {
        self.jobs.lock()
    }

    /// Enters a job, or adds a delivery to one that runs: then there is nothing to do.
    pub(crate) fn begin(&self, name: Name, stop: &Stop, settlement: Settlement) -> Option<Running> {
        let mut jobs = self.lock();
        if let Some(entry) = jobs.get_mut(&name) {
            entry.settlements.push(settlement);
            return None;
        }
        let entry = Entry { stop: stop.clone(), settlements: vec![settlement], blamed: false };
        jobs.insert(name.clone(), entry);
        Some(Running { table: self.clone(), name: Some(name) })
    }

    /// How many run.
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Which run.
    pub(crate) fn names(&self) -> Vec<Name> {
        self.lock().keys().cloned().collect()
    }

    /// A job that runs is blamed.
    pub(crate) fn blame(&self, name: &Name) {
        if let Some(entry) = self.lock().get_mut(name) {
            entry.blamed = true;
        }
    }

    /// Whether a job was blamed, which it is not any more.
    pub(crate) fn forgive(&self, name: &Name) -> bool {
        let mut jobs = self.lock();
        jobs.get_mut(name).is_some_and(|entry| std::mem::take(&mut entry.blamed))
    }

    /// Ends one.
    pub(crate) fn stop(&self, name: &Name, reason: StopReason) {
        if let Some(entry) = self.lock().get(name) {
            entry.stop.ask(reason);
        }
    }

    /// Ends all.
    pub(crate) fn stop_all(&self, reason: StopReason) {
        self.lock().values().for_each(|entry| entry.stop.ask(reason));
    }
}

impl Running {
    /// Takes the job out of the table, with all its deliveries.
    pub(crate) fn end(mut self) -> Vec<Settlement> {
        self.take()
    }

    /// Once only: afterwards the same job may have begun anew.
    fn take(&mut self) -> Vec<Settlement> {
        let name = self.name.take();
        let entry = name.and_then(|name| self.table.lock().remove(&name));
        entry.map(|entry| entry.settlements).unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.take();
    }
}
