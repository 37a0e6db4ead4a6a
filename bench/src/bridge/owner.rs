//! The owner's queues.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use cipherscore_common::broker::Broker;
use cipherscore_common::broker::amqp::{AmqpBroker, AmqpConfig};
use cipherscore_common::message::Message;
use cipherscore_common::topology::{Binding, Declare, Exchange, ExchangeKind, Queue, Topology};

/// Exchange of the owner.
const EXCHANGE: &str = "bench";
/// Queue of events.
pub(super) const EVENTS: &str = "bench.events";
/// Queue of the same events, when the empty loop has passed them on.
pub(super) const PASSED: &str = "bench.passed";
/// Queue of scores.
pub(super) const SCORES: &str = "bench.scores";
/// Queue of what has none.
const DEAD: &str = "bench.dead";
/// How long somebody may take to begin.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often is looked at a queue.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// A client of the owner's queues.
pub(super) struct OwnersClient {
    pub(super) broker: AmqpBroker,
}

impl OwnersClient {
    /// Connects, and makes the queues.
    pub(super) async fn open(url: &str) -> anyhow::Result<Self> {
        let broker = AmqpBroker::new(AmqpConfig::parse(url)?)?;
        let queue = |name: &str| Queue {
            name: name.to_owned(),
            dead_letter: None,
            message_ttl: None,
            expires: None,
            binding: Binding { exchange: EXCHANGE, retry_step: None },
        };
        let exchange = Exchange { name: EXCHANGE, kind: ExchangeKind::Direct, alternate: None };
        let queues = [EVENTS, PASSED, SCORES, DEAD].map(queue).into();
        let topology = Topology { exchanges: vec![exchange], queues };
        broker.declare(&topology, Declare::Create).await?;
        Ok(Self { broker })
    }

    /// Sections of a bridge's configuration, from this queue to that of scores.
    pub(super) fn sections(from: &str) -> String {
        let to = |section: &str, queue: &str| {
            format!(
                "[{section}]\nkind = 'amqp'\nexchange = '{EXCHANGE}'\nrouting_key = '{queue}'\n"
            )
        };
        let (sink, dead) = (to("sink", SCORES), to("dead_letters", DEAD));
        format!("[source]\nkind = 'amqp'\nqueue = '{from}'\n{sink}{dead}")
    }

    /// Waits until somebody takes from a queue.
    pub(super) async fn expect_consumer(&self, queue: &str) -> anyhow::Result<()> {
        let started = Instant::now();
        while self.broker.queue_state(queue).await?.is_none_or(|state| state.consumers == 0) {
            ensure!(started.elapsed() < PATIENCE, "nobody takes from {queue}");
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        Ok(())
    }

    /// How many messages wait in a queue.
    pub(super) async fn waiting(&self, queue: &str) -> anyhow::Result<usize> {
        let state = self.broker.queue_state(queue).await?;
        Ok(usize::try_from(state.with_context(|| format!("no queue {queue}"))?.messages)?)
    }
}

/// A message for a queue.
pub(super) fn message_to(queue: &str, body: Vec<u8>) -> Message {
    Message {
        exchange: EXCHANGE.into(),
        routing_key: queue.into(),
        content_type: Some("application/json".into()),
        body,
        ..Message::default()
    }
}
