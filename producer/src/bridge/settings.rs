//! `config/bridge.toml`: where events come from, how they are read and scored, and where scores go.

mod http;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use cipherscore_common::ModelId;
use cipherscore_common::config::{LogSection, ServiceSettings, address_or_nothing};
use serde::{Deserialize, Deserializer};

pub use self::http::HttpSection;
use crate::fleet::FleetSections;
use crate::gateway::GatewaySettings;
use crate::model::FormChoice;
use crate::settings::ProducerSection;

/// All of the configuration.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BridgeSettings {
    /// Section `[bridge]`: bounds and times.
    pub bridge: BridgeSection,
    /// Section `[source]`: where events come from.
    pub source: SourceSection,
    /// Section `[http]`: how events come over HTTP, and how they are answered.
    pub http: HttpSection,
    /// Section `[sink]`: where scores go.
    pub sink: SinkSection,
    /// Section `[dead_letters]`: where events go that have no scores.
    pub dead_letters: DeadLettersSection,
    /// Section `[owner]`: the broker of the owner's own queues.
    pub owner: ServiceSettings,
    /// Section `[events]`: how events are read.
    pub events: EventsSection,
    /// Section `[scores]`: how scores are written.
    pub scores: ScoresSection,
    /// Sections `[[models]]`: what events are scored with.
    pub models: Vec<ModelSection>,
    /// Section `[producer]`: how jobs are cut and published.
    pub producer: ProducerSection,
    /// Section `[broker]`: RabbitMQ of the fleet.
    pub broker: ServiceSettings,
    /// Section `[store]`: Redis of the fleet.
    pub store: ServiceSettings,
    /// Section `[gateway]`: in the place of both.
    pub gateway: GatewaySettings,
    /// Section `[health]`: how it shows that it is well.
    pub health: BridgeHealthSection,
    /// Section `[log]`: what it says.
    pub log: LogSection,
}

/// Section `[bridge]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BridgeSection {
    /// How long an event waits for others that share a job with it.
    #[serde(with = "humantime_serde")]
    pub max_wait: Duration,
    /// Rows of a job, at most; 0 lets the model decide.
    pub max_rows: u32,
    /// Memory of events that are taken and not settled.
    pub memory: ByteSize,
    /// Largest event.
    pub max_event_size: ByteSize,
    /// How many settled events are remembered, to know those that come again.
    pub window: NonZeroUsize,
    /// How long events that are underway may take at the end.
    #[serde(with = "humantime_serde")]
    pub grace_period: Duration,
    /// How often `client.zip` and keys are looked at.
    #[serde(with = "humantime_serde")]
    pub reload_interval: Duration,
}

impl Default for BridgeSection {
    fn default() -> Self {
        Self {
            max_wait: Duration::from_millis(5),
            max_rows: 0,
            memory: ByteSize::mib(256),
            max_event_size: ByteSize::kib(64),
            window: NonZeroUsize::MIN.saturating_add(99_999),
            grace_period: Duration::from_secs(60),
            reload_interval: Duration::from_secs(10),
        }
    }
}

impl BridgeSection {
    /// Rows of a job, unless the model decides.
    pub(super) fn max_rows(&self) -> Option<NonZeroU32> {
        NonZeroU32::new(self.max_rows)
    }

    /// Largest event, in bytes.
    pub(super) fn max_event_bytes(&self) -> usize {
        usize::try_from(self.max_event_size.as_u64()).unwrap_or(usize::MAX)
    }
}

impl BridgeSettings {
    /// Where scores go.
    pub fn sink_kind(&self) -> EndKind {
        self.sink.kind.unwrap_or_else(|| self.source.kind.other_end())
    }

    /// Where events go that have no scores.
    pub fn dead_letters_kind(&self) -> EndKind {
        self.dead_letters.kind.unwrap_or_else(|| self.source.kind.other_end())
    }

    /// What says where the fleet is.
    pub fn fleet(&self) -> FleetSections<'_> {
        FleetSections { broker: &self.broker, store: &self.store, gateway: &self.gateway }
    }

    /// Unsettled messages of the source's queue, at most: those that cannot be taken for want of memory
    /// would wait here, in memory that nobody counts.
    pub(super) fn source_prefetch(&self) -> u16 {
        let largest = self.bridge.max_event_size.as_u64().max(1);
        let fitting = (self.bridge.memory.as_u64() / largest).max(1);
        let prefetch = self.source.prefetch.get();
        u16::try_from(fitting).map_or(prefetch, |fitting| fitting.min(prefetch))
    }
}

/// What kind of source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceKind {
    /// Lines of JSON on standard input.
    Lines,
    /// RabbitMQ.
    Amqp,
    /// Whoever asks for scores over HTTP.
    Http,
}

impl SourceKind {
    /// What the other ends are unless they are configured.
    const fn other_end(self) -> EndKind {
        match self {
            Self::Lines | Self::Amqp => EndKind::Lines,
            Self::Http => EndKind::Answer,
        }
    }
}

/// What kind of sink, or of place for dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndKind {
    /// Lines of JSON on standard output, or in a file.
    Lines,
    /// RabbitMQ.
    Amqp,
    /// The answer to whoever asked, and nothing else.
    Answer,
}

/// Section `[source]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SourceSection {
    /// What kind.
    pub kind: SourceKind,
    /// Queue with events.
    pub queue: Option<String>,
    /// Events that may be taken from it and not settled.
    pub prefetch: NonZeroU16,
}

impl Default for SourceSection {
    fn default() -> Self {
        let prefetch = NonZeroU16::MIN.saturating_add(9_999);
        Self { kind: SourceKind::Lines, queue: None, prefetch }
    }
}

/// Section `[sink]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SinkSection {
    /// What kind, unless the source says it.
    pub kind: Option<EndKind>,
    /// Exchange to which scores are published.
    pub exchange: String,
    /// With which routing key: of the default exchange, the name of a queue.
    pub routing_key: Option<String>,
}

/// Section `[dead_letters]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeadLettersSection {
    /// What kind, unless the source says it.
    pub kind: Option<EndKind>,
    /// File that lines are added to.
    pub file: Option<PathBuf>,
    /// Exchange to which dead letters are published.
    pub exchange: String,
    /// With which routing key.
    pub routing_key: Option<String>,
}

/// What events look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    /// JSON objects.
    Json,
    /// CloudEvents 1.0, in structured mode, or in binary mode in headers of AMQP.
    CloudEvents,
}

/// Section `[events]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EventsSection {
    /// What they look like.
    pub format: EventKind,
    /// Where the id of a JSON event is.
    pub id: String,
    /// What JSON events name as their source.
    pub source: String,
    /// Where it says which model scores an event.
    pub route: Option<String>,
    /// Where the key is of which scores keep the order of events.
    pub order_by: Option<String>,
    /// What of an event its score repeats: names and where each is.
    pub fields: BTreeMap<String, String>,
    /// Whether a feature that an event does not mention counts as missing, as one that is null does.
    pub absent_is_missing: bool,
}

impl Default for EventsSection {
    fn default() -> Self {
        Self {
            format: EventKind::Json,
            id: "/id".into(),
            source: "events".into(),
            route: None,
            order_by: None,
            fields: BTreeMap::new(),
            absent_is_missing: false,
        }
    }
}

/// What scores look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScoreForm {
    /// JSON objects.
    Json,
    /// CloudEvents 1.0 in structured mode.
    #[serde(rename = "cloudevents")]
    CloudEvents,
    /// CloudEvents 1.0 in binary mode: attributes in headers of AMQP.
    #[serde(rename = "cloudevents-binary")]
    BinaryCloudEvents,
}

/// Section `[scores]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScoresSection {
    /// What they look like.
    pub format: ScoreForm,
    /// `type` of their CloudEvents.
    #[serde(rename = "type")]
    pub event_type: String,
    /// `source` of their CloudEvents.
    pub source: String,
    /// Whether a classifier's probabilities are there beside its label.
    pub probabilities: bool,
}

impl Default for ScoresSection {
    fn default() -> Self {
        Self {
            format: ScoreForm::Json,
            event_type: "cipherscore.score".into(),
            source: "cipherscore-bridge".into(),
            probabilities: true,
        }
    }
}

/// A section `[[models]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSection {
    /// For logs and metrics.
    pub name: String,
    /// Folder with `client.zip`, and with `server.zip` where only that says which model it is.
    pub artifact: PathBuf,
    /// Folder with keys.
    pub keys: PathBuf,
    /// Which model, where neither zip says it.
    #[serde(default)]
    pub model: Option<ModelId>,
    /// In which form rows are encrypted.
    #[serde(default, deserialize_with = "form")]
    pub form: FormChoice,
    /// What events of this model have at `events.route`.
    #[serde(default)]
    pub when: Option<String>,
    /// Where features are, unless they are at the top under their own names.
    #[serde(default)]
    pub features: BTreeMap<String, String>,
    /// Names of the classes, in the order of the probabilities; numbers from 0 if not given.
    #[serde(default)]
    pub labels: Vec<String>,
}

fn form<'de, D: Deserializer<'de>>(deserializer: D) -> Result<FormChoice, D::Error> {
    let no_form = |_| serde::de::Error::custom("auto, rows or bulk");
    String::deserialize(deserializer)?.parse().map_err(no_form)
}

/// Section `[health]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BridgeHealthSection {
    /// Where `/livez`, `/readyz` and `/metrics` are.
    #[serde(deserialize_with = "address_or_nothing")]
    pub listen: Option<SocketAddr>,
}

impl Default for BridgeHealthSection {
    fn default() -> Self {
        Self { listen: Some(SocketAddr::from(([127, 0, 0, 1], 8486))) }
    }
}

#[cfg(test)]
mod tests;
