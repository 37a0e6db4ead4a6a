//! The broker over AMQP does what every broker does. One node serves all tests; each has a virtual
//! host of its own.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::sync::{Arc, Mutex, PoisonError, Weak};

use cipherscore_common::broker::amqp::{AmqpBroker, AmqpConfig};
use cipherscore_common::{JobId, broker_contract};
use cipherscore_testbed::RabbitMq;

/// One node for all tests that run at about the same time; it ends with the last of them.
fn shared_node() -> Arc<RabbitMq> {
    static NODE: Mutex<Weak<RabbitMq>> = Mutex::new(Weak::new());
    let mut shared = NODE.lock().unwrap_or_else(PoisonError::into_inner);
    shared.upgrade().unwrap_or_else(|| {
        let node = Arc::new(RabbitMq::start().unwrap());
        *shared = Arc::downgrade(&node);
        node
    })
}

async fn amqp() -> (AmqpBroker, Arc<RabbitMq>) {
    let (node, host) = (shared_node(), JobId::random().to_string());
    node.ctl(&["add_vhost", &host]).unwrap();
    node.ctl(&["set_permissions", "--vhost", &host, RabbitMq::USER, ".*", ".*", ".*"]).unwrap();
    let url = node.url().replace("%2f", &host);
    (AmqpBroker::new(AmqpConfig::parse(&url).unwrap()).unwrap(), node)
}

broker_contract!(amqp, tokio::test);
