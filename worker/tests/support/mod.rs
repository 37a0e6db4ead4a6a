//! A data owner with keys, a broker, a store, and what a test asks of them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cipherscore_common::broker::{Broker, Disposition, MemoryBroker, QueuePrefetch, Subscription};
use cipherscore_common::message::{
    ErrorCode, Job, JobTerms, Message, Outcome, Payload, ProtocolVersion, Reply,
};
use cipherscore_common::topology::{DEAD, Declare, Lane, ReplyQueue, Topology, job_queue};
use cipherscore_common::{
    Blob, BlobKind, EvaluationKeyId, JobId, MemoryStore, ModelId, Store, Tenant,
};
use cipherscore_concrete::client::ClientArtifact;
use cipherscore_concrete::framing::{FramedRowReader, frame_values};
use cipherscore_concrete::keys::write_evaluation_keys;
use cipherscore_concrete::recorder::RecorderCommand;
use cipherscore_concrete::values::{read_value, write_value};
use cipherscore_engine::artifact::{Archive, names};
use cipherscore_engine::client_keys::ClientKeys;
use cipherscore_engine::parameters::Compression;
use cipherscore_worker::config::WorkerConfig;
use cipherscore_worker::{Worker, WorkerHandle};

/// How long a test waits for what must come. Machines that run tests are slow at times.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// One of the example models, with keys of its data owner.
pub(crate) struct Example {
    pub(crate) folder: PathBuf,
    pub(crate) id: ModelId,
    pub(crate) client: ClientArtifact,
    pub(crate) keys: ClientKeys,
    pub(crate) evaluation_key: Vec<u8>,
    pub(crate) rows: Vec<Vec<f64>>,
}

impl Example {
    pub(crate) fn tree() -> Self {
        Self::open("iris_decision_tree")
    }

    pub(crate) fn linear() -> Self {
        Self::open("breast_cancer_logistic_regression")
    }

    fn open(name: &str) -> Self {
        let folder = examples().join(name);
        let read = |file: &str| std::fs::read(folder.join(file)).unwrap();
        let client = ClientArtifact::open(&read("client.zip")).unwrap();
        let server = Archive::read(&read("server.zip")).unwrap();
        let manifest: serde_json::Value =
            serde_json::from_slice(server.get(names::MANIFEST).unwrap()).unwrap();
        let id = manifest["model_id"].as_str().unwrap().parse().unwrap();
        let keys = ClientKeys::generate(client.keyset());
        let evaluation = keys.evaluation_keys(client.keyset(), &|| ()).unwrap();
        let evaluation_key = write_evaluation_keys(&evaluation, client.keyset());
        let text = String::from_utf8(read("rows.csv")).unwrap();
        let numbers = |line: &str| line.split(',').map(|x| x.parse().unwrap()).collect();
        let rows = text.lines().skip(1).map(numbers).collect();
        Self { folder, id, client, keys, evaluation_key, rows }
    }

    /// Encrypts rows, by their numbers, as the body of a job.
    pub(crate) fn encrypt(&self, rows: &[usize]) -> Vec<u8> {
        let gate = self.client.input();
        frame_values(rows.iter().map(|row| {
            let integers = self.client.model().quantise(&self.rows[*row]).unwrap();
            let words = self.keys.encrypt(&integers, gate).unwrap();
            write_value(gate, Compression::Seed, &words)
        }))
    }

    /// Decrypts the body of a reply to scores.
    pub(crate) fn decrypt(&self, mut outputs: &[u8], rows: u32) -> Vec<Vec<f64>> {
        let gate = self.client.output();
        let mut reader = FramedRowReader::new(std::slice::from_ref(gate), rows);
        let mut scores = Vec::new();
        while let Some(row) = reader.next_row(&mut outputs).unwrap() {
            let ciphertexts = read_value(gate, &row[0]).unwrap();
            let integers = self.keys.decrypt(&ciphertexts, gate).unwrap();
            scores.push(self.client.model().scores(&integers, &gate.shape).unwrap());
        }
        reader.finish().unwrap();
        scores
    }

    /// What Concrete ML says without encryption.
    pub(crate) fn clear(&self, rows: &[usize]) -> Vec<Vec<f64>> {
        let text = std::fs::read_to_string(self.folder.join("clear.csv")).unwrap();
        let lines: Vec<_> = text.lines().skip(1).collect();
        let numbers = |line: &str| line.split(',').map(|x| x.parse().unwrap()).collect();
        rows.iter().map(|row| numbers(lines[*row])).collect()
    }

    pub(crate) fn key_id(&self) -> EvaluationKeyId {
        EvaluationKeyId::of(&self.evaluation_key)
    }
}

/// Scores that only the last place of a floating-point number may tell apart.
pub(crate) fn assert_same_scores(found: &[Vec<f64>], expected: &[Vec<f64>]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
        assert!((found - expected).abs() <= 1e-12, "{found} instead of {expected}");
    }
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

/// A broker and a store, in this process or real.
pub(crate) trait Services {
    type B: Broker + Clone;
    type S: Store;

    fn broker(&self) -> Self::B;
    fn store(&self) -> Self::S;

    async fn tester(&self, tenant: &str) -> Tester<Self::B, Self::S> {
        Tester::new(self.broker(), self.store(), tenant).await
    }

    async fn start_worker(
        &self,
        change: impl FnOnce(&mut WorkerConfig),
    ) -> WorkerHandle<Self::B, Self::S> {
        start_worker(&self.broker(), self.store(), change).await
    }
}

/// The services in this process.
#[derive(Default)]
pub(crate) struct InProcess {
    pub(crate) broker: MemoryBroker,
    pub(crate) store: MemoryStore,
}

impl Services for InProcess {
    type B = MemoryBroker;
    type S = MemoryStore;

    fn broker(&self) -> MemoryBroker {
        self.broker.clone()
    }

    fn store(&self) -> MemoryStore {
        self.store.clone()
    }
}

/// The services, as one tenant with one reply queue sees them.
pub(crate) struct Tester<B: Broker, S> {
    pub(crate) broker: B,
    pub(crate) store: S,
    pub(crate) tenant: Tenant,
    pub(crate) reply_to: ReplyQueue,
    replies: B::Subscription,
}

impl<B: Broker, S: Store> Tester<B, S> {
    pub(crate) async fn new(broker: B, store: S, tenant: &str) -> Self {
        let tenant: Tenant = tenant.parse().unwrap();
        let reply_to = ReplyQueue::new(&tenant, "tester").unwrap();
        broker.declare(&Topology::shared(), Declare::Create).await.unwrap();
        broker.declare(&Topology::of_client(&reply_to), Declare::Create).await.unwrap();
        let replies = subscribe(&broker, &reply_to.to_string()).await;
        Self { broker, store, tenant, reply_to, replies }
    }

    /// A job of these rows, whose key is in the store.
    pub(crate) fn job(&self, model: &Example, rows: &[usize]) -> Job {
        let linear = model.evaluation_key.len() < 1000;
        Job {
            version: ProtocolVersion::V2,
            id: JobId::random(),
            tenant: self.tenant.clone(),
            reply_to: self.reply_to.clone(),
            correlation_id: Some("correlation".into()),
            model_id: model.id,
            lane: Lane::Normal,
            key_id: (!linear).then(|| model.key_id()),
            rows: u32::try_from(rows.len()).unwrap(),
            deadline: None,
            terms: JobTerms::default(),
            attempt: 0,
            trace: None,
            payload: Payload::Inline(model.encrypt(rows)),
        }
    }

    /// A job of one row of any bytes, for a model that needs no key.
    pub(crate) fn keyless_job(&self, model_id: ModelId, row: Vec<u8>) -> Job {
        Job {
            version: ProtocolVersion::V2,
            id: JobId::random(),
            tenant: self.tenant.clone(),
            reply_to: self.reply_to.clone(),
            correlation_id: None,
            model_id,
            lane: Lane::Normal,
            key_id: None,
            rows: 1,
            deadline: None,
            terms: JobTerms::default(),
            attempt: 0,
            trace: None,
            payload: Payload::Inline(row),
        }
    }

    pub(crate) async fn put_key(&self, model: &Example) {
        let blob = Blob::evaluation_key(&self.tenant, model.evaluation_key.clone()).unwrap();
        self.store.put(&blob, None, &|| ()).await.unwrap();
    }

    /// Moves a job's rows into the store.
    pub(crate) async fn store_payload(&self, job: &mut Job) -> Blob {
        let Payload::Inline(bytes) = std::mem::replace(&mut job.payload, Payload::Inline(vec![]))
        else {
            panic!("stored already")
        };
        let (blob, stored) = Blob::payload(&self.tenant, BlobKind::Job, bytes).unwrap();
        self.store.put(&blob, None, &|| ()).await.unwrap();
        job.payload = Payload::Stored(stored);
        blob
    }

    pub(crate) async fn publish(&self, job: &Job) {
        self.broker.publish(&job.to_message()).await.unwrap();
    }

    /// Waits until a worker takes from the queue of a model.
    pub(crate) async fn wait_for_worker(&self, model: ModelId) {
        let queue = job_queue(model, Lane::Normal);
        let taken = async {
            while self.broker.queue_state(&queue).await.unwrap().is_none_or(|it| it.consumers == 0)
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, taken).await.expect("no worker takes jobs of a model");
    }

    /// The next reply, acknowledged.
    pub(crate) async fn reply(&mut self) -> Reply {
        self.reply_within(PATIENCE).await.expect("no reply came")
    }

    pub(crate) async fn reply_within(&mut self, patience: Duration) -> Option<Reply> {
        let next = tokio::time::timeout(patience, self.replies.next()).await;
        let delivery = next.ok()?.unwrap();
        let reply = Reply::from_message(&delivery.message).unwrap();
        delivery.settle(Disposition::Ack).await.unwrap();
        Some(reply)
    }

    /// Follows the replies again, after the connection was lost.
    pub(crate) async fn reconnect(&mut self) {
        self.replies = subscribe(&self.broker, &self.reply_to.to_string()).await;
    }

    /// Publishes a job and expects this answer.
    pub(crate) async fn expect_failure(&mut self, job: &Job, expected: ErrorCode) -> String {
        self.publish(job).await;
        self.expect_answer(job.id, expected).await
    }

    pub(crate) async fn expect_answer(&mut self, id: JobId, expected: ErrorCode) -> String {
        let reply = self.reply().await;
        assert_eq!(reply.job, id);
        match reply.outcome {
            Outcome::Failed { code, reason } if code == expected => reason,
            other => panic!("{other:?} instead of {expected}"),
        }
    }

    /// The bytes of a reply, wherever they are.
    pub(crate) async fn outputs(&self, reply: &Reply) -> Vec<u8> {
        match &reply.outcome {
            Outcome::Scored(Payload::Inline(bytes)) => bytes.clone(),
            Outcome::Scored(Payload::Stored(stored)) => {
                let name = cipherscore_common::BlobName {
                    tenant: self.tenant.clone(),
                    kind: BlobKind::Reply,
                    id: stored.sha256,
                };
                let reader = cipherscore_common::BlobReader::open(&self.store, &name).await;
                reader.unwrap().read_all(u64::MAX).await.unwrap()
            }
            failed => panic!("{failed:?}"),
        }
    }

    /// Publishes a job and expects its scores to be those without encryption.
    pub(crate) async fn expect_scores(&mut self, model: &Example, rows: &[usize]) {
        let job = self.job(model, rows);
        self.publish(&job).await;
        let reply = self.reply().await;
        assert_eq!((reply.job, reply.correlation_id.as_deref()), (job.id, Some("correlation")));
        let scores = model.decrypt(&self.outputs(&reply).await, job.rows);
        assert_same_scores(&scores, &model.clear(rows));
    }

    /// The next message in the dead-letter queue, taken out.
    pub(crate) async fn dead(&self) -> Message {
        let mut dead = subscribe(&self.broker, DEAD).await;
        let next = tokio::time::timeout(PATIENCE, dead.next()).await;
        let delivery = next.expect("nothing is dead").unwrap();
        let message = delivery.message.clone();
        delivery.settle(Disposition::Ack).await.unwrap();
        message
    }

    /// How many messages are dead, once it has settled.
    pub(crate) async fn count_dead(&self) -> u32 {
        self.broker.queue_state(DEAD).await.unwrap().unwrap().messages
    }
}

pub(crate) async fn subscribe<B: Broker>(broker: &B, queue: &str) -> B::Subscription {
    let queue = QueuePrefetch { queue: queue.to_owned(), prefetch: 100 };
    broker.subscribe(&[queue]).await.unwrap()
}

/// A worker with both examples, on two threads, without its HTTP port.
pub(crate) async fn open_worker<B: Broker + Clone, S: Store>(
    broker: &B,
    store: S,
    change: impl FnOnce(&mut WorkerConfig),
) -> Worker<B, S> {
    let mut config = WorkerConfig::default();
    config.models.folder = Some(examples());
    config.health.listen = None;
    config.worker.threads = std::num::NonZeroUsize::new(2);
    change(&mut config);
    // The examples are imported: nothing is recorded.
    let recorder = RecorderCommand::new("/nonexistent", Vec::new());
    Worker::open(config, broker.clone(), store, recorder).await.unwrap()
}

pub(crate) async fn start_worker<B: Broker + Clone, S: Store>(
    broker: &B,
    store: S,
    change: impl FnOnce(&mut WorkerConfig),
) -> WorkerHandle<B, S> {
    open_worker(broker, store, change).await.start().await.unwrap()
}
