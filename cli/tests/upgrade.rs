//! Producers and workers of two versions of the protocol at one RabbitMQ, as a rolling upgrade has
//! them.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use cipherscore_common::broker::amqp::{AmqpBroker, AmqpConfig};
use cipherscore_common::broker::{Broker as _, Disposition, QueuePrefetch, Subscription as _};
use cipherscore_common::message::{
    ErrorCode, HeaderValue, Job, Message, Outcome, Payload, ProtocolVersion, Reply, Timings,
};
use cipherscore_common::topology::{Declare, Lane, ReplyQueue, Topology, job_queue};
use cipherscore_common::{BlobName, BlobReader, JobId, ModelId, RedisConfig, RedisStore};
use cipherscore_engine::bulk::artifact::BulkServerArtifact;
use cipherscore_engine::bulk::evaluator::BulkEvaluator;
use cipherscore_engine::evaluator::Evaluator as _;
use serde_json::Value;
use support::{Fixture, text};

/// Rows of a job of the producer under test.
const ROWS_PER_JOB: usize = 2;
/// Runs of `score` until the older of two workers has had a part.
const MOST_ROUNDS: usize = 40;

fn frozen(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/frozen/v0").join(path)
}

/// The job that a program of version 1 published, as it was at the broker, but for its id, by which a
/// store may know it as done, and for what the broker adds.
fn frozen_job() -> Message {
    let envelope = fs::read(frozen("message/job.json")).unwrap();
    let envelope: Value = serde_json::from_slice(&envelope).unwrap();
    let text = |field: &str| envelope[field].as_str().map(str::to_owned);
    let headers = envelope["headers"].as_object().unwrap().iter();
    let headers = headers.map(|(name, value)| match value.as_str() {
        Some(text) => (name.clone(), HeaderValue::Text(text.to_owned())),
        None => (name.clone(), HeaderValue::Integer(value.as_i64().unwrap())),
    });
    Message {
        exchange: text("exchange").unwrap(),
        routing_key: text("routing_key").unwrap(),
        kind: text("type"),
        message_id: Some(JobId::random().to_string()),
        correlation_id: text("correlation_id"),
        reply_to: text("reply_to"),
        content_type: None,
        user_id: None,
        headers: headers.filter(|(name, _)| name != "x-delivery-count").collect(),
        body: fs::read(frozen("message/job.body")).unwrap(),
    }
}

fn broker(fixture: &Fixture) -> AmqpBroker {
    let config = AmqpConfig::parse(&fixture.broker_url).unwrap();
    AmqpBroker::new(config.with_confirm_timeout(Duration::from_secs(30))).unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Publishes a message and waits for what comes into its reply queue.
async fn answered(broker: &AmqpBroker, message: &Message) -> Message {
    let queue: ReplyQueue = message.reply_to.as_deref().unwrap().parse().unwrap();
    broker.declare(&Topology::of_client(&queue), Declare::Create).await.unwrap();
    let prefetch = QueuePrefetch { queue: queue.to_string(), prefetch: 1 };
    let mut replies = broker.subscribe(&[prefetch]).await.unwrap();
    broker.publish(message).await.unwrap();
    let delivery = tokio::time::timeout(support::PATIENCE, replies.next()).await.unwrap().unwrap();
    let reply = delivery.message.clone();
    delivery.settle(Disposition::Ack).await.unwrap();
    reply
}

/// Words that score rows of the frozen ensemble.
fn score(fixture: &Fixture, name: &str, keys: &Path) -> (Vec<String>, PathBuf) {
    let artifact = frozen("ensemble");
    let (input, output) = (artifact.join("rows.csv"), fixture.path(&format!("{name}.csv")));
    let rows_per_job = ROWS_PER_JOB.to_string();
    let words = ["score", "--artifact", text(&artifact), "--keys", text(keys)];
    let files = ["--input", text(&input), "--output", text(&output)];
    let more = ["--rows-per-job", rows_per_job.as_str()];
    let words = [&words[..], &files, &more].concat();
    (words.into_iter().map(str::to_owned).collect(), output)
}

fn assert_scores(output: &Path) {
    let expected = fs::read_to_string(frozen("ensemble/scores.csv")).unwrap();
    assert_eq!(fs::read_to_string(output).unwrap(), expected);
}

fn models(fixture: &Fixture) -> PathBuf {
    let models = fixture.path("models");
    fs::create_dir_all(&models).unwrap();
    fs::copy(frozen("ensemble/server.zip"), models.join("ensemble.zip")).unwrap();
    models
}

/// Workers first: they take jobs of producers that are not upgraded yet, and answer as those read.
#[test]
fn a_new_worker_serves_producers_of_both_versions() {
    let fixture = Fixture::start_anywhere();
    let _worker = fixture.worker(&models(&fixture));
    fixture.json(0, &["keys", "push", "--keys", text(&frozen("ensemble/keys"))]);
    let (client, keys) = (frozen("ensemble/client.zip"), fixture.path("keys"));
    fixture.json(0, &["keygen", "--client", text(&client), "--keys", text(&keys)]);
    let (words, output) = score(&fixture, "new", &keys);
    let newer = fixture.begin(&words);

    let (job, runtime) = (frozen_job(), runtime());
    assert_eq!(job.version(), ProtocolVersion::V1);
    let reply = runtime.block_on(async { answered(&broker(&fixture), &job).await });
    assert_eq!(
        (reply.message_id.as_ref(), reply.body[..2].as_ref()),
        (job.message_id.as_ref(), &[1, 0][..])
    );
    assert!(!reply.headers.contains_key("cs-manifest-id"));
    let Outcome::Scored(Payload::Inline(outputs)) = Reply::from_message(&reply).unwrap().outcome
    else {
        panic!("{reply:?}")
    };
    // As an earlier version wrote results: 6 rows.
    let file = [&b"CSROWS\0\x01\x06\0\0\0"[..], &outputs].concat();
    let results = fixture.path("results.bin");
    fs::write(&results, file).unwrap();
    let (client, keys) = (frozen("ensemble/client.zip"), frozen("ensemble/keys"));
    let words = ["decrypt", "--client", text(&client), "--keys", text(&keys), "--integers"];
    let files = ["--input", text(&results), "--output", "-"];
    let decrypted = fixture.run(&[&words[..], &files].concat());
    let integers = fs::read_to_string(frozen("ensemble/integers.csv")).unwrap();
    assert_eq!((decrypted.code, decrypted.stdout), (Some(0), integers));

    let newer = newer.end();
    assert_eq!(newer.code, Some(0), "{}", newer.stderr);
    assert_scores(&output);
}

/// What a worker of version 1 does, as far as its producers see it.
struct OlderWorker {
    broker: AmqpBroker,
    store: RedisStore,
    evaluator: Arc<BulkEvaluator>,
    model_id: ModelId,
    refused: Arc<AtomicUsize>,
    evaluated: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl OlderWorker {
    fn new(fixture: &Fixture) -> Self {
        let zip = fs::read(frozen("ensemble/server.zip")).unwrap();
        let evaluator = BulkEvaluator::new(BulkServerArtifact::open(&zip).unwrap()).unwrap();
        Self {
            broker: broker(fixture),
            store: RedisStore::new(&RedisConfig::parse(fixture.redis_url()).unwrap()).unwrap(),
            model_id: evaluator.requirements().model_id,
            evaluator: Arc::new(evaluator),
            refused: Arc::default(),
            evaluated: Arc::default(),
            stop: Arc::default(),
        }
    }

    /// Declares its queues, and takes jobs until it is stopped.
    async fn run(self) {
        for topology in [Topology::shared(), Topology::of_model(self.model_id)] {
            self.broker.declare(&topology, Declare::Create).await.unwrap();
        }
        let queue = job_queue(self.model_id, Lane::Normal);
        let mut jobs =
            self.broker.subscribe(&[QueuePrefetch { queue, prefetch: 1 }]).await.unwrap();
        while !self.stop.load(Ordering::SeqCst) {
            let next = tokio::time::timeout(Duration::from_millis(100), jobs.next()).await;
            let Ok(delivery) = next else { continue };
            let delivery = delivery.unwrap();
            let reply = self.answer(&delivery.message).await;
            self.broker.publish(&reply).await.unwrap();
            delivery.settle(Disposition::Ack).await.unwrap();
        }
    }

    async fn answer(&self, message: &Message) -> Message {
        let outcome = match message.body[..2] {
            [1, 0] => self.evaluate(&Job::from_message(message).unwrap()).await,
            _ => {
                self.refused.fetch_add(1, Ordering::SeqCst);
                let reason = "the body has protocol version 2; this program speaks version 1";
                Outcome::Failed { code: ErrorCode::UnsupportedVersion, reason: reason.into() }
            }
        };
        let reply = Reply {
            version: ProtocolVersion::V1,
            job: message.job_id().unwrap(),
            correlation_id: None,
            model_id: message.model_id(),
            owner_id: None,
            manifest_id: None,
            worker: "older".into(),
            timings: Timings::default(),
            trace: None,
            outcome,
        };
        reply.to_message(&message.reply_queue().unwrap())
    }

    async fn evaluate(&self, job: &Job) -> Outcome {
        self.evaluated.fetch_add(1, Ordering::SeqCst);
        let name = BlobName::evaluation_key(&job.tenant, job.key_id.unwrap());
        let reader = BlobReader::open(&self.store, &name).await.unwrap();
        let key = reader.read_all(1 << 20).await.unwrap();
        assert_eq!(key[8], 1, "it reads no newer keys");
        let key = self.evaluator.prepare(key).unwrap();
        let Payload::Inline(rows) = &job.payload else { panic!("{job:?}") };
        let evaluator = Arc::clone(&self.evaluator);
        let mut evaluation = evaluator.begin(Some(Arc::new(key)), job.rows).unwrap();
        evaluation.push(rows, &|| false).unwrap();
        Outcome::Scored(Payload::Inline(evaluation.finish(&|| false).unwrap()))
    }
}

/// Producers first, with the keys that they have: what an older worker does not speak is published
/// anew in version 1, and scored.
#[test]
fn a_new_producer_goes_on_with_an_older_worker() {
    let (fixture, runtime) = (Fixture::start_anywhere(), runtime());
    let older = OlderWorker::new(&fixture);
    let (refused, evaluated, stop) =
        (Arc::clone(&older.refused), Arc::clone(&older.evaluated), Arc::clone(&older.stop));
    let model_id = older.model_id;
    let working = runtime.spawn(older.run());
    let (words, output) = score(&fixture, "alone", &frozen("ensemble/keys"));
    let queue = job_queue(model_id, Lane::Normal);
    let queue_state = || runtime.block_on(broker(&fixture).queue_state(&queue)).unwrap();
    support::wait_until("the older worker takes no jobs", || {
        queue_state().is_some_and(|state| state.consumers > 0)
    });
    let report = fixture.json(0, &words);
    assert_scores(&output);
    let (refused, evaluated) = (refused.load(Ordering::SeqCst), evaluated.load(Ordering::SeqCst));
    assert_eq!((evaluated, report["jobs_published"].as_u64()), (3, Some(3 + refused as u64)));
    assert!((1..=3).contains(&refused), "{refused} of 3 jobs were refused once");
    assert_eq!(report["jobs_published_again"], refused);
    stop.store(true, Ordering::SeqCst);
    runtime.block_on(working).unwrap();
}

/// In the midst of an upgrade any worker may get a job.
#[test]
fn a_fleet_of_both_versions_loses_no_job() {
    let (fixture, runtime) = (Fixture::start_anywhere(), runtime());
    let _newer = fixture.worker(&models(&fixture));
    let older = OlderWorker::new(&fixture);
    let (refused, stop) = (Arc::clone(&older.refused), Arc::clone(&older.stop));
    let queue = job_queue(older.model_id, Lane::Normal);
    let working = runtime.spawn(older.run());
    support::wait_until("not both workers take jobs", || {
        let state = runtime.block_on(broker(&fixture).queue_state(&queue)).unwrap();
        state.is_some_and(|state| state.consumers > 1)
    });
    for round in 0..MOST_ROUNDS {
        if round >= 4 && refused.load(Ordering::SeqCst) > 0 {
            break;
        }
        let (words, output) = score(&fixture, &format!("mixed {round}"), &frozen("ensemble/keys"));
        let report = fixture.json(0, &words);
        assert_eq!((&report["rows_scored"], &report["rows_failed"]), (&6.into(), &0.into()));
        assert_scores(&output);
    }
    assert!(refused.load(Ordering::SeqCst) > 0, "the older worker got no job");
    stop.store(true, Ordering::SeqCst);
    runtime.block_on(working).unwrap();
}
