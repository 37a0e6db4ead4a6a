//! No mask is used twice: whatever is encrypted has seeds and, in a job, an id of its own.

use std::collections::{HashMap, HashSet};
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use cipherscore_common::message::{Job, Payload};
use cipherscore_common::{BlobKind, BlobStore, Digest, JobId, OwnerId};
use cipherscore_engine::evaluator::Stop;
use cipherscore_engine::rlwe::mask::SEED_BYTES;
use cipherscore_engine::rlwe::primes::WORD_BITS;
use cipherscore_engine::rlwe::words::unpack;
use cipherscore_producer::events::{Event, Events};
use cipherscore_producer::matrix::Matrix;
use cipherscore_producer::model::{ClientModel, Encrypted, Encryption, EncryptionError, Receipt};
use cipherscore_producer::rows::{ExtraColumns, ScoreColumns};
use cipherscore_producer::score::{RowsPerJob, ScoreReport, ScoreRequest, score};
use cipherscore_producer::settings::ProducerSection;

use crate::support::{Conduct, Owner, Services, Worker, ids, testdata, until};

/// Of which an upload is more than a message takes.
const MODEL: &str = "lgb_forest";
const ROWS_PER_JOB: usize = 10;
const JOBS: usize = 6;
const IN_FLIGHT: u16 = 3;
const ROWS: usize = ROWS_PER_JOB * JOBS;

/// The committed rows, over and over; an empty field is a missing value.
fn rows(count: usize) -> (String, Vec<String>) {
    let text = std::fs::read_to_string(testdata(&format!("models/{MODEL}/rows.csv"))).unwrap();
    let (header, rows) = text.split_once('\n').unwrap();
    (header.to_owned(), rows.lines().cycle().take(count).map(str::to_owned).collect())
}

fn matrix(count: usize) -> Matrix<f64> {
    let (header, rows) = rows(count);
    let number = |field: &str| if field.is_empty() { f64::NAN } else { field.parse().unwrap() };
    let values = rows.iter().flat_map(|row| row.split(',').map(number).collect::<Vec<_>>());
    Matrix::new(header.split(',').count(), values.collect())
}

/// Keeps what was encrypted.
struct Recorded {
    encryption: Arc<dyn Encryption>,
    payloads: Mutex<Vec<Vec<u8>>>,
}

impl Encryption for Recorded {
    fn model(&self) -> &dyn ClientModel {
        self.encryption.model()
    }

    fn owner(&self) -> Option<OwnerId> {
        self.encryption.owner()
    }

    fn encrypt_unless(
        &self,
        rows: &Matrix<f64>,
        stop: Stop<'_>,
    ) -> Result<Encrypted, EncryptionError> {
        let payload = self.encryption.encrypt_unless(rows, stop)?;
        self.payloads.lock().unwrap().push(payload.body.clone());
        Ok(payload)
    }

    fn decrypt(
        &self,
        outputs: &[u8],
        rows: u32,
        receipt: Option<Receipt>,
    ) -> Result<Matrix<i64>, EncryptionError> {
        self.encryption.decrypt(outputs, rows, receipt)
    }
}

/// Seeds of the ring batches of an upload, and its words.
fn parts(upload: &[u8], ring_batches: usize) -> (Vec<[u8; SEED_BYTES]>, Vec<u64>) {
    let (mut seeds, mut words) = (Vec::new(), Vec::new());
    for ring_batch in upload.chunks(upload.len() / ring_batches) {
        let (seed, bodies) = ring_batch.split_first_chunk().unwrap();
        seeds.push(*seed);
        let start = words.len();
        words.resize(start + bodies.len() * 8 / WORD_BITS as usize, 0);
        unpack(bodies, 1 << WORD_BITS, &mut words[start..]).unwrap();
    }
    (seeds, words)
}

#[test]
fn the_same_rows_encrypt_to_other_masks_and_other_words() {
    let owner = Owner::compiled(MODEL);
    // Two ring batches, of which the second has the rows of the first.
    let rows = matrix(2 * 8192);
    let uploads = [(); 2].map(|()| owner.encryption().encrypt(&rows).unwrap().body);
    let [first, second] = uploads.each_ref().map(|upload| parts(upload, 2));
    let seeds: HashSet<_> = first.0.iter().chain(&second.0).collect();
    assert_eq!(seeds.len(), 4);
    assert!(first.1.len() > 100_000 && first.1.len() == second.1.len());
    let words: HashSet<_> = first.1.iter().chain(&second.1).collect();
    // Of 2^51 words, so many have two that are equal with probability 2^-12.
    assert!(words.len() + 2 >= first.1.len() + second.1.len(), "{}", words.len());
    assert!(first.1.iter().zip(&second.1).all(|(first, second)| first != second));
}

fn request(owner: &Owner, encryption: Arc<Recorded>, republish: bool) -> ScoreRequest {
    let input = owner.path("rows.csv");
    let (header, rows) = rows(ROWS);
    std::fs::write(&input, format!("{header}\n{}\n", rows.join("\n"))).unwrap();
    ScoreRequest {
        encryption,
        model_id: owner.model_id(),
        keys: owner.keys.clone(),
        input,
        format: ExtraColumns::Refuse.into(),
        output: owner.path("scores.csv"),
        columns: ScoreColumns::Integers,
        rows_per_job: RowsPerJob::Given(NonZeroU32::new(ROWS_PER_JOB.try_into().unwrap()).unwrap()),
        republish,
        settings: ProducerSection {
            in_flight: NonZeroU16::new(IN_FLIGHT).unwrap(),
            ..ProducerSection::default()
        },
    }
}

async fn run(services: &Services, request: ScoreRequest, events: Events) -> ScoreReport {
    let (broker, store) = (Arc::new(services.broker.clone()), Arc::new(services.store.clone()));
    score(broker, store, request, events).await.unwrap()
}

/// Runs until one job is answered and the next ones are with the worker, which keeps them. Then both
/// are dropped. The jobs that came.
async fn interrupt(services: &Services, owner: &Owner, encryption: &Arc<Recorded>) -> Vec<Job> {
    let conduct = |number, _: &Job| if number < 1 { Conduct::Answer } else { Conduct::Keep };
    let worker = Worker::start(services, owner, conduct).await;
    let scored = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&scored);
    let events = Events::new(move |event| {
        if matches!(event, Event::Scored { .. }) {
            counter.fetch_add(1, Ordering::SeqCst);
        }
    });
    let expected = 1 + usize::from(IN_FLIGHT);
    let enough = until(|| scored.load(Ordering::SeqCst) == 1 && worker.seen().len() == expected);
    tokio::select! {
        report = run(services, request(owner, encryption.clone(), false), events) => {
            panic!("the run ended: {report:?}")
        }
        () = enough => {}
    }
    let seen = worker.seen();
    worker.stop().await;
    seen
}

/// Integers of the rows, as the program in the clear says them by way of one upload.
fn expected(owner: &Owner) -> Vec<Vec<i64>> {
    let encryption = owner.encryption();
    let upload = encryption.encrypt(&matrix(ROWS)).unwrap().body;
    let key = owner.keys.evaluation_key(None).unwrap();
    let evaluator = Arc::clone(&owner.evaluator);
    let key = Arc::new(evaluator.prepare(key).unwrap());
    let rows = u32::try_from(ROWS).unwrap();
    let mut job = evaluator.begin(Some(key), rows).unwrap();
    job.push(&upload, &|| false).unwrap();
    let outputs = job.finish(&|| false).unwrap();
    encryption.decrypt(&outputs, rows, None).unwrap().rows().map(<[i64]>::to_vec).collect()
}

/// Which upload each job is of.
fn uploads(jobs: &[Job]) -> HashMap<JobId, Digest> {
    let mut uploads = HashMap::new();
    for job in jobs {
        let Payload::Stored(stored) = &job.payload else { panic!("uploads go by the store") };
        let before = uploads.insert(job.id, stored.sha256);
        assert!(before.is_none_or(|before| before == stored.sha256), "{}", job.id);
    }
    uploads
}

async fn resumed(republish: bool) {
    let (owner, services) = (Owner::compiled(MODEL), Services::default());
    let payloads = Mutex::default();
    let recorded = Arc::new(Recorded { encryption: owner.encryption(), payloads });
    let first = interrupt(&services, &owner, &recorded).await;
    let older = ids(&first);
    let encrypted = recorded.payloads.lock().unwrap().len();

    let kept = older.clone();
    let conduct = move |_, job: &Job| match republish && kept.contains(&job.id) {
        true => Conduct::Keep,
        false => Conduct::AnswerByStore,
    };
    let worker = Worker::start(&services, &owner, conduct).await;
    let request = request(&owner, recorded.clone(), republish);
    let report = run(&services, request, Events::ignored()).await;
    assert_eq!(report.rows_scored, ROWS as u64);
    let seen: Vec<_> = first.into_iter().chain(worker.seen()).collect();
    worker.stop().await;

    // Whatever was encrypted has a seed of its own, and each upload is that of one job.
    let payloads = recorded.payloads.lock().unwrap().clone();
    let seeds: HashSet<_> = payloads.iter().flat_map(|payload| parts(payload, 1).0).collect();
    assert_eq!(seeds.len(), payloads.len());
    let jobs = uploads(&seen);
    assert_eq!(jobs.values().collect::<HashSet<_>>().len(), jobs.len());
    assert!(
        jobs.values()
            .all(|sha256| { payloads.iter().any(|payload| Digest::of(payload) == *sha256) })
    );
    // Published again as it was, or encrypted again as another job.
    let again = if republish { usize::from(IN_FLIGHT) } else { 0 };
    assert_eq!((payloads.len() >= JOBS + again, jobs.len()), (true, JOBS + again));
    assert!(encrypted >= older.len());

    let text = std::fs::read_to_string(owner.path("scores.csv")).unwrap();
    let lines =
        text.lines().skip(1).map(|line| line.split(',').map(|x| x.parse().unwrap()).collect());
    assert_eq!(lines.collect::<Vec<Vec<i64>>>(), expected(&owner));
    let tenant = ProducerSection::default().tenant;
    for kind in [BlobKind::Job, BlobKind::Reply] {
        let left = services.store.list(&tenant, kind).await.unwrap();
        assert!(left.is_empty(), "{republish}: {left:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resumed_run_publishes_the_same_bytes_and_leaves_nothing() {
    resumed(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_encrypted_again_has_new_seeds_and_new_jobs() {
    resumed(true).await;
}
