//! A reply queue that confirms nothing, as a quorum queue without a leader does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cipherscore_common::MemoryStore;
use cipherscore_common::broker::{
    Broker, BrokerError, MemoryBroker, MemorySubscription, QueuePrefetch, QueueState,
};
use cipherscore_common::message::Message;
use cipherscore_common::topology::{Declare, Lane, RETRY, RetryStep, Topology, job_queue};

use crate::support::{Example, PATIENCE, Tester, start_worker, subscribe};

/// Confirms nothing that goes to one queue, while it is told so.
#[derive(Clone)]
struct Leaderless {
    broker: MemoryBroker,
    queue: String,
    is_mute: Arc<AtomicBool>,
}

impl Broker for Leaderless {
    type Subscription = MemorySubscription;

    async fn declare(&self, topology: &Topology, declare: Declare) -> Result<(), BrokerError> {
        self.broker.declare(topology, declare).await
    }

    async fn publish(&self, message: &Message) -> Result<(), BrokerError> {
        if message.routing_key == self.queue && self.is_mute.load(Ordering::SeqCst) {
            return Err(BrokerError::Unconfirmed { reason: "no confirm within its time".into() });
        }
        self.broker.publish(message).await
    }

    async fn subscribe(&self, queues: &[QueuePrefetch]) -> Result<Self::Subscription, BrokerError> {
        self.broker.subscribe(queues).await
    }

    async fn queue_state(&self, queue: &str) -> Result<Option<QueueState>, BrokerError> {
        self.broker.queue_state(queue).await
    }
}

/// A job that came back twice runs alone until it is settled. When its reply cannot be confirmed, the jobs
/// of others go on, and it is kept to be tried again.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_others_go_on() {
    let (model, store) = (Example::linear(), MemoryStore::default());
    let (broker, is_mute) = (MemoryBroker::default(), Arc::new(AtomicBool::new(true)));
    let queue = "cs.reply.mute.tester".to_owned();
    let broker = Leaderless { broker, queue, is_mute: Arc::clone(&is_mute) };
    let mut mute = Tester::new(broker.clone(), store.clone(), "mute").await;
    let mut good = Tester::new(broker.clone(), store.clone(), "good").await;
    broker.declare(&Topology::of_model(model.id), Declare::Create).await.unwrap();
    let unheard = mute.job(&model, &[0]);
    mute.publish(&unheard).await;
    for _ in 0..2 {
        let mut dies = subscribe(&broker, &job_queue(model.id, Lane::Normal)).await;
        let next = cipherscore_common::broker::Subscription::next(&mut dies);
        tokio::time::timeout(PATIENCE, next).await.unwrap().unwrap();
    }
    let mut worker = start_worker(&broker, store, |_| ()).await;
    good.wait_for_worker(model.id).await;
    good.expect_scores(&model, &[1]).await;

    let put_off = format!("{RETRY}.{}", RetryStep::after(0).name());
    let waits = async {
        while broker.queue_state(&put_off).await.unwrap().is_none_or(|it| it.messages == 0) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waits).await.expect("the job is not put off");
    assert_eq!(good.count_dead().await, 0);

    // The queue has a leader again, and the job comes from where it waits.
    is_mute.store(false, Ordering::SeqCst);
    let mut waiting = subscribe(&broker, &put_off).await;
    let next = cipherscore_common::broker::Subscription::next(&mut waiting);
    let again = tokio::time::timeout(PATIENCE, next).await.unwrap().unwrap();
    let mut message = again.message.clone();
    assert_eq!(message.attempt(), 1);
    message.exchange = unheard.to_message().exchange;
    broker.publish(&message).await.unwrap();
    assert_eq!(mute.reply().await.job, unheard.id);
    worker.drain();
    worker.ended().await;
}
