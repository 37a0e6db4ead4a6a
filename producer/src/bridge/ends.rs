//! Source, sink and dead letters, as the configuration has them.

use std::sync::Arc;

use cipherscore_common::broker::amqp::{AmqpBroker, AmqpConfig};
use cipherscore_common::broker::{Broker, QueuePrefetch};
use cipherscore_common::config::Section;

use super::BridgeError;
use super::lines::{LineLetters, LineSink, LineSource};
use super::queue::{QueueSink, QueueSource};
use super::record::{DeadLetterSink, Ends, EventSource, ScoreSink};
use super::settings::{BridgeSettings, EndKind, ScoreForm};

/// Opens what the settings name: standard input and output, or the owner's broker. A broker that is
/// away, or has no such queue, is an error here, since its address may be wrong; later it is waited
/// for.
pub async fn open_ends(settings: &BridgeSettings) -> Result<Ends, BridgeError> {
    let BridgeSettings { source, sink, dead_letters, .. } = settings;
    let kinds = [source.kind, sink.kind, dead_letters.kind];
    let owner = match kinds.contains(&EndKind::Amqp) {
        true => Some(Owner::open(settings)?),
        false => None,
    };
    if sink.kind == EndKind::Lines && settings.scores.format == ScoreForm::BinaryCloudEvents {
        let wrong = "scores.format cloudevents-binary needs headers: take cloudevents for lines";
        return Err(BridgeError::Settings(wrong.into()));
    }
    let source: Box<dyn EventSource> = match &owner {
        Some(owner) if source.kind == EndKind::Amqp => {
            let queue = named("source.queue", &source.queue)?;
            owner.require_queue(&queue).await?;
            let queue = QueuePrefetch { queue, prefetch: settings.source_prefetch() };
            Box::new(QueueSource::new(Arc::clone(&owner.0), queue))
        }
        _ => Box::new(LineSource::new(std::io::stdin(), settings.bridge.max_event_bytes())),
    };
    let sink: Box<dyn ScoreSink> = match &owner {
        Some(owner) if sink.kind == EndKind::Amqp => {
            Box::new(owner.sink("sink.routing_key", &sink.exchange, &sink.routing_key).await?)
        }
        _ => Box::new(LineSink::new(std::io::stdout())),
    };
    let dead_letters: Box<dyn DeadLetterSink> = match &owner {
        Some(owner) if dead_letters.kind == EndKind::Amqp => {
            let (exchange, key) = (&dead_letters.exchange, &dead_letters.routing_key);
            Box::new(owner.sink("dead_letters.routing_key", exchange, key).await?)
        }
        _ => {
            let path = named("dead_letters.file", &dead_letters.file)?;
            let opened = LineLetters::open(&path);
            let wrong = |error| BridgeError::Settings(format!("{}: {error}", path.display()));
            Box::new(opened.map_err(wrong)?)
        }
    };
    Ok(Ends { source, sink, dead_letters })
}

fn named<T: Clone>(key: &str, value: &Option<T>) -> Result<T, BridgeError> {
    value.clone().ok_or_else(|| BridgeError::Settings(format!("{key} is not configured")))
}

/// The owner's broker.
struct Owner(Arc<AmqpBroker>);

impl Owner {
    fn open(settings: &BridgeSettings) -> Result<Self, BridgeError> {
        let config = AmqpConfig::from_section(&settings.owner, Section::Owner);
        let config = config.map_err(|error| BridgeError::Settings(error.to_string()))?;
        let config = config
            .with_name("cipherscore bridge")
            .with_confirm_timeout(settings.producer.confirm_timeout);
        let broker = AmqpBroker::new(config);
        let broker = broker.map_err(|error| BridgeError::Settings(format!("owner: {error}")))?;
        Ok(Self(Arc::new(broker)))
    }

    async fn require_queue(&self, queue: &str) -> Result<(), BridgeError> {
        match self.0.queue_state(queue).await {
            Ok(Some(_)) => Ok(()),
            Ok(None) => {
                let wrong = format!("the owner's broker has no queue {queue}: make it first");
                Err(BridgeError::Settings(wrong))
            }
            Err(error) => Err(BridgeError::Settings(format!("owner: {error}"))),
        }
    }

    /// What routes to no queue is noticed here where it can be: the default exchange routes by name.
    async fn sink(
        &self,
        key: &str,
        exchange: &str,
        routing_key: &Option<String>,
    ) -> Result<QueueSink<AmqpBroker>, BridgeError> {
        let routing_key = named(key, routing_key)?;
        if exchange.is_empty() {
            self.require_queue(&routing_key).await?;
        }
        Ok(QueueSink::new(Arc::clone(&self.0), exchange.to_owned(), routing_key))
    }
}
