//! Faults: of some events of a job, of a step, of the fleet for a while; and a stop before anything.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cipherscore_common::broker::Broker;
use cipherscore_common::message::{ErrorCode, Job, headers};
use cipherscore_producer::bridge::{
    BridgeError, BridgeReport, BridgeState, EndError, Ends, Record, ScoreSink, Waiting, run,
};
use cipherscore_producer::stream::Stream;
use serde_json::json;

use super::support::{
    Bridge, clear_scores, event, message, of_lines, parse, settings, shop, take, waiting,
};
use crate::support::{Conduct, LINEAR, Owner, PATIENCE, Services, TREE, Worker, until};

/// How long events wait for others, where a test wants them in one job.
const ONE_JOB: Duration = Duration::from_secs(1);

/// A job of eight events, two of which workers refuse.
#[tokio::test(flavor = "multi_thread")]
async fn only_events_that_are_to_blame_are_dead_letters() {
    for code in [ErrorCode::Poison, ErrorCode::WrongShape] {
        let (services, owner) = (Services::default(), Owner::new(LINEAR));
        // In halves, the first one first: 0..8, 0..4, 0..2, 2..4, 2, 3, 4..8, 4..6, 4, 5, 6..8.
        let refused = [0, 1, 3, 5, 6, 7, 8];
        let worker = Worker::start(&services, &owner, move |number, _| {
            if refused.contains(&number) { Conduct::Refuse(code) } else { Conduct::Answer }
        })
        .await;
        let shop = shop(&["events", "scores", "dead"]).await;
        let mut settings = settings(&owner);
        settings.bridge.max_wait = ONE_JOB;
        for id in 0..8 {
            shop.publish(&message("events", event(&owner, id).to_string())).await.unwrap();
        }
        let bridge = Bridge::of_queues(&services, settings, &shop).await;
        let scores = parse(&take(&shop, "scores", 6).await);
        for score in scores {
            let id: usize = score["event"]["id"].as_str().unwrap().parse().unwrap();
            assert!(id != 3 && id != 4, "{score}");
            assert_eq!(score["prediction"], json!(clear_scores(&owner, id)[0]));
        }
        let mut ids = Vec::new();
        for dead in take(&shop, "dead", 2).await {
            assert_eq!(dead.text(headers::DEAD_CODE), Some("not_scored"));
            assert!(dead.text(headers::DEAD_REASON).unwrap().contains(code.as_str()));
            let dead: serde_json::Value = serde_json::from_slice(&dead.body).unwrap();
            ids.push(dead["id"].as_u64().unwrap());
        }
        ids.sort_unstable();
        assert_eq!(ids, [3, 4]);
        let rows: Vec<_> = worker.seen().iter().map(|job| job.rows).collect();
        assert_eq!(rows, [8, 4, 2, 2, 1, 1, 4, 2, 1, 1, 2]);
        assert!(bridge.state.metrics().contains("splits_total 5"));
        let report = bridge.stop().await;
        assert_eq!((report.counts.scored, report.counts.dead_lettered), (6, 2));
    }
}

/// Each event met the outage in a job of its own.
#[tokio::test(flavor = "multi_thread")]
async fn events_that_waited_go_together() {
    const EVENTS: usize = 20;
    let (services, owner) = (Services::default(), Owner::new(LINEAR));
    let is_away = Arc::new(AtomicBool::new(true));
    let refuses = Arc::clone(&is_away);
    let worker =
        Worker::start(&services, &owner, move |_, _: &Job| match refuses.load(Ordering::Relaxed) {
            true => Conduct::Refuse(ErrorCode::UnknownModel),
            false => Conduct::Answer,
        })
        .await;
    let shop = shop(&["events", "scores", "dead"]).await;
    let bridge = Bridge::of_queues(&services, settings(&owner), &shop).await;
    for id in 0..EVENTS {
        shop.publish(&message("events", event(&owner, id).to_string())).await.unwrap();
        let rows = || worker.seen().iter().map(|job| job.rows as usize).sum::<usize>();
        until(|| rows() > id).await;
    }
    // They meet it together by now.
    until(|| worker.seen().iter().any(|job| job.rows as usize == EVENTS)).await;
    let readiness = bridge.state.readiness();
    assert!(readiness.waiting["fleet"].contains("unknown_model"), "{readiness:?}");
    is_away.store(false, Ordering::Relaxed);
    for score in parse(&take(&shop, "scores", EVENTS).await) {
        let id: usize = score["event"]["id"].as_str().unwrap().parse().unwrap();
        assert_eq!(score["prediction"], json!(clear_scores(&owner, id)[0]));
    }
    until(|| bridge.state.readiness().ready).await;
    assert_eq!(bridge.stop().await.counts.scored, EVENTS as u64);
    assert_eq!(waiting(&shop, "dead").await, 0);
}

struct PanickingSink;

impl ScoreSink for PanickingSink {
    fn put<'a>(&'a self, _: &'a Record) -> Waiting<'a, Result<(), EndError>> {
        Box::pin(async { panic!("as a step might") })
    }
}

/// A bridge of these lines that is stopped by this.
async fn ran(
    services: &Services,
    owner: &Owner,
    ends: Ends,
    stop: impl Future<Output = ()>,
) -> Result<BridgeReport, BridgeError> {
    let (state, settings) = (Arc::new(BridgeState::default()), settings(owner));
    let (broker, store) = (services.broker.clone(), services.store.clone());
    let (broker, store) = (Arc::new(broker), Arc::new(store));
    let fleet = Stream::open(broker, store, settings.producer.clone(), state.events());
    let fleet = fleet.await.unwrap();
    let bridge = run(fleet, ends, settings, Arc::new(|| Ok(None)), state, stop);
    tokio::time::timeout(PATIENCE, bridge).await.expect("the bridge hangs")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_panics_ends_the_bridge() {
    let (services, owner) = (Services::default(), Owner::new(TREE));
    let _worker = Worker::start(&services, &owner, |_, _| Conduct::Answer).await;
    let (ends, written, _) = of_lines(&owner, event(&owner, 1).to_string(), 10_000);
    let ends = Ends { sink: Box::new(PanickingSink), ..ends };
    let ended = ran(&services, &owner, ends, std::future::pending()).await;
    assert!(matches!(ended, Err(BridgeError::Fault(_))), "{ended:?}");
    assert!(written.lines().is_empty());
}

/// The key is on its way to the store, from a file.
#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_is_stopped_before_it_begins() {
    let (services, owner) = (Services::default(), Owner::new(TREE));
    let _worker = Worker::start(&services, &owner, |_, _| Conduct::Answer).await;
    let (ends, written, _) = of_lines(&owner, event(&owner, 1).to_string(), 10_000);
    // Looked at twice: when the renewal begins, and when it waits.
    let stop = tokio::task::yield_now();
    let report = ran(&services, &owner, ends, stop).await.unwrap();
    assert!(!report.is_complete);
    assert_eq!((report.counts.taken, report.counts.underway()), (0, 0));
    assert!(written.lines().is_empty());
}
