//! The data owner's own queues: events in, scores and dead letters out, each one looked at.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use cipherscore_common::broker::amqp::{AmqpBroker, AmqpConfig};
use cipherscore_common::broker::{Broker, BrokerError, Disposition, QueuePrefetch, Subscription};
use cipherscore_common::message::{Message, headers};
use cipherscore_common::topology::{Binding, Declare, Exchange, ExchangeKind, Queue, Topology};
use cipherscore_producer::bridge::DeadCode;
use fastrand::Rng;
use serde_json::Value;
use tokio::task::JoinSet;

use super::known::{KnownRows, LABELS};
use super::score_ledger::{ExpectedEnd, ScoreLedger};

/// Exchange of the owner.
const EXCHANGE: &str = "owner";
/// Queue of events, of scores, and of what has none.
pub(super) const QUEUES: [&str; 3] = ["events", "scores", "dead"];
/// Scores, or dead letters, that are taken and not acknowledged.
const PREFETCH: u16 = 100;
/// How often events are published: those of one interval at once, so that the bridge has some waiting.
const BURST: Duration = Duration::from_secs(1);
/// Pause before something is tried again.
const PAUSE: Duration = Duration::from_millis(250);

/// What is published, and how fast.
#[derive(Debug, Clone, Copy)]
pub struct EventPace {
    /// How many events, those without features among them.
    pub events: usize,
    /// In which time.
    pub time: Duration,
    /// Events of a hundred that have no features, and must be dead letters.
    pub unreadable_percent: f64,
    /// For what is unreadable, and the schedule.
    pub seed: u64,
}

/// The owner's side of a run.
pub(super) struct OwnerQueues {
    broker: AmqpBroker,
    pub(super) known: KnownRows,
    pub(super) ledger: ScoreLedger,
    /// Events that the broker has.
    pub(super) published: AtomicUsize,
    /// Publications that were not confirmed, and done again: the event may be there twice.
    pub(super) published_again: AtomicUsize,
}

impl OwnerQueues {
    /// Connects, and makes the queues.
    pub(super) async fn open(url: &str, known: KnownRows) -> anyhow::Result<Self> {
        let broker = AmqpBroker::new(AmqpConfig::parse(url)?)?;
        let exchange = Exchange { name: EXCHANGE, kind: ExchangeKind::Direct, alternate: None };
        let queue = |name: &str| Queue {
            name: name.to_owned(),
            dead_letter: None,
            message_ttl: None,
            expires: None,
            binding: Binding { exchange: EXCHANGE, retry_step: None },
        };
        let topology = Topology { exchanges: vec![exchange], queues: QUEUES.map(queue).into() };
        broker.declare(&topology, Declare::Create).await?;
        let (ledger, published, published_again) = Default::default();
        Ok(Self { broker, known, ledger, published, published_again })
    }

    /// Sections of the bridge's configuration for these queues.
    pub(super) fn sections() -> String {
        let [events, scores, dead] = QUEUES;
        let to = |section: &str, queue: &str| {
            format!(
                "[{section}]\nkind = 'amqp'\nexchange = '{EXCHANGE}'\nrouting_key = '{queue}'\n"
            )
        };
        format!(
            "[source]\nkind = 'amqp'\nqueue = '{events}'\n{}{}",
            to("sink", scores),
            to("dead_letters", dead)
        )
    }

    /// Waits until somebody takes events.
    pub(super) async fn expect_bridge(&self, patience: Duration) -> anyhow::Result<()> {
        let started = Instant::now();
        loop {
            let state = self.broker.queue_state(QUEUES[0]).await?;
            if state.is_some_and(|state| state.consumers > 0) {
                return Ok(());
            }
            ensure!(started.elapsed() < patience, "the bridge does not take events");
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Publishes all events, and waits until the broker has them.
    pub(super) async fn publish(self: &Arc<Self>, pace: EventPace) -> anyhow::Result<()> {
        let mut random = Rng::with_seed(pace.seed);
        let started = Instant::now();
        let mut publishing = JoinSet::new();
        for number in 0..pace.events {
            let due = pace.time.mul_f64(number as f64 / pace.events as f64);
            let burst = BURST * u32::try_from(due.as_millis() / BURST.as_millis())?;
            tokio::time::sleep_until((started + burst).into()).await;
            let (id, event, expected) = match random.f64() * 100.0 < pace.unreadable_percent {
                true => {
                    let id = format!("half-{number}");
                    let event = self.known.unreadable(&id);
                    (id, event, ExpectedEnd::DeadLetter)
                }
                false => {
                    let event = self.known.event(number);
                    (number.to_string(), event, ExpectedEnd::Score(number))
                }
            };
            self.ledger.publish(&id, expected);
            let queues = Arc::clone(self);
            publishing.spawn(async move { queues.publish_one(&event).await });
        }
        while let Some(published) = publishing.join_next().await {
            published??;
        }
        Ok(())
    }

    async fn publish_one(&self, event: &Value) -> Result<(), BrokerError> {
        let message = Message {
            exchange: EXCHANGE.into(),
            routing_key: QUEUES[0].into(),
            content_type: Some("application/json".into()),
            body: event.to_string().into_bytes(),
            ..Message::default()
        };
        loop {
            match self.broker.publish(&message).await {
                Ok(()) => break,
                Err(error) if error.is_temporary() => {
                    self.published_again.fetch_add(1, Ordering::SeqCst);
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
        self.published.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    /// Takes scores, and compares each with what it must be. Goes on until it is dropped.
    pub(super) async fn read_scores(self: Arc<Self>) -> anyhow::Result<()> {
        self.read(QUEUES[1], |message, was_read| {
            let key = message.message_id.clone().unwrap_or_default();
            self.ledger.score(&key, self.wrong_score(message, &key), was_read);
        })
        .await
    }

    /// The same for dead letters.
    pub(super) async fn read_dead_letters(self: Arc<Self>) -> anyhow::Result<()> {
        self.read(QUEUES[2], |message, was_read| {
            let body: Value = serde_json::from_slice(&message.body).unwrap_or_default();
            let id = body["id"].as_str().unwrap_or_default();
            self.ledger.dead_letter(id, wrong_letter(message), was_read);
        })
        .await
    }

    /// What counts as read before came from the broker before, and may have got lost with a connection.
    async fn read(&self, queue: &str, mut look: impl FnMut(&Message, bool)) -> anyhow::Result<()> {
        let wanted = [QueuePrefetch { queue: queue.to_owned(), prefetch: PREFETCH }];
        loop {
            let failed = match self.broker.subscribe(&wanted).await {
                Err(error) => error,
                Ok(mut subscription) => loop {
                    match subscription.next().await {
                        Err(error) => break error,
                        Ok(delivery) => {
                            look(&delivery.message, delivery.returned > 0);
                            // Where it cannot be told, it comes again.
                            let _ = delivery.settle(Disposition::Ack).await;
                        }
                    }
                },
            };
            ensure!(failed.is_temporary(), "reading {queue}: {failed}");
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// What is wrong with a score under this key, if anything.
    fn wrong_score(&self, message: &Message, key: &str) -> Option<String> {
        let Ok(score) = serde_json::from_slice::<Value>(&message.body) else {
            return Some("a score that is no JSON".into());
        };
        let id = score["event"]["id"].as_str().unwrap_or_default();
        let Some(row) = self.ledger.expected_row(key, id) else {
            return Some(format!("a score of {id} under the key {key}"));
        };
        let probabilities = score["probabilities"].as_array().into_iter().flatten();
        let probabilities: Vec<_> = probabilities.filter_map(Value::as_f64).collect();
        if !self.known.is_right(row, &probabilities) {
            return Some(format!("other scores: {probabilities:?}"));
        }
        let is_first = probabilities.first() >= probabilities.get(1);
        let label = LABELS[usize::from(!is_first)];
        let names = [
            ("key", key.to_owned()),
            ("model", self.known.model_id.to_string()),
            ("label", label.to_owned()),
        ];
        let other = names.iter().find(|(name, expected)| score[name] != expected.as_str());
        if let Some((name, expected)) = other {
            return Some(format!("its {name} is {}, not {expected}", score[name]));
        }
        let answers = message.correlation_id.as_deref();
        (answers != Some(id)).then(|| format!("its correlation id is {answers:?}"))
    }
}

/// What is wrong with a dead letter, if anything.
fn wrong_letter(message: &Message) -> Option<String> {
    let (code, reason) =
        (message.text(headers::DEAD_CODE), message.text(headers::DEAD_REASON).unwrap_or_default());
    let is_right = code == Some(DeadCode::Unreadable.as_str()) && !reason.is_empty();
    (!is_right).then(|| format!("a dead letter with code {code:?} and reason {reason:?}"))
}
