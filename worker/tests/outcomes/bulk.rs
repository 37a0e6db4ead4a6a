//! Jobs of the bulk engine: uploads of several chunks, and what may be wrong with them.

use std::sync::Arc;

use cipherscore_common::message::{ErrorCode, Job, JobTerms, Outcome, Payload, ProtocolVersion};
use cipherscore_common::topology::Lane;
use cipherscore_common::{
    Blob, BlobStore as _, Digest, EvaluationKeyId, JobId, ModelId, OwnerId, ReleaseStore as _,
};
use cipherscore_engine::artifact::Kind;
use cipherscore_engine::bulk::artifact::{BulkServerArtifact, BulkSpecs};
use cipherscore_engine::bulk::client::{BulkClient, ReplyShape};
use cipherscore_engine::bulk::evaluator::BulkEvaluator;
use cipherscore_engine::bulk::noise::{Moments, sanitiser_variance};
use cipherscore_engine::bulk::parameters::{Packing, Parameters};
use cipherscore_engine::bulk::program::{ColumnSum, Node, Output, Product, Program, ValidProgram};
use cipherscore_engine::bulk::ring::Ring;
use cipherscore_engine::bulk::secret::SecretKey;

use super::{settled, stop};

use crate::support::{Services, Tester, open_worker};

/// Two for each tree: an upload of 3.3 MB.
const COLUMNS: u32 = 64;
const ROWS: u32 = 1000;
/// So many that a reply goes by the store.
const OUTPUTS: u32 = 7;
const PARAMETERS: Parameters = Parameters {
    packing: Packing::Slots,
    ring_dimension: 4096,
    primes: 2,
    plaintext_modulus: 40961,
};

/// A hidden model of trees of depth 2, with its data owner.
pub(crate) struct Bulk {
    evaluator: Arc<BulkEvaluator>,
    program: ValidProgram,
    specs: BulkSpecs,
    client: BulkClient,
    owner: Option<OwnerId>,
    key: Vec<u8>,
}

/// Bits that look random.
fn bit(column: u32, row: usize) -> i64 {
    i64::from(
        (row as u64 * 31 + u64::from(column) * 7 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 63
            == 1,
    )
}

fn program() -> ValidProgram {
    let affine = |constant, column, factor| ColumnSum { constant, terms: vec![(column, factor)] };
    let mut nodes = Vec::new();
    for column in (0..COLUMNS).step_by(2) {
        let factor = u32::try_from(nodes.len()).unwrap();
        nodes.push(Node::Affine(affine(-3, column, 5 + i64::from(column))));
        let indicator = affine(0, column + 1, 1);
        let products = vec![Product { indicator, factor, minus: None }];
        nodes.push(Node::Select { base: None, products });
    }
    let roots: Vec<_> = (1..COLUMNS).step_by(2).collect();
    let output = |constant: u32| Output { constant: constant.into(), roots: roots.clone() };
    Program { columns: COLUMNS, nodes, outputs: (0..OUTPUTS).map(output).collect() }
        .validate()
        .unwrap()
}

impl Bulk {
    pub(crate) fn new() -> Self {
        let program = program();
        let degree = program.degree();
        let variance = Moments::new(&program).unwrap().variance(&PARAMETERS)
            + sanitiser_variance(&PARAMETERS, degree);
        let specs = BulkSpecs {
            parameters: PARAMETERS,
            columns: COLUMNS,
            outputs: OUTPUTS,
            degree,
            hidden: true,
            reply_primes: PARAMETERS.primes,
            log2_sigma_phase: variance.log2() / 2.0,
            log2_p_fail: -128.0,
            security_bits: PARAMETERS.security_bits(),
        };
        let zip = BulkServerArtifact::zip(Kind::Ensemble, &specs, &program).unwrap();
        let evaluator = BulkEvaluator::new(BulkServerArtifact::open(&zip).unwrap()).unwrap();
        let ring = Ring::new(PARAMETERS).unwrap();
        let secret = SecretKey::generate(&PARAMETERS).unwrap();
        let key = secret.public_key(&ring).unwrap();
        let client = BulkClient::new(ring, &secret).unwrap();
        let owner = secret.owner();
        Self { evaluator: Arc::new(evaluator), program, specs, client, owner, key }
    }

    fn upload(&self) -> Vec<u8> {
        let fill = |column: u32, first: usize, values: &mut [i64]| {
            values.iter_mut().enumerate().for_each(|(at, value)| *value = bit(column, first + at));
        };
        self.client.encrypt(ROWS as usize, COLUMNS, fill).unwrap()
    }

    fn key_blob<V: Services>(tester: &Tester<V::B, V::S>, key: Vec<u8>) -> Blob {
        Blob::evaluation_key(&tester.tenant, key).unwrap()
    }

    fn check(&self, reply: &[u8]) {
        let (degree, primes) = (self.specs.degree, self.specs.reply_primes);
        let (rows, outputs) = (ROWS as usize, OUTPUTS as usize);
        let found = self.client.decrypt(reply, ReplyShape { rows, outputs, degree, primes });
        let found = found.unwrap();
        for row in 0..rows {
            let bits: Vec<_> = (0..COLUMNS).map(|column| bit(column, row)).collect();
            let found: Vec<_> = found.iter().map(|output| output[row]).collect();
            assert_eq!(found, self.program.interpret(&bits).unwrap(), "row {row}");
        }
    }
}

fn key_id(key: &[u8]) -> EvaluationKeyId {
    EvaluationKeyId::new(Digest::of(key))
}

/// What can happen to the chunks of a blob in a store, past the store.
pub(crate) trait Damage {
    /// One of them changes.
    async fn change(&self, blob: &Blob);
    /// One of them is gone.
    async fn remove(&self, blob: &Blob);
}

/// A store whose chunks nobody reaches.
impl Damage for () {
    async fn change(&self, _: &Blob) {}
    async fn remove(&self, _: &Blob) {}
}

/// A job of an upload, which is in the store.
async fn job<V: Services>(
    tester: &Tester<V::B, V::S>,
    model_id: ModelId,
    (owner_id, key): (Option<OwnerId>, Option<EvaluationKeyId>),
    upload: Vec<u8>,
) -> (Job, Blob) {
    let mut job = Job {
        version: ProtocolVersion::V2,
        id: JobId::random(),
        tenant: tester.tenant.clone(),
        reply_to: tester.reply_to.clone(),
        correlation_id: None,
        model_id,
        lane: Lane::Normal,
        key_id: key,
        rows: ROWS,
        deadline: None,
        terms: JobTerms { owner_id, ..JobTerms::default() },
        attempt: 0,
        trace: None,
        payload: Payload::Inline(upload),
    };
    let blob = tester.store_payload(&mut job).await;
    assert!(blob.info(None).bytes > 3 << 20);
    (job, blob)
}

/// Chunks are evaluated as they come; what is no upload, or no key, is told with its code, and only
/// what is answered counts as released. `damage` is done to the chunks of a job, in the store.
pub(crate) async fn bulk<V: Services>(services: &V, bulk: &Bulk, damage: Option<impl Damage>) {
    let mut worker = open_worker(&services.broker(), services.store(), |_| ()).await;
    let model = worker.add_model(bulk.evaluator.clone());
    let worker = worker.start().await.unwrap();
    settled(services, model).await;
    let mut tester = services.tester("bulk").await;
    let key = key_id(&bulk.key);
    let ours = (bulk.owner, Some(key));
    let upload = bulk.upload();

    let (missing, _) = job::<V>(&tester, model, ours, upload.clone()).await;
    tester.expect_failure(&missing, ErrorCode::KeyMissing).await;
    let (without, _) = job::<V>(&tester, model, (bulk.owner, None), upload.clone()).await;
    tester.expect_failure(&without, ErrorCode::KeyMissing).await;

    let other = Parameters { plaintext_modulus: 65537, ..PARAMETERS };
    let other = SecretKey::generate(&other).unwrap().public_key(&Ring::new(other).unwrap());
    let other = other.unwrap();
    for key in [&bulk.key, &other] {
        let blob = Bulk::key_blob::<V>(&tester, key.clone());
        tester.store.put(&blob, None, &|| ()).await.unwrap();
    }
    let (strange, _) =
        job::<V>(&tester, model, (bulk.owner, Some(key_id(&other))), upload.clone()).await;
    tester.expect_failure(&strange, ErrorCode::NotConformant).await;

    for wrong in [upload[..upload.len() - 1].to_vec(), [&upload[..], &[0]].concat()] {
        let (wrong, _) = job::<V>(&tester, model, ours, wrong).await;
        tester.expect_failure(&wrong, ErrorCode::WrongShape).await;
    }
    let (lost, blob) = job::<V>(&tester, model, ours, upload.clone()).await;
    tester.store.remove(blob.name()).await.unwrap();
    tester.expect_failure(&lost, ErrorCode::BlobMissing).await;
    if let Some(damage) = damage {
        let (changed, blob) = job::<V>(&tester, model, ours, upload.clone()).await;
        damage.change(&blob).await;
        tester.expect_failure(&changed, ErrorCode::WrongDigest).await;
        let (lost, blob) = job::<V>(&tester, model, ours, bulk.upload()).await;
        damage.remove(&blob).await;
        tester.expect_failure(&lost, ErrorCode::BlobMissing).await;
    }
    assert_eq!(tester.store.released(&tester.tenant, key).await.unwrap(), 0);

    // The same bytes again are another execution, which floods anew and counts again.
    let mut replies = Vec::new();
    let upload = bulk.upload();
    for times in 1..=2 {
        let (valid, _) = job::<V>(&tester, model, ours, upload.clone()).await;
        tester.publish(&valid).await;
        let reply = tester.reply().await;
        assert_eq!((reply.job, reply.version), (valid.id, ProtocolVersion::V2));
        assert_eq!(reply.owner_id, bulk.owner);
        assert!(matches!(reply.outcome, Outcome::Scored(Payload::Stored(_))), "{reply:?}");
        replies.push(tester.outputs(&reply).await);
        bulk.check(&replies[replies.len() - 1]);
        let released = tester.store.released(&tester.tenant, key).await.unwrap();
        assert_eq!(released, times * u64::from(OUTPUTS * PARAMETERS.ring_dimension));
    }
    assert!(replies[0] != replies[1]);
    // The one that was not there, the strange one, and the right one for all jobs.
    assert_eq!(worker.key_fetches(), 3);
    owners::<V>(&mut tester, model, bulk, &upload).await;
    stop(worker).await;
}

/// A key of another owner is refused, whoever says what: it would evaluate to plausible scores.
async fn owners<V: Services>(
    tester: &mut Tester<V::B, V::S>,
    model: ModelId,
    bulk: &Bulk,
    upload: &[u8],
) {
    let other = SecretKey::generate(&PARAMETERS).unwrap();
    let other_key = other.public_key(&Ring::new(PARAMETERS).unwrap()).unwrap();
    let blob = Bulk::key_blob::<V>(tester, other_key.clone());
    tester.store.put(&blob, None, &|| ()).await.unwrap();
    let (key, other_key) = (Some(key_id(&bulk.key)), Some(key_id(&other_key)));
    for (owner, key) in [(bulk.owner, other_key), (other.owner(), key), (None, key)] {
        let (foreign, _) = job::<V>(tester, model, (owner, key), upload.to_vec()).await;
        let reason = tester.expect_failure(&foreign, ErrorCode::WrongOwner).await;
        let names = [owner, if key == other_key { other.owner() } else { bulk.owner }];
        for name in names.into_iter().flatten() {
            assert!(reason.contains(&name.to_string()), "{reason}");
        }
    }
    // A job of version 1 says nothing about owners, and is answered in version 1.
    let (mut older, _) = job::<V>(tester, model, (None, key), upload.to_vec()).await;
    older.version = ProtocolVersion::V1;
    tester.publish(&older).await;
    let reply = tester.reply().await;
    assert_eq!((reply.job, reply.version), (older.id, ProtocolVersion::V1));
    assert_eq!(reply.owner_id, None);
    bulk.check(&tester.outputs(&reply).await);
}
