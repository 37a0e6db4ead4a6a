//! Memory: prepared evaluation keys and running jobs stay below one limit together.
//!
//! A job is admitted with everything it takes, key included, in one step: who waits for memory
//! holds none, so nobody waits for each other. Jobs are admitted in the order in which they ask; while
//! one waits, some quick ones for which there is room may pass it. What models keep for their next job,
//! and keys that no job uses, stay until their place is needed, keys least recently used first.

mod state;

use std::sync::Arc;

use cipherscore_common::message::ErrorCode;
use cipherscore_common::{EvaluationKeyId, Tenant};
use cipherscore_engine::evaluator::{Evaluator, PreparedKey};
use cipherscore_ids::KeysetId;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, OnceCell};

use self::state::{Entry, Evicted, State};
use crate::failure::Failure;
use crate::metrics::KeyCacheCounts;
use crate::stop::Stop;

/// A key as it is prepared for one kind of model. A tenant's keys are its own, even where another
/// tenant knows their ids.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct KeyName {
    pub(crate) tenant: Tenant,
    pub(crate) id: EvaluationKeyId,
    pub(crate) keyset: KeysetId,
}

/// The memory that a job takes, in bytes.
#[derive(Clone)]
pub(crate) struct Demand {
    /// For its key; none for a linear circuit.
    pub(crate) key: Option<KeyDemand>,
    /// For itself.
    pub(crate) job_bytes: u64,
    /// Whether it is planned to be over soon, and so may pass one that waits for much memory.
    pub(crate) is_quick: bool,
    /// Who evaluates it, and may keep some of its memory for the next job.
    pub(crate) evaluator: Option<Arc<dyn Evaluator>>,
}

/// The memory that a key takes, in bytes.
#[derive(Debug, Clone)]
pub(crate) struct KeyDemand {
    pub(crate) name: KeyName,
    /// While it is kept.
    pub(crate) prepared_bytes: u64,
    /// While it is fetched, in addition.
    pub(crate) serialised_bytes: u64,
}

/// How often a job whose turn it is is passed by quick ones, before all wait for it.
const MOST_OVERTAKEN: u32 = 16;

/// Filled by the first job that needs the key, while the others wait for it.
pub(crate) type KeyCell = Arc<OnceCell<Arc<PreparedKey>>>;

/// What is taken at a moment.
pub(crate) struct Usage {
    pub(crate) limit_bytes: u64,
    pub(crate) used_bytes: u64,
    /// Of it, by keys.
    pub(crate) key_bytes: u64,
    pub(crate) keys: usize,
}

/// The account.
pub(crate) struct Memory {
    pub(crate) counts: KeyCacheCounts,
    limit_bytes: u64,
    max_keys_per_tenant: usize,
    state: Mutex<State>,
    freed: Notify,
    /// Held by the job that is admitted next.
    turn: tokio::sync::Mutex<()>,
}

/// The right to take so much memory, given back when it is dropped.
pub(crate) struct Admission {
    memory: Arc<Memory>,
    job_bytes: u64,
    key: Option<(KeyName, KeyCell)>,
    /// Who may keep some of it for the next job.
    evaluator: Option<Arc<dyn Evaluator>>,
}

impl Admission {
    /// Where the key is or comes to be.
    pub(crate) fn key(&self) -> Option<&KeyCell> {
        self.key.as_ref().map(|(_, cell)| cell)
    }
}

impl Memory {
    pub(crate) fn new(limit_bytes: u64, max_keys_per_tenant: usize) -> Self {
        Self {
            counts: KeyCacheCounts::default(),
            limit_bytes,
            max_keys_per_tenant,
            state: Mutex::default(),
            freed: Notify::new(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// Waits until there is room for a job.
    pub(crate) async fn admit(
        self: &Arc<Self>,
        demand: Demand,
        stop: &Stop,
    ) -> Result<Admission, Failure> {
        let key = demand.key.as_ref();
        let fetching = key.map_or(0, |key| key.serialised_bytes);
        let most = key.map_or(0, |key| key.prepared_bytes) + demand.job_bytes.max(fetching);
        if most > self.limit_bytes {
            let limit = self.limit_bytes;
            let reason = format!("it takes {most} bytes of memory; this worker may use {limit}");
            return Err(Failure::refused(ErrorCode::TooLarge, reason));
        }
        let wait = async {
            loop {
                self.wait_for_share(&demand).await;
                if let Some(admission) = self.try_to_pass(&demand) {
                    return admission;
                }
                let _turn = self.turn.lock().await;
                // Nobody has passed this one yet, even if the one before it gave up.
                self.lock().overtaken = 0;
                loop {
                    let mut freed = std::pin::pin!(self.freed.notified());
                    freed.as_mut().enable();
                    if !self.lock().has_share(&demand, self.max_keys_per_tenant) {
                        // Meanwhile another job of the tenant took it: the others go first.
                        break;
                    }
                    if let Some(admission) = self.try_admit(&demand) {
                        return admission;
                    }
                    freed.await;
                }
            }
        };
        tokio::select! {
            admission = wait => Ok(admission),
            () = stop.asked() => Err(stop.failure()),
        }
    }

    /// Waits, without holding up anybody, until the tenant may have one key more.
    async fn wait_for_share(&self, demand: &Demand) {
        loop {
            let mut freed = std::pin::pin!(self.freed.notified());
            freed.as_mut().enable();
            if self.lock().has_share(demand, self.max_keys_per_tenant) {
                return;
            }
            freed.await;
        }
    }

    /// Whether a key is here, so that jobs that need it come first.
    pub(crate) fn holds(&self, tenant: &str, id: EvaluationKeyId) -> bool {
        let state = self.lock();
        state.keys.keys().any(|name| name.id == id && name.tenant.as_str() == tenant)
    }

    /// What is taken now.
    pub(crate) fn usage(&self) -> Usage {
        let state = self.lock();
        Usage {
            limit_bytes: self.limit_bytes,
            used_bytes: state.used_bytes,
            key_bytes: state.keys.values().map(|entry| entry.bytes).sum(),
            keys: state.keys.len(),
        }
    }

    /// No code panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Admits a quick job while another one waits for its turn, unless that was passed often enough.
    fn try_to_pass(self: &Arc<Self>, demand: &Demand) -> Option<Admission> {
        let is_waited = self.turn.try_lock().is_err();
        if !(demand.is_quick && is_waited && self.lock().overtaken < MOST_OVERTAKEN) {
            return None;
        }
        let admission = self.try_admit(demand)?;
        self.lock().overtaken += 1;
        Some(admission)
    }

    fn try_admit(self: &Arc<Self>, demand: &Demand) -> Option<Admission> {
        let mut state = self.lock();
        state.clock += 1;
        let taken_over = demand.evaluator.as_ref().map_or(0, |one| state.take_over(one));
        let mut placed = self.place(&mut state, demand, taken_over);
        if let (Some(evaluator), true) = (&demand.evaluator, taken_over > 0 && placed.is_none()) {
            // More was kept than the job takes, and goes like that of others.
            state.keep(evaluator);
            placed = self.place(&mut state, demand, 0);
        }
        let Placed { evicted, job_bytes, key } = placed?;
        state.used_bytes += job_bytes;
        let now = state.clock;
        let key = key.and_then(|name| {
            let entry = state.keys.get_mut(&name)?;
            entry.users += 1;
            entry.last_used = now;
            Some((name, entry.cell.clone()))
        });
        drop(state);
        self.counts.evictions.inc_by(evicted.keys() as u64);
        drop(evicted);
        let evaluator = demand.evaluator.clone();
        Some(Admission { memory: self.clone(), job_bytes, key, evaluator })
    }

    /// Makes room for a job and its key, if there can be. So many bytes that were kept for the job are
    /// in its hands, and a part of what it takes.
    fn place(&self, state: &mut State, demand: &Demand, taken_over: u64) -> Option<Placed> {
        let own_bytes = demand.job_bytes.max(taken_over);
        let Some(KeyDemand { name, prepared_bytes, serialised_bytes }) = &demand.key else {
            let evicted = state.make_room(own_bytes, self.limit_bytes, None)?;
            return Some(Placed { evicted, job_bytes: own_bytes, key: None });
        };
        if state.keys.contains_key(name) {
            let evicted = state.make_room(own_bytes, self.limit_bytes, Some(name))?;
            self.counts.hits.inc();
            return Some(Placed { evicted, job_bytes: own_bytes, key: Some(name.clone()) });
        }
        // The key is fetched while what was kept is there, and before the rest is.
        let job_bytes = own_bytes.max(serialised_bytes + taken_over);
        let all = prepared_bytes + job_bytes;
        // Else the tenant's own key would go, and nobody come in its place.
        if !state.has_room(all, self.limit_bytes, None) {
            return None;
        }
        let own = state.keep_share(&name.tenant, self.max_keys_per_tenant)?;
        let others = state.make_room(all, self.limit_bytes, None)?;
        self.counts.misses.inc();
        state.used_bytes += prepared_bytes;
        let cell = KeyCell::default();
        let entry = Entry { cell, bytes: *prepared_bytes, users: 0, last_used: 0 };
        state.keys.insert(name.clone(), entry);
        Some(Placed { evicted: others.with_key(own), job_bytes, key: Some(name.clone()) })
    }
}

/// What has made room for a job.
struct Placed {
    evicted: Evicted,
    job_bytes: u64,
    key: Option<KeyName>,
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut state = self.memory.lock();
        state.used_bytes -= self.job_bytes;
        if let Some(evaluator) = &self.evaluator {
            state.keep(evaluator);
        }
        let mut unused = None;
        if let Some((name, _)) = &self.key
            && let Some(entry) = state.keys.get_mut(name)
        {
            entry.users -= 1;
            // A key that could not be fetched takes no place.
            if entry.users == 0 && !entry.cell.initialized() {
                unused = state.remove(name);
            }
        }
        drop(state);
        drop(unused);
        self.memory.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests;
