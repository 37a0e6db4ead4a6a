//! How commands of a data owner reach the fleet: through broker and store, or through a gateway.

use std::path::PathBuf;

use anyhow::bail;
use cipherscore_common::Tenant;
use cipherscore_common::config::ServiceSettings;
use cipherscore_producer::fleet::{FleetAccess, FleetStore, is_named, open_gateway};
use cipherscore_producer::gateway::GatewaySettings;
use cipherscore_producer::settings::ProducerSettings;
use clap::Args;
use tokio::runtime::Runtime;

use super::services::{NO_BROKER, ServiceOptions};
use super::store::{NO_STORE, StoreOptions, open_store};
use crate::exit::UsageError;

/// Variable with the token: other users of this machine can read command lines.
const TOKEN_VARIABLE: &str = "CIPHERSCORE_GATEWAY_TOKEN";

const OR_GATEWAY: &str =
    "; or a gateway in the place of both, by --gateway URL or CIPHERSCORE_GATEWAY_URL";

/// A gateway in the place of broker and store.
#[derive(Args)]
pub(crate) struct GatewayOptions {
    /// Gateway of the fleet, as https://HOST:PORT/PATH, in the place of --broker and --redis. Its
    /// token is in CIPHERSCORE_GATEWAY_TOKEN or in a file, and says the tenant.
    #[arg(long, global = true, value_name = "URL", env = "CIPHERSCORE_GATEWAY_URL")]
    #[arg(hide_env_values = true)]
    gateway: Option<String>,

    /// File with the token of the gateway, which only its owner may use (mode 0600).
    #[arg(long, global = true, value_name = "FILE", env = "CIPHERSCORE_GATEWAY_TOKEN_FILE")]
    gateway_token_file: Option<PathBuf>,

    /// PEM file with the authorities that the gateway's certificate is of. Those of the system if not
    /// given.
    #[arg(long, global = true, value_name = "FILE", env = "CIPHERSCORE_GATEWAY_CA")]
    gateway_ca: Option<PathBuf>,
}

impl GatewayOptions {
    /// Wins over what the settings say. So does a broker or a store that is named beside it: `direct`.
    pub(super) fn name(
        &self,
        direct: bool,
        gateway: &mut GatewaySettings,
        services: [&mut ServiceSettings; 2],
    ) -> Result<(), UsageError> {
        match (&self.gateway, direct) {
            (Some(_), true) => {
                return Err(UsageError(
                    "--gateway (or CIPHERSCORE_GATEWAY_URL) takes the place of broker and store: \
                     leave out --broker, --redis, their files and their variables",
                ));
            }
            (Some(url), false) => {
                gateway.url = Some(url.clone().into());
                for service in services {
                    (service.url, service.url_file) = (None, None);
                }
            }
            (None, true) => gateway.url = None,
            (None, false) => {}
        }
        if let Some(file) = &self.gateway_token_file {
            (gateway.token, gateway.token_file) = (None, Some(file.clone()));
        }
        if let Ok(token) = std::env::var(TOKEN_VARIABLE) {
            gateway.token = Some(token.into());
        }
        if let Some(file) = &self.gateway_ca {
            gateway.ca_file = Some(file.clone());
        }
        Ok(())
    }
}

/// Which broker and which store, or which gateway.
#[derive(Args)]
pub(crate) struct FleetOptions {
    #[command(flatten)]
    services: ServiceOptions,

    #[command(flatten)]
    gateway: GatewayOptions,
}

/// Settings, what they lead to, and what waits for it.
pub(super) struct OpenFleet {
    pub(super) settings: ProducerSettings,
    pub(super) fleet: FleetAccess,
    runtime: Runtime,
}

impl FleetOptions {
    /// Connects to a gateway; broker and store are connected to later.
    pub(super) fn open(&self) -> anyhow::Result<OpenFleet> {
        let mut settings = self.services.settings()?;
        let ProducerSettings { gateway, broker, store, .. } = &mut settings;
        self.gateway.name(self.services.is_named(), gateway, [broker, store])?;
        if !settings.fleet().has_gateway()? {
            require_services(&settings)?;
        }
        let runtime = runtime()?;
        let mut producer = settings.producer.clone();
        let opened = FleetAccess::open(settings.fleet(), &mut producer, "cipherscore");
        let fleet = runtime.block_on(opened)?;
        settings.producer = producer;
        Ok(OpenFleet { settings, fleet, runtime })
    }
}

impl OpenFleet {
    /// Runs what waits for the network, on this thread.
    pub(super) fn wait<T, E: Into<anyhow::Error>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> anyhow::Result<T> {
        self.runtime.block_on(work).map_err(Into::into)
    }
}

/// Which store, or which gateway.
#[derive(Args)]
pub(crate) struct FleetStoreOptions {
    #[command(flatten)]
    store: StoreOptions,

    #[command(flatten)]
    gateway: GatewayOptions,
}

/// A store, whose it is, and what waits for it.
pub(super) struct OpenFleetStore {
    pub(super) store: FleetStore,
    pub(super) tenant: Tenant,
    runtime: Runtime,
}

impl FleetStoreOptions {
    /// Connects to a gateway; a store is connected to later.
    pub(super) fn open(&self) -> anyhow::Result<OpenFleetStore> {
        let mut settings = self.store.settings()?;
        let ProducerSettings { gateway, broker, store, .. } = &mut settings;
        self.gateway.name(self.store.is_named(), gateway, [broker, store])?;
        let runtime = runtime()?;
        let store = match settings.fleet().has_gateway()? {
            false if !is_named(&settings.store) => bail!("{NO_STORE}{OR_GATEWAY}"),
            false => FleetStore::Redis(Box::new(open_store(&settings)?)),
            true => {
                let opened = open_gateway(&settings.gateway, &mut settings.producer);
                FleetStore::Gateway(runtime.block_on(opened)?)
            }
        };
        Ok(OpenFleetStore { store, tenant: settings.producer.tenant, runtime })
    }
}

impl OpenFleetStore {
    /// Runs what waits for the network, on this thread.
    pub(super) fn wait<T, E: Into<anyhow::Error>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> anyhow::Result<T> {
        self.runtime.block_on(work).map_err(Into::into)
    }
}

fn require_services(settings: &ProducerSettings) -> anyhow::Result<()> {
    if !is_named(&settings.broker) {
        bail!("{NO_BROKER}{OR_GATEWAY}");
    }
    if !is_named(&settings.store) {
        bail!("{NO_STORE}{OR_GATEWAY}");
    }
    Ok(())
}

/// One thread, for what waits. A gateway's connections live as long as it.
fn runtime() -> anyhow::Result<Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}
