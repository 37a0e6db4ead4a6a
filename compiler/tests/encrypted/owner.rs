//! A data owner, and a worker who has no more of it than what is sent.

use std::sync::Arc;

use cipherscore_compiler::Compiled;
use cipherscore_engine::bulk::artifact::{BulkClientArtifact, BulkServerArtifact};
use cipherscore_engine::bulk::client::{BulkClient, ReplyShape};
use cipherscore_engine::bulk::evaluator::BulkEvaluator;
use cipherscore_engine::bulk::ring::Ring;
use cipherscore_engine::bulk::secret::SecretKey;
use cipherscore_engine::evaluator::{Evaluator, Stop};

const NEVER: Stop<'static> = &|| false;
/// Bytes of a chunk: of no block, so that every cut occurs.
const CHUNK_BYTES: usize = 100_003;

/// What decryption gives, and what the program says in the clear: integers of each row.
pub(crate) struct Answer {
    pub(crate) decrypted: Vec<Vec<i64>>,
    pub(crate) clear: Vec<Vec<i64>>,
    pub(crate) client: BulkClientArtifact,
}

/// The whole way, with fresh keys.
pub(crate) fn answer(compiled: &Compiled, rows: &[Vec<f64>]) -> Answer {
    let client = BulkClientArtifact::open(&compiled.client_zip).unwrap();
    let specs = &client.specs;
    let ring = Ring::new(specs.parameters).unwrap();
    let secret = SecretKey::generate(&specs.parameters).unwrap();
    let public = specs.hidden.then(|| secret.public_key(&ring).unwrap());
    let owner = BulkClient::new(ring, &secret).unwrap();
    let encoded = client.model.encode(rows, 0).unwrap();
    let fill = |column: u32, row: usize, values: &mut [i64]| encoded.fill(column, row, values);
    let upload = owner.encrypt(rows.len(), specs.columns, fill).unwrap();

    let count = u32::try_from(rows.len()).unwrap();
    let reply = evaluate(&compiled.server_zip, public, count, &upload);

    let shape = ReplyShape {
        rows: rows.len(),
        outputs: specs.outputs as usize,
        degree: specs.degree,
        primes: specs.reply_primes,
    };
    let outputs = owner.decrypt(&reply, shape).unwrap();
    let decrypted = transposed(&outputs, rows.len());

    let program = BulkServerArtifact::open(&compiled.server_zip).unwrap().program;
    let mut columns = vec![vec![0; rows.len()]; specs.columns as usize];
    (0..).zip(&mut columns).for_each(|(column, values)| encoded.fill(column, 0, values));
    let bits = transposed(&columns, rows.len());
    let clear = bits.iter().map(|bits| program.interpret(bits).unwrap()).collect();
    Answer { decrypted, clear, client }
}

fn transposed(columns: &[Vec<i64>], rows: usize) -> Vec<Vec<i64>> {
    (0..rows).map(|row| columns.iter().map(|column| column[row]).collect()).collect()
}

/// What a worker does with a `server.zip`, an evaluation key and an upload.
fn evaluate(zip: &[u8], key: Option<Vec<u8>>, rows: u32, upload: &[u8]) -> Vec<u8> {
    let artifact = BulkServerArtifact::open(zip).unwrap();
    let evaluator = Arc::new(BulkEvaluator::new(artifact).unwrap());
    assert_eq!(evaluator.requirements().needs_key, key.is_some());
    assert_eq!(evaluator.footprint(rows).max_input_bytes, upload.len() as u64);
    let key = key.map(|key| Arc::new(evaluator.prepare(key).unwrap()));
    let mut job = evaluator.begin(key, rows).unwrap();
    upload.chunks(CHUNK_BYTES).for_each(|chunk| job.push(chunk, NEVER).unwrap());
    job.finish(NEVER).unwrap()
}
