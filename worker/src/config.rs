//! The configuration of a worker. `config/worker.toml` explains every key.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
pub use cipherscore_common::config::LogSection;
use cipherscore_common::config::{ServiceSettings, address_or_nothing};
use cipherscore_common::topology::Declare;
use cipherscore_common::{Lease, ModelId, Tenant};
use serde::Deserialize;

use crate::validate::Tenants;

/// All sections.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WorkerConfig {
    /// What it takes and how much at a time.
    pub worker: WorkerSection,
    /// What it evaluates.
    pub models: ModelsSection,
    /// RabbitMQ.
    pub broker: ServiceSettings,
    /// Redis.
    pub store: ServiceSettings,
    /// How it shows that it is well.
    pub health: HealthSection,
    /// What it says.
    pub log: LogSection,
}

/// `[worker]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WorkerSection {
    /// Name; empty: the host's name and the process id.
    pub name: String,
    /// Threads that compute; none: all processors.
    pub threads: Option<NonZeroUsize>,
    /// Jobs that are evaluated at a time; none: one for each thread.
    pub slots: Option<NonZeroUsize>,
    /// Deliveries that wait beyond the slots, for each queue of a model with bootstraps; none: as
    /// many as slots.
    pub window: Option<u16>,
    /// Deliveries at a time, for each queue of a linear model.
    pub linear_prefetch: u16,
    /// Memory for prepared keys and running jobs together.
    pub memory: ByteSize,
    /// Prepared keys of one tenant.
    pub max_keys_per_tenant: NonZeroUsize,
    /// Rows of a job.
    pub max_job_rows: u32,
    /// Bytes of a job's rows.
    pub max_job_size: ByteSize,
    /// How often a job may come back unfinished.
    pub max_returns: u32,
    /// How long large outputs wait in the store.
    pub reply_lease: Lease,
    /// How long running jobs may take at the end.
    #[serde(with = "humantime_serde")]
    pub grace_period: Duration,
    /// How long the broker may take to confirm a message.
    #[serde(with = "humantime_serde")]
    pub confirm_timeout: Duration,
    /// Who makes exchanges and queues.
    pub topology: Declare,
    /// Who says whose a job is.
    pub tenants: Tenants,
    /// Users of the broker that are workers.
    pub worker_users: Vec<String>,
    /// Users of the broker that are gateways.
    pub gateway_users: Vec<String>,
}

/// `[models]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelsSection {
    /// Folder with models.
    pub folder: Option<PathBuf>,
    /// How often the folder is read again.
    #[serde(with = "humantime_serde")]
    pub reload_interval: Duration,
    /// Models to fetch from the store.
    pub ids: Vec<ModelId>,
    /// Whose models these are in the store.
    pub tenant: Tenant,
}

/// `[health]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HealthSection {
    /// Where `/livez` and `/readyz` are.
    #[serde(deserialize_with = "address_or_nothing")]
    pub listen: Option<SocketAddr>,
}

impl Default for WorkerSection {
    fn default() -> Self {
        Self {
            name: String::new(),
            threads: None,
            slots: None,
            window: None,
            linear_prefetch: 64,
            memory: ByteSize::gib(4),
            max_keys_per_tenant: NonZeroUsize::MIN.saturating_add(15),
            max_job_rows: 100_000,
            max_job_size: ByteSize::mib(256),
            max_returns: 3,
            reply_lease: Lease::PAYLOAD,
            grace_period: Duration::from_secs(60),
            confirm_timeout: Duration::from_secs(10),
            topology: Declare::default(),
            tenants: Tenants::default(),
            worker_users: vec!["worker".into()],
            gateway_users: Vec::new(),
        }
    }
}

impl Default for ModelsSection {
    fn default() -> Self {
        Self {
            folder: None,
            reload_interval: Duration::from_secs(10),
            ids: Vec::new(),
            tenant: Tenant::default(),
        }
    }
}

impl Default for HealthSection {
    fn default() -> Self {
        Self { listen: Some(SocketAddr::from(([127, 0, 0, 1], 8484))) }
    }
}
