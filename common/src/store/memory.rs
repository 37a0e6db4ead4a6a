//! The store in this process, for tests and for the demo without services.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::{Blob, BlobInfo, BlobKind, BlobName, BlobStore, CHUNK_BYTES};
use super::{MAX_LISTED_BLOBS, Progress, Put, StoreError};
use crate::{Lease, Tenant};

/// Clones share their blobs.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    blobs: Arc<Mutex<Blobs>>,
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
        let mut blobs = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        blobs.retain(|_, entry| entry.expires.is_none_or(|expires| expires > now));
        blobs
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
