//! The broker in this process, for tests and for the demo without services.
//!
//! Exchanges, alternate exchanges, dead letters, the time to live of messages, prefetch and
//! redelivery are as in RabbitMQ. Left out are limits of deliveries and the expiry of queues. Its
//! time is tokio's, which tests can move on.

mod state;

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use self::state::{State, refused};
use super::{
    Broker, BrokerError, Delivery, Disposition, QueuePrefetch, QueueState, Settle, Settled,
    Settlement, Settling, Subscription,
};
use crate::message::Message;
use crate::topology::{Declare, Topology};

/// Clones share exchanges, queues and messages.
#[derive(Debug, Clone, Default)]
pub struct MemoryBroker {
    shared: Arc<Shared>,
    user: Option<String>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Told whenever a message may have become ready for somebody who waits.
    changed: Notify,
}

impl MemoryBroker {
    /// The same broker, as a user whom it knows: what is published carries the user's name.
    pub fn as_user(&self, name: &str) -> Self {
        Self { shared: self.shared.clone(), user: Some(name.to_owned()) }
    }
}

impl Shared {
    /// The state, without messages that are too old. No code panics while it holds the lock.
    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock();
        state.expire(Instant::now());
        state
    }
}

impl Broker for MemoryBroker {
    type Subscription = MemorySubscription;

    async fn declare(&self, topology: &Topology, declare: Declare) -> Result<(), BrokerError> {
        match declare {
            Declare::Create => self.shared.state().declare(topology),
            Declare::Verify => self.shared.state().verify(topology),
            Declare::Leave => Ok(()),
        }
    }

    async fn publish(&self, message: &Message) -> Result<(), BrokerError> {
        let mut message = message.clone();
        if message.user_id.is_some() && message.user_id != self.user {
            return Err(refused("the user id is not the user's"));
        }
        message.user_id.clone_from(&self.user);
        self.shared.state().publish(&message)?;
        self.shared.changed.notify_waiters();
        Ok(())
    }

    async fn subscribe(&self, queues: &[QueuePrefetch]) -> Result<MemorySubscription, BrokerError> {
        let number = self.shared.state().number();
        let shared = self.shared.clone();
        let mut subscription = MemorySubscription { shared, number, queues: VecDeque::new() };
        for queue in queues {
            subscription.start(queue).await?;
        }
        Ok(subscription)
    }

    async fn queue_state(&self, queue: &str) -> Result<Option<QueueState>, BrokerError> {
        let state = self.shared.state();
        let count = |length| u32::try_from(length).unwrap_or(u32::MAX);
        Ok(state.queues.get(queue).map(|queue| QueueState {
            messages: count(queue.ready.len()),
            consumers: count(queue.consumers.len()),
        }))
    }
}

/// Deliveries of a [`MemoryBroker`]. Dropped, it gives back what is not settled.
#[derive(Debug)]
pub struct MemorySubscription {
    shared: Arc<Shared>,
    number: u64,
    /// In the order in which they are looked into; the one just taken from comes last.
    queues: VecDeque<String>,
}

impl MemorySubscription {
    /// A delivery, or when to look again at the latest.
    fn take(&mut self) -> Result<Delivery, Option<Instant>> {
        let mut state = self.shared.state();
        for index in 0..self.queues.len() {
            if let Some((tag, message, returned)) = state.take(self.number, &self.queues[index]) {
                let queue = self.queues[index].clone();
                self.queues.rotate_left(index + 1);
                let settle = MemorySettle { shared: self.shared.clone(), tag };
                let settlement = Settlement::new(settle);
                return Ok(Delivery { message, queue, returned, settlement });
            }
        }
        Err(state.next_expiry())
    }
}

impl Subscription for MemorySubscription {
    async fn next(&mut self) -> Result<Delivery, BrokerError> {
        let shared = self.shared.clone();
        loop {
            let mut changed = std::pin::pin!(shared.changed.notified());
            // Before looking, so that nothing is missed between looking and waiting.
            changed.as_mut().enable();
            match self.take() {
                Ok(delivery) => return Ok(delivery),
                Err(Some(expiry)) => _ = timeout_at(expiry, changed).await,
                Err(None) => changed.await,
            }
        }
    }

    async fn start(&mut self, wanted: &QueuePrefetch) -> Result<(), BrokerError> {
        let mut state = self.shared.state();
        let queue = state.queues.get_mut(&wanted.queue);
        let queue = queue.ok_or_else(|| refused(format!("there is no queue {}", wanted.queue)))?;
        queue.consumers.insert(self.number, wanted.prefetch.max(1));
        self.queues.push_back(wanted.queue.clone());
        Ok(())
    }

    async fn stop(&mut self, queue: &str) -> Result<(), BrokerError> {
        self.queues.retain(|name| name != queue);
        if let Some(queue) = self.shared.state().queues.get_mut(queue) {
            queue.consumers.remove(&self.number);
        }
        Ok(())
    }
}

impl Drop for MemorySubscription {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.queues.values_mut().for_each(|queue| _ = queue.consumers.remove(&self.number));
        let ours = state.unsettled.extract_if(.., |_, one| one.subscription == self.number);
        // The youngest first, so that the oldest ends up before it.
        for unsettled in Vec::from_iter(ours).into_iter().rev() {
            state.give_back(unsettled.1);
        }
        self.shared.changed.notify_waiters();
    }
}

struct MemorySettle {
    shared: Arc<Shared>,
    tag: u64,
}

impl MemorySettle {
    fn tell(&self, disposition: Disposition) -> Settled {
        let mut state = self.shared.state();
        // Not there: its subscription is over, and it was given back.
        let Some(unsettled) = state.unsettled.remove(&self.tag) else { return Settled::ComesAgain };
        match disposition {
            Disposition::Ack => {}
            Disposition::Requeue => state.give_back(unsettled),
            Disposition::DeadLetter => state.dead_letter(&unsettled.queue, unsettled.held.message),
        }
        Settled::Told
    }
}

impl Settle for MemorySettle {
    fn settle(self: Box<Self>, disposition: Disposition) -> Settling {
        Box::pin(async move {
            let settled = self.tell(disposition);
            // An ack, too, lets its subscription have one more.
            self.shared.changed.notify_waiters();
            Ok(settled)
        })
    }
}
