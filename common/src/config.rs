//! Configuration in layers: defaults, then a file, then the environment, then flags.
//!
//! A key `broker.url` of the file is `CIPHERSCORE_BROKER__URL` in the environment: sections and
//! keys are separated by two underscores. Unknown keys are errors.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use figment::Figment;
use figment::providers::{Env, Format, Toml};
use figment::value::Value;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;

/// What all variables of the environment begin with.
pub const ENVIRONMENT_PREFIX: &str = "CIPHERSCORE_";
/// Largest file with a secret, in bytes.
const MAX_SECRET_FILE_BYTES: u64 = 8 << 10;

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// A layer cannot be read, has an unknown key, or a value of the wrong kind.
    #[error("{0}")]
    Layer(String),
    /// A file that the configuration names.
    #[error("{path}: {reason}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Something that is needed is nowhere.
    #[error("{what} is not configured: set {key} in the file, or {variable}")]
    Missing {
        /// What.
        what: &'static str,
        /// Its key.
        key: &'static str,
        /// Its variable in the environment.
        variable: String,
    },
    /// A value that makes no sense.
    #[error("{key}: {reason}")]
    Value {
        /// Which key.
        key: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

/// Reads a configuration. `flags` are keys such as `worker.slots` with what the command line says.
pub fn load<T: DeserializeOwned>(
    file: Option<&Path>,
    flags: &[(&str, String)],
) -> Result<T, ConfigError> {
    let mut layers = Figment::new();
    if let Some(file) = file {
        let text = std::fs::read_to_string(file).map_err(|error| ConfigError::File {
            path: file.to_owned(),
            reason: error.to_string(),
        })?;
        // From text rather than by name: a file that is not there is an error, not an empty layer.
        layers = layers.merge(Toml::string(&text));
    }
    // Variables without a section belong to single commands.
    let sections = Env::prefixed(ENVIRONMENT_PREFIX).filter(|key| key.as_str().contains("__"));
    layers = layers.merge(sections.split("__"));
    for (key, value) in flags {
        // Read as the environment is: what looks like a number is one.
        let Ok(value) = value.parse::<Value>();
        layers = layers.merge((*key, value));
    }
    layers.extract().map_err(|error| {
        let all: Vec<_> = error.into_iter().map(|error| describe(&error, file)).collect();
        ConfigError::Layer(all.join("; "))
    })
}

/// Never shows a value: it may be a password in the wrong place.
fn describe(error: &figment::Error, file: Option<&Path>) -> String {
    use figment::error::Kind;
    let what = match &error.kind {
        Kind::UnknownField(field, known) => {
            format!("unknown key {field:?}; known here are {}", known.join(", "))
        }
        Kind::InvalidType(_, expected) | Kind::InvalidValue(_, expected) => {
            format!("must be {expected}")
        }
        Kind::MissingField(field) => format!("{field} is missing"),
        Kind::Message(message) if error.path.is_empty() => message.clone(),
        Kind::Message(_) => "the value is not of the documented form".into(),
        other => other.to_string(),
    };
    let layer = match (&error.metadata, file) {
        (Some(layer), Some(file)) if layer.name.contains("TOML") => file.display().to_string(),
        (Some(layer), _) if layer.name.contains("environment") => "environment".to_owned(),
        _ => "flags".to_owned(),
    };
    match error.path.is_empty() {
        true => format!("{layer}: {what}"),
        false => format!("{layer}: {}: {what}", error.path.join(".")),
    }
}

/// Text that is never printed.
#[derive(Clone, Default, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(not shown)")
    }
}

/// How to reach a service: section `[broker]` and section `[store]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServiceSettings {
    /// Where, and as whom.
    pub url: Option<Secret>,
    /// A file with the URL, used when there is no `url`.
    pub url_file: Option<PathBuf>,
    /// PEM file with the authorities to trust, for `amqps://` and `rediss://`.
    pub ca_file: Option<PathBuf>,
    /// PEM file with our certificate, where the service asks for one.
    pub certificate_file: Option<PathBuf>,
    /// PEM file with its key.
    pub key_file: Option<PathBuf>,
}

impl ServiceSettings {
    /// What a command line says wins over both keys of the section.
    pub fn name(&mut self, url: Option<&str>, file: Option<&Path>) {
        match (url, file) {
            (Some(url), _) => self.url = Some(url.to_owned().into()),
            (None, Some(file)) => (self.url, self.url_file) = (None, Some(file.to_owned())),
            (None, None) => {}
        }
    }

    /// The URL, from wherever it is. `section` is which one this is.
    pub fn resolve_url(&self, section: Section) -> Result<Secret, ConfigError> {
        let (what, key) = match section {
            Section::Broker => ("the URL of the broker", "broker.url"),
            Section::Store => ("the URL of the store", "store.url"),
            Section::Owner => ("the URL of the data owner's broker", "owner.url"),
        };
        match (&self.url, &self.url_file) {
            (Some(url), _) => Ok(url.clone()),
            (None, Some(file)) => read_secret(file),
            (None, None) => {
                let variable = key.to_uppercase().replace('.', "__");
                let variable = format!("{ENVIRONMENT_PREFIX}{variable}");
                Err(ConfigError::Missing { what, key, variable })
            }
        }
    }
}

/// Which service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// `[broker]`
    Broker,
    /// `[store]`
    Store,
    /// `[owner]`: the broker of the data owner's own events.
    Owner,
}

fn read_secret(path: &Path) -> Result<Secret, ConfigError> {
    Ok(Secret(read_bounded(path, MAX_SECRET_FILE_BYTES)?.trim().to_owned()))
}

/// Reads a file of text, if it is not too large.
pub(crate) fn read_bounded(path: &Path, limit: u64) -> Result<String, ConfigError> {
    let error = |reason: String| ConfigError::File { path: path.to_owned(), reason };
    let size = std::fs::metadata(path).map_err(|source| error(source.to_string()))?.len();
    if size > limit {
        return Err(error(format!("larger than {limit} bytes")));
    }
    std::fs::read_to_string(path).map_err(|source| error(source.to_string()))
}

/// How a program tells what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "human" => Ok(Self::Human),
            "json" => Ok(Self::Json),
            _ => Err("a log format is human or json"),
        }
    }
}

/// `[log]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogSection {
    /// For people or for machines.
    pub format: LogFormat,
    /// What is logged.
    pub level: String,
}

impl Default for LogSection {
    fn default() -> Self {
        Self { format: LogFormat::Human, level: "info".into() }
    }
}

/// Where something listens; an empty text is nowhere: TOML has no null.
pub fn address_or_nothing<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    match text.is_empty() {
        true => Ok(None),
        false => text.parse().map(Some).map_err(serde::de::Error::custom),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    #[derive(Default)]
    struct Everything {
        broker: ServiceSettings,
    }

    fn load_text(text: &str, flags: &[(&str, String)]) -> Result<Everything, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("some.toml");
        std::fs::write(&file, text).unwrap();
        load(Some(&file), flags)
    }

    #[test]
    fn flags_win_over_the_file() {
        let text = "[broker]\nurl = 'amqp://one'\nca_file = 'ca.pem'";
        let flags = [("broker.url", "amqp://two".to_owned())];
        let broker = load_text(text, &flags).unwrap().broker;
        assert_eq!(broker.resolve_url(Section::Broker).unwrap().expose(), "amqp://two");
        assert_eq!(broker.ca_file, Some("ca.pem".into()));
    }

    #[test]
    fn unknown_keys_and_wrong_kinds_are_errors_that_show_no_value() {
        let error = load_text("[broker]\nuri = 'amqp://u:hush@h'", &[]).unwrap_err().to_string();
        assert!(error.contains("unknown key \"uri\"") && error.contains("some.toml"), "{error}");
        assert!(!error.contains("hush"), "{error}");
        let error = load_text("[broker]\nurl = ['hush']", &[]).unwrap_err().to_string();
        assert!(error.contains("broker.url") && !error.contains("hush"), "{error}");
        let error = load_text("[broker\nurl = 'hush'", &[]).unwrap_err().to_string();
        assert!(!error.contains("hush"), "{error}");
    }

    #[test]
    fn flags_are_read_as_what_they_look_like() {
        #[derive(Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        struct Numbers {
            few: u16,
            text: String,
            list: Vec<String>,
        }
        let flags = [("few", "7"), ("text", "amqp://u:p@h:1/%2f"), ("list", "[a, b]")];
        let flags = flags.map(|(key, value)| (key, value.to_owned()));
        let read: Numbers = load(None, &flags).unwrap();
        assert_eq!((read.few, read.text.as_str()), (7, "amqp://u:p@h:1/%2f"));
        assert_eq!(read.list, ["a", "b"]);
        let error = load::<Numbers>(None, &[("few", "many".to_owned())]).unwrap_err();
        assert_eq!(error.to_string(), "flags: few: must be u16");
    }

    #[test]
    fn a_url_may_be_in_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("url");
        std::fs::write(&file, "amqp://u:hush@h\n").unwrap();
        let settings = ServiceSettings { url_file: Some(file), ..ServiceSettings::default() };
        assert_eq!(settings.resolve_url(Section::Broker).unwrap().expose(), "amqp://u:hush@h");
        assert!(!format!("{settings:?}").contains("hush"));
        let error = ServiceSettings::default().resolve_url(Section::Store).unwrap_err();
        assert!(error.to_string().contains("CIPHERSCORE_STORE__URL"), "{error}");
    }
}
