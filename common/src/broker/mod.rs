//! The broker: one seam, over AMQP and in this process.

pub mod amqp;
mod memory;

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use thiserror::Error;

pub use memory::{MemoryBroker, MemorySubscription};

use crate::message::Message;
use crate::topology::{Declare, Topology};

/// Why the broker did not do it. No text here names a password.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BrokerError {
    /// Not to be reached, gone, or silent. Later it may be back.
    #[error("the broker at {server} is not available: {reason}")]
    Unavailable {
        /// Address, without credentials.
        server: String,
        /// What happened.
        reason: String,
    },
    /// Not confirmed in time, or refused for now: whether it was stored is not known. Publish it
    /// again under the same message id.
    #[error("the broker did not confirm the message: {reason}")]
    Unconfirmed {
        /// What happened.
        reason: String,
    },
    /// A queue that would take it is full, and refuses for now.
    #[error("a queue behind {exchange} with routing key {routing_key} is full")]
    Full {
        /// Where it was published.
        exchange: String,
        /// How.
        routing_key: String,
    },
    /// No queue takes it.
    #[error("no queue takes messages to {exchange} with routing key {routing_key}")]
    Unroutable {
        /// Where it was published.
        exchange: String,
        /// How.
        routing_key: String,
    },
    /// It does not let us: wrong password, no permission, or something declared differently.
    #[error("the broker at {server} refuses: {reason}")]
    Refused {
        /// Address, without credentials.
        server: String,
        /// What it said.
        reason: String,
    },
}

impl BrokerError {
    /// Whether the same may succeed later.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Unconfirmed { .. } | Self::Full { .. })
    }
}

/// Carries messages. Cheap to share: every method takes `&self`. Connections are made when they
/// are needed, and again after they broke: who gets an error tries again later.
pub trait Broker: Send + Sync + 'static {
    /// What deliveries come out of.
    type Subscription: Subscription;

    /// Makes exchanges, queues and bindings, or checks that they are there.
    fn declare(
        &self,
        topology: &Topology,
        declare: Declare,
    ) -> impl Future<Output = Result<(), BrokerError>> + Send;

    /// Publishes a message, persistent and mandatory, and waits until the broker has it for good.
    fn publish(&self, message: &Message) -> impl Future<Output = Result<(), BrokerError>> + Send;

    /// Begins to take messages from queues, each with its own number of messages that may be
    /// unsettled at a time.
    fn subscribe(
        &self,
        queues: &[QueuePrefetch],
    ) -> impl Future<Output = Result<Self::Subscription, BrokerError>> + Send;

    /// Messages and consumers of a queue; `None` when there is no such queue.
    fn queue_state(
        &self,
        queue: &str,
    ) -> impl Future<Output = Result<Option<QueueState>, BrokerError>> + Send;

    /// Whether it takes no messages for now, since memory or disk is short there.
    fn is_blocked(&self) -> bool {
        false
    }
}

/// From which queue, and how much at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuePrefetch {
    /// Name of the queue.
    pub queue: String,
    /// How many messages may be unsettled at a time, at least 1.
    pub prefetch: u16,
}

/// How full a queue is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueState {
    /// Messages that wait; those being worked on are not counted.
    pub messages: u32,
    /// Who takes from it.
    pub consumers: u32,
}

/// Deliveries from the queues of one subscription.
pub trait Subscription: Send {
    /// The next delivery. Dropped before it is there, this loses nothing. After an error the
    /// subscription is over, and whatever it delivered and was not settled comes again to somebody.
    fn next(&mut self) -> impl Future<Output = Result<Delivery, BrokerError>> + Send;

    /// Begins to take from one more queue.
    fn start(
        &mut self,
        queue: &QueuePrefetch,
    ) -> impl Future<Output = Result<(), BrokerError>> + Send;

    /// Ends the taking from a queue; what was delivered stays to be settled.
    fn stop(&mut self, queue: &str) -> impl Future<Output = Result<(), BrokerError>> + Send;
}

/// One arrival of a message.
pub struct Delivery {
    /// What arrived.
    pub message: Message,
    /// From which queue.
    pub queue: String,
    /// How often it was delivered before and came back, by the broker's count.
    pub returned: u32,
    /// What the broker waits for.
    pub settlement: Settlement,
}

/// A message that the broker keeps until it is told what to do with it. Dropped without a word, it
/// stays unsettled until its subscription ends, and then comes again.
pub struct Settlement(Box<dyn Settle>);

impl Settlement {
    /// One that is settled this way.
    pub fn new(settle: impl Settle + 'static) -> Self {
        Self(Box::new(settle))
    }

    /// Tells the broker what to do with the message.
    pub async fn settle(self, disposition: Disposition) -> Result<Settled, BrokerError> {
        self.0.settle(disposition).await
    }
}

impl Delivery {
    /// Tells the broker what to do with the message.
    pub async fn settle(self, disposition: Disposition) -> Result<Settled, BrokerError> {
        self.settlement.settle(disposition).await
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.message.message_id.as_deref().unwrap_or("without id");
        write!(f, "message {id} of {}, returned {} times", self.queue, self.returned)
    }
}

/// Makes what workers and data owners share, on a broker where none was yet. It is looked at first:
/// where an operator made it, nobody else need be allowed to make it, which would be to delete it as
/// well.
pub async fn declare_shared<B: Broker>(broker: &B) -> Result<(), BrokerError> {
    let shared = Topology::shared();
    match broker.declare(&shared, Declare::Verify).await {
        Err(error) if !error.is_temporary() => broker.declare(&shared, Declare::Create).await,
        found => found,
    }
}

/// What we tell the broker about a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// It is done.
    Ack,
    /// Somebody else may try, at once.
    Requeue,
    /// Nobody shall try again.
    DeadLetter,
}

/// Whether the broker knows of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// It was told.
    Told,
    /// It was not, since the connection is another one by now: the message comes again.
    ComesAgain,
}

/// The result of settling.
pub type Settling = Pin<Box<dyn Future<Output = Result<Settled, BrokerError>> + Send>>;

/// Settles one delivery.
pub trait Settle: Send + Sync {
    /// Tells the broker.
    fn settle(self: Box<Self>, disposition: Disposition) -> Settling;
}
