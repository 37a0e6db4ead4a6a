//! The client against a broker and a store in this process, well and unwell.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cipherscore_common::broker::{
    Broker, BrokerError, MemoryBroker, MemorySubscription, QueuePrefetch, QueueState,
};
use cipherscore_common::message::{
    ErrorCode, Message, Outcome, Payload, ProtocolVersion, Reply, Timings,
};
use cipherscore_common::topology::{Declare, Lane, ReplyQueue, Topology, job_queue};
use cipherscore_common::{
    Blob, BlobKind, BlobStore, JobId, Lease, MarkStore, MemoryStore, ModelId, OwnerId, Tenant,
};
use cipherscore_producer::client::{
    Answer, Client, ClientError, ClientOptions, InFlight, JobRequest,
};
use cipherscore_producer::events::{Event, Events};

/// Confirms nothing for so many times, though it has the message.
#[derive(Clone, Default)]
struct Unsure {
    broker: MemoryBroker,
    times: Arc<AtomicU32>,
}

impl Broker for Unsure {
    type Subscription = MemorySubscription;

    async fn declare(&self, topology: &Topology, declare: Declare) -> Result<(), BrokerError> {
        self.broker.declare(topology, declare).await
    }

    async fn publish(&self, message: &Message) -> Result<(), BrokerError> {
        self.broker.publish(message).await?;
        let left =
            self.times.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        match left {
            Ok(_) => Err(BrokerError::Unconfirmed { reason: "on request".into() }),
            Err(_) => Ok(()),
        }
    }

    async fn subscribe(&self, queues: &[QueuePrefetch]) -> Result<Self::Subscription, BrokerError> {
        self.broker.subscribe(queues).await
    }

    async fn queue_state(&self, queue: &str) -> Result<Option<QueueState>, BrokerError> {
        self.broker.queue_state(queue).await
    }
}

struct Fixture {
    broker: Unsure,
    store: MemoryStore,
    client: Client<Unsure, MemoryStore>,
    queue: ReplyQueue,
    told: Arc<Mutex<Vec<Event>>>,
}

fn model() -> ModelId {
    "a".repeat(64).parse().unwrap()
}

fn scored(job: JobId, model_id: ModelId, outputs: Payload) -> Reply {
    Reply {
        version: ProtocolVersion::V2,
        job,
        correlation_id: None,
        model_id: Some(model_id),
        owner_id: None,
        manifest_id: None,
        worker: "w".into(),
        timings: Timings::default(),
        trace: None,
        outcome: Outcome::Scored(outputs),
    }
}

impl Fixture {
    async fn new() -> Self {
        let (broker, store) = (Unsure::default(), MemoryStore::default());
        for topology in [Topology::shared(), Topology::of_model(model())] {
            broker.declare(&topology, Declare::Create).await.unwrap();
        }
        let tenant: Tenant = "ann".parse().unwrap();
        let queue = ReplyQueue::new(&tenant, "test").unwrap();
        let told = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&told);
        let events = Events::new(move |event| sink.lock().unwrap().push(event));
        let (shared, options) = (Arc::new(broker.clone()), ClientOptions::default());
        let client = Client::open(shared, Arc::new(store.clone()), queue.clone(), options, events);
        Self { client: client.await.unwrap(), broker, store, queue, told }
    }

    async fn submit(&self, payload: Vec<u8>) -> InFlight {
        let request = JobRequest {
            form: None,
            planned: None,
            id: JobId::random(),
            model_id: model(),
            key_id: None,
            owner_id: None,
            rows: 1,
            deadline: None,
            correlation_id: None,
            payload,
        };
        self.client.submit(request).await.unwrap()
    }

    async fn reply(&self, job: JobId, model_id: ModelId) {
        self.reply_with(job, model_id, Payload::Inline(b"outputs".to_vec())).await;
    }

    async fn reply_with(&self, job: JobId, model_id: ModelId, outputs: Payload) {
        self.publish(&scored(job, model_id, outputs)).await;
    }

    async fn reply_in(
        &self,
        version: ProtocolVersion,
        job: JobId,
        owner_id: Option<OwnerId>,
        outputs: &[u8],
    ) {
        let outputs = Payload::Inline(outputs.to_vec());
        self.publish(&Reply { version, owner_id, ..scored(job, model(), outputs) }).await;
    }

    async fn publish(&self, reply: &Reply) {
        self.broker.broker.publish(&reply.to_message(&self.queue)).await.unwrap();
    }

    /// The next answer is these bytes, and no other.
    async fn expect_outputs(&self) {
        let received = self.client.replies().next().await.unwrap();
        assert_eq!(received.answer, Answer::Scored(b"outputs".to_vec()));
        received.ack().await;
    }

    async fn waiting_replies(&self) -> u32 {
        self.broker.queue_state(&self.queue.to_string()).await.unwrap().unwrap().messages
    }

    fn told(&self, is: impl Fn(&Event) -> bool) -> bool {
        self.told.lock().unwrap().iter().any(is)
    }
}

#[tokio::test]
async fn an_unconfirmed_job_is_published_again_under_its_id() {
    let fixture = Fixture::new().await;
    fixture.broker.times.store(2, Ordering::SeqCst);
    let job = fixture.submit(b"rows".to_vec()).await;
    let queue = job_queue(model(), Lane::Normal);
    assert_eq!(fixture.broker.queue_state(&queue).await.unwrap().unwrap().messages, 3);
    assert!(fixture.told(|event| matches!(event, Event::Waiting { .. })));
    assert!(fixture.told(|event| *event == Event::GoesOn));
    // Each copy is answered; one answer comes out.
    for _ in 0..3 {
        fixture.reply(job.job, model()).await;
    }
    let mut replies = fixture.client.replies();
    let received = replies.next().await.unwrap();
    assert_eq!(received.answer, Answer::Scored(b"outputs".to_vec()));
    received.ack().await;
    let more = tokio::time::timeout(Duration::from_millis(100), replies.next()).await;
    assert!(more.is_err());
    drop(replies);
    assert_eq!(fixture.waiting_replies().await, 0);
}

#[tokio::test]
async fn what_is_not_acked_comes_again() {
    let fixture = Fixture::new().await;
    let job = fixture.submit(b"rows".to_vec()).await;
    fixture.reply(job.job, model()).await;
    let mut replies = fixture.client.replies();
    drop(replies.next().await.unwrap());
    drop(replies);
    assert_eq!(fixture.waiting_replies().await, 1);
    let again = fixture.client.replies().next().await.unwrap();
    assert_eq!(again.job, job.job);
    again.ack().await;
}

#[tokio::test]
async fn large_rows_go_by_the_store_and_leave_it() {
    let fixture = Fixture::new().await;
    let job = fixture.submit(vec![7; 3 << 20]).await;
    let stored = async || fixture.store.list(fixture.queue.tenant(), BlobKind::Job).await.unwrap();
    assert_eq!(stored().await[0].bytes, 3 << 20);
    assert_eq!(Some(stored().await[0].name.id), job.payload);
    fixture.reply(job.job, model()).await;
    fixture.client.replies().next().await.unwrap().ack().await;
    assert!(stored().await.is_empty());
}

#[tokio::test]
async fn what_nobody_waits_for_leaves_the_store() {
    let fixture = Fixture::new().await;
    let tenant = fixture.queue.tenant();
    let stored = async |kind| fixture.store.list(tenant, kind).await.unwrap().len();
    let given_up = fixture.submit(vec![7; 3 << 20]).await.job;
    let wanted = fixture.submit(b"rows".to_vec()).await.job;
    assert_eq!(stored(BlobKind::Job).await, 1);
    fixture.client.abandon(given_up).await;
    assert_eq!(stored(BlobKind::Job).await, 0);
    // Its reply comes all the same.
    let (blob, outputs) = Blob::payload(tenant, BlobKind::Reply, vec![8; 2 << 20]).unwrap();
    fixture.store.put(&blob, Some(Lease::DEFAULT), &|| ()).await.unwrap();
    fixture.reply_with(given_up, model(), Payload::Stored(outputs)).await;
    fixture.reply(wanted, model()).await;
    let received = fixture.client.replies().next().await.unwrap();
    assert_eq!((received.job, stored(BlobKind::Reply).await), (wanted, 0));
    received.ack().await;
}

/// Of rows of another owner, of nobody's, or in version 1, which does not say whose.
#[tokio::test]
async fn outputs_of_another_owner_are_not_handed_out() {
    let fixture = Fixture::new().await;
    let [ours, others] = [1, 2].map(|byte| OwnerId::from_bytes([byte; 16]));
    let (v1, v2) = (ProtocolVersion::V1, ProtocolVersion::V2);
    let request = JobRequest {
        form: None,
        planned: None,
        id: JobId::random(),
        model_id: model(),
        key_id: None,
        owner_id: ours,
        rows: 1,
        deadline: None,
        correlation_id: None,
        payload: b"rows".to_vec(),
    };
    let job = fixture.client.submit(request).await.unwrap();
    assert_eq!(job.version, Some(v2));
    for (version, owner) in [(v2, others), (v2, None), (v1, None)] {
        fixture.reply_in(version, job.job, owner, b"foreign").await;
    }
    fixture.reply_in(v2, job.job, ours, b"outputs").await;
    fixture.expect_outputs().await;
    let of = |what: &str| {
        let said = |event: &&Event| matches!(event, Event::ReplyMalformed { reason } if reason.ends_with(what));
        fixture.told.lock().unwrap().iter().filter(said).count()
    };
    assert_eq!((of("another owner"), of("another version of the protocol")), (2, 1));
}

/// A client that writes version 1, because a worker speaks nothing else, or an earlier process that did.
#[tokio::test]
async fn outputs_of_version_1_answer_jobs_of_version_1() {
    let fixture = Fixture::new().await;
    let owner_id = OwnerId::from_bytes([1; 16]);
    for version in [Some(ProtocolVersion::V1), None] {
        let (job, model_id) = (JobId::random(), model());
        fixture.client.expect(InFlight { job, model_id, owner_id, version, payload: None });
        fixture.reply_in(ProtocolVersion::V1, job, None, b"outputs").await;
        fixture.expect_outputs().await;
    }
    // Published again under its id by a process that writes version 2.
    let (job, model_id) = (JobId::random(), model());
    for version in [None, Some(ProtocolVersion::V2)] {
        fixture.client.expect(InFlight { job, model_id, owner_id, version, payload: None });
    }
    fixture.reply_in(ProtocolVersion::V1, job, None, b"outputs").await;
    fixture.expect_outputs().await;
}

#[tokio::test]
async fn what_is_no_reply_to_a_job_of_ours_is_not_handed_out() {
    let fixture = Fixture::new().await;
    let job = fixture.submit(b"rows".to_vec()).await;
    let unknown = JobId::random();
    fixture.reply(unknown, model()).await;
    fixture.reply(job.job, "b".repeat(64).parse().unwrap()).await;
    let mut malformed = Message {
        exchange: "cs.replies".into(),
        routing_key: fixture.queue.to_string(),
        ..Message::default()
    };
    fixture.broker.broker.publish(&malformed).await.unwrap();
    malformed.kind = Some("cipherscore.reply".into());
    fixture.broker.broker.publish(&malformed).await.unwrap();
    fixture.reply(job.job, model()).await;
    let mut replies = fixture.client.replies();
    let received = replies.next().await.unwrap();
    assert_eq!(received.job, job.job);
    received.ack().await;
    drop(replies);
    assert_eq!(fixture.waiting_replies().await, 0);
    assert!(fixture.told(|event| *event == Event::ReplyDropped { job: unknown }));
    let malformed = |event: &&Event| matches!(event, Event::ReplyMalformed { .. });
    assert_eq!(fixture.told.lock().unwrap().iter().filter(malformed).count(), 3);
}

#[tokio::test]
async fn a_model_without_a_queue_is_an_error_and_a_job_can_be_cancelled() {
    let fixture = Fixture::new().await;
    let request = JobRequest {
        form: None,
        planned: None,
        id: JobId::random(),
        model_id: "c".repeat(64).parse().unwrap(),
        key_id: None,
        owner_id: None,
        rows: 1,
        deadline: None,
        correlation_id: None,
        payload: vec![1],
    };
    let refused = fixture.client.submit(request).await.unwrap_err();
    assert!(matches!(refused, ClientError::NoQueue { .. }), "{refused}");
    let job = fixture.submit(b"rows".to_vec()).await.job;
    fixture.client.cancel(job).await.unwrap();
    assert!(fixture.store.marks(fixture.queue.tenant(), job).await.unwrap().cancelled);
    assert_eq!(ErrorCode::Cancelled.as_str(), "cancelled");
}
