//! What every store does. Each function wants a store of its own, without anything in it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::fixtures::{bytes, key, lease, presence, read, tenant};
use crate::{
    Blob, BlobKind, BlobName, BlobReader, BlobStore, CHUNK_BYTES, Digest, ErrorClass,
    EvaluationKeyId, JobId, Lease, MAX_PRESENCE_BYTES, MAX_WORKER_LENGTH, MarkStore, Marks,
    ModelId, Presence, PresenceStore, Put, ReleaseStore, StoreError,
};

/// One test for each function of this module. `$new` is an async function that gives a store and
/// whatever must live as long; `$test` is the attribute of a test, such as `tokio::test`.
#[macro_export]
macro_rules! store_contract {
    ($new:path, $test:meta) => {
        $crate::store_contract!(
            $new, $test,
            what_was_put_comes_back,
            the_same_again_is_renewed_and_not_sent,
            a_model_can_be_replaced_while_it_is_read,
            a_lease_ends_unless_it_is_renewed,
            without_a_lease_it_stays,
            what_is_not_there_is_not_found,
            a_list_is_of_one_tenant_and_kind,
            tenants_do_not_see_each_other,
            a_reader_keeps_its_limit,
            payloads_are_blobs_beside_the_others,
            marks_are_of_one_tenant_and_job,
            cancelled_jobs_are_told_in_their_order,
            what_is_released_under_a_key_adds_up,
            workers_are_listed_by_name_until_they_leave,
            a_worker_that_could_not_be_read_back_is_not_listed,
        );
    };
    ($new:path, $test:meta, $($name:ident),* $(,)?) => {
        $(#[$test]
        async fn $name() {
            let (store, _alive) = $new().await;
            $crate::contract::store::$name(&store).await;
        })*
    };
}

/// A blob of any length comes back as it was, chunk by chunk.
pub async fn what_was_put_comes_back<S: BlobStore>(store: &S) {
    for length in [1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES] {
        let body = bytes(length);
        let blob = Blob::evaluation_key(&tenant("a"), body.clone()).unwrap();
        let steps = AtomicU64::new(0);
        let progress = || _ = steps.fetch_add(1, Ordering::Relaxed);
        let put = store.put(&blob, Some(Lease::DEFAULT), &progress).await.unwrap();
        assert_eq!(put, Put::Stored);
        let info = store.info(blob.name()).await.unwrap();
        assert_eq!((info.bytes, info.chunks()), (length as u64, steps.into_inner()));
        assert_eq!(info.sha256, info.name.id);
        assert!(read(store, blob.name()).await.unwrap() == body, "{length} bytes");
    }
}

/// The same bytes under the same name are renewed, and not sent.
pub async fn the_same_again_is_renewed_and_not_sent<S: BlobStore>(store: &S) {
    let blob = key("a");
    store.put(&blob, Some(lease("1h")), &|| ()).await.unwrap();
    let again = store.put(&blob, Some(lease("2h")), &|| panic!("sent again")).await;
    assert_eq!(again.unwrap(), Put::AlreadyThere);
    let left = store.info(blob.name()).await.unwrap().expires_in.unwrap();
    assert!(left > lease("1h").duration() && left <= lease("2h").duration());
}

/// Whoever reads a blob that is replaced gets the old one, or an error: never a mixture.
pub async fn a_model_can_be_replaced_while_it_is_read<S: BlobStore>(store: &S) {
    let (a, id) = (tenant("a"), ModelId::new(key("a").name().id));
    let old = Blob::model(&a, id, bytes(CHUNK_BYTES + 5)).unwrap();
    let new = Blob::model(&a, id, bytes(CHUNK_BYTES + 6)).unwrap();
    store.put(&old, None, &|| ()).await.unwrap();
    let mut reader = BlobReader::open(store, old.name()).await.unwrap();
    let first = reader.next_chunk().await.unwrap().unwrap();
    assert_eq!(store.put(&new, None, &|| ()).await.unwrap(), Put::Stored);
    assert_eq!(read(store, new.name()).await.unwrap(), bytes(CHUNK_BYTES + 6));
    // The old one to its end, or an error that says to read again: never a mixture.
    match reader.next_chunk().await {
        Ok(last) => assert_eq!([first, last.unwrap()].concat(), bytes(CHUNK_BYTES + 5)),
        Err(error) => assert_eq!(error.class(), ErrorClass::Damaged),
    }
}

/// A blob is gone after its lease, unless somebody has renewed it.
pub async fn a_lease_ends_unless_it_is_renewed<S: BlobStore>(store: &S) {
    let (brief, renewed) = (key("brief"), key("renewed"));
    for blob in [&brief, &renewed] {
        store.put(blob, Some(lease("1s")), &|| ()).await.unwrap();
    }
    store.touch(renewed.name(), Some(lease("1h"))).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(class(store.info(brief.name()).await), ErrorClass::NotFound);
    assert_eq!(class(store.touch(brief.name(), None).await), ErrorClass::NotFound);
    assert!(store.list(&tenant("brief"), BlobKind::Key).await.unwrap().is_empty());
    assert!(read(store, renewed.name()).await.is_ok());
}

/// A blob without a lease stays; it can get one, and lose it again.
pub async fn without_a_lease_it_stays<S: BlobStore>(store: &S) {
    let model = Blob::model(&tenant("a"), ModelId::new(key("a").name().id), bytes(9)).unwrap();
    store.put(&model, None, &|| ()).await.unwrap();
    assert_eq!(store.info(model.name()).await.unwrap().expires_in, None);
    store.touch(model.name(), Some(lease("1h"))).await.unwrap();
    assert!(store.info(model.name()).await.unwrap().expires_in.is_some());
    store.touch(model.name(), None).await.unwrap();
    assert_eq!(store.info(model.name()).await.unwrap().expires_in, None);
}

/// What was removed is not found, whatever is asked of it.
pub async fn what_is_not_there_is_not_found<S: BlobStore>(store: &S) {
    let blob = key("a");
    store.put(&blob, Some(Lease::DEFAULT), &|| ()).await.unwrap();
    store.remove(blob.name()).await.unwrap();
    let name = blob.name();
    assert_eq!(class(store.info(name).await), ErrorClass::NotFound);
    assert_eq!(class(read(store, name).await), ErrorClass::NotFound);
    assert_eq!(class(store.touch(name, Some(Lease::DEFAULT)).await), ErrorClass::NotFound);
    assert_eq!(class(store.remove(name).await), ErrorClass::NotFound);
}

/// A list has the blobs of one tenant and kind, by id.
pub async fn a_list_is_of_one_tenant_and_kind<S: BlobStore>(store: &S) {
    let a = tenant("a");
    let mut keys: Vec<_> =
        (1..=3).map(|length| Blob::evaluation_key(&a, bytes(length)).unwrap()).collect();
    let model = Blob::model(&a, ModelId::new(key("a").name().id), bytes(9)).unwrap();
    for blob in keys.iter().chain([&model, &key("a-b")]) {
        store.put(blob, Some(Lease::DEFAULT), &|| ()).await.unwrap();
    }
    keys.sort_by(|left, right| left.name().cmp(right.name()));
    let names = |blobs: &[Blob]| blobs.iter().map(|blob| blob.name().clone()).collect::<Vec<_>>();
    for (kind, expected) in [(BlobKind::Key, names(&keys)), (BlobKind::Model, names(&[model]))] {
        let found = store.list(&a, kind).await.unwrap();
        assert_eq!(found.into_iter().map(|info| info.name).collect::<Vec<_>>(), expected);
    }
}

/// The blob of one tenant is not there for another one.
pub async fn tenants_do_not_see_each_other<S: BlobStore>(store: &S) {
    let theirs = key("theirs");
    store.put(&theirs, Some(Lease::DEFAULT), &|| ()).await.unwrap();
    let id = EvaluationKeyId::new(theirs.name().id);
    let ours = BlobName::evaluation_key(&tenant("ours"), id);
    assert_eq!(class(store.info(&ours).await), ErrorClass::NotFound);
    assert_eq!(class(store.touch(&ours, None).await), ErrorClass::NotFound);
    assert_eq!(class(store.remove(&ours).await), ErrorClass::NotFound);
    assert!(store.list(&tenant("ours"), BlobKind::Key).await.unwrap().is_empty());
    assert!(read(store, theirs.name()).await.is_ok());
}

/// A reader refuses what is larger than it was told.
pub async fn a_reader_keeps_its_limit<S: BlobStore>(store: &S) {
    let blob = Blob::evaluation_key(&tenant("a"), bytes(100)).unwrap();
    store.put(&blob, Some(Lease::DEFAULT), &|| ()).await.unwrap();
    let reader = BlobReader::open(store, blob.name()).await.unwrap();
    let refused = reader.read_all(99).await.unwrap_err();
    assert!(matches!(refused, StoreError::TooLarge { bytes: 100, limit: 99, .. }), "{refused}");
}

/// Rows and outputs are blobs of their own kinds, whose chunks have their digests.
pub async fn payloads_are_blobs_beside_the_others<S: BlobStore>(store: &S) {
    let (a, body) = (tenant("a"), bytes(CHUNK_BYTES + 7));
    let mut names = Vec::new();
    for kind in [BlobKind::Job, BlobKind::Reply] {
        let (blob, stored) = Blob::payload(&a, kind, body.clone()).unwrap();
        store.put(&blob, Some(Lease::DEFAULT), &|| ()).await.unwrap();
        let info = store.info(blob.name()).await.unwrap();
        assert_eq!((info.sha256, info.bytes, info.name.kind), (stored.sha256, stored.bytes, kind));
        // What is used before the last chunk is there is checked by its own digest.
        assert_eq!(stored.chunks.len() as u64, info.chunks());
        for (index, digest) in (0..).zip(&stored.chunks) {
            let chunk = store.chunk(&info, index).await.unwrap();
            assert_eq!(Digest::of(&chunk), *digest);
        }
        names.push(blob.name().clone());
    }
    let [job, reply] = &names[..] else { panic!("two blobs") };
    assert_eq!(job.id, reply.id);
    store.remove(job).await.unwrap();
    assert_eq!(class(store.info(job).await), ErrorClass::NotFound);
    assert!(read(store, reply).await.unwrap() == body);
}

/// A mark is of one tenant and job, and may be set again.
pub async fn marks_are_of_one_tenant_and_job<S: MarkStore>(store: &S) {
    let (a, b, job, other) = (tenant("a"), tenant("b"), JobId::random(), JobId::random());
    assert_eq!(store.marks(&a, job).await.unwrap(), Marks::default());
    store.mark_done(&a, job).await.unwrap();
    assert_eq!(store.marks(&a, job).await.unwrap(), Marks { done: true, cancelled: false });
    for _ in 0..2 {
        store.mark_cancelled(&a, job).await.unwrap();
    }
    assert_eq!(store.marks(&a, job).await.unwrap(), Marks { done: true, cancelled: true });
    assert_eq!(store.marks(&b, job).await.unwrap(), Marks::default());
    assert_eq!(store.marks(&a, other).await.unwrap(), Marks::default());
}

/// What is released under a key of a tenant adds up.
pub async fn what_is_released_under_a_key_adds_up<S: ReleaseStore>(store: &S) {
    let (a, b) = (tenant("a"), tenant("b"));
    let ids = ["one", "other"].map(|text| EvaluationKeyId::new(Digest::of(text.as_bytes())));
    assert_eq!(store.released(&a, ids[0]).await.unwrap(), 0);
    assert_eq!(store.count_released(&a, ids[0], 8192).await.unwrap(), 8192);
    assert_eq!(store.count_released(&a, ids[0], 1 << 33).await.unwrap(), 8192 + (1 << 33));
    assert_eq!(store.released(&a, ids[0]).await.unwrap(), 8192 + (1 << 33));
    assert_eq!(store.released(&a, ids[1]).await.unwrap(), 0);
    assert_eq!(store.released(&b, ids[0]).await.unwrap(), 0);
}

/// Which of many jobs are cancelled is told in their order.
pub async fn cancelled_jobs_are_told_in_their_order<S: MarkStore>(store: &S) {
    assert_eq!(store.cancelled(&[]).await.unwrap(), [false; 0]);
    let jobs: Vec<_> = (0..1001)
        .map(|number| (tenant(if number % 2 == 0 { "a" } else { "b" }), JobId::random()))
        .collect();
    let cancelled = [0, 499, 500, 501, 1000];
    for number in cancelled {
        let (tenant, job) = &jobs[number];
        store.mark_cancelled(tenant, *job).await.unwrap();
    }
    store.mark_done(&jobs[1].0, jobs[1].1).await.unwrap();
    let found = store.cancelled(&jobs).await.unwrap();
    let expected: Vec<_> = (0..jobs.len()).map(|number| cancelled.contains(&number)).collect();
    assert_eq!(found, expected);
}

/// Workers are listed by name, each once, until they leave.
pub async fn workers_are_listed_by_name_until_they_leave<S: PresenceStore>(store: &S) {
    assert!(store.workers().await.unwrap().is_empty());
    let (mut first, second) = (presence("a-7.example_X"), presence("b"));
    store.announce(&second).await.unwrap();
    store.announce(&first).await.unwrap();
    first.jobs = 3;
    store.announce(&first).await.unwrap();
    assert_eq!(store.workers().await.unwrap(), [first, second.clone()]);
    for _ in 0..2 {
        store.leave("a-7.example_X").await.unwrap();
    }
    assert_eq!(store.workers().await.unwrap(), [second]);
}

/// A worker that could not be read back is refused.
pub async fn a_worker_that_could_not_be_read_back_is_not_listed<S: PresenceStore>(store: &S) {
    let longest = "a".repeat(MAX_WORKER_LENGTH);
    store.announce(&presence(&longest)).await.unwrap();
    store.leave(&longest).await.unwrap();
    for name in ["", "a:b", "a b", "ä", "a\n", "*", &format!("{longest}a")] {
        assert_eq!(store.announce(&presence(name)).await, Err(StoreError::InvalidPresence));
        assert_eq!(store.leave(name).await, Err(StoreError::InvalidPresence), "{name}");
    }
    let model = ModelId::new(key("a").name().id);
    let models = vec![model; MAX_PRESENCE_BYTES / 64];
    let version = "1\u{1b}[2J".to_owned();
    for wrong in
        [Presence { models, ..presence("many") }, Presence { version, ..presence("escape") }]
    {
        assert_eq!(store.announce(&wrong).await, Err(StoreError::InvalidPresence));
    }
    assert!(store.workers().await.unwrap().is_empty());
}

fn class<T>(result: Result<T, StoreError>) -> ErrorClass {
    result.map(|_| "success").unwrap_err().class()
}
