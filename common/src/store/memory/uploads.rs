//! Uploads whose digest is known at their end.

use tokio::time::Instant;

use super::{Entry, MemoryStore, deadline};
use crate::Lease;
use crate::store::redis::UPLOAD_LEASE;
use crate::store::uploads::{UploadName, UploadStore};
use crate::store::{Blob, BlobName, CHUNK_BYTES, Put, StoreError};

impl UploadStore for MemoryStore {
    async fn put_part(
        &self,
        upload: &UploadName,
        index: u64,
        part: Vec<u8>,
    ) -> Result<(), StoreError> {
        let expires = Instant::now() + UPLOAD_LEASE;
        self.small().parts.insert((upload.clone(), index), (part, expires));
        Ok(())
    }

    async fn finish_upload(
        &self,
        upload: &UploadName,
        name: &BlobName,
        bytes: u64,
        lease: Option<Lease>,
    ) -> Result<Put, StoreError> {
        let parts = bytes.div_ceil(CHUNK_BYTES as u64);
        let mut whole = Vec::new();
        {
            let mut small = self.small();
            for index in 0..parts {
                let part = small.parts.remove(&(upload.clone(), index));
                whole.extend(part.map(|(part, _)| part).unwrap_or_default());
            }
        }
        if whole.len() as u64 != bytes {
            return Err(StoreError::damaged(name, "chunks went away while it was sent"));
        }
        let mut blobs = self.blobs();
        if let Some(entry) = blobs.get_mut(name) {
            entry.expires = deadline(lease);
            return Ok(Put::AlreadyThere);
        }
        let blob = Blob::new(name.clone(), whole, name.id)?;
        blobs.insert(name.clone(), Entry { blob, expires: deadline(lease) });
        Ok(Put::Stored)
    }

    async fn give_up(&self, upload: &UploadName, _parts: u64) -> Result<(), StoreError> {
        self.small().parts.retain(|(name, _), _| name != upload);
        Ok(())
    }
}
