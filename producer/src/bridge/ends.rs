//! Source, sink and dead letters, as the configuration has them.

use std::sync::Arc;

use cipherscore_common::broker::amqp::{AmqpBroker, AmqpConfig};
use cipherscore_common::broker::{Broker, QueuePrefetch};
use cipherscore_common::config::Section;

use tracing::info;

use super::BridgeError;
use super::http::{AnswerAlone, HttpSource};
use super::lines::{LineLetters, LineSink, LineSource};
use super::queue::{QueueSink, QueueSource};
use super::record::{DeadLetterSink, Ends, EventSource, ScoreSink};
use super::settings::{
    BridgeSettings, DeadLettersSection, EndKind, ScoreForm, SinkSection, SourceKind,
};
use super::state::BridgeState;

/// Opens what the settings name: standard input and output, the owner's broker, or an address where
/// scores are asked for. A broker that is away, or has no such queue, is an error here, since its
/// address may be wrong; later it is waited for.
pub async fn open_ends(
    settings: &BridgeSettings,
    state: &Arc<BridgeState>,
) -> Result<Ends, BridgeError> {
    let (sink, dead_letters) = (settings.sink_kind(), settings.dead_letters_kind());
    let is_http = settings.source.kind == SourceKind::Http;
    let wrong = |text: &str| Err(BridgeError::Settings(text.into()));
    if sink == EndKind::Lines && settings.scores.format == ScoreForm::BinaryCloudEvents {
        return wrong("scores.format cloudevents-binary needs headers: take cloudevents for lines");
    }
    if !is_http && [sink, dead_letters].contains(&EndKind::Answer) {
        return wrong("the kind answer is for those who ask over HTTP: source.kind is not http");
    }
    let is_amqp =
        settings.source.kind == SourceKind::Amqp || [sink, dead_letters].contains(&EndKind::Amqp);
    let owner = if is_amqp { Some(Owner::open(settings)?) } else { None };
    let owner = owner.as_ref();
    let sink = open_sink(settings, sink, owner).await?;
    let dead_letters = open_letters(settings, dead_letters, owner).await?;
    // Last, since others may ask from then on.
    let source = open_source(settings, owner, state).await?;
    Ok(Ends { source, sink, dead_letters })
}

async fn open_source(
    settings: &BridgeSettings,
    owner: Option<&Owner>,
    state: &Arc<BridgeState>,
) -> Result<Box<dyn EventSource>, BridgeError> {
    match (settings.source.kind, owner) {
        (SourceKind::Amqp, Some(owner)) => {
            let queue = named("source.queue", &settings.source.queue)?;
            owner.require_queue(&queue).await?;
            let queue = QueuePrefetch { queue, prefetch: settings.source_prefetch() };
            Ok(Box::new(QueueSource::new(Arc::clone(&owner.0), queue)))
        }
        (SourceKind::Http, _) => {
            let opened = HttpSource::open(&settings.http, state).await;
            let source = opened.map_err(BridgeError::Settings)?;
            info!(address = %source.address(), "scores are asked for here");
            Ok(Box::new(source))
        }
        _ => Ok(Box::new(LineSource::new(std::io::stdin(), settings.bridge.max_event_bytes()))),
    }
}

async fn open_sink(
    settings: &BridgeSettings,
    kind: EndKind,
    owner: Option<&Owner>,
) -> Result<Box<dyn ScoreSink>, BridgeError> {
    let SinkSection { exchange, routing_key, .. } = &settings.sink;
    match (kind, owner) {
        (EndKind::Amqp, Some(owner)) => {
            Ok(Box::new(owner.sink("sink.routing_key", exchange, routing_key).await?))
        }
        (EndKind::Answer, _) => Ok(Box::new(AnswerAlone)),
        _ => {
            let opened = LineSink::stdout();
            let wrong = |error| BridgeError::Settings(format!("standard output: {error}"));
            Ok(Box::new(opened.map_err(wrong)?))
        }
    }
}

async fn open_letters(
    settings: &BridgeSettings,
    kind: EndKind,
    owner: Option<&Owner>,
) -> Result<Box<dyn DeadLetterSink>, BridgeError> {
    let DeadLettersSection { exchange, routing_key, file, .. } = &settings.dead_letters;
    match (kind, owner) {
        (EndKind::Amqp, Some(owner)) => {
            Ok(Box::new(owner.sink("dead_letters.routing_key", exchange, routing_key).await?))
        }
        (EndKind::Answer, _) => Ok(Box::new(AnswerAlone)),
        _ => {
            let path = named("dead_letters.file", file)?;
            let opened = LineLetters::open(&path);
            let wrong = |error| BridgeError::Settings(format!("{}: {error}", path.display()));
            Ok(Box::new(opened.map_err(wrong)?))
        }
    }
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
