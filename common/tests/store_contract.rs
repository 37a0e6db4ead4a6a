//! The stores in memory and in Redis do what every store does.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod support;

use std::time::Duration;

use cipherscore_common::{
    Blob, CANCEL_LEASE, DONE_LEASE, JobId, MarkStore, Marks, MemoryStore, PRESENCE_LEASE,
    PresenceStore, StoreError,
};
use support::{presence, tenant};

mod memory {
    use cipherscore_common::{MemoryStore, gateway_store_contract, store_contract};

    async fn memory() -> (MemoryStore, ()) {
        (MemoryStore::default(), ())
    }

    store_contract!(memory, tokio::test);
    gateway_store_contract!(memory, tokio::test);
}

mod redis {
    use cipherscore_common::{RedisConfig, RedisStore, gateway_store_contract, store_contract};
    use cipherscore_testbed::Redis;

    async fn redis() -> (RedisStore, Redis) {
        let redis = Redis::start().unwrap();
        let config = RedisConfig::parse(&redis.url()).unwrap();
        (RedisStore::new(&config).unwrap(), redis)
    }

    store_contract!(redis, tokio::test);
    gateway_store_contract!(redis, tokio::test);
}

#[tokio::test(start_paused = true)]
async fn marks_and_workers_in_memory_expire() {
    let (store, a, job) = (MemoryStore::default(), tenant("a"), JobId::random());
    store.mark_done(&a, job).await.unwrap();
    store.mark_cancelled(&a, job).await.unwrap();
    store.announce(&presence("w")).await.unwrap();
    let second = Duration::from_secs(1);
    let mut passed = Duration::ZERO;
    for (lease, left) in [
        (PRESENCE_LEASE, Marks { done: true, cancelled: true }),
        (DONE_LEASE, Marks { done: false, cancelled: true }),
        (CANCEL_LEASE, Marks::default()),
    ] {
        tokio::time::advance(lease - second - passed).await;
        assert_ne!(store.marks(&a, job).await.unwrap(), Marks::default());
        tokio::time::advance(2 * second).await;
        passed = lease + second;
        assert_eq!(store.marks(&a, job).await.unwrap(), left);
        assert!(store.workers().await.unwrap().is_empty());
    }
}

#[test]
fn nothing_empty_is_stored() {
    let refused = Blob::evaluation_key(&tenant("a"), Vec::new()).unwrap_err();
    assert!(matches!(refused, StoreError::Empty { .. }), "{refused}");
}
