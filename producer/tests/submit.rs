//! Files that another program encrypted: what is tried again, what is gone on with, and what is
//! said of files without a result.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use cipherscore_common::message::{ErrorCode, Job};
use cipherscore_common::{BlobKind, BlobStore, MarkStore, OwnerId};
use cipherscore_concrete::framing::{frame_values, split_values};
use cipherscore_producer::events::{Event, Events};
use cipherscore_producer::model::write_rows_file;
use cipherscore_producer::note::NoteFile;
use cipherscore_producer::rows::{ExtraColumns, RowReader};
use cipherscore_producer::settings::ProducerSection;
use cipherscore_producer::submit::{JobFiles, SubmitError, SubmitRequest, Submitted, submit};

use crate::support::{Conduct, LINEAR, Owner, Services, TREE, Worker, ids, until};

/// Rows of the owner's input, each as the file of one job.
pub(crate) fn request(owner: &Owner, rows: usize) -> SubmitRequest {
    let input = std::fs::File::open(owner.input(1)).unwrap();
    let features = &owner.model.interface().features;
    let input = RowReader::new(input, features, ExtraColumns::Refuse).unwrap().take(rows).unwrap();
    let encryption = owner.encryption();
    let job = |row| {
        let path = owner.path(&format!("{row}.in"));
        if !path.exists() {
            let payload = encryption.encrypt(&input.part(row, 1)).unwrap().body;
            let [value] = split_values(&payload).unwrap()[..] else { panic!("one value") };
            std::fs::write(&path, value).unwrap();
        }
        JobFiles { inputs: vec![path], outputs: vec![output(owner, row)] }
    };
    let needs_key = owner.model.interface().needs_key;
    SubmitRequest {
        model_id: owner.model_id(),
        evaluation_key: needs_key.then(|| owner.keys.evaluation_key_path()),
        jobs: (0..rows).map(job).collect(),
        timeout: "10m".parse().unwrap(),
        settings: ProducerSection::default(),
    }
}

fn output(owner: &Owner, row: usize) -> PathBuf {
    owner.path(&format!("{row}.out"))
}

fn note(owner: &Owner, row: usize) -> PathBuf {
    owner.path(&format!("{row}.out.job"))
}

async fn run(
    services: &Services,
    request: SubmitRequest,
    events: Events,
) -> Result<Vec<Submitted>, SubmitError> {
    let (broker, store) = (Arc::new(services.broker.clone()), Arc::new(services.store.clone()));
    submit(broker, store, request, events).await
}

/// Collects events.
fn recorded() -> (Events, Arc<Mutex<Vec<Event>>>) {
    let all = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&all);
    (Events::new(move |event| sink.lock().unwrap().push(event)), all)
}

/// Why jobs were published again.
fn reasons(told: &Mutex<Vec<Event>>) -> Vec<String> {
    let reason = |event: &Event| match event {
        Event::PublishedAgain { reason } => Some(reason.clone()),
        _ => None,
    };
    told.lock().unwrap().iter().filter_map(reason).collect()
}

/// Results are those of Concrete ML, and no note is left.
pub(crate) fn assert_results(owner: &Owner, rows: usize) {
    for (row, expected) in owner.expected(1).iter().take(rows).enumerate() {
        let outputs = frame_values([std::fs::read(output(owner, row)).unwrap()]);
        let integers = owner.encryption().decrypt(&outputs, 1, None).unwrap();
        assert_eq!(integers.values(), expected, "row {row}");
        assert!(!note(owner, row).exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passes_is_tried_again_as_a_new_job() {
    let owner = Owner::new(LINEAR);
    for (conduct, reason) in [
        (Conduct::Refuse(ErrorCode::DeadlineExceeded), "deadline_exceeded: on request"),
        (Conduct::Refuse(ErrorCode::WrongDigest), "wrong_digest: on request"),
        (Conduct::Refuse(ErrorCode::BlobMissing), "blob_missing: on request"),
        (Conduct::Refuse(ErrorCode::KeyMissing), "key_missing: on request"),
        (Conduct::LoseOutputs, "the outputs are lost: "),
        (Conduct::Nonsense, "value"),
    ] {
        let (services, (events, told)) = (Services::default(), recorded());
        let first = move |number, _: &_| if number == 0 { conduct } else { Conduct::Answer };
        let worker = Worker::start(&services, &owner, first).await;
        let submitted = run(&services, request(&owner, 2), events).await.unwrap();
        assert!(submitted.iter().all(|files| files.error.is_none()), "{submitted:?}");
        assert_results(&owner, 2);
        let reasons = reasons(&told);
        assert!(reasons.len() == 1 && reasons[0].contains(reason), "{reasons:?}");
        let mut jobs = ids(&worker.seen());
        jobs.sort();
        jobs.dedup();
        assert_eq!(jobs.len(), 3, "each time as a job of its own");
        assert!(submitted.iter().all(|files| jobs.contains(&files.job)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_evaluation_key_is_replaced() {
    let (services, owner) = (Services::default(), Owner::new(TREE));
    let tenant = ProducerSection::default().tenant;
    let taken = services.store.clone();
    let conduct = move |number, job: &Job| {
        if number > 0 {
            return Conduct::Answer;
        }
        let name = cipherscore_common::BlobName::evaluation_key(&job.tenant, job.key_id.unwrap());
        let (store, runtime) = (taken.clone(), tokio::runtime::Handle::current());
        std::thread::scope(|scope| {
            scope.spawn(|| runtime.block_on(store.remove(&name)).unwrap());
        });
        Conduct::Refuse(ErrorCode::WrongDigest)
    };
    let worker = Worker::start(&services, &owner, conduct).await;
    let submitted = run(&services, request(&owner, 1), Events::ignored()).await.unwrap();
    assert_eq!(submitted[0].error, None);
    assert_results(&owner, 1);
    assert_eq!(worker.seen().len(), 2);
    assert_eq!(services.store.list(&tenant, BlobKind::Key).await.unwrap().len(), 1);
}

/// By mistake a secret would be in the store, or at the broker.
#[tokio::test(flavor = "multi_thread")]
async fn secret_keys_are_not_sent() {
    let (services, owner) = (Services::default(), Owner::new(TREE));
    let tenant = ProducerSection::default().tenant;
    let worker = Worker::start(&services, &owner, |_, _: &_| Conduct::Answer).await;
    let secret = owner.path("keys/client.key");
    let mut as_key = request(&owner, 1);
    as_key.evaluation_key = Some(secret.clone());
    let mut as_rows = request(&owner, 1);
    as_rows.jobs[0].inputs = vec![secret.clone()];
    for (wrong, keys) in [(as_key, 0), (as_rows, 1)] {
        let refused = run(&services, wrong, Events::ignored()).await;
        let Err(SubmitError::Content { path, .. }) = &refused else { panic!("{refused:?}") };
        assert_eq!(*path, secret);
        let stored = services.store.list(&tenant, BlobKind::Key).await.unwrap();
        assert_eq!(stored.len(), keys, "{stored:?}");
    }
    assert!(worker.seen().is_empty());
}

/// A worker of an earlier version would not look.
#[tokio::test(flavor = "multi_thread")]
async fn rows_of_another_owner_than_the_key_are_not_sent() {
    let (services, owner) = (Services::default(), Owner::new(LINEAR));
    let worker = Worker::start(&services, &owner, |_, _: &_| Conduct::Answer).await;
    let key = [&b"CSBULKPK\x02\0\0\0"[..], &[0; 16], &[1; 16], b"words"].concat();
    std::fs::write(owner.path("evaluation.key"), key).unwrap();
    for rows_owner in [None, OwnerId::from_bytes([2; 16])] {
        let mut request = request(&owner, 1);
        request.evaluation_key = Some(owner.path("evaluation.key"));
        let rows = write_rows_file(1, rows_owner, b"rows").unwrap();
        std::fs::write(&request.jobs[0].inputs[0], rows).unwrap();
        let refused = run(&services, request, Events::ignored()).await;
        assert!(matches!(refused, Err(SubmitError::Owner(_))), "{refused:?}");
    }
    assert!(worker.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_pass_fails_by_itself() {
    let (services, owner) = (Services::default(), Owner::new(LINEAR));
    let conduct = |number, _: &_| match number {
        0 => Conduct::Refuse(ErrorCode::Internal),
        _ => Conduct::Answer,
    };
    let worker = Worker::start(&services, &owner, conduct).await;
    let submitted = run(&services, request(&owner, 3), Events::ignored()).await.unwrap();
    assert_eq!(submitted[0].error.as_deref(), Some("internal: on request"));
    assert!(submitted[0].outputs.is_empty() && submitted[0].worker.is_some());
    assert!(!output(&owner, 0).exists() && !note(&owner, 0).exists());
    assert!(submitted[1..].iter().all(|files| files.error.is_none()));
    assert_eq!(ids(&worker.seen()), submitted.iter().map(|files| files.job).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_never_passes_fails_after_three_jobs() {
    let (services, owner) = (Services::default(), Owner::new(LINEAR));
    let conduct = |_, _: &_| Conduct::Refuse(ErrorCode::DeadlineExceeded);
    let worker = Worker::start(&services, &owner, conduct).await;
    let submitted = run(&services, request(&owner, 1), Events::ignored()).await.unwrap();
    assert_eq!(submitted[0].error.as_deref(), Some("deadline_exceeded: on request"));
    assert_eq!(worker.seen().len(), 3);
}

/// Its jobs are not taken back, and the next call waits for the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_was_given_up_is_gone_on_with() {
    let (services, owner) = (Services::default(), Owner::new(LINEAR));
    let worker = Worker::start(&services, &owner, |_, _| Conduct::Keep).await;
    tokio::select! {
        ended = run(&services, request(&owner, 2), Events::ignored()) => panic!("{ended:?}"),
        () = until(|| worker.seen().len() == 2) => {}
    }
    let jobs = ids(&worker.seen());
    worker.stop().await;
    for job in &jobs {
        let tenant = ProducerSection::default().tenant;
        assert!(!services.store.marks(&tenant, *job).await.unwrap().cancelled);
    }
    assert!(note(&owner, 0).exists() && note(&owner, 1).exists());
    // What the call did on threads of its own may hold the notes for a moment more.
    until(|| (0..2).all(|row| NoteFile::open(&output(&owner, row)).is_ok())).await;

    let (events, told) = recorded();
    let worker = Worker::start(&services, &owner, |_, _| Conduct::Answer).await;
    let submitted = run(&services, request(&owner, 2), events).await.unwrap();
    assert_eq!(submitted.iter().map(|files| files.job).collect::<Vec<_>>(), jobs);
    assert_results(&owner, 2);
    let again = |event: &Event| matches!(event, Event::Submitted { again: true, .. });
    assert_eq!(told.lock().unwrap().iter().filter(|event| again(event)).count(), 2);
    drop(worker);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_waited_for_beyond_the_timeout() {
    let (services, owner) = (Services::default(), Owner::new(LINEAR));
    let _worker = Worker::start(&services, &owner, |_, _| Conduct::Keep).await;
    let request = SubmitRequest { timeout: "1s".parse().unwrap(), ..request(&owner, 1) };
    let submitted = run(&services, request, Events::ignored()).await.unwrap();
    let error = submitted[0].error.as_deref().unwrap();
    assert_eq!(error, "no reply within 1s; see `cipherscore status`");
    assert!(!note(&owner, 0).exists());
}
