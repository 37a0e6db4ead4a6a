//! The broker over AMQP against a RabbitMQ that is well. One node serves all tests; each has
//! queues of its own.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod amqp;

use std::sync::{Arc, Mutex, PoisonError, Weak};

use amqp::{
    PATIENCE, ack, broker, declare, end, high, job, message, next, normal, nothing_comes,
    random_model, reply, reply_queue, take,
};
use cipherscore_common::broker::amqp::AmqpBroker;
use cipherscore_common::broker::{
    Broker, BrokerError, Disposition, QueuePrefetch, QueueState, Settled, Subscription,
};
use cipherscore_common::message::{Job, MAX_INLINE_BYTES, Message, Reply, headers};
use cipherscore_common::topology::{
    DEAD, Declare, RETRY, RETRY_STEP_HEADER, RetryStep, Topology, UNROUTED,
};
use cipherscore_common::{JobId, ModelId};
use cipherscore_testbed::AnyRabbitMq;
use tokio::time::Instant;

/// One node for all tests that run at about the same time; it ends with the last of them.
struct Fixture {
    node: Arc<AnyRabbitMq>,
    broker: AmqpBroker,
    model: ModelId,
}

impl Fixture {
    async fn new() -> Self {
        let node = shared_node();
        let (broker, model) = (broker(&node.url()), random_model());
        declare(&broker, model).await;
        Self { node, broker, model }
    }

    async fn raw_channel(&self) -> lapin::Channel {
        let properties = lapin::ConnectionProperties::default();
        let connection = lapin::Connection::connect(&self.node.url(), properties).await.unwrap();
        connection.create_channel().await.unwrap()
    }
}

fn shared_node() -> Arc<AnyRabbitMq> {
    static NODE: Mutex<Weak<AnyRabbitMq>> = Mutex::new(Weak::new());
    let mut shared = NODE.lock().unwrap_or_else(PoisonError::into_inner);
    shared.upgrade().unwrap_or_else(|| {
        let node = Arc::new(AnyRabbitMq::start().unwrap());
        *shared = Arc::downgrade(&node);
        node
    })
}

fn unroutable(message: &Message) -> BrokerError {
    let (exchange, routing_key) = (message.exchange.clone(), message.routing_key.clone());
    BrokerError::Unroutable { exchange, routing_key }
}

#[tokio::test]
async fn a_job_arrives_as_it_was_published() {
    let fixture = Fixture::new().await;
    let (broker, model) = (&fixture.broker, fixture.model);
    let job = job(model);
    let sent = job.to_message();
    broker.publish(&sent).await.unwrap();
    let mut subscription = broker.subscribe(&[normal(model, 1)]).await.unwrap();
    let delivery = next(&mut subscription).await;
    let from_us = Message { user_id: Some(fixture.node.user()), ..sent };
    assert_eq!(delivery.message, from_us);
    assert_eq!((delivery.returned, &delivery.queue), (0, &normal(model, 1).queue));
    assert_eq!(Job::from_message(&delivery.message).unwrap(), job);
    assert_eq!(ack(delivery).await, Settled::Told);
}

#[tokio::test]
async fn messages_are_persistent_and_say_what_they_are() {
    let fixture = Fixture::new().await;
    let (broker, model) = (&fixture.broker, fixture.model);
    broker.publish(&message(model)).await.unwrap();
    let channel = fixture.raw_channel().await;
    let queue = normal(model, 1).queue.as_str().into();
    let got = channel.basic_get(queue, Default::default()).await.unwrap().unwrap();
    let properties = &got.delivery.properties;
    assert_eq!(*properties.delivery_mode(), Some(2));
    let said = |text: &Option<lapin::types::ShortString>| text.as_ref().unwrap().to_string();
    assert_eq!(said(properties.content_type()), "application/octet-stream");
    let app = concat!("cipherscore/", env!("CARGO_PKG_VERSION"));
    assert_eq!(said(properties.app_id()), app);
    assert!(properties.timestamp().unwrap() > 1_700_000_000);
}

#[tokio::test]
async fn the_largest_message_arrives() {
    let fixture = Fixture::new().await;
    let (broker, model) = (&fixture.broker, fixture.model);
    let mut sent = message(model);
    sent.body = (0..=250).cycle().take(MAX_INLINE_BYTES + 64).collect();
    broker.publish(&sent).await.unwrap();
    assert!(take(broker, normal(model, 1)).await.body == sent.body);
}

#[tokio::test]
async fn of_many_at_once_exactly_those_without_a_queue_are_unroutable() {
    let fixture = Fixture::new().await;
    let (broker, model) = (&fixture.broker, fixture.model);
    let publishing = (0..200).map(|index| {
        let (broker, mut message) = (broker.clone(), message(model));
        if index % 2 == 1 {
            message.routing_key = format!("nowhere.{index}");
        }
        let expected = if index % 2 == 1 { Err(unroutable(&message)) } else { Ok(()) };
        tokio::spawn(async move { (broker.publish(&message).await, expected) })
    });
    for published in Vec::from_iter(publishing) {
        let (published, expected) = published.await.unwrap();
        assert_eq!(published, expected);
    }
    let state = broker.queue_state(&normal(model, 1).queue).await.unwrap();
    assert_eq!(state, Some(QueueState { messages: 100, consumers: 0 }));
}

#[tokio::test]
async fn a_missing_exchange_is_refused_and_harms_nobody_else() {
    let fixture = Fixture::new().await;
    let (broker, model) = (&fixture.broker, fixture.model);
    let good = message(model);
    let wrong = Message { exchange: "nowhere".into(), ..good.clone() };
    for _ in 0..3 {
        let (refused, published) = tokio::join!(broker.publish(&wrong), broker.publish(&good));
        published.unwrap();
        let error = refused.unwrap_err();
        assert!(
            matches!(&error, BrokerError::Refused { reason, .. }
            if reason.contains("no exchange 'nowhere'")),
            "{error}"
        );
        assert!(!error.is_temporary());
    }
    broker.publish(&good).await.unwrap();
    let long = Message { routing_key: "x".repeat(256), ..good };
    let error = broker.publish(&long).await.unwrap_err();
    assert!(matches!(error, BrokerError::Refused { .. }), "{error}");
}

#[tokio::test]
async fn a_reply_without_a_queue_is_parked() {
    let fixture = Fixture::new().await;
    let broker = &fixture.broker;
    let (id, reply_to) = (JobId::random(), reply_queue());
    let gone = reply(id).to_message(&reply_to);
    broker.publish(&gone).await.unwrap();
    let queue = QueuePrefetch { queue: UNROUTED.into(), prefetch: 1 };
    let mut parked = take(broker, queue.clone()).await;
    while parked.message_id != gone.message_id {
        // Another test's.
        parked = take(broker, queue.clone()).await;
    }
    assert_eq!(Reply::from_message(&parked).unwrap(), reply(id));
    assert_eq!(parked.routing_key, reply_to.to_string());

    broker.declare(&Topology::of_client(&reply_to), Declare::Create).await.unwrap();
    broker.publish(&gone).await.unwrap();
    let queue = QueuePrefetch { queue: reply_to.to_string(), prefetch: 1 };
    assert_eq!(take(broker, queue).await.message_id, Some(id.to_string()));
}

#[tokio::test]
async fn a_job_that_was_put_off_comes_again_after_its_step() {
    let fixture = Fixture::new().await;
    let (broker, model) = (&fixture.broker, fixture.model);
    let step = RetryStep::after(0);
    let mut put_off = Message { exchange: RETRY.into(), ..message(model) };
    put_off.set(RETRY_STEP_HEADER, step.name());
    put_off.set(headers::PUBLISHED_BY, "ann");
    let mut subscription = broker.subscribe(&[normal(model, 1)]).await.unwrap();
    let began = Instant::now();
    broker.publish(&put_off).await.unwrap();
    let delivery = next(&mut subscription).await;
    assert!(began.elapsed() >= step.delay(), "{:?}", began.elapsed());
    let user_id = Some(fixture.node.user());
    let came = Message { exchange: "cs.jobs".into(), user_id, ..put_off.clone() };
    assert_eq!((&delivery.message, delivery.returned), (&came, 0));

    // What is published again carries nothing of its first time, by which the broker would take
    // it for a message that goes round in circles.
    broker.publish(&Message { exchange: RETRY.into(), ..delivery.message.clone() }).await.unwrap();
    ack(delivery).await;
    assert_eq!(next(&mut subscription).await.message, came);
    put_off.set(RETRY_STEP_HEADER, "1 year");
    let error = broker.publish(&put_off).await.unwrap_err();
    assert_eq!(error, unroutable(&put_off));
}

#[tokio::test]
async fn what_is_rejected_is_dead() {
    let fixture = Fixture::new().await;
    let (broker, model) = (&fixture.broker, fixture.model);
    let sent = message(model);
    broker.publish(&sent).await.unwrap();
    let mut subscription = broker.subscribe(&[normal(model, 1)]).await.unwrap();
    let delivery = next(&mut subscription).await;
    let settled = delivery.settlement.settle(Disposition::DeadLetter).await.unwrap();
    assert_eq!(settled, Settled::Told);
    let dead = take(broker, QueuePrefetch { queue: DEAD.into(), prefetch: 1 }).await;
    let user_id = Some(fixture.node.user());
    assert_eq!(dead, Message { exchange: DEAD.into(), user_id, ..sent });
}

#[tokio::test]
async fn the_broker_counts_how_often_a_message_came_back() {
    let fixture = Fixture::new().await;
    let (broker, model) = (&fixture.broker, fixture.model);
    let mut sent = message(model);
    sent.set("x-delivery-count", 99_u32);
    broker.publish(&sent).await.unwrap();
    let mut subscription = broker.subscribe(&[normal(model, 1)]).await.unwrap();
    for returned in 0..4 {
        let delivery = next(&mut subscription).await;
        assert_eq!(delivery.returned, returned);
        let settled = delivery.settlement.settle(Disposition::Requeue).await.unwrap();
        assert_eq!(settled, Settled::Told);
    }
}

#[tokio::test]
async fn each_queue_has_its_own_prefetch_and_the_first_one_comes_first() {
    let fixture = Fixture::new().await;
    let (broker, model) = (&fixture.broker, fixture.model);
    for index in 0..10 {
        let mut message = message(model);
        if index % 2 == 0 {
            message.routing_key = high(model, 1).queue;
        }
        broker.publish(&message).await.unwrap();
    }
    let queues = [high(model, 2), normal(model, 3)];
    let mut subscription = broker.subscribe(&queues).await.unwrap();
    tokio::time::sleep(amqp::A_WHILE).await;
    let mut unsettled = Vec::new();
    for queue in [0, 0, 1, 1, 1] {
        let delivery = next(&mut subscription).await;
        assert_eq!(delivery.queue, queues[queue].queue);
        unsettled.push(delivery);
    }
    nothing_comes(&mut subscription).await;
    ack(unsettled.remove(0)).await;
    let delivery = next(&mut subscription).await;
    assert_eq!(delivery.queue, queues[0].queue);
    nothing_comes(&mut subscription).await;
}

#[tokio::test]
async fn a_stopped_queue_gives_what_it_delivered_and_no_more() {
    let fixture = Fixture::new().await;
    let (broker, model) = (&fixture.broker, fixture.model);
    let mut subscription = broker.subscribe(&[normal(model, 2)]).await.unwrap();
    subscription.start(&high(model, 1)).await.unwrap();
    for _ in 0..4 {
        broker.publish(&message(model)).await.unwrap();
    }
    let first = next(&mut subscription).await;
    tokio::time::sleep(amqp::A_WHILE).await;
    subscription.stop(&normal(model, 2).queue).await.unwrap();
    // It was on its way already.
    let second = next(&mut subscription).await;
    nothing_comes(&mut subscription).await;
    assert_eq!((ack(first).await, ack(second).await), (Settled::Told, Settled::Told));
    nothing_comes(&mut subscription).await;
    let state = broker.queue_state(&normal(model, 2).queue).await.unwrap();
    assert_eq!(state, Some(QueueState { messages: 2, consumers: 0 }));

    broker.publish(&Message { routing_key: high(model, 1).queue, ..message(model) }).await.unwrap();
    ack(next(&mut subscription).await).await;
    subscription.start(&normal(model, 1)).await.unwrap();
    ack(next(&mut subscription).await).await;
    subscription.stop("nobody's").await.unwrap();
}

#[tokio::test]
async fn dropping_a_subscription_gives_everything_back() {
    let fixture = Fixture::new().await;
    let (broker, model) = (&fixture.broker, fixture.model);
    for _ in 0..3 {
        broker.publish(&message(model)).await.unwrap();
    }
    let mut subscription = broker.subscribe(&[normal(model, 2)]).await.unwrap();
    let unsettled = next(&mut subscription).await;
    drop(subscription);
    let mut other = broker.subscribe(&[normal(model, 3)]).await.unwrap();
    for _ in 0..3 {
        ack(next(&mut other).await).await;
    }
    assert_eq!(ack(unsettled).await, Settled::ComesAgain);
}

#[tokio::test]
async fn a_deleted_queue_ends_the_subscription_and_the_rest_comes_again() {
    let fixture = Fixture::new().await;
    let (broker, model) = (&fixture.broker, fixture.model);
    broker.publish(&message(model)).await.unwrap();
    let mut subscription = broker.subscribe(&[high(model, 1), normal(model, 1)]).await.unwrap();
    let unsettled = next(&mut subscription).await;
    let queue = high(model, 1).queue;
    fixture
        .raw_channel()
        .await
        .queue_delete(queue.as_str().into(), Default::default())
        .await
        .unwrap();
    let error = end(&mut subscription).await;
    assert!(error.to_string().contains(&queue) && error.is_temporary(), "{error}");
    assert_eq!(subscription.next().await.unwrap_err(), error);
    let mut other = broker.subscribe(&[normal(model, 1)]).await.unwrap();
    assert_eq!(next(&mut other).await.returned, 1);
    assert_eq!(ack(unsettled).await, Settled::ComesAgain);
    let missing = broker.subscribe(&[high(model, 1)]).await.map(drop).unwrap_err();
    assert!(matches!(missing, BrokerError::Refused { .. }), "{missing}");
}

#[tokio::test]
async fn closing_ends_subscriptions_and_a_later_call_connects_again() {
    let fixture = Fixture::new().await;
    let (broker, model) = (&fixture.broker, fixture.model);
    broker.publish(&message(model)).await.unwrap();
    let mut subscription = broker.subscribe(&[normal(model, 1)]).await.unwrap();
    let unsettled = next(&mut subscription).await;
    broker.close(PATIENCE).await;
    assert!(end(&mut subscription).await.is_temporary());
    assert_eq!(ack(unsettled).await, Settled::ComesAgain);
    take(broker, normal(model, 1)).await;
    broker.publish(&message(model)).await.unwrap();
}

#[tokio::test]
async fn topology_is_made_verified_or_believed() {
    let node = shared_node();
    let (broker, model) = (broker(&node.url()), random_model());
    let queue = normal(model, 1).queue;
    let topology = Topology::of_model(model);
    assert_eq!(broker.queue_state(&queue).await.unwrap(), None);
    broker.declare(&topology, Declare::Leave).await.unwrap();
    let error = broker.declare(&topology, Declare::Verify).await.unwrap_err();
    assert!(
        matches!(&error, BrokerError::Refused { reason, .. }
        if reason.contains("no queue") && reason.contains("has to make it")),
        "{error}"
    );
    declare(&broker, model).await;
    for how in [Declare::Create, Declare::Verify, Declare::Leave] {
        broker.declare(&Topology::shared(), how).await.unwrap();
        broker.declare(&topology, how).await.unwrap();
    }
    let mut other = topology;
    other.queues[0].dead_letter = None;
    let error = broker.declare(&other, Declare::Create).await.unwrap_err();
    assert!(
        matches!(&error, BrokerError::Refused { reason, .. }
        if reason.contains("inequivalent arg") && reason.contains("delete it")),
        "{error}"
    );
}
