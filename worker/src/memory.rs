//! Memory: prepared evaluation keys and running jobs stay below one limit together.
//!
//! A job is admitted with everything it takes, key included, in one step: who waits for memory
//! holds none, so nobody waits for each other. Jobs are admitted in the order in which they ask.
//! Keys that no job uses stay for the next one until their place is needed, least recently used
//! first.

use std::collections::HashMap;
use std::sync::Arc;

use cipherscore_common::message::ErrorCode;
use cipherscore_common::{EvaluationKeyId, Tenant};
use cipherscore_engine::evaluator::PreparedKey;
use cipherscore_ids::KeysetId;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, OnceCell};

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
#[derive(Debug, Clone)]
pub(crate) struct Demand {
    /// For its key; none for a linear circuit.
    pub(crate) key: Option<KeyDemand>,
    /// For itself.
    pub(crate) job_bytes: u64,
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

#[derive(Default)]
struct State {
    used_bytes: u64,
    keys: HashMap<KeyName, Entry>,
    /// Counts admissions, to know which key was used last.
    clock: u64,
}

struct Entry {
    cell: KeyCell,
    bytes: u64,
    /// Jobs that use it.
    users: usize,
    last_used: u64,
}

/// The right to take so much memory, given back when it is dropped.
pub(crate) struct Admission {
    memory: Arc<Memory>,
    job_bytes: u64,
    key: Option<(KeyName, KeyCell)>,
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
                let _turn = self.turn.lock().await;
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

    fn try_admit(self: &Arc<Self>, demand: &Demand) -> Option<Admission> {
        let mut state = self.lock();
        state.clock += 1;
        let now = state.clock;
        let mut evicted = Vec::new();
        let (job_bytes, key) = match &demand.key {
            None => {
                evicted = state.make_room(demand.job_bytes, self.limit_bytes, None)?;
                (demand.job_bytes, None)
            }
            Some(KeyDemand { name, .. }) if state.keys.contains_key(name) => {
                evicted = state.make_room(demand.job_bytes, self.limit_bytes, Some(name))?;
                self.counts.hits.inc();
                (demand.job_bytes, Some(name.clone()))
            }
            Some(KeyDemand { name, prepared_bytes, serialised_bytes }) => {
                evicted.extend(state.keep_share(&name.tenant, self.max_keys_per_tenant)?);
                let job_bytes = demand.job_bytes.max(*serialised_bytes);
                let all = prepared_bytes + job_bytes;
                evicted.extend(state.make_room(all, self.limit_bytes, None)?);
                self.counts.misses.inc();
                state.used_bytes += prepared_bytes;
                let entry = Entry {
                    cell: KeyCell::default(),
                    bytes: *prepared_bytes,
                    users: 0,
                    last_used: 0,
                };
                state.keys.insert(name.clone(), entry);
                (job_bytes, Some(name.clone()))
            }
        };
        state.used_bytes += job_bytes;
        let key = key.and_then(|name| {
            let entry = state.keys.get_mut(&name)?;
            entry.users += 1;
            entry.last_used = now;
            Some((name, entry.cell.clone()))
        });
        drop(state);
        self.counts.evictions.inc_by(evicted.len() as u64);
        // Hundreds of megabytes go back to the system here, without the lock.
        drop(evicted);
        Some(Admission { memory: self.clone(), job_bytes, key })
    }
}

impl State {
    /// Takes out idle keys until so many bytes fit; nothing, if they cannot.
    fn make_room(&mut self, bytes: u64, limit: u64, but: Option<&KeyName>) -> Option<Vec<Entry>> {
        let mut idle: Vec<_> = self
            .keys
            .iter()
            .filter(|(name, entry)| entry.users == 0 && Some(*name) != but)
            .map(|(name, entry)| (entry.last_used, entry.bytes, name.clone()))
            .collect();
        let reclaimable: u64 = idle.iter().map(|(_, bytes, _)| bytes).sum();
        if self.used_bytes - reclaimable + bytes > limit {
            return None;
        }
        idle.sort_unstable_by_key(|(last_used, ..)| *last_used);
        let mut evicted = Vec::new();
        for (_, _, name) in idle {
            if self.used_bytes + bytes <= limit {
                break;
            }
            evicted.extend(self.remove(&name));
        }
        Some(evicted)
    }

    /// Whether the key is here, or its tenant may have one more: if need be, in the place of one
    /// that no job uses.
    fn has_share(&self, demand: &Demand, most: usize) -> bool {
        let Some(KeyDemand { name, .. }) = &demand.key else { return true };
        let own = || self.keys.iter().filter(|(other, _)| other.tenant == name.tenant);
        self.keys.contains_key(name)
            || own().count() < most
            || own().any(|(_, entry)| entry.users == 0)
    }

    /// Takes out a tenant's own key, when it has its share already.
    fn keep_share(&mut self, tenant: &Tenant, most: usize) -> Option<Option<Entry>> {
        let own = || self.keys.iter().filter(|(name, _)| name.tenant == *tenant);
        if own().count() < most {
            return Some(None);
        }
        let idle = own().filter(|(_, entry)| entry.users == 0);
        let oldest = idle.min_by_key(|(_, entry)| entry.last_used).map(|(name, _)| name.clone())?;
        Some(self.remove(&oldest))
    }

    fn remove(&mut self, name: &KeyName) -> Option<Entry> {
        let entry = self.keys.remove(name)?;
        self.used_bytes -= entry.bytes;
        Some(entry)
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut state = self.memory.lock();
        state.used_bytes -= self.job_bytes;
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
mod tests {
    use std::time::Duration;

    use super::*;

    fn name(tenant: &str, key: u8) -> KeyName {
        let id = EvaluationKeyId::of(&[key]);
        KeyName { tenant: tenant.parse().unwrap(), id, keyset: KeysetId::of(b"keyset") }
    }

    fn demand(tenant: &str, key: u8) -> Demand {
        let key = KeyDemand { name: name(tenant, key), prepared_bytes: 100, serialised_bytes: 30 };
        Demand { key: Some(key), job_bytes: 10 }
    }

    async fn admit(memory: &Arc<Memory>, demand: Demand) -> Option<Admission> {
        let stop = Stop::new(None);
        let admission = memory.admit(demand, &stop);
        let admission = tokio::time::timeout(Duration::from_millis(50), admission).await;
        admission.ok().map(Result::unwrap)
    }

    fn used(memory: &Memory) -> (u64, u64) {
        let usage = memory.usage();
        (usage.key_bytes, usage.used_bytes)
    }

    /// As a job does that has fetched its key.
    fn fetched(admission: &Admission) {
        let key = PreparedKey::new(KeysetId::of(b"keyset"), 100, ());
        admission.key().unwrap().set(Arc::new(key)).unwrap();
    }

    #[tokio::test]
    async fn keys_stay_until_their_place_is_needed() {
        let memory = Arc::new(Memory::new(270, 10));
        let first = admit(&memory, demand("a", 1)).await.unwrap();
        fetched(&first);
        drop(first);
        assert_eq!(used(&memory), (100, 100));
        let again = admit(&memory, demand("a", 1)).await.unwrap();
        assert!(again.key().unwrap().initialized());
        // 110 of 270 are used, and the next one takes 130.
        let second = admit(&memory, demand("a", 2)).await.unwrap();
        fetched(&second);
        assert!(admit(&memory, demand("a", 3)).await.is_none(), "there is no room");
        drop(again);
        let third = admit(&memory, demand("a", 3)).await.unwrap();
        assert!(!memory.holds("a", name("a", 1).id), "the idle key makes room");
        assert!(memory.holds("a", name("a", 2).id), "the used one does not");
        // Not fetched: it takes no place afterwards.
        drop((second, third));
        assert_eq!(used(&memory), (100, 100));
        let KeyCacheCounts { hits, misses, evictions } = &memory.counts;
        assert_eq!((hits.get(), misses.get(), evictions.get()), (1, 3, 1));
    }

    #[tokio::test]
    async fn who_waits_is_admitted_in_turn_and_what_cannot_be_is_refused() {
        let memory = Arc::new(Memory::new(150, 10));
        let first = admit(&memory, demand("a", 1)).await.unwrap();
        let waiting = tokio::spawn({
            let memory = memory.clone();
            async move { memory.admit(demand("b", 1), &Stop::new(None)).await.unwrap() }
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        let small = Demand { key: None, job_bytes: 1 };
        assert!(admit(&memory, small.clone()).await.is_none(), "nobody overtakes");
        drop(first);
        let second = waiting.await.unwrap();
        assert!(admit(&memory, small).await.is_some());
        drop(second);
        let stop = Stop::new(None);
        let huge = memory.admit(Demand { key: None, job_bytes: 151 }, &stop).await;
        assert!(matches!(huge, Err(Failure::Refused(refusal))
            if refusal.code == ErrorCode::TooLarge));
    }

    #[tokio::test]
    async fn a_tenant_has_its_share_of_keys() {
        let memory = Arc::new(Memory::new(10_000, 2));
        for key in [1, 2, 3] {
            fetched(&admit(&memory, demand("a", key)).await.unwrap());
            fetched(&admit(&memory, demand("b", key)).await.unwrap());
        }
        let held = |tenant| [1, 2, 3].map(|key| memory.holds(tenant, name(tenant, key).id));
        assert_eq!((held("a"), held("b")), ([false, true, true], [false, true, true]));
        let busy = [2, 3].map(|key| demand("a", key));
        let busy = [admit(&memory, busy[0].clone()).await, admit(&memory, busy[1].clone()).await];
        let waiting = tokio::spawn({
            let memory = memory.clone();
            async move { memory.admit(demand("a", 1), &Stop::new(None)).await.map(drop) }
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(admit(&memory, demand("b", 2)).await.is_some(), "nobody else waits for it");
        assert!(admit(&memory, demand("a", 1)).await.is_none(), "all of its keys are used");
        drop(busy);
        waiting.await.unwrap().unwrap();
        assert!(admit(&memory, demand("a", 1)).await.is_some());
    }
}
