//! What is taken of the account, and what gives its place to others.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use cipherscore_common::Tenant;
use cipherscore_engine::evaluator::Evaluator;

use super::{Demand, KeyCell, KeyDemand, KeyName};

#[derive(Default)]
pub(super) struct State {
    pub(super) used_bytes: u64,
    pub(super) keys: HashMap<KeyName, Entry>,
    /// What models keep for their next job, least recently used first.
    idle: Vec<Idle>,
    /// Counts admissions, to know which key was used last.
    pub(super) clock: u64,
    /// Jobs that were admitted past the one whose turn it is.
    pub(super) overtaken: u32,
}

pub(super) struct Entry {
    pub(super) cell: KeyCell,
    pub(super) bytes: u64,
    /// Jobs that use it.
    pub(super) users: usize,
    pub(super) last_used: u64,
}

/// What an evaluator kept when a job of it was over.
struct Idle {
    evaluator: Weak<dyn Evaluator>,
    bytes: u64,
}

/// What gave its place to others. It is freed when this is dropped, without the account's lock:
/// hundreds of megabytes go back to the system.
#[derive(Default)]
pub(super) struct Evicted {
    keys: Vec<Entry>,
    idle: Vec<Arc<dyn Evaluator>>,
}

impl Evicted {
    pub(super) fn with_key(mut self, key: Option<Entry>) -> Self {
        self.keys.extend(key);
        self
    }

    /// Keys among it.
    pub(super) fn keys(&self) -> usize {
        self.keys.len()
    }
}

impl Drop for Evicted {
    fn drop(&mut self) {
        self.idle.iter().for_each(|evaluator| evaluator.release_idle());
    }
}

impl State {
    /// Whether so many bytes fit when all goes that can.
    pub(super) fn has_room(&mut self, bytes: u64, limit: u64, but: Option<&KeyName>) -> bool {
        self.forget_models();
        let keys = self.keys.iter().filter(|(name, entry)| entry.users == 0 && Some(*name) != but);
        let keys = keys.map(|(_, entry)| entry.bytes);
        let reclaimable = keys.chain(self.idle.iter().map(|idle| idle.bytes)).sum::<u64>();
        self.used_bytes - reclaimable + bytes <= limit
    }

    /// Takes out what models keep, then idle keys, until so many bytes fit; nothing, if they cannot.
    pub(super) fn make_room(
        &mut self,
        bytes: u64,
        limit: u64,
        but: Option<&KeyName>,
    ) -> Option<Evicted> {
        if !self.has_room(bytes, limit, but) {
            return None;
        }
        let mut idle: Vec<_> = self
            .keys
            .iter()
            .filter(|(name, entry)| entry.users == 0 && Some(*name) != but)
            .map(|(name, entry)| (entry.last_used, name.clone()))
            .collect();
        idle.sort_unstable_by_key(|(last_used, _)| *last_used);
        let mut evicted = Evicted::default();
        // Allocated again in less time than a key is fetched.
        while self.used_bytes + bytes > limit && !self.idle.is_empty() {
            let Idle { evaluator, bytes } = self.idle.remove(0);
            self.used_bytes -= bytes;
            evicted.idle.extend(evaluator.upgrade());
        }
        for (_, name) in idle {
            if self.used_bytes + bytes <= limit {
                break;
            }
            evicted.keys.extend(self.remove(&name));
        }
        Some(evicted)
    }

    /// Whether the key is here, or its tenant may have one more: if need be, in the place of one
    /// that no job uses.
    pub(super) fn has_share(&self, demand: &Demand, most: usize) -> bool {
        let Some(KeyDemand { name, .. }) = &demand.key else { return true };
        let own = || self.keys.iter().filter(|(other, _)| other.tenant == name.tenant);
        self.keys.contains_key(name)
            || own().count() < most
            || own().any(|(_, entry)| entry.users == 0)
    }

    /// Takes out a tenant's own key, when it has its share already.
    pub(super) fn keep_share(&mut self, tenant: &Tenant, most: usize) -> Option<Option<Entry>> {
        let own = || self.keys.iter().filter(|(name, _)| name.tenant == *tenant);
        if own().count() < most {
            return Some(None);
        }
        let idle = own().filter(|(_, entry)| entry.users == 0);
        let oldest = idle.min_by_key(|(_, entry)| entry.last_used).map(|(name, _)| name.clone())?;
        Some(self.remove(&oldest))
    }

    pub(super) fn remove(&mut self, name: &KeyName) -> Option<Entry> {
        let entry = self.keys.remove(name)?;
        self.used_bytes -= entry.bytes;
        Some(entry)
    }

    /// What an evaluator keeps for its next job is in the hands of one: returns how much that is, which
    /// is not counted any more.
    pub(super) fn take_over(&mut self, evaluator: &Arc<dyn Evaluator>) -> u64 {
        let same = |idle: &mut Idle| idle.evaluator.ptr_eq(&Arc::downgrade(evaluator));
        let bytes = self.idle.extract_if(.., same).map(|idle| idle.bytes).sum();
        self.used_bytes -= bytes;
        bytes
    }

    /// Counts what an evaluator keeps for its next job, in the place of what was counted before.
    pub(super) fn keep(&mut self, evaluator: &Arc<dyn Evaluator>) {
        self.take_over(evaluator);
        let bytes = evaluator.idle_bytes() as u64;
        self.used_bytes += bytes;
        if bytes > 0 {
            self.idle.push(Idle { evaluator: Arc::downgrade(evaluator), bytes });
        }
    }

    /// What models kept that are not there any more.
    fn forget_models(&mut self) {
        let gone = |idle: &mut Idle| idle.evaluator.strong_count() == 0;
        self.used_bytes -= self.idle.extract_if(.., gone).map(|idle| idle.bytes).sum::<u64>();
    }
}
