//! What every broker does. Each function wants a broker of its own, without any exchange or queue
//! of ours: in RabbitMQ, a virtual host.

use std::time::Duration;

use crate::broker::{
    Broker, BrokerError, Delivery, Disposition, QueuePrefetch, Settled, Subscription,
};
use crate::message::Message;
use crate::topology::{
    DEAD, Declare, JOBS, Lane, REPLIES, RETRY, RETRY_STEP_HEADER, ReplyQueue, RetryStep, Topology,
    UNROUTED, job_queue,
};
use crate::{Digest, ModelId};
use tokio::time::{Instant, sleep, timeout};

/// More than a broker takes for anything, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(20);
/// After which time nothing more is expected to come.
const SILENCE: Duration = Duration::from_millis(300);

/// One test for each function of this module. `$new` is an async function that gives a broker and
/// whatever must live as long; `$test` is the attribute of a test, such as `tokio::test`.
#[macro_export]
macro_rules! broker_contract {
    ($new:path, $test:meta) => {
        $crate::broker_contract!(
            $new, $test,
            a_message_arrives_as_it_was,
            what_no_queue_takes_is_unroutable,
            nothing_is_published_before_it_is_declared,
            a_declaration_can_be_repeated_but_not_changed,
            verifying_makes_nothing,
            prefetch_is_kept_by_queue,
            subscriptions_share_a_queue,
            what_is_not_settled_comes_again,
            what_is_requeued_comes_again,
            dead_letters_keep_their_routing_key,
            a_retried_job_comes_after_its_time,
            a_reply_to_nobody_is_kept,
            a_queue_tells_its_state,
            a_stopped_queue_gives_nothing_more,
            a_queue_can_be_taken_on_later,
        );
    };
    ($new:path, $test:meta, $($name:ident),* $(,)?) => {
        $(#[$test]
        async fn $name() {
            let (broker, _alive) = $new().await;
            $crate::contract::broker::$name(&broker).await;
        })*
    };
}

fn model() -> ModelId {
    ModelId::new(Digest::of(b"a model"))
}

fn queue() -> String {
    job_queue(model(), Lane::Normal)
}

fn reply_queue() -> ReplyQueue {
    ReplyQueue::new(&"bank-7".parse().unwrap(), "client-1").unwrap()
}

/// A job of ours, as far as a broker looks at it.
fn message(id: &str) -> Message {
    Message {
        exchange: JOBS.into(),
        routing_key: queue(),
        message_id: Some(id.into()),
        body: id.as_bytes().into(),
        ..Message::default()
    }
}

async fn declare<B: Broker>(broker: &B) {
    for topology in [Topology::shared(), Topology::of_model(model())] {
        broker.declare(&topology, Declare::Create).await.unwrap();
    }
}

async fn publish<B: Broker>(broker: &B, ids: &[&str]) {
    for id in ids {
        broker.publish(&message(id)).await.unwrap();
    }
}

async fn subscribe<B: Broker>(broker: &B, queue: &str, prefetch: u16) -> B::Subscription {
    broker.subscribe(&[QueuePrefetch { queue: queue.into(), prefetch }]).await.unwrap()
}

async fn next<S: Subscription>(subscription: &mut S) -> Delivery {
    timeout(PATIENCE, subscription.next()).await.expect("a delivery").unwrap()
}

async fn silent<S: Subscription>(subscription: &mut S) -> bool {
    timeout(SILENCE, subscription.next()).await.is_err()
}

async fn settle(delivery: Delivery, disposition: Disposition) {
    assert_eq!(delivery.settle(disposition).await.unwrap(), Settled::Told);
}

fn id(delivery: &Delivery) -> &str {
    delivery.message.message_id.as_deref().unwrap()
}

/// The number of messages of a queue is known to a broker only after a while.
async fn holds<B: Broker>(broker: &B, queue: &str, messages: u32) {
    let began = Instant::now();
    loop {
        let state = broker.queue_state(queue).await.unwrap().unwrap();
        if state.messages == messages {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{state:?} instead of {messages}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Every property, header and byte of a message is there when it is delivered.
pub async fn a_message_arrives_as_it_was<B: Broker>(broker: &B) {
    declare(broker).await;
    let mut sent = Message {
        kind: Some("cipherscore.job".into()),
        correlation_id: Some("correlation".into()),
        reply_to: Some(reply_queue().to_string()),
        body: (0..=255).cycle().take(300_000).collect(),
        ..message("m")
    };
    sent.set("text", "über");
    sent.set("small", 7_u32);
    sent.set("large", i64::MAX.unsigned_abs());
    broker.publish(&sent).await.unwrap();
    let mut subscription = subscribe(broker, &queue(), 1).await;
    let delivery = next(&mut subscription).await;
    // A broker may add who published it.
    assert_eq!(delivery.message, Message { user_id: delivery.message.user_id.clone(), ..sent });
    assert_eq!((delivery.queue.as_str(), delivery.returned), (queue().as_str(), 0));
    settle(delivery, Disposition::Ack).await;
    assert!(silent(&mut subscription).await);
    drop(subscription);
    holds(broker, &queue(), 0).await;
}

/// What no queue is bound for is refused, and who was refused goes on.
pub async fn what_no_queue_takes_is_unroutable<B: Broker>(broker: &B) {
    declare(broker).await;
    let other = job_queue(ModelId::new(Digest::of(b"another")), Lane::High);
    let result = broker.publish(&Message { routing_key: other.clone(), ..message("m") }).await;
    let expected = BrokerError::Unroutable { exchange: JOBS.into(), routing_key: other };
    assert_eq!(result, Err(expected));
    let retry = Message { exchange: RETRY.into(), ..message("without a step") };
    assert!(matches!(broker.publish(&retry).await, Err(BrokerError::Unroutable { .. })));
    // Who was refused goes on publishing.
    publish(broker, &["m"]).await;
}

/// Without exchanges and queues nothing is published, taken or bound.
pub async fn nothing_is_published_before_it_is_declared<B: Broker>(broker: &B) {
    let refused = broker.publish(&message("m")).await;
    assert!(matches!(refused, Err(BrokerError::Refused { .. })), "{refused:?}");
    let wanted = QueuePrefetch { queue: queue(), prefetch: 1 };
    let refused = broker.subscribe(&[wanted]).await.map(drop);
    assert!(matches!(refused, Err(BrokerError::Refused { .. })), "{refused:?}");
    let refused = broker.declare(&Topology::of_model(model()), Declare::Create).await;
    assert!(matches!(refused, Err(BrokerError::Refused { .. })), "{refused:?}");
    declare(broker).await;
    publish(broker, &["m"]).await;
}

/// A declaration that is there is no error; another one under its name is.
pub async fn a_declaration_can_be_repeated_but_not_changed<B: Broker>(broker: &B) {
    declare(broker).await;
    publish(broker, &["m"]).await;
    declare(broker).await;
    holds(broker, &queue(), 1).await;
    let mut other = Topology::of_model(model());
    other.queues.iter_mut().for_each(|queue| queue.message_ttl = Some(PATIENCE));
    let refused = broker.declare(&other, Declare::Create).await;
    assert!(matches!(refused, Err(BrokerError::Refused { .. })), "{refused:?}");
    broker.declare(&other, Declare::Leave).await.unwrap();
    holds(broker, &queue(), 1).await;
}

/// Who only verifies a topology, or leaves it, makes none.
pub async fn verifying_makes_nothing<B: Broker>(broker: &B) {
    let topologies = [Topology::shared(), Topology::of_model(model())];
    for topology in &topologies {
        broker.declare(topology, Declare::Leave).await.unwrap();
        let refused = broker.declare(topology, Declare::Verify).await;
        assert!(matches!(refused, Err(BrokerError::Refused { .. })), "{refused:?}");
    }
    assert_eq!(broker.queue_state(&queue()).await.unwrap(), None);
    declare(broker).await;
    for topology in &topologies {
        broker.declare(topology, Declare::Verify).await.unwrap();
    }
}

/// No queue has more deliveries under way than was asked for it.
pub async fn prefetch_is_kept_by_queue<B: Broker>(broker: &B) {
    declare(broker).await;
    publish(broker, &["1", "2", "3"]).await;
    let high = job_queue(model(), Lane::High);
    let urgent = Message { routing_key: high.clone(), ..message("urgent") };
    let mut subscription = broker
        .subscribe(&[
            QueuePrefetch { queue: high.clone(), prefetch: 1 },
            QueuePrefetch { queue: queue(), prefetch: 2 },
        ])
        .await
        .unwrap();
    let first = next(&mut subscription).await;
    let second = next(&mut subscription).await;
    assert_eq!((id(&first), id(&second)), ("1", "2"));
    assert!(silent(&mut subscription).await);
    broker.publish(&urgent).await.unwrap();
    let delivery = next(&mut subscription).await;
    assert_eq!((id(&delivery), &delivery.queue), ("urgent", &high));
    settle(second, Disposition::Ack).await;
    let third = next(&mut subscription).await;
    assert_eq!(id(&third), "3");
    for delivery in [first, third, delivery] {
        settle(delivery, Disposition::Ack).await;
    }
}

/// Two subscriptions of a queue each get what the other one does not.
pub async fn subscriptions_share_a_queue<B: Broker>(broker: &B) {
    declare(broker).await;
    let mut one = subscribe(broker, &queue(), 1).await;
    let mut two = subscribe(broker, &queue(), 1).await;
    publish(broker, &["1", "2"]).await;
    let (first, second) = tokio::join!(next(&mut one), next(&mut two));
    let mut ids = [id(&first), id(&second)];
    ids.sort_unstable();
    assert_eq!(ids, ["1", "2"]);
    settle(first, Disposition::Ack).await;
    settle(second, Disposition::Ack).await;
}

/// What a subscription took with it when it ended is delivered again, and counted.
pub async fn what_is_not_settled_comes_again<B: Broker>(broker: &B) {
    declare(broker).await;
    publish(broker, &["1", "2"]).await;
    for returned in 0..3 {
        let mut subscription = subscribe(broker, &queue(), 2).await;
        let (first, second) = (next(&mut subscription).await, next(&mut subscription).await);
        for (delivery, expected) in [(&first, "1"), (&second, "2")] {
            assert_eq!((id(delivery), delivery.returned), (expected, returned));
        }
        drop((subscription, second));
        assert_eq!(first.settle(Disposition::Ack).await, Ok(Settled::ComesAgain));
    }
}

/// What is given back is delivered again, and counted.
pub async fn what_is_requeued_comes_again<B: Broker>(broker: &B) {
    declare(broker).await;
    publish(broker, &["m"]).await;
    let mut subscription = subscribe(broker, &queue(), 1).await;
    for returned in 0..3 {
        let delivery = next(&mut subscription).await;
        assert_eq!((id(&delivery), delivery.returned), ("m", returned));
        settle(delivery, Disposition::Requeue).await;
    }
}

/// Dead letters come to their queue as who they were.
pub async fn dead_letters_keep_their_routing_key<B: Broker>(broker: &B) {
    declare(broker).await;
    publish(broker, &["m"]).await;
    let mut subscription = subscribe(broker, &queue(), 1).await;
    settle(next(&mut subscription).await, Disposition::DeadLetter).await;
    // Published by a worker, with what it has to say about it.
    let mut said = Message { exchange: DEAD.into(), ..message("said") };
    said.set("cs-dead-code", "internal");
    broker.publish(&said).await.unwrap();
    let mut dead = subscribe(broker, DEAD, 2).await;
    for _ in 0..2 {
        let delivery = next(&mut dead).await;
        let Message { exchange, routing_key, .. } = &delivery.message;
        assert_eq!((exchange.as_str(), routing_key), (DEAD, &queue()));
        assert_eq!(
            (delivery.message.body.as_slice(), delivery.returned),
            (id(&delivery).as_bytes(), 0)
        );
        assert_eq!(delivery.message.text("cs-dead-code").is_some(), id(&delivery) == "said");
        settle(delivery, Disposition::Ack).await;
    }
    assert!(silent(&mut subscription).await);
}

/// What is put off comes to its own queue, not before its time.
pub async fn a_retried_job_comes_after_its_time<B: Broker>(broker: &B) {
    declare(broker).await;
    let step = RetryStep::after(0);
    let mut retry = Message { exchange: RETRY.into(), ..message("m") };
    retry.set(RETRY_STEP_HEADER, step.name());
    let mut subscription = subscribe(broker, &queue(), 1).await;
    let began = Instant::now();
    broker.publish(&retry).await.unwrap();
    let delivery = next(&mut subscription).await;
    // A broker's clock need not be ours to the millisecond.
    assert!(began.elapsed() + Duration::from_millis(50) >= step.delay(), "{:?}", began.elapsed());
    assert_eq!((id(&delivery), delivery.returned), ("m", 0));
    assert_eq!((&delivery.message.exchange[..], &delivery.message.routing_key), (JOBS, &queue()));
    assert_eq!(delivery.message.text(RETRY_STEP_HEADER), Some(step.name()));
    settle(delivery, Disposition::Ack).await;
}

/// A reply whose queue is gone is kept.
pub async fn a_reply_to_nobody_is_kept<B: Broker>(broker: &B) {
    declare(broker).await;
    let client = reply_queue().to_string();
    let reply =
        |id| Message { exchange: REPLIES.into(), routing_key: client.clone(), ..message(id) };
    broker.publish(&reply("nobody")).await.unwrap();
    let mut unrouted = subscribe(broker, UNROUTED, 1).await;
    let delivery = next(&mut unrouted).await;
    assert_eq!((id(&delivery), &delivery.message.routing_key), ("nobody", &client));
    settle(delivery, Disposition::Ack).await;

    broker.declare(&Topology::of_client(&reply_queue()), Declare::Create).await.unwrap();
    broker.publish(&reply("somebody")).await.unwrap();
    let mut subscription = subscribe(broker, &client, 1).await;
    let delivery = next(&mut subscription).await;
    assert_eq!(id(&delivery), "somebody");
    settle(delivery, Disposition::Ack).await;
    assert!(silent(&mut unrouted).await);
}

/// A queue says how many messages wait and how many consume.
pub async fn a_queue_tells_its_state<B: Broker>(broker: &B) {
    assert_eq!(broker.queue_state(&queue()).await.unwrap(), None);
    declare(broker).await;
    publish(broker, &["1", "2", "3"]).await;
    holds(broker, &queue(), 3).await;
    let mut subscription = subscribe(broker, &queue(), 1).await;
    let delivery = next(&mut subscription).await;
    // What is being worked on is not counted.
    holds(broker, &queue(), 2).await;
    let state = broker.queue_state(&queue()).await.unwrap().unwrap();
    assert_eq!(state.consumers, 1);
    drop((subscription, delivery));
    holds(broker, &queue(), 3).await;
}

/// A queue that is let go gives nothing more to this subscription.
pub async fn a_stopped_queue_gives_nothing_more<B: Broker>(broker: &B) {
    declare(broker).await;
    publish(broker, &["1", "2"]).await;
    let mut subscription = subscribe(broker, &queue(), 1).await;
    let delivery = next(&mut subscription).await;
    subscription.stop(&queue()).await.unwrap();
    settle(delivery, Disposition::Ack).await;
    let more = timeout(SILENCE, subscription.next()).await;
    assert!(!matches!(more, Ok(Ok(_))), "{more:?}");
    holds(broker, &queue(), 1).await;
}

/// A subscription takes on a queue while it is there.
pub async fn a_queue_can_be_taken_on_later<B: Broker>(broker: &B) {
    declare(broker).await;
    let high = QueuePrefetch { queue: job_queue(model(), Lane::High), prefetch: 1 };
    let mut subscription = subscribe(broker, &queue(), 1).await;
    for id in ["1", "2"] {
        broker.publish(&Message { routing_key: high.queue.clone(), ..message(id) }).await.unwrap();
    }
    assert!(silent(&mut subscription).await);
    subscription.start(&high).await.unwrap();
    let delivery = next(&mut subscription).await;
    assert_eq!((id(&delivery), &delivery.queue), ("1", &high.queue));
    subscription.stop(&high.queue).await.unwrap();
    settle(delivery, Disposition::Ack).await;
    publish(broker, &["m"]).await;
    assert_eq!(id(&next(&mut subscription).await), "m");
}
