//! A private broker and a private store, with a network before them that can be broken.

use cipherscore_common::broker::amqp::{AmqpBroker, AmqpConfig};
use cipherscore_common::{RedisConfig, RedisStore};
use cipherscore_testbed::{RabbitMq, RabbitMqOptions, Redis, RedisOptions, Relay};
use parking_lot::{Mutex, MutexGuard};

/// What workers and data owners need.
pub struct Services {
    rabbitmq: Mutex<RabbitMq>,
    redis: Mutex<Redis>,
    /// Between the workers and the broker.
    pub workers: Relay,
    /// Between the data owners and the broker.
    pub owners: Relay,
    broker_urls: [String; 3],
    store_url: String,
}

impl Services {
    /// Starts all of it. The store writes a file, as the one in `deploy/redis` does.
    pub fn start(options: RabbitMqOptions) -> anyhow::Result<Self> {
        let rabbitmq = RabbitMq::start_with(options)?;
        let redis = Redis::start_with(RedisOptions { append_only: true, ..Default::default() })?;
        let (workers, owners) =
            (Relay::start(rabbitmq.address())?, Relay::start(rabbitmq.address())?);
        let broker_urls = [workers.address(), owners.address(), rabbitmq.address()];
        let broker_urls = broker_urls.map(|address| rabbitmq.url_at(address));
        let store_url = redis.url();
        let (rabbitmq, redis) = (Mutex::new(rabbitmq), Mutex::new(redis));
        Ok(Self { rabbitmq, redis, workers, owners, broker_urls, store_url })
    }

    /// The broker's process.
    pub fn rabbitmq(&self) -> MutexGuard<'_, RabbitMq> {
        self.rabbitmq.lock()
    }

    /// The store's process.
    pub fn redis(&self) -> MutexGuard<'_, Redis> {
        self.redis.lock()
    }

    /// How workers connect to the broker.
    pub fn workers_url(&self) -> &str {
        &self.broker_urls[0]
    }

    /// How data owners connect to the broker.
    pub fn owners_url(&self) -> &str {
        &self.broker_urls[1]
    }

    /// How everybody connects to the store.
    pub fn store_url(&self) -> &str {
        &self.store_url
    }

    /// The broker as data owners reach it.
    pub fn owners_broker(&self) -> anyhow::Result<AmqpBroker> {
        Ok(AmqpBroker::new(AmqpConfig::parse(&self.broker_urls[1])?)?)
    }

    /// The broker, past all that is broken between.
    pub fn broker(&self) -> anyhow::Result<AmqpBroker> {
        Ok(AmqpBroker::new(AmqpConfig::parse(&self.broker_urls[2])?)?)
    }

    /// The store.
    pub fn store(&self) -> anyhow::Result<RedisStore> {
        Ok(RedisStore::new(&RedisConfig::parse(&self.store_url)?)?)
    }
}
