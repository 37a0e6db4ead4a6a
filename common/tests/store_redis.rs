//! What only the store in Redis can get wrong: seen from a second connection of the test's own.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod support;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cipherscore_common::{
    Blob, BlobKind, BlobStore, CHUNK_BYTES, CHUNK_GRACE, ErrorClass, Lease, ModelId, Put,
    StoreError, UPLOAD_LEASE,
};
use support::private_redis::{Fixture, store};
use support::{bytes, key, lease, read, tenant};

/// More than a connection and its replacement may take, on a machine that is busy; less than
/// eight that wait one after the other.
const PATIENCE: Duration = Duration::from_secs(12);

impl Fixture {
    fn keys(&mut self) -> Vec<String> {
        self.raw(&["KEYS", "cs:*"])
    }

    /// The name of the chunk with this number.
    fn chunk(&mut self, index: usize) -> String {
        let end = format!(":{index}");
        let keys = self.keys();
        keys.into_iter().find(|key| key.contains(":chunk:") && key.ends_with(&end)).unwrap()
    }

    async fn with_key() -> (Self, Blob) {
        let (fixture, blob) = (Self::new(), key("a"));
        fixture.store.put(&blob, Some(Lease::DEFAULT), &|| ()).await.unwrap();
        (fixture, blob)
    }
}

fn damaged(result: Result<Vec<u8>, StoreError>, reason: &str) {
    let error = result.map(|_| "read").unwrap_err();
    assert_eq!(error.class(), ErrorClass::Damaged);
    assert!(error.to_string().contains(reason), "{error}");
}

#[tokio::test]
async fn the_layout_is_the_documented_one() {
    let (mut fixture, blob) = Fixture::with_key().await;
    let id = blob.name().id;
    let meta: String = fixture.raw(&["GET", &format!("cs:a:key:{id}:meta")]);
    let meta: serde_json::Value = serde_json::from_str(&meta).unwrap();
    let upload = meta["upload"].as_str().unwrap();
    let expected = serde_json::json!({
        "format_version": 1, "kind": "key", "bytes": 2 * CHUNK_BYTES + 100, "chunks": 3,
        "sha256": id.to_string(), "upload": upload, "created_by": env!("CARGO_PKG_VERSION"),
    });
    assert_eq!(meta, expected);
    for (index, length) in [(0, CHUNK_BYTES), (1, CHUNK_BYTES), (2, 100)] {
        let name = format!("cs:a:key:{id}:chunk:{upload}:{index}");
        assert_eq!(fixture.raw::<usize>(&["STRLEN", &name]), length);
    }
    assert_eq!(fixture.keys().len(), 4);
}

#[tokio::test]
async fn an_interrupted_put_is_not_there_and_a_later_one_is() {
    let (mut fixture, blob) = (Fixture::new(), key("a"));
    let (sent, two_sent) = (AtomicU64::new(0), tokio::sync::Notify::new());
    let progress = || {
        if sent.fetch_add(1, Ordering::Relaxed) == 1 {
            two_sent.notify_one();
        }
    };
    tokio::select! {
        biased;
        () = two_sent.notified() => {}
        put = fixture.store.put(&blob, Some(Lease::DEFAULT), &progress) => panic!("{put:?}"),
    }
    let left = fixture.keys();
    assert!(left.len() >= 2 && left.iter().all(|key| key.contains(":chunk:")), "{left:?}");
    for key in &left {
        let seconds: i64 = fixture.raw(&["TTL", key]);
        assert!(seconds > 0 && seconds <= UPLOAD_LEASE.as_secs().cast_signed());
    }
    let error = fixture.store.info(blob.name()).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::NotFound);
    assert!(fixture.store.list(&tenant("a"), BlobKind::Key).await.unwrap().is_empty());

    // As often as it is tried again, it takes no more room: a store that is slow does not fill up by that.
    for _ in 0..3 {
        sent.store(0, Ordering::Relaxed);
        tokio::select! {
            biased;
            () = two_sent.notified() => {}
            put = fixture.store.put(&blob, Some(Lease::DEFAULT), &progress) => panic!("{put:?}"),
        }
    }
    let chunks = usize::try_from(blob.info(None).chunks()).unwrap();
    assert!(fixture.keys().len() <= chunks, "{:?}", fixture.keys());

    let put = fixture.store.put(&blob, Some(Lease::DEFAULT), &|| ()).await;
    assert_eq!(put.unwrap(), Put::Stored);
    assert_eq!(read(&fixture.store, blob.name()).await.unwrap(), bytes(2 * CHUNK_BYTES + 100));
    fixture.store.remove(blob.name()).await.unwrap();
    assert_eq!(fixture.keys(), [""; 0], "the interrupted upload stays behind");
}

#[tokio::test]
async fn a_flipped_bit_is_seen() {
    for (index, offset) in [(0, 0), (1, 77), (2, 99)] {
        let (mut fixture, blob) = Fixture::with_key().await;
        let name = fixture.chunk(index);
        let offset = (offset * 8 + 3).to_string();
        let bit: u8 = fixture.raw(&["GETBIT", &name, &offset]);
        let _: u8 = fixture.raw(&["SETBIT", &name, &offset, &(1 - bit).to_string()]);
        damaged(read(&fixture.store, blob.name()).await, "digest");
    }
}

#[tokio::test]
async fn a_chunk_that_is_missing_or_of_another_length_is_seen() {
    let (mut fixture, blob) = Fixture::with_key().await;
    let name = fixture.chunk(1);
    let _: u64 = fixture.raw(&["APPEND", &name, "x"]);
    damaged(read(&fixture.store, blob.name()).await, "chunk 1 has 1048577 bytes");
    let _: () = fixture.raw(&["SET", &name, "short"]);
    damaged(read(&fixture.store, blob.name()).await, "chunk 1 has 5 bytes");
    let _: u64 = fixture.raw(&["DEL", &name]);
    damaged(read(&fixture.store, blob.name()).await, "chunk 1 is missing");
    let touched = fixture.store.touch(blob.name(), Some(Lease::DEFAULT)).await;
    assert_eq!(touched.unwrap_err().class(), ErrorClass::Damaged);
    // The same key once more mends it.
    let put = fixture.store.put(&blob, Some(Lease::DEFAULT), &|| ()).await;
    assert_eq!(put.unwrap(), Put::Stored);
    assert!(read(&fixture.store, blob.name()).await.is_ok());
}

#[tokio::test]
async fn a_strange_meta_key_is_refused() {
    let (mut fixture, blob) = Fixture::with_key().await;
    let name = format!("cs:a:key:{}:meta", blob.name().id);
    let good: String = fixture.raw(&["GET", &name]);
    let huge = format!("{good}{}", " ".repeat(5000));
    let id = blob.name().id.to_string();
    let strange = [
        ("not JSON", "x".to_owned(), "cannot be read"),
        ("long", huge, "longer than"),
        ("size", good.replace("2097252", "99999999999999"), "contradicts"),
        ("chunks", good.replace("\"chunks\":3", "\"chunks\":2"), "contradicts"),
        ("kind", good.replace("\"kind\":\"key\"", "\"kind\":\"model\""), "contradicts"),
        ("digest", good.replace(&id, &id.replace(&id[..1], "f").replace("f", "0")), "contradicts"),
        ("unknown", good.replace("{", "{\"more\":1,"), "cannot be read"),
    ];
    for (what, value, reason) in strange {
        assert_ne!(value, good, "{what}");
        let _: () = fixture.raw(&["SET", &name, &value]);
        damaged(read(&fixture.store, blob.name()).await, reason);
    }
    let newer = good.replace("\"format_version\":1", "\"format_version\":2");
    let _: () = fixture.raw(&["SET", &name, &newer]);
    let error = fixture.store.put(&blob, None, &|| ()).await.unwrap_err();
    assert!(matches!(error, StoreError::UnknownVersion { version: 2, .. }), "{error}");
}

#[tokio::test]
async fn all_keys_expire_and_all_are_renewed() {
    let (mut fixture, blob) = Fixture::with_key().await;
    for (life, touch) in [("30d", None), ("1h", Some("1h")), ("60d", Some("60d"))] {
        if let Some(touch) = touch {
            fixture.store.touch(blob.name(), Some(lease(touch))).await.unwrap();
        }
        let keys = fixture.keys();
        assert_eq!(keys.len(), 4);
        for key in keys {
            let left: u64 = fixture.raw(&["TTL", &key]);
            let grace = if key.ends_with(":meta") { 0 } else { CHUNK_GRACE.as_secs() };
            let expected = lease(life).seconds() + grace;
            assert!(left <= expected && left + 5 > expected, "{key}: {left} of {expected}");
        }
    }
}

#[tokio::test]
async fn a_model_without_a_lease_does_not_expire_and_the_replaced_one_does() {
    let mut fixture = Fixture::new();
    let id = ModelId::new(key("a").name().id);
    let model = |length| Blob::model(&tenant("a"), id, bytes(length)).unwrap();
    fixture.store.put(&model(10), None, &|| ()).await.unwrap();
    let old = fixture.chunk(0);
    assert!(fixture.keys().iter().all(|key| fixture.raw::<i64>(&["TTL", key]) == -1));
    fixture.store.put(&model(11), None, &|| ()).await.unwrap();
    for key in fixture.keys() {
        let left: i64 = fixture.raw(&["TTL", &key]);
        assert_eq!(left > 0, key == old, "{key}: {left}");
    }
}

#[tokio::test]
async fn removing_leaves_nothing_and_does_not_stall_redis() {
    let (mut fixture, blob) = Fixture::with_key().await;
    let other = key("b");
    fixture.store.put(&other, Some(Lease::DEFAULT), &|| ()).await.unwrap();
    fixture.store.remove(blob.name()).await.unwrap();
    assert!(fixture.keys().iter().all(|key| key.starts_with("cs:b:")));
    fixture.store.remove(other.name()).await.unwrap();
    assert_eq!(fixture.keys(), [""; 0]);
    let statistics: String = fixture.raw(&["INFO", "commandstats"]);
    assert!(statistics.contains("cmdstat_unlink:") && !statistics.contains("cmdstat_del:"));
}

#[tokio::test]
async fn a_wrong_password_is_refused_without_repeating_it() {
    let fixture = Fixture::new();
    let store = store(&fixture.server.url_with_password("s3cret"));
    let error = store.info(key("a").name()).await.unwrap_err();
    assert!(matches!(error, StoreError::Refused { .. }), "{error:?}");
    let said = format!("{error} {error:?}");
    assert!(!said.contains("s3cret") && !said.contains(fixture.server.password()), "{said}");
}

/// By the ACL rule and the commands that the crate's documentation names, and no others.
#[tokio::test]
async fn the_documented_permissions_suffice_and_are_kept() {
    let (mut fixture, others) = Fixture::with_key().await;
    let commands = "+set +getrange +exists +expire +persist +pttl +scan +unlink";
    let rule = ["ACL", "SETUSER", "bob", "reset", "on", ">pw", "~cs:b:*", "-@all"];
    let rule: Vec<_> = rule.into_iter().chain(commands.split(' ')).collect();
    let _: () = fixture.raw(&rule);
    let admin = format!(":{}@", fixture.server.password());
    let bobs = store(&fixture.server.url().replace(&admin, "bob:pw@"));

    let blob = key("b");
    for put in [Put::Stored, Put::AlreadyThere] {
        assert_eq!(bobs.put(&blob, Some(Lease::DEFAULT), &|| ()).await.unwrap(), put);
    }
    bobs.touch(blob.name(), None).await.unwrap();
    assert!(read(&bobs, blob.name()).await.is_ok());
    assert_eq!(bobs.list(&tenant("b"), BlobKind::Key).await.unwrap().len(), 1);
    bobs.remove(blob.name()).await.unwrap();

    let refused = [
        bobs.info(others.name()).await.map(drop),
        bobs.put(&others, None, &|| ()).await.map(drop),
        bobs.remove(others.name()).await,
        bobs.list(&tenant("a"), BlobKind::Key).await.map(drop),
    ];
    for result in refused {
        assert!(matches!(result, Err(StoreError::Refused { .. })), "{result:?}");
    }
    assert!(read(&fixture.store, others.name()).await.is_ok());
}

#[tokio::test]
async fn a_full_store_says_so_and_may_have_room_later() {
    let (mut fixture, blob) = (Fixture::new(), key("a"));
    let _: () = fixture.raw(&["CONFIG", "SET", "maxmemory", "1mb"]);
    let error = fixture.store.put(&blob, None, &|| ()).await.unwrap_err();
    assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
    assert_eq!(error.class(), ErrorClass::Unavailable);
    let _: () = fixture.raw(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(fixture.store.put(&blob, None, &|| ()).await.unwrap(), Put::Stored);
}

#[tokio::test]
async fn two_puts_side_by_side_do_not_mix() {
    let (mut fixture, blob) = (Fixture::new(), key("a"));
    // The same bytes, of another process.
    let (other, theirs) = (store(&fixture.server.url()), key("a"));
    let (one, two) = tokio::join!(
        fixture.store.put(&blob, Some(Lease::DEFAULT), &|| ()),
        other.put(&theirs, Some(Lease::DEFAULT), &|| ()),
    );
    assert_eq!((one.unwrap(), two.unwrap()), (Put::Stored, Put::Stored));
    assert!(read(&fixture.store, blob.name()).await.is_ok());
    let mut going = 0;
    for key in fixture.keys() {
        let left: u64 = fixture.raw(&["TTL", &key]);
        going += usize::from(left <= CHUNK_GRACE.as_secs());
    }
    assert_eq!((going, fixture.keys().len()), (3, 7));
}

/// All who wait for the connection learn of its failure at once, not one after the other.
#[tokio::test]
async fn many_that_ask_a_silent_server_wait_no_longer_than_one() {
    let fixture = Fixture::new();
    fixture.server.pause().unwrap();
    let store = std::sync::Arc::new(store(&fixture.server.url()));
    let began = Instant::now();
    let asking = (0..8).map(|_| {
        let store = store.clone();
        tokio::spawn(async move { store.info(key("a").name()).await })
    });
    for asked in Vec::from_iter(asking) {
        let error = asked.await.unwrap().unwrap_err();
        assert_eq!(error.class(), ErrorClass::Unavailable, "{error:?}");
    }
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    fixture.server.resume().unwrap();
    assert_eq!(store.info(key("a").name()).await.unwrap_err().class(), ErrorClass::NotFound);
}

#[tokio::test]
async fn a_server_that_is_away_is_unavailable_in_time_and_found_again() {
    let (mut fixture, blob) = Fixture::with_key().await;
    fixture.server.pause().unwrap();
    let began = Instant::now();
    let error = fixture.store.info(blob.name()).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Unavailable, "{error:?}");
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    fixture.server.resume().unwrap();
    assert!(fixture.store.info(blob.name()).await.is_ok());

    // A restart is not noticed, except that everything is gone.
    fixture.server.restart().unwrap();
    let error = fixture.store.info(blob.name()).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::NotFound);

    fixture.server.kill();
    let began = Instant::now();
    for _ in 0..2 {
        let error = fixture.store.info(blob.name()).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Unavailable, "{error:?}");
    }
    assert!(began.elapsed() < PATIENCE);
}
