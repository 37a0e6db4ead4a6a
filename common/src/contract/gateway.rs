//! What every store does for gateways. Each function wants a store of its own, without anything in it.

use std::time::Duration;

use super::fixtures::{bytes, lease, read, tenant};
use crate::{
    BlobKind, BlobName, BlobStore, BlobWriter, CHUNK_BYTES, Digest, ErrorClass, JobId, JobState,
    Lease, NoteName, Put, ResultStore, StoreError, UploadStore,
};

/// One test for each function of this module, as [`store_contract!`](crate::store_contract) makes them.
#[macro_export]
macro_rules! gateway_store_contract {
    ($new:path, $test:meta) => {
        $crate::gateway_store_contract!(
            $new, $test,
            what_was_sent_in_pieces_comes_back,
            the_same_sent_again_is_renewed,
            what_is_given_up_is_not_there,
            nothing_is_no_blob,
            a_note_is_made_once,
            a_result_is_kept_once_and_settled_once,
            a_feed_has_its_order,
            feeds_and_results_are_of_one_tenant,
            notes_and_results_expire,
        );
    };
    ($new:path, $test:meta, $($name:ident),* $(,)?) => {
        $(#[$test]
        async fn $name() {
            let (store, _alive) = $new().await;
            $crate::contract::gateway::$name(&store).await;
        })*
    };
}

/// A blob of any length, in pieces of any length, is the same blob as one that was put.
pub async fn what_was_sent_in_pieces_comes_back<S: UploadStore + BlobStore>(store: &S) {
    let lengths = [1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES];
    for (length, piece) in lengths.into_iter().zip([1, 1000, CHUNK_BYTES, 77_777, CHUNK_BYTES * 2])
    {
        let body = bytes(length);
        let mut writer = BlobWriter::new(store, &tenant("a"), BlobKind::Job);
        for piece in body.chunks(piece) {
            writer.push(piece).await.unwrap();
        }
        assert_eq!((writer.bytes(), writer.digest()), (length as u64, Digest::of(&body)));
        let written = writer.finish(Some(Lease::DEFAULT)).await.unwrap();
        let chunks: Vec<_> = body.chunks(CHUNK_BYTES).map(Digest::of).collect();
        assert_eq!((written.put, &written.stored.chunks), (Put::Stored, &chunks));
        let name = name_of(&body);
        let info = store.info(&name).await.unwrap();
        assert_eq!((info.bytes, info.sha256), (length as u64, name.id));
        assert!(info.expires_in.is_some_and(|left| left > Duration::from_secs(60)));
        assert!(read(store, &name).await.unwrap() == body, "{length} bytes");
    }
}

/// Equal bytes are one blob, whose lease is that of the last one.
pub async fn the_same_sent_again_is_renewed<S: UploadStore + BlobStore>(store: &S) {
    let body = bytes(CHUNK_BYTES + 5);
    for (put, life) in [(Put::Stored, "1h"), (Put::AlreadyThere, "3h")] {
        let mut writer = BlobWriter::new(store, &tenant("a"), BlobKind::Job);
        writer.push(&body).await.unwrap();
        assert_eq!(writer.finish(Some(lease(life))).await.unwrap().put, put);
    }
    let left = store.info(&name_of(&body)).await.unwrap().expires_in.unwrap();
    assert!(left > lease("2h").duration() && left <= lease("3h").duration());
    assert!(read(store, &name_of(&body)).await.unwrap() == body);
    assert_eq!(store.list(&tenant("a"), BlobKind::Job).await.unwrap().len(), 1);
}

/// Without its end there is no blob.
pub async fn what_is_given_up_is_not_there<S: UploadStore + BlobStore>(store: &S) {
    let body = bytes(2 * CHUNK_BYTES);
    let mut writer = BlobWriter::new(store, &tenant("a"), BlobKind::Key);
    writer.push(&body).await.unwrap();
    writer.give_up().await.unwrap();
    assert!(store.list(&tenant("a"), BlobKind::Key).await.unwrap().is_empty());
    let error = read(store, &BlobName { kind: BlobKind::Key, ..name_of(&body) }).await;
    assert_eq!(error.unwrap_err().class(), ErrorClass::NotFound);
}

/// An upload of nothing is refused.
pub async fn nothing_is_no_blob<S: UploadStore + BlobStore>(store: &S) {
    let writer = BlobWriter::new(store, &tenant("a"), BlobKind::Job);
    let refused = writer.finish(None).await.unwrap_err();
    assert!(matches!(refused, StoreError::Empty { .. }), "{refused}");
}

/// Of two that make a note, one finds the other's.
pub async fn a_note_is_made_once<S: ResultStore>(store: &S) {
    let (a, id, hour) = (tenant("a"), JobId::random(), lease("1h"));
    for name in [NoteName::Job(id), NoteName::Key(id)] {
        assert_eq!(store.noted(&a, name).await.unwrap(), None);
        assert_eq!(store.note(&a, name, b"one", hour).await.unwrap(), b"one");
        assert_eq!(store.note(&a, name, b"two", hour).await.unwrap(), b"one");
        store.note_again(&a, name, b"three", hour).await.unwrap();
        assert_eq!(store.noted(&a, name).await.unwrap().unwrap(), b"three");
    }
    store.forget_note(&a, NoteName::Job(id)).await.unwrap();
    assert_eq!(store.job_state(&a, id).await.unwrap(), JobState::default());
    assert!(store.noted(&a, NoteName::Key(id)).await.unwrap().is_some(), "another one");
}

/// The first reply stays; what was settled is gone, and known as settled.
pub async fn a_result_is_kept_once_and_settled_once<S: ResultStore>(store: &S) {
    let (a, job, hour) = (tenant("a"), JobId::random(), lease("1h"));
    store.note(&a, NoteName::Job(job), b"note", hour).await.unwrap();
    assert_eq!(store.result(&a, job).await.unwrap(), None);
    assert!(store.keep_result(&a, job, Some("c"), b"first", hour).await.unwrap());
    assert!(!store.keep_result(&a, job, Some("c"), b"second", hour).await.unwrap());
    assert_eq!(store.result(&a, job).await.unwrap().unwrap(), b"first");
    let state = store.job_state(&a, job).await.unwrap();
    assert_eq!(state, JobState { settled: false, note: Some(b"note".to_vec()), ended: true });
    for _ in 0..2 {
        store.settle(&a, job).await.unwrap();
        let state = store.job_state(&a, job).await.unwrap();
        assert_eq!(state, JobState { settled: true, note: None, ended: false });
        assert_eq!(store.result(&a, job).await.unwrap(), None);
    }
}

/// A feed is read in the order in which results came, in parts, and again.
pub async fn a_feed_has_its_order<S: ResultStore>(store: &S) {
    let (a, hour) = (tenant("a"), lease("1h"));
    let jobs: Vec<_> = (0..5).map(|_| JobId::random()).collect();
    for job in &jobs {
        store.keep_result(&a, *job, Some("c"), b"result", hour).await.unwrap();
    }
    let all = store.feed(&a, "c", None, 100).await.unwrap();
    assert_eq!(all.iter().map(|(_, job)| *job).collect::<Vec<_>>(), jobs);
    assert!(all.is_sorted() && all.windows(2).all(|two| two[0].0 < two[1].0));
    assert_eq!(store.feed(&a, "c", None, 2).await.unwrap(), all[..2]);
    assert_eq!(store.feed(&a, "c", Some(all[1].0), 2).await.unwrap(), all[2..4]);
    assert!(store.feed(&a, "c", Some(all[4].0), 2).await.unwrap().is_empty());
    store.drop_entries(&a, "c", &[all[0].0, all[3].0]).await.unwrap();
    store.drop_entries(&a, "c", &[]).await.unwrap();
    let left: Vec<_> = [1, 2, 4].map(|index| all[index]).into();
    assert_eq!(store.feed(&a, "c", None, 100).await.unwrap(), left);
    let later = JobId::random();
    store.keep_result(&a, later, Some("c"), b"result", hour).await.unwrap();
    let found = store.feed(&a, "c", Some(all[4].0), 100).await.unwrap();
    assert_eq!(found.iter().map(|(_, job)| *job).collect::<Vec<_>>(), [later]);
}

/// Nobody's client sees another tenant's, nor another client's.
pub async fn feeds_and_results_are_of_one_tenant<S: ResultStore>(store: &S) {
    let (a, b, job, hour) = (tenant("a"), tenant("b"), JobId::random(), lease("1h"));
    store.keep_result(&a, job, Some("c"), b"result", hour).await.unwrap();
    assert!(store.feed(&b, "c", None, 9).await.unwrap().is_empty());
    assert!(store.feed(&a, "d", None, 9).await.unwrap().is_empty());
    assert_eq!(store.result(&b, job).await.unwrap(), None);
    store.settle(&b, job).await.unwrap();
    assert!(store.job_state(&a, job).await.unwrap().ended);
    let nobodys = JobId::random();
    assert!(store.keep_result(&a, nobodys, None, b"result", hour).await.unwrap());
    assert_eq!(store.feed(&a, "c", None, 9).await.unwrap().len(), 1);
}

/// What nobody fetches goes with its lease.
pub async fn notes_and_results_expire<S: ResultStore>(store: &S) {
    let (a, job, brief) = (tenant("a"), JobId::random(), lease("1s"));
    store.note(&a, NoteName::Job(job), b"note", brief).await.unwrap();
    store.keep_result(&a, job, None, b"result", brief).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(store.job_state(&a, job).await.unwrap(), JobState::default());
    assert_eq!(store.result(&a, job).await.unwrap(), None);
}

fn name_of(body: &[u8]) -> BlobName {
    BlobName { tenant: tenant("a"), kind: BlobKind::Job, id: Digest::of(body) }
}
