//! Rows in memory: call after call through one stream, what is tried again, and what is taken back.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cipherscore_common::message::ErrorCode;
use cipherscore_common::{BlobName, BlobStore, MarkStore, OwnerId};
use cipherscore_engine::evaluator::Stop;
use cipherscore_producer::evaluation_keys::KeySource;
use cipherscore_producer::events::{Event, Events};
use cipherscore_producer::matrix::Matrix;
use cipherscore_producer::model::{ClientModel, Encrypted, Encryption, EncryptionError, Receipt};
use cipherscore_producer::rows::{ExtraColumns, RowReader};
use cipherscore_producer::settings::ProducerSection;
use cipherscore_producer::stream::{Stream, StreamError, Target};

use crate::support::{Conduct, LINEAR, Owner, PATIENCE, Services, TREE, Worker, ids, serve, until};

type Connections =
    Stream<cipherscore_common::broker::MemoryBroker, cipherscore_common::MemoryStore>;

async fn open(services: &Services) -> Connections {
    let (broker, store) = (services.broker.clone(), services.store.clone());
    let settings = ProducerSection::default();
    Stream::open(Arc::new(broker), Arc::new(store), settings, Events::ignored()).await.unwrap()
}

fn target(owner: &Owner) -> Target {
    let (evaluation, _) = owner.keys.digests(None).unwrap();
    let key = evaluation
        .filter(|_| owner.model.interface().needs_key)
        .map(|id| (id, KeySource::Folder(owner.keys.clone(), None)));
    Target { model_id: owner.model_id(), form: None, key }
}

fn rows(owner: &Owner, times: usize) -> Matrix<f64> {
    let file = std::fs::File::open(owner.input(times)).unwrap();
    let features = &owner.model.interface().features;
    RowReader::new(file, features, ExtraColumns::Refuse).unwrap().take(usize::MAX).unwrap()
}

async fn score(
    stream: &Connections,
    owner: &Owner,
    times: usize,
    rows_per_job: u32,
) -> Result<Vec<Vec<i64>>, StreamError> {
    let (rows, per_job) = (rows(owner, times), NonZeroU32::new(rows_per_job));
    let (target, encryption, told) = (target(owner), owner.encryption(), Events::ignored());
    let scored = stream.score(&target, &encryption, rows, per_job, &told).await?;
    Ok(scored.rows().map(<[i64]>::to_vec).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_share_connections_and_keys() {
    let (services, owner) = (Services::default(), Owner::new(TREE));
    let worker = Worker::start(&services, &owner, |_, _| Conduct::Answer).await;
    let stream = open(&services).await;
    assert_eq!(score(&stream, &owner, 2, 2).await.unwrap(), owner.expected(2));
    // The key is not read again, since it is there.
    std::fs::remove_file(owner.keys.evaluation_key_path()).unwrap();
    assert_eq!(score(&stream, &owner, 1, 3).await.unwrap(), owner.expected(1));
    let seen = worker.seen();
    assert_eq!(seen.iter().map(|job| job.rows).collect::<Vec<_>>(), [2, 2, 2, 3]);
    assert!(seen.iter().all(|job| job.reply_to == seen[0].reply_to));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_gone_from_the_store_is_put_there_again() {
    let (services, owner) = (Services::default(), Owner::new(TREE));
    let worker = Worker::start(&services, &owner, |number, _| match number {
        0 => Conduct::Refuse(ErrorCode::KeyMissing),
        1 => Conduct::Refuse(ErrorCode::BlobMissing),
        _ => Conduct::Answer,
    })
    .await;
    let stream = open(&services).await;
    let id = target(&owner).key.unwrap().0;
    let name = BlobName::evaluation_key(&ProducerSection::default().tenant, id);
    assert_eq!(score(&stream, &owner, 1, 9).await.unwrap(), owner.expected(1));
    services.store.info(&name).await.unwrap();
    // Each time as a job of its own.
    let mut jobs = ids(&worker.seen());
    jobs.dedup();
    assert_eq!(jobs.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_that_cannot_be_read_are_asked_for_again() {
    let (services, owner) = (Services::default(), Owner::new(LINEAR));
    let conduct = [Conduct::Nonsense, Conduct::LoseOutputs, Conduct::AnswerOften];
    let worker = Worker::start(&services, &owner, move |number, _| conduct[number.min(2)]).await;
    let stream = open(&services).await;
    assert_eq!(score(&stream, &owner, 1, 99).await.unwrap(), owner.expected(1));
    assert_eq!(worker.seen().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_names_its_rows() {
    let (services, owner) = (Services::default(), Owner::new(LINEAR));
    let refuse = |_, job: &cipherscore_common::message::Job| match job.rows {
        1 => Conduct::Refuse(ErrorCode::Internal),
        _ => Conduct::Answer,
    };
    let _worker = Worker::start(&services, &owner, refuse).await;
    let stream = open(&services).await;
    let rows = u32::try_from(owner.expected(1).len()).unwrap();
    let error = score(&stream, &owner, 1, rows - 1).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("rows {rows} to {rows} have no results")), "{error}");
    assert!(error.ends_with("internal: on request"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_published_of_rows_that_cannot_be_encrypted() {
    let (services, owner) = (Services::default(), Owner::new(LINEAR));
    let worker = Worker::start(&services, &owner, |_, _| Conduct::Answer).await;
    let stream = open(&services).await;
    let mut values = rows(&owner, 1).values().to_vec();
    *values.last_mut().unwrap() = f64::NAN;
    let rows = Matrix::new(owner.model.interface().features.count(), values);
    let (encryption, told) = (owner.encryption(), Events::ignored());
    let error = stream.score(&target(&owner), &encryption, rows, None, &told).await.unwrap_err();
    assert!(matches!(error, StreamError::Encryption(EncryptionError::Row { .. })), "{error}");
    assert!(worker.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_given_up_is_taken_back() {
    let (services, owner) = (Services::default(), Owner::new(LINEAR));
    let worker = Worker::start(&services, &owner, |number, _| match number {
        0 => Conduct::Keep,
        _ => Conduct::Answer,
    })
    .await;
    let stream = Arc::new(open(&services).await);
    let (calling, owner) = (Arc::clone(&stream), Arc::new(owner));
    let owned = Arc::clone(&owner);
    let call = tokio::spawn(async move { score(&calling, &owned, 1, 99).await.map(drop) });
    until(|| worker.seen().len() == 1).await;
    call.abort();
    let job = worker.seen()[0].id;
    let tenant = ProducerSection::default().tenant;
    while !services.store.marks(&tenant, job).await.unwrap().cancelled {
        tokio::task::yield_now().await;
    }
    // Others go on.
    assert_eq!(score(&stream, &owner, 1, 99).await.unwrap(), owner.expected(1));
}

/// Takes a while for each row, and counts them.
struct Slow {
    encryption: Arc<dyn Encryption>,
    encrypted: AtomicU64,
}

impl Encryption for Slow {
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
        for _ in 0..rows.len() {
            if stop() {
                return Err(EncryptionError::Stopped);
            }
            std::thread::sleep(Duration::from_millis(1));
            self.encrypted.fetch_add(1, Ordering::Relaxed);
        }
        self.encryption.encrypt(rows)
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

/// Each of its jobs would be encrypted for minutes.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_nobody_waits_for_encrypts_no_further_row() {
    let (services, owner) = (Services::default(), Owner::new(LINEAR));
    let worker = Worker::start(&services, &owner, |_, _| Conduct::Answer).await;
    let stream = open(&services).await;
    let slow = Arc::new(Slow { encryption: owner.encryption(), encrypted: AtomicU64::new(0) });
    let encrypted = || slow.encrypted.load(Ordering::Relaxed);
    let (target, all, told) = (target(&owner), rows(&owner, 100_000), Events::ignored());
    let encryption: Arc<dyn Encryption> = slow.clone();
    let per_job = NonZeroU32::new(200_000);
    tokio::select! {
        ended = stream.score(&target, &encryption, all, per_job, &told) => panic!("{ended:?}"),
        () = until(|| encrypted() > 20) => {}
    }
    // Rows that were begun are done; the flag is looked at before others.
    let (mut then, started) = (0, Instant::now());
    while then != encrypted() {
        assert!(started.elapsed() < PATIENCE, "it goes on");
        then = encrypted();
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(worker.seen().is_empty());
    assert_eq!(score(&stream, &owner, 1, 99).await.unwrap(), owner.expected(1));
}

#[test]
fn every_engine_stops_encrypting_when_it_is_told() {
    for owner in [Owner::new(LINEAR), Owner::compiled("lgb_binary")] {
        let features = owner.model.interface().features.count();
        let rows = Matrix::new(features, vec![0.0; 5000 * features]);
        let asked = AtomicU64::new(0);
        let stop = || asked.fetch_add(1, Ordering::Relaxed) >= 2;
        let stopped = owner.encryption().encrypt_unless(&rows, &stop).unwrap_err();
        assert!(matches!(stopped, EncryptionError::Stopped), "{stopped}");
        // Threads that had begun with something ask once more each.
        let threads = std::thread::available_parallelism().unwrap().get() as u64;
        assert!(asked.load(Ordering::Relaxed) <= 3 + threads, "{asked:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ciphertexts_of_another_program_go_through_as_they_are() {
    let (services, owner) = (Services::default(), Owner::new(TREE));
    let _worker = Worker::start(&services, &owner, |_, _| Conduct::AnswerByStore).await;
    let stream = open(&services).await;
    let (encryption, rows) = (owner.encryption(), rows(&owner, 1));
    let payloads =
        (0..rows.len()).map(|row| (1, encryption.encrypt(&rows.part(row, 1)).unwrap().body));
    let key = Arc::new(owner.keys.evaluation_key(None).unwrap());
    let target = target(&owner);
    let key = target.key.map(|(id, _)| (id, KeySource::Bytes(key)));
    let target = Target { key, ..target };
    let counted = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&counted);
    let events = Events::new(move |event| {
        if let Event::Scored { rows } = event {
            counter.fetch_add(rows, Ordering::Relaxed);
        }
    });
    let outputs = stream.evaluate(&target, payloads.collect(), &events).await.unwrap();
    let integers = outputs.iter().map(|output| encryption.decrypt(output, 1, None).unwrap());
    let integers: Vec<_> = integers.map(|integers| integers.values().to_vec()).collect();
    assert_eq!(integers, owner.expected(1));
    assert_eq!(counted.load(Ordering::Relaxed), rows.len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_nobody_serves_is_an_error_at_once() {
    let (services, owner) = (Services::default(), Owner::new(LINEAR));
    let other = Owner::new(TREE);
    serve(&services, &other).await;
    let error = score(&open(&services).await, &owner, 1, 9).await.unwrap_err();
    assert!(error.to_string().starts_with("no worker has ever served model"), "{error}");
}
