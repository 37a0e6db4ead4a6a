//! The broker over AMQP 0.9.1, as RabbitMQ speaks it.
//!
//! There are three connections: one consumes, settles and declares, one publishes, and one asks how
//! full queues are. When memory or disk is short, RabbitMQ stops reading from connections that
//! published; the others go on. Whoever gives up waiting for an answer ends the connection, and a
//! queue that is slow to tell how full it is must not end the deliveries of others. Each is made
//! when it is needed.
//!
//! Nothing recovers behind the caller's back: an error ends a subscription, and the next call
//! connects again. A broker that is silent is noticed by timeouts, and by heartbeats in twice
//! their interval.
//!
//! lapin logs returned messages with their bodies (target `lapin::returned_messages`, level
//! `warn`), and at level `trace` every frame, the login among them: logging must leave both out.

mod config;
mod connection;
mod convert;
mod declare;
mod publisher;
mod subscription;

use std::sync::Arc;
use std::time::Duration;

pub use config::{AmqpConfig, InvalidAmqpConfig};
pub use subscription::AmqpSubscription;

use self::connection::Slot;
use self::publisher::Publisher;
use super::{Broker, BrokerError, QueuePrefetch, QueueState};
use crate::message::Message;
use crate::topology::{Declare, Topology};

/// RabbitMQ. Clones share its connections, which are made when they are needed.
#[derive(Clone)]
pub struct AmqpBroker {
    consuming: Arc<Slot>,
    asking: Arc<Slot>,
    publisher: Arc<Publisher>,
}

impl AmqpBroker {
    /// Checks the configuration, and connects later.
    pub fn new(config: AmqpConfig) -> Result<Self, InvalidAmqpConfig> {
        let config = Arc::new(config.checked()?);
        Ok(Self {
            consuming: Arc::new(Slot::new(config.clone(), "consumes")),
            asking: Arc::new(Slot::new(config.clone(), "asks")),
            publisher: Arc::new(Publisher::new(Slot::new(config, "publishes"))),
        })
    }

    /// Ends the connections in order, or without order when that takes longer than the limit.
    /// What was delivered and is not settled comes again. A later call connects anew.
    pub async fn close(&self, limit: Duration) {
        let publishing = self.publisher.slot().close(limit);
        tokio::join!(self.consuming.close(limit), self.asking.close(limit), publishing);
    }
}

impl Broker for AmqpBroker {
    type Subscription = AmqpSubscription;

    async fn declare(&self, topology: &Topology, declare: Declare) -> Result<(), BrokerError> {
        declare::declare(&self.consuming, topology, declare).await
    }

    async fn publish(&self, message: &Message) -> Result<(), BrokerError> {
        self.publisher.publish(message).await
    }

    async fn subscribe(&self, queues: &[QueuePrefetch]) -> Result<AmqpSubscription, BrokerError> {
        subscription::subscribe(&self.consuming, queues).await
    }

    async fn queue_state(&self, queue: &str) -> Result<Option<QueueState>, BrokerError> {
        declare::queue_state(&self.asking, queue).await
    }

    fn is_blocked(&self) -> bool {
        self.publisher.slot().is_blocked()
    }
}
