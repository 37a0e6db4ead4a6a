//! The broker in this process does what every broker does, and knows its users.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use cipherscore_common::broker::{Broker, BrokerError, MemoryBroker, QueuePrefetch, Subscription};
use cipherscore_common::message::Message;
use cipherscore_common::topology::{DEAD, Declare, JOBS, Lane, Topology, job_queue};
use cipherscore_common::{Digest, ModelId, broker_contract};

async fn memory() -> (MemoryBroker, ()) {
    (MemoryBroker::default(), ())
}

broker_contract!(memory, tokio::test(start_paused = true));

#[tokio::test]
async fn a_users_name_is_stamped_and_nobody_elses_is_taken() {
    let broker = MemoryBroker::default();
    broker.declare(&Topology::shared(), Declare::Create).await.unwrap();
    let message = Message { exchange: DEAD.into(), ..Message::default() };
    let named = Message { user_id: Some("alice".into()), ..message.clone() };
    let (alice, bob) = (broker.as_user("alice"), broker.as_user("bob"));
    let mut dead =
        broker.subscribe(&[QueuePrefetch { queue: DEAD.into(), prefetch: 1 }]).await.unwrap();
    for (user, message, expected) in [
        (&alice, &message, Some("alice")),
        (&alice, &named, Some("alice")),
        (&broker, &message, None),
        (&alice.as_user("bob"), &message, Some("bob")),
    ] {
        user.publish(message).await.unwrap();
        let delivery = dead.next().await.unwrap();
        assert_eq!(delivery.message.user_id.as_deref(), expected);
        delivery.settle(cipherscore_common::broker::Disposition::Ack).await.unwrap();
    }
    for wrong in [&bob, &broker] {
        let refused = wrong.publish(&named).await;
        assert!(matches!(refused, Err(BrokerError::Refused { .. })), "{refused:?}");
    }
}

/// Who waits is woken by what others publish, and several who wait by turns.
#[tokio::test]
async fn those_who_wait_are_woken_by_turns() {
    let (broker, model) = (MemoryBroker::default(), ModelId::new(Digest::of(b"a model")));
    for topology in [Topology::shared(), Topology::of_model(model)] {
        broker.declare(&topology, Declare::Create).await.unwrap();
    }
    let queue = job_queue(model, Lane::Normal);
    let taken = (0..2).map(|_| {
        let (broker, queue) = (broker.clone(), queue.clone());
        tokio::spawn(async move {
            let wanted = [QueuePrefetch { queue, prefetch: 8 }];
            let mut subscription = broker.subscribe(&wanted).await.unwrap();
            let mut deliveries = Vec::new();
            for _ in 0..4 {
                deliveries.push(subscription.next().await.unwrap());
            }
            deliveries.len()
        })
    });
    let taken = Vec::from_iter(taken);
    for _ in 0..8 {
        tokio::task::yield_now().await;
        let message =
            Message { exchange: JOBS.into(), routing_key: queue.clone(), ..Message::default() };
        broker.publish(&message).await.unwrap();
    }
    for taken in taken {
        assert_eq!(taken.await.unwrap(), 4);
    }
}
