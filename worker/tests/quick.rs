//! Jobs that are planned to be over soon do not wait for those that take long.

use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use bytesize::ByteSize;
use cipherscore_common::broker::MemoryBroker;
use cipherscore_common::message::{JobTerms, Outcome};
use cipherscore_common::topology::Lane;
use cipherscore_common::{MemoryStore, ModelId};
use cipherscore_engine::evaluator::{
    Evaluation, EvaluationError, Evaluator, JobFootprint, PreparedKey, Requirements, Stop,
};
use cipherscore_ids::KeysetId;
use cipherscore_worker::config::WorkerConfig;

use crate::overlap::Counting;
use crate::support::{PATIENCE, Tester, open_worker};

/// What evaluations have begun, and whether those that take long may end.
#[derive(Default)]
struct Gate {
    state: Mutex<(usize, bool)>,
    changed: Condvar,
}

impl Gate {
    /// One begins, and ends when the gate is open.
    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.0 += 1;
        self.changed.notify_all();
        drop(self.changed.wait_while(state, |(_, is_open)| !*is_open).unwrap());
    }

    fn begun(&self) -> usize {
        self.state.lock().unwrap().0
    }

    fn wait_for(&self, begun: usize) {
        let state = self.state.lock().unwrap();
        let waited = self.changed.wait_timeout_while(state, PATIENCE, |(found, _)| *found < begun);
        assert!(!waited.unwrap().1.timed_out(), "not so many begin");
    }

    fn open(&self) {
        self.state.lock().unwrap().1 = true;
        self.changed.notify_all();
    }
}

/// A model that plans so long for a row, and takes until its gate is open, if it has one.
struct Planned {
    name: &'static [u8],
    planned: Option<Duration>,
    gate: Option<Arc<Gate>>,
    memory_bytes: usize,
}

impl Evaluator for Planned {
    fn requirements(&self) -> Requirements {
        Requirements {
            model_id: ModelId::of(self.name),
            keyset_id: KeysetId::of(b"none"),
            needs_key: false,
            max_key_bytes: 0,
            prepared_key_bytes: 0,
            is_quick: false,
        }
    }

    fn footprint(&self, rows: u32) -> JobFootprint {
        let planned = self.planned.map(|planned| planned * rows);
        JobFootprint { memory_bytes: self.memory_bytes, max_input_bytes: 100, planned }
    }

    fn prepare(&self, _: Vec<u8>) -> Result<PreparedKey, EvaluationError> {
        Err(EvaluationError::NotConformant("there are no keys".into()))
    }

    fn start(
        self: Arc<Self>,
        _: Option<&PreparedKey>,
        _: NonZeroU32,
    ) -> Result<Box<dyn Evaluation>, EvaluationError> {
        Ok(Box::new(Row(self)))
    }
}

struct Row(Arc<Planned>);

impl Evaluation for Row {
    fn push(&mut self, _: &[u8], _: Stop<'_>) -> Result<(), EvaluationError> {
        self.0.gate.iter().for_each(|gate| gate.pass());
        Ok(())
    }

    fn finish(self: Box<Self>, _: Stop<'_>) -> Result<Vec<u8>, EvaluationError> {
        Ok(b"done".to_vec())
    }
}

/// A worker all of whose slots compute something long, on all of its threads.
async fn quick_jobs_are_answered_meanwhile(slots: usize) {
    let (broker, store) = (MemoryBroker::default(), MemoryStore::default());
    let mut tester = Tester::new(broker.clone(), store.clone(), "ann").await;
    let change = |config: &mut WorkerConfig| config.worker.threads = NonZeroUsize::new(slots);
    let mut worker = open_worker(&broker, store, change).await;
    let gate = Arc::new(Gate::default());
    let mut add = |name, planned, gate: Option<&Arc<Gate>>| {
        worker.add_model(Arc::new(Planned { name, planned, gate: gate.cloned(), memory_bytes: 1 }))
    };
    let seconds = add(b"seconds", Some(Duration::from_secs(30)), Some(&gate));
    let unknown = add(b"unknown", None, Some(&gate));
    let quick = add(b"quick", Some(Duration::from_millis(20)), None);
    let worker = worker.start().await.unwrap();
    for model in [seconds, unknown, quick] {
        tester.wait_for_worker(model).await;
    }

    let mut publish = Vec::new();
    // One more than there are slots, of those whose time is not known, and that say what is not so.
    for model in std::iter::repeat_n(seconds, slots).chain([seconds, unknown]) {
        let mut job = tester.keyless_job(model, b"row".to_vec());
        job.terms = JobTerms { planned: Some(Duration::from_millis(1)), ..JobTerms::default() };
        publish.push(job);
    }
    for job in &publish {
        tester.publish(job).await;
    }
    tokio::task::block_in_place(|| gate.wait_for(slots));
    for _ in 0..3 {
        let job = tester.keyless_job(quick, b"row".to_vec());
        tester.publish(&job).await;
        let reply = tester.reply().await;
        assert_eq!(reply.job, job.id, "a quick job waits for a long one");
        assert!(matches!(reply.outcome, Outcome::Scored(_)), "{reply:?}");
    }
    assert_eq!(gate.begun(), slots, "a long job has the slot of quick ones");
    // Three rows take 60 ms: no quick job. However many wait here, there is room for a quick one.
    for _ in 0..2 * slots {
        let mut rows = tester.keyless_job(quick, b"rows".to_vec());
        rows.rows = 3;
        tester.publish(&rows).await;
    }
    // Nor is what has to be read from the store, however urgent.
    let mut stored = tester.keyless_job(quick, b"row".to_vec());
    stored.lane = Lane::High;
    tester.store_payload(&mut stored).await;
    tester.publish(&stored).await;
    let job = tester.keyless_job(quick, b"row".to_vec());
    tester.publish(&job).await;
    assert_eq!(tester.reply().await.job, job.id);
    gate.open();
    for _ in 0..publish.len() + 2 * slots + 1 {
        assert!(matches!(tester.reply().await.outcome, Outcome::Scored(_)));
    }
    drop(worker);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_quick_job_does_not_wait_for_long_ones() {
    quick_jobs_are_answered_meanwhile(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_quick_job_does_not_wait_for_the_only_slot_and_thread() {
    quick_jobs_are_answered_meanwhile(1).await;
}

/// It waits for the store with an ordinary slot when the long one begins, on the only thread.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_quick_job_does_not_wait_for_a_long_one_that_began_after_it() {
    let (broker, store) = (MemoryBroker::default(), Counting::default());
    let mut tester = Tester::new(broker.clone(), store.clone(), "ann").await;
    let change = |config: &mut WorkerConfig| {
        config.worker.threads = NonZeroUsize::new(1);
        config.worker.slots = NonZeroUsize::new(2);
    };
    let mut worker = open_worker(&broker, store.clone(), change).await;
    let gate = Arc::new(Gate::default());
    let mut add = |name, planned, gate: Option<&Arc<Gate>>| {
        worker.add_model(Arc::new(Planned { name, planned, gate: gate.cloned(), memory_bytes: 1 }))
    };
    let long = add(b"seconds", Some(Duration::from_secs(30)), Some(&gate));
    let quick = add(b"quick", Some(Duration::from_millis(20)), None);
    let worker = worker.start().await.unwrap();
    for model in [long, quick] {
        tester.wait_for_worker(model).await;
    }

    let job = tester.keyless_job(quick, b"row".to_vec());
    store.held.send_replace(Some(job.id));
    tester.publish(&job).await;
    let asks = async {
        while store.held.receiver_count() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asks).await.expect("the quick job does not ask the store");
    tester.publish(&tester.keyless_job(long, b"row".to_vec())).await;
    tokio::task::block_in_place(|| gate.wait_for(1));
    store.held.send_replace(None);
    assert_eq!(tester.reply().await.job, job.id, "a quick job waits for a long one");
    gate.open();
    assert!(matches!(tester.reply().await.outcome, Outcome::Scored(_)));
    drop(worker);
}

/// It waits for memory that a long one has, with the reserved slot if it kept it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_quick_job_does_not_wait_for_one_that_waits_for_memory() {
    const MEMORY: usize = 64 << 20;
    let (broker, store) = (MemoryBroker::default(), MemoryStore::default());
    let mut tester = Tester::new(broker.clone(), store.clone(), "ann").await;
    let change = |config: &mut WorkerConfig| {
        config.worker.threads = NonZeroUsize::new(1);
        config.worker.memory = ByteSize(MEMORY as u64);
    };
    let mut worker = open_worker(&broker, store, change).await;
    let gate = Arc::new(Gate::default());
    let mut add = |name, planned, gate: Option<&Arc<Gate>>, memory_bytes| {
        let planned = Some(Duration::from_millis(planned));
        worker.add_model(Arc::new(Planned { name, planned, gate: gate.cloned(), memory_bytes }))
    };
    let long = add(b"seconds", 30_000, Some(&gate), MEMORY / 2);
    let large = add(b"large", 20, None, MEMORY / 2 + 1);
    let small = add(b"small", 20, None, 1);
    let worker = worker.start().await.unwrap();
    for model in [long, large, small] {
        tester.wait_for_worker(model).await;
    }

    tester.publish(&tester.keyless_job(long, b"row".to_vec())).await;
    tokio::task::block_in_place(|| gate.wait_for(1));
    let waits = tester.keyless_job(large, b"row".to_vec());
    tester.publish(&waits).await;
    for _ in 0..3 {
        let job = tester.keyless_job(small, b"row".to_vec());
        tester.publish(&job).await;
        assert_eq!(tester.reply().await.job, job.id);
    }
    gate.open();
    for _ in 0..2 {
        assert!(matches!(tester.reply().await.outcome, Outcome::Scored(_)));
    }
    drop(worker);
}
