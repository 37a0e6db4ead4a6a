use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cipherscore_engine::evaluator::{Evaluation, EvaluationError, JobFootprint, Requirements};

use super::*;

fn name(tenant: &str, key: u8) -> KeyName {
    let id = EvaluationKeyId::of(&[key]);
    KeyName { tenant: tenant.parse().unwrap(), id, keyset: KeysetId::of(b"keyset") }
}

fn demand(tenant: &str, key: u8) -> Demand {
    let key = KeyDemand { name: name(tenant, key), prepared_bytes: 100, serialised_bytes: 30 };
    Demand { key: Some(key), job_bytes: 10, is_quick: false, evaluator: None }
}

fn keyless(job_bytes: u64, is_quick: bool) -> Demand {
    Demand { key: None, job_bytes, is_quick, evaluator: None }
}

/// The same of a job of an evaluator.
fn of(demand: Demand, evaluator: &Arc<dyn Evaluator>) -> Demand {
    Demand { evaluator: Some(Arc::clone(evaluator)), ..demand }
}

async fn admit(memory: &Arc<Memory>, demand: Demand) -> Option<Admission> {
    let stop = Stop::new(None);
    let admission = memory.admit(demand, &stop);
    let admission = tokio::time::timeout(Duration::from_millis(50), admission).await;
    admission.ok().map(Result::unwrap)
}

fn used(memory: &Memory) -> (u64, u64) {
    let usage = memory.usage();
    (usage.key_bytes, usage.used_bytes)
}

/// As a job does that has fetched its key.
fn fetched(admission: &Admission) {
    let key = PreparedKey::new(KeysetId::of(b"keyset"), 100, ());
    admission.key().unwrap().set(Arc::new(key)).unwrap();
}

#[tokio::test]
async fn keys_stay_until_their_place_is_needed() {
    let memory = Arc::new(Memory::new(270, 10));
    let first = admit(&memory, demand("a", 1)).await.unwrap();
    fetched(&first);
    drop(first);
    assert_eq!(used(&memory), (100, 100));
    let again = admit(&memory, demand("a", 1)).await.unwrap();
    assert!(again.key().unwrap().initialized());
    // 110 of 270 are used, and the next one takes 130.
    let second = admit(&memory, demand("a", 2)).await.unwrap();
    fetched(&second);
    assert!(admit(&memory, demand("a", 3)).await.is_none(), "there is no room");
    drop(again);
    let third = admit(&memory, demand("a", 3)).await.unwrap();
    assert!(!memory.holds("a", name("a", 1).id), "the idle key makes room");
    assert!(memory.holds("a", name("a", 2).id), "the used one does not");
    // Not fetched: it takes no place afterwards.
    drop((second, third));
    assert_eq!(used(&memory), (100, 100));
    let KeyCacheCounts { hits, misses, evictions } = &memory.counts;
    assert_eq!((hits.get(), misses.get(), evictions.get()), (1, 3, 1));
}

#[tokio::test]
async fn who_waits_is_admitted_in_turn_and_what_cannot_be_is_refused() {
    let memory = Arc::new(Memory::new(150, 10));
    let first = admit(&memory, demand("a", 1)).await.unwrap();
    let waiting = tokio::spawn({
        let memory = memory.clone();
        async move { memory.admit(demand("b", 1), &Stop::new(None)).await.unwrap() }
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    let small = keyless(1, false);
    assert!(admit(&memory, small.clone()).await.is_none(), "nobody overtakes");
    drop(first);
    let second = waiting.await.unwrap();
    assert!(admit(&memory, small).await.is_some());
    drop(second);
    let stop = Stop::new(None);
    let huge = memory.admit(keyless(151, false), &stop).await;
    assert!(matches!(huge, Err(Failure::Refused(refusal))
        if refusal.code == ErrorCode::TooLarge));
}

#[tokio::test]
async fn a_tenant_has_its_share_of_keys() {
    let memory = Arc::new(Memory::new(10_000, 2));
    for key in [1, 2, 3] {
        fetched(&admit(&memory, demand("a", key)).await.unwrap());
        fetched(&admit(&memory, demand("b", key)).await.unwrap());
    }
    let held = |tenant| [1, 2, 3].map(|key| memory.holds(tenant, name(tenant, key).id));
    assert_eq!((held("a"), held("b")), ([false, true, true], [false, true, true]));
    let busy = [2, 3].map(|key| demand("a", key));
    let busy = [admit(&memory, busy[0].clone()).await, admit(&memory, busy[1].clone()).await];
    let waiting = tokio::spawn({
        let memory = memory.clone();
        async move { memory.admit(demand("a", 1), &Stop::new(None)).await.map(drop) }
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(admit(&memory, demand("b", 2)).await.is_some(), "nobody else waits for it");
    assert!(admit(&memory, demand("a", 1)).await.is_none(), "all of its keys are used");
    drop(busy);
    waiting.await.unwrap().unwrap();
    assert!(admit(&memory, demand("a", 1)).await.is_some());
}

#[tokio::test]
async fn quick_jobs_pass_one_that_waits_but_not_for_ever() {
    let memory = Arc::new(Memory::new(150, 10));
    let first = admit(&memory, demand("a", 1)).await.unwrap();
    let wait = |memory: &Arc<Memory>| {
        let memory = memory.clone();
        tokio::spawn(async move { memory.admit(demand("b", 1), &Stop::new(None)).await.unwrap() })
    };
    let waiting = wait(&memory);
    has_its_turn(&memory).await;
    let quick = keyless(1, true);
    let large = Demand { job_bytes: 30, ..quick.clone() };
    assert!(admit(&memory, large).await.is_none(), "there is no room");
    assert_eq!(used(&memory).1, 130, "there is room for what is small");
    for _ in 0..MOST_OVERTAKEN {
        assert!(admit(&memory, quick.clone()).await.is_some());
    }
    assert!(admit(&memory, quick.clone()).await.is_none(), "it was passed often enough");
    // The next one that waits may be passed again, even if this one gives up.
    waiting.abort();
    assert!(waiting.await.is_err_and(|error| error.is_cancelled()));
    let waiting = wait(&memory);
    has_its_turn(&memory).await;
    assert!(admit(&memory, quick).await.is_some(), "another one was passed");
    assert!(!waiting.is_finished());
    drop(first);
    drop(waiting.await.unwrap());
}

/// Waits until somebody waits for room.
async fn has_its_turn(memory: &Memory) {
    while memory.turn.try_lock().is_ok() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_tenant_keeps_its_key_until_there_is_room_for_another() {
    let memory = Arc::new(Memory::new(270, 1));
    fetched(&admit(&memory, demand("a", 1)).await.unwrap());
    let busy = keyless(150, false);
    let busy = admit(&memory, busy).await.unwrap();
    // 150 of 270 are used beside it, and the other one takes 130.
    assert!(admit(&memory, demand("a", 2)).await.is_none(), "there is room");
    assert!(memory.holds("a", name("a", 1).id), "its key is gone, for nothing");
    drop(busy);
    fetched(&admit(&memory, demand("a", 2)).await.unwrap());
    assert!(!memory.holds("a", name("a", 1).id), "it has more than its share");
}

/// An evaluator that keeps memory, and nothing else.
struct Keeps(AtomicUsize);

impl Evaluator for Keeps {
    fn requirements(&self) -> Requirements {
        unreachable!("nobody evaluates")
    }

    fn footprint(&self, _: u32) -> JobFootprint {
        unreachable!("nobody evaluates")
    }

    fn idle_bytes(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    fn release_idle(&self) {
        self.0.store(0, Ordering::SeqCst);
    }

    fn prepare(&self, _: Vec<u8>) -> Result<PreparedKey, EvaluationError> {
        unreachable!("nobody evaluates")
    }

    fn start(
        self: Arc<Self>,
        _: Option<&PreparedKey>,
        _: NonZeroU32,
    ) -> Result<Box<dyn Evaluation>, EvaluationError> {
        unreachable!("nobody evaluates")
    }
}

#[tokio::test]
async fn what_models_keep_is_counted_and_gives_its_place_first() {
    let memory = Arc::new(Memory::new(270, 10));
    let keeps = Arc::new(Keeps(AtomicUsize::new(0)));
    let evaluator: Arc<dyn Evaluator> = keeps.clone();
    let job = admit(&memory, of(demand("a", 1), &evaluator)).await.unwrap();
    fetched(&job);
    keeps.0.store(8, Ordering::SeqCst);
    drop(job);
    assert_eq!(used(&memory), (100, 108));
    // Counted once, however many jobs there were.
    drop(admit(&memory, of(demand("a", 1), &evaluator)).await.unwrap());
    assert_eq!((used(&memory), keeps.idle_bytes()), ((100, 108), 8));
    // 130 and 30 of 270 fit beside it, and 40 do not.
    let second = admit(&memory, demand("a", 2)).await.unwrap();
    fetched(&second);
    let third = keyless(40, false);
    let third = admit(&memory, third).await.unwrap();
    assert_eq!((used(&memory), keeps.idle_bytes()), ((200, 270), 0));
    drop((second, third));
    // With the model goes what it kept.
    keeps.0.store(8, Ordering::SeqCst);
    drop(admit(&memory, of(demand("a", 1), &evaluator)).await.unwrap());
    assert_eq!(used(&memory), (200, 208));
    drop((keeps, evaluator));
    let all = keyless(70, false);
    let _all = admit(&memory, all).await.unwrap();
    assert_eq!(used(&memory), (200, 270));
}

#[tokio::test]
async fn what_was_kept_first_goes_first() {
    let memory = Arc::new(Memory::new(20, 10));
    let keeps = [8, 8].map(|bytes| Arc::new(Keeps(AtomicUsize::new(bytes))));
    let small = keyless(1, false);
    for evaluator in &keeps {
        let evaluator: Arc<dyn Evaluator> = evaluator.clone();
        drop(admit(&memory, of(small.clone(), &evaluator)).await.unwrap());
    }
    let job = admit(&memory, Demand { job_bytes: 10, ..small }).await.unwrap();
    assert_eq!(keeps.each_ref().map(|one| one.idle_bytes()), [0, 8]);
    drop(job);
}

#[tokio::test]
async fn what_a_model_keeps_is_there_for_its_next_job_where_memory_is_short() {
    let memory = Arc::new(Memory::new(130, 10));
    let keeps = Arc::new(Keeps(AtomicUsize::new(0)));
    let evaluator: Arc<dyn Evaluator> = keeps.clone();
    fetched(&admit(&memory, demand("a", 1)).await.unwrap());
    keeps.0.store(8, Ordering::SeqCst);
    let job = |bytes| Demand { job_bytes: bytes, ..of(demand("a", 1), &evaluator) };
    drop(admit(&memory, job(10)).await.unwrap());
    assert_eq!(used(&memory), (100, 108));
    // 8 of its 25 are there already; it does not take 33.
    let next = admit(&memory, job(25)).await.unwrap();
    assert_eq!((used(&memory), keeps.idle_bytes()), ((100, 125), 8));
    drop(next);
    assert_eq!(used(&memory), (100, 108));
    // More is kept than a job takes: all of it is in the job's hands.
    keeps.0.store(20, Ordering::SeqCst);
    drop(admit(&memory, job(10)).await.unwrap());
    let next = admit(&memory, job(10)).await.unwrap();
    assert_eq!((used(&memory), keeps.idle_bytes()), ((100, 120), 20));
    drop(next);
    // Where there is no room for it, it goes.
    let other = Demand { job_bytes: 10, ..of(demand("a", 2), &evaluator) };
    let other = admit(&memory, other).await.unwrap();
    assert_eq!((used(&memory), keeps.idle_bytes()), ((100, 130), 0));
    drop(other);
}
