//! What the tests against a real RabbitMQ share.

#![allow(dead_code, reason = "not every test file uses all of it")]

use std::time::Duration;

use cipherscore_common::broker::amqp::{AmqpBroker, AmqpConfig, AmqpSubscription};
use cipherscore_common::broker::{
    Broker, BrokerError, Delivery, Disposition, QueuePrefetch, Settled, Subscription,
};
use cipherscore_common::message::{
    Job, JobTerms, Message, Outcome, Payload, ProtocolVersion, Reply, Timestamp, Timings,
    TraceParent,
};
use cipherscore_common::topology::{Declare, Lane, ReplyQueue, Topology, job_queue};
use cipherscore_common::{Digest, EvaluationKeyId, JobId, ModelId};

/// How long the broker may take to do what it will do for certain, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// How long to look whether something comes that must not.
pub(crate) const A_WHILE: Duration = Duration::from_millis(500);
/// Confirm timeout of the tests that wait for it.
pub(crate) const CONFIRM_TIMEOUT: Duration = Duration::from_secs(4);

pub(crate) fn broker(url: &str) -> AmqpBroker {
    AmqpBroker::new(AmqpConfig::parse(url).unwrap().with_name("test")).unwrap()
}

pub(crate) fn impatient_broker(url: &str) -> AmqpBroker {
    let config = AmqpConfig::parse(url).unwrap();
    let config = config.with_confirm_timeout(CONFIRM_TIMEOUT).with_connect_timeout(CONFIRM_TIMEOUT);
    AmqpBroker::new(config).unwrap()
}

/// A model that no other test has.
pub(crate) fn random_model() -> ModelId {
    ModelId::new(Digest::of(JobId::random().to_string().as_bytes()))
}

pub(crate) async fn declare(broker: &AmqpBroker, model: ModelId) {
    broker.declare(&Topology::shared(), Declare::Create).await.unwrap();
    broker.declare(&Topology::of_model(model), Declare::Create).await.unwrap();
}

pub(crate) fn job(model: ModelId) -> Job {
    Job {
        version: ProtocolVersion::V2,
        id: JobId::random(),
        tenant: "acme".parse().unwrap(),
        reply_to: reply_queue(),
        correlation_id: Some("row 7".into()),
        model_id: model,
        lane: Lane::Normal,
        key_id: Some(EvaluationKeyId::new(Digest::of(b"key"))),
        rows: 3,
        deadline: Some(Timestamp::from_millis(4_000_000_000_000)),
        terms: JobTerms::default(),
        attempt: 2,
        trace: Some(TraceParent::random()),
        payload: Payload::Inline(vec![7; 1000]),
    }
}

pub(crate) fn reply_queue() -> ReplyQueue {
    let client = JobId::random().to_string();
    ReplyQueue::new(&"acme".parse().unwrap(), &client).unwrap()
}

pub(crate) fn reply(job: JobId) -> Reply {
    Reply {
        version: ProtocolVersion::V2,
        job,
        correlation_id: None,
        model_id: None,
        owner_id: None,
        manifest_id: None,
        worker: "w1".into(),
        timings: Timings::default(),
        trace: None,
        outcome: Outcome::Scored(Payload::Inline(vec![1, 2, 3])),
    }
}

/// A small job message.
pub(crate) fn message(model: ModelId) -> Message {
    job(model).to_message()
}

pub(crate) fn normal(model: ModelId, prefetch: u16) -> QueuePrefetch {
    QueuePrefetch { queue: job_queue(model, Lane::Normal), prefetch }
}

pub(crate) fn high(model: ModelId, prefetch: u16) -> QueuePrefetch {
    QueuePrefetch { queue: job_queue(model, Lane::High), prefetch }
}

pub(crate) async fn next(subscription: &mut AmqpSubscription) -> Delivery {
    let next = tokio::time::timeout(PATIENCE, subscription.next()).await;
    next.expect("nothing comes").unwrap()
}

/// The error by which a subscription ends.
pub(crate) async fn end(subscription: &mut AmqpSubscription) -> BrokerError {
    let end = async {
        loop {
            if let Err(error) = subscription.next().await {
                return error;
            }
        }
    };
    tokio::time::timeout(PATIENCE, end).await.expect("it goes on")
}

pub(crate) async fn nothing_comes(subscription: &mut AmqpSubscription) {
    let next = tokio::time::timeout(A_WHILE, subscription.next()).await;
    assert!(next.is_err(), "{next:?}");
}

pub(crate) async fn ack(delivery: Delivery) -> Settled {
    delivery.settlement.settle(Disposition::Ack).await.unwrap()
}

/// Takes and acknowledges one message of a queue.
pub(crate) async fn take(broker: &AmqpBroker, queue: QueuePrefetch) -> Message {
    let mut subscription = broker.subscribe(&[queue]).await.unwrap();
    let delivery = next(&mut subscription).await;
    let message = delivery.message.clone();
    assert_eq!(ack(delivery).await, Settled::Told);
    message
}

/// Tries until it succeeds, as everybody does who got a temporary error.
pub(crate) async fn persist<T>(attempt: impl AsyncFn() -> Result<T, BrokerError>) -> T {
    let began = tokio::time::Instant::now();
    loop {
        let error = match attempt().await {
            Ok(done) => return done,
            Err(error) => error,
        };
        assert!(error.is_temporary() && began.elapsed() < PATIENCE, "{error}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
