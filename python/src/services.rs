//! Which broker and which store.

use std::path::Path;

use cipherscore_common::broker::amqp::{AmqpBroker, AmqpConfig};
use cipherscore_common::config::load;
use cipherscore_common::{RedisConfig, RedisStore};
use cipherscore_producer::settings::ProducerSettings;
use pyo3::prelude::*;

use crate::failure::{Class, Failure};

/// What a fleet is made with: arguments win over the environment, which wins over the file.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct FleetOptions {
    amqp_url: Option<String>,
    redis_url: Option<String>,
    config: Option<std::path::PathBuf>,
    tenant: Option<String>,
    lane: Option<String>,
    in_flight: Option<u16>,
}

fn wrong(error: impl std::error::Error + 'static) -> Failure {
    Failure::of(Class::Fleet, &error)
}

impl FleetOptions {
    /// Settings of a producer, as its configuration file explains them.
    pub(crate) fn settings(&self) -> Result<ProducerSettings, Failure> {
        let file: Option<&Path> = self.config.as_deref();
        let mut settings: ProducerSettings = load(file, &[]).map_err(wrong)?;
        settings.broker.name(self.amqp_url.as_deref(), None);
        settings.store.name(self.redis_url.as_deref(), None);
        let producer = &mut settings.producer;
        if let Some(tenant) = &self.tenant {
            producer.tenant = tenant.parse().map_err(wrong)?;
        }
        if let Some(lane) = &self.lane {
            producer.lane =
                lane.parse().map_err(|message: String| Failure::new(Class::Fleet, message))?;
        }
        if let Some(in_flight) = self.in_flight {
            producer.in_flight = in_flight
                .try_into()
                .map_err(|_| Failure::new(Class::Fleet, "in_flight is at least 1"))?;
        }
        Ok(settings)
    }
}

pub(crate) fn broker(settings: &ProducerSettings) -> Result<AmqpBroker, Failure> {
    let service = &settings.broker;
    if service.url.is_none() && service.url_file.is_none() {
        let message = "which broker? Give amqp_url, or set CIPHERSCORE_BROKER_URL";
        return Err(Failure::new(Class::Fleet, message));
    }
    let config = AmqpConfig::from_settings(service)
        .map_err(wrong)?
        .with_name("cipherscore-python")
        .with_confirm_timeout(settings.producer.confirm_timeout);
    AmqpBroker::new(config).map_err(wrong)
}

pub(crate) fn store(settings: &ProducerSettings) -> Result<RedisStore, Failure> {
    if settings.store.url.is_none() && settings.store.url_file.is_none() {
        let message = "which store? Give redis_url, or set CIPHERSCORE_REDIS_URL";
        return Err(Failure::new(Class::Fleet, message));
    }
    let config = RedisConfig::from_settings(&settings.store).map_err(wrong)?;
    RedisStore::new(&config).map_err(wrong)
}
