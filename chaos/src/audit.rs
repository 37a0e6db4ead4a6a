//! What is left at the broker afterwards.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use cipherscore_common::broker::amqp::AmqpBroker;
use cipherscore_common::broker::{Broker, Disposition, QueuePrefetch, Subscription};
use cipherscore_common::message::{ErrorCode, headers};
use cipherscore_common::topology::{DEAD, Lane, RetryStep, UNROUTED, job_queue};
use cipherscore_common::{JobId, ModelId};

/// How long queues may take to become empty.
const PATIENCE: Duration = Duration::from_secs(150);
/// Pause between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// Dead letters at a time.
const PREFETCH: u16 = 100;

/// What was found in the dead-letter queue.
#[derive(Debug, Default)]
pub struct DeadLetters {
    /// Jobs by code, each id once.
    pub by_code: BTreeMap<String, usize>,
    /// Messages beyond one for each job.
    pub copies: usize,
    /// What should not be there, or is not there.
    pub wrong: Vec<String>,
}

/// Waits until nothing waits in the queues of these models, nor to be tried again.
pub async fn settled(broker: &AmqpBroker, models: &BTreeSet<ModelId>) -> anyhow::Result<()> {
    let started = Instant::now();
    while left_over(broker, models).await? > 0 {
        ensure!(started.elapsed() < PATIENCE, "jobs still wait, though all are answered");
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    Ok(())
}

/// How many messages are in job queues, in retry queues, and among the unrouted replies.
pub async fn left_over(broker: &AmqpBroker, models: &BTreeSet<ModelId>) -> anyhow::Result<u32> {
    let jobs = models.iter().flat_map(|id| Lane::ALL.map(|lane| job_queue(*id, lane)));
    let retries = (0..4).map(|attempt| format!("cs.retry.{}", RetryStep::after(attempt).name()));
    let mut messages = 0;
    for queue in jobs.chain(retries).chain([UNROUTED.to_owned()]) {
        let state = broker.queue_state(&queue).await?.with_context(|| queue.clone())?;
        messages += state.messages;
    }
    Ok(messages)
}

/// Takes everything out of the dead-letter queue, and compares it with what must be there.
pub async fn dead_letters(
    broker: &AmqpBroker,
    expected: &HashMap<JobId, ErrorCode>,
) -> anyhow::Result<DeadLetters> {
    let mut found: HashMap<JobId, String> = HashMap::new();
    let mut letters = DeadLetters::default();
    let queue = QueuePrefetch { queue: DEAD.to_owned(), prefetch: PREFETCH };
    let mut messages = broker.queue_state(DEAD).await?.context("no dead-letter queue")?.messages;
    let mut dead = broker.subscribe(&[queue]).await?;
    while messages > 0 {
        let next = tokio::time::timeout(PATIENCE, dead.next()).await;
        let delivery = next.context("a dead letter does not come")??;
        let message = &delivery.message;
        let code = message.text(headers::DEAD_CODE).unwrap_or("none").to_owned();
        let reason = message.text(headers::DEAD_REASON).unwrap_or_default().to_owned();
        let Some(job) = message.job_id() else {
            letters.wrong.push(format!("a message without job id: {reason}"));
            continue;
        };
        let right = expected.get(&job).is_some_and(|expected| expected.as_str() == code);
        if !right || reason.is_empty() {
            let expected = expected.get(&job).map_or("nothing", |code| code.as_str());
            letters.wrong.push(format!("{job}: {code} ({reason}) instead of {expected}"));
        }
        if found.insert(job, code).is_some() {
            letters.copies += 1;
        }
        delivery.settle(Disposition::Ack).await?;
        messages -= 1;
    }
    for (job, code) in expected.iter().filter(|(job, _)| !found.contains_key(job)) {
        letters.wrong.push(format!("{job}: {code} is missing"));
    }
    for code in found.into_values() {
        *letters.by_code.entry(code).or_default() += 1;
    }
    Ok(letters)
}
