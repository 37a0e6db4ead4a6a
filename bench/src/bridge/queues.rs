//! A flood from queue to queue: through an empty loop, which publishes what it consumes, and then of the
//! same messages through a bridge.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use cipherscore_common::broker::amqp::AmqpBroker;
use cipherscore_common::broker::{Broker, BrokerError, Disposition, QueuePrefetch, Subscription};
use tokio::task::{JoinHandle, JoinSet};

use super::Amount;
use super::example::{Answered, KnownEvents};
use super::owner::{EVENTS, OwnersClient, PASSED, SCORES, message_to};
use super::setting::{BridgeProcess, BridgeSetting, LOOK_INTERVAL};
use crate::table::{Table, Target};

const NAME: &str = "flood from queue to queue";
/// What a bridge is to do of the events that the loop does in a second.
const TARGET: f64 = 0.7;
/// Messages that the loop may take and not settle: as many as a bridge with its defaults, which bounds
/// them by its memory.
const PREFETCH: u16 = 4096;
/// Events that are published before the broker has earlier ones.
const PUBLISHING: usize = 512;
/// How long the next message may take to come.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) async fn measure(
    setting: &BridgeSetting,
    amount: &Amount,
    table: &mut Table,
) -> anyhow::Result<()> {
    let (events, known) = (amount.events, KnownEvents::read()?);
    let owner = OwnersClient::open(&setting.broker_url).await?;
    let mut rates: [Vec<f64>; 3] = Default::default();
    let mut used: [Vec<f64>; 4] = Default::default();
    let (mut others, per_event) = (Vec::new(), |seconds: f64| 1e6 * seconds / events as f64);
    for repetition in 1..=amount.repetitions {
        eprintln!("{NAME}: {events} events, repetition {repetition}");
        fill(&owner, &known, events).await?;
        let watch = setting.watch(None);
        let before = setting.broker_seconds();
        let passing = tokio::spawn(pass(owner.broker.clone(), events));
        let loops = events as f64 / passed(&owner, passing, events).await?;
        let of_broker = per_event(setting.broker_seconds() - before);
        others.push(watch.others());
        // It takes what the loop has passed on.
        let mut bridge = setting.start_bridge(&OwnersClient::sections(PASSED))?;
        owner.expect_consumer(PASSED).await?;
        let watch = setting.watch(Some(&bridge));
        let before = setting.used(&bridge);
        let bridged = events as f64 / scored(&owner, &mut bridge, events).await?;
        let after = setting.used(&bridge);
        others.push(watch.others());
        bridge.end()?;
        require_scores(&owner, &known, events).await?;
        let values = [loops, bridged, bridged / loops];
        rates.iter_mut().zip(values).for_each(|(rates, value)| rates.push(value));
        let [bridge, worker, broker] =
            [0, 1, 2].map(|index| per_event(after[index] - before[index]));
        let values = [bridge, worker, broker, of_broker];
        used.iter_mut().zip(values).for_each(|(used, value)| used.push(value));
    }
    let others = crate::table::median(&others);
    let name = |what: &str| format!("{NAME}, {events} events: {what}");
    let [loops, bridge, ratio] = rates;
    table.add(name("empty loop"), "events/s", loops, None, others);
    table.add(name("bridge"), "events/s", bridge, None, others);
    table.add(
        name("bridge against the loop"),
        "times",
        ratio,
        Some(Target::AtLeast(TARGET)),
        others,
    );
    let names = ["the bridge", "the worker", "the broker", "the broker, with the loop"];
    for (of, values) in names.into_iter().zip(used) {
        table.add(name(&format!("processor time of {of}, an event")), "us", values, None, others);
    }
    Ok(())
}

/// Publishes so many events.
async fn fill(owner: &OwnersClient, known: &KnownEvents, events: usize) -> anyhow::Result<()> {
    let mut publishing: JoinSet<Result<(), BrokerError>> = JoinSet::new();
    for number in 0..events {
        if publishing.len() >= PUBLISHING {
            publishing.join_next().await.context("something is published")???;
        }
        let message = message_to(EVENTS, known.event(number).into_bytes());
        let broker = owner.broker.clone();
        publishing.spawn(async move { broker.publish(&message).await });
    }
    while let Some(published) = publishing.join_next().await {
        published??;
    }
    Ok(())
}

/// The empty loop: each message is consumed, published, and acknowledged when that is confirmed; many
/// at a time.
async fn pass(broker: AmqpBroker, events: usize) -> anyhow::Result<()> {
    let queue = QueuePrefetch { queue: EVENTS.into(), prefetch: PREFETCH };
    let mut subscription = broker.subscribe(&[queue]).await?;
    let mut passing: JoinSet<Result<(), BrokerError>> = JoinSet::new();
    for _ in 0..events {
        let next = tokio::time::timeout(PATIENCE, subscription.next()).await;
        let delivery = next.context("an event does not come")??;
        let (broker, settlement) = (broker.clone(), delivery.settlement);
        let message = message_to(PASSED, delivery.message.body);
        passing.spawn(async move {
            broker.publish(&message).await?;
            settlement.settle(Disposition::Ack).await.map(drop)
        });
        while let Some(passed) = passing.try_join_next() {
            passed??;
        }
    }
    while let Some(passed) = passing.join_next().await {
        passed??;
    }
    Ok(())
}

/// Seconds until the loop has passed all on.
async fn passed(
    owner: &OwnersClient,
    passing: JoinHandle<anyhow::Result<()>>,
    events: usize,
) -> anyhow::Result<f64> {
    let started = Instant::now();
    passing.await??;
    let seconds = started.elapsed().as_secs_f64();
    let arrived = owner.waiting(PASSED).await?;
    ensure!(arrived == events, "{arrived} of {events} events were passed on");
    Ok(seconds)
}

/// Seconds from when a bridge begins to take events until all of their scores are there.
async fn scored(
    owner: &OwnersClient,
    bridge: &mut BridgeProcess,
    events: usize,
) -> anyhow::Result<f64> {
    let started = Instant::now();
    let mut last = (0, started);
    loop {
        let there = owner.waiting(SCORES).await?;
        if there >= events {
            return Ok(started.elapsed().as_secs_f64());
        }
        bridge.require()?;
        if there > last.0 {
            last = (there, Instant::now());
        }
        ensure!(
            last.1.elapsed() < PATIENCE,
            "{there} of {events} events have scores; no more come"
        );
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Takes all scores: each event must have one.
async fn require_scores(
    owner: &OwnersClient,
    known: &KnownEvents,
    events: usize,
) -> anyhow::Result<()> {
    let queue = QueuePrefetch { queue: SCORES.into(), prefetch: PREFETCH };
    let mut subscription = owner.broker.subscribe(&[queue]).await?;
    let mut answered = Answered::none_of(events);
    for _ in 0..events {
        let next = tokio::time::timeout(PATIENCE, subscription.next()).await;
        let delivery = next.context("a score does not come")??;
        answered.add(known.answered(&delivery.message.body)?)?;
        delivery.settle(Disposition::Ack).await?;
    }
    answered.require_all()
}
