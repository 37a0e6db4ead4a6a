//! The bulk engine: programs, zips, uploads, replies and keys.

use std::sync::{Arc, LazyLock};

use cipherscore_engine::artifact::{Kind, ModelId, NativeManifest, names};
use cipherscore_engine::bulk::artifact::{BulkClientArtifact, BulkServerArtifact, BulkSpecs};
use cipherscore_engine::bulk::client::{BulkClient, ReplyShape};
use cipherscore_engine::bulk::evaluator::BulkEvaluator;
use cipherscore_engine::bulk::layout::{reply_len, upload_len};
use cipherscore_engine::bulk::parameters::{Packing, Parameters};
use cipherscore_engine::bulk::program::{ColumnSum, Node, Output, Program, ValidProgram};
use cipherscore_engine::bulk::ring::Ring;
use cipherscore_engine::bulk::secret::{PublicKey, SecretKey};
use cipherscore_engine::bulk::tape::Tape;
use cipherscore_engine::evaluator::Evaluator;

use crate::frames::{choice, split};
use crate::zips::sizes;

/// Steps of interpreted programs, and cells of encoded rows; beyond it a check takes too long.
const MAX_SIZE: usize = 1 << 14;

/// A program file: what was read is written and read again as the same; a valid one becomes a
/// tape, or is refused, and can be interpreted.
pub(crate) fn program(bytes: &[u8]) {
    let Ok(program) = Program::from_bytes(bytes) else { return };
    let again = program.to_bytes().expect("what was read can be written");
    assert_eq!(Program::from_bytes(&again).expect("and read again"), program);
    let Ok(valid) = program.validate() else { return };
    valid.ring_products();
    if let Ok(tape) = Tape::new(&valid) {
        assert_eq!(tape.outputs(), valid.program().outputs.len());
        assert_eq!(tape.columns(), valid.program().columns as usize);
        assert_eq!(tape.components(), valid.degree() as usize + 1);
        tape.scratch_bytes();
    }
    interpret(&valid);
}

fn interpret(program: &ValidProgram) {
    let columns = program.program().columns as usize;
    if columns > MAX_SIZE {
        return;
    }
    for bit in [0, 1] {
        if let Ok(outputs) = program.interpret(&vec![bit; columns]) {
            assert_eq!(outputs.len(), program.program().outputs.len());
        }
    }
}

fn kind(choice: u8) -> Kind {
    [Kind::Ensemble, Kind::Linear][choice as usize % 2]
}

/// A `server.zip`: kind, specs, program.
pub(crate) fn server_zip(bytes: &[u8]) {
    let (kind_byte, bytes) = choice(bytes);
    let kind = kind(kind_byte);
    let [specs, program] = split(bytes);
    let files = [(names::CLIENT_SPECS, specs.to_vec()), (names::PROGRAM, program.to_vec())];
    let zip = NativeManifest::seal(kind, None, &files).to_zip().expect("a zip of a few files");
    let Ok(artifact) = BulkServerArtifact::open(&zip) else { return };
    let again = BulkServerArtifact::zip(kind, &artifact.specs, &artifact.program);
    let again = BulkServerArtifact::open(&again.expect("what was read can be written"));
    let again = again.expect("and read again");
    assert_eq!((&again.specs, &again.program), (&artifact.specs, &artifact.program));
    if let Ok(evaluator) = BulkEvaluator::new(artifact) {
        sizes(&evaluator);
    }
}

/// A `client.zip`: kind, specs, processing, report.
pub(crate) fn client_zip(bytes: &[u8]) {
    let (kind_byte, bytes) = choice(bytes);
    let [specs, processing, report] = split(bytes);
    let files = [
        (names::CLIENT_SPECS, specs.to_vec()),
        (names::CLIENT_MODEL, processing.to_vec()),
        (names::REPORT, report.to_vec()),
    ];
    let archive = NativeManifest::seal(kind(kind_byte), Some(ModelId::of(b"original")), &files);
    let zip = archive.to_zip().expect("a zip of a few files");
    let Ok(artifact) = BulkClientArtifact::open(&zip) else { return };
    let again = artifact.to_zip().expect("what was read can be written");
    assert_eq!(BulkClientArtifact::open(&again).expect("and read again"), artifact);

    let model = &artifact.model;
    for integer in [0, 1, -1, i64::MIN, i64::MAX] {
        let integers = vec![integer; model.scores.outputs.len()];
        assert_eq!(model.scores.scores(&integers).len(), model.scores.len());
    }
    let (features, columns) = (model.inputs.features(), model.inputs.columns());
    if features.max(columns) > MAX_SIZE {
        return;
    }
    for value in [0.0, -1e300, 0.5, f64::NAN, f64::INFINITY] {
        let Ok(rows) = model.encode(&[vec![value; features], vec![0.0; features]], 0) else {
            continue;
        };
        let mut values = [0; 2];
        (0..artifact.specs.columns).for_each(|column| rows.fill(column, 0, &mut values));
    }
}

/// As long as `len`, by repetition: uploads and replies of another length are refused at once.
pub(crate) fn repeated(bytes: &[u8], len: usize) -> Vec<u8> {
    match bytes.is_empty() {
        true => vec![0; len],
        false => bytes.iter().copied().cycle().take(len).collect(),
    }
}

/// The smallest ring that has products.
const PARAMETERS: Parameters = Parameters {
    packing: Packing::Slots,
    ring_dimension: 2048,
    primes: 1,
    plaintext_modulus: 12289,
};

/// Of a linear model with two columns and two outputs.
fn linear() -> (Parameters, BulkServerArtifact) {
    let affine =
        |terms: &[(u32, i64)]| Node::Affine(ColumnSum { constant: 5, terms: terms.into() });
    let output = |root| Output { constant: -3, roots: vec![root] };
    let program = Program {
        columns: 2,
        nodes: vec![affine(&[(0, 7), (1, -9)]), affine(&[(1, 1)])],
        outputs: vec![output(0), output(1)],
    };
    let parameters =
        Parameters { packing: Packing::Coefficients, plaintext_modulus: 1 << 20, ..PARAMETERS };
    let specs = BulkSpecs {
        parameters,
        columns: 2,
        outputs: 2,
        degree: 1,
        hidden: false,
        reply_primes: 1,
        log2_sigma_phase: 10.0,
        log2_p_fail: -128.0,
        security_bits: parameters.security_bits(),
    };
    let program = program.validate().expect("our own program");
    let zip = BulkServerArtifact::zip(Kind::Linear, &specs, &program).expect("our own zip");
    (parameters, BulkServerArtifact::open(&zip).expect("our own zip"))
}

/// A job of a linear model, from its first byte to its reply. The first byte is the number of rows.
pub(crate) fn job(bytes: &[u8]) {
    static EVALUATOR: LazyLock<(Parameters, Arc<BulkEvaluator>)> = LazyLock::new(|| {
        let (parameters, artifact) = linear();
        (parameters, Arc::new(BulkEvaluator::new(artifact).expect("our own program")))
    });
    let (parameters, evaluator) = &*EVALUATOR;
    let (rows, bytes) = choice(bytes);
    let (cut, bytes) = choice(bytes);
    let rows = u32::from(rows % 8) + 1;
    let len = upload_len(parameters, rows as usize, 2).expect("a short upload");
    // One byte more or less now and then.
    let upload = repeated(bytes, (len + usize::from(cut % 16 == 1)) - usize::from(cut % 16 == 2));
    let evaluator: Arc<BulkEvaluator> = Arc::clone(evaluator);
    let mut job = evaluator.begin(None, rows).expect("no key is needed");
    for piece in upload.chunks(61) {
        if job.push(piece, &|| false).is_err() {
            return;
        }
    }
    let Ok(reply) = job.finish(&|| false) else { return };
    assert_eq!(upload.len(), len);
    assert_eq!(Some(reply.len()), reply_len(parameters, rows as usize, 2, 1, 1));
}

/// What is before the coefficients of a secret key.
fn secret_header() -> Vec<u8> {
    let key = SecretKey::generate(&PARAMETERS).expect("randomness of the operating system");
    let key = key.to_bytes();
    key[..key.len() - PARAMETERS.dimension()].to_vec()
}

fn client() -> &'static BulkClient {
    static CLIENT: LazyLock<BulkClient> = LazyLock::new(|| {
        let ring = Ring::new(PARAMETERS).expect("parameters of the table");
        // Any secret will do; the same one every time, so that what was found is found again.
        let key =
            [&secret_header()[..], &repeated(&[0, 1, 255, 1], PARAMETERS.dimension())].concat();
        let secret = SecretKey::from_bytes(&key, &PARAMETERS).expect("a secret key");
        BulkClient::new(ring, &secret).expect("of this ring")
    });
    &CLIENT
}

/// A reply: rows, outputs, degree and primes as they are expected, then the bytes.
pub(crate) fn reply(bytes: &[u8]) {
    let (header, bytes) = bytes.split_first_chunk::<5>().unwrap_or((&[1; 5], bytes));
    let [rows, outputs, degree, primes, cut] = *header;
    let shape = ReplyShape {
        rows: usize::from(rows % 4) + 1,
        outputs: usize::from(outputs % 3),
        degree: u32::from(degree % 4),
        primes: u32::from(primes % 3),
    };
    let ReplyShape { rows, outputs, degree, primes } = shape;
    let len = reply_len(&PARAMETERS, rows, outputs, degree, primes).expect("a short reply");
    let reply = repeated(bytes, len + usize::from(cut % 16 == 1));
    let Ok(decrypted) = client().decrypt(&reply, shape) else { return };
    assert_eq!(decrypted.len(), outputs);
    assert!(decrypted.iter().all(|output| output.len() == rows));
}

/// Bytes of an owner id, which keys of version 1 do not have.
const OWNER_BYTES: usize = 16;

/// Keys: the first byte says of which kind and version, the second whether the length is made right.
pub(crate) fn keys(bytes: &[u8]) {
    let (kind, bytes) = choice(bytes);
    let (exact, bytes) = choice(bytes);
    let has_owner = kind & 2 == 0;
    let fit = |len| match exact % 4 {
        0 => bytes.to_vec(),
        _ => repeated(bytes, len),
    };
    if kind.is_multiple_of(2) {
        static HEADER: LazyLock<Vec<u8>> = LazyLock::new(secret_header);
        let mut header = HEADER.clone();
        if !has_owner {
            header[8] = 1;
            header.truncate(header.len() - OWNER_BYTES);
        }
        let key = [&header[..], &fit(PARAMETERS.dimension())].concat();
        let Ok(read) = SecretKey::from_bytes(&key, &PARAMETERS) else { return };
        assert_eq!(read.owner().is_some(), has_owner);
        assert_eq!(read.to_bytes().as_slice(), key);
    } else {
        let shorter = if has_owner { 0 } else { OWNER_BYTES };
        let key = fit(PublicKey::serialised_len(&PARAMETERS) - shorter);
        let Ok(read) = PublicKey::read(&key, &PARAMETERS) else { return };
        assert_eq!(read.owner().is_some(), key[8] == 2);
    }
}
