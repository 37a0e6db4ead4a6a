//! The broker, as a worker that is watched uses it: every message to it is timed, counted and, where
//! traces are collected, carries its trace.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use cipherscore_common::broker::{Broker, BrokerError, QueuePrefetch, QueueState};
use cipherscore_common::message::Message;
use cipherscore_common::telemetry::trace;
use cipherscore_common::topology::{Declare, Topology};
use tracing::Instrument;

use crate::metrics::Metrics;
use crate::pulse::Underway;

/// A broker that is watched. It does what the one inside does.
pub(crate) struct Watched<B> {
    broker: B,
    metrics: Arc<Metrics>,
    sending: Underway,
    subscribed: AtomicBool,
}

impl<B> Watched<B> {
    pub(crate) fn new(broker: B, metrics: Arc<Metrics>, sending: Underway) -> Self {
        Self { broker, metrics, sending, subscribed: AtomicBool::new(false) }
    }
}

impl<B: Broker> Broker for Watched<B> {
    type Subscription = B::Subscription;

    async fn declare(&self, topology: &Topology, declare: Declare) -> Result<(), BrokerError> {
        self.broker.declare(topology, declare).await
    }

    async fn publish(&self, message: &Message) -> Result<(), BrokerError> {
        let _attempt = self.sending.begin();
        let started = Instant::now();
        let span = trace::send(message);
        let carried = trace::carried(&span, message);
        let published = self.broker.publish(&carried).instrument(span).await;
        self.metrics.published(&message.exchange, started.elapsed(), &published);
        published
    }

    async fn subscribe(&self, queues: &[QueuePrefetch]) -> Result<B::Subscription, BrokerError> {
        let subscription = self.broker.subscribe(queues).await?;
        self.metrics.subscribed(self.subscribed.swap(true, Ordering::Relaxed));
        Ok(subscription)
    }

    async fn queue_state(&self, queue: &str) -> Result<Option<QueueState>, BrokerError> {
        self.broker.queue_state(queue).await
    }

    fn is_blocked(&self) -> bool {
        self.broker.is_blocked()
    }
}

#[cfg(test)]
mod tests {
    use cipherscore_common::broker::MemoryBroker;
    use cipherscore_common::broker_contract;

    use super::*;
    use crate::metrics::KeyCacheCounts;

    async fn watched() -> (Watched<MemoryBroker>, ()) {
        let metrics = Arc::new(Metrics::new(&KeyCacheCounts::default()));
        (Watched::new(MemoryBroker::default(), metrics, Underway::default()), ())
    }

    broker_contract!(watched, tokio::test(start_paused = true));
}
