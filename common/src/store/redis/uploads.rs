//! Uploads whose digest is known at their end: chunks that get their names then.

use redis::pipe;

use super::meta::chunk_key;
use super::{RedisStore, UPLOAD_LEASE};
use crate::Lease;
use crate::store::uploads::{UploadName, UploadStore};
use crate::store::{BlobInfo, BlobName, BlobStore, ErrorClass, Put, StoreError};

/// Chunks that are renamed by one round trip.
const RENAMED_AT_ONCE: usize = 256;

/// As the parts are named until they have an id.
fn pending(upload: &UploadName) -> BlobInfo {
    BlobInfo {
        name: upload.pending(),
        bytes: 0,
        sha256: upload.pending().id,
        created_by: env!("CARGO_PKG_VERSION").to_owned(),
        expires_in: None,
        upload: upload.upload,
    }
}

impl UploadStore for RedisStore {
    async fn put_part(
        &self,
        upload: &UploadName,
        index: u64,
        part: Vec<u8>,
    ) -> Result<(), StoreError> {
        let mut set = pipe();
        set.cmd("SET").arg(chunk_key(&pending(upload), index)).arg(part);
        set.arg("EX").arg(UPLOAD_LEASE.as_secs()).ignore();
        self.chunks.ask::<()>(&set).await
    }

    async fn finish_upload(
        &self,
        upload: &UploadName,
        name: &BlobName,
        bytes: u64,
        lease: Option<Lease>,
    ) -> Result<Put, StoreError> {
        let parts = pending(upload);
        let info = BlobInfo { name: name.clone(), bytes, sha256: name.id, ..parts.clone() };
        match self.touch(name, lease).await {
            Ok(()) => {
                // What is left of the parts goes by itself.
                let _ = self.give_up(upload, info.chunks()).await;
                return Ok(Put::AlreadyThere);
            }
            Err(error) if matches!(error.class(), ErrorClass::NotFound | ErrorClass::Damaged) => {}
            Err(error) => return Err(error),
        }
        let indices: Vec<_> = (0..info.chunks()).collect();
        for some in indices.chunks(RENAMED_AT_ONCE) {
            let mut rename = pipe();
            for index in some {
                rename.cmd("RENAME").arg(chunk_key(&parts, *index)).arg(chunk_key(&info, *index));
                rename.ignore();
            }
            match self.commands.ask::<()>(&rename).await {
                // Sent twice, when the first answer was lost with its connection: then the old names are
                // gone. Whether all are there is looked at below.
                Err(StoreError::Unexpected { reason, .. }) if reason.contains("no such key") => {}
                other => other?,
            }
        }
        if !self.renew_chunks(&info, lease).await? {
            return Err(StoreError::damaged(name, "chunks went away while it was sent"));
        }
        self.commit(&info, lease).await?;
        Ok(Put::Stored)
    }

    async fn give_up(&self, upload: &UploadName, parts: u64) -> Result<(), StoreError> {
        let pending = pending(upload);
        let keys = (0..parts).map(|index| chunk_key(&pending, index));
        let mut unlink = pipe();
        unlink.cmd("UNLINK").arg(Vec::from_iter(keys)).ignore();
        self.commands.ask::<()>(&unlink).await
    }
}
