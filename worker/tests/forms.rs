//! A model with two forms: each job is evaluated by the form that it names.

use std::num::NonZeroUsize;

use cipherscore_common::broker::MemoryBroker;
use cipherscore_common::message::{ErrorCode, Job, JobTerms, ProtocolVersion, Reply};
use cipherscore_common::{
    Blob, BlobStore as _, EvaluationKeyId, FormName, MemoryStore, ModelId, OwnerId,
};
use cipherscore_engine::artifact::Kind;
use cipherscore_engine::bulk::artifact::BulkSpecs;
use cipherscore_engine::bulk::client::{BulkClient, ReplyShape};
use cipherscore_engine::bulk::parameters::{Packing, Parameters};
use cipherscore_engine::bulk::program::{ColumnSum, Node, Output, Program, ValidProgram};
use cipherscore_engine::bulk::ring::Ring;
use cipherscore_engine::bulk::secret::SecretKey;
use cipherscore_engine::compiled::CompiledServerArtifact;
use cipherscore_engine::rows::artifact::RowSpecs;
use cipherscore_engine::rows::client::{ReplyCounts, RowClient};
use cipherscore_engine::rows::parameters::OutputRegion;
use cipherscore_engine::rows::plan::{
    DEFAULT_HIDE_BITS, RoundedSums, RowGoal, RowLimits, RowShape, plan_rows,
};
use cipherscore_engine::rows::program::{
    EnsembleRegion, PathEdge, PathLeaf, PathTree, RowProgram, ValidRowProgram,
};
use cipherscore_engine::rows::ring::RowRing;
use cipherscore_engine::rows::secret::RowSecretKey;
use cipherscore_worker::WorkerHandle;
use cipherscore_worker::config::WorkerConfig;

use crate::support::{Example, Tester, open_worker};

const BULK: Parameters = Parameters {
    packing: Packing::Slots,
    ring_dimension: 4096,
    primes: 2,
    plaintext_modulus: 40961,
};
const COLUMNS: u32 = 2;

/// Three where the first bit is set, else minus three.
fn bulk() -> (BulkSpecs, ValidProgram) {
    let specs = BulkSpecs {
        parameters: BULK,
        columns: COLUMNS,
        outputs: 1,
        degree: 1,
        hidden: true,
        reply_primes: BULK.primes,
        log2_sigma_phase: 40.0,
        log2_p_fail: -128.0,
        security_bits: BULK.security_bits(),
    };
    let node = Node::Affine(ColumnSum { constant: -3, terms: vec![(0, 6)] });
    let outputs = vec![Output { constant: 0, roots: vec![0] }];
    let program = Program { columns: COLUMNS, nodes: vec![node], outputs };
    (specs, program.validate().unwrap())
}

fn rows() -> (RowSpecs, ValidRowProgram) {
    let goal = RowGoal {
        max_error: 1e-3,
        log2_failure: -128.0,
        hide: DEFAULT_HIDE_BITS,
        tag_factors: 1,
        limits: RowLimits::DEFAULT,
    };
    let shape = RowShape {
        columns: COLUMNS,
        regions: vec![OutputRegion { outputs: 2, trees: 1 }],
        longest_path: 1,
    };
    let plan = plan_rows(&goal, &shape, &mut |_| RoundedSums { magnitude: 3, max_error: 0.0 });
    let plan = plan.unwrap();
    let leaf = |value, wanted| PathLeaf { value, path: vec![PathEdge { column: 0, wanted }] };
    let trees = vec![PathTree { leaves: vec![leaf(3, true), leaf(-3, false)] }];
    let offset = plan.parameters.value_centre();
    let program = RowProgram { columns: COLUMNS, regions: vec![EnsembleRegion { offset, trees }] };
    let program = program.validate(&plan.parameters).unwrap();
    let security_bits = plan.parameters.keys.security_bits();
    let specs =
        RowSpecs { parameters: plan.parameters, log2_p_fail: plan.log2_failure, security_bits };
    (specs, program)
}

/// A data owner with a key for each form.
struct Owner {
    bulk: BulkClient,
    bulk_owner: Option<OwnerId>,
    bulk_key: Vec<u8>,
    rows: RowClient,
    row_owner: OwnerId,
    row_key: Vec<u8>,
}

impl Owner {
    fn new(model: ModelId, name: u8) -> Self {
        let ring = Ring::new(BULK).unwrap();
        let secret = SecretKey::generate(&BULK).unwrap();
        let bulk_key = secret.public_key(&ring).unwrap();
        let parameters = rows().0.parameters;
        let row_ring = RowRing::new(&parameters.keys).unwrap();
        let row_secret = RowSecretKey::generate(&parameters.keys).unwrap();
        let row_key = row_secret.evaluation_key(&row_ring).unwrap();
        let row_owner = OwnerId::from_bytes([name; 16]).unwrap();
        Self {
            bulk_owner: secret.owner(),
            bulk: BulkClient::new(ring, &secret).unwrap(),
            bulk_key,
            rows: RowClient::new(row_ring, parameters, model, row_owner, &row_secret).unwrap(),
            row_owner,
            row_key,
        }
    }

    /// A job of one row in the row form, and the score of what comes of it.
    fn row_job(&self, tester: &Tests, model: ModelId, bit: bool) -> (Job, Row<'_>) {
        let upload = self.rows.encrypt(&[[bit, true]], &ReplyCounts::default()).unwrap();
        let job = Job {
            key_id: Some(EvaluationKeyId::of(&self.row_key)),
            terms: JobTerms {
                form: Some(FormName::Rows),
                owner_id: Some(self.row_owner),
                ..JobTerms::default()
            },
            ..tester.keyless_job(model, upload.bytes)
        };
        (job, Row { owner: self, digest: upload.digest })
    }

    fn bulk_job(&self, tester: &Tests, model: ModelId, form: Option<FormName>) -> Job {
        let fill = |_, _, values: &mut [i64]| values.fill(1);
        let upload = self.bulk.encrypt(1, COLUMNS, fill).unwrap();
        Job {
            key_id: Some(EvaluationKeyId::of(&self.bulk_key)),
            terms: JobTerms { form, owner_id: self.bulk_owner, ..JobTerms::default() },
            ..tester.keyless_job(model, upload)
        }
    }

    fn bulk_score(&self, reply: &[u8]) -> i64 {
        let shape = ReplyShape { rows: 1, outputs: 1, degree: 1, primes: BULK.primes };
        self.bulk.decrypt(reply, shape).unwrap()[0][0]
    }
}

/// What a reply to a row is decrypted with.
struct Row<'a> {
    owner: &'a Owner,
    digest: cipherscore_engine::rows::client::UploadDigest,
}

impl Row<'_> {
    fn score(&self, reply: &[u8]) -> i64 {
        let client = &self.owner.rows;
        let sums = client.decrypt(self.digest, 1, reply, &mut ReplyCounts::default()).unwrap();
        sums[0][0].cast_signed() - client.parameters().value_centre()
    }
}

type Tests = Tester<MemoryBroker, MemoryStore>;

async fn answer(tester: &mut Tests, job: &Job) -> (Reply, Vec<u8>) {
    tester.publish(job).await;
    let reply = tester.reply().await;
    assert_eq!(reply.job, job.id);
    let outputs = tester.outputs(&reply).await;
    (reply, outputs)
}

async fn put(tester: &Tests, key: &[u8]) {
    let blob = Blob::evaluation_key(&tester.tenant, key.to_vec()).unwrap();
    tester.store.put(&blob, None, &|| ()).await.unwrap();
}

/// A worker whose models are these zips.
async fn worker(
    broker: &MemoryBroker,
    store: MemoryStore,
    zips: &[Vec<u8>],
) -> WorkerHandle<MemoryBroker, MemoryStore> {
    let folder = tempfile::tempdir().unwrap();
    for (number, zip) in zips.iter().enumerate() {
        std::fs::write(folder.path().join(format!("{number}.zip")), zip).unwrap();
    }
    let change = |config: &mut WorkerConfig| {
        config.models.folder = Some(folder.path().to_owned());
        config.models.reload_interval = crate::support::PATIENCE * 60;
        config.worker.threads = NonZeroUsize::new(2);
    };
    open_worker(broker, store, change).await.start().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_evaluated_in_the_form_that_they_name() {
    let ((bulk_specs, bulk_program), (row_specs, row_program)) = (bulk(), rows());
    let zip = |has_bulk: bool| {
        let bulk = has_bulk.then_some((&bulk_specs, &bulk_program));
        let rows = Some((&row_specs, &row_program));
        CompiledServerArtifact::zip(Kind::Ensemble, bulk, rows).unwrap()
    };
    let (both, only_rows) = (zip(true), zip(false));
    let linear = Example::linear();
    let linear_zip = std::fs::read(linear.folder.join("server.zip")).unwrap();
    let [model, rows_model] = [&both, &only_rows].map(|zip| ModelId::of(zip));
    let (broker, store) = (MemoryBroker::default(), MemoryStore::default());
    let mut tester = Tester::new(broker.clone(), store.clone(), "forms").await;
    let worker = worker(&broker, store, &[both, only_rows, linear_zip]).await;
    for id in [model, rows_model, linear.id] {
        tester.wait_for_worker(id).await;
    }
    let [owner, other] = [1, 2].map(|name| Owner::new(model, name));
    for key in [&owner.bulk_key, &owner.row_key, &other.row_key] {
        put(&tester, key).await;
    }

    for (bit, expected) in [(true, 3), (false, -3)] {
        let (job, row) = owner.row_job(&tester, model, bit);
        let (reply, outputs) = answer(&mut tester, &job).await;
        assert_eq!((row.score(&outputs), reply.owner_id), (expected, Some(owner.row_owner)));
    }
    // Two keys of one owner, each fetched once; without a name, the form is bulk, as in version 1.
    for form in [None, Some(FormName::Bulk)] {
        let job = owner.bulk_job(&tester, model, form);
        assert_eq!(owner.bulk_score(&answer(&mut tester, &job).await.1), 3);
    }
    let older = Job { version: ProtocolVersion::V1, ..owner.bulk_job(&tester, model, None) };
    assert_eq!(owner.bulk_score(&answer(&mut tester, &older).await.1), 3);
    assert_eq!(worker.key_fetches(), 2);

    // The bytes of one form are none of the other, and neither is its key.
    let (mut job, _) = owner.row_job(&tester, model, true);
    job.terms.form = Some(FormName::Bulk);
    job.key_id = Some(EvaluationKeyId::of(&owner.bulk_key));
    job.terms.owner_id = owner.bulk_owner;
    tester.expect_failure(&job, ErrorCode::WrongShape).await;
    let (mut job, _) = owner.row_job(&tester, model, true);
    job.key_id = Some(EvaluationKeyId::of(&owner.bulk_key));
    tester.expect_failure(&job, ErrorCode::NotConformant).await;

    // A form that a model does not have.
    let job = owner.bulk_job(&tester, rows_model, Some(FormName::Bulk));
    let reason = tester.expect_failure(&job, ErrorCode::WrongShape).await;
    assert!(reason.contains("form bulk") && reason.ends_with("encrypt them for rows"), "{reason}");
    let mut job = tester.job(&linear, &[0]);
    job.terms.form = Some(FormName::Rows);
    let reason = tester.expect_failure(&job, ErrorCode::WrongShape).await;
    assert!(reason.contains("one form, without a name"), "{reason}");

    // Rows of another client key than the evaluation key.
    let (mut job, _) = owner.row_job(&tester, model, true);
    job.key_id = Some(EvaluationKeyId::of(&other.row_key));
    let reason = tester.expect_failure(&job, ErrorCode::WrongOwner).await;
    assert!(reason.contains("another client key"), "{reason}");
    drop(worker);
}
