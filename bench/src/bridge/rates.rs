//! Events at a rate: how long each takes from its publication to its score, and the highest rate that a
//! bridge keeps up with.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use cipherscore_common::broker::amqp::{AmqpBroker, AmqpSubscription};
use cipherscore_common::broker::{
    Broker, BrokerError, Delivery, Disposition, QueuePrefetch, Subscription,
};
use tokio::task::JoinSet;

use super::example::KnownEvents;
use super::owner::{EVENTS, OwnersClient, SCORES, message_to};
use super::setting::{BridgeProcess, BridgeSetting};
use crate::steps::{StepMetric, Steps};
use crate::table::{Table, Target, quantile, sorted};

const NAME: &str = "bridge, XGB 50 x 4, from queue to queue";
/// The rate that has a target.
const TARGET_RATE: u32 = 100;
/// Of that rate: of the 99th percentile, in milliseconds.
const TARGET_P99: f64 = 50.0;
/// Below this the 99th percentile of a rate that is kept up with is, in milliseconds.
const KEPT_UP_P99: f64 = 200.0;
/// The search ends when a rate that is kept up with and one that is not are so near each other.
const NEAR: f64 = 1.1;
/// Events before anything is measured, and how many a second: the worker fetches the key, caches fill.
const WARM_UP: (usize, u32) = (50, 25);
/// Scores that are taken and not acknowledged.
const PREFETCH: u16 = 1000;
/// How long the next score may take to come.
const PATIENCE: Duration = Duration::from_secs(120);
/// How late a timer may be.
const TIMER_LATE: Duration = Duration::from_millis(2);
/// A rate is too high when as many events wait as come in this time.
const TOO_LATE: Duration = Duration::from_secs(2);
/// A bridge's own steps, and how they are called.
const STAGES: StepMetric = StepMetric { name: "cipherscore_bridge_stage_seconds", label: "stage" };
const STAGE_NAMES: [&str; 5] = ["gather", "score", "sink", "settle", "whole"];

/// What came of events at a rate.
struct Arrived {
    /// From when each event was due to its score in our hands, in milliseconds, in order of size.
    latencies: Vec<f64>,
    /// Whether so many waited that no further ones were published.
    is_too_high: bool,
}

impl Arrived {
    fn quantile(&self, share: f64) -> f64 {
        quantile(&self.latencies, share)
    }

    fn is_kept_up_with(&self) -> bool {
        !self.is_too_high && self.quantile(0.99) < KEPT_UP_P99
    }
}

/// Publishes events, and listens for their scores.
pub(super) struct EventLoad {
    broker: AmqpBroker,
    scores: AmqpSubscription,
    known: KnownEvents,
    /// The number of the next event.
    next: usize,
}

impl EventLoad {
    pub(super) async fn open(owner: &OwnersClient, known: KnownEvents) -> anyhow::Result<Self> {
        let queue = QueuePrefetch { queue: SCORES.into(), prefetch: PREFETCH };
        let (broker, scores) = (owner.broker.clone(), owner.broker.subscribe(&[queue]).await?);
        Ok(Self { broker, scores, known, next: 0 })
    }

    /// Until the worker has the key.
    pub(super) async fn warm_up(&mut self) -> anyhow::Result<()> {
        let (events, rate) = WARM_UP;
        self.run(events, rate).await.map(drop)
    }

    /// Publishes events at a rate, whatever is answered meanwhile, until all are answered.
    async fn run(&mut self, events: usize, rate: u32) -> anyhow::Result<Arrived> {
        let mut due = tokio::time::interval(Duration::from_secs(1) / rate);
        let too_many = events_of(TOO_LATE, rate)?;
        let (mut left, mut is_too_high) = (events, false);
        let mut waiting = HashMap::new();
        let mut publishing: JoinSet<Result<(), BrokerError>> = JoinSet::new();
        let mut latencies = Vec::with_capacity(events);
        while left > 0 || !waiting.is_empty() {
            tokio::select! {
                at = due.tick(), if left > 0 => {
                    let (due, now) = (at.into_std(), Instant::now());
                    let is_late = now.saturating_duration_since(due) > TIMER_LATE;
                    let (broker, number) = (self.broker.clone(), self.next);
                    let message = message_to(EVENTS, self.known.event(number).into_bytes());
                    (self.next, left) = (self.next + 1, left - 1);
                    waiting.insert(number, if is_late { due } else { now });
                    publishing.spawn(async move { broker.publish(&message).await });
                    if waiting.len() > too_many.max(WARM_UP.0) {
                        (left, is_too_high) = (0, true);
                    }
                }
                Some(published) = publishing.join_next() => published??,
                delivery = tokio::time::timeout(PATIENCE, self.scores.next()) => {
                    let (arrived, delivery) = (Instant::now(), delivery.context("no score came")??);
                    let number = self.known.answered(&delivery.message.body)?;
                    settle(delivery).await?;
                    let began = waiting.remove(&number);
                    let began = began.with_context(|| format!("event {number} has two scores"))?;
                    let latency = arrived.saturating_duration_since(began);
                    latencies.push(1e3 * latency.as_secs_f64());
                }
            }
        }
        while let Some(published) = publishing.join_next().await {
            published??;
        }
        Ok(Arrived { latencies: sorted(&latencies), is_too_high })
    }
}

async fn settle(delivery: Delivery) -> anyhow::Result<()> {
    delivery.settle(Disposition::Ack).await?;
    Ok(())
}

fn events_of(time: Duration, rate: u32) -> anyhow::Result<usize> {
    let events = time.as_millis() * u128::from(rate) / 1000;
    Ok(usize::try_from(events)?.max(1))
}

/// One rate.
pub(super) async fn measure(
    setting: &BridgeSetting,
    bridge: &BridgeProcess,
    load: &mut EventLoad,
    (rate, time): (u32, Duration),
    table: &mut Table,
) -> anyhow::Result<()> {
    eprintln!("{rate} events/s for {} s", time.as_secs());
    let watch = setting.watch(Some(bridge));
    let stages = Steps::of(bridge.address, STAGES)?;
    let before = setting.used(bridge);
    let arrived = load.run(events_of(time, rate)?, rate).await?;
    let after = setting.used(bridge);
    let others = watch.others();
    let name = |what: &str| format!("{NAME}, {rate} events/s: {what}");
    let count = arrived.latencies.len() as f64;
    ensure!(!arrived.is_too_high, "a bridge does not keep up with {rate} events/s");
    let target = (rate == TARGET_RATE).then_some(Target::AtMost(TARGET_P99));
    for (what, share, target) in
        [("p50", 0.5, None), ("p99", 0.99, target), ("p99.9", 0.999, None), ("longest", 1.0, None)]
    {
        let what = format!("event to score, {what}");
        table.add(name(&what), "ms", vec![arrived.quantile(share)], target, others);
    }
    let now = Steps::of(bridge.address, STAGES)?;
    for stage in STAGE_NAMES {
        let mean = now.since(&stages, stage)?;
        table.add(name(&format!("stage {stage}, mean")), "ms", vec![mean], None, others);
    }
    for (what, (after, before)) in
        ["bridge", "worker", "broker"].iter().zip(after.iter().zip(before))
    {
        let what = format!("processor time of the {what}, an event");
        table.add(name(&what), "ms", vec![1e3 * (after - before) / count], None, others);
    }
    Ok(())
}

/// The highest rate that is kept up with: twice as high until one is not, and then between the two.
pub(super) async fn find(
    setting: &BridgeSetting,
    bridge: &BridgeProcess,
    load: &mut EventLoad,
    (first, step): (u32, Duration),
    table: &mut Table,
) -> anyhow::Result<()> {
    let watch = setting.watch(Some(bridge));
    let mut kept_up: Option<(u32, Arrived)> = None;
    let mut too_high: Option<(u32, Arrived)> = None;
    let mut rate = first.max(1);
    loop {
        let arrived = load.run(events_of(step, rate)?, rate).await?;
        let (p99, holds) = (arrived.quantile(0.99), arrived.is_kept_up_with());
        let said = if holds { "kept up with" } else { "too high" };
        eprintln!("{rate} events/s: p99 {p99:.1} ms, {said}");
        *(if holds { &mut kept_up } else { &mut too_high }) = Some((rate, arrived));
        rate = match (&kept_up, &too_high) {
            (Some((low, _)), Some((high, _))) if f64::from(*high) > NEAR * f64::from(*low) => {
                low.midpoint(*high)
            }
            (Some(_), Some(_)) => break,
            (Some((low, _)), None) => low.saturating_mul(2),
            (None, _) if rate > 1 => rate / 2,
            (None, _) => break,
        };
    }
    let others = watch.others();
    let name = |what: &str| format!("{NAME}, highest rate with p99 below {KEPT_UP_P99} ms{what}");
    let highest = kept_up.as_ref().map_or(0.0, |(rate, _)| f64::from(*rate));
    table.add(name(""), "events/s", vec![highest], None, others);
    for (what, share) in [(": p50", 0.5), (": p99", 0.99)] {
        let latency = kept_up.as_ref().map_or(0.0, |(_, arrived)| arrived.quantile(share));
        table.add(name(what), "ms", vec![latency], None, others);
    }
    if let Some((rate, arrived)) = too_high {
        let what = format!(": p99 of {rate} events/s");
        table.add(name(&what), "ms", vec![arrived.quantile(0.99)], None, others);
    }
    Ok(())
}
