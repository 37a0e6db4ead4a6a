//! What becomes of a job, case by case, whatever the services are: the table of
//! `docs/protocol.md`.

pub(crate) mod bulk;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cipherscore_common::broker::{Broker, Subscription};
use cipherscore_common::message::{ErrorCode, Message, Outcome, Payload, Timestamp, headers};
use cipherscore_common::topology::{Declare, Lane, Topology, job_queue};
use cipherscore_common::{BlobStore as _, EvaluationKeyId, JobId, MarkStore as _, ModelId, Store};
use cipherscore_engine::evaluator::{
    Evaluation, EvaluationError, Evaluator, JobFootprint, PreparedKey, Requirements, Stop,
};
use cipherscore_ids::KeysetId;

use crate::support::{Example, Services, Tester, open_worker, subscribe};

/// Headers of later programs that are sent on, at most.
const MOST_ADDED: usize = 16;

/// Rows of both models come back as without encryption, small ones in messages and large ones
/// through the store.
pub(crate) async fn scores<V: Services>(services: &V, tree: &Example, linear: &Example) {
    let worker = services.start_worker(|_| ()).await;
    let mut tester = services.tester("scores").await;
    tester.put_key(tree).await;
    tester.expect_scores(linear, &[0]).await;
    tester.expect_scores(tree, &[3]).await;
    tester.expect_scores(tree, &[0, 1, 2, 4]).await;
    assert_eq!(worker.key_fetches(), 1);

    // 1,200 rows are more than a message takes, in both directions.
    let rows: Vec<_> = (0..1200).map(|row| row % linear.rows.len()).collect();
    let mut job = tester.job(linear, &rows);
    tester.store_payload(&mut job).await;
    tester.publish(&job).await;
    let reply = tester.reply().await;
    assert!(matches!(reply.outcome, Outcome::Scored(Payload::Stored(_))), "{:?}", reply.outcome);
    let scores = linear.decrypt(&tester.outputs(&reply).await, job.rows);
    crate::support::assert_same_scores(&scores, &linear.clear(&rows));
    stop(worker).await;
}

/// What the producer did wrong is answered with its code, and done with.
pub(crate) async fn refusals<V: Services>(services: &V, tree: &Example, linear: &Example) {
    let worker = services
        .start_worker(|config| {
            config.worker.max_job_rows = 50;
            config.worker.max_job_size = bytesize::ByteSize::kib(64);
        })
        .await;
    let mut tester = services.tester("refusals").await;
    let valid = |tester: &Tester<V::B, V::S>| tester.job(linear, &[0]);

    let mut job = valid(&tester);
    let real = job.model_id;
    job.model_id = ModelId::of(b"no model");
    let mut message = job.to_message();
    message.routing_key = job_queue(real, Lane::Normal);
    tester.broker.publish(&message).await.unwrap();
    tester.expect_answer(job.id, ErrorCode::UnknownModel).await;

    let mut message = valid(&tester).to_message();
    message.body[0] = 3;
    tester.broker.publish(&message).await.unwrap();
    let id = message.job_id().unwrap();
    tester.expect_answer(id, ErrorCode::UnsupportedVersion).await;

    let mut job = valid(&tester);
    job.rows = 2;
    tester.expect_failure(&job, ErrorCode::WrongShape).await;
    job = valid(&tester);
    job.payload = Payload::Inline(b"\x03\0\0\0abc".to_vec());
    tester.expect_failure(&job, ErrorCode::WrongShape).await;
    job = tester.job(tree, &[0]);
    tester.put_key(tree).await;
    job.payload = valid(&tester).payload;
    tester.expect_failure(&job, ErrorCode::WrongShape).await;

    job = valid(&tester);
    job.rows = 51;
    tester.expect_failure(&job, ErrorCode::TooLarge).await;
    job = valid(&tester);
    job.payload = Payload::Inline(vec![0; 65 << 10]);
    tester.expect_failure(&job, ErrorCode::TooLarge).await;

    job = valid(&tester);
    job.deadline = Some(Timestamp::from_millis(Timestamp::now().millis() - 1));
    tester.expect_failure(&job, ErrorCode::DeadlineExceeded).await;

    job = valid(&tester);
    tester.store.mark_cancelled(&tester.tenant, job.id).await.unwrap();
    tester.expect_failure(&job, ErrorCode::Cancelled).await;

    job = valid(&tester);
    let blob = tester.store_payload(&mut job).await;
    tester.store.remove(blob.name()).await.unwrap();
    tester.expect_failure(&job, ErrorCode::BlobMissing).await;

    assert_eq!(tester.count_dead().await, 0);
    stop(worker).await;
}

/// Evaluation keys that are not there, not right, or somebody else's.
pub(crate) async fn keys<V: Services>(services: &V, tree: &Example) {
    let worker = services.start_worker(|_| ()).await;
    let mut alice = services.tester("keys-alice").await;
    let mut bob = services.tester("keys-bob").await;

    let mut job = alice.job(tree, &[0]);
    alice.expect_failure(&job, ErrorCode::KeyMissing).await;
    job.id = JobId::random();
    job.key_id = None;
    alice.expect_failure(&job, ErrorCode::KeyMissing).await;

    // Alice's key, even when the worker has it prepared, is not Bob's.
    alice.put_key(tree).await;
    alice.expect_scores(tree, &[0]).await;
    bob.expect_failure(&bob.job(tree, &[0]), ErrorCode::KeyMissing).await;

    // A blob of the right id that is no key of this model.
    let strange = b"no key".to_vec();
    let id = EvaluationKeyId::of(&strange);
    let blob = cipherscore_common::Blob::evaluation_key(&alice.tenant, strange).unwrap();
    alice.store.put(&blob, None, &|| ()).await.unwrap();
    job.id = JobId::random();
    job.key_id = Some(id);
    alice.expect_failure(&job, ErrorCode::NotConformant).await;
    stop(worker).await;
}

/// What nobody can do is kept with its reason.
pub(crate) async fn dead_letters<V: Services>(services: &V, linear: &Example) {
    let mut tester = services.tester("dead").await;
    let worker = open_worker(&services.broker(), services.store(), |_| ()).await;
    let mut worker = worker;
    let model = worker.add_model(Arc::new(Panics));
    let worker = worker.start().await.unwrap();
    settled(services, model).await;

    // Malformed, and the reply queue can be read.
    let mut message = tester.job(linear, &[0]).to_message();
    message.headers.remove(headers::ROWS);
    tester.broker.publish(&message).await.unwrap();
    let id = message.job_id().unwrap();
    tester.expect_answer(id, ErrorCode::Malformed).await;
    assert_dead(&tester.dead().await, &message, ErrorCode::Malformed);

    // What a producer of a later program says is sent on, up to a bound; anything else is not.
    let mut more = message.clone();
    more.message_id = Some(JobId::random().to_string());
    (0..MOST_ADDED + 4).for_each(|number| more.set(&format!("cs-opt-{number:02}"), "later"));
    more.set("cs-opt-00", "long".repeat(200));
    more.set("x-anything", "else");
    tester.broker.publish(&more).await.unwrap();
    tester.expect_answer(more.job_id().unwrap(), ErrorCode::Malformed).await;
    let dead = tester.dead().await;
    let added: Vec<_> = dead.headers.keys().filter(|name| name.contains("-opt-")).collect();
    assert_eq!(added.len(), MOST_ADDED, "{added:?}");
    assert!(!added.contains(&&"cs-opt-00".to_owned()) && dead.text("x-anything").is_none());
    assert_eq!(dead.text("cs-opt-01"), Some("later"));

    // Malformed, and it cannot.
    message.reply_to = Some("somewhere else".into());
    tester.broker.publish(&message).await.unwrap();
    assert_dead(&tester.dead().await, &message, ErrorCode::Malformed);

    // Somebody else's reply queue is not written to.
    let mut job = tester.job(linear, &[0]);
    job.tenant = "victim".parse().unwrap();
    tester.publish(&job).await;
    assert_dead(&tester.dead().await, &job.to_message(), ErrorCode::Forbidden);

    // A panic is the end of its job only.
    let mut job = tester.job(linear, &[0]);
    job.model_id = model;
    let reason = tester.expect_failure(&job, ErrorCode::Internal).await;
    assert!(!reason.contains("secret"), "{reason}");
    assert_dead(&tester.dead().await, &job.to_message(), ErrorCode::Internal);
    tester.expect_scores(linear, &[1]).await;
    stop(worker).await;
}

/// What a worker blames a job with that it begins alone.
const BLAME: u32 = 8;

/// A job that has ended too many workers is not tried again; one that only came back as often,
/// together with it, is.
pub(crate) async fn poison<V: Services>(services: &V, linear: &Example) {
    let mut tester = services.tester("poison").await;
    tester.broker.declare(&Topology::of_model(linear.id), Declare::Create).await.unwrap();
    let (job, bystander) = (tester.job(linear, &[0]), tester.job(linear, &[1]));
    tester.publish(&job).await;
    tester.publish(&bystander).await;
    let queue = job_queue(linear.id, Lane::Normal);
    for returned in 0..4 {
        // A worker that dies with both jobs: what it did not settle comes back. One that came back
        // twice is counted before it is begun.
        let mut dies = subscribe(&tester.broker, &queue).await;
        for _ in 0..2 {
            tokio::time::timeout(crate::support::PATIENCE, dies.next()).await.unwrap().unwrap();
        }
        if returned >= 2 {
            tester.store.blame(&tester.tenant, job.id, BLAME).await.unwrap();
        }
    }
    let worker = services.start_worker(|_| ()).await;
    for _ in 0..2 {
        let reply = tester.reply().await;
        match reply.outcome {
            Outcome::Failed { code: ErrorCode::Poison, .. } => assert_eq!(reply.job, job.id),
            Outcome::Scored(_) => assert_eq!(reply.job, bystander.id),
            other => panic!("{other:?}"),
        }
    }
    assert_dead(&tester.dead().await, &job.to_message(), ErrorCode::Poison);
    assert_eq!(tester.count_dead().await, 0);
    // It ran alone as well, and its worker has survived it.
    assert_eq!(tester.store.blame(&tester.tenant, bystander.id, 0).await.unwrap(), 1);
    stop(worker).await;
}

/// A job that arrives again while it runs, or after it was answered, is evaluated once.
pub(crate) async fn once<V: Services>(services: &V, linear: &Example) {
    let mut tester = services.tester("once").await;
    let mut worker = open_worker(&services.broker(), services.store(), |_| ()).await;
    let counts = Arc::new(Counts::default());
    let model = worker.add_model(counts.clone());
    let worker = worker.start().await.unwrap();
    settled(services, model).await;
    let mut job = tester.job(linear, &[0]);
    job.model_id = model;
    tester.publish(&job).await;
    tester.publish(&job).await;
    assert_eq!(tester.reply().await.job, job.id);
    tester.publish(&job).await;
    // The next one's answer comes after whatever the copies may have brought.
    job.id = JobId::random();
    tester.publish(&job).await;
    assert_eq!(tester.reply().await.job, job.id);
    assert_eq!(counts.begun.load(Ordering::SeqCst), 2);
    stop(worker).await;
    let state = tester.broker.queue_state(&job_queue(model, Lane::Normal)).await.unwrap();
    assert_eq!(state.unwrap().messages, 0);
}

/// Deadline and cancellation end an evaluation between its steps.
pub(crate) async fn stopped_midway<V: Services>(services: &V, tree: &Example) {
    let worker = services.start_worker(|_| ()).await;
    let mut tester = services.tester("midway").await;
    tester.put_key(tree).await;
    // Warms the cache, so that what follows is evaluation.
    tester.expect_scores(tree, &[0]).await;
    // About half a minute of work, which ends with scores unless it is stopped.
    let rows: Vec<_> = (0..190).map(|row| row % tree.rows.len()).collect();
    let mut job = tester.job(tree, &rows);
    job.deadline = Some(Timestamp::now().after(Duration::from_secs(2)));
    tester.expect_failure(&job, ErrorCode::DeadlineExceeded).await;

    job.id = JobId::random();
    job.deadline = None;
    tester.publish(&job).await;
    while worker.presence().jobs == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tester.store.mark_cancelled(&tester.tenant, job.id).await.unwrap();
    tester.expect_answer(job.id, ErrorCode::Cancelled).await;
    stop(worker).await;
}

/// A worker that is asked to stop finishes what it has begun, and gives back the rest.
pub(crate) async fn drained<V: Services>(services: &V, tree: &Example) {
    let mut worker = services.start_worker(|_| ()).await;
    let mut tester = services.tester("drained").await;
    tester.put_key(tree).await;
    // What is begun is over well within the grace period, on a machine that does more than this.
    let rows: Vec<_> = (0..4).collect();
    let jobs: Vec<_> = (0..6).map(|_| tester.job(tree, &rows)).collect();
    for job in &jobs {
        tester.publish(job).await;
    }
    while worker.presence().jobs == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    worker.drain();
    worker.ended().await;
    let answered = worker.presence().answered;
    assert!((1..6).contains(&answered), "{answered} of 6 answered");
    // More workers than a job may kill take what is left, and are stopped before they begin it.
    for _ in 0..5 {
        let mut other = services
            .start_worker(|config| config.worker.slots = std::num::NonZeroUsize::new(1))
            .await;
        tokio::time::sleep(Duration::from_millis(1200)).await;
        other.drain();
        other.ended().await;
    }
    let other = services.start_worker(|_| ()).await;
    let mut ids: Vec<_> = Vec::new();
    for _ in &jobs {
        let reply = tester.reply().await;
        assert!(matches!(reply.outcome, Outcome::Scored(_)), "{:?}", reply.outcome);
        ids.push(reply.job);
    }
    ids.sort();
    assert_eq!(ids, jobs.iter().map(|job| job.id).collect::<Vec<_>>());
    stop(other).await;
}

#[allow(dead_code, reason = "takes minutes: with real services only")]
/// Two tenants, two models, two workers, interleaved: all right, and no key fetched twice.
pub(crate) async fn fleet<V: Services>(
    services: &V,
    tree: [&Example; 2],
    linear: [&Example; 2],
    jobs: usize,
) {
    let workers = [services.start_worker(|_| ()).await, services.start_worker(|_| ()).await];
    let mut testers = [services.tester("fleet-a").await, services.tester("fleet-b").await];
    let mut expected = Vec::new();
    for (tester, tree) in testers.iter().zip(tree) {
        tester.put_key(tree).await;
    }
    for number in 0..jobs {
        let who = number % 2;
        let model = if number % 4 < 2 { tree[who] } else { linear[who] };
        let row = number % model.rows.len();
        let job = testers[who].job(model, &[row]);
        testers[who].publish(&job).await;
        expected.push((who, job.id, model, row));
    }
    for who in [0, 1] {
        let tester = &mut testers[who];
        let mut replies = std::collections::HashMap::new();
        for _ in expected.iter().filter(|(owner, ..)| *owner == who) {
            let reply = tester.reply().await;
            assert!(replies.insert(reply.job, reply).is_none(), "answered twice");
        }
        for (_, id, model, row) in expected.iter().filter(|(owner, ..)| *owner == who) {
            let outputs = tester.outputs(&replies[id]).await;
            let scores = model.decrypt(&outputs, 1);
            crate::support::assert_same_scores(&scores, &model.clear(&[*row]));
        }
    }
    let fetches = workers.each_ref().map(|worker| worker.key_fetches());
    assert!(fetches.iter().all(|fetches| (1..=2).contains(fetches)), "{fetches:?} keys fetched");
    for worker in workers {
        stop(worker).await;
    }
}

fn assert_dead(dead: &Message, original: &Message, code: ErrorCode) {
    assert_eq!(dead.text(headers::DEAD_CODE), Some(code.as_str()));
    assert!(dead.text(headers::DEAD_REASON).is_some_and(|reason| !reason.is_empty()));
    assert_eq!(dead.message_id, original.message_id);
    assert_eq!(dead.routing_key, original.routing_key);
    assert_eq!(dead.body, original.body);
}

async fn stop<B: Broker, S: Store>(mut worker: cipherscore_worker::WorkerHandle<B, S>) {
    worker.drain();
    worker.ended().await;
}

/// Waits until a worker takes from the queue of a model.
async fn settled<V: Services>(services: &V, model: ModelId) {
    let queue = job_queue(model, Lane::Normal);
    let broker = services.broker();
    let consumed = async {
        while broker.queue_state(&queue).await.unwrap().is_none_or(|state| state.consumers == 0) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(crate::support::PATIENCE, consumed).await.unwrap();
}

/// A model whose evaluation panics.
struct Panics;

/// A model that counts its evaluations, and takes a while for each.
#[derive(Default)]
struct Counts {
    begun: AtomicUsize,
}

macro_rules! keyless_evaluator {
    ($name:ty, $id:literal, |$this:ident| $begin:expr) => {
        impl Evaluator for $name {
            fn requirements(&self) -> Requirements {
                Requirements {
                    model_id: ModelId::of($id),
                    keyset_id: KeysetId::of(b"no keys"),
                    needs_key: false,
                    max_key_bytes: 0,
                    prepared_key_bytes: 0,
                    is_quick: true,
                }
            }
            fn footprint(&self, _: u32) -> JobFootprint {
                JobFootprint { memory_bytes: 1, max_input_bytes: u64::MAX, planned: None }
            }
            fn prepare(&self, _: Vec<u8>) -> Result<PreparedKey, EvaluationError> {
                Err(EvaluationError::NotConformant("no key is needed".into()))
            }
            fn start(
                self: Arc<Self>,
                _: Option<&PreparedKey>,
                _: NonZeroU32,
            ) -> Result<Box<dyn Evaluation>, EvaluationError> {
                let $this = self;
                $begin
            }
        }
    };
}

keyless_evaluator!(Panics, b"panics", |_this| panic!("a secret in the text of a panic"));
keyless_evaluator!(Counts, b"counts", |this| {
    this.begun.fetch_add(1, Ordering::SeqCst);
    Ok(Box::new(Slow))
});

struct Slow;

impl Evaluation for Slow {
    fn push(&mut self, _: &[u8], _: Stop<'_>) -> Result<(), EvaluationError> {
        // Long enough for a copy of the job to arrive meanwhile.
        std::thread::sleep(Duration::from_millis(300));
        Ok(())
    }

    fn finish(self: Box<Self>, _: Stop<'_>) -> Result<Vec<u8>, EvaluationError> {
        Ok(b"done".to_vec())
    }
}
