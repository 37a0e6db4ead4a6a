//! Who has which slot, and computes where.

use super::*;

fn taken(slot: Option<Slot>) -> Taken {
    slot.unwrap().taken().unwrap()
}

#[test]
fn quick_jobs_have_all_slots_while_no_job_is_long_and_one_while_some_are() {
    let slots = Arc::new(Slots::new(2));
    let first = slots.take(Need::Quick).unwrap();
    let second = slots.take(Need::Quick).unwrap();
    let third = slots.take(Need::Quick).unwrap();
    let kinds = [&first, &second, &third].map(|slot| slot.taken().unwrap());
    let ordinary = Taken::Ordinary { is_long: false };
    assert_eq!(kinds, [ordinary, ordinary, Taken::Reserved]);
    assert!(slots.take(Need::Quick).is_none() && slots.take(Need::Ordinary).is_none());
    assert_eq!((slots.busy(), slots.is_reserved_busy()), (2, true));
    drop((second, third));

    let long = slots.take(Need::Ordinary).unwrap();
    assert_eq!(taken(slots.take(Need::Quick)), Taken::Reserved);
    drop(first);
    // A slot is free, and its threads are those of the long job.
    let reserved = slots.take(Need::Quick).unwrap();
    assert_eq!(reserved.taken(), Some(Taken::Reserved));
    assert!(slots.take(Need::Quick).is_none());
    assert!(slots.take(Need::Ordinary).is_some());
    drop(long);
    assert_eq!(taken(slots.take(Need::Quick)), ordinary);
}

#[test]
fn a_quick_job_beside_a_long_one_computes_on_the_reserved_thread_whichever_slot_it_has() {
    let (slots, pools) = (Arc::new(Slots::new(2)), Pools::start(1).unwrap());
    let is_reserved = |slot: &Slot| std::ptr::eq(pools.of(slot), &pools.reserved);
    let quick = slots.take(Need::Quick).unwrap();
    assert!(!is_reserved(&quick));
    let long = slots.take(Need::Ordinary).unwrap();
    assert_eq!((is_reserved(&quick), is_reserved(&long)), (true, false));
    drop(long);
    assert!(!is_reserved(&quick));
}

#[test]
fn what_hangs_is_silent_whatever_the_other_threads_compute() {
    const SHORT: Duration = Duration::from_millis(20);
    let pools = Pools::start(1).unwrap();
    for (hangs, other) in [(&pools.ordinary, &pools.reserved), (&pools.reserved, &pools.ordinary)] {
        let _hangs = hangs.progress.begin();
        std::thread::sleep(SHORT);
        drop(other.progress.begin());
        let _works = other.progress.begin();
        let silence = pools.silence();
        assert!(silence >= SHORT - Duration::from_millis(1), "{silence:?}");
    }
    assert_eq!(pools.silence(), Duration::ZERO, "nothing is computed");
}

#[test]
fn long_jobs_never_have_the_reserved_slot() {
    let slots = Arc::new(Slots::new(1));
    let _long = slots.take(Need::Ordinary).unwrap();
    assert!(slots.take(Need::Ordinary).is_none());
    assert!(!slots.is_reserved_busy());
}

#[test]
fn alone_is_beside_nothing() {
    let slots = Arc::new(Slots::new(2));
    for need in [Need::Quick, Need::Ordinary] {
        let other = slots.take(need);
        assert!(slots.take(Need::Alone).is_none());
        drop(other);
    }
    let long = slots.take(Need::Ordinary);
    let reserved = slots.take(Need::Quick);
    drop(long);
    assert!(slots.take(Need::Alone).is_none(), "a quick job is evaluated");
    drop(reserved);
    let alone = slots.take(Need::Alone).unwrap();
    assert_eq!((slots.busy(), slots.is_reserved_busy()), (2, true));
    assert!(slots.take(Need::Quick).is_none() && slots.take(Need::Ordinary).is_none());
    drop(alone);
    assert_eq!((slots.busy(), slots.is_reserved_busy()), (0, false));
}

/// Waits until something is so.
async fn until(slots: &Slots, is_so: impl Fn(&State) -> bool) {
    while !is_so(&slots.lock()) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_quick_job_that_waits_leaves_its_slot_to_others_and_is_served_first() {
    let slots = Arc::new(Slots::new(1));
    let long = slots.take(Need::Ordinary).unwrap();
    let quick = slots.take(Need::Quick).unwrap();
    quick.wait(std::future::ready(())).await;
    assert!(slots.is_reserved_busy(), "there was nothing to wait for");
    let (key, fetched) = tokio::sync::oneshot::channel();
    let waiting = tokio::spawn(async move {
        quick.wait(fetched).await.unwrap();
        quick
    });
    until(&slots, |state| state.paused == 1).await;
    let other = slots.take(Need::Quick).unwrap();
    assert_eq!(other.taken(), Some(Taken::Reserved));
    key.send(()).unwrap();
    until(&slots, |state| state.resuming == 1).await;
    assert!(!waiting.is_finished());
    drop(other);
    assert!(slots.take(Need::Quick).is_none(), "who has begun goes first");
    let quick = waiting.await.unwrap();
    assert_eq!(quick.taken(), Some(Taken::Reserved));
    {
        let state = slots.lock();
        assert_eq!((state.paused, state.resuming), (0, 0));
    }
    drop(quick);
    assert!(slots.take(Need::Quick).is_some());
    // A long one keeps its slot, which bounds how many wait.
    let busy = tokio::spawn(async move {
        long.wait(tokio::task::yield_now()).await;
        long
    });
    assert_eq!(slots.busy(), 1);
    drop(busy.await.unwrap());
    assert_eq!(slots.busy(), 0);
}

#[tokio::test]
async fn who_runs_alone_waits_for_quick_jobs_that_wait() {
    let slots = Arc::new(Slots::new(1));
    let quick = slots.take(Need::Quick).unwrap();
    let waiting = tokio::spawn(async move { quick.wait(std::future::pending::<()>()).await });
    until(&slots, |state| state.paused == 1).await;
    assert_eq!((slots.busy(), slots.is_reserved_busy()), (0, false));
    assert!(slots.take(Need::Alone).is_none());
    // One that gives up waits for nothing.
    waiting.abort();
    assert!(waiting.await.is_err_and(|error| error.is_cancelled()));
    assert!(slots.take(Need::Alone).is_some());
}

#[tokio::test]
async fn what_is_given_back_before_anybody_waits_is_not_missed() {
    let slots = Arc::new(Slots::new(1));
    drop(slots.take(Need::Ordinary));
    let freed = tokio::time::timeout(std::time::Duration::from_secs(60), slots.freed()).await;
    assert!(freed.is_ok());
}
