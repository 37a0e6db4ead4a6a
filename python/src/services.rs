//! Which broker and which store, or which gateway.

use std::path::Path;

use cipherscore_common::config::load;
use cipherscore_producer::fleet::{FleetAccess, is_named};
use cipherscore_producer::settings::ProducerSettings;
use pyo3::prelude::*;

use crate::failure::{Class, Failure};

/// What a fleet is made with: arguments win over the environment, which wins over the file.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct FleetOptions {
    amqp_url: Option<String>,
    redis_url: Option<String>,
    gateway_url: Option<String>,
    token: Option<String>,
    token_file: Option<std::path::PathBuf>,
    ca_file: Option<std::path::PathBuf>,
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
        self.name_services(&mut settings);
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

    /// Whichever way to the fleet is named leaves out the other one of the file.
    fn name_services(&self, settings: &mut ProducerSettings) {
        let is_direct = self.amqp_url.is_some() || self.redis_url.is_some();
        let ProducerSettings { gateway, broker, store, .. } = settings;
        match &self.gateway_url {
            Some(url) => {
                gateway.url = Some(url.clone().into());
                if !is_direct {
                    for service in [&mut *broker, &mut *store] {
                        (service.url, service.url_file) = (None, None);
                    }
                }
            }
            None if is_direct => gateway.url = None,
            None => {}
        }
        broker.name(self.amqp_url.as_deref(), None);
        store.name(self.redis_url.as_deref(), None);
        if let Some(file) = &self.token_file {
            (gateway.token, gateway.token_file) = (None, Some(file.clone()));
        }
        if let Some(token) = &self.token {
            gateway.token = Some(token.clone().into());
        }
        if let Some(file) = &self.ca_file {
            gateway.ca_file = Some(file.clone());
        }
    }
}

/// Reaches a gateway; broker and store are reached later. Behind a gateway its token says the tenant, and the
/// settings have it then.
pub(crate) async fn open(settings: &mut ProducerSettings) -> Result<FleetAccess, Failure> {
    if !settings.fleet().has_gateway().map_err(wrong)? {
        if !is_named(&settings.broker) {
            let message = "which fleet? Give a URL: amqp:// of its broker, or https:// of its gateway; \
                           or set CIPHERSCORE_BROKER_URL or CIPHERSCORE_GATEWAY_URL";
            return Err(Failure::new(Class::Fleet, message));
        }
        if !is_named(&settings.store) {
            let message = "which store? Give redis_url, or set CIPHERSCORE_REDIS_URL";
            return Err(Failure::new(Class::Fleet, message));
        }
    }
    let mut producer = settings.producer.clone();
    let opened = FleetAccess::open(settings.fleet(), &mut producer, "cipherscore-python").await;
    settings.producer = producer;
    opened.map_err(wrong)
}
