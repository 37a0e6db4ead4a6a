//! Every job and reply reads back, and no bytes make reading panic.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::time::Duration;

use cipherscore_common::message::{
    DeadlineClass, ErrorCode, HeaderValue, Job, JobTerms, MAX_CORRELATION_BYTES, MAX_PLANNED,
    MAX_REASON_BYTES, Message, Outcome, Payload, ProtocolVersion, Reply, StoredPayload, Timestamp,
    Timings, TraceParent, headers,
};
use cipherscore_common::topology::{Lane, ReplyQueue};
use cipherscore_common::{
    CHUNK_BYTES, Digest, EvaluationKeyId, FormName, JobId, MAX_BLOB_BYTES, ModelId, OwnerId, Tenant,
};
use proptest::collection::{btree_map, vec};
use proptest::option::of;
use proptest::prelude::*;

fn digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 4]>().prop_map(|bytes| Digest::of(&bytes))
}

fn tenant() -> impl Strategy<Value = Tenant> {
    "[a-z0-9-]{1,64}".prop_map(|name| name.parse().unwrap())
}

fn correlation() -> impl Strategy<Value = Option<String>> {
    of(any::<String>().prop_filter("too long", |text| text.len() <= MAX_CORRELATION_BYTES))
}

fn trace() -> impl Strategy<Value = Option<TraceParent>> {
    of((1..u128::MAX, 1..u64::MAX, any::<u8>())
        .prop_map(|(id, parent, flags)| format!("00-{id:032x}-{parent:016x}-{flags:02x}"))
        .prop_map(|text| text.parse().unwrap()))
}

fn payload() -> impl Strategy<Value = Payload> {
    let stored = (digest(), 1..=MAX_BLOB_BYTES, digest()).prop_map(|(sha256, bytes, chunk)| {
        let chunks = usize::try_from(bytes.div_ceil(CHUNK_BYTES as u64)).unwrap();
        Payload::Stored(StoredPayload { sha256, bytes, chunks: vec![chunk; chunks] })
    });
    prop_oneof![vec(any::<u8>(), 0..2000).prop_map(Payload::Inline), stored]
}

fn owner() -> impl Strategy<Value = Option<OwnerId>> {
    any::<[u8; 16]>().prop_map(OwnerId::from_bytes)
}

/// A version, and what jobs say in it.
fn terms() -> impl Strategy<Value = (ProtocolVersion, JobTerms)> {
    let most = u64::try_from(MAX_PLANNED.as_micros()).unwrap();
    let planned = of((0..=most).prop_map(Duration::from_micros));
    let class = of(proptest::sample::select(&DeadlineClass::ALL[..]));
    let form = of(prop::sample::select(&FormName::ALL[..]));
    let newest = (owner(), form, planned, class, of(digest()));
    let newest = newest.prop_map(|(owner_id, form, planned, deadline_class, manifest_id)| {
        let terms = JobTerms { owner_id, form, planned, deadline_class, manifest_id };
        (ProtocolVersion::V2, terms)
    });
    prop_oneof![Just((ProtocolVersion::V1, JobTerms::default())), newest]
}

fn job() -> impl Strategy<Value = Job> {
    let lane = prop_oneof![Just(Lane::High), Just(Lane::Normal)];
    let names = (any::<[u8; 16]>(), tenant(), "[a-z0-9-]{1,64}", correlation(), digest());
    let deadline = of((0..u64::MAX / 2).prop_map(Timestamp::from_millis));
    let rest = (of(digest()), any::<u32>(), deadline, any::<u32>(), trace(), payload());
    (names, lane, rest, terms()).prop_map(|(names, lane, rest, (version, terms))| {
        let (id, tenant, client, correlation_id, model) = names;
        let (key, rows, deadline, attempt, trace, payload) = rest;
        Job {
            version,
            id: JobId::from_bytes(id),
            reply_to: ReplyQueue::new(&tenant, &client).unwrap(),
            tenant,
            correlation_id,
            model_id: ModelId::new(model),
            lane,
            key_id: key.map(EvaluationKeyId::new),
            rows,
            deadline,
            terms,
            attempt,
            trace,
            payload,
        }
    })
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let short = |reason: &String| reason.len() <= MAX_REASON_BYTES;
    let reason = any::<String>().prop_filter("too long", short);
    let failed = (proptest::sample::select(ErrorCode::ALL), reason)
        .prop_map(|(code, reason)| Outcome::Failed { code, reason });
    prop_oneof![payload().prop_map(Outcome::Scored), failed]
}

fn reply() -> impl Strategy<Value = Reply> {
    let micros = || (0..u64::MAX / 2).prop_map(Duration::from_micros);
    let names = (any::<[u8; 16]>(), correlation(), of(digest()), "[a-zA-Z0-9._-]{0,128}");
    (names, micros(), micros(), trace(), outcome(), terms()).prop_map(
        |(names, key, evaluate, trace, outcome, (version, terms))| {
            let (job, correlation_id, model, worker) = names;
            Reply {
                version,
                job: JobId::from_bytes(job),
                correlation_id,
                model_id: model.map(ModelId::new),
                owner_id: terms.owner_id.filter(|_| matches!(outcome, Outcome::Scored(_))),
                manifest_id: terms.manifest_id,
                worker,
                timings: Timings { key, evaluate },
                trace,
                outcome,
            }
        },
    )
}

/// A message that a stranger made: with our names, so that reading goes far.
fn strange() -> impl Strategy<Value = Message> {
    let names = [
        headers::MODEL_ID,
        headers::KEY_ID,
        headers::TENANT,
        headers::ROWS,
        headers::DEADLINE,
        headers::ATTEMPT,
        headers::LANE,
        headers::TRACE_PARENT,
        headers::JOB_ID,
        headers::OUTCOME,
        headers::WORKER,
        headers::KEY_TIME,
        headers::EVALUATE_TIME,
    ];
    let value = prop_oneof![
        any::<String>().prop_map(HeaderValue::Text),
        any::<i64>().prop_map(HeaderValue::Integer),
        Just(HeaderValue::Text("scored".into())),
    ];
    let name = proptest::sample::select(names.to_vec()).prop_map(str::to_owned);
    let body = (
        prop_oneof![Just(vec![]), Just(vec![1, 0]), Just(vec![1, 0, 1, 0, 0, 0])],
        vec(any::<u8>(), 0..200),
    );
    (job(), of(any::<String>()), btree_map(name, value, 0..4), body).prop_map(
        |(job, id, headers, (start, rest))| {
            let mut message = job.to_message();
            message.message_id = id.or(message.message_id);
            message.headers.extend(headers);
            message.body = [start, rest].concat();
            message
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_job_reads_back(job in job()) {
        prop_assert_eq!(Job::from_message(&job.to_message()), Ok(job));
    }

    #[test]
    fn every_reply_reads_back(reply in reply()) {
        let queue: ReplyQueue = "cs.reply.a.b".parse().unwrap();
        prop_assert_eq!(Reply::from_message(&reply.to_message(&queue)), Ok(reply));
    }

    /// Whatever is read as a job or reply is written as the same bytes again: no two bodies say
    /// the same.
    #[test]
    fn no_message_makes_reading_panic(mut message in strange()) {
        if let Ok(job) = Job::from_message(&message) {
            prop_assert_eq!(&job.to_message().body, &message.body);
        }
        let _ = (message.job_id(), message.reply_queue(), message.model_id());
        message.kind = Some("cipherscore.reply".into());
        let _ = Reply::from_message(&message);
    }
}
