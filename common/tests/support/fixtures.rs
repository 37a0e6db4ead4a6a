//! Jobs and replies with their golden bodies (`*.hex`), and with their properties and headers
//! (`*.json`).

use std::path::PathBuf;
use std::time::Duration;

use cipherscore_common::message::{
    DeadlineClass, ErrorCode, HeaderValue, Job, JobTerms, Message, Outcome, Payload,
    ProtocolVersion, Reply, StoredPayload, Timestamp, Timings,
};
use cipherscore_common::topology::{Lane, ReplyQueue};
use cipherscore_common::{
    Blob, BlobKind, CHUNK_BYTES, Digest, EvaluationKeyId, FormName, JobId, ModelId, OwnerId,
};
use serde_json::{Value, json};

pub(crate) fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// The bytes of an annotated file: pairs of digits in lines, and comments in lines of their own.
pub(crate) fn hex(file: &str) -> Vec<u8> {
    let lines = hex_lines(file);
    let bytes = lines.iter().flat_map(|line| line.split(' '));
    bytes.map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

pub(crate) fn hex_lines(file: &str) -> Vec<String> {
    let lines = text(&format!("{file}.hex"));
    lines.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

pub(crate) fn text(file: &str) -> String {
    std::fs::read_to_string(folder().join(file)).unwrap()
}

/// Properties and headers, as the JSON beside a body has them.
pub(crate) fn envelope(message: &Message) -> Value {
    let headers = message.headers.iter().map(|(name, value)| match value {
        HeaderValue::Text(text) => (name.clone(), json!(text)),
        HeaderValue::Integer(number) => (name.clone(), json!(number)),
    });
    let mut all = json!({
        "exchange": message.exchange,
        "routing_key": message.routing_key,
        "headers": headers.collect::<serde_json::Map<_, _>>(),
    });
    let optional = [
        ("type", &message.kind),
        ("message_id", &message.message_id),
        ("correlation_id", &message.correlation_id),
        ("reply_to", &message.reply_to),
        ("user_id", &message.user_id),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            all[name] = json!(value);
        }
    }
    all
}

fn id() -> JobId {
    "0190a0a1-b2c3-7d4e-8f90-0123456789ab".parse().unwrap()
}

fn inline() -> Payload {
    Payload::Inline(vec![0xc0, 0xff, 0xee, 0x00, 0x01])
}

fn stored(kind: BlobKind) -> StoredPayload {
    let bytes = vec![0; CHUNK_BYTES + 100];
    Blob::payload(&"bank-7".parse().unwrap(), kind, bytes).unwrap().1
}

pub(crate) fn reply_queue() -> ReplyQueue {
    "cs.reply.bank-7.client-1".parse().unwrap()
}

/// With everything that a job of version 1 may have.
pub(crate) fn job_inline() -> Job {
    Job {
        version: ProtocolVersion::V1,
        id: id(),
        tenant: "bank-7".parse().unwrap(),
        reply_to: reply_queue(),
        correlation_id: Some("batch 17".into()),
        model_id: ModelId::new(Digest::of(b"a server.zip")),
        lane: Lane::High,
        key_id: Some(EvaluationKeyId::new(Digest::of(b"an evaluation key"))),
        rows: 3,
        deadline: Some(Timestamp::from_millis(1_700_000_060_000)),
        terms: JobTerms::default(),
        attempt: 0,
        trace: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse().unwrap()),
        payload: inline(),
    }
}

/// With nothing that it need not have, and put off twice.
pub(crate) fn job_stored() -> Job {
    Job {
        correlation_id: None,
        lane: Lane::Normal,
        key_id: None,
        rows: 4096,
        deadline: None,
        attempt: 2,
        trace: None,
        payload: Payload::Stored(stored(BlobKind::Job)),
        ..job_inline()
    }
}

pub(crate) fn reply_scored_inline() -> Reply {
    let job = job_inline();
    let timings =
        Timings { key: Duration::from_micros(89), evaluate: Duration::from_micros(1_234_567) };
    Reply {
        version: job.version,
        job: job.id,
        correlation_id: job.correlation_id,
        model_id: Some(job.model_id),
        owner_id: None,
        manifest_id: None,
        worker: "worker-0".into(),
        timings,
        trace: job.trace,
        outcome: Outcome::Scored(inline()),
    }
}

pub(crate) fn reply_scored_stored() -> Reply {
    let outcome = Outcome::Scored(Payload::Stored(stored(BlobKind::Reply)));
    Reply { correlation_id: None, trace: None, outcome, ..reply_scored_inline() }
}

fn owner() -> Option<OwnerId> {
    Some("00112233445566778899aabbccddeeff".parse().unwrap())
}

fn manifest() -> Option<Digest> {
    Some(Digest::of(b"a manifest"))
}

/// With everything that a job of version 2 may have.
pub(crate) fn job_inline_v2() -> Job {
    let terms = JobTerms {
        owner_id: owner(),
        form: Some(FormName::Rows),
        planned: Some(Duration::from_micros(4_400)),
        deadline_class: Some(DeadlineClass::Immediate),
        manifest_id: manifest(),
    };
    Job { version: ProtocolVersion::V2, terms, ..job_inline() }
}

/// With nothing that it need not have.
pub(crate) fn job_stored_v2() -> Job {
    Job { version: ProtocolVersion::V2, ..job_stored() }
}

pub(crate) fn reply_scored_inline_v2() -> Reply {
    let version = ProtocolVersion::V2;
    Reply { version, owner_id: owner(), manifest_id: manifest(), ..reply_scored_inline() }
}

pub(crate) fn reply_scored_stored_v2() -> Reply {
    Reply { version: ProtocolVersion::V2, ..reply_scored_stored() }
}

pub(crate) fn reply_failed_v2() -> Reply {
    Reply { version: ProtocolVersion::V2, ..reply_failed() }
}

/// To a job of which hardly anything could be read.
pub(crate) fn reply_failed() -> Reply {
    let reason = "no such evaluation key: Größe 0".into();
    Reply {
        model_id: None,
        timings: Timings::default(),
        outcome: Outcome::Failed { code: ErrorCode::KeyMissing, reason },
        ..reply_scored_stored()
    }
}
