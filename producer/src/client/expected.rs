//! Jobs whose replies are waited for. What is not in here is not handed out, so that no job is
//! answered twice; it holds as many entries as there are jobs in flight.

use std::collections::HashMap;

use cipherscore_common::broker::Settlement;
use cipherscore_common::message::ProtocolVersion;
use cipherscore_common::{Digest, JobId, ModelId, OwnerId};
use parking_lot::{Mutex, MutexGuard};

/// A job without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InFlight {
    /// Which job.
    pub job: JobId,
    /// The model that it names, which must be the model of the reply.
    pub model_id: ModelId,
    /// Whose its rows are, which its reply must say too; none where that is not known.
    pub owner_id: Option<OwnerId>,
    /// In which it was written, in which its outputs come too; none where that is not known, as of a
    /// job of an earlier process.
    pub version: Option<ProtocolVersion>,
    /// Its payload in the store, if it is there: removed when the reply is settled.
    pub payload: Option<Digest>,
}

/// What to do with a reply that arrived.
pub(super) enum Arrival {
    /// The first one to a job: to be handed out.
    First(InFlight, Settlement),
    /// The same again, while the first is being made durable. Settled together with it: should
    /// the process end before, the broker still has it.
    Kept,
    /// To no job that waits.
    Unknown(Settlement),
}

struct Entry {
    job: InFlight,
    /// Whether its reply is handed out, and copies of it that came since.
    handed_out: Option<Vec<Settlement>>,
}

#[derive(Default)]
pub(super) struct Expected(Mutex<HashMap<JobId, Entry>>);

impl Expected {
    /// A job that is there keeps its answer, and learns what is known of it now.
    pub(super) fn insert(&self, job: InFlight) {
        let mut jobs = self.lock();
        let entry = jobs.entry(job.job).or_insert(Entry { job, handed_out: None });
        let payload = entry.job.payload.or(job.payload);
        let owner_id = entry.job.owner_id.or(job.owner_id);
        // Written twice, in two versions, it may be answered in either.
        let version = job.version.filter(|_| entry.job.version == job.version);
        entry.job = InFlight { payload, owner_id, version, ..job };
    }

    /// Waits no more. Returns what came again meanwhile.
    pub(super) fn remove(&self, job: JobId) -> Vec<Settlement> {
        self.lock().remove(&job).and_then(|entry| entry.handed_out).unwrap_or_default()
    }

    /// What is in the store of a job that is waited for.
    pub(super) fn payload(&self, job: JobId) -> Option<Digest> {
        self.lock().get(&job).and_then(|entry| entry.job.payload)
    }

    pub(super) fn arrive(&self, job: JobId, settlement: Settlement) -> Arrival {
        match self.lock().get_mut(&job) {
            None => Arrival::Unknown(settlement),
            Some(Entry { handed_out: Some(copies), .. }) => {
                copies.push(settlement);
                Arrival::Kept
            }
            Some(entry) => {
                entry.handed_out = Some(Vec::new());
                Arrival::First(entry.job, settlement)
            }
        }
    }

    /// What was handed out was not made durable: another copy of it may be handed out.
    pub(super) fn put_back(&self, job: JobId) {
        if let Some(entry) = self.lock().get_mut(&job) {
            entry.handed_out = None;
        }
    }

    /// No code panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, HashMap<JobId, Entry>> {
        self.0.lock()
    }
}
