//! Jobs, from the request to the outputs.

use std::collections::BTreeSet;

use axum::http::StatusCode;
use cipherscore_common::broker::Broker as _;
use cipherscore_common::contract::fixtures::{bytes, tenant};
use cipherscore_common::message::{ErrorCode, Job, MAX_INLINE_BYTES, Outcome, Payload, headers};
use cipherscore_common::topology::{Declare, Lane, Topology, job_queue};
use cipherscore_common::{BlobKind, BlobName, BlobReader, Digest, JobId, MarkStore as _, ModelId};

use super::World;

const OWNER: &str = "00112233445566778899aabbccddeeff";

#[tokio::test]
async fn a_job_goes_to_a_worker_and_its_outputs_come_back() {
    let world = World::new().await;
    let (job, path) = (JobId::random(), world.job_path(JobId::random()));
    let path = path.replace(&path[path.len() - 36..], &job.to_string());
    let said = [("cs-rows", "3"), ("cs-owner-id", OWNER), ("cs-correlation-id", "mine")];
    let answer = world.ask("PUT", &path, &said, b"rows").await;
    assert_eq!(
        (answer.status, answer.header("location")),
        (StatusCode::ACCEPTED, &*format!("/v1/jobs/{job}"))
    );
    assert_eq!(answer.json()["state"], "accepted");
    let at = format!("/v1/jobs/{job}");
    let pending = world.ask("GET", &at, &[], b"").await;
    assert_eq!(
        (pending.status, pending.json()["state"].as_str()),
        (StatusCode::ACCEPTED, Some("pending"))
    );

    let waits = format!("{at}?wait=30s");
    let waits = world.ask("GET", &waits, &[], b"");
    let (ended, (message, published)) = tokio::join!(waits, world.score(b"outputs"));
    // Published by the gateway in the tenant's name.
    assert_eq!(message.user_id.as_deref(), Some("gateway"));
    assert_eq!((published.tenant.as_str(), published.rows), ("bank", 3));
    assert_eq!(published.payload, Payload::Inline(b"rows".to_vec()));
    assert!(message.text(headers::TRACE_PARENT).is_some() && message.published().is_some());
    assert_eq!((ended.status, &ended.body[..]), (StatusCode::OK, &b"outputs"[..]));
    for (name, value) in [
        ("cs-outcome", "scored"),
        ("cs-job-id", &*job.to_string()),
        ("cs-model-id", &*world.model.to_string()),
        ("cs-owner-id", OWNER),
        ("cs-worker", "w-1"),
        ("cs-evaluate-us", "1234"),
        ("cs-correlation-id", "mine"),
        ("cs-protocol-version", "2"),
        ("cs-payload-sha256", &*Digest::of(b"outputs").to_string()),
    ] {
        assert_eq!(ended.header(name), value, "{name}");
    }
    let again = world.ask("GET", &at, &[], b"").await;
    assert_eq!(again.body, b"outputs");
    let head = world.ask("HEAD", &at, &[], b"").await;
    assert_eq!((head.header("content-length"), head.body.len()), ("7", 0));
    assert_eq!(world.ask("DELETE", &at, &[], b"").await.status, StatusCode::NO_CONTENT);
    world.ask("GET", &at, &[], b"").await.refused(410, "job_settled");
    world.ask("PUT", &path, &said, b"rows").await.refused(410, "job_settled");
    assert_eq!(world.ask("DELETE", &at, &[], b"").await.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn the_same_again_is_not_published_again() {
    let world = World::new().await;
    let (job, said) = (JobId::random(), [("cs-rows", "1")]);
    let path = world.job_path(job);
    for state in ["accepted", "known", "known"] {
        let answer = world.ask("PUT", &path, &said, b"rows").await;
        assert_eq!((answer.status, &answer.json()["state"]), (StatusCode::ACCEPTED, &state.into()));
    }
    assert_eq!(world.waiting().await, 1);
    // As a body of the protocol, it is the same job.
    let body = {
        let (_, job) = world.score(b"outputs").await;
        job.to_message().body
    };
    let protocol = [("cs-rows", "1"), ("content-type", "application/vnd.cipherscore.body")];
    let answer = world.ask("PUT", &path, &protocol, &body).await;
    assert_eq!(answer.json()["state"], "known");
    assert_eq!(world.waiting().await, 0);
    world.ask("PUT", &path, &said, b"other").await.refused(409, "job_conflict");
    world.ask("PUT", &path, &[("cs-rows", "2")], b"rows").await.refused(409, "job_conflict");
    let client = [said[0], ("cs-client", "c")];
    world.ask("PUT", &path, &client, b"rows").await.refused(409, "job_conflict");
    // Of another tenant it is another job.
    let shop = world.ask_as(Some(&world.tokens[1]), "PUT", &path, &said, b"other").await;
    assert_eq!(shop.json()["state"], "accepted");
    assert_eq!(world.score(b"x").await.1.tenant, tenant("shop"));
}

#[tokio::test]
async fn many_rows_and_outputs_go_through_the_store_and_leave_it() {
    let world = World::new().await;
    let (job, rows, outputs) = (JobId::random(), bytes(3 << 20), bytes((5 << 20) + 7));
    let (path, at) = (world.job_path(job), format!("/v1/jobs/{job}"));
    let digest = Digest::of(&rows).to_string();
    let said = [("cs-rows", "1"), ("cs-payload-sha256", &*digest)];
    for state in ["accepted", "known"] {
        assert_eq!(world.ask("PUT", &path, &said, &rows).await.json()["state"], state);
    }
    let other = bytes((3 << 20) + 1);
    world.ask("PUT", &path, &said, &other).await.refused(422, "wrong_digest");
    world.ask("PUT", &path, &said[..1], &other).await.refused(409, "job_conflict");
    let new = world.job_path(JobId::random());
    world.ask("PUT", &new, &said, &other).await.refused(422, "wrong_digest");
    assert_eq!(world.blobs("bank", BlobKind::Job).await, 1, "of what was refused nothing is left");
    let name = BlobName { tenant: tenant("bank"), kind: BlobKind::Job, id: Digest::of(&rows) };
    let read = BlobReader::open(&world.store, &name).await.unwrap().read_all(u64::MAX).await;
    assert!(read.unwrap() == rows);
    world.score_large("bank", outputs.clone()).await;
    let answer = world.ask("GET", &format!("{at}?wait=9"), &[], b"").await;
    assert!(answer.status == StatusCode::OK && answer.body == outputs);
    assert_eq!(answer.header("cs-payload-sha256"), Digest::of(&outputs).to_string());
    assert_eq!(world.ask("DELETE", &at, &[], b"").await.status, StatusCode::NO_CONTENT);
    for kind in [BlobKind::Job, BlobKind::Reply] {
        assert_eq!(world.blobs("bank", kind).await, 0, "{kind}");
    }
}

#[tokio::test]
async fn what_just_fits_into_a_message_stays_in_it() {
    let world = World::new().await;
    for (length, stored) in [(MAX_INLINE_BYTES, false), (MAX_INLINE_BYTES + 1, true)] {
        let said = [("cs-rows", "1")];
        let path = world.job_path(JobId::random());
        let answer = world.ask("PUT", &path, &said, &bytes(length)).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED);
        let (_, job) = world.score(b"x").await;
        assert_eq!(matches!(job.payload, Payload::Stored(_)), stored, "{length}");
    }
}

#[tokio::test]
async fn a_job_without_outputs_says_why() {
    let world = World::new().await;
    let job = world.publish(None, b"rows").await;
    let reason = "no such evaluation key".to_owned();
    world.work(|_| Outcome::Failed { code: ErrorCode::KeyMissing, reason }).await;
    let answer = world.ask("GET", &format!("/v1/jobs/{job}?wait=9s"), &[], b"").await;
    answer.refused(422, "key_missing");
    assert_eq!(answer.header("cs-outcome"), "key_missing");
    assert_eq!(answer.json()["detail"], "no such evaluation key");
}

#[tokio::test]
async fn a_job_that_no_queue_takes_is_not_accepted_and_may_come_again() {
    let world = World::new().await;
    let (other, job) = (ModelId::of(b"other"), JobId::random());
    let path = format!("/v1/models/{other}/jobs/{job}");
    let rows = bytes(2 << 20);
    world.ask("PUT", &path, &[("cs-rows", "1")], &rows).await.refused(404, "unknown_model");
    // The rows stay for their lease: another gateway may have accepted the same job, and names them.
    assert_eq!(world.blobs("bank", BlobKind::Job).await, 1);
    world.ask("GET", &format!("/v1/jobs/{job}"), &[], b"").await.refused(404, "unknown_job");
    world.broker.declare(&Topology::of_model(other), Declare::Create).await.unwrap();
    let answer = world.ask("PUT", &path, &[("cs-rows", "1")], &rows).await;
    assert_eq!(answer.json()["state"], "accepted");
    assert_eq!(world.blobs("bank", BlobKind::Job).await, 1);
}

#[tokio::test]
async fn a_job_is_cancelled_and_dropped() {
    let world = World::new().await;
    let [job, dropped] = [world.publish(None, b"1").await, world.publish(None, b"2").await];
    let cancel = world.ask("POST", &format!("/v1/jobs/{job}/cancel"), &[], b"").await;
    assert_eq!(
        (cancel.status, &cancel.json()["state"]),
        (StatusCode::ACCEPTED, &"cancelling".into())
    );
    let at = format!("/v1/jobs/{dropped}");
    assert_eq!(world.ask("DELETE", &at, &[], b"").await.status, StatusCode::NO_CONTENT);
    for job in [job, dropped] {
        assert!(world.store.marks(&tenant("bank"), job).await.unwrap().cancelled);
    }
    // Answered too late, the outputs go.
    let cancelled = |_: &Job| Outcome::Failed { code: ErrorCode::Cancelled, reason: "told".into() };
    world.work(cancelled).await;
    world.score_large("bank", bytes(2 << 20)).await;
    let answer = world.ask("GET", &format!("/v1/jobs/{job}?wait=9s"), &[], b"").await;
    answer.refused(422, "cancelled");
    while world.blobs("bank", BlobKind::Reply).await > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    world.ask("GET", &at, &[], b"").await.refused(410, "job_settled");
    world.ask("POST", &format!("{at}/cancel"), &[], b"").await.refused(410, "job_settled");
}

#[tokio::test]
async fn a_second_reply_changes_nothing() {
    let world = World::new().await;
    let job = world.publish(Some("c"), b"rows").await;
    let (_, published) = world.score(b"first").await;
    let waits = format!("/v1/jobs/{job}?wait=9s");
    assert_eq!(world.ask("GET", &waits, &[], b"").await.body, b"first");
    // Delivered to a second worker, as after a crash of the first one.
    world.broker.as_user("gateway").publish(&published.to_message()).await.unwrap();
    world.score(b"second").await;
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    assert_eq!(world.ask("GET", &waits, &[], b"").await.body, b"first");
}

/// A reply to nobody is gone, and nothing would tell the gateway.
#[tokio::test]
async fn no_job_is_accepted_before_its_reply_has_a_queue() {
    let world = World::new().await;
    let there = world.shared.reply_queues.send_replace(BTreeSet::new());
    let (path, said) = (world.job_path(JobId::random()), [("cs-rows", "1")]);
    world.ask("PUT", &path, &said, b"rows").await.refused(503, "unavailable");
    let queue = job_queue(world.model, Lane::Normal);
    let waiting = || async { world.broker.queue_state(&queue).await.unwrap().unwrap().messages };
    assert_eq!(waiting().await, 0);
    world.shared.reply_queues.send_replace(there);
    assert_eq!(world.ask("PUT", &path, &said, b"rows").await.status, StatusCode::ACCEPTED);
    assert_eq!(waiting().await, 1);
}
