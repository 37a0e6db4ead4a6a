//! `config/producer.toml`: where broker and store are, and how jobs are cut and published.

use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use cipherscore_common::config::ServiceSettings;
use cipherscore_common::topology::{Declare, LaneChoice};
use cipherscore_common::{Lease, Tenant};
use serde::{Deserialize, Deserializer};

use crate::client::{ClientOptions, PAYLOAD_LEASE};
use crate::fleet::FleetSections;
use crate::gateway::GatewaySettings;

/// Jobs in flight unless told otherwise.
pub const IN_FLIGHT: NonZeroU16 = NonZeroU16::MIN.saturating_add(15);
/// Deadline of a job unless told otherwise.
pub const JOB_DEADLINE: Duration = Duration::from_secs(60 * 60);
/// How long a confirm may take unless told otherwise.
pub const CONFIRM_TIMEOUT: Duration = Duration::from_secs(30);

/// All of the configuration.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProducerSettings {
    /// Section `[producer]`.
    pub producer: ProducerSection,
    /// Section `[broker]`.
    pub broker: ServiceSettings,
    /// Section `[store]`.
    pub store: ServiceSettings,
    /// Section `[gateway]`, in the place of both.
    pub gateway: GatewaySettings,
}

impl ProducerSettings {
    /// What says where the fleet is.
    pub fn fleet(&self) -> FleetSections<'_> {
        FleetSections { broker: &self.broker, store: &self.store, gateway: &self.gateway }
    }
}

/// Section `[producer]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProducerSection {
    /// Whose keys and jobs.
    #[serde(deserialize_with = "text")]
    pub tenant: Tenant,
    /// What names of reply queues begin with.
    #[serde(deserialize_with = "client_name")]
    pub client: String,
    /// Which of a model's queues.
    #[serde(deserialize_with = "text")]
    pub lane: LaneChoice,
    /// Rows of a job; 0 lets the model decide.
    pub rows_per_job: u32,
    /// Jobs that are published and not answered, at most.
    pub in_flight: NonZeroU16,
    /// How long an evaluation key stays in the store.
    #[serde(deserialize_with = "text")]
    pub key_lease: Lease,
    /// How long the payload of a job stays in the store.
    #[serde(deserialize_with = "text")]
    pub payload_lease: Lease,
    /// When a job that is not answered is published again; 0 for never.
    #[serde(with = "humantime_serde")]
    pub job_deadline: Duration,
    /// What to do about exchanges and queues.
    pub topology: Declare,
    /// How long the broker may take to confirm.
    #[serde(with = "humantime_serde")]
    pub confirm_timeout: Duration,
}

impl Default for ProducerSection {
    fn default() -> Self {
        Self {
            tenant: "default".parse().expect("a name of a tenant"),
            client: "producer".into(),
            lane: LaneChoice::default(),
            rows_per_job: 0,
            in_flight: IN_FLIGHT,
            key_lease: Lease::DEFAULT,
            payload_lease: PAYLOAD_LEASE,
            job_deadline: JOB_DEADLINE,
            topology: Declare::default(),
            confirm_timeout: CONFIRM_TIMEOUT,
        }
    }
}

/// Longest beginning of a client's name, in characters: a random part follows.
pub const MAX_CLIENT_PREFIX: usize = 40;

impl ProducerSection {
    /// Rows of a job, unless the model decides.
    pub fn rows_per_job(&self) -> Option<NonZeroU32> {
        NonZeroU32::new(self.rows_per_job)
    }

    /// Deadline of a job, if it has one.
    pub fn job_deadline(&self) -> Option<Duration> {
        Some(self.job_deadline).filter(|deadline| !deadline.is_zero())
    }

    /// What a client takes from these settings.
    pub fn client_options(&self) -> ClientOptions {
        ClientOptions {
            lane: self.lane,
            declare: self.topology,
            payload_lease: self.payload_lease,
            prefetch: self.in_flight,
            ..ClientOptions::default()
        }
    }
}

fn text<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

fn client_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = String::deserialize(deserializer)?;
    match name.parse::<Tenant>() {
        Ok(_) if name.len() <= MAX_CLIENT_PREFIX => Ok(name),
        _ => Err(serde::de::Error::custom(format!(
            "a client is named by 1 to {MAX_CLIENT_PREFIX} characters of a-z, 0-9 and -"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use cipherscore_common::config::load;

    use super::*;

    fn annotated() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/producer.toml")
    }

    fn load_text(text: &str) -> Result<ProducerSettings, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("producer.toml");
        std::fs::write(&file, text).unwrap();
        load(Some(&file), &[]).map_err(|error| error.to_string())
    }

    #[test]
    fn the_annotated_file_says_the_defaults() {
        let settings: ProducerSettings = load(Some(&annotated()), &[]).unwrap();
        assert_eq!(format!("{settings:?}"), format!("{:?}", ProducerSettings::default()));
    }

    /// The error about an unknown key lists the known ones.
    fn known_keys(section: &str) -> Vec<String> {
        let error = load_text(&format!("[{section}]\nsurely-unknown = 1")).unwrap_err();
        let (_, known) = error.split_once("known here are ").unwrap();
        known.split(", ").map(str::to_owned).collect()
    }

    #[test]
    fn the_annotated_file_has_every_key_and_its_variable() {
        let text = std::fs::read_to_string(annotated()).unwrap();
        for section in ["producer", "broker", "store", "gateway"] {
            let (_, rest) = text.split_once(&format!("[{section}]")).unwrap();
            let rest = rest.split("\n[").next().unwrap();
            let known = known_keys(section);
            assert!(known.len() >= 4, "{known:?}");
            for key in known {
                let line =
                    |line: &str| line.trim_start_matches("# ").starts_with(&format!("{key} = "));
                assert!(rest.lines().any(line), "{section}.{key} is missing");
                let variable = format!("CIPHERSCORE_{section}__{key}").to_uppercase();
                assert!(rest.contains(&variable), "{variable} is missing");
            }
        }
    }

    #[test]
    fn values_of_the_wrong_form_are_refused() {
        for wrong in [
            "tenant = 'A B'",
            "client = ''",
            "client = 'Ann'",
            "in_flight = 0",
            "key_lease = '3 weeks'",
            "lane = 'fast'",
            "topology = 'maybe'",
        ] {
            assert!(load_text(&format!("[producer]\n{wrong}")).is_err(), "{wrong}");
        }
        let settings = load_text("[producer]\nrows_per_job = 7\njob_deadline = '0s'").unwrap();
        assert_eq!(settings.producer.rows_per_job(), NonZeroU32::new(7));
        assert_eq!(settings.producer.job_deadline(), None);
    }
}
