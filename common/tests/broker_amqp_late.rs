//! The broker over AMQP when RabbitMQ answers too late: whoever gives up waiting ends the
//! connection, so that nothing which the broker does afterwards is left to nobody.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod amqp;

use std::sync::Arc;
use std::time::Duration;

use amqp::{PATIENCE, ack, broker, declare, high, message, next, normal, persist, random_model};
use cipherscore_common::ModelId;
use cipherscore_common::broker::amqp::{AmqpBroker, AmqpConfig, AmqpSubscription};
use cipherscore_common::broker::{Broker, BrokerError, Settled, Subscription};
use cipherscore_common::topology::{Declare, Topology};
use cipherscore_testbed::{AmqpMethod, RabbitMq, Relay};
use futures_util::future::join_all;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// How long who is held waits for an answer.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(3);
/// For how long answers are held back: so that everybody who waits gives up before.
const HELD: Duration = Duration::from_secs(5);
/// Messages of a round: more than a consumer that nobody reads takes away.
const MESSAGES: u16 = 12;
/// Unsettled messages of a subscription.
const PREFETCH: u16 = 4;

/// Queues of a model, and somebody who reaches them through a relay only.
struct Scene {
    node: Arc<RabbitMq>,
    relay: Relay,
    direct: AmqpBroker,
    held: AmqpBroker,
    model: ModelId,
}

impl Scene {
    async fn new(node: &Arc<RabbitMq>) -> Self {
        let relay = Relay::start(node.address()).unwrap();
        let (direct, model) = (broker(&node.url()), random_model());
        declare(&direct, model).await;
        let config = AmqpConfig::parse(&node.url_at(relay.address())).unwrap();
        let held = AmqpBroker::new(config.with_confirm_timeout(CONFIRM_TIMEOUT)).unwrap();
        Self { node: node.clone(), relay, direct, held, model }
    }

    async fn publish(&self) {
        for _ in 0..MESSAGES {
            self.direct.publish(&message(self.model)).await.unwrap();
        }
    }

    async fn subscribe(&self) -> Result<AmqpSubscription, BrokerError> {
        // The first is the one whose answer is held back, and the one that has messages.
        self.held.subscribe(&[normal(self.model, PREFETCH), high(self.model, PREFETCH)]).await
    }

    /// All messages of a round come to this subscription, none stays with anybody else, and nobody
    /// else consumes, also when the broker has long answered.
    async fn everything_comes(&self, subscription: &mut AmqpSubscription, asked: Instant) {
        for _ in 0..MESSAGES {
            assert_eq!(ack(next(subscription).await).await, Settled::Told);
        }
        sleep_until(asked + HELD + Duration::from_secs(1)).await;
        let began = Instant::now();
        for queue in [normal(self.model, PREFETCH).queue, high(self.model, PREFETCH).queue] {
            loop {
                let state = self.direct.queue_state(&queue).await.unwrap().unwrap();
                if (state.messages, state.consumers) == (0, 1) {
                    break;
                }
                assert!(began.elapsed() < PATIENCE, "{queue}, {state:?}: somebody is left over");
                sleep(Duration::from_millis(100)).await;
            }
        }
        let arguments = ["list_queues", "--no-table-headers", "name", "messages_unacknowledged"];
        let queues = self.node.ctl(&arguments).unwrap();
        let own = queues.lines().filter(|line| line.contains(&self.model.to_string()));
        let own: Vec<_> = own.collect();
        assert_eq!(own.len(), 2);
        assert!(own.iter().all(|line| line.ends_with("\t0")), "{own:?}");
    }

    /// Waits in vain for the answer to this, and then gets everything all the same.
    async fn given_up(&self, method: AmqpMethod) {
        println!("{method:?}");
        self.publish().await;
        self.relay.hold_answer(method, HELD);
        let asked = Instant::now();
        let attempt = async || {
            for topology in [Topology::shared(), Topology::of_model(self.model)] {
                self.held.declare(&topology, Declare::Create).await?;
            }
            self.subscribe().await
        };
        let error = attempt().await.map(drop).unwrap_err();
        assert!(self.relay.has_held() && error.is_temporary(), "{error}");
        assert!(error.to_string().contains("no answer within"), "{error}");
        let mut subscription = persist(attempt).await;
        self.everything_comes(&mut subscription, asked).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_answer_leaves_nobody_who_takes_messages() {
    let node = Arc::new(RabbitMq::start().unwrap());
    let given_up = [
        AmqpMethod::BasicConsume,
        AmqpMethod::BasicQos,
        AmqpMethod::ChannelOpen,
        AmqpMethod::ExchangeDeclare,
        AmqpMethod::QueueDeclare,
        AmqpMethod::QueueBind,
    ];
    let given_up = given_up.map(async |method| Scene::new(&node).await.given_up(method).await);
    let published = [AmqpMethod::ConfirmSelect, AmqpMethod::BasicPublish]
        .map(async |method| published_late(&Scene::new(&node).await, method).await);
    tokio::join!(
        join_all(given_up),
        join_all(published),
        async { dropped_midway(&Scene::new(&node).await).await },
        async { cancelled_late(&Scene::new(&node).await).await },
        async { asked_late(&Scene::new(&node).await).await },
    );
}

/// Whoever drops the future gives up as well.
async fn dropped_midway(scene: &Scene) {
    scene.publish().await;
    scene.relay.hold_answer(AmqpMethod::BasicConsume, HELD);
    let asked = Instant::now();
    let given_up = timeout(Duration::from_secs(1), scene.subscribe()).await;
    assert!(given_up.is_err() && scene.relay.has_held());
    let mut subscription = persist(async || scene.subscribe().await).await;
    scene.everything_comes(&mut subscription, asked).await;
}

/// A subscription that is being cancelled is read until it ends: with it ends the connection, so
/// that its other queue is not taken from by nobody.
async fn cancelled_late(scene: &Scene) {
    let mut subscription = persist(async || scene.subscribe().await).await;
    scene.relay.hold_answer(AmqpMethod::BasicCancel, HELD);
    let asked = Instant::now();
    let error = subscription.stop(&high(scene.model, 1).queue).await.unwrap_err();
    assert!(error.is_temporary(), "{error}");
    drop(subscription);
    scene.publish().await;
    let mut subscription = persist(async || scene.subscribe().await).await;
    scene.everything_comes(&mut subscription, asked).await;
}

/// A confirm, or what comes before it: the message is published again, on another connection, and
/// both copies are there or one.
async fn published_late(scene: &Scene, method: AmqpMethod) {
    if method == AmqpMethod::BasicPublish {
        // A channel that confirms is there already.
        scene.held.publish(&message(scene.model)).await.unwrap();
    }
    let late = message(scene.model);
    scene.relay.hold_answer(method, HELD);
    let error = scene.held.publish(&late).await.unwrap_err();
    assert!(scene.relay.has_held() && error.is_temporary(), "{method:?}: {error}");
    persist(async || scene.held.publish(&late).await).await;
    let mut subscription = scene.direct.subscribe(&[normal(scene.model, PREFETCH)]).await.unwrap();
    loop {
        let delivery = next(&mut subscription).await;
        let is_late = delivery.message.message_id == late.message_id;
        assert_eq!(ack(delivery).await, Settled::Told);
        if is_late {
            break;
        }
    }
}

/// Who asks how full a queue is, and gives up, ends no deliveries.
async fn asked_late(scene: &Scene) {
    let mut subscription = persist(async || scene.subscribe().await).await;
    scene.relay.hold_answer(AmqpMethod::QueueDeclare, HELD);
    let error = scene.held.queue_state(&normal(scene.model, 1).queue).await.unwrap_err();
    assert!(scene.relay.has_held() && error.is_temporary(), "{error}");
    scene.direct.publish(&message(scene.model)).await.unwrap();
    assert_eq!(ack(next(&mut subscription).await).await, Settled::Told);
}
