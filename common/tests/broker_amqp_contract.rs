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

// Without `what_is_not_settled_comes_again`: here the end of a subscription is on its way to the
// broker when its drop returns, so that a word about a delivery may still come before it, and says so.
broker_contract!(
    amqp,
    tokio::test,
    a_message_arrives_as_it_was,
    what_no_queue_takes_is_unroutable,
    nothing_is_published_before_it_is_declared,
    a_declaration_can_be_repeated_but_not_changed,
    verifying_makes_nothing,
    prefetch_is_kept_by_queue,
    subscriptions_share_a_queue,
    what_is_requeued_comes_again,
    dead_letters_keep_their_routing_key,
    a_retried_job_comes_after_its_time,
    a_reply_to_nobody_is_kept,
    a_queue_tells_its_state,
    a_stopped_queue_gives_nothing_more,
    a_queue_can_be_taken_on_later,
);
