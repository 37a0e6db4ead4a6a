//! Messages and the store's keys as an earlier version wrote them: `testdata/frozen`.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cipherscore_common::message::{
    HeaderValue, Job, Message, Outcome, Payload, Reply, Timestamp, Timings,
};
use cipherscore_common::topology::Lane;
use cipherscore_common::{
    BlobKind, BlobName, BlobStore, Digest, EvaluationKeyId, JobId, MarkStore, Marks, ModelId,
    PresenceStore, ReleaseStore, Tenant,
};
use serde_json::Value;
use support::private_redis::Fixture;

const MODEL: &str = "231f1bfe0463c6df61c2de9e134a71f074554820b461af9cd3eb420078d427e4";
const KEY: &str = "81a59e20a74cf1e579c336a37ea108035fb969148297778232330fb4ba93c354";
const JOB: &str = "01a22bef-a522-72b6-84cd-cf5f579f9b1e";
/// Digest of the reply's outputs.
const REPLY_PAYLOAD: &str = "db00c0e5bc6d735da617e2d1dc4e877fe6c99ef4b97ed7e0a9b5047d9dadd5cc";
/// Magic, version and number of rows, which a file of rows has before what a message carries.
const ROWS_HEADER_BYTES: usize = 12;

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/frozen/v0").join(name)
}

fn read(name: &str) -> Vec<u8> {
    std::fs::read(path(name)).unwrap()
}

fn digest(id: &str) -> Digest {
    id.parse().unwrap()
}

/// A message as it was at the broker.
fn message(name: &str) -> Message {
    let envelope: Value = serde_json::from_slice(&read(&format!("message/{name}.json"))).unwrap();
    let text = |field: &str| envelope[field].as_str().map(str::to_owned);
    let headers = envelope["headers"].as_object().unwrap().iter();
    let headers = headers.map(|(name, value)| match value.as_str() {
        Some(text) => (name.clone(), HeaderValue::Text(text.to_owned())),
        None => (name.clone(), HeaderValue::Integer(value.as_i64().unwrap())),
    });
    Message {
        exchange: text("exchange").unwrap(),
        routing_key: text("routing_key").unwrap(),
        kind: text("type"),
        message_id: text("message_id"),
        correlation_id: text("correlation_id"),
        reply_to: text("reply_to"),
        user_id: text("user_id"),
        headers: headers.collect::<BTreeMap<_, _>>(),
        body: read(&format!("message/{name}.body")),
    }
}

#[test]
fn the_job_is_what_it_was() {
    let message = message("job");
    let job = Job::from_message(&message).unwrap();
    let expected = Job {
        id: JOB.parse().unwrap(),
        tenant: "default".parse().unwrap(),
        reply_to: "cs.reply.default.producer-35a127254943".parse().unwrap(),
        correlation_id: None,
        model_id: ModelId::new(digest(MODEL)),
        lane: Lane::Normal,
        key_id: Some(EvaluationKeyId::new(digest(KEY))),
        rows: 6,
        deadline: Some(Timestamp::from_millis(2_111_393_455_394)),
        attempt: 0,
        trace: Some("00-d7ed81ab0ee047c6a4bc97839771a44c-8ce0afe03c3aba4e-01".parse().unwrap()),
        payload: Payload::Inline(read("ensemble/rows.bin").split_off(ROWS_HEADER_BYTES)),
    };
    assert!(job == expected, "{job:?}, and not {expected:?}");
    assert!(job.to_message().body == message.body, "it is written in another way");
}

#[test]
fn the_reply_is_what_it_was() {
    let message = message("reply");
    let reply = Reply::from_message(&message).unwrap();
    let outputs = read("ensemble/results.bin").split_off(ROWS_HEADER_BYTES);
    let Outcome::Scored(Payload::Inline(found)) = &reply.outcome else { panic!("{reply:?}") };
    // Replies are hidden by randomness of their own: two of one job differ.
    assert_eq!(found.len(), outputs.len());
    assert_eq!(Digest::of(found).to_string(), REPLY_PAYLOAD);
    let expected = Reply {
        job: JOB.parse().unwrap(),
        correlation_id: None,
        model_id: Some(ModelId::new(digest(MODEL))),
        worker: "frozen-worker".to_owned(),
        timings: Timings {
            key: Duration::from_micros(1611),
            evaluate: Duration::from_micros(2185),
        },
        trace: Some("00-d7ed81ab0ee047c6a4bc97839771a44c-8ce0afe03c3aba4e-01".parse().unwrap()),
        outcome: Outcome::Scored(Payload::Inline(found.clone())),
    };
    assert!(reply == expected, "{reply:?}, and not {expected:?}");
}

#[tokio::test]
async fn the_stores_keys_are_read() {
    let mut fixture = Fixture::new();
    let keys: BTreeMap<String, Value> = serde_json::from_slice(&read("store.json")).unwrap();
    assert_eq!(keys.len(), 11);
    for (name, value) in &keys {
        match value["text"].as_str() {
            Some(text) => fixture.set(name, text.as_bytes()),
            None => fixture.set(name, &read(value["file"].as_str().unwrap())),
        }
    }
    let tenant: Tenant = "default".parse().unwrap();
    let blobs = [
        (BlobKind::Key, KEY, "ensemble/keys/evaluation.key"),
        (BlobKind::Model, MODEL, "ensemble/server.zip"),
    ];
    for (kind, id, file) in blobs {
        let name = BlobName { tenant: tenant.clone(), kind, id: digest(id) };
        let info = fixture.store.info(&name).await.unwrap();
        assert_eq!((info.sha256, info.created_by.as_str()), (digest(id), "0.1.0"));
        let bytes = support::read(&fixture.store, &name).await.unwrap();
        assert!(bytes == read(file), "{file}");
    }
    let marks = |job: &str| fixture.store.marks(&tenant, job.parse::<JobId>().unwrap());
    let cancelled = marks("01a22bee-2c01-70d4-8867-da2b68584752").await.unwrap();
    assert_eq!(cancelled, Marks { done: true, cancelled: true });
    let done = marks("01a22bee-2c01-70d4-8867-da2abd3ca5e0").await.unwrap();
    assert_eq!(done, Marks { done: true, cancelled: false });
    let key = EvaluationKeyId::new(digest(KEY));
    assert_eq!(fixture.store.released(&tenant, key).await.unwrap(), 12_288);
    let _: u64 = fixture.raw(&["ZADD", "cs:_workers", "1796033367224", "vm-23379"]);
    let workers = fixture.store.workers().await.unwrap();
    let [worker] = workers.as_slice() else { panic!("{workers:?}") };
    assert_eq!((worker.worker.as_str(), worker.version.as_str()), ("vm-23379", "0.1.0"));
    assert_eq!(worker.models, [ModelId::new(digest(MODEL))]);
}
