//! `config/bridge.toml`: where events come from, how they are read and scored, and where scores go.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use cipherscore_common::ModelId;
use cipherscore_common::config::{LogSection, ServiceSettings, address_or_nothing};
use serde::{Deserialize, Deserializer};

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

/// What kind of source, sink or place for dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndKind {
    /// Lines of JSON on standard input or standard output.
    Lines,
    /// RabbitMQ.
    Amqp,
}

/// Section `[source]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SourceSection {
    /// What kind.
    pub kind: EndKind,
    /// Queue with events.
    pub queue: Option<String>,
    /// Events that may be taken from it and not settled.
    pub prefetch: NonZeroU16,
}

impl Default for SourceSection {
    fn default() -> Self {
        let prefetch = NonZeroU16::MIN.saturating_add(9_999);
        Self { kind: EndKind::Lines, queue: None, prefetch }
    }
}

/// Section `[sink]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SinkSection {
    /// What kind.
    pub kind: EndKind,
    /// Exchange to which scores are published.
    pub exchange: String,
    /// With which routing key: of the default exchange, the name of a queue.
    pub routing_key: Option<String>,
}

impl Default for SinkSection {
    fn default() -> Self {
        Self { kind: EndKind::Lines, exchange: String::new(), routing_key: None }
    }
}

/// Section `[dead_letters]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeadLettersSection {
    /// What kind.
    pub kind: EndKind,
    /// File that lines are added to.
    pub file: Option<PathBuf>,
    /// Exchange to which dead letters are published.
    pub exchange: String,
    /// With which routing key.
    pub routing_key: Option<String>,
}

impl Default for DeadLettersSection {
    fn default() -> Self {
        Self { kind: EndKind::Lines, file: None, exchange: String::new(), routing_key: None }
    }
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
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use cipherscore_common::config::load;

    use super::*;

    fn annotated() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/bridge.toml")
    }

    fn load_text(text: &str) -> Result<BridgeSettings, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("bridge.toml");
        std::fs::write(&file, text).unwrap();
        load(Some(&file), &[]).map_err(|error| error.to_string())
    }

    #[test]
    fn the_annotated_file_says_the_defaults() {
        let settings: BridgeSettings = load(Some(&annotated()), &[]).unwrap();
        assert_eq!(format!("{settings:?}"), format!("{:?}", BridgeSettings::default()));
    }

    /// The keys of a section, as the error about an unknown one lists them.
    fn known_keys(head: &str) -> BTreeSet<String> {
        let error = load_text(&format!("{head}\nsurely-unknown = 1")).unwrap_err();
        let (_, known) = error.split_once("known here are ").unwrap();
        let known = known.split("; ").next().unwrap();
        known.split(", ").map(str::to_owned).collect()
    }

    /// Keys without a default are there as comments, which parse when the sign is taken off.
    #[test]
    fn the_annotated_file_explains_exactly_the_keys_that_there_are() {
        let text = std::fs::read_to_string(annotated()).unwrap();
        let (mut head, mut explained, mut all) = (String::new(), BTreeSet::new(), String::new());
        for line in text.lines() {
            let bare = line.strip_prefix("# ").unwrap_or(line);
            let key = bare.split(" = ").next().unwrap_or_default();
            let is_key = key != bare && key.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            if bare.starts_with('[') && bare.ends_with(']') {
                head = bare.to_owned();
            } else if is_key {
                assert!(explained.insert(format!("{head} {key}")), "{key} is explained twice");
            } else {
                continue;
            }
            all.push_str(bare);
            all.push('\n');
        }
        let all = load_text(&all).unwrap();
        assert_eq!(all.models.len(), 1);
        // The others are explained in producer.toml, which is tested there.
        let own = ["bridge", "source", "sink", "dead_letters", "owner", "events", "scores"];
        let heads = own.into_iter().chain(["health", "log", "[models]"]);
        let known = heads.flat_map(|section| {
            let head = format!("[{section}]");
            let keys = known_keys(&head).into_iter();
            keys.map(move |key| format!("{head} {key}"))
        });
        assert_eq!(explained, known.collect());
    }

    #[test]
    fn no_more_is_prefetched_than_memory_holds() {
        let prefetch = |text: &str| load_text(text).unwrap().source_prefetch();
        assert_eq!(prefetch(""), 4096);
        assert_eq!(prefetch("[source]\nprefetch = 7"), 7);
        assert_eq!(prefetch("[bridge]\nmemory = '1MiB'\nmax_event_size = '512KiB'"), 2);
        assert_eq!(prefetch("[bridge]\nmemory = '1TiB'"), 10_000);
    }

    #[test]
    fn values_of_the_wrong_form_are_refused() {
        for wrong in [
            "[source]\nkind = 'stdin'",
            "[source]\nprefetch = 0",
            "[bridge]\nwindow = 0",
            "[bridge]\nmemory = 'much'",
            "[scores]\nformat = 'cloud'",
            "[events]\nformat = 'csv'",
            "[[models]]\nname = 'a'",
            "[[models]]\nname = 'a'\nartifact = 'b'\nkeys = 'c'\nform = 'both'",
        ] {
            assert!(load_text(wrong).is_err(), "{wrong}");
        }
    }
}
