//! What `keys` and `models` share: which store, whose, and what there is to say of it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use cipherscore_common::config::{ServiceSettings, load};
use cipherscore_common::{
    Blob, BlobInfo, BlobName, BlobStore, Lease, Put, RedisConfig, RedisStore, Tenant,
};
use cipherscore_producer::settings::ProducerSettings;
use clap::Args;
use serde::Serialize;

use super::fleet::OpenFleetStore;
use super::{report, size};
use crate::print::say;
use crate::progress;

/// Where the store is.
#[derive(Args)]
pub(crate) struct StoreUrl {
    /// Redis, as redis://USER:PASSWORD@HOST:PORT/NUMBER, of which only HOST is needed; rediss://
    /// for TLS. Other users of this machine can read command lines; a password belongs into
    /// CIPHERSCORE_REDIS_URL or into a file.
    // Not parsed here: clap would repeat a wrong value, and with it the password.
    #[arg(long, global = true, value_name = "URL", env = "CIPHERSCORE_REDIS_URL")]
    #[arg(hide_env_values = true)]
    redis: Option<String>,

    /// File with the URL of Redis, used when there is no --redis.
    #[arg(long, global = true, value_name = "FILE", env = "CIPHERSCORE_REDIS_URL_FILE")]
    redis_url_file: Option<PathBuf>,
}

pub(super) const NO_STORE: &str = "which store? Give --redis URL or --redis-url-file FILE, set \
                                   CIPHERSCORE_REDIS_URL or CIPHERSCORE_REDIS_URL_FILE, or name it \
                                   in --config FILE";

impl StoreUrl {
    /// Whether the command line or the environment says where it is.
    pub(super) fn is_named(&self) -> bool {
        self.redis.is_some() || self.redis_url_file.is_some()
    }

    /// Wins over what the settings say.
    pub(super) fn name(&self, section: &mut ServiceSettings) {
        section.name(self.redis.as_deref(), self.redis_url_file.as_deref());
    }
}

/// Which store, and whose keys and models in it.
#[derive(Args)]
pub(crate) struct StoreOptions {
    /// Settings as in config/producer.toml. The environment and flags win over it.
    #[arg(long, global = true, value_name = "FILE", env = "CIPHERSCORE_CONFIG")]
    config: Option<PathBuf>,

    #[command(flatten)]
    url: StoreUrl,

    /// Whose keys, models and jobs: 1 to 64 characters of a-z, 0-9 and -. "default" if not given;
    /// of a gateway, its token says it.
    #[arg(long, global = true, value_name = "NAME", env = "CIPHERSCORE_TENANT")]
    tenant: Option<Tenant>,
}

impl StoreOptions {
    /// Whether the command line or the environment says where the store is.
    pub(super) fn is_named(&self) -> bool {
        self.url.is_named()
    }

    /// Defaults, file, environment, and flags.
    pub(super) fn settings(&self) -> anyhow::Result<ProducerSettings> {
        let mut settings: ProducerSettings = load(self.config.as_deref(), &[])?;
        self.url.name(&mut settings.store);
        if let Some(tenant) = &self.tenant {
            settings.producer.tenant = tenant.clone();
        }
        Ok(settings)
    }
}

pub(super) fn open_store(settings: &ProducerSettings) -> anyhow::Result<RedisStore> {
    if settings.store.url.is_none() && settings.store.url_file.is_none() {
        bail!(NO_STORE);
    }
    let config = RedisConfig::from_settings(&settings.store)?;
    Ok(RedisStore::new(&config)?)
}

/// Runs what waits for the network, on this thread.
pub(super) fn wait<T, E: Into<anyhow::Error>>(
    work: impl Future<Output = Result<T, E>>,
) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(work).map_err(Into::into)
}

/// Puts a blob into the store, with a bar over its chunks.
pub(super) fn push(
    opened: &OpenFleetStore,
    blob: &Blob,
    lease: Option<Lease>,
    json: bool,
) -> anyhow::Result<Pushed> {
    let info = blob.info(lease);
    let bar = progress::bar(json, info.chunks(), "sending");
    let put = opened.wait(opened.store.put(blob, lease, &|| bar.inc(1)));
    bar.finish_and_clear();
    Ok(Pushed { state: put?, blob: info.into(), client: None })
}

/// A blob, as it is printed.
#[derive(Serialize)]
pub(super) struct Listed {
    id: String,
    tenant: Tenant,
    bytes: u64,
    chunks: u64,
    sha256: String,
    expires_in_seconds: Option<u64>,
    created_by: String,
    /// Of an evaluation key with which hidden models were evaluated.
    #[serde(skip_serializing_if = "Option::is_none")]
    released_coefficients: Option<u64>,
}

impl From<BlobInfo> for Listed {
    fn from(info: BlobInfo) -> Self {
        Self {
            id: info.name.id.to_string(),
            tenant: info.name.tenant.clone(),
            bytes: info.bytes,
            chunks: info.chunks(),
            sha256: info.sha256.to_string(),
            expires_in_seconds: info.expires_in.map(|left| left.as_secs()),
            created_by: info.created_by,
            released_coefficients: None,
        }
    }
}

impl Listed {
    /// With what was released under this key, if anything was.
    pub(super) fn with_released(self, coefficients: u64) -> Self {
        Self { released_coefficients: (coefficients > 0).then_some(coefficients), ..self }
    }

    fn bytes(&self) -> String {
        size(usize::try_from(self.bytes).unwrap_or(usize::MAX))
    }
}

/// What a push did.
#[derive(Serialize)]
pub(super) struct Pushed {
    state: Put,
    #[serde(flatten)]
    blob: Listed,
    /// The `client.zip` that was sent with a model.
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<Box<Self>>,
}

impl Pushed {
    /// With the `client.zip` that was sent beside it.
    pub(super) fn with_client(self, client: Option<Self>) -> Self {
        Self { client: client.map(Box::new), ..self }
    }

    pub(super) fn report(&self, json: bool) -> anyhow::Result<()> {
        report(json, self, Self::print)
    }

    /// For people.
    pub(super) fn print(&self) {
        let state = match self.state {
            Put::Stored => "stored",
            Put::AlreadyThere => "there already",
        };
        say!("id       {}", self.blob.id);
        say!("state    {state} ({}, tenant {})", self.blob.bytes(), self.blob.tenant);
        say!("expires  {}", expiry(self.blob.expires_in_seconds));
        if let Some(client) = &self.client {
            let state = if client.state == Put::Stored { "stored" } else { "there already" };
            say!("client   {state} ({})", client.blob.bytes());
        }
    }
}

/// Prints what there is of a kind.
pub(super) fn report_list(json: bool, found: Vec<Listed>) -> anyhow::Result<()> {
    report(json, &found, |found| {
        for blob in found {
            let (bytes, expiry) = (blob.bytes(), expiry(blob.expires_in_seconds));
            let released = blob.released_coefficients;
            let released = released.map(|count| format!("  {count} coefficients released"));
            let released = released.unwrap_or_default();
            say!("{}  {bytes:>12}  expires {expiry}{released}", blob.id);
        }
    })
}

fn expiry(seconds: Option<u64>) -> String {
    match seconds {
        Some(seconds) => {
            format!("in {}", indicatif::HumanDuration(Duration::from_secs(seconds)))
        }
        None => "never".into(),
    }
}

/// What became of a blob that is named by its id.
#[derive(Serialize)]
pub(super) struct Named<'a> {
    id: String,
    tenant: &'a Tenant,
    #[serde(flatten)]
    outcome: Outcome,
}

#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Outcome {
    Renewed { expires_in_seconds: u64 },
    Revoked { revoked: bool },
}

impl<'a> Named<'a> {
    pub(super) fn new(name: &'a BlobName, outcome: Outcome) -> Self {
        Self { id: name.id.to_string(), tenant: &name.tenant, outcome }
    }

    pub(super) fn report(&self, json: bool) -> anyhow::Result<()> {
        report(json, self, |named| match named.outcome {
            Outcome::Renewed { expires_in_seconds } => {
                say!("{} expires {}", named.id, expiry(Some(expires_in_seconds)));
            }
            Outcome::Revoked { .. } => say!("{} revoked", named.id),
        })
    }
}
