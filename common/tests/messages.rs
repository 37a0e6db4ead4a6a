//! Jobs and replies are written as they always were, read back as they were written, and refused
//! when they are anything else.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

#[path = "support/fixtures.rs"]
mod fixtures;

use cipherscore_common::message::{
    ErrorCode, HeaderValue, Job, JobTerms, MAX_BODY_BYTES, MAX_CORRELATION_BYTES, MAX_INLINE_BYTES,
    MAX_PLANNED, MAX_REASON_BYTES, Message, Outcome, Payload, ProtocolVersion, Refusal, Reply,
    StoredPayload, headers,
};
use cipherscore_common::{CHUNK_BYTES, Digest, MAX_BLOB_BYTES, MAX_WORKER_LENGTH};
use fixtures::{
    envelope, folder, hex, hex_lines, job_inline, job_inline_v2, job_stored, job_stored_v2,
    reply_failed, reply_failed_v2, reply_queue, reply_scored_inline, reply_scored_inline_v2,
    reply_scored_stored, reply_scored_stored_v2, text,
};

fn jobs() -> [(&'static str, Job); 4] {
    [
        ("job-inline", job_inline()),
        ("job-stored", job_stored()),
        ("job-inline-v2", job_inline_v2()),
        ("job-stored-v2", job_stored_v2()),
    ]
}

fn replies() -> [(&'static str, Reply); 6] {
    [
        ("reply-scored-inline", reply_scored_inline()),
        ("reply-scored-stored", reply_scored_stored()),
        ("reply-failed", reply_failed()),
        ("reply-scored-inline-v2", reply_scored_inline_v2()),
        ("reply-scored-stored-v2", reply_scored_stored_v2()),
        ("reply-failed-v2", reply_failed_v2()),
    ]
}

fn is_golden(name: &str, message: &Message) {
    assert_eq!(message.body, hex(name), "{name}");
    let expected: serde_json::Value = serde_json::from_str(&text(&format!("{name}.json"))).unwrap();
    assert_eq!(envelope(message), expected, "{name}");
}

#[test]
fn messages_are_the_golden_ones_and_read_back() {
    for (name, job) in jobs() {
        let message = job.to_message();
        is_golden(name, &message);
        assert_eq!(message.has_payload(), matches!(job.payload, Payload::Inline(_)), "{name}");
        assert_eq!(Job::from_message(&message), Ok(job), "{name}");
    }
    for (name, reply) in replies() {
        let message = reply.to_message(&reply_queue());
        is_golden(name, &message);
        assert_eq!(Reply::from_message(&message), Ok(reply), "{name}");
    }
}

#[test]
fn every_truncation_is_refused() {
    for (name, job) in jobs() {
        let whole = job.to_message();
        for length in 0..whole.body.len() {
            let body = whole.body[..length].to_vec();
            let refusal = Job::from_message(&Message { body, ..whole.clone() }).unwrap_err();
            assert_eq!(refusal.code, ErrorCode::Malformed, "{length} bytes of {name}");
        }
    }
    for (name, reply) in replies() {
        let whole = reply.to_message(&reply_queue());
        for length in 0..whole.body.len() {
            let body = whole.body[..length].to_vec();
            let refusal = Reply::from_message(&Message { body, ..whole.clone() }).unwrap_err();
            assert_eq!(refusal.code, ErrorCode::Malformed, "{length} bytes of {name}");
        }
    }
}

/// One file for each way of being malformed; its first line says how it is refused.
#[test]
fn malformed_bodies_are_refused() {
    let mut seen = 0;
    for file in std::fs::read_dir(folder().join("malformed")).unwrap() {
        let name = file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned();
        let file = format!("malformed/{name}");
        let lines = text(&format!("{file}.hex"));
        let expected = lines.lines().next().unwrap().strip_prefix("# ").unwrap();
        let (code, reason) = expected.split_once(": ").unwrap();
        let body = if hex_lines(&file).is_empty() { Vec::new() } else { hex(&file) };
        let refusals = match name.split_once('-').unwrap().0 {
            "payload" => [
                Job::from_message(&Message { body: body.clone(), ..job_inline().to_message() })
                    .err(),
                refused_reply(&reply_scored_inline(), body),
            ],
            _ => [refused_reply(&reply_failed(), body), None],
        };
        for refusal in refusals.into_iter().flatten() {
            assert_eq!(refusal.code.as_str(), code, "{name}: {refusal:?}");
            assert!(refusal.reason.contains(reason), "{name}: {refusal:?}");
            seen += 1;
        }
    }
    assert_eq!(seen, 21 * 2 + 7, "a file is missing, or was not refused");
}

fn refused_reply(reply: &Reply, body: Vec<u8>) -> Option<Refusal> {
    Reply::from_message(&Message { body, ..reply.to_message(&reply_queue()) }).err()
}

#[test]
fn sizes_are_bounded() {
    let of = |length| Job { payload: Payload::Inline(vec![7; length]), ..job_inline_v2() };
    let largest = of(MAX_INLINE_BYTES);
    let message = largest.to_message();
    assert_eq!(message.body.len(), MAX_BODY_BYTES);
    assert_eq!(Job::from_message(&message), Ok(largest));
    let refusal = Job::from_message(&of(MAX_INLINE_BYTES + 1).to_message()).unwrap_err();
    assert_eq!(refusal.code, ErrorCode::TooLarge);
    // Programs of version 1 write more into a message.
    let older = Job { version: ProtocolVersion::V1, terms: JobTerms::default(), ..of(1 << 20) };
    assert_eq!(older.to_message().body.len(), MAX_BODY_BYTES);
    assert_eq!(Job::from_message(&older.to_message()), Ok(older));

    let of = |bytes, chunks| {
        let (sha256, chunks) = (Digest::of(b"all"), vec![Digest::of(b"chunk"); chunks]);
        Job { payload: Payload::Stored(StoredPayload { sha256, bytes, chunks }), ..job_inline() }
    };
    let chunks = usize::try_from(MAX_BLOB_BYTES).unwrap() / CHUNK_BYTES;
    assert!(Job::from_message(&of(MAX_BLOB_BYTES, chunks).to_message()).is_ok());
    for (bytes, chunks) in [(MAX_BLOB_BYTES + 1, chunks + 1), (0, 0), (u64::MAX, 1), (1, 2)] {
        let refusal = Job::from_message(&of(bytes, chunks).to_message()).unwrap_err();
        assert!(refusal.reason.contains("stored bytes"), "{refusal:?}");
    }

    let of = |length| Job { correlation_id: Some("x".repeat(length)), ..job_inline() };
    assert!(Job::from_message(&of(MAX_CORRELATION_BYTES).to_message()).is_ok());
    let refusal = Job::from_message(&of(MAX_CORRELATION_BYTES + 1).to_message()).unwrap_err();
    assert_eq!(refusal.code, ErrorCode::Malformed);

    let of = |length| Reply { worker: "x".repeat(length), ..reply_failed() };
    assert!(Reply::from_message(&of(MAX_WORKER_LENGTH).to_message(&reply_queue())).is_ok());
    assert!(Reply::from_message(&of(MAX_WORKER_LENGTH + 1).to_message(&reply_queue())).is_err());

    // Cut before the character that does not fit.
    let reason = format!("{}ü", "x".repeat(MAX_REASON_BYTES - 1));
    let outcome = Outcome::Failed { code: ErrorCode::Internal, reason: reason.clone() };
    let message = Reply { outcome, ..reply_failed() }.to_message(&reply_queue());
    match Reply::from_message(&message).unwrap().outcome {
        Outcome::Failed { reason: read, .. } => assert_eq!(read, reason[..MAX_REASON_BYTES - 1]),
        outcome => panic!("{outcome:?}"),
    }
    let mut message = reply_failed().to_message(&reply_queue());
    message.body.truncate(2);
    message.body.extend((MAX_REASON_BYTES as u64 + 1).to_le_bytes());
    message.body.extend(vec![b'x'; MAX_REASON_BYTES + 1]);
    let refusal = Reply::from_message(&message).unwrap_err();
    assert!(refusal.reason.contains("4097"), "{refusal:?}");
}

#[derive(Clone, Copy, PartialEq)]
enum Header {
    Required,
    Optional,
    /// What is not understood is as if it were not there.
    Lenient,
}
use Header::{Lenient, Optional, Required};

/// Each header, missing, of the wrong type, and with values that it must not have.
#[test]
fn headers_are_checked_each() {
    let long = "9".repeat(400);
    let job: &[(&str, Header, &[HeaderValue])] = &[
        (headers::MODEL_ID, Required, &["".into(), "A".into(), long.as_str().into()]),
        (headers::TENANT, Required, &["".into(), "a:b".into(), long.as_str().into()]),
        (headers::ROWS, Required, &[HeaderValue::Integer(-1), HeaderValue::Integer(1 << 32)]),
        (headers::KEY_ID, Optional, &["".into(), "A".into()]),
        (headers::LANE, Optional, &["".into(), "High".into()]),
        (headers::DEADLINE, Optional, &[HeaderValue::Integer(-1)]),
        (headers::ATTEMPT, Optional, &[HeaderValue::Integer(-1), HeaderValue::Integer(1 << 32)]),
        (headers::TRACE_PARENT, Lenient, &["".into(), "01-2-3-4".into()]),
    ];
    check_headers(&job_inline().to_message(), job, |message| Job::from_message(message).err());
    let reply: &[(&str, Header, &[HeaderValue])] = &[
        (headers::JOB_ID, Required, &["".into(), "7".into()]),
        (headers::OUTCOME, Required, &["".into(), "Scored".into(), long.as_str().into()]),
        (headers::MODEL_ID, Optional, &["".into()]),
        (headers::WORKER, Optional, &[long.as_str().into()]),
        (headers::KEY_TIME, Optional, &[HeaderValue::Integer(-1)]),
        (headers::EVALUATE_TIME, Optional, &[HeaderValue::Integer(-1)]),
        (headers::TRACE_PARENT, Lenient, &["".into()]),
    ];
    let message = reply_scored_inline().to_message(&reply_queue());
    check_headers(&message, reply, |message| Reply::from_message(message).err());
}

/// What version 2 has beside version 1: of job and reply.
#[test]
fn headers_of_version_2_are_checked_each() {
    let (one, many) = (HeaderValue::Integer(-1), HeaderValue::Integer(86_400_000_001));
    let common = job_inline().to_message().headers;
    let mut job = job_inline_v2().to_message();
    job.headers.retain(|name, _| !common.contains_key(name));
    job.headers.extend(
        ["cs-tenant", "cs-model-id", "cs-rows"].map(|name| (name.to_owned(), common[name].clone())),
    );
    let expected: &[(&str, Header, &[HeaderValue])] = &[
        (headers::TENANT, Required, &[]),
        (headers::MODEL_ID, Required, &[]),
        (headers::ROWS, Required, &[]),
        (headers::FORM, Optional, &["".into(), "Rows".into(), "columns".into()]),
        (headers::PLANNED, Optional, &[one, many]),
        (headers::DEADLINE_CLASS, Lenient, &["".into(), "Immediate".into(), "soon".into()]),
        (headers::MANIFEST_ID, Optional, &["".into(), "A".into()]),
    ];
    check_headers(&job, expected, |message| Job::from_message(message).err());
    let (longest, message) = (MAX_PLANNED, job_inline_v2());
    let terms = JobTerms { planned: Some(longest), ..message.terms };
    let longest = Job { terms, ..message };
    assert_eq!(Job::from_message(&longest.to_message()), Ok(longest));

    let common = reply_failed().to_message(&reply_queue()).headers;
    let mut reply = reply_scored_inline_v2().to_message(&reply_queue());
    reply.headers.retain(|name, _| name == headers::MANIFEST_ID || common.contains_key(name));
    let expected: &[(&str, Header, &[HeaderValue])] = &[
        (headers::JOB_ID, Required, &[]),
        (headers::OUTCOME, Required, &[]),
        (headers::WORKER, Optional, &[]),
        (headers::KEY_TIME, Optional, &[]),
        (headers::EVALUATE_TIME, Optional, &[]),
        (headers::MANIFEST_ID, Optional, &["".into(), "A".into()]),
    ];
    check_headers(&reply, expected, |message| Reply::from_message(message).err());
}

/// Version 1 has none of them, so that whatever a job of version 1 says there is nobody's word.
#[test]
fn headers_of_version_2_are_not_read_in_version_1() {
    let mut job = job_inline().to_message();
    let mut reply = reply_scored_inline().to_message(&reply_queue());
    for (name, wrong) in [
        (headers::FORM, "columns"),
        (headers::PLANNED, "long"),
        (headers::DEADLINE_CLASS, "immediate"),
        (headers::MANIFEST_ID, "none"),
    ] {
        job.set(name, wrong);
        reply.set(name, wrong);
    }
    assert_eq!(Job::from_message(&job), Ok(job_inline()));
    assert_eq!(Reply::from_message(&reply), Ok(reply_scored_inline()));
}

/// In every version whatever a program does not know is as if it were not there.
#[test]
fn other_headers_are_ignored() {
    for (_, job) in jobs() {
        let mut message = job.to_message();
        message.set("cs-opt-colour", "red");
        message.set("x-anything", 7_u32);
        assert_eq!(Job::from_message(&message), Ok(job));
    }
}

#[test]
fn a_message_says_its_version() {
    assert_eq!(job_inline().to_message().version(), ProtocolVersion::V1);
    assert_eq!(job_inline_v2().to_message().version(), ProtocolVersion::V2);
    for unknown in [hex("malformed/payload-version-3"), vec![1], Vec::new()] {
        let message = Message { body: unknown, ..job_inline().to_message() };
        assert_eq!(message.version(), ProtocolVersion::OLDEST);
    }
}

fn check_headers(
    good: &Message,
    expected: &[(&str, Header, &[HeaderValue])],
    refusal: impl Fn(&Message) -> Option<Refusal>,
) {
    let names: Vec<_> = expected.iter().map(|(name, ..)| *name).collect();
    assert!(good.headers.keys().all(|name| names.contains(&name.as_str())), "{names:?}");
    for (name, header, wrong) in expected {
        let mut missing = good.clone();
        let value = missing.headers.remove(*name).unwrap();
        assert_eq!(refusal(&missing).is_some(), *header == Required, "{name} is missing");
        let other_type = match value {
            HeaderValue::Text(_) => HeaderValue::Integer(1),
            HeaderValue::Integer(number) => HeaderValue::Text(number.to_string()),
        };
        for value in wrong.iter().chain([&other_type]) {
            let mut message = good.clone();
            message.set(name, value.clone());
            let refusal = refusal(&message);
            assert_eq!(refusal.is_none(), *header == Lenient, "{name} is {value:?}");
            let Some(Refusal { code, reason }) = refusal else { continue };
            assert!(code == ErrorCode::Malformed && reason.contains(name), "{reason}");
        }
    }
}

#[test]
fn properties_are_checked_each() {
    let job = job_inline().to_message();
    let some = |text: &str| Some(text.to_owned());
    for message in [
        Message { kind: None, ..job.clone() },
        Message { kind: some("cipherscore.reply"), ..job.clone() },
        Message { message_id: None, ..job.clone() },
        Message { message_id: some("7"), ..job.clone() },
        Message { reply_to: None, ..job.clone() },
        Message { reply_to: some("cs.dead"), ..job.clone() },
        Message { reply_to: some("cs.reply.bank-7"), ..job.clone() },
        Message { reply_to: some("cs.reply.bank-7.client-1.more"), ..job.clone() },
    ] {
        assert_eq!(Job::from_message(&message).unwrap_err().code, ErrorCode::Malformed);
    }
    let reply = reply_failed().to_message(&reply_queue());
    let other = Message { kind: some("cipherscore.job"), ..reply };
    assert_eq!(Reply::from_message(&other).unwrap_err().code, ErrorCode::Malformed);
}

/// A newer version may have other headers: that it is newer is what is said about it.
#[test]
fn another_version_is_told_from_a_malformed_message() {
    let mut job = job_inline().to_message();
    job.headers.clear();
    job.body = hex("malformed/payload-version-3");
    assert_eq!(Job::from_message(&job).unwrap_err().code, ErrorCode::UnsupportedVersion);
}

#[test]
fn a_code_of_a_newer_worker_is_an_internal_error() {
    let mut reply = reply_failed().to_message(&reply_queue());
    reply.set(headers::OUTCOME, "quota_exceeded");
    let reason = "quota_exceeded: no such evaluation key: Größe 0".into();
    let expected = Outcome::Failed { code: ErrorCode::Internal, reason };
    assert_eq!(Reply::from_message(&reply).unwrap().outcome, expected);
}

#[test]
fn error_codes_keep_their_texts() {
    let codes: Vec<_> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
    let expected = [
        "malformed",
        "unsupported_version",
        "unknown_model",
        "too_large",
        "wrong_shape",
        "key_missing",
        "wrong_digest",
        "not_conformant",
        "blob_missing",
        "forbidden",
        "deadline_exceeded",
        "cancelled",
        "internal",
        "poison",
        "wrong_owner",
    ];
    assert_eq!(codes, expected);
}
