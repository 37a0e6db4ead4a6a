//! Files through the queue: broker and store in this process, the real evaluator behind them.

use std::num::{NonZeroU16, NonZeroU32};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use cipherscore_common::message::{ErrorCode, Job};
use cipherscore_common::{BlobKind, BlobName, BlobStore};
use cipherscore_producer::events::{Event, Events};
use cipherscore_producer::rows::{ExtraColumns, ScoreColumns};
use cipherscore_producer::score::{RowsPerJob, ScoreError, ScoreReport, ScoreRequest, score};
use cipherscore_producer::settings::ProducerSection;

use crate::support::{Conduct, LINEAR, Owner, Services, TREE, Worker, make_keys, serve, until};

/// The committed rows are eight; with three rows to a job, the last job is shorter.
const TIMES: usize = 4;
const ROWS: usize = 8 * TIMES;
const ROWS_PER_JOB: u32 = 3;
const JOBS: usize = 11;

pub(crate) fn request(owner: &Owner, input: &Path) -> ScoreRequest {
    ScoreRequest {
        encryption: owner.encryption(),
        model_id: owner.model_id(),
        keys: owner.keys.clone(),
        input: input.to_owned(),
        format: ExtraColumns::Refuse.into(),
        output: owner.path("scores.csv"),
        columns: ScoreColumns::Integers,
        rows_per_job: RowsPerJob::Given(NonZeroU32::new(ROWS_PER_JOB).unwrap()),
        republish: false,
        settings: ProducerSection {
            in_flight: NonZeroU16::new(4).unwrap(),
            ..ProducerSection::default()
        },
    }
}

async fn run(services: &Services, request: ScoreRequest) -> Result<ScoreReport, ScoreError> {
    run_telling(services, request, Events::ignored()).await
}

async fn run_telling(
    services: &Services,
    request: ScoreRequest,
    events: Events,
) -> Result<ScoreReport, ScoreError> {
    let (broker, store) = (Arc::new(services.broker.clone()), Arc::new(services.store.clone()));
    score(broker, store, request, events).await
}

/// Lines of the output; none for an empty one.
pub(crate) fn integers(path: &Path) -> Vec<Option<Vec<i64>>> {
    let text = std::fs::read_to_string(path).unwrap();
    let line = |line: &str| {
        let fields = line.split(',').map(|field| field.trim_matches('"'));
        let fields: Vec<_> = fields.filter(|field| !field.is_empty()).collect();
        let numbers: Vec<_> = fields.iter().map(|field| field.parse().unwrap()).collect();
        (!numbers.is_empty()).then_some(numbers)
    };
    text.lines().skip(1).map(line).collect()
}

pub(crate) fn all(rows: Vec<Vec<i64>>) -> Vec<Option<Vec<i64>>> {
    rows.into_iter().map(Some).collect()
}

fn count(number: u64) -> usize {
    usize::try_from(number).unwrap()
}

fn ledger(owner: &Owner) -> PathBuf {
    owner.path("scores.csv.ledger")
}

fn failed(owner: &Owner) -> PathBuf {
    owner.path("scores.csv.failed.csv")
}

/// Collects events.
fn recorded() -> (Events, Arc<Mutex<Vec<Event>>>) {
    let all = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&all);
    (Events::new(move |event| sink.lock().unwrap().push(event)), all)
}

/// Runs until the worker has answered `answered` jobs and the results are in the ledger, and as
/// many more jobs as may be in flight are with it. Then the run is dropped.
async fn interrupt(services: &Services, owner: &Owner, input: &Path, answered: usize) -> Worker {
    let conduct =
        move |number, _: &_| if number < answered { Conduct::Answer } else { Conduct::Keep };
    let worker = Worker::start(services, owner, conduct).await;
    let scored = Arc::new(AtomicU64::new(0));
    let published = Arc::new(AtomicU64::new(0));
    let (scored_of, published_of) = (Arc::clone(&scored), Arc::clone(&published));
    let events = Events::new(move |event| match event {
        Event::Scored { .. } => _ = scored_of.fetch_add(1, Ordering::SeqCst),
        Event::Published { .. } => _ = published_of.fetch_add(1, Ordering::SeqCst),
        _ => {}
    });
    let expected = (answered + 4).min(JOBS) as u64;
    let run = run_telling(services, request(owner, input), events);
    let enough = until(|| {
        scored.load(Ordering::SeqCst) == answered as u64
            && published.load(Ordering::SeqCst) == expected
            && worker.seen().len() as u64 == expected
    });
    tokio::select! {
        report = run => panic!("the run ended: {report:?}"),
        () = enough => {}
    }
    worker
}

#[tokio::test(flavor = "multi_thread")]
async fn scores_are_those_of_concrete_ml_in_their_order() {
    let (owner, services) = (Owner::new(LINEAR), Services::default());
    let worker = Worker::start(&services, &owner, |_, _| Conduct::Answer).await;
    let report = run(&services, request(&owner, &owner.input(TIMES))).await.unwrap();
    assert_eq!(integers(&owner.path("scores.csv")), all(owner.expected(TIMES)));
    assert_eq!(
        (report.rows, report.rows_scored, report.rows_failed),
        (ROWS as u64, ROWS as u64, 0)
    );
    assert_eq!((report.jobs_published, worker.seen().len()), (JOBS as u64, JOBS));
    assert!(!ledger(&owner).exists() && !failed(&owner).exists() && report.failed.is_none());
    // A linear model has no key to speak of.
    assert!(services.store.list(&owner_tenant(), BlobKind::Key).await.unwrap().is_empty());
}

fn owner_tenant() -> cipherscore_common::Tenant {
    ProducerSection::default().tenant
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_run_publishes_no_job_again() {
    for answered in [0, 1, 5, 8, JOBS - 1] {
        let (owner, services) = (Owner::new(LINEAR), Services::default());
        let input = owner.input(TIMES);
        let first = interrupt(&services, &owner, &input, answered).await;
        let before = first.seen();
        assert!(!owner.path("scores.csv").exists());
        first.stop().await;

        let (events, told) = recorded();
        let second = Worker::start(&services, &owner, |_, _| Conduct::Answer).await;
        let report = run_telling(&services, request(&owner, &input), events).await.unwrap();
        assert_eq!(integers(&owner.path("scores.csv")), all(owner.expected(TIMES)), "{answered}");
        let published = (answered + 4).min(JOBS);
        assert_eq!(before.len(), published, "{answered}");
        assert_eq!(count(report.jobs_published), JOBS - published, "{answered}");
        // What was kept came back to the second worker; what was answered did not.
        assert_eq!(second.seen().len(), JOBS - answered);
        let unanswered = published - answered;
        let scored = report.rows_scored_before;
        assert!(told.lock().unwrap().contains(&Event::Resumed { scored, unanswered }));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_that_came_in_between_are_waiting() {
    let (owner, services) = (Owner::new(LINEAR), Services::default());
    let input = owner.input(TIMES);
    interrupt(&services, &owner, &input, 3).await.stop().await;
    // The replies come while nobody listens.
    let between = Worker::start(&services, &owner, |_, _| Conduct::Answer).await;
    until(|| between.seen().len() == 4).await;
    let report = run(&services, request(&owner, &input)).await.unwrap();
    assert_eq!((report.jobs_published, report.rows_scored), (JOBS as u64 - 7, ROWS as u64));
    assert_eq!(integers(&owner.path("scores.csv")), all(owner.expected(TIMES)));
}

#[tokio::test(flavor = "multi_thread")]
async fn unanswered_jobs_can_be_published_again() {
    let (owner, services) = (Owner::new(LINEAR), Services::default());
    let input = owner.input(TIMES);
    let first = interrupt(&services, &owner, &input, 2).await;
    let older = crate::support::ids(&first.seen());
    first.stop().await;
    let conduct = move |_, job: &Job| match older.contains(&job.id) {
        true => Conduct::Keep,
        false => Conduct::Answer,
    };
    let worker = Worker::start(&services, &owner, conduct).await;
    let request = ScoreRequest { republish: true, ..request(&owner, &input) };
    let report = run(&services, request).await.unwrap();
    assert_eq!(count(report.jobs_published), JOBS - 2);
    drop(worker);
    assert_eq!(integers(&owner.path("scores.csv")), all(owner.expected(TIMES)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_was_perhaps_published_is_encrypted_again_and_either_answer_will_do() {
    let (owner, services) = (Owner::new(LINEAR), Services::default());
    let input = owner.input(TIMES);
    interrupt(&services, &owner, &input, 2).await.stop().await;
    // As if the process had died between the broker's confirm and the ledger, writing a line.
    let path = ledger(&owner).join("jobs.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<_> = text.lines().collect();
    let last = lines.iter().rposition(|line| line.contains("submitted")).unwrap();
    let mut cut = lines[..last].join("\n");
    cut.push_str("\n{\"record\":\"submi");
    std::fs::write(&path, cut).unwrap();

    let worker = Worker::start(&services, &owner, |_, _| Conduct::Answer).await;
    let report = run(&services, request(&owner, &input)).await.unwrap();
    assert_eq!(integers(&owner.path("scores.csv")), all(owner.expected(TIMES)));
    // The older answer may come before the job is encrypted again, which is then not done.
    assert!((JOBS - 6..=JOBS - 6 + 1).contains(&count(report.jobs_published)));
    drop(worker);
}

#[tokio::test(flavor = "multi_thread")]
async fn second_replies_are_dropped_and_large_ones_come_by_the_store() {
    let (owner, services) = (Owner::new(LINEAR), Services::default());
    let often = |number, _: &_| match number % 2 {
        0 => Conduct::AnswerOften,
        _ => Conduct::AnswerByStore,
    };
    let _worker = Worker::start(&services, &owner, often).await;
    let report = run(&services, request(&owner, &owner.input(TIMES))).await.unwrap();
    assert_eq!(count(report.jobs_published), JOBS);
    assert_eq!(integers(&owner.path("scores.csv")), all(owner.expected(TIMES)));
    // What was read is removed.
    assert!(services.store.list(&owner_tenant(), BlobKind::Reply).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passes_is_tried_again_as_a_new_job() {
    let conducts = [
        Conduct::LoseOutputs,
        Conduct::Nonsense,
        Conduct::Refuse(ErrorCode::BlobMissing),
        Conduct::Refuse(ErrorCode::WrongDigest),
        Conduct::Refuse(ErrorCode::KeyMissing),
        Conduct::Refuse(ErrorCode::DeadlineExceeded),
    ];
    let owner = Owner::new(LINEAR);
    for conduct in conducts {
        let services = Services::default();
        let first = move |number, _: &_| if number == 0 { conduct } else { Conduct::Answer };
        let worker = Worker::start(&services, &owner, first).await;
        let report = run(&services, request(&owner, &owner.input(TIMES))).await.unwrap();
        assert_eq!(integers(&owner.path("scores.csv")), all(owner.expected(TIMES)), "{conduct:?}");
        assert_eq!((report.rows_failed, report.jobs_published_again), (0, 1), "{conduct:?}");
        let seen = worker.seen();
        let mut ids = crate::support::ids(&seen);
        ids.sort();
        ids.dedup();
        assert_eq!((ids.len(), seen.len()), (JOBS + 1, JOBS + 1), "no id twice");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_pass_fails_in_the_end() {
    let (owner, services) = (Owner::new(LINEAR), Services::default());
    let worker = Worker::start(&services, &owner, |_, _| Conduct::LoseOutputs).await;
    let report = run(&services, request(&owner, &owner.input(1))).await.unwrap();
    assert_eq!((report.rows_scored, report.rows_failed), (0, 8));
    assert_eq!(worker.seen().len(), 3 * 3);
    let list = std::fs::read_to_string(failed(&owner)).unwrap();
    assert!(list.contains("the outputs are lost"), "{list}");
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_rows_are_listed_and_tried_again_by_the_next_run() {
    let (owner, services) = (Owner::new(LINEAR), Services::default());
    let input = owner.input(TIMES);
    let conduct = |number, _: &_| match number {
        0 => Conduct::Refuse(ErrorCode::Internal),
        _ => Conduct::Answer,
    };
    let worker = Worker::start(&services, &owner, conduct).await;
    let report = run(&services, request(&owner, &input)).await.unwrap();
    let short = count(report.rows_failed);
    assert_eq!(count(report.rows_scored), ROWS - short);
    assert_eq!(report.failed, Some(failed(&owner)));
    let list = std::fs::read_to_string(failed(&owner)).unwrap();
    let listed: Vec<usize> =
        list.lines().skip(1).map(|line| line.split(',').next().unwrap().parse().unwrap()).collect();
    assert_eq!(listed.len(), short);
    assert!(list.contains("internal: on request"), "{list}");
    let found = integers(&owner.path("scores.csv"));
    for (row, expected) in owner.expected(TIMES).into_iter().enumerate() {
        let missing = listed.contains(&(row + 1));
        assert_eq!(found[row], (!missing).then_some(expected), "row {row}");
    }
    worker.stop().await;

    let worker = Worker::start(&services, &owner, |_, _| Conduct::Answer).await;
    let report = run(&services, request(&owner, &input)).await.unwrap();
    assert_eq!((worker.seen().len(), report.rows_failed), (1, 0));
    assert_eq!(integers(&owner.path("scores.csv")), all(owner.expected(TIMES)));
    assert!(!failed(&owner).exists() && !ledger(&owner).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_evaluation_key_is_put_back() {
    let (owner, services) = (Owner::new(TREE), Services::default());
    let taken = services.store.clone();
    let (id, _) = owner.keys.digests(None).unwrap();
    let name = BlobName::evaluation_key(&owner_tenant(), id.unwrap());
    let remove = move |number, _: &_| {
        if number == 0 {
            let (store, name) = (taken.clone(), name.clone());
            let runtime = tokio::runtime::Handle::current();
            std::thread::scope(|scope| {
                scope.spawn(|| runtime.block_on(store.remove(&name)).unwrap());
            });
        }
        Conduct::Answer
    };
    let worker = Worker::start(&services, &owner, remove).await;
    let report = run(&services, request(&owner, &owner.input(1))).await.unwrap();
    assert_eq!((report.rows_failed, report.jobs_published_again), (0, 1));
    assert_eq!(integers(&owner.path("scores.csv")), all(owner.expected(1)));
    drop(worker);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_nobody_serves_is_an_error() {
    let (owner, services) = (Owner::new(LINEAR), Services::default());
    let refused = run(&services, request(&owner, &owner.input(1))).await.unwrap_err().to_string();
    assert!(refused.starts_with("no worker has ever served model"), "{refused}");
    // Nothing is lost: with a worker, the same command goes on.
    serve(&services, &owner).await;
    let _worker = Worker::start(&services, &owner, |_, _| Conduct::Answer).await;
    run(&services, request(&owner, &owner.input(1))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_of_another_run_is_refused() {
    let (owner, services) = (Owner::new(LINEAR), Services::default());
    let input = owner.input(TIMES);
    interrupt(&services, &owner, &input, 1).await.stop().await;
    let refusal = async |request| run(&services, request).await.unwrap_err().to_string();

    let other = ScoreRequest {
        rows_per_job: RowsPerJob::Given(NonZeroU32::new(5).unwrap()),
        ..request(&owner, &input)
    };
    assert!(refusal(other).await.contains("another number of rows per job"));
    let keys = make_keys(&*owner.model, &owner.path("other keys"));
    let other = ScoreRequest { keys, ..request(&owner, &input) };
    assert!(refusal(other).await.contains("other keys"));
    let model_id = "0".repeat(64).parse().unwrap();
    let other = ScoreRequest { model_id, ..request(&owner, &input) };
    assert!(refusal(other).await.contains("another model"));
    let settings =
        ProducerSection { tenant: "other".parse().unwrap(), ..ProducerSection::default() };
    let other = ScoreRequest { settings, ..request(&owner, &input) };
    assert!(refusal(other).await.contains("another tenant"));
    let input = owner.input(TIMES + 1);
    assert!(refusal(request(&owner, &input)).await.contains("another input"));

    let path = ledger(&owner).join("jobs.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replacen("submitted", "surmised", 1)).unwrap();
    let refused = refusal(request(&owner, &owner.input(TIMES))).await;
    assert!(refused.contains("jobs.jsonl, line ") && refused.contains("surmised"), "{refused}");
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_is_its_owners_and_one_runs_at_a_time() {
    use std::os::unix::fs::PermissionsExt;
    let (owner, services) = (Owner::new(LINEAR), Services::default());
    let input = owner.input(TIMES);
    let (events, told) = recorded();
    let _worker = Worker::start(&services, &owner, |_, _| Conduct::Keep).await;
    let run_one = run_telling(&services, request(&owner, &input), events);
    let look = async {
        until(|| told.lock().unwrap().iter().any(|e| matches!(e, Event::Published { .. }))).await;
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&ledger(&owner)), 0o700);
        for entry in std::fs::read_dir(ledger(&owner)).unwrap() {
            assert_eq!(mode(&entry.unwrap().path()), 0o600);
        }
        run(&services, request(&owner, &input)).await.unwrap_err().to_string()
    };
    tokio::select! {
        report = run_one => panic!("{report:?}"),
        refused = look => assert!(refused.contains("is in use"), "{refused}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_rows_are_refused_before_anything_is_published() {
    let (owner, services) = (Owner::new(LINEAR), Services::default());
    let worker = Worker::start(&services, &owner, |_, _| Conduct::Answer).await;
    let input = owner.input(TIMES);
    let mut text = std::fs::read_to_string(&input).unwrap();
    let columns = text.lines().next().unwrap().split(',').count();
    text.push_str(&vec!["oops"; columns].join(","));
    std::fs::write(&input, text).unwrap();
    let refused = run(&services, request(&owner, &input)).await.unwrap_err().to_string();
    assert!(refused.contains("rows.csv: line 34") && refused.contains("oops"), "{refused}");
    let refused = run(&services, request(&owner, owner.folder.path())).await.unwrap_err();
    assert!(refused.to_string().contains("not a file"), "{refused}");
    assert!(worker.seen().is_empty() && !ledger(&owner).exists());
}
