//! Many rows: what the way through the queue costs beside encryption and evaluation, and that
//! nothing of it stays.

use std::fmt::Write;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cipherscore_common::broker::{Broker, Disposition, QueuePrefetch, Subscription};
use cipherscore_common::message::{Job, Outcome, Payload, Reply, Timings};
use cipherscore_common::topology::{Declare, Lane, Topology, job_queue};
use cipherscore_common::{BlobKind, BlobName, BlobReader, BlobStore, ModelId, OwnerId};
use cipherscore_engine::evaluator::Stop;
use cipherscore_engine::model::ScoreKind;
use cipherscore_producer::events::Events;
use cipherscore_producer::matrix::Matrix;
use cipherscore_producer::model::{
    ClientModel, Encrypted, Encryption, EncryptionError, Features, InputFeature, Interface, KeyLog,
    NewKeys, Receipt,
};
use cipherscore_producer::rows::{ExtraColumns, ScoreColumns};
use cipherscore_producer::score::{RowsPerJob, ScoreRequest, score};
use cipherscore_producer::settings::ProducerSection;

use crate::support::{LINEAR, Owner, Services};

const ROWS: usize = 50_000;
const FEATURES: usize = 30;
const ROWS_PER_JOB: u32 = 4096;
/// Bytes of an encrypted row: each job is one of some megabytes.
const ROW_BYTES: usize = 1300;

/// A model without any cryptography: payloads are sums of rows, as many bytes as real ones have.
struct Sums {
    interface: Interface,
    /// Rows of the largest payload.
    most_rows: Arc<AtomicUsize>,
}

impl Sums {
    fn new() -> Self {
        let feature = |index| InputFeature::number(format!("feature {index}"), false, false);
        let interface = Interface {
            class_name: "Sums".into(),
            features: Features::named((0..FEATURES).map(feature).collect()),
            score_kind: ScoreKind::Predictions,
            scores: 1,
            outputs: 1,
            needs_key: false,
            key_steps: 0,
            rows_of_file: None,
        };
        Self { interface, most_rows: Arc::default() }
    }
}

impl ClientModel for Sums {
    fn interface(&self) -> &Interface {
        &self.interface
    }

    fn model_id(&self) -> Option<ModelId> {
        None
    }

    fn check(&self, _rows: &Matrix<f64>, _first_row: u64) -> Result<(), EncryptionError> {
        Ok(())
    }

    fn scores(&self, integers: &[i64]) -> Result<Vec<f64>, EncryptionError> {
        Ok(vec![integers[0] as f64])
    }

    fn rows_per_job(&self, _bootstraps: Option<usize>) -> NonZeroU32 {
        NonZeroU32::new(ROWS_PER_JOB).unwrap()
    }

    fn payload_bytes(&self, rows: u32) -> u64 {
        u64::from(rows) * ROW_BYTES as u64
    }

    fn max_output_bytes(&self, rows: u32) -> u64 {
        8 * u64::from(rows)
    }

    fn fits(&self, _server_zip: &[u8]) -> Result<bool, EncryptionError> {
        Ok(true)
    }

    fn make_keys(&self, _made: &dyn Fn()) -> Result<NewKeys, EncryptionError> {
        Ok(NewKeys { client: Vec::new().into(), evaluation: None, owner: None, logged: None })
    }

    fn with_logged_key(
        self: Arc<Self>,
        _: &[u8],
        _: Arc<dyn KeyLog>,
    ) -> Result<Arc<dyn Encryption>, EncryptionError> {
        Ok(self)
    }
}

impl Encryption for Sums {
    fn model(&self) -> &dyn ClientModel {
        self
    }

    fn owner(&self) -> Option<OwnerId> {
        None
    }

    fn encrypt_unless(
        &self,
        rows: &Matrix<f64>,
        _: Stop<'_>,
    ) -> Result<Encrypted, EncryptionError> {
        self.most_rows.fetch_max(rows.len(), Ordering::Relaxed);
        let mut payload = vec![0; rows.len() * ROW_BYTES];
        for (bytes, row) in payload.chunks_exact_mut(ROW_BYTES).zip(rows.rows()) {
            bytes[..8].copy_from_slice(&row.iter().sum::<f64>().to_le_bytes());
        }
        Ok(Encrypted::without_receipt(payload))
    }

    fn decrypt(
        &self,
        outputs: &[u8],
        _rows: u32,
        _receipt: Option<Receipt>,
    ) -> Result<Matrix<i64>, EncryptionError> {
        let (words, _) = outputs.as_chunks();
        let sums = words.iter().map(|word| f64::from_le_bytes(*word));
        #[allow(clippy::cast_possible_truncation, reason = "sums of small integers")]
        Ok(Matrix::new(1, sums.map(|sum| sum as i64).collect()))
    }
}

fn model_id() -> ModelId {
    "d".repeat(64).parse().unwrap()
}

/// Answers every job with the beginnings of its rows.
async fn serve(services: Services) {
    let queue = job_queue(model_id(), Lane::Normal);
    let queues = [QueuePrefetch { queue, prefetch: 100 }];
    let mut jobs = services.broker.subscribe(&queues).await.unwrap();
    loop {
        let delivery = jobs.next().await.unwrap();
        let job = Job::from_message(&delivery.message).unwrap();
        let Payload::Stored(stored) = &job.payload else { panic!("rows go by the store") };
        let (tenant, kind, id) = (job.tenant.clone(), BlobKind::Job, stored.sha256);
        let name = BlobName { tenant, kind, id };
        let reader = BlobReader::open(&services.store, &name).await.unwrap();
        let payload = reader.read_all(1 << 30).await.unwrap();
        let outputs = payload.chunks_exact(ROW_BYTES).flat_map(|row| row[..8].to_vec()).collect();
        let reply = Reply {
            version: job.version,
            job: job.id,
            correlation_id: None,
            model_id: Some(model_id()),
            owner_id: job.terms.owner_id,
            manifest_id: None,
            worker: "w".into(),
            timings: Timings::default(),
            trace: None,
            outcome: Outcome::Scored(Payload::Inline(outputs)),
        };
        services.broker.publish(&reply.to_message(&job.reply_to)).await.unwrap();
        delivery.settlement.settle(Disposition::Ack).await.unwrap();
    }
}

/// Columns in another order than the model has its features, and one more.
fn input() -> String {
    let mut text = String::from("id");
    (0..FEATURES).rev().for_each(|feature| write!(text, ",feature {feature}").unwrap());
    for row in 0..ROWS {
        write!(text, "\nrow {row}").unwrap();
        (0..FEATURES).for_each(|feature| write!(text, ",{}", row * feature).unwrap());
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn many_rows_go_through_fast_and_leave_nothing() {
    let (owner, services) = (Owner::new(LINEAR), Services::default());
    for topology in [Topology::shared(), Topology::of_model(model_id())] {
        services.broker.declare(&topology, Declare::Create).await.unwrap();
    }
    let worker = tokio::spawn(serve(services.clone()));
    let path = owner.path("many.csv");
    std::fs::write(&path, input()).unwrap();
    let model = Arc::new(Sums::new());
    let most_rows = Arc::clone(&model.most_rows);
    let request = ScoreRequest {
        encryption: model,
        model_id: model_id(),
        keys: owner.keys.clone(),
        input: path,
        format: ExtraColumns::Ignore.into(),
        output: owner.path("sums.csv"),
        columns: ScoreColumns::Integers,
        rows_per_job: RowsPerJob::Suggested(NonZeroU32::new(ROWS_PER_JOB).unwrap()),
        republish: false,
        settings: ProducerSection::default(),
    };
    let (broker, store) = (Arc::new(services.broker.clone()), Arc::new(services.store.clone()));
    let report = score(broker, store, request, Events::ignored()).await.unwrap();
    worker.abort();
    println!("{ROWS} rows in {:.2} s", report.seconds);
    assert!(report.seconds < Duration::from_secs(20).as_secs_f64(), "{}", report.seconds);
    assert_eq!((report.rows_scored, report.jobs_published), (ROWS as u64, 13));
    assert_eq!(most_rows.load(Ordering::Relaxed), 4096);
    let sum = FEATURES * (FEATURES - 1) / 2;
    let text = std::fs::read_to_string(owner.path("sums.csv")).unwrap();
    assert_eq!(text.lines().count(), 1 + ROWS);
    for (row, line) in text.lines().skip(1).enumerate() {
        assert_eq!(line.parse(), Ok(row * sum), "row {row}");
    }
    let tenant = ProducerSection::default().tenant;
    for kind in [BlobKind::Job, BlobKind::Reply] {
        assert!(services.store.list(&tenant, kind).await.unwrap().is_empty());
    }
    assert!(!owner.path("sums.csv.ledger").exists());
}
