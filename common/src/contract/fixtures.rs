//! What the contracts put into stores.

use crate::{
    Activity, Blob, BlobName, BlobReader, BlobStore, CHUNK_BYTES, Lease, ModelId, Presence,
    StoreError, Tenant,
};

/// A tenant of this name.
///
/// # Panics
///
/// Where the text is no such thing.
pub fn tenant(name: &str) -> Tenant {
    name.parse().unwrap()
}

/// A lease as it is written, such as `1h`.
///
/// # Panics
///
/// Where the text is no such thing.
pub fn lease(text: &str) -> Lease {
    text.parse().unwrap()
}

/// Bytes that differ from chunk to chunk.
pub fn bytes(length: usize) -> Vec<u8> {
    let word = |index: u64| (index.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 7).to_le_bytes();
    (0..).flat_map(word).take(length).collect()
}

/// A key of three chunks, the last of them short.
pub fn key(tenant_name: &str) -> Blob {
    Blob::evaluation_key(&tenant(tenant_name), bytes(2 * CHUNK_BYTES + 100)).unwrap()
}

/// All of a blob.
pub async fn read<S: BlobStore>(store: &S, name: &BlobName) -> Result<Vec<u8>, StoreError> {
    BlobReader::open(store, name).await?.read_all(u64::MAX).await
}

/// A worker of this name.
pub fn presence(worker: &str) -> Presence {
    Presence {
        worker: worker.into(),
        version: "0.1.0".into(),
        started_ms: 1_700_000_000_000,
        models: vec![ModelId::new(key("a").name().id)],
        kinds: [(ModelId::new(key("a").name().id), vec!["server, recorded".to_owned()])].into(),
        slots: 4,
        jobs: 1,
        answered: 77,
        key_cache_bytes: 1 << 33,
        activity: Activity {
            announced_ms: 1,
            busy: 1,
            failed: 7,
            rows: 9,
            longest_wait_ms: None,
            unacknowledged: 2,
            oldest_unacknowledged_ms: Some(5),
        },
    }
}
