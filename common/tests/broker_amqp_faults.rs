//! The broker over AMQP when RabbitMQ is not well. Every test has a node of its own to hurt.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod amqp;

use std::time::Duration;

use amqp::{
    CONFIRM_TIMEOUT, PATIENCE, ack, declare, end, high, impatient_broker, message, next, normal,
    persist, random_model,
};
use cipherscore_common::ModelId;
use cipherscore_common::broker::amqp::{AmqpBroker, AmqpConfig};
use cipherscore_common::broker::{Broker, BrokerError, Delivery, Settled, Subscription};
use cipherscore_testbed::{RabbitMq, Relay};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// What one call may take: a connection and a confirm, on a machine that is busy.
const LIMIT: Duration = CONFIRM_TIMEOUT.saturating_mul(2).saturating_add(Duration::from_secs(4));

async fn with_model(node: &RabbitMq) -> (AmqpBroker, ModelId) {
    let (broker, model) = (impatient_broker(&node.url()), random_model());
    declare(&broker, model).await;
    (broker, model)
}

fn assert_temporary(error: &BrokerError) {
    assert!(error.is_temporary(), "{error}");
}

#[tokio::test]
async fn closed_connections_end_subscriptions_and_are_made_anew() {
    let node = RabbitMq::start().unwrap();
    let (broker, model) = with_model(&node).await;
    broker.publish(&message(model)).await.unwrap();
    let mut subscription = broker.subscribe(&[normal(model, 2), high(model, 1)]).await.unwrap();
    let unsettled = next(&mut subscription).await;
    broker.publish(&message(model)).await.unwrap();
    node.close_all_connections("maintenance").unwrap();
    sleep(amqp::A_WHILE).await;

    // What was delivered in the meantime is not handed out any more.
    let error = subscription.next().await.unwrap_err();
    assert_temporary(&error);
    assert!(error.to_string().contains("maintenance"), "{error}");
    assert_eq!(ack(unsettled).await, Settled::ComesAgain);
    persist(async || broker.publish(&message(model)).await).await;
    let mut subscription = broker.subscribe(&[normal(model, 3)]).await.unwrap();
    let returned = [(); 3].map(|()| 0);
    let mut seen = returned;
    for returned in &mut seen {
        let delivery = next(&mut subscription).await;
        *returned = delivery.returned;
        assert_eq!(ack(delivery).await, Settled::Told);
    }
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 1]);
}

#[tokio::test]
async fn a_crash_is_an_error_to_all_and_over_after_the_restart() {
    let mut node = RabbitMq::start().unwrap();
    let (broker, model) = with_model(&node).await;
    broker.publish(&message(model)).await.unwrap();
    let mut subscription = broker.subscribe(&[normal(model, 1)]).await.unwrap();
    let unsettled = next(&mut subscription).await;
    // RabbitMQ 3.10 forgets a quorum queue, with all that it confirmed, when it is killed within
    // a second after making it.
    sleep(Duration::from_secs(3)).await;
    node.kill();

    assert_temporary(&end(&mut subscription).await);
    assert_eq!(ack(unsettled).await, Settled::ComesAgain);
    let began = Instant::now();
    assert_temporary(&broker.publish(&message(model)).await.unwrap_err());
    assert_temporary(&broker.subscribe(&[normal(model, 1)]).await.map(drop).unwrap_err());
    assert_temporary(&broker.queue_state("q").await.unwrap_err());
    assert!(began.elapsed() < LIMIT, "{:?}", began.elapsed());

    node.restart().unwrap();
    persist(async || broker.publish(&message(model)).await).await;
    let mut subscription = persist(async || broker.subscribe(&[normal(model, 1)]).await).await;
    // The first message is as old as the queue, and is still there.
    for _ in 0..2 {
        assert_eq!(ack(next(&mut subscription).await).await, Settled::Told);
    }
}

/// In whatever moment a connection ends, nobody waits for ever for a word to be told.
#[tokio::test(flavor = "multi_thread")]
async fn acks_end_when_their_connection_is_cut_beneath_them() {
    const ROUNDS: u32 = 30;
    const MESSAGES: u16 = 40;
    let node = RabbitMq::start().unwrap();
    let (direct, model) = with_model(&node).await;
    let relay = Relay::start(node.address()).unwrap();
    let config = AmqpConfig::parse(&node.url_at(relay.address())).unwrap();
    let broker = AmqpBroker::new(config).unwrap();
    let deliveries = async || {
        for _ in 0..MESSAGES {
            direct.publish(&message(model)).await.unwrap();
        }
        let from = normal(model, MESSAGES);
        let subscribed = persist(async || broker.subscribe(std::slice::from_ref(&from)).await);
        let mut subscription = subscribed.await;
        let mut deliveries = Vec::new();
        for _ in 0..MESSAGES {
            deliveries.push(next(&mut subscription).await);
        }
        (subscription, deliveries)
    };
    let settle = |deliveries: Vec<Delivery>| -> JoinSet<_> {
        deliveries.into_iter().map(|delivery| timeout(PATIENCE, ack(delivery))).collect()
    };
    let settled = async |settling: JoinSet<_>| {
        let settled = settling.join_all().await;
        settled.into_iter().collect::<Result<Vec<_>, _>>().expect("an ack that never ends")
    };

    // How long it takes undisturbed, so that the cuts fall beneath it on any machine.
    let (subscription, unsettled) = deliveries().await;
    let began = Instant::now();
    assert_eq!(settled(settle(unsettled)).await, [Settled::Told; MESSAGES as usize]);
    let undisturbed = began.elapsed();
    drop(subscription);
    for round in 0..ROUNDS {
        let (mut subscription, unsettled) = deliveries().await;
        let settling = settle(unsettled);
        std::thread::sleep(undisturbed * round / ROUNDS);
        relay.cut();
        settled(settling).await;
        end(&mut subscription).await;
    }
    let (mut subscription, unsettled) = deliveries().await;
    relay.cut();
    end(&mut subscription).await;
    assert_eq!(settled(settle(unsettled)).await, [Settled::ComesAgain; MESSAGES as usize]);
}

#[tokio::test]
async fn a_silent_broker_is_noticed_in_time_by_all_who_wait() {
    let node = RabbitMq::start().unwrap();
    let (broker, model) = with_model(&node).await;
    broker.publish(&message(model)).await.unwrap();
    node.pause().unwrap();

    let began = Instant::now();
    let publishing = (0..100).map(|_| {
        let (broker, message) = (broker.clone(), message(model));
        tokio::spawn(async move { broker.publish(&message).await })
    });
    for published in Vec::from_iter(publishing) {
        assert_temporary(&published.await.unwrap().unwrap_err());
    }
    assert!(began.elapsed() < LIMIT, "{:?}", began.elapsed());
    let began = Instant::now();
    assert_temporary(&broker.queue_state("q").await.unwrap_err());
    // New connections are silent as well.
    let other = impatient_broker(&node.url());
    let asking = (0..8).map(|_| {
        let other = other.clone();
        tokio::spawn(async move { other.queue_state("q").await })
    });
    for asked in Vec::from_iter(asking) {
        assert_temporary(&asked.await.unwrap().unwrap_err());
    }
    assert!(began.elapsed() < LIMIT, "{:?}", began.elapsed());

    node.resume().unwrap();
    persist(async || broker.publish(&message(model)).await).await;
    persist(async || other.queue_state("q").await).await;
}

#[tokio::test]
async fn under_a_memory_alarm_publishing_waits_in_vain_and_settling_goes_on() {
    let node = RabbitMq::start().unwrap();
    let (broker, model) = with_model(&node).await;
    for _ in 0..2 {
        broker.publish(&message(model)).await.unwrap();
    }
    let mut subscription = broker.subscribe(&[normal(model, 1)]).await.unwrap();
    node.set_memory_alarm(true).unwrap();

    let mut large = message(model);
    large.body = vec![1; 1 << 20];
    let mut unconfirmed = 0;
    for _ in 0..2 {
        let began = Instant::now();
        let publishing = (0..20).map(|_| {
            let (broker, large) = (broker.clone(), large.clone());
            tokio::spawn(async move { broker.publish(&large).await })
        });
        for published in Vec::from_iter(publishing) {
            match published.await.unwrap().unwrap_err() {
                BrokerError::Unconfirmed { .. } => unconfirmed += 1,
                // Who gives up first ends the connection beneath those a moment behind.
                BrokerError::Unavailable { .. } => {}
                other => panic!("{other}"),
            }
        }
        assert!(began.elapsed() < LIMIT, "{:?}", began.elapsed());
        assert_eq!(ack(next(&mut subscription).await).await, Settled::Told);
    }
    assert!(unconfirmed > 0, "nobody waited in vain");
    // Somebody who gives up in the middle of it, if not earlier, harms nobody.
    let given_up = tokio::time::timeout(Duration::from_millis(50), broker.publish(&large)).await;
    assert!(!matches!(given_up, Ok(Ok(()))), "{given_up:?}");
    assert!(broker.queue_state(&normal(model, 1).queue).await.unwrap().is_some());

    node.set_memory_alarm(false).unwrap();
    let began = Instant::now();
    persist(async || broker.publish(&message(model)).await).await;
    assert!(began.elapsed() < PATIENCE);
    for _ in 0..10 {
        broker.publish(&message(model)).await.unwrap();
    }
    ack(next(&mut subscription).await).await;
}

#[tokio::test]
async fn who_gives_up_in_the_middle_harms_nobody_for_long() {
    let node = RabbitMq::start().unwrap();
    let (broker, model) = with_model(&node).await;
    let mut large = message(model);
    large.body = vec![1; 1 << 20];
    for micros in [0, 50, 100, 200, 400, 800, 1600, 3200] {
        let publishing = broker.publish(&large);
        tokio::time::timeout(Duration::from_micros(micros), publishing).await.ok();
    }
    persist(async || broker.publish(&message(model)).await).await;
    for _ in 0..10 {
        broker.publish(&message(model)).await.unwrap();
        sleep(Duration::from_millis(10)).await;
    }
}
