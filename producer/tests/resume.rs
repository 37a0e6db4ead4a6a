//! Ledgers that a run has to go on from, however its last moments were. None may make it wait
//! for what never comes.

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use cipherscore_common::JobId;
use cipherscore_common::message::ErrorCode;
use cipherscore_producer::events::{Event, Events};
use cipherscore_producer::rows::{ExtraColumns, ScoreColumns};
use cipherscore_producer::score::{RowsPerJob, ScoreReport, ScoreRequest, score};
use cipherscore_producer::settings::ProducerSection;
use serde_json::{Value, json};

use crate::support::{Conduct, LINEAR, Owner, PATIENCE, Services, Worker, until};

/// Of two rows each.
const JOBS: usize = 4;

async fn run(services: &Services, owner: &Owner, input: &Path, events: Events) -> ScoreReport {
    let request = ScoreRequest {
        encryption: owner.encryption(),
        model_id: owner.model_id(),
        keys: owner.keys.clone(),
        input: input.to_owned(),
        format: ExtraColumns::Refuse.into(),
        output: owner.path("scores.csv"),
        columns: ScoreColumns::Integers,
        rows_per_job: RowsPerJob::Given(NonZeroU32::new(2).unwrap()),
        republish: false,
        settings: ProducerSection::default(),
    };
    let (broker, store) = (Arc::new(services.broker.clone()), Arc::new(services.store.clone()));
    let run = score(broker, store, request, events);
    tokio::time::timeout(PATIENCE, run).await.expect("the run hangs").unwrap()
}

/// A run that is dropped when one job is answered and the others are with the broker.
async fn interrupt(services: &Services, owner: &Owner, input: &Path) {
    let conduct = |number, _: &_| if number == 0 { Conduct::Answer } else { Conduct::Keep };
    let worker = Worker::start(services, owner, conduct).await;
    let scored = Arc::new(AtomicBool::default());
    let published = Arc::new(AtomicUsize::default());
    let (scored_of, published_of) = (Arc::clone(&scored), Arc::clone(&published));
    let events = Events::new(move |event| match event {
        Event::Scored { .. } => scored_of.store(true, Ordering::SeqCst),
        Event::Published { .. } => _ = published_of.fetch_add(1, Ordering::SeqCst),
        _ => {}
    });
    let enough =
        until(|| scored.load(Ordering::SeqCst) && published.load(Ordering::SeqCst) == JOBS);
    tokio::select! {
        report = run(services, owner, input, events) => panic!("the run ended: {report:?}"),
        () = enough => {}
    }
    worker.stop().await;
}

/// Changes the records of the ledger.
fn edit(owner: &Owner, change: impl FnOnce(&mut Vec<Value>)) {
    let path = owner.path("scores.csv.ledger/jobs.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut records = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    change(&mut records);
    let lines: Vec<_> = records.iter().map(|record| format!("{record}\n")).collect();
    std::fs::write(&path, lines.concat()).unwrap();
}

fn assert_scores(owner: &Owner) {
    let text = std::fs::read_to_string(owner.path("scores.csv")).unwrap();
    let lines = text.lines().skip(1);
    let numbers = lines.map(|line| {
        let fields = line.split(',').map(|field| field.trim_matches('"').parse().unwrap());
        fields.collect::<Vec<i64>>()
    });
    assert_eq!(numbers.collect::<Vec<_>>(), owner.expected(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_came_after_the_end_of_its_part_is_not_waited_for() {
    let owner = Owner::new(LINEAR);
    let input = owner.input(1);
    for (deadline, confirmed) in [(None, false), (None, true), (Some(1), true)] {
        let services = Services::default();
        interrupt(&services, &owner, &input).await;
        edit(&owner, |records| {
            let finished = records.iter().find(|record| record["record"] == "finished").unwrap();
            let (part, job) = (finished["part"].clone(), JobId::random());
            let mut submitting = json!({ "record": "submitting", "job": job, "part": part });
            if let Some(deadline) = deadline {
                submitting["deadline_ms"] = json!(deadline);
            }
            records.push(submitting);
            if confirmed {
                records.push(json!({ "record": "submitted", "job": job, "part": part }));
            }
        });
        let worker = Worker::start(&services, &owner, |_, _| Conduct::Answer).await;
        let report = run(&services, &owner, &input, Events::ignored()).await;
        assert_eq!((report.rows_failed, report.jobs_published), (0, 0));
        assert_scores(&owner);
        drop(worker);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_job_does_not_keep_a_part_from_being_published_again() {
    let owner = Owner::new(LINEAR);
    let input = owner.input(1);
    for conduct in [Conduct::Refuse(ErrorCode::BlobMissing), Conduct::Nonsense] {
        let services = Services::default();
        interrupt(&services, &owner, &input).await;
        // As if the first job of each part had been answered, and replaced by the one that is
        // with the broker.
        edit(&owner, |records| {
            for part in 0..JOBS {
                let job = JobId::random();
                records.insert(1, json!({ "record": "submitting", "job": job, "part": part }));
                records.insert(2, json!({ "record": "submitted", "job": job, "part": part }));
            }
        });
        let first = move |number, _: &_| if number == 0 { conduct } else { Conduct::Answer };
        let worker = Worker::start(&services, &owner, first).await;
        let report = run(&services, &owner, &input, Events::ignored()).await;
        assert_eq!((report.rows_failed, report.jobs_published), (0, 1), "{conduct:?}");
        assert_scores(&owner);
        drop(worker);
    }
}
