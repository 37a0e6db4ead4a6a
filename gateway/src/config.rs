//! The configuration of a gateway. `config/gateway.toml` explains every key.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
pub use cipherscore_common::config::LogSection;
use cipherscore_common::config::{ServiceSettings, address_or_nothing};
use cipherscore_common::topology::Declare;
use cipherscore_common::{Lease, ModelId, Tenant};
use serde::Deserialize;

/// All sections.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GatewayConfig {
    /// Where it listens, and what it keeps for how long.
    pub gateway: GatewaySection,
    /// Its certificate.
    pub tls: TlsSection,
    /// What a tenant may.
    pub limits: LimitsSection,
    /// What some tenants may instead.
    pub tenants: BTreeMap<Tenant, TenantLimits>,
    /// Concrete ML's clients.
    pub cml: CmlSection,
    /// RabbitMQ.
    pub broker: ServiceSettings,
    /// Redis.
    pub store: ServiceSettings,
    /// How it shows that it is well.
    pub health: GatewayHealthSection,
    /// What it says.
    pub log: LogSection,
}

/// `[gateway]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GatewaySection {
    /// Where data owners connect to.
    pub listen: SocketAddr,
    /// File with the digests of tokens.
    pub tokens_file: Option<PathBuf>,
    /// Whose models these are in the store.
    pub model_tenant: Tenant,
    /// What to do about the reply queues of tenants.
    pub topology: Declare,
    /// Replies of a tenant that are being written to the store at a time.
    pub prefetch: u16,
    /// How long results wait to be fetched, and jobs are known.
    pub result_lease: Lease,
    /// Longest lease of keys and payloads.
    pub max_lease: Lease,
    /// Connections at a time.
    pub max_connections: NonZeroU32,
    /// Bodies that are received or sent at a time.
    pub max_transfers: NonZeroU32,
    /// How long the head of a request may take, and a connection may be idle.
    #[serde(with = "humantime_serde")]
    pub header_timeout: Duration,
    /// How long a body may pause, and how long it may take besides its bytes.
    #[serde(with = "humantime_serde")]
    pub body_timeout: Duration,
    /// Bytes a second that a body must have.
    pub min_body_rate: ByteSize,
    /// How long who gets an answer may read nothing of it.
    #[serde(with = "humantime_serde")]
    pub write_timeout: Duration,
    /// How long the broker may take to confirm a message.
    #[serde(with = "humantime_serde")]
    pub confirm_timeout: Duration,
    /// How long requests may take at the end.
    #[serde(with = "humantime_serde")]
    pub grace_period: Duration,
}

/// `[tls]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsSection {
    /// PEM file with the certificate, and those between it and an authority.
    pub certificate_file: Option<PathBuf>,
    /// PEM file with its key.
    pub key_file: Option<PathBuf>,
    /// Speaks HTTP in clear where it is not on this machine alone.
    pub off: bool,
}

/// `[limits]`: of each tenant.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsSection {
    /// Requests a second.
    pub requests_per_second: NonZeroU32,
    /// Requests that may come at once after a pause.
    pub burst: NonZeroU32,
    /// Requests that are answered at a time, with those that wait.
    pub concurrent_requests: NonZeroU32,
    /// Bodies that are received or sent at a time.
    pub concurrent_transfers: NonZeroU32,
    /// Bytes into the store in an hour; 0: any number.
    pub bytes_per_hour: ByteSize,
    /// Largest evaluation key.
    pub max_key_size: ByteSize,
    /// Largest payload of a job.
    pub max_job_size: ByteSize,
}

/// `[tenants.NAME]`: what is not there is as in `[limits]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TenantLimits {
    /// Requests a second.
    pub requests_per_second: Option<NonZeroU32>,
    /// Requests that may come at once after a pause.
    pub burst: Option<NonZeroU32>,
    /// Requests that are answered at a time.
    pub concurrent_requests: Option<NonZeroU32>,
    /// Bodies that are received or sent at a time.
    pub concurrent_transfers: Option<NonZeroU32>,
    /// Bytes into the store in an hour.
    pub bytes_per_hour: Option<ByteSize>,
    /// Largest evaluation key.
    pub max_key_size: Option<ByteSize>,
    /// Largest payload of a job.
    pub max_job_size: Option<ByteSize>,
}

impl TenantLimits {
    /// These, and what they do not say from the others.
    pub(crate) fn over(&self, limits: &LimitsSection) -> LimitsSection {
        LimitsSection {
            requests_per_second: self.requests_per_second.unwrap_or(limits.requests_per_second),
            burst: self.burst.unwrap_or(limits.burst),
            concurrent_requests: self.concurrent_requests.unwrap_or(limits.concurrent_requests),
            concurrent_transfers: self.concurrent_transfers.unwrap_or(limits.concurrent_transfers),
            bytes_per_hour: self.bytes_per_hour.unwrap_or(limits.bytes_per_hour),
            max_key_size: self.max_key_size.unwrap_or(limits.max_key_size),
            max_job_size: self.max_job_size.unwrap_or(limits.max_job_size),
        }
    }
}

/// `[cml]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CmlSection {
    /// Models by the names in their base URLs; none: nothing is there.
    pub models: BTreeMap<String, ModelId>,
    /// Whose keys and jobs those of clients without a token are.
    pub tenant: Tenant,
    /// How long a key stays that is not used.
    pub lease: Lease,
    /// How long a result is waited for.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// Largest input; it is held in memory.
    pub max_input_size: ByteSize,
}

/// `[health]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GatewayHealthSection {
    /// Where `/livez`, `/readyz` and `/metrics` are.
    #[serde(deserialize_with = "address_or_nothing")]
    pub listen: Option<SocketAddr>,
}

const fn number(number: u32) -> NonZeroU32 {
    match NonZeroU32::new(number) {
        Some(number) => number,
        None => NonZeroU32::MIN,
    }
}

impl Default for GatewaySection {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8443)),
            tokens_file: None,
            model_tenant: Tenant::default(),
            topology: Declare::default(),
            prefetch: 64,
            result_lease: Lease::PAYLOAD,
            max_lease: Lease::days(90),
            max_connections: number(2000),
            max_transfers: number(64),
            header_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(30),
            min_body_rate: ByteSize::kib(16),
            write_timeout: Duration::from_secs(30),
            confirm_timeout: Duration::from_secs(10),
            grace_period: Duration::from_secs(30),
        }
    }
}

impl Default for LimitsSection {
    fn default() -> Self {
        Self {
            requests_per_second: number(1000),
            burst: number(2000),
            concurrent_requests: number(256),
            concurrent_transfers: number(16),
            bytes_per_hour: ByteSize::b(0),
            max_key_size: ByteSize::mib(512),
            max_job_size: ByteSize::mib(256),
        }
    }
}

impl Default for CmlSection {
    fn default() -> Self {
        Self {
            models: BTreeMap::new(),
            tenant: "anonymous".parse().expect("a tenant's name"),
            lease: "1h".parse().expect("a lease"),
            timeout: Duration::from_secs(10 * 60),
            max_input_size: ByteSize::mib(16),
        }
    }
}

impl Default for GatewayHealthSection {
    fn default() -> Self {
        Self { listen: Some(SocketAddr::from(([127, 0, 0, 1], 8488))) }
    }
}
