//! Reading a blob, chunk by chunk, from any store.

use cipherscore_ids::Hasher;

use super::{BlobInfo, BlobName, BlobStore, StoreError};

/// Hands out a blob's chunks in order. The last one comes only when the digest of all is right:
/// whoever has it has the whole.
pub struct BlobReader<'a, S> {
    store: &'a S,
    info: BlobInfo,
    hasher: Hasher,
    next: u64,
}

impl<'a, S: BlobStore> BlobReader<'a, S> {
    /// Begins to read.
    pub async fn open(store: &'a S, name: &BlobName) -> Result<Self, StoreError> {
        let info = store.info(name).await?;
        Ok(Self { store, info, hasher: Hasher::default(), next: 0 })
    }

    /// What is read.
    pub fn info(&self) -> &BlobInfo {
        &self.info
    }

    /// The next chunk, or `None` after the last.
    pub async fn next_chunk(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        if self.next == self.info.chunks() {
            return Ok(None);
        }
        let chunk = self.store.chunk(&self.info, self.next).await?;
        let expected = self.info.chunk_length(self.next);
        if chunk.len() as u64 != expected {
            let length = chunk.len();
            let reason = format!("chunk {} has {length} bytes instead of {expected}", self.next);
            return Err(StoreError::damaged(&self.info.name, reason));
        }
        // About a millisecond for each chunk: short enough to stay where it is.
        self.hasher.update(&chunk);
        self.next += 1;
        if self.next == self.info.chunks() {
            self.check_digest()?;
        }
        Ok(Some(chunk))
    }

    /// The whole blob, if it has at most `limit` bytes.
    pub async fn read_all(mut self, limit: u64) -> Result<Vec<u8>, StoreError> {
        let bytes = self.info.bytes;
        let too_large = || StoreError::TooLarge { name: self.info.name.clone(), bytes, limit };
        if bytes > limit {
            return Err(too_large());
        }
        let mut whole = Vec::with_capacity(usize::try_from(bytes).map_err(|_| too_large())?);
        while let Some(chunk) = self.next_chunk().await? {
            whole.extend_from_slice(&chunk);
        }
        Ok(whole)
    }

    fn check_digest(&mut self) -> Result<(), StoreError> {
        let found = std::mem::take(&mut self.hasher).finish();
        let expected = self.info.sha256;
        if found == expected {
            return Ok(());
        }
        let reason = format!("its digest is {found} instead of {expected}");
        Err(StoreError::damaged(&self.info.name, reason))
    }
}
