//! The rules of `deploy/redis/` on a real Redis: who may do what.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod deploy;
mod support;

use std::process::Command;

use cipherscore_common::{
    Blob, BlobKind, BlobStore, BlobWriter, Digest, EvaluationKeyId, JobId, JobState, Lease,
    MarkStore, Marks, ModelId, NoteName, PresenceStore, RedisConfig, RedisStore, ReleaseStore,
    ResultStore, StoreError,
};
use cipherscore_testbed::Redis;
use deploy::{Secrets, text};
use support::{key, lease, presence, read, tenant};

struct Stores {
    server: Redis,
    secrets: Secrets,
}

impl Stores {
    fn new() -> Self {
        let (mut server, secrets) = (Redis::start().unwrap(), Secrets::make());
        for line in text(&secrets.path("users.acl")).lines() {
            let (user, rule) = line.strip_prefix("user ").unwrap().split_once(' ').unwrap();
            match user {
                // The test's own way in.
                "default" => assert_eq!(rule, "off resetpass resetkeys resetchannels -@all"),
                // With the digest of the password, as the file has it.
                user => server.add_user(user, "unused", &selectors(rule)).unwrap(),
            }
        }
        Self { server, secrets }
    }

    fn url(&self, user: &str) -> String {
        // Whom compose asks as, with whatever password.
        if user == "health" {
            return self.server.url_for(user, "none");
        }
        self.server.url_for(user, &self.secrets.password(user, "store"))
    }

    fn of(&self, user: &str) -> RedisStore {
        RedisStore::new(&RedisConfig::parse(&self.url(user)).unwrap()).unwrap()
    }

    fn administrator(&self) -> RedisStore {
        RedisStore::new(&RedisConfig::parse(&self.server.url()).unwrap()).unwrap()
    }

    fn raw(&self, user: &str, command: &str) -> redis::RedisResult<redis::Value> {
        let mut words = command.split(' ');
        let mut command = redis::cmd(words.next().unwrap());
        for word in words {
            command.arg(word);
        }
        let client = redis::Client::open(self.url(user)).unwrap();
        command.query(&mut client.get_connection().unwrap())
    }

    fn is_forbidden(&self, user: &str, command: &str) -> bool {
        match self.raw(user, command) {
            Ok(_) => false,
            Err(error) => {
                assert_eq!(error.code(), Some("NOPERM"), "{user} {command}: {error}");
                true
            }
        }
    }
}

/// The words of a rule; what is in brackets is one.
fn selectors(rule: &str) -> Vec<&str> {
    let (mut found, mut rest) = (Vec::new(), rule.trim());
    while !rest.is_empty() {
        let end = if rest.starts_with('(') { ')' } else { ' ' };
        let (word, after) = rest.split_at(rest.find(end).map_or(rest.len(), |index| index + 1));
        found.push(word.trim());
        rest = after.trim_start();
    }
    found
}

async fn put(store: &RedisStore, blob: &Blob, lease: Option<Lease>) -> Result<(), StoreError> {
    store.put(blob, lease, &|| ()).await.map(drop)
}

fn refused<T: std::fmt::Debug>(result: Result<T, StoreError>) {
    let error = result.unwrap_err();
    assert!(matches!(error, StoreError::Refused { .. }), "{error}");
}

#[tokio::test]
async fn a_tenant_keeps_its_own_keys_and_rows() {
    let stores = Stores::new();
    let (alice, bob) = (stores.of("alice"), stores.of("bob"));
    let (a, b) = (tenant("alice"), tenant("bob"));
    let rows = vec![7; 100];
    let (rows, _) = Blob::payload(&a, BlobKind::Job, rows).unwrap();
    for blob in [&key("alice"), &rows] {
        put(&alice, blob, Some(lease("1h"))).await.unwrap();
        // Found there and renewed.
        put(&alice, blob, Some(lease("2h"))).await.unwrap();
        alice.touch(blob.name(), Some(lease("7d"))).await.unwrap();
        alice.touch(blob.name(), None).await.unwrap();
        let kind = blob.name().kind;
        assert_eq!(alice.list(&a, kind).await.unwrap().len(), 1);
        assert!(read(&alice, blob.name()).await.is_ok());

        refused(read(&bob, blob.name()).await);
        refused(bob.touch(blob.name(), None).await);
        refused(bob.remove(blob.name()).await);
        refused(bob.list(&a, kind).await);
        refused(put(&bob, blob, None).await);
        alice.remove(blob.name()).await.unwrap();
    }
    let (outputs, _) = Blob::payload(&a, BlobKind::Reply, vec![1; 10]).unwrap();
    refused(put(&alice, &outputs, None).await);
    put(&stores.administrator(), &outputs, None).await.unwrap();
    assert!(read(&alice, outputs.name()).await.is_ok());
    refused(read(&bob, outputs.name()).await);
    alice.remove(outputs.name()).await.unwrap();

    let job = JobId::random();
    alice.mark_cancelled(&a, job).await.unwrap();
    assert!(alice.marks(&a, job).await.unwrap().cancelled);
    refused(alice.mark_done(&a, job).await);
    let released = EvaluationKeyId::new(Digest::of(b"key"));
    assert_eq!(alice.released(&a, released).await.unwrap(), 0);
    refused(alice.count_released(&a, released, 1).await);
    refused(alice.blame(&a, job, 1).await);
    refused(alice.forgive(&a, job, 1).await);
    refused(alice.released(&b, released).await);
    refused(alice.mark_cancelled(&b, job).await);
    refused(alice.marks(&b, job).await);
    refused(alice.workers().await);
    refused(alice.announce(&presence("w")).await);
}

#[tokio::test]
async fn a_worker_reads_keys_and_cannot_change_them() {
    let stores = Stores::new();
    let (worker, all) = (stores.of("worker"), stores.administrator());
    let a = tenant("alice");
    let key = key("alice");
    let (rows, _) = Blob::payload(&a, BlobKind::Job, vec![7; 100]).unwrap();
    for blob in [&key, &rows] {
        put(&all, blob, Some(lease("1h"))).await.unwrap();
        assert!(read(&worker, blob.name()).await.is_ok());
        refused(worker.touch(blob.name(), Some(lease("1h"))).await);
        refused(worker.remove(blob.name()).await);
        refused(put(&worker, blob, Some(lease("1h"))).await);
    }
    let other = Blob::evaluation_key(&a, vec![1; 10]).unwrap();
    refused(put(&worker, &other, None).await);
    refused(worker.list(&a, BlobKind::Key).await);

    let (outputs, _) = Blob::payload(&a, BlobKind::Reply, vec![1; 10]).unwrap();
    put(&worker, &outputs, Some(lease("1h"))).await.unwrap();
    put(&worker, &outputs, Some(lease("2h"))).await.unwrap();
    refused(worker.remove(outputs.name()).await);

    let job = JobId::random();
    worker.mark_done(&a, job).await.unwrap();
    let done = Marks { done: true, cancelled: false };
    assert_eq!(worker.marks(&a, job).await.unwrap(), done);
    assert_eq!(worker.cancelled(&[(a.clone(), job)]).await.unwrap(), [false]);
    refused(worker.mark_cancelled(&a, job).await);
    assert_eq!(worker.blame(&a, job, 8).await.unwrap(), 8);
    worker.forgive(&a, job, 7).await.unwrap();
    assert_eq!(worker.blame(&a, job, 8).await.unwrap(), 9);
    worker.forgive(&a, job, 20).await.unwrap();
    assert_eq!(worker.blame(&a, job, 8).await.unwrap(), 8);
    let released = EvaluationKeyId::new(Digest::of(b"key"));
    assert_eq!(worker.count_released(&a, released, 5).await.unwrap(), 5);
    worker.announce(&presence("w")).await.unwrap();
    assert_eq!(worker.workers().await.unwrap().len(), 1);
    worker.leave("w").await.unwrap();
}

/// Everything that it does, for any tenant; and nothing else.
#[tokio::test]
async fn a_gateway_does_for_tenants_what_they_may_themselves() {
    let stores = Stores::new();
    let (gateway, all) = (stores.of("gateway"), stores.administrator());
    let (worker, alice) = (stores.of("worker"), stores.of("alice"));
    let (a, hour) = (tenant("alice"), lease("1h"));
    for kind in [BlobKind::Key, BlobKind::Job] {
        // Once more, it is found there and renewed.
        for _ in 0..2 {
            let mut writer = BlobWriter::new(&gateway, &a, kind);
            writer.push(&[7; 3 << 20]).await.unwrap();
            writer.finish(Some(hour)).await.unwrap();
        }
        let mut given_up = BlobWriter::new(&gateway, &a, kind);
        given_up.push(&[8; 1 << 20]).await.unwrap();
        given_up.give_up().await.unwrap();
        let info = gateway.list(&a, kind).await.unwrap().remove(0);
        gateway.touch(&info.name, Some(lease("2h"))).await.unwrap();
        assert!(read(&worker, &info.name).await.is_ok());
        assert!(read(&alice, &info.name).await.is_ok());
        gateway.remove(&info.name).await.unwrap();
    }
    let (outputs, _) = Blob::payload(&a, BlobKind::Reply, vec![1; 10]).unwrap();
    refused(put(&gateway, &outputs, None).await);
    put(&worker, &outputs, Some(hour)).await.unwrap();
    gateway.touch(outputs.name(), Some(lease("7d"))).await.unwrap();
    assert!(read(&gateway, outputs.name()).await.is_ok());
    gateway.remove(outputs.name()).await.unwrap();

    let zip = Blob::client_zip(&a, ModelId::of(b"model"), vec![1; 10]).unwrap();
    refused(put(&gateway, &zip, None).await);
    put(&all, &zip, None).await.unwrap();
    assert!(read(&gateway, zip.name()).await.is_ok());
    assert_eq!(gateway.list(&a, BlobKind::Client).await.unwrap().len(), 1);
    // Out of the reach of workers and tenants.
    refused(read(&worker, zip.name()).await);
    refused(read(&alice, zip.name()).await);
    let model = Blob::model(&a, ModelId::of(b"model"), vec![1; 10]).unwrap();
    put(&all, &model, None).await.unwrap();
    refused(read(&gateway, model.name()).await);

    let job = JobId::random();
    for name in [NoteName::Job(job), NoteName::Key(job)] {
        gateway.note(&a, name, b"note", hour).await.unwrap();
        gateway.note_again(&a, name, b"note", hour).await.unwrap();
        gateway.noted(&a, name).await.unwrap();
        gateway.forget_note(&a, name).await.unwrap();
    }
    assert!(gateway.keep_result(&a, job, Some("c"), b"result", hour).await.unwrap());
    assert!(gateway.result(&a, job).await.unwrap().is_some());
    let entries = gateway.feed(&a, "c", None, 9).await.unwrap();
    gateway.drop_entries(&a, "c", &[entries[0].0]).await.unwrap();
    gateway.settle(&a, job).await.unwrap();
    let settled = JobState { settled: true, ..JobState::default() };
    assert_eq!(gateway.job_state(&a, job).await.unwrap(), settled);
    for store in [&worker, &alice] {
        refused(store.result(&a, job).await);
        refused(store.keep_result(&a, job, None, b"forged", hour).await);
        refused(store.job_state(&a, job).await);
        refused(store.feed(&a, "c", None, 9).await);
    }

    gateway.mark_cancelled(&a, job).await.unwrap();
    assert!(gateway.marks(&a, job).await.unwrap().cancelled);
    refused(gateway.mark_done(&a, job).await);
    refused(gateway.blame(&a, job, 1).await);
    let released = EvaluationKeyId::new(Digest::of(b"key"));
    assert_eq!(gateway.released(&a, released).await.unwrap(), 0);
    refused(gateway.count_released(&a, released, 1).await);
    worker.announce(&presence("w")).await.unwrap();
    assert_eq!(gateway.workers().await.unwrap().len(), 1);
    refused(gateway.announce(&presence("w")).await);
}

#[tokio::test]
async fn an_operator_looks_after_models_and_keys() {
    let stores = Stores::new();
    let operator = stores.of("operator");
    let key = key("alice");
    put(&operator, &key, None).await.unwrap();
    assert_eq!(operator.list(&tenant("alice"), BlobKind::Key).await.unwrap().len(), 1);
    operator.remove(key.name()).await.unwrap();
    stores.of("worker").announce(&presence("w")).await.unwrap();
    assert_eq!(operator.workers().await.unwrap().len(), 1);
    for command in ["INFO", "DBSIZE", "ACL LOG"] {
        assert!(!stores.is_forbidden("operator", command), "{command}");
    }
}

#[tokio::test]
async fn metrics_can_do_nothing_but_count() {
    let stores = Stores::new();
    for command in ["PING", "INFO", "DBSIZE"] {
        assert!(!stores.is_forbidden("metrics", command), "{command}");
    }
    let key = key("alice");
    put(&stores.administrator(), &key, None).await.unwrap();
    let metrics = stores.of("metrics");
    refused(read(&metrics, key.name()).await);
    refused(metrics.remove(key.name()).await);
    refused(put(&metrics, &key, None).await);
    refused(metrics.workers().await);
    for command in ["SCAN 0", "RANDOMKEY", "SLOWLOG GET", "CLIENT LIST", "ACL LIST"] {
        assert!(stores.is_forbidden("metrics", command), "{command}");
    }
}

/// Else it would be somebody else, and could do what they can.
#[test]
fn no_tenant_is_named_as_a_role_is() {
    for name in
        ["worker", "operator", "metrics", "gateway", "health", "default", "", "Alice", "a:b", "*"]
    {
        let folder = tempfile::tempdir().unwrap();
        let mut setup = Command::new(deploy::deploy("setup.sh"));
        let made = setup.arg(name).env("SECRETS", folder.path()).output().unwrap();
        assert_eq!(made.status.code(), Some(2), "{name:?}");
        assert!(!folder.path().join("users.acl").exists(), "{name:?}");
    }
}

#[test]
fn nobody_may_run_what_harms_all() {
    let stores = Stores::new();
    let commands = [
        "FLUSHALL",
        "KEYS *",
        "CONFIG GET *",
        "ACL SETUSER mallory on",
        "SHUTDOWN",
        "MONITOR",
        "EVAL 0 0",
        "SUBSCRIBE x",
        "GET other",
        "SET other 1",
    ];
    for user in ["alice", "worker", "operator", "metrics", "gateway"] {
        for command in commands {
            assert!(stores.is_forbidden(user, command), "{user}: {command}");
        }
    }
    assert!(!stores.is_forbidden("health", "PING"));
    assert!(stores.is_forbidden("health", "GET cs:alice:key:x"));
    // Names of other tenants' keys are seen: SCAN names no key that a rule could be about.
    assert!(!stores.is_forbidden("alice", "SCAN 0"));
}
