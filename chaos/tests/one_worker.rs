//! One worker, one job at a time: what exactly happens when it dies between two steps, is told to
//! stop, takes longer than the broker allows, or is not let in.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod support;

use std::time::{Duration, Instant};

use cipherscore_chaos::worker::{CRASH_POINTS, trap};
use cipherscore_common::{JobId, MarkStore};
use cipherscore_testbed::RabbitMqOptions;
use support::{LINEAR, LONG, PATIENCE, Scene, TREE, ended, wait};

/// What a loaded machine may add to any time.
const SLACK: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn deaths_and_stops() {
    let scene = Scene::new(RabbitMqOptions::default()).await;
    crash_windows(&scene).await;
    stop_with_time(&scene).await;
    stop_without_time(&scene).await;
    second_signal(&scene).await;
    cut_off(&scene).await;
    not_let_in(&scene).await;
}

/// A worker that dies in a window: the job is done by the next one, and seen once. After the reply
/// and before the mark of what is done the client drops a second one; after the mark there is none.
async fn crash_windows(scene: &Scene) {
    let mut answered = 0;
    for (point, more, dropped) in
        [("after_evaluate", 1, 0), ("after_reply_confirm", 1, 1), ("before_ack", 0, 0)]
    {
        assert!(CRASH_POINTS.contains(&point));
        let (before, suppressed) = (scene.executions(), scene.load.suppressed());
        let mut first = scene.worker(&[]).await;
        std::fs::write(trap(scene.folder.path(), point), "").unwrap();
        scene.publish(LINEAR, 3).await;
        ended(&mut first).await;
        assert_eq!(first.exit_code(), None, "{point}: killed, and not ended");
        let mut second = scene.worker(&[]).await;
        answered += 1;
        scene.answered(answered).await;
        scene.executions_are(before + 1 + more).await;
        wait(|| scene.load.suppressed() >= suppressed + dropped).await;
        assert!(second.end(PATIENCE).unwrap());
        assert_eq!(second.exit_code(), Some(0));
        assert_eq!(scene.load.suppressed(), suppressed + dropped, "{point}");
        assert_eq!(scene.executions(), before + 1 + more, "{point}");
        scene.nothing_is_left().await;
    }
}

/// What fits the grace period is finished, and what was not begun is done by others: nothing is
/// evaluated twice.
async fn stop_with_time(scene: &Scene) {
    let (before, answered) = (scene.executions(), scene.load.ledger.standing().answered);
    let mut first = scene.worker(&["worker.grace_period=60s"]).await;
    for _ in 0..6 {
        scene.publish(TREE, 2).await;
    }
    wait(|| scene.executions() > before).await;
    assert!(first.end(PATIENCE).unwrap());
    assert_eq!(first.exit_code(), Some(0));
    let mut second = scene.worker(&[]).await;
    scene.answered(answered + 6).await;
    assert!(second.end(PATIENCE).unwrap());
    assert_eq!(scene.executions(), before + 6);
    scene.nothing_is_left().await;
}

/// What does not fit is left to others when the grace period is over, and hardly blamed for it: the
/// third worker begins it alone, since it came back twice.
async fn stop_without_time(scene: &Scene) {
    let (before, answered) = (scene.executions(), scene.load.ledger.standing().answered);
    let job = JobId::random();
    for stops in 1..=3 {
        let mut worker = scene.worker(&["worker.grace_period=1s"]).await;
        if stops == 1 {
            scene.load.publish_rows(TREE, job, 0, LONG).await.unwrap();
        }
        wait(|| scene.executions() == before + stops).await;
        let stopped = Instant::now();
        worker.signal("TERM").unwrap();
        ended(&mut worker).await;
        println!("grace period of 1 s: ended {:.2?} after SIGTERM", stopped.elapsed());
        assert!(stopped.elapsed() < SLACK, "{:?}", stopped.elapsed());
        assert_eq!(worker.exit_code(), Some(0));
        assert_eq!(scene.load.ledger.standing().answered, answered, "it fitted");
    }
    let (store, tenant) = (scene.services.store().unwrap(), &scene.load.owners()[TREE].tenant);
    assert_eq!(store.blame(tenant, job, 0).await.unwrap(), 1);
    let mut last = scene.worker(&[]).await;
    scene.answered(answered + 1).await;
    assert_eq!(scene.executions(), before + 4);
    // Evaluated by the last one, it is blamed with as little once more.
    assert_eq!(store.blame(tenant, job, 0).await.unwrap(), 2);
    assert!(last.end(PATIENCE).unwrap());
    scene.nothing_is_left().await;
}

/// A second signal ends it at once, however long the grace period is.
async fn second_signal(scene: &Scene) {
    let (before, answered) = (scene.executions(), scene.load.ledger.standing().answered);
    let mut first = scene.worker(&["worker.grace_period=600s"]).await;
    scene.publish(TREE, LONG).await;
    wait(|| scene.executions() > before).await;
    first.signal("TERM").unwrap();
    wait(|| first.printed().contains("nothing new is begun")).await;
    let stopped = Instant::now();
    first.signal("TERM").unwrap();
    ended(&mut first).await;
    println!("second SIGTERM: ended after {:.2?}", stopped.elapsed());
    assert!(stopped.elapsed() < SLACK, "{:?}", stopped.elapsed());
    let mut second = scene.worker(&[]).await;
    scene.answered(answered + 1).await;
    assert!(second.end(PATIENCE).unwrap());
}

/// A worker that loses its connection while a job runs does not begin it again when it comes back
/// to it, and answers once.
async fn cut_off(scene: &Scene) {
    let (before, answered) = (scene.executions(), scene.load.ledger.standing().answered);
    let suppressed = scene.load.suppressed();
    let mut worker = scene.worker(&[]).await;
    scene.publish(TREE, LONG).await;
    wait(|| scene.executions() > before).await;
    assert!(scene.services.workers.cut() > 0);
    wait(|| worker.printed().contains("arrived again while it runs")).await;
    scene.answered(answered + 1).await;
    assert!(worker.end(PATIENCE).unwrap());
    assert_eq!((scene.executions(), scene.load.suppressed()), (before + 1, suppressed));
    scene.nothing_is_left().await;
}

/// A worker with a wrong password says so, and ends with an error instead of waiting for ever.
async fn not_let_in(scene: &Scene) {
    let mut start = scene.start.clone();
    let address = scene.services.workers.address();
    start.broker_url = format!("amqp://testbed:wrong@{address}/%2f");
    let mut worker = start.worker().unwrap();
    ended(&mut worker).await;
    assert_eq!(worker.exit_code(), Some(1));
    let said = worker.printed();
    assert!(said.contains("giving up") && said.contains("ACCESS_REFUSED"), "{said}");
    assert!(!said.contains("wrong@"), "the password is in the log");
}

/// A job that takes longer than the broker waits for its settlement: the channel is closed, and the
/// job comes again, to the same worker. It is evaluated once: the copy is merged into the run that
/// goes on, or waits for its slot and finds the job answered.
#[tokio::test(flavor = "multi_thread")]
async fn longer_than_the_consumer_timeout() {
    let scene = Scene::new(RabbitMqOptions {
        configuration: vec!["consumer_timeout = 1000".into()],
        channel_tick_interval: Some(Duration::from_millis(500)),
        ..RabbitMqOptions::default()
    })
    .await;
    let mut worker = scene.worker(&[]).await;
    scene.publish(TREE, LONG).await;
    scene.answered(1).await;
    let said = worker.printed();
    assert!(said.contains("timed out"), "it was not longer:\n{said}");
    let copies = ["arrived again while it runs", "it was answered before"];
    wait(|| copies.iter().any(|copy| worker.printed().contains(copy))).await;
    assert!(worker.end(PATIENCE).unwrap());
    assert_eq!((scene.executions(), scene.load.suppressed()), (1, 0));
    scene.nothing_is_left().await;
}
