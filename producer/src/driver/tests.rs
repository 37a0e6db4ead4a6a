//! The seam to journals: what they are told, when, and what is taken back without one.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::sync::Mutex;

use cipherscore_common::broker::{Disposition, MemoryBroker, QueuePrefetch, Subscription};
use cipherscore_common::message::{
    ErrorCode, Job, Outcome, Payload as Body, ProtocolVersion, Reply, Timings,
};
use cipherscore_common::topology::{Declare, Lane, ReplyQueue, Topology, job_queue};
use cipherscore_common::{Digest, MarkStore, MemoryStore};

use super::*;
use crate::client::{ClientOptions, InFlight};
use crate::model::{EncryptionError, Finality, Receipt};
use crate::stream::StreamError;

const RECEIPT: Receipt = Receipt(Digest::from_bytes([5; 32]));

/// What a journal was told, and what the worker got, in their order.
type Told = Arc<Mutex<Vec<&'static str>>>;

/// Keeps nothing but what it was told.
struct Recording<const OUTLIVES: bool> {
    told: Told,
    /// The job of an earlier process.
    earlier: Option<JobId>,
}

impl<const OUTLIVES: bool> Journal for Recording<OUTLIVES> {
    type Results = Vec<u8>;
    type End = Result<Vec<u8>, String>;
    type Error = StreamError;

    const OUTLIVES: bool = OUTLIVES;

    async fn begin(&self, new: NewJob) -> Result<Option<Ticket>, StreamError> {
        self.told.lock().unwrap().push(if new.follows { "begin after another" } else { "begin" });
        let earlier = self.earlier.map(|job| Ticket::of_earlier(job, None));
        Ok(Some(earlier.unwrap_or(new.ticket)))
    }

    async fn published(&self, _job: JobId, _payload: Option<Digest>) -> Result<(), StreamError> {
        self.told.lock().unwrap().push("published");
        Ok(())
    }

    async fn end(
        &self,
        _heard: Heard,
        end: Result<Vec<u8>, NoResults>,
    ) -> Result<Self::End, StreamError> {
        self.told.lock().unwrap().push(if end.is_ok() { "results" } else { "failure" });
        Ok(end.map_err(|none| none.reason))
    }
}

struct World {
    broker: MemoryBroker,
    store: MemoryStore,
    queue: ReplyQueue,
    model_id: ModelId,
    told: Told,
    /// Versions of the jobs that were answered, in their order.
    versions: Mutex<Vec<ProtocolVersion>>,
}

impl World {
    async fn new() -> Self {
        let (broker, store) = (MemoryBroker::default(), MemoryStore::default());
        let model_id = ModelId::of(b"model");
        for topology in [Topology::shared(), Topology::of_model(model_id)] {
            broker.declare(&topology, Declare::Create).await.unwrap();
        }
        let queue = ReplyQueue::new(&"tenant".parse().unwrap(), "client").unwrap();
        Self { broker, store, queue, model_id, told: Told::default(), versions: Mutex::default() }
    }

    async fn driver(&self) -> Driver<MemoryBroker, MemoryStore> {
        let (broker, store) = (Arc::new(self.broker.clone()), Arc::new(self.store.clone()));
        let (queue, options) = (self.queue.clone(), ClientOptions::default());
        let client = Client::open(broker, store, queue, options, Events::ignored()).await.unwrap();
        Driver::new(client, Lease::DEFAULT, None, Events::ignored())
    }

    fn source(&self) -> Source<StreamError> {
        Source {
            target: Target { model_id: self.model_id, form: None, key: None },
            payload_bytes: 4,
            make: Arc::new(|| {
                let (bytes, receipt, planned) = (b"rows".to_vec(), Some(RECEIPT), None);
                Ok(Payload { rows: 1, owner: None, bytes, receipt, planned })
            }),
        }
    }

    fn sink<const OUTLIVES: bool>(&self, earlier: Option<JobId>) -> Sink<Recording<OUTLIVES>> {
        let told = Arc::clone(&self.told);
        Sink { read: Arc::new(|outputs, _| Ok(outputs)), journal: Recording { told, earlier } }
    }

    /// Answers a job, whether or not it is in the queue.
    async fn reply(&self, job: JobId, version: ProtocolVersion, outcome: Outcome) {
        let reply = Reply {
            version,
            job,
            correlation_id: None,
            model_id: Some(self.model_id),
            owner_id: None,
            manifest_id: None,
            worker: "worker".into(),
            timings: Timings::default(),
            trace: None,
            outcome,
        };
        self.broker.publish(&reply.to_message(&self.queue)).await.unwrap();
    }

    /// Takes a job out of the queue, and does not answer it.
    async fn take_job(&self) -> JobId {
        let queue = job_queue(self.model_id, Lane::default());
        let queues = [QueuePrefetch { queue, prefetch: 1 }];
        let mut subscription = self.broker.subscribe(&queues).await.unwrap();
        let delivery = subscription.next().await.unwrap();
        delivery.settlement.settle(Disposition::Ack).await.unwrap();
        Job::from_message(&delivery.message).unwrap().id
    }

    /// Answers jobs with these outcomes, one after the other. Returns their ids.
    async fn answer(&self, outcomes: Vec<Outcome>) -> Vec<JobId> {
        let queue = job_queue(self.model_id, Lane::default());
        let queues = [QueuePrefetch { queue, prefetch: 1 }];
        let mut subscription = self.broker.subscribe(&queues).await.unwrap();
        let mut jobs = Vec::new();
        for outcome in outcomes {
            let delivery = subscription.next().await.unwrap();
            let job = Job::from_message(&delivery.message).unwrap();
            jobs.push(job.id);
            self.versions.lock().unwrap().push(job.version);
            self.reply(job.id, job.version, outcome).await;
            delivery.settlement.settle(Disposition::Ack).await.unwrap();
        }
        jobs
    }
}

/// A job that an earlier process published.
fn earlier_job(job: JobId, model_id: ModelId) -> InFlight {
    InFlight { job, model_id, owner_id: None, version: None, payload: None }
}

fn failed(code: ErrorCode) -> Outcome {
    Outcome::Failed { code, reason: "on request".into() }
}

fn scored() -> Outcome {
    Outcome::Scored(Body::Inline(b"outputs".to_vec()))
}

#[tokio::test]
async fn a_journal_is_told_of_each_step_before_the_next() {
    let world = World::new().await;
    let mut driver = world.driver().await;
    driver.listen();
    let (source, sink) = (world.source(), world.sink::<true>(None));
    let mut unit = driver.unit::<Recording<true>>();
    let outcomes = vec![failed(ErrorCode::DeadlineExceeded), scored()];
    let (end, jobs) = tokio::join!(driver.run(&mut unit, &source, &sink), world.answer(outcomes));
    assert_eq!(end.unwrap(), Ok(b"outputs".to_vec()));
    let told = ["begin", "published", "begin after another", "published", "results"];
    assert_eq!(*world.told.lock().unwrap(), told);
    assert_ne!(jobs[0], jobs[1]);
    assert_eq!(unit.counts(), Counts { begun: 2, published: 2, again: 1 });
}

#[tokio::test]
async fn what_has_no_remedy_ends_a_unit() {
    let world = World::new().await;
    let mut driver = world.driver().await;
    driver.listen();
    let (source, sink) = (world.source(), world.sink::<true>(None));
    let mut unit = driver.unit::<Recording<true>>();
    let outcomes = vec![failed(ErrorCode::Poison)];
    let (end, _) = tokio::join!(driver.run(&mut unit, &source, &sink), world.answer(outcomes));
    assert_eq!(end.unwrap(), Err("poison: on request".to_owned()));
    assert_eq!(*world.told.lock().unwrap(), ["begin", "published", "failure"]);
}

/// Outputs are read with the receipt of their job, whichever process made it.
#[tokio::test]
async fn outputs_are_read_with_the_receipt_of_their_job() {
    let world = World::new().await;
    let earlier = JobId::random();
    let mut driver = world.driver().await;
    let of_earlier = Receipt(Digest::from_bytes([6; 32]));
    let mut unit = driver.unit::<Recording<true>>();
    unit.expect(earlier_job(earlier, world.model_id), Some(of_earlier)).unwrap();
    driver.listen();
    let source = world.source();
    let read = Arc::new(Mutex::new(Vec::new()));
    let reading = Arc::clone(&read);
    let sink = Sink {
        read: Arc::new(move |outputs, receipt| {
            reading.lock().unwrap().push(receipt);
            Ok(outputs)
        }),
        ..world.sink::<true>(None)
    };
    let (end, _) =
        tokio::join!(driver.run(&mut unit, &source, &sink), world.answer(vec![scored()]));
    end.unwrap().unwrap();
    assert_eq!(*read.lock().unwrap(), [Some(RECEIPT)]);

    let unit = driver.unit::<Recording<true>>();
    let job = JobId::random();
    unit.expect(earlier_job(job, world.model_id), Some(of_earlier)).unwrap();
    unit.accept(job);
    assert_eq!(unit.jobs.receipt(job), Some(of_earlier));
}

/// Whoever makes bad replies is not shown that they were.
#[tokio::test]
async fn nothing_follows_a_reply_that_is_final() {
    for is_final in [true, false] {
        let world = World::new().await;
        let mut driver = world.driver().await;
        driver.listen();
        let source = world.source();
        let mut outcomes = vec![scored()];
        outcomes.extend((!is_final).then(scored));
        let first = Arc::new(Mutex::new(true));
        let sink = Sink {
            read: Arc::new(move |outputs, _| match std::mem::take(&mut *first.lock().unwrap()) {
                true if is_final => Err(Unreadable::Final("bad".into(), Finality::BadReply)),
                true => Err(Unreadable::Passing("bad".into())),
                false => Ok(outputs),
            }),
            ..world.sink::<true>(None)
        };
        let mut unit = driver.unit::<Recording<true>>();
        let (end, jobs) =
            tokio::join!(driver.run(&mut unit, &source, &sink), world.answer(outcomes));
        let expected = if is_final { Err("bad".to_owned()) } else { Ok(b"outputs".to_vec()) };
        assert_eq!(end.unwrap(), expected);
        for job in jobs {
            let marks = world.store.marks(&"tenant".parse().unwrap(), job).await.unwrap();
            assert!(!marks.cancelled);
        }
    }
}

/// A second job of the unit is counted on when a bad reply to the first one comes.
#[tokio::test]
async fn a_final_reply_ends_a_unit_whichever_of_its_jobs_it_answers() {
    for is_good in [true, false] {
        let world = World::new().await;
        let earlier = JobId::random();
        let mut driver = world.driver().await;
        let mut unit = driver.unit::<Recording<true>>();
        unit.expect(earlier_job(earlier, world.model_id), None).unwrap();
        unit.accept(earlier);
        driver.listen();
        let source = world.source();
        let sink = Sink {
            read: Arc::new(move |outputs, _| match is_good {
                true => Ok(outputs),
                false => Err(Unreadable::Final("bad".into(), Finality::BadReply)),
            }),
            ..world.sink::<true>(None)
        };
        let (end, second) = tokio::join!(driver.run(&mut unit, &source, &sink), async {
            let second = world.take_job().await;
            world.reply(earlier, ProtocolVersion::V2, scored()).await;
            second
        });
        let (expected, told) = match is_good {
            true => (Ok(b"outputs".to_vec()), "results"),
            false => (Err("bad".to_owned()), "failure"),
        };
        assert_eq!(end.unwrap(), expected);
        assert_eq!(*world.told.lock().unwrap(), ["begin", "published", told]);
        for job in [earlier, second] {
            let marks = world.store.marks(&"tenant".parse().unwrap(), job).await.unwrap();
            assert!(!marks.cancelled);
        }
    }
}

/// A reply that cannot be counted waits for a process that can.
#[tokio::test]
async fn a_reply_without_a_log_ends_the_process_and_not_the_unit() {
    let world = World::new().await;
    let mut driver = world.driver().await;
    driver.listen();
    let source = world.source();
    let sink = Sink {
        read: Arc::new(|_, _| Err(EncryptionError::KeyLog("no space".into()).into())),
        ..world.sink::<true>(None)
    };
    let mut unit = driver.unit::<Recording<true>>();
    let (end, jobs) =
        tokio::join!(driver.run(&mut unit, &source, &sink), world.answer(vec![scored()]));
    assert_eq!(end.unwrap_err().to_string(), "no space");
    assert_eq!(*world.told.lock().unwrap(), ["begin", "published"]);
    drop((unit, driver));

    // The next process has the reply, and its log.
    let mut driver = world.driver().await;
    let mut unit = driver.unit::<Recording<true>>();
    unit.expect(earlier_job(jobs[0], world.model_id), None).unwrap();
    unit.accept(jobs[0]);
    driver.listen();
    let sink = world.sink::<true>(None);
    let arrived = unit.next().await.unwrap();
    let Taken::Ended(end) = driver.take(&unit, &sink, arrived).await.unwrap() else {
        panic!("the reply has results")
    };
    assert_eq!(end, Ok(b"outputs".to_vec()));
}

#[tokio::test]
async fn rows_of_a_form_of_its_own_are_not_sent_to_workers_that_do_not_know_it() {
    let world = World::new().await;
    let mut driver = world.driver().await;
    driver.listen();
    let mut source = world.source();
    source.target.form = Some(FormName::Rows);
    let sink = world.sink::<true>(None);
    let mut unit = driver.unit::<Recording<true>>();
    let outcomes = vec![failed(ErrorCode::UnsupportedVersion)];
    let (end, _) = tokio::join!(driver.run(&mut unit, &source, &sink), world.answer(outcomes));
    let said = end.unwrap_err().to_string();
    assert!(said.contains("upgrade it"), "{said}");
}

/// A worker that is not upgraded yet takes the jobs of its own models.
#[tokio::test]
async fn an_old_worker_of_one_model_does_not_keep_rows_from_another_ones() {
    let mut world = World::new().await;
    let mut driver = world.driver().await;
    driver.listen();
    let sink = world.sink::<true>(None);
    let mut unit = driver.unit::<Recording<true>>();
    let (source, outcomes) =
        (world.source(), vec![failed(ErrorCode::UnsupportedVersion), scored()]);
    let (end, _) = tokio::join!(driver.run(&mut unit, &source, &sink), world.answer(outcomes));
    end.unwrap().unwrap();

    world.model_id = ModelId::of(b"another model");
    let topology = Topology::of_model(world.model_id);
    world.broker.declare(&topology, Declare::Create).await.unwrap();
    let mut source = world.source();
    source.target.form = Some(FormName::Rows);
    let mut unit = driver.unit::<Recording<true>>();
    let run = driver.run(&mut unit, &source, &sink);
    let (end, _) = tokio::join!(run, world.answer(vec![scored()]));
    assert_eq!(end.unwrap(), Ok(b"outputs".to_vec()));
    let (v1, v2) = (ProtocolVersion::V1, ProtocolVersion::V2);
    assert_eq!(*world.versions.lock().unwrap(), [v2, v1, v2]);
}

#[tokio::test]
async fn what_a_worker_does_not_speak_is_said_in_an_older_version() {
    let world = World::new().await;
    let mut driver = world.driver().await;
    driver.listen();
    let (source, sink) = (world.source(), world.sink::<true>(None));
    let (v1, v2) = (ProtocolVersion::V1, ProtocolVersion::V2);
    let spoken = || std::mem::take(&mut *world.versions.lock().unwrap());

    let mut unit = driver.unit::<Recording<true>>();
    let outcomes = vec![failed(ErrorCode::UnsupportedVersion), scored()];
    let (end, jobs) = tokio::join!(driver.run(&mut unit, &source, &sink), world.answer(outcomes));
    assert_eq!((end.unwrap(), spoken()), (Ok(b"outputs".to_vec()), vec![v2, v1]));
    assert_ne!(jobs[0], jobs[1], "nobody sees two encryptions under one id");

    // The next unit does not ask again; where there is no older version, it fails.
    let mut unit = driver.unit::<Recording<true>>();
    let outcomes = vec![failed(ErrorCode::UnsupportedVersion)];
    let (end, _) = tokio::join!(driver.run(&mut unit, &source, &sink), world.answer(outcomes));
    let expected = Err("unsupported_version: on request".to_owned());
    assert_eq!((end.unwrap(), spoken()), (expected, vec![v1]));
}

/// The answer that came while nobody listened is not lost, and the job keeps its id.
#[tokio::test]
async fn a_journal_may_say_which_job_it_is() {
    let world = World::new().await;
    let (earlier, model_id) = (JobId::random(), world.model_id);
    let mut driver = world.driver().await;
    let mut unit = driver.unit::<Recording<true>>();
    unit.expect(earlier_job(earlier, model_id), None).unwrap();
    driver.listen();
    let (source, sink) = (world.source(), world.sink::<true>(Some(earlier)));
    let (end, jobs) =
        tokio::join!(driver.run(&mut unit, &source, &sink), world.answer(vec![scored()]));
    assert_eq!((end.unwrap(), jobs), (Ok(b"outputs".to_vec()), vec![earlier]));
}

#[tokio::test]
async fn a_job_that_is_overdue_is_followed_by_another() {
    let world = World::new().await;
    let (earlier, model_id) = (JobId::random(), world.model_id);
    let mut driver = world.driver().await;
    let mut unit = driver.unit::<Recording<true>>();
    unit.expect(earlier_job(earlier, model_id), None).unwrap();
    unit.accept(earlier);
    unit.await_answer(Ticket { job: earlier, deadline: None, due: Some(Instant::now()) });
    driver.listen();
    let sink = world.sink::<true>(None);
    let arrived = unit.next().await.unwrap();
    assert!(matches!(arrived, Arrived::Overdue(job) if job == earlier));
    let Taken::Without(without) = driver.take(&unit, &sink, arrived).await.unwrap() else {
        panic!("an overdue job has no results")
    };
    assert!(without.may_pass() && !unit.awaits());
    driver.put_off(&unit, &sink, without).await.unwrap();
    // There was no reply that could be lost.
    assert!(world.told.lock().unwrap().is_empty());
}

/// Drops a unit whose job is at the broker. Returns whether it was cancelled.
async fn is_taken_back<const OUTLIVES: bool>() -> bool {
    let world = World::new().await;
    let mut driver = world.driver().await;
    driver.listen();
    let (source, sink) = (world.source(), world.sink::<OUTLIVES>(None));
    let mut unit = driver.unit::<Recording<OUTLIVES>>();
    let queue = job_queue(world.model_id, Lane::default());
    let queues = [QueuePrefetch { queue, prefetch: 1 }];
    let mut subscription = world.broker.subscribe(&queues).await.unwrap();
    let delivery = tokio::select! {
        _ = driver.run(&mut unit, &source, &sink) => panic!("nobody answered"),
        delivery = subscription.next() => delivery.unwrap(),
    };
    let job = Job::from_message(&delivery.message).unwrap();
    drop(unit);
    // What is spawned runs while this waits.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    world.store.marks(&job.tenant, job.id).await.unwrap().cancelled
}

#[tokio::test]
async fn jobs_are_left_to_a_later_process_or_taken_back() {
    assert!(is_taken_back::<false>().await);
    assert!(!is_taken_back::<true>().await);
}
