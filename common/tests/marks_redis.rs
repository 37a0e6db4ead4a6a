//! Marks and workers as they are in Redis: seen, and damaged, from a second connection.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod support;

use std::time::Duration;

use cipherscore_common::{
    ALONE_LEASE, CANCEL_LEASE, DONE_LEASE, Digest, EvaluationKeyId, JobId, MAX_PRESENCE_BYTES,
    MarkStore, Marks, PRESENCE_LEASE, PresenceStore, RELEASED_LEASE, RedisStore, ReleaseStore,
    StoreError,
};
use support::private_redis::{Fixture, store};
use support::{presence, tenant};

impl Fixture {
    /// The store by a user of these rights only.
    fn store_of(&mut self, user: &str, rights: &str) -> RedisStore {
        let rule = ["ACL", "SETUSER", user, "reset", "on", ">pw", "-@all"];
        let rule: Vec<_> = rule.into_iter().chain(rights.split(' ')).collect();
        let _: () = self.raw(&rule);
        let admin = format!(":{}@", self.server.password());
        store(&self.server.url().replace(&admin, &format!("{user}:pw@")))
    }
}

#[tokio::test]
async fn names_and_leases_are_the_documented_ones() {
    let (mut fixture, a, job) = (Fixture::new(), tenant("a"), JobId::random());
    fixture.store.mark_done(&a, job).await.unwrap();
    fixture.store.mark_cancelled(&a, job).await.unwrap();
    let key = EvaluationKeyId::new(Digest::of(b"key"));
    assert_eq!(fixture.store.blame(&a, job, 1).await.unwrap(), 1);
    fixture.store.count_released(&a, key, 7).await.unwrap();
    fixture.store.announce(&presence("w")).await.unwrap();
    let mut keys: Vec<String> = fixture.raw(&["KEYS", "*"]);
    keys.sort();
    let expected = [
        ("cs:_worker:w".to_owned(), PRESENCE_LEASE),
        ("cs:_workers".to_owned(), Duration::from_secs(24 * 60 * 60)),
        (format!("cs:a:alone:{job}"), ALONE_LEASE),
        (format!("cs:a:cancel:{job}"), CANCEL_LEASE),
        (format!("cs:a:done:{job}"), DONE_LEASE),
        (format!("cs:a:released:{key}"), RELEASED_LEASE),
    ];
    assert_eq!(keys, expected.clone().map(|(key, _)| key));
    for (key, life) in expected {
        let left: u64 = fixture.raw(&["TTL", &key]);
        assert!(left <= life.as_secs() && left + 5 > life.as_secs(), "{key}: {left}");
        // What has expired does not count.
        let _: u64 = fixture.raw(&["PEXPIRE", &key, "0"]);
    }
    assert_eq!(fixture.store.marks(&a, job).await.unwrap(), Marks::default());
    assert_eq!(fixture.store.blame(&a, job, 1).await.unwrap(), 1);
    assert_eq!(fixture.store.released(&a, key).await.unwrap(), 0);
    assert!(fixture.store.workers().await.unwrap().is_empty());
}

#[tokio::test]
async fn names_of_workers_that_are_gone_do_not_pile_up() {
    let mut fixture = Fixture::new();
    let now = "1700000000000";
    let _: u64 = fixture.raw(&["ZADD", "cs:_workers", now, "gone"]);
    fixture.store.announce(&presence("w")).await.unwrap();
    let names: Vec<String> = fixture.raw(&["ZRANGE", "cs:_workers", "0", "-1"]);
    assert_eq!(names, ["w"]);
    // A name without a presence is one of a worker that says nothing more.
    let _: u64 = fixture.raw(&["UNLINK", "cs:_worker:w"]);
    assert!(fixture.store.workers().await.unwrap().is_empty());
}

#[tokio::test]
async fn strange_presences_are_left_out_of_the_list() {
    let mut fixture = Fixture::new();
    fixture.store.announce(&presence("good")).await.unwrap();
    let json: String = fixture.raw(&["GET", "cs:_worker:good"]);
    let strange = [
        ("no-json", "x".to_owned()),
        ("empty", String::new()),
        ("other", json.clone()),
        ("long", json.replace("good", "long") + &" ".repeat(MAX_PRESENCE_BYTES)),
        ("negative", json.replace("good", "negative").replace("77", "-77")),
        ("deep", "[".repeat(50_000)),
        ("escape", json.replace("good", "escape").replace("0.1.0", "\\u001b[2J")),
        ("version", json.replace("good", "version").replace("0.1.0", &"1".repeat(65))),
        ("a:b", json.replace("good", "a:b")),
        ("line\n", json.replace("good", "line\\n")),
    ];
    for (name, value) in strange {
        assert!(value != json || name == "other");
        let _: u64 = fixture.raw(&["ZADD", "cs:_workers", "99999999999999", name]);
        let _: () = fixture.raw(&["SET", &format!("cs:_worker:{name}"), &value]);
    }
    assert_eq!(fixture.store.workers().await.unwrap(), [presence("good")]);
    // A newer worker may say more of itself.
    let newer = json.replacen('{', "{\"more\":1,", 1);
    let _: () = fixture.raw(&["SET", "cs:_worker:good", &newer]);
    assert_eq!(fixture.store.workers().await.unwrap(), [presence("good")]);
}

/// By the ACL rules and the commands that the crate's documentation names, and no others.
#[tokio::test]
async fn the_documented_permissions_suffice_for_marks_and_workers() {
    let mut fixture = Fixture::new();
    let (a, b, job) = (tenant("a"), tenant("b"), JobId::random());
    let commands = "+set +getrange +exists +expire +persist +pttl +scan +unlink";
    let tenants = fixture.store_of("bob", &format!("~cs:b:* {commands}"));
    let more = "+zadd +zrange +zrem +zremrangebyscore";
    let workers = fixture.store_of("worker", &format!("~cs:* {commands} {more}"));
    let lists = fixture.store_of("status", "~cs:_worker* +getrange +zrange");

    tenants.mark_cancelled(&b, job).await.unwrap();
    workers.mark_done(&b, job).await.unwrap();
    assert_eq!(tenants.marks(&b, job).await.unwrap(), Marks { done: true, cancelled: true });
    assert_eq!(workers.cancelled(&[(a.clone(), job), (b, job)]).await.unwrap(), [false, true]);
    workers.announce(&presence("w")).await.unwrap();
    assert_eq!(lists.workers().await.unwrap(), [presence("w")]);
    workers.leave("w").await.unwrap();

    let refused = [
        tenants.mark_cancelled(&a, job).await,
        tenants.marks(&a, job).await.map(drop),
        tenants.announce(&presence("w")).await,
        tenants.workers().await.map(drop),
        lists.announce(&presence("w")).await,
    ];
    for result in refused {
        assert!(matches!(result, Err(StoreError::Refused { .. })), "{result:?}");
    }
}
