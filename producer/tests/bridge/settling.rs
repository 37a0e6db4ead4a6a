//! What is settled, and when; what is a dead letter; what waits.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cipherscore_common::broker::Broker;
use cipherscore_common::message::{ErrorCode, headers};
use cipherscore_common::topology::{Binding, Declare, Queue, Topology};

use super::support::{Bridge, SHOP, event, message, parse, settings, shop, take, waiting};
use crate::support::{Conduct, LINEAR, Owner, Services, TREE, Worker, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_refuses_leaves_events_with_their_source() {
    let (services, owner) = (Services::default(), Owner::new(LINEAR));
    let _worker = Worker::start(&services, &owner, |_, _| Conduct::Answer).await;
    let shop = shop(&["events", "dead"]).await;
    for id in 0..10 {
        shop.publish(&message("events", event(&owner, id).to_string())).await.unwrap();
    }
    // There is no queue for scores.
    let bridge = Bridge::of_queues(&services, settings(&owner), &shop).await;
    until(|| bridge.state.readiness().waiting.contains_key("sink")).await;
    let said = bridge.state.readiness();
    assert!(!said.ready && said.waiting["sink"].contains("no queue takes"), "{said:?}");
    assert_eq!((bridge.state.counts().scored, waiting(&shop, "dead").await), (0, 0));
    bridge.kill().await;
    assert_eq!(waiting(&shop, "events").await, 10);

    let bridge = Bridge::of_queues(&services, settings(&owner), &shop).await;
    until(|| bridge.state.counts().taken == 10).await;
    let scores = Queue {
        name: "scores".into(),
        dead_letter: None,
        message_ttl: None,
        expires: None,
        binding: Binding { exchange: SHOP, retry_step: None },
    };
    let topology = Topology { exchanges: Vec::new(), queues: vec![scores] };
    shop.declare(&topology, Declare::Create).await.unwrap();
    let scores = take(&shop, "scores", 10).await;
    until(|| bridge.state.counts().underway() == 0).await;
    assert!(bridge.state.readiness().ready);
    let keys: BTreeSet<_> = scores.iter().map(|score| score.message_id.clone().unwrap()).collect();
    assert_eq!(keys.len(), 10);
    let report = bridge.stop().await;
    assert_eq!((report.counts.scored, report.is_complete), (10, false));
    assert_eq!(waiting(&shop, "events").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_is_bounded_by_memory() {
    let (services, owner) = (Services::default(), Owner::new(LINEAR));
    let worker = Worker::start(&services, &owner, |_, _| Conduct::Keep).await;
    let shop = shop(&["events", "scores", "dead"]).await;
    for id in 0..200 {
        shop.publish(&message("events", event(&owner, id).to_string())).await.unwrap();
    }
    let mut settings = settings(&owner);
    // Room for one of the largest, with its row, and seven small ones: each of these takes 2 KiB.
    settings.bridge.max_event_size = bytesize::ByteSize::kib(3);
    settings.bridge.memory = bytesize::ByteSize::kib(19);
    let bridge = Bridge::of_queues(&services, settings, &shop).await;
    until(|| bridge.state.counts().taken == 8).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!((bridge.state.counts().taken, waiting(&shop, "events").await), (8, 192));
    worker.stop().await;
    let _worker = Worker::start(&services, &owner, |_, _| Conduct::Answer).await;
    take(&shop, "scores", 200).await;
    assert_eq!(bridge.stop().await.counts.scored, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_dead_letters_for_faults_of_theirs_and_wait_for_those_of_the_fleet() {
    let (services, owner) = (Services::default(), Owner::new(TREE));
    let fails = Arc::new(AtomicBool::new(false));
    let worker_fails = Arc::clone(&fails);
    let worker = Worker::start(&services, &owner, move |number, _| match number {
        0 => Conduct::Refuse(ErrorCode::UnknownModel),
        1 => Conduct::Refuse(ErrorCode::KeyMissing),
        // It passes.
        2 => Conduct::Refuse(ErrorCode::Internal),
        _ if worker_fails.load(Ordering::Relaxed) => Conduct::Refuse(ErrorCode::Internal),
        _ => Conduct::Answer,
    })
    .await;
    let shop = shop(&["events", "scores", "dead"]).await;
    let bridge = Bridge::of_queues(&services, settings(&owner), &shop).await;
    let mut first = message("events", event(&owner, 1).to_string());
    first.set("colour", "green");
    shop.publish(&first).await.unwrap();
    assert_eq!(parse(&take(&shop, "scores", 1).await)[0]["event"]["id"], "1");
    let mut second = message("events", event(&owner, 2).to_string());
    second.set("colour", "red");
    let tried = worker.seen().len();
    fails.store(true, Ordering::Relaxed);
    shop.publish(&second).await.unwrap();
    let dead = take(&shop, "dead", 1).await.remove(0);
    assert_eq!((&dead.body, dead.text("colour")), (&second.body, Some("red")));
    assert_eq!(dead.text(headers::DEAD_CODE), Some("not_scored"));
    assert!(dead.text(headers::DEAD_REASON).unwrap().contains("internal"));
    assert_eq!(worker.seen().len(), tried + 6);
    fails.store(false, Ordering::Relaxed);
    // Whoever mended the fleet sends it again under the same id, and it is scored.
    shop.publish(&second).await.unwrap();
    assert_eq!(parse(&take(&shop, "scores", 1).await)[0]["event"]["id"], "2");
    // What has a score is known.
    shop.publish(&second).await.unwrap();
    until(|| bridge.state.counts().duplicates == 1).await;
    let report = bridge.stop().await;
    assert_eq!((report.counts.scored, report.counts.dead_lettered), (2, 1));
    assert_eq!(waiting(&shop, "events").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn scores_of_a_key_keep_the_order_of_its_events() {
    let (services, owner) = (Services::default(), Owner::new(TREE));
    // The first job takes a second one, which is the last of all.
    let _worker = Worker::start(&services, &owner, |number, _| match number {
        0 => Conduct::Refuse(ErrorCode::BlobMissing),
        _ => Conduct::Answer,
    })
    .await;
    let shop = shop(&["events", "scores", "dead"]).await;
    let mut settings = settings(&owner);
    settings.bridge.max_rows = 1;
    settings.events.order_by = Some("/account".into());
    let mut lines = Vec::new();
    for id in 0..12 {
        let mut event = event(&owner, id);
        event["account"] = (id % 2).into();
        // A dead letter does not let those behind it pass.
        if id == 4 {
            event["f0"] = "four".into();
        }
        lines.push(event);
    }
    for event in &lines {
        shop.publish(&message("events", event.to_string())).await.unwrap();
    }
    let bridge = Bridge::of_queues(&services, settings, &shop).await;
    let scores = parse(&take(&shop, "scores", 11).await);
    let of_account = |account: usize| -> Vec<usize> {
        let ids = scores.iter().map(|score| score["event"]["id"].as_str().unwrap());
        ids.map(|id| id.parse().unwrap()).filter(|id| id % 2 == account).collect()
    };
    assert_eq!(of_account(0), [0, 2, 6, 8, 10]);
    assert_eq!(of_account(1), [1, 3, 5, 7, 9, 11]);
    assert_eq!(bridge.stop().await.counts.dead_lettered, 1);
}
