//! What commands that reach the broker share: where it is, and who we are there.

use std::path::PathBuf;

use anyhow::{Context, bail};
use cipherscore_common::broker::amqp::{AmqpBroker, AmqpConfig};
use cipherscore_common::config::{LogFormat, ServiceSettings};
use cipherscore_common::{RedisStore, telemetry};
use cipherscore_producer::settings::ProducerSettings;
use clap::Args;

use super::store::{StoreOptions, open_store};

/// Where the broker is.
#[derive(Args)]
pub(crate) struct BrokerUrl {
    /// RabbitMQ, as amqp://USER:PASSWORD@HOST:PORT/VHOST, of which only HOST is needed; amqps:// for
    /// TLS. Other users of this machine can read command lines; a password belongs into
    /// CIPHERSCORE_BROKER_URL or into a file.
    #[arg(long, global = true, value_name = "URL", env = "CIPHERSCORE_BROKER_URL")]
    #[arg(hide_env_values = true)]
    broker: Option<String>,

    /// File with the URL of RabbitMQ, used when there is no --broker.
    #[arg(long, global = true, value_name = "FILE", env = "CIPHERSCORE_BROKER_URL_FILE")]
    broker_url_file: Option<PathBuf>,
}

impl BrokerUrl {
    /// Whether the command line or the environment says where it is.
    pub(super) fn is_named(&self) -> bool {
        self.broker.is_some() || self.broker_url_file.is_some()
    }

    /// Wins over what the settings say.
    pub(super) fn name(&self, section: &mut ServiceSettings) {
        section.name(self.broker.as_deref(), self.broker_url_file.as_deref());
    }
}

/// Which broker and which store.
#[derive(Args)]
pub(crate) struct ServiceOptions {
    #[command(flatten)]
    url: BrokerUrl,

    /// Write log lines to standard error, as human or json.
    #[arg(long, global = true, value_name = "FORMAT")]
    log_format: Option<LogFormat>,

    /// What is logged: off, error, warn, info, debug, trace, or directives such as
    /// info,cipherscore_producer=debug. "info" with --log-format, else "off".
    #[arg(long, global = true, value_name = "LEVEL")]
    log_level: Option<String>,

    #[command(flatten)]
    store: StoreOptions,
}

pub(super) const NO_BROKER: &str = "which broker? Give --broker URL or --broker-url-file FILE, set \
                                    CIPHERSCORE_BROKER_URL or CIPHERSCORE_BROKER_URL_FILE, or name \
                                    it in --config FILE";

/// What traces of these commands are called.
const SERVICE: &str = "cipherscore";

/// Settings, and what they lead to.
pub(super) struct Services {
    pub(super) settings: ProducerSettings,
    pub(super) broker: AmqpBroker,
}

impl ServiceOptions {
    /// Connects to nothing yet.
    pub(super) fn open(&self) -> anyhow::Result<Services> {
        let settings = self.settings()?;
        let broker = open_broker(&settings)?;
        Ok(Services { settings, broker })
    }

    /// Whether the command line or the environment says where broker or store are.
    pub(super) fn is_named(&self) -> bool {
        self.url.is_named() || self.store.is_named()
    }

    /// Defaults, file, environment, and flags. From here on there are log lines and traces.
    pub(super) fn settings(&self) -> anyhow::Result<ProducerSettings> {
        let level = if self.log_format.is_some() { "info" } else { "off" };
        let level = self.log_level.as_deref().unwrap_or(level);
        telemetry::start(SERVICE, self.log_format.unwrap_or_default(), level)?;
        let mut settings = self.store.settings()?;
        self.url.name(&mut settings.broker);
        Ok(settings)
    }
}

impl Services {
    pub(super) fn store(&self) -> anyhow::Result<RedisStore> {
        open_store(&self.settings)
    }
}

fn open_broker(settings: &ProducerSettings) -> anyhow::Result<AmqpBroker> {
    let service = &settings.broker;
    if service.url.is_none() && service.url_file.is_none() {
        bail!(NO_BROKER);
    }
    let config = AmqpConfig::from_settings(service)?
        .with_name("cipherscore")
        .with_confirm_timeout(settings.producer.confirm_timeout);
    AmqpBroker::new(config).context("broker")
}
