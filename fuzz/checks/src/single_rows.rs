//! The row engine: programs, zips, uploads, replies and keys.

use std::sync::{Arc, LazyLock};

use cipherscore_common::OwnerId;
use cipherscore_engine::artifact::{Kind, ModelId, NativeManifest, names};
use cipherscore_engine::compiled::{CompiledClientArtifact, CompiledServerArtifact};
use cipherscore_engine::evaluator::{Evaluator, PreparedKey};
use cipherscore_engine::rows::client::{ReplyCounts, RowClient, RowClientError, UploadDigest};
use cipherscore_engine::rows::evaluation_key::serialised_len;
use cipherscore_engine::rows::evaluator::RowEvaluator;
use cipherscore_engine::rows::parameters::{OutputRegion, RowParameters};
use cipherscore_engine::rows::plan::{
    DEFAULT_HIDE_BITS, RoundedSums, RowGoal, RowLimits, RowShape, plan_rows,
};
use cipherscore_engine::rows::program::{EnsembleRegion, PathEdge, PathLeaf, PathTree, RowProgram};
use cipherscore_engine::rows::reply::{row_reply_len, seal};
use cipherscore_engine::rows::ring::RowRing;
use cipherscore_engine::rows::secret::RowSecretKey;
use cipherscore_engine::rows::upload::{
    SeedSource, UPLOAD_HEADER_BYTES, UploadHeader, row_len, upload_len,
};

use crate::bulk::repeated;
use crate::frames::{choice, split};
use crate::zips::sizes;

/// Edges of a program that is evaluated, and ciphertexts of its replies; beyond it a check takes too
/// long.
const MAX_SIZE: usize = 1 << 12;
/// Bytes before the rows of a reply.
const REPLY_HEADER_BYTES: usize = 64;
/// Bytes of a reply's digest.
const DIGEST_BYTES: usize = 32;
/// Bytes of a secret key before its coefficients.
const SECRET_HEADER_BYTES: usize = 20;
/// Bytes of an evaluation key before its steps.
const KEY_HEADER_BYTES: usize = 56;

/// A program file: what was read is written and read again as the same.
pub(crate) fn program(bytes: &[u8]) {
    let Ok(program) = RowProgram::from_bytes(bytes) else { return };
    let again = program.to_bytes().expect("what was read can be written");
    assert_eq!(RowProgram::from_bytes(&again).expect("and read again"), program);
    program.edges();
    if let Ok(valid) = program.clone().validate(&model().parameters) {
        assert_eq!(valid.program(), &program);
    }
}

/// A `server.zip`: specs of rows, their program.
pub(crate) fn server_zip(bytes: &[u8]) {
    let [specs, program] = split(bytes);
    let files = [(names::ROW_SPECS, specs.to_vec()), (names::ROW_PROGRAM, program.to_vec())];
    let zip = NativeManifest::seal(Kind::Ensemble, None, &files).to_zip();
    let Ok(artifact) = CompiledServerArtifact::open(&zip.expect("a zip of a few files")) else {
        return;
    };
    let rows = artifact.rows.expect("there is nothing else");
    let again =
        CompiledServerArtifact::zip(Kind::Ensemble, None, Some((&rows.specs, &rows.program)));
    let again = CompiledServerArtifact::open(&again.expect("what was read can be written"));
    let again = again.expect("and read again").rows.expect("with its rows");
    assert_eq!((&again.specs, &again.program), (&rows.specs, &rows.program));
    let parameters = rows.specs.parameters;
    let ciphertexts = parameters.layout().reply_ciphertexts();
    if rows.program.program().edges() > MAX_SIZE || ciphertexts > MAX_SIZE {
        return;
    }
    if let Ok(evaluator) = RowEvaluator::new(rows.model_id, parameters, rows.program.into_program())
    {
        sizes(&evaluator);
        assert_eq!(evaluator.idle_bytes(), 0);
    }
}

/// A `client.zip`: specs of rows, processing, report.
pub(crate) fn client_zip(bytes: &[u8]) {
    let [specs, processing, report] = split(bytes);
    let files = [
        (names::ROW_SPECS, specs.to_vec()),
        (names::CLIENT_MODEL, processing.to_vec()),
        (names::REPORT, report.to_vec()),
    ];
    let id = Some(ModelId::of(b"original"));
    let zip = NativeManifest::seal(Kind::Ensemble, id, &files).to_zip();
    let Ok(artifact) = CompiledClientArtifact::open(&zip.expect("a zip of a few files")) else {
        return;
    };
    let again = artifact.to_zip().expect("what was read can be written");
    assert_eq!(CompiledClientArtifact::open(&again).expect("and read again"), artifact);
    let parameters = artifact.rows.expect("there is nothing else").parameters;
    for rows in [1, 2, 1000, u32::MAX] {
        assert!(upload_len(&parameters, rows).is_some_and(|bytes| bytes > UPLOAD_HEADER_BYTES));
        row_reply_len(&parameters, rows);
    }
    assert!(serialised_len(&parameters.keys) > KEY_HEADER_BYTES);
}

/// A small model, with a key that is the same every time: what was found is found again.
struct SmallModel {
    parameters: RowParameters,
    evaluator: Arc<RowEvaluator>,
    key: Arc<PreparedKey>,
    secret: RowSecretKey,
    client: RowClient,
    header: UploadHeader,
}

/// One tree of two leaves.
fn tree(offset: i64) -> RowProgram {
    let leaf = |value, wanted| PathLeaf { value, path: vec![PathEdge { column: 0, wanted }] };
    let trees = vec![PathTree { leaves: vec![leaf(3, true), leaf(-3, false)] }];
    RowProgram { columns: 2, regions: vec![EnsembleRegion { offset, trees }] }
}

fn parameters() -> RowParameters {
    let goal = RowGoal {
        max_error: 1e-3,
        log2_failure: -128.0,
        hide: DEFAULT_HIDE_BITS,
        tag_factors: 1,
        limits: RowLimits::DEFAULT,
    };
    let regions = vec![OutputRegion { outputs: 2, trees: 1 }];
    let shape = RowShape { columns: 2, regions, longest_path: 1 };
    let round = &mut |_: f64| RoundedSums { magnitude: 3, max_error: 0.0 };
    plan_rows(&goal, &shape, round).expect("a small model fits").parameters
}

/// A secret key's bytes with these coefficients.
fn secret_bytes(parameters: &RowParameters, coefficients: &[u8]) -> Vec<u8> {
    let key = RowSecretKey::generate(&parameters.keys).expect("randomness of the system");
    [&key.to_bytes()[..SECRET_HEADER_BYTES], coefficients].concat()
}

fn model() -> &'static SmallModel {
    static MODEL: LazyLock<SmallModel> = LazyLock::new(|| {
        let parameters = parameters();
        let keys = &parameters.keys;
        let ring = RowRing::new(keys).expect("parameters of the table");
        let coefficients = repeated(&[0, 1, 255, 1], keys.dimension());
        let secret = secret_bytes(&parameters, &coefficients);
        let secret = RowSecretKey::from_bytes(&secret, keys).expect("a secret key");
        let key = secret.evaluation_key(&ring).expect("of this ring");
        let owner = OwnerId::from_bytes([1; 16]).expect("not zeros");
        let model = ModelId::of(b"small");
        let evaluator =
            RowEvaluator::new(model, parameters.clone(), tree(parameters.value_centre()));
        let evaluator = evaluator.expect("our own program");
        let header =
            UploadHeader { seeds: SeedSource::Fresh, rows: 1, owner, model, key: secret.id() };
        let client = RowClient::new(ring, parameters.clone(), model, owner, &secret);
        SmallModel {
            key: Arc::new(evaluator.prepare(key).expect("our own key")),
            evaluator: Arc::new(evaluator),
            client: client.expect("of this ring"),
            secret,
            header,
            parameters,
        }
    });
    &MODEL
}

/// What a worker makes of an upload in pieces; none where it is refused.
fn evaluate(rows: u32, upload: &[u8]) -> Option<Vec<u8>> {
    let SmallModel { evaluator, key, .. } = model();
    let mut job = Arc::clone(evaluator).begin(Some(Arc::clone(key)), rows).expect("with its key");
    for piece in upload.chunks(61) {
        job.push(piece, &|| false).ok()?;
    }
    job.finish(&|| false).ok()
}

/// A job from its first byte to its reply: the number of rows, whether the header is right, whether the
/// length is; then the upload, or its rows.
pub(crate) fn job(bytes: &[u8]) {
    let (rows, bytes) = choice(bytes);
    let (own_header, bytes) = choice(bytes);
    let (cut, bytes) = choice(bytes);
    let SmallModel { parameters, header, .. } = model();
    let rows = u32::from(rows % 3) + 1;
    let len = upload_len(parameters, rows).expect("a short upload");
    let header = match own_header % 2 {
        0 => UploadHeader { rows, ..*header }.to_bytes().to_vec(),
        _ => Vec::new(),
    };
    // One byte more or less now and then.
    let rest = len - header.len() + usize::from(cut % 16 == 1) - usize::from(cut % 16 == 2);
    let upload = [header, repeated(bytes, rest)].concat();
    let Some(reply) = evaluate(rows, &upload) else { return };
    assert_eq!(upload.len(), len);
    assert_eq!(Some(reply.len()), row_reply_len(parameters, rows));
}

/// An upload of zeros, and the reply to it.
fn answered() -> &'static (UploadDigest, Vec<u8>) {
    static ANSWERED: LazyLock<(UploadDigest, Vec<u8>)> = LazyLock::new(|| {
        let SmallModel { parameters, header, .. } = model();
        let upload = [&header.to_bytes()[..], &vec![0; row_len(parameters)]].concat();
        let reply = evaluate(1, &upload).expect("zeros are residues");
        let digest = reply[32..].first_chunk().expect("the header is longer");
        (UploadDigest(*digest), reply)
    });
    &ANSWERED
}

/// A reply: which parts are right, then the bytes of what is not. A reply that is whole and of this
/// upload is good or bad, and only then counts.
pub(crate) fn reply(bytes: &[u8]) {
    let (right, bytes) = choice(bytes);
    let (digest, valid) = answered();
    let len = valid.len() - DIGEST_BYTES;
    let mut reply = match right % 4 {
        // All of it is fuzzed.
        0 => bytes.to_vec(),
        // The header is right, all else is fuzzed.
        1 => [&valid[..REPLY_HEADER_BYTES], bytes].concat(),
        // The length is right as well.
        2 => {
            let rest = repeated(bytes, len - REPLY_HEADER_BYTES);
            [&valid[..REPLY_HEADER_BYTES], &rest].concat()
        }
        // What was answered, with other bytes in front.
        _ => {
            let mut reply = valid[..len].to_vec();
            reply.iter_mut().zip(bytes).for_each(|(byte, other)| *byte ^= other);
            reply
        }
    };
    if right & 4 == 0 {
        seal(&mut reply);
    }
    let mut counts = ReplyCounts::default();
    match model().client.decrypt(*digest, 1, &reply, &mut counts) {
        Ok(sums) => {
            let modulus = model().parameters.value_modulus;
            assert!(sums.len() == 1 && sums[0].len() == 1 && sums[0][0] < modulus);
            assert_eq!(counts, ReplyCounts { answered_rows: 1, bad: 0 });
        }
        Err(RowClientError::Bad { bad }) => {
            assert_eq!((bad, counts), (1, ReplyCounts { answered_rows: 0, bad: 1 }));
        }
        Err(_) => assert_eq!(counts, ReplyCounts::default()),
    }
}

/// Keys: the first byte says of which kind, and which parts of it are right.
pub(crate) fn keys(bytes: &[u8]) {
    let (kind, bytes) = choice(bytes);
    let SmallModel { parameters, evaluator, .. } = model();
    let fit = |len| if kind & 2 == 0 { repeated(bytes, len) } else { bytes.to_vec() };
    if kind.is_multiple_of(2) {
        static SECRET: LazyLock<Vec<u8>> = LazyLock::new(|| model().secret.to_bytes().to_vec());
        let key = match kind & 4 {
            0 => [&SECRET[..SECRET_HEADER_BYTES], &fit(parameters.keys.dimension())].concat(),
            _ => bytes.to_vec(),
        };
        let Ok(read) = RowSecretKey::from_bytes(&key, &parameters.keys) else { return };
        assert_eq!(read.to_bytes().as_slice(), key);
        return;
    }
    static HEADER: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let SmallModel { parameters, secret, .. } = model();
        let ring = RowRing::new(&parameters.keys).expect("parameters of the table");
        let key = secret.evaluation_key(&ring).expect("of this ring");
        key[..KEY_HEADER_BYTES + 2 * parameters.keys.steps.len()].to_vec()
    });
    let len = serialised_len(&parameters.keys);
    let key = match kind & 4 {
        0 => [&HEADER[..], &fit(len - HEADER.len())].concat(),
        _ => bytes.to_vec(),
    };
    let Ok(prepared) = evaluator.prepare(key.clone()) else { return };
    assert_eq!((key.len(), prepared.bytes()), (len, evaluator.requirements().prepared_key_bytes));
}
