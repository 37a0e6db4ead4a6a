//! Messages and the store's keys as an earlier version wrote them: `testdata/frozen`.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use cipherscore_common::message::{
    HeaderValue, Job, JobTerms, Message, Outcome, Payload, ProtocolVersion, Reply, Timestamp,
    Timings,
};
use cipherscore_common::topology::Lane;
use cipherscore_common::{
    BlobKind, BlobName, BlobStore, Digest, EvaluationKeyId, JobId, MarkStore, Marks, ModelId,
    OwnerId, PresenceStore, ReleaseStore, Tenant,
};
use serde_json::Value;
use support::private_redis::Fixture;

const MODEL: &str = "231f1bfe0463c6df61c2de9e134a71f074554820b461af9cd3eb420078d427e4";
const KEY: &str = "81a59e20a74cf1e579c336a37ea108035fb969148297778232330fb4ba93c354";
const JOB: &str = "01a22bef-a522-72b6-84cd-cf5f579f9b1e";
/// Digest of the reply's outputs.
const REPLY_PAYLOAD: &str = "db00c0e5bc6d735da617e2d1dc4e877fe6c99ef4b97ed7e0a9b5047d9dadd5cc";
/// The same of version 2.
const KEY_V1: &str = "af5f9b272883fd307e4c3eb3ff8a848e0b24fcd08e429bcfa780480a14e5bbc5";
const REPLY_PAYLOAD_V1: &str = "9f22ded5c0f6286b2ee923e1b2fe8f3b3e2ba194053ef11d568b149327eac6ce";
/// Magic, version and number of rows, which a file of rows has before what a message carries.
const ROWS_HEADER_BYTES: usize = 12;

fn read(name: &str) -> Vec<u8> {
    read_in("v0", name)
}

fn read_in(corpus: &str, name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/frozen");
    std::fs::read(folder.join(corpus).join(name)).unwrap()
}

fn digest(id: &str) -> Digest {
    id.parse().unwrap()
}

/// A message as it was at the broker.
fn message(corpus: &str, name: &str) -> Message {
    let read = |end: &str| read_in(corpus, &format!("message/{name}.{end}"));
    let envelope: Value = serde_json::from_slice(&read("json")).unwrap();
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
        content_type: None,
        user_id: text("user_id"),
        headers: headers.collect::<BTreeMap<_, _>>(),
        body: read("body"),
    }
}

#[test]
fn the_job_is_what_it_was() {
    let message = message("v0", "job");
    let job = Job::from_message(&message).unwrap();
    let expected = Job {
        version: ProtocolVersion::V1,
        id: JOB.parse().unwrap(),
        tenant: "default".parse().unwrap(),
        reply_to: "cs.reply.default.producer-35a127254943".parse().unwrap(),
        correlation_id: None,
        model_id: ModelId::new(digest(MODEL)),
        lane: Lane::Normal,
        key_id: Some(EvaluationKeyId::new(digest(KEY))),
        rows: 6,
        deadline: Some(Timestamp::from_millis(2_111_393_455_394)),
        terms: JobTerms::default(),
        attempt: 0,
        trace: Some("00-d7ed81ab0ee047c6a4bc97839771a44c-8ce0afe03c3aba4e-01".parse().unwrap()),
        payload: Payload::Inline(read("ensemble/rows.bin").split_off(ROWS_HEADER_BYTES)),
    };
    assert!(job == expected, "{job:?}, and not {expected:?}");
    assert!(job.to_message().body == message.body, "it is written in another way");
}

#[test]
fn the_reply_is_what_it_was() {
    let message = message("v0", "reply");
    let reply = Reply::from_message(&message).unwrap();
    let outputs = read("ensemble/results.bin").split_off(ROWS_HEADER_BYTES);
    let Outcome::Scored(Payload::Inline(found)) = &reply.outcome else { panic!("{reply:?}") };
    // Replies are hidden by randomness of their own: two of one job differ.
    assert_eq!(found.len(), outputs.len());
    assert_eq!(Digest::of(found).to_string(), REPLY_PAYLOAD);
    let expected = Reply {
        version: ProtocolVersion::V1,
        job: JOB.parse().unwrap(),
        correlation_id: None,
        model_id: Some(ModelId::new(digest(MODEL))),
        owner_id: None,
        manifest_id: None,
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

/// Of version 2, with an owner id.
#[test]
fn the_job_and_the_reply_of_version_2_are_what_they_were() {
    let owner_id: OwnerId = "c646aec53ef11e56f74754594025651b".parse().unwrap();
    let sent = message("v1", "job");
    let rows = read_in("v1", "ensemble/rows.bin").split_off(ROWS_HEADER_BYTES);
    assert_eq!(rows[..16], owner_id.to_bytes());
    let trace = "00-b84faddeacf943d59f29f0adaa14f8ed-869d700a70513565-01";
    let job = Job {
        version: ProtocolVersion::V2,
        id: "01a22d03-42e0-7647-ac16-f5b53308afc9".parse().unwrap(),
        tenant: "default".parse().unwrap(),
        reply_to: "cs.reply.default.producer-24f40eb52b3a".parse().unwrap(),
        correlation_id: None,
        model_id: ModelId::new(digest(MODEL)),
        lane: Lane::Normal,
        key_id: Some(EvaluationKeyId::new(digest(KEY_V1))),
        rows: 6,
        deadline: Some(Timestamp::from_millis(2_111_411_518_176)),
        terms: JobTerms { owner_id: Some(owner_id), ..JobTerms::default() },
        attempt: 0,
        trace: Some(trace.parse().unwrap()),
        payload: Payload::Inline(rows[16..].to_vec()),
    };
    let found = Job::from_message(&sent).unwrap();
    assert!(found == job, "{found:?}, and not {job:?}");
    assert!(job.to_message().body == sent.body, "it is written in another way");

    let answered = message("v1", "reply");
    let reply = Reply::from_message(&answered).unwrap();
    let Outcome::Scored(Payload::Inline(outputs)) = &reply.outcome else { panic!("{reply:?}") };
    assert_eq!(Digest::of(outputs).to_string(), REPLY_PAYLOAD_V1);
    let expected = Reply {
        version: ProtocolVersion::V2,
        job: job.id,
        correlation_id: None,
        model_id: Some(job.model_id),
        owner_id: Some(owner_id),
        manifest_id: None,
        worker: "frozen-worker".to_owned(),
        timings: Timings {
            key: Duration::from_micros(896),
            evaluate: Duration::from_micros(16019),
        },
        trace: Some(trace.parse().unwrap()),
        outcome: Outcome::Scored(Payload::Inline(outputs.clone())),
    };
    assert!(reply == expected, "{reply:?}, and not {expected:?}");
    assert!(reply.to_message(&job.reply_to).body == answered.body, "it is written in another way");
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
