//! How a data owner reaches the fleet: through a broker and a store, or through a gateway, which takes
//! the place of both.

use std::sync::Arc;
use std::time::Duration;

use cipherscore_common::broker::amqp::{
    AmqpBroker, AmqpConfig, AmqpSubscription, InvalidAmqpConfig,
};
use cipherscore_common::broker::{
    Broker, BrokerError, Delivery, QueuePrefetch, QueueState, Subscription,
};
use cipherscore_common::config::{ConfigError, ServiceSettings};
use cipherscore_common::message::Message;
use cipherscore_common::topology::{Declare, Topology};
use cipherscore_common::{
    Blob, BlobInfo, BlobKind, BlobName, BlobStore, JobId, Lease, OwnerStore, Progress, Put,
    RedisConfig, RedisStore, StoreError, Tenant,
};
use thiserror::Error;

use crate::gateway::{
    FeedSubscription, GatewayAccess, GatewayClient, GatewayError, GatewaySettings, InvalidGateway,
};
use crate::settings::ProducerSection;

/// Why the fleet cannot be reached.
#[derive(Debug, Error)]
pub enum FleetError {
    /// Broker or store are not configured as they must be.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The broker's configuration does not go together.
    #[error("broker: {0}")]
    Amqp(#[from] InvalidAmqpConfig),
    /// The store's.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The gateway's.
    #[error(transparent)]
    Access(#[from] InvalidGateway),
    /// The gateway itself.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    /// Two ways to the fleet.
    #[error(
        "both a gateway and {other} are named, and the gateway takes the place of broker and store: \
         leave one out"
    )]
    TwoWays {
        /// What is named beside the gateway.
        other: &'static str,
    },
}

/// Sections of a configuration that say where the fleet is.
#[derive(Debug, Clone, Copy)]
pub struct FleetSections<'a> {
    /// `[broker]`
    pub broker: &'a ServiceSettings,
    /// `[store]`
    pub store: &'a ServiceSettings,
    /// `[gateway]`
    pub gateway: &'a GatewaySettings,
}

impl FleetSections<'_> {
    /// Whether there is a gateway.
    ///
    /// # Errors
    /// There is a broker or a store as well.
    pub fn has_gateway(&self) -> Result<bool, FleetError> {
        if self.gateway.url.is_none() {
            return Ok(false);
        }
        for (section, other) in [(self.broker, "a broker"), (self.store, "a store")] {
            if is_named(section) {
                return Err(FleetError::TwoWays { other });
            }
        }
        Ok(true)
    }
}

/// Whether a section says where its service is.
pub fn is_named(section: &ServiceSettings) -> bool {
    section.url.is_some() || section.url_file.is_some()
}

/// A way to the fleet.
#[derive(Clone)]
pub struct FleetAccess {
    /// Where jobs go, and replies come from.
    pub broker: Arc<FleetBroker>,
    /// Where keys and payloads are.
    pub store: Arc<FleetStore>,
}

impl FleetAccess {
    /// Reaches a gateway, or makes ready to reach broker and store, which are connected to later. `name` is
    /// what the broker shows of us. Behind a gateway the token says the tenant, and `producer` has it then.
    pub async fn open(
        sections: FleetSections<'_>,
        producer: &mut ProducerSection,
        name: &str,
    ) -> Result<Self, FleetError> {
        if sections.has_gateway()? {
            let client = open_gateway(sections.gateway, producer).await?;
            let broker = Arc::new(FleetBroker::Gateway(client.clone()));
            return Ok(Self { broker, store: Arc::new(FleetStore::Gateway(client)) });
        }
        let config = AmqpConfig::from_settings(sections.broker)?
            .with_name(name)
            .with_confirm_timeout(producer.confirm_timeout);
        let store = RedisStore::new(&RedisConfig::from_settings(sections.store)?)?;
        let broker = Arc::new(FleetBroker::Amqp(AmqpBroker::new(config)?));
        Ok(Self { broker, store: Arc::new(FleetStore::Redis(Box::new(store))) })
    }
}

/// A gateway, and whose its token is, which `producer` says from then on.
pub async fn open_gateway(
    section: &GatewaySettings,
    producer: &mut ProducerSection,
) -> Result<GatewayClient, FleetError> {
    let access = GatewayAccess::from_section(section, producer.confirm_timeout)?;
    let client = GatewayClient::open(access).await?;
    producer.tenant = client.require_tenant(&producer.tenant)?;
    Ok(client)
}

/// Where jobs go, and replies come from.
#[derive(Clone)]
pub enum FleetBroker {
    /// RabbitMQ.
    Amqp(AmqpBroker),
    /// A gateway.
    Gateway(GatewayClient),
}

/// Where keys and payloads are.
pub enum FleetStore {
    /// Redis.
    Redis(Box<RedisStore>),
    /// A gateway.
    Gateway(GatewayClient),
}

/// Replies, from either.
pub enum FleetSubscription {
    /// RabbitMQ's.
    Amqp(AmqpSubscription),
    /// A gateway's.
    Gateway(FeedSubscription),
}

impl FleetBroker {
    /// Ends the connections in order, as far as there is one. What was delivered and is not settled comes
    /// again.
    pub async fn close(&self, limit: Duration) {
        match self {
            Self::Amqp(broker) => broker.close(limit).await,
            // Its requests are whole, each by itself.
            Self::Gateway(_) => {}
        }
    }
}

impl Broker for FleetBroker {
    type Subscription = FleetSubscription;

    async fn declare(&self, topology: &Topology, declare: Declare) -> Result<(), BrokerError> {
        match self {
            Self::Amqp(broker) => broker.declare(topology, declare).await,
            Self::Gateway(client) => client.declare(topology, declare).await,
        }
    }

    async fn publish(&self, message: &Message) -> Result<(), BrokerError> {
        match self {
            Self::Amqp(broker) => broker.publish(message).await,
            Self::Gateway(client) => client.publish(message).await,
        }
    }

    async fn subscribe(&self, queues: &[QueuePrefetch]) -> Result<FleetSubscription, BrokerError> {
        match self {
            Self::Amqp(broker) => broker.subscribe(queues).await.map(FleetSubscription::Amqp),
            Self::Gateway(client) => client.subscribe(queues).await.map(FleetSubscription::Gateway),
        }
    }

    async fn queue_state(&self, queue: &str) -> Result<Option<QueueState>, BrokerError> {
        match self {
            Self::Amqp(broker) => broker.queue_state(queue).await,
            Self::Gateway(client) => client.queue_state(queue).await,
        }
    }

    fn is_blocked(&self) -> bool {
        match self {
            Self::Amqp(broker) => broker.is_blocked(),
            Self::Gateway(client) => client.is_blocked(),
        }
    }
}

impl Subscription for FleetSubscription {
    async fn next(&mut self) -> Result<Delivery, BrokerError> {
        match self {
            Self::Amqp(subscription) => subscription.next().await,
            Self::Gateway(subscription) => subscription.next().await,
        }
    }

    async fn start(&mut self, queue: &QueuePrefetch) -> Result<(), BrokerError> {
        match self {
            Self::Amqp(subscription) => subscription.start(queue).await,
            Self::Gateway(subscription) => subscription.start(queue).await,
        }
    }

    async fn stop(&mut self, queue: &str) -> Result<(), BrokerError> {
        match self {
            Self::Amqp(subscription) => subscription.stop(queue).await,
            Self::Gateway(subscription) => subscription.stop(queue).await,
        }
    }
}

impl BlobStore for FleetStore {
    async fn put(
        &self,
        blob: &Blob,
        lease: Option<Lease>,
        progress: Progress<'_>,
    ) -> Result<Put, StoreError> {
        match self {
            Self::Redis(store) => store.put(blob, lease, progress).await,
            Self::Gateway(client) => client.put(blob, lease, progress).await,
        }
    }

    async fn info(&self, name: &BlobName) -> Result<BlobInfo, StoreError> {
        match self {
            Self::Redis(store) => store.info(name).await,
            Self::Gateway(client) => client.info(name).await,
        }
    }

    async fn chunk(&self, info: &BlobInfo, index: u64) -> Result<Vec<u8>, StoreError> {
        match self {
            Self::Redis(store) => store.chunk(info, index).await,
            Self::Gateway(client) => client.chunk(info, index).await,
        }
    }

    async fn touch(&self, name: &BlobName, lease: Option<Lease>) -> Result<(), StoreError> {
        match self {
            Self::Redis(store) => store.touch(name, lease).await,
            Self::Gateway(client) => client.touch(name, lease).await,
        }
    }

    async fn remove(&self, name: &BlobName) -> Result<(), StoreError> {
        match self {
            Self::Redis(store) => store.remove(name).await,
            Self::Gateway(client) => client.remove(name).await,
        }
    }

    async fn list(&self, tenant: &Tenant, kind: BlobKind) -> Result<Vec<BlobInfo>, StoreError> {
        match self {
            Self::Redis(store) => store.list(tenant, kind).await,
            Self::Gateway(client) => client.list(tenant, kind).await,
        }
    }
}

impl OwnerStore for FleetStore {
    async fn check(&self, tenant: &Tenant) -> Result<(), StoreError> {
        match self {
            Self::Redis(store) => store.check(tenant).await,
            Self::Gateway(client) => client.check(tenant).await,
        }
    }

    async fn cancel(&self, tenant: &Tenant, job: JobId) -> Result<(), StoreError> {
        match self {
            Self::Redis(store) => store.cancel(tenant, job).await,
            Self::Gateway(client) => client.cancel(tenant, job).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::settings::ProducerSettings;

    #[test]
    fn a_gateway_takes_the_place_of_both_services() {
        let url = |text: &str| Some(text.to_owned().into());
        let mut settings = ProducerSettings::default();
        settings.broker.url = url("amqp://127.0.0.1");
        assert!(!settings.fleet().has_gateway().unwrap());
        settings.gateway.url = url("https://host");
        let error = settings.fleet().has_gateway().unwrap_err();
        assert!(error.to_string().contains("a broker"), "{error}");
        settings.broker.url = None;
        assert!(settings.fleet().has_gateway().unwrap());
        settings.store.url_file = Some("redis-url".into());
        let error = settings.fleet().has_gateway().unwrap_err();
        assert!(error.to_string().contains("a store"), "{error}");
    }
}
