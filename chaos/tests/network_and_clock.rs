//! One worker whose network goes silent, and one whose clock jumps, while a job runs.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod support;

use std::time::{Duration, Instant};

use cipherscore_chaos::ledger::Expected;
use cipherscore_common::broker::Broker;
use cipherscore_common::message::{ErrorCode, Timestamp};
use cipherscore_common::topology::{Lane, job_queue};
use cipherscore_testbed::{Clock, RabbitMqOptions};
use support::{LINEAR, LONG, PATIENCE, Scene, TREE, wait};

/// Seconds between heartbeats; two missed ones end a connection.
const HEARTBEAT: u64 = 2;
const DAY: i64 = 24 * 60 * 60;
/// Time of jobs with a deadline: less than a jump of the clock, more than they take.
const TIME: Duration = Duration::from_secs(60 * 60);
/// What a worker says when its connection is gone.
const NOT_CONSUMING: &str = "not consuming; trying again";

#[tokio::test(flavor = "multi_thread")]
async fn silence_and_jumps() {
    let scene = Scene::new(RabbitMqOptions::default()).await;
    for half_open in [false, true] {
        silent_network(&scene, half_open).await;
    }
    jumping_clock(&scene).await;
}

/// Nothing passes any more, and no connection is closed, or the broker's ends only: heartbeats tell
/// the worker, while a job runs. The broker gives the job back; the worker comes back to it when
/// the network does, and answers it once.
async fn silent_network(scene: &Scene, half_open: bool) {
    let (before, answered) = (scene.executions(), scene.load.ledger.standing().answered);
    let suppressed = scene.load.suppressed();
    let mut start = scene.start.clone();
    start.broker_url = format!("{}?heartbeat={HEARTBEAT}", start.broker_url);
    let mut worker = scene.worker_of(start).await;
    scene.publish(TREE, LONG).await;
    wait(|| scene.executions() > before).await;

    let began = Instant::now();
    match half_open {
        true => scene.services.workers.half_open(),
        false => scene.services.workers.freeze(),
    }
    wait(|| worker.printed().contains(NOT_CONSUMING)).await;
    println!("a silent network (half open: {half_open}) was noticed in {:.1?}", began.elapsed());
    // The broker notices as well, and keeps the job for whoever comes.
    for id in &scene.models {
        let queue = job_queue(*id, Lane::Normal);
        while scene.broker.queue_state(&queue).await.unwrap().unwrap().consumers > 0 {
            assert!(began.elapsed() < PATIENCE, "the broker believes in the worker");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    assert_eq!(scene.load.ledger.standing().answered, answered, "something passed");

    scene.services.workers.resume();
    scene.answered(answered + 1).await;
    // The same connection takes new jobs.
    scene.publish(LINEAR, 3).await;
    scene.answered(answered + 2).await;
    assert!(worker.end(PATIENCE).unwrap());
    assert_eq!((scene.executions(), scene.load.suppressed()), (before + 2, suppressed));
    scene.nothing_is_left().await;
}

/// What runs has the time that it had when it began, whatever the clock says. What arrives is judged
/// by the worker's clock: one that is fast refuses what a producer with a right clock has time for,
/// and a slow one gives more time. A worker goes on consuming in any case.
async fn jumping_clock(scene: &Scene) {
    let (before, answered) = (scene.executions(), scene.load.ledger.standing().answered);
    let clock = Clock::right().unwrap();
    let mut start = scene.start.clone();
    start.variables = clock.variables();
    let mut worker = scene.worker_of(start).await;
    let scores = |owner, count| Expected::Scores { owner, first: 0, count };
    let late = Expected::Dead(ErrorCode::DeadlineExceeded);
    let in_time = Timestamp::now().after(TIME);
    for (jump, running, (deadline, arriving)) in [
        // A day ahead of the producer's: too late by this clock.
        (DAY, TREE, (in_time, late)),
        // Right again: a jump of a day back.
        (0, LINEAR, (in_time, scores(LINEAR, 2))),
        // Behind: what is too late by the producer's clock has time.
        (
            -DAY,
            LINEAR,
            (Timestamp::from_millis(in_time.millis() - 2 * 3_600_000), scores(LINEAR, 2)),
        ),
    ] {
        let answered = scene.load.ledger.standing().answered;
        if running == TREE {
            let begun = scene.executions();
            scene.load.publish_until(TREE, LONG, in_time, scores(TREE, LONG)).await.unwrap();
            wait(|| scene.executions() > begun).await;
        }
        clock.set(jump).unwrap();
        scene.load.publish_until(LINEAR, 2, deadline, arriving).await.unwrap();
        scene.answered(answered + 1 + usize::from(running == TREE)).await;
    }
    assert!(!worker.printed().contains(NOT_CONSUMING), "{}", worker.printed());
    assert!(worker.end(PATIENCE).unwrap());
    assert_eq!(worker.exit_code(), Some(0));
    assert_eq!(scene.load.ledger.standing().answered, answered + 4);
    assert_eq!(scene.executions(), before + 3);
    scene.nothing_is_left().await;
}
