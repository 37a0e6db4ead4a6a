//! Single rows through the queue: one form for each job, receipts that outlive a process, bad replies.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;

use cipherscore_common::message::ErrorCode;
use cipherscore_common::topology::Lane;
use cipherscore_common::{BlobStore, FormName, MarkStore};
use cipherscore_engine::rows::client::MAX_BAD_REPLIES;
use cipherscore_producer::evaluation_keys::KeySource;
use cipherscore_producer::events::Events;
use cipherscore_producer::matrix::Matrix;
use cipherscore_producer::model::{Finality, FormChoice, encryption_in_form};
use cipherscore_producer::rows::{ExtraColumns, ScoreColumns};
use cipherscore_producer::score::{RowsPerJob, ScoreError, ScoreReport, ScoreRequest, score};
use cipherscore_producer::settings::ProducerSection;
use cipherscore_producer::stream::{Stream, Target};
use cipherscore_producer::submit::{JobFiles, SubmitRequest, submit};

use crate::support::{Conduct, Owner, PATIENCE, Services, Worker, until};

const MODEL: &str = "lgb_binary";

fn rows(owner: &Owner, count: usize) -> Matrix<f64> {
    let width = owner.model.interface().features.count();
    let value = |index: usize| f64::from(u32::try_from(index * 7919 % 1000).unwrap()) / 50.0 - 10.0;
    Matrix::new(width, (0..count * width).map(value).collect())
}

/// The rows as a file.
fn input(owner: &Owner, count: usize) -> PathBuf {
    let names = owner.model.interface().features.iter().map(|feature| feature.name.clone());
    let mut text = names.collect::<Vec<_>>().join(",");
    for row in rows(owner, count).rows() {
        let row = row.iter().map(f64::to_string).collect::<Vec<_>>().join(",");
        text = format!("{text}\n{row}");
    }
    let path = owner.path("rows.csv");
    std::fs::write(&path, text).unwrap();
    path
}

async fn run(
    services: &Services,
    owner: &Owner,
    form: FormName,
    output: &str,
    count: usize,
) -> Result<ScoreReport, ScoreError> {
    let request = ScoreRequest {
        encryption: owner.encryption_in(form),
        model_id: owner.model_id(),
        keys: owner.keys.clone(),
        input: input(owner, count),
        format: ExtraColumns::Refuse.into(),
        output: owner.path(output),
        columns: ScoreColumns::Integers,
        rows_per_job: RowsPerJob::Given(NonZeroU32::MIN),
        republish: false,
        settings: ProducerSection::default(),
    };
    let (broker, store) = (Arc::new(services.broker.clone()), Arc::new(services.store.clone()));
    let run = score(broker, store, request, Events::ignored());
    tokio::time::timeout(PATIENCE, run).await.expect("the run hangs")
}

#[tokio::test(flavor = "multi_thread")]
async fn both_forms_score_a_file_alike_under_keys_of_their_own() {
    let (services, owner) = (Services::default(), Owner::of_both(MODEL));
    let worker = Worker::start(&services, &owner, |_, _| Conduct::Answer).await;
    let mut keys = Vec::new();
    for (form, output) in [(FormName::Rows, "rows.out"), (FormName::Bulk, "bulk.out")] {
        let before = worker.seen().len();
        let report = run(&services, &owner, form, output, 3).await.unwrap();
        assert_eq!((report.rows_scored, report.form), (3, Some(form)));
        for job in &worker.seen()[before..] {
            assert_eq!(job.terms.form, Some(form));
            assert_eq!(job.key_id, owner.keys.digests(Some(form)).unwrap().0);
            assert!(job.terms.planned.is_some());
            keys.push(job.key_id);
        }
    }
    keys.dedup();
    assert_eq!(keys.len(), 2, "each form's key is in the store by itself");
    let read = |name: &str| std::fs::read_to_string(owner.path(name)).unwrap();
    assert_eq!(read("rows.out"), read("bulk.out"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_was_interrupted_reads_replies_with_its_receipts() {
    let (services, owner) = (Services::default(), Owner::of_both(MODEL));
    let keeping = Worker::start(&services, &owner, |_, _| Conduct::Keep).await;
    tokio::select! {
        report = run(&services, &owner, FormName::Rows, "scores", 2) => panic!("{report:?}"),
        () = until(|| keeping.seen().len() == 2) => {}
    }
    let published = crate::support::ids(&keeping.seen());
    keeping.stop().await;
    let ledger = std::fs::read_to_string(owner.path("scores.ledger/jobs.jsonl")).unwrap();
    assert_eq!(ledger.matches("\"receipt\"").count(), 2, "{ledger}");
    assert!(ledger.lines().next().unwrap().contains("\"form\":\"rows\""), "{ledger}");
    // Another form is another run.
    let refused = run(&services, &owner, FormName::Bulk, "scores", 2).await.unwrap_err();
    assert!(refused.to_string().contains("--form"), "{refused}");

    let worker = Worker::start(&services, &owner, |_, _| Conduct::Answer).await;
    let report = run(&services, &owner, FormName::Rows, "scores", 2).await.unwrap();
    assert_eq!(report.rows_scored, 2);
    let seen = crate::support::ids(&worker.seen());
    assert!(seen.iter().all(|job| published.contains(job)), "nothing was encrypted again");
}

fn counted(owner: &Owner) -> (u64, u64) {
    let text = std::fs::read_to_string(owner.path("keys/rows.state")).unwrap();
    let state: serde_json::Value = serde_json::from_str(&text).unwrap();
    (state["answered_rows"].as_u64().unwrap(), state["bad_replies"].as_u64().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_reply_is_final_and_counted_and_told_to_nobody() {
    let (services, owner) = (Services::default(), Owner::of_both(MODEL));
    let conduct = |number, _: &_| if number == 1 { Conduct::MadeUp } else { Conduct::Answer };
    let worker = Worker::start(&services, &owner, conduct).await;
    let report = run(&services, &owner, FormName::Rows, "scores", 3).await.unwrap();
    assert_eq!((report.rows_scored, report.rows_failed), (2, 1));
    assert_eq!((report.jobs_published, report.jobs_published_again), (3, 0));
    assert_eq!(counted(&owner), (2, 1));
    let failed = std::fs::read_to_string(report.failed.unwrap()).unwrap();
    assert!(failed.contains("bad reply") && failed.contains("--output"), "{failed}");
    let seen = worker.seen().len();
    // Nor is it by the next run.
    let again = run(&services, &owner, FormName::Rows, "scores", 3).await.unwrap();
    assert_eq!((again.rows_scored_before, again.rows_scored, again.rows_failed), (2, 2, 1));
    assert_eq!((again.jobs_published, worker.seen().len()), (0, seen));
    assert_eq!(std::fs::read_to_string(again.failed.unwrap()).unwrap(), failed);
    assert_eq!(counted(&owner), (2, 1));
    for job in worker.seen() {
        assert!(!services.store.marks(&job.tenant, job.id).await.unwrap().cancelled);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burned_key_publishes_nothing() {
    let (services, owner) = (Services::default(), Owner::of_both(MODEL));
    let worker = Worker::start(&services, &owner, |_, _| Conduct::MadeUp).await;
    let most = MAX_BAD_REPLIES as usize;
    let report = run(&services, &owner, FormName::Rows, "scores", most).await.unwrap();
    assert_eq!(report.rows_failed, u64::from(MAX_BAD_REPLIES));
    assert_eq!(counted(&owner), (0, MAX_BAD_REPLIES.into()));
    let before = worker.seen().len();
    let refused = run(&services, &owner, FormName::Rows, "others", 1).await.unwrap_err();
    assert!(refused.to_string().contains("keygen --rotate"), "{refused}");
    assert_eq!(worker.seen().len(), before);
}

fn target(owner: &Owner, form: FormName) -> Target {
    let (id, _) = owner.keys.digests(Some(form)).unwrap();
    let key = id.map(|id| (id, KeySource::Folder(owner.keys.clone(), Some(form))));
    Target { model_id: owner.model_id(), form: Some(form), key }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_take_the_form_by_their_rows_and_are_not_taken_back_by_a_bad_reply() {
    let (services, owner) = (Services::default(), Owner::of_both(MODEL));
    let conduct = |number, _: &_| if number == 1 { Conduct::MadeUp } else { Conduct::Answer };
    let worker = Worker::start(&services, &owner, conduct).await;
    let (broker, store) = (Arc::new(services.broker.clone()), Arc::new(services.store.clone()));
    let settings = ProducerSection::default();
    let stream = Stream::open(broker, store, settings, Events::ignored()).await.unwrap();
    let score = async |count: usize, rows_per_job| {
        let chosen =
            encryption_in_form(owner.encryption(), FormChoice::Auto, count as u64).unwrap().it;
        let form = chosen.model().form().unwrap();
        let (target, events) = (target(&owner, form), Events::ignored());
        let scored =
            stream.score(&target, &chosen, rows(&owner, count), rows_per_job, &events).await;
        (form, scored)
    };
    let (form, one) = score(1, None).await;
    assert_eq!(form, FormName::Rows);
    let (_, failed) = score(4, Some(NonZeroU32::MIN)).await;
    assert_eq!(failed.unwrap_err().finality(), Some(Finality::BadReply));
    let jobs = worker.seen();
    assert_eq!(jobs.len(), 5, "nothing is tried again");
    for job in jobs {
        assert!(!services.store.marks(&job.tenant, job.id).await.unwrap().cancelled);
    }
    let (form, many) = score(4096, None).await;
    assert_eq!(form, FormName::Bulk);
    // Nobody said which.
    let lanes: Vec<_> = worker.seen().iter().map(|job| job.lane).collect();
    assert_eq!(lanes, [&[Lane::High; 5][..], &[Lane::Normal]].concat());
    assert_eq!(one.unwrap().values(), &many.unwrap().values()[..1]);
}

/// Who hears of what may pass tries again, and tells the worker that it was a bad reply.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_says_what_is_final_whatever_else_went_wrong() {
    let (services, owner) = (Services::default(), Owner::of_both(MODEL));
    let conduct = |number, _: &_| match number {
        0 => Conduct::Refuse(ErrorCode::Poison),
        number if number <= MAX_BAD_REPLIES as usize => Conduct::MadeUp,
        _ => Conduct::Answer,
    };
    let _worker = Worker::start(&services, &owner, conduct).await;
    let (broker, store) = (Arc::new(services.broker.clone()), Arc::new(services.store.clone()));
    let settings = ProducerSection::default();
    let stream = Stream::open(broker, store, settings, Events::ignored()).await.unwrap();
    let encryption = owner.encryption_in(FormName::Rows);
    let (target, events) = (target(&owner, FormName::Rows), Events::ignored());
    let rows_per_job = Some(NonZeroU32::MIN);
    let scored = async |count| {
        let rows = rows(&owner, count);
        stream.score(&target, &encryption, rows, rows_per_job, &events).await.unwrap_err()
    };
    let most = MAX_BAD_REPLIES as usize;
    let failed = scored(most).await;
    assert_eq!(failed.finality(), Some(Finality::BadReply), "{failed}");
    // The last one that the key has.
    let failed = scored(1).await;
    assert_eq!(failed.finality(), Some(Finality::BadReply), "{failed}");
    let failed = scored(1).await;
    assert_eq!(failed.finality(), Some(Finality::Burned), "{failed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_submitted_in_their_own_form_with_its_key() {
    let (services, owner) = (Services::default(), Owner::of_both(MODEL));
    let worker = Worker::start(&services, &owner, |_, _| Conduct::Answer).await;
    let mut results = Vec::new();
    let mut jobs = Vec::new();
    for form in FormName::ALL {
        let file = owner.encryption_in(form).encrypt_file(&rows(&owner, 2)).unwrap();
        let paths = ["in", "out"].map(|end| owner.path(&format!("{form}.{end}")));
        let [input, output] = paths;
        std::fs::write(&input, file).unwrap();
        jobs.push(JobFiles { inputs: vec![input], outputs: vec![output] });
    }
    let submit = async |jobs: Vec<JobFiles>| {
        let request = SubmitRequest {
            model_id: owner.model_id(),
            evaluation_key: Some(owner.keys.evaluation_key_path()),
            jobs,
            timeout: "1m".parse().unwrap(),
            settings: ProducerSection::default(),
        };
        let (broker, store) = (Arc::new(services.broker.clone()), Arc::new(services.store.clone()));
        submit(broker, store, request, Events::ignored()).await
    };
    let refused = submit(jobs.clone()).await.unwrap_err().to_string();
    assert!(refused.contains("submit them apart"), "{refused}");
    for job in jobs {
        let submitted = submit(vec![job]).await.unwrap();
        assert_eq!(submitted[0].error, None);
        let reply = std::fs::read(&submitted[0].outputs[0]).unwrap();
        results.push(owner.encryption().decrypt_file(&reply).unwrap());
    }
    assert_eq!(results[0], results[1]);
    let forms: Vec<_> = worker.seen().iter().map(|job| job.terms.form).collect();
    assert_eq!(forms, [None, Some(FormName::Rows)]);
    // Each key by itself.
    for form in FormName::ALL {
        let key = owner.keys.evaluation_key(Some(form)).unwrap();
        let blob =
            cipherscore_common::Blob::evaluation_key(&"default".parse().unwrap(), key).unwrap();
        assert!(services.store.info(blob.name()).await.is_ok(), "{form}");
    }
}
