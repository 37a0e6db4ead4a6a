//! The store in this process, for tests and for the demo without services.

mod results;
mod uploads;

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::marks::{ALONE_LEASE, CANCEL_LEASE, DONE_LEASE, MarkStore, Marks};
use super::presence::{MAX_LISTED_WORKERS, PRESENCE_LEASE, Presence};
use super::releases::{RELEASED_LEASE, ReleaseStore};
use super::results::{FeedEntry, NoteName};
use super::uploads::UploadName;
use super::workers::{PresenceStore, check_worker_name};
use super::{Blob, BlobInfo, BlobKind, BlobName, BlobStore, CHUNK_BYTES};
use super::{MAX_LISTED_BLOBS, Progress, Put, StoreError};
use crate::{EvaluationKeyId, JobId, Lease, Tenant};

/// Clones share what they hold. Its time is tokio's, which tests can move on.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    blobs: Arc<Mutex<Blobs>>,
    small: Arc<Mutex<Small>>,
}

/// Marks and presences, with the time at which each goes.
#[derive(Debug, Default)]
struct Small {
    done: BTreeMap<(Tenant, JobId), Instant>,
    cancelled: BTreeMap<(Tenant, JobId), Instant>,
    alone: BTreeMap<(Tenant, JobId), (u64, Instant)>,
    released: BTreeMap<(Tenant, EvaluationKeyId), (u64, Instant)>,
    workers: BTreeMap<String, (Presence, Instant)>,
    parts: BTreeMap<(UploadName, u64), (Vec<u8>, Instant)>,
    notes: BTreeMap<(Tenant, NoteName), (Vec<u8>, Instant)>,
    results: BTreeMap<(Tenant, JobId), (Vec<u8>, Instant)>,
    settled: BTreeMap<(Tenant, JobId), Instant>,
    feeds: BTreeMap<(Tenant, String), BTreeMap<FeedEntry, JobId>>,
    /// Entries of feeds that there ever were.
    entries: u64,
}

type Blobs = BTreeMap<BlobName, Entry>;

#[derive(Debug)]
struct Entry {
    blob: Blob,
    expires: Option<Instant>,
}

impl MemoryStore {
    /// The blobs that have not expired. No code panics while it holds the lock.
    fn blobs(&self) -> MutexGuard<'_, Blobs> {
        let mut blobs = self.blobs.lock();
        let now = Instant::now();
        blobs.retain(|_, entry| entry.expires.is_none_or(|expires| expires > now));
        blobs
    }

    /// The marks and presences that have not expired.
    fn small(&self) -> MutexGuard<'_, Small> {
        let mut small = self.small.lock();
        let now = Instant::now();
        small.done.retain(|_, expires| *expires > now);
        small.cancelled.retain(|_, expires| *expires > now);
        small.alone.retain(|_, (_, expires)| *expires > now);
        small.released.retain(|_, (_, expires)| *expires > now);
        small.workers.retain(|_, (_, expires)| *expires > now);
        small.parts.retain(|_, (_, expires)| *expires > now);
        small.notes.retain(|_, (_, expires)| *expires > now);
        small.results.retain(|_, (_, expires)| *expires > now);
        small.settled.retain(|_, expires| *expires > now);
        small
    }
}

fn info(entry: &Entry) -> BlobInfo {
    let now = Instant::now();
    let expires_in = entry.expires.map(|expires| expires.saturating_duration_since(now));
    BlobInfo { expires_in, ..entry.blob.info(None) }
}

fn deadline(lease: Option<Lease>) -> Option<Instant> {
    lease.map(|lease| Instant::now() + lease.duration())
}

impl BlobStore for MemoryStore {
    async fn put(
        &self,
        blob: &Blob,
        lease: Option<Lease>,
        progress: Progress<'_>,
    ) -> Result<Put, StoreError> {
        let mut blobs = self.blobs();
        if let Some(entry) = blobs.get_mut(&blob.name)
            && entry.blob.sha256 == blob.sha256
        {
            entry.expires = deadline(lease);
            return Ok(Put::AlreadyThere);
        }
        (0..blob.info(lease).chunks()).for_each(|_| progress());
        let entry = Entry { blob: blob.clone(), expires: deadline(lease) };
        blobs.insert(blob.name.clone(), entry);
        Ok(Put::Stored)
    }

    async fn info(&self, name: &BlobName) -> Result<BlobInfo, StoreError> {
        self.blobs().get(name).map(info).ok_or_else(|| StoreError::not_found(name))
    }

    async fn chunk(&self, info: &BlobInfo, index: u64) -> Result<Vec<u8>, StoreError> {
        let blobs = self.blobs();
        let entry = blobs.get(&info.name).filter(|entry| entry.blob.sha256 == info.sha256);
        let mut chunks = entry.iter().flat_map(|entry| entry.blob.bytes.chunks(CHUNK_BYTES));
        let chunk = usize::try_from(index).ok().and_then(|index| chunks.nth(index));
        let missing = || StoreError::damaged(&info.name, format!("chunk {index} is missing"));
        chunk.map(<[u8]>::to_vec).ok_or_else(missing)
    }

    async fn touch(&self, name: &BlobName, lease: Option<Lease>) -> Result<(), StoreError> {
        let mut blobs = self.blobs();
        let entry = blobs.get_mut(name).ok_or_else(|| StoreError::not_found(name))?;
        entry.expires = deadline(lease);
        Ok(())
    }

    async fn remove(&self, name: &BlobName) -> Result<(), StoreError> {
        self.blobs().remove(name).map(|_| ()).ok_or_else(|| StoreError::not_found(name))
    }

    async fn list(&self, tenant: &Tenant, kind: BlobKind) -> Result<Vec<BlobInfo>, StoreError> {
        let blobs = self.blobs();
        let wanted = |name: &BlobName| name.tenant == *tenant && name.kind == kind;
        let found = blobs.iter().filter(|(name, _)| wanted(name)).map(|(_, entry)| info(entry));
        let found: Vec<_> = found.take(MAX_LISTED_BLOBS + 1).collect();
        match found.len() > MAX_LISTED_BLOBS {
            true => {
                Err(StoreError::TooMany { tenant: tenant.clone(), kind, limit: MAX_LISTED_BLOBS })
            }
            false => Ok(found),
        }
    }
}

impl MarkStore for MemoryStore {
    async fn marks(&self, tenant: &Tenant, job: JobId) -> Result<Marks, StoreError> {
        let (small, key) = (self.small(), (tenant.clone(), job));
        Ok(Marks {
            done: small.done.contains_key(&key),
            cancelled: small.cancelled.contains_key(&key),
        })
    }

    async fn mark_done(&self, tenant: &Tenant, job: JobId) -> Result<(), StoreError> {
        self.small().done.insert((tenant.clone(), job), Instant::now() + DONE_LEASE);
        Ok(())
    }

    async fn mark_cancelled(&self, tenant: &Tenant, job: JobId) -> Result<(), StoreError> {
        self.small().cancelled.insert((tenant.clone(), job), Instant::now() + CANCEL_LEASE);
        Ok(())
    }

    async fn cancelled(&self, jobs: &[(Tenant, JobId)]) -> Result<Vec<bool>, StoreError> {
        let small = self.small();
        Ok(jobs.iter().map(|job| small.cancelled.contains_key(job)).collect())
    }

    async fn blame(&self, tenant: &Tenant, job: JobId, more: u32) -> Result<u64, StoreError> {
        let (mut small, now) = (self.small(), Instant::now());
        let (count, expires) = small.alone.entry((tenant.clone(), job)).or_insert((0, now));
        *count = count.saturating_add(more.into());
        *expires = now + ALONE_LEASE;
        Ok(*count)
    }

    async fn forgive(&self, tenant: &Tenant, job: JobId, less: u32) -> Result<(), StoreError> {
        if let Some((count, expires)) = self.small().alone.get_mut(&(tenant.clone(), job)) {
            *count = count.saturating_sub(less.into());
            *expires = Instant::now() + ALONE_LEASE;
        }
        Ok(())
    }
}

impl ReleaseStore for MemoryStore {
    async fn count_released(
        &self,
        tenant: &Tenant,
        key: EvaluationKeyId,
        coefficients: u64,
    ) -> Result<u64, StoreError> {
        let (mut small, now) = (self.small(), Instant::now());
        let (count, expires) = small.released.entry((tenant.clone(), key)).or_insert((0, now));
        *count = count.saturating_add(coefficients);
        *expires = now + RELEASED_LEASE;
        Ok(*count)
    }

    async fn released(&self, tenant: &Tenant, key: EvaluationKeyId) -> Result<u64, StoreError> {
        let small = self.small();
        Ok(small.released.get(&(tenant.clone(), key)).map_or(0, |(count, _)| *count))
    }
}

impl PresenceStore for MemoryStore {
    async fn announce(&self, presence: &Presence) -> Result<(), StoreError> {
        presence.to_json().ok_or(StoreError::InvalidPresence)?;
        let entry = (presence.clone(), Instant::now() + PRESENCE_LEASE);
        self.small().workers.insert(presence.worker.clone(), entry);
        Ok(())
    }

    async fn leave(&self, worker: &str) -> Result<(), StoreError> {
        check_worker_name(worker)?;
        self.small().workers.remove(worker);
        Ok(())
    }

    async fn workers(&self) -> Result<Vec<Presence>, StoreError> {
        let small = self.small();
        let mut found: Vec<_> = small.workers.values().collect();
        found.sort_by_key(|(_, expires)| std::cmp::Reverse(*expires));
        found.truncate(MAX_LISTED_WORKERS);
        found.sort_by(|(left, _), (right, _)| left.worker.cmp(&right.worker));
        Ok(found.into_iter().map(|(presence, _)| presence.clone()).collect())
    }
}
