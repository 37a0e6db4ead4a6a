//! What a broker in this process holds, and what becomes of it.

use std::collections::{BTreeMap, VecDeque};

use tokio::time::Instant;

use crate::broker::BrokerError;
use crate::message::Message;
use crate::topology::{Exchange, ExchangeKind, Queue, RETRY_STEP_HEADER, Topology};

#[derive(Debug, Default)]
pub(super) struct State {
    exchanges: BTreeMap<&'static str, Exchange>,
    pub(super) queues: BTreeMap<String, HeldQueue>,
    pub(super) unsettled: BTreeMap<u64, Unsettled>,
    /// The last number given to a subscription or a delivery.
    last: u64,
}

#[derive(Debug)]
pub(super) struct HeldQueue {
    declared: Queue,
    pub(super) ready: VecDeque<Held>,
    /// Prefetch, by subscription.
    pub(super) consumers: BTreeMap<u64, u16>,
}

#[derive(Debug)]
pub(super) struct Held {
    pub(super) message: Message,
    returned: u32,
    expires: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct Unsettled {
    pub(super) held: Held,
    pub(super) queue: String,
    pub(super) subscription: u64,
}

pub(super) fn refused(reason: impl Into<String>) -> BrokerError {
    BrokerError::Refused { server: "this process".into(), reason: reason.into() }
}

impl State {
    pub(super) fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    pub(super) fn declare(&mut self, topology: &Topology) -> Result<(), BrokerError> {
        for exchange in &topology.exchanges {
            let made = self.exchanges.entry(exchange.name).or_insert_with(|| exchange.clone());
            if made != exchange {
                return Err(refused(format!("{} is declared differently", exchange.name)));
            }
        }
        for queue in &topology.queues {
            if !self.exchanges.contains_key(queue.binding.exchange) {
                return Err(refused(format!("there is no exchange {}", queue.binding.exchange)));
            }
            let made = self.queues.entry(queue.name.clone()).or_insert_with(|| HeldQueue {
                declared: queue.clone(),
                ready: VecDeque::new(),
                consumers: BTreeMap::new(),
            });
            if made.declared != *queue {
                return Err(refused(format!("{} is declared differently", queue.name)));
            }
        }
        Ok(())
    }

    pub(super) fn verify(&self, topology: &Topology) -> Result<(), BrokerError> {
        let exchanges = topology.exchanges.iter().map(|exchange| exchange.name);
        let queues = topology.queues.iter().map(|queue| queue.name.as_str());
        let missing = exchanges
            .filter(|name| !self.exchanges.contains_key(name))
            .chain(queues.filter(|name| !self.queues.contains_key(*name)))
            .next();
        missing.map_or(Ok(()), |name| Err(refused(format!("there is no {name}"))))
    }

    /// Names of the queues that take a message.
    fn route(&self, exchange: &Exchange, message: &Message) -> Vec<String> {
        let step = message.text(RETRY_STEP_HEADER);
        let takes = |queue: &Queue| match exchange.kind {
            ExchangeKind::Direct | ExchangeKind::Topic => queue.name == message.routing_key,
            ExchangeKind::Fanout => true,
            ExchangeKind::Headers => queue.binding.retry_step.map(|step| step.name()) == step,
        };
        let bound = self.queues.values().map(|queue| &queue.declared);
        let bound = bound.filter(|queue| queue.binding.exchange == exchange.name);
        let found: Vec<_> = bound.filter(|queue| takes(queue)).map(|q| q.name.clone()).collect();
        match exchange.alternate.and_then(|alternate| self.exchanges.get(alternate)) {
            Some(alternate) if found.is_empty() => self.route(alternate, message),
            _ => found,
        }
    }

    pub(super) fn publish(&mut self, message: &Message) -> Result<(), BrokerError> {
        let exchange = self.exchanges.get(message.exchange.as_str());
        let exchange = exchange
            .ok_or_else(|| refused(format!("there is no exchange {}", message.exchange)))?;
        let queues = self.route(exchange, message);
        if queues.is_empty() {
            let (exchange, routing_key) = (message.exchange.clone(), message.routing_key.clone());
            return Err(BrokerError::Unroutable { exchange, routing_key });
        }
        for name in queues {
            let Some(queue) = self.queues.get_mut(&name) else { continue };
            let expires = queue.declared.message_ttl.map(|life| Instant::now() + life);
            queue.ready.push_back(Held { message: message.clone(), returned: 0, expires });
        }
        Ok(())
    }

    /// What a queue gives up goes to its dead-letter exchange, under the same routing key.
    pub(super) fn dead_letter(&mut self, queue: &str, message: Message) {
        let exchange = self.queues.get(queue).and_then(|queue| queue.declared.dead_letter);
        if let Some(exchange) = exchange {
            // Where nobody takes it, it is gone, as it is in RabbitMQ.
            let _ = self.publish(&Message { exchange: exchange.into(), ..message });
        }
    }

    pub(super) fn expire(&mut self, now: Instant) {
        let mut old = Vec::new();
        for (name, queue) in &mut self.queues {
            let is_old = |held: &Held| held.expires.is_some_and(|expires| expires <= now);
            while queue.ready.front().is_some_and(is_old) {
                old.extend(queue.ready.pop_front().map(|held| (name.clone(), held.message)));
            }
        }
        for (queue, message) in old {
            self.dead_letter(&queue, message);
        }
    }

    /// When the next message will be too old.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.queues.values().filter_map(|queue| queue.ready.front()?.expires).min()
    }

    /// Puts a message back where it was: before the others.
    pub(super) fn give_back(&mut self, Unsettled { mut held, queue, .. }: Unsettled) {
        held.returned += 1;
        if let Some(queue) = self.queues.get_mut(&queue) {
            queue.ready.push_front(held);
        }
    }

    /// Takes a message for a subscription out of a queue, if there is one and it may have more.
    pub(super) fn take(&mut self, subscription: u64, name: &str) -> Option<(u64, Message, u32)> {
        let has = |one: &&Unsettled| one.subscription == subscription && one.queue == name;
        let unsettled = self.unsettled.values().filter(has).count();
        let queue = self.queues.get_mut(name)?;
        if unsettled >= usize::from(*queue.consumers.get(&subscription)?) {
            return None;
        }
        let held = queue.ready.pop_front()?;
        let (message, returned) = (held.message.clone(), held.returned);
        let tag = self.number();
        self.unsettled.insert(tag, Unsettled { held, queue: name.to_owned(), subscription });
        Some((tag, message, returned))
    }
}
