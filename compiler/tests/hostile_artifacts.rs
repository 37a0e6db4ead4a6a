//! Damaged artifacts, keys, uploads and replies: an error or an answer, no panic, and no more
//! memory than the named bounds.
//!
//! One test alone in its process: the peak of resident memory belongs to it.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod random;

use std::sync::Arc;

use cipherscore_compiler::{Bins, CompileOptions, Compiled, WantedForms, compile, read};
use cipherscore_engine::artifact::{Archive, Kind, NativeManifest, names};
use cipherscore_engine::bulk::artifact::{BulkClientArtifact, BulkServerArtifact};
use cipherscore_engine::bulk::client::{BulkClient, ReplyShape};
use cipherscore_engine::bulk::evaluator::BulkEvaluator;
use cipherscore_engine::bulk::ring::Ring;
use cipherscore_engine::bulk::secret::SecretKey;
use cipherscore_engine::compiled::{CompiledClientArtifact, CompiledServerArtifact};
use cipherscore_engine::evaluator::{EvaluationError, Evaluator, PreparedKey};
use cipherscore_engine::rows::evaluator::RowEvaluator;

use crate::random::Xorshift;

/// Of each thing that is damaged, so that all together take seconds.
const MUTATIONS: usize = 1500;
/// Jobs that are evaluated after damage, which are slower than what is refused at once.
const EVALUATIONS: usize = 60;
const ROWS: u32 = 3;
/// What the allocator keeps, and the zips, keys and uploads of this test.
const PROCESS_BYTES: usize = 96 << 20;

impl Xorshift {
    /// One to three changes: bits, numbers, lengths, places.
    fn damage(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for _ in 0..=self.below(3) {
            let at = self.below(bytes.len().max(1)).min(bytes.len().saturating_sub(1));
            match self.below(6) {
                _ if bytes.is_empty() => bytes.push(0),
                0 => bytes[at] ^= 1 << self.below(8),
                1 => bytes[at] = b"0123456789-eE[]{}\", "[self.below(20)],
                2 => bytes[at] = u8::MAX,
                3 => drop(bytes.remove(at)),
                4 => bytes.truncate(at),
                _ => {
                    let digits = b"99999999999"[..1 + self.below(11)].to_vec();
                    bytes.splice(at..at, digits);
                }
            }
        }
        bytes
    }
}

fn compiled(forms: WantedForms) -> Compiled {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/models/lgb_categorical");
    let model = std::fs::read(format!("{folder}/model.txt")).unwrap();
    let options = CompileOptions { bins: Bins::Used, forms, ..CompileOptions::default() };
    compile(&read(&model, None).unwrap(), &options).unwrap()
}

/// A data owner with a valid artifact, and what it sends and gets.
struct Party {
    client_zip: Vec<u8>,
    server_zip: Vec<u8>,
    rows: Vec<Vec<f64>>,
    evaluator: Arc<BulkEvaluator>,
    owner: BulkClient,
    shape: ReplyShape,
    key: Vec<u8>,
    upload: Vec<u8>,
    reply: Vec<u8>,
}

impl Party {
    fn new() -> Self {
        let compiled = compiled(WantedForms::Bulk);
        let client = BulkClientArtifact::open(&compiled.client_zip).unwrap();
        let server = BulkServerArtifact::open(&compiled.server_zip).unwrap();
        let evaluator = Arc::new(BulkEvaluator::new(server).unwrap());
        let specs = &client.specs;
        let ring = Ring::new(specs.parameters).unwrap();
        let secret = SecretKey::generate(&specs.parameters).unwrap();
        let key = secret.public_key(&ring).unwrap();
        let owner = BulkClient::new(ring, &secret).unwrap();
        let rows = vec![vec![0.5; client.model.inputs.features()]; ROWS as usize];
        let encoded = client.model.encode(&rows, 0).unwrap();
        let fill = |column: u32, row: usize, values: &mut [i64]| encoded.fill(column, row, values);
        let upload = owner.encrypt(rows.len(), specs.columns, fill).unwrap();
        let prepared = Arc::new(evaluator.prepare(key.clone()).unwrap());
        let reply = evaluate(&evaluator, &prepared, &upload).unwrap();
        let shape = ReplyShape {
            rows: rows.len(),
            outputs: specs.outputs as usize,
            degree: specs.degree,
            primes: specs.reply_primes,
        };
        owner.decrypt(&reply, shape).unwrap();
        let Compiled { client_zip, server_zip, .. } = compiled;
        Self { client_zip, server_zip, rows, evaluator, owner, shape, key, upload, reply }
    }
}

fn evaluate(
    evaluator: &Arc<BulkEvaluator>,
    key: &Arc<PreparedKey>,
    upload: &[u8],
) -> Result<Vec<u8>, EvaluationError> {
    let mut job = Arc::clone(evaluator).begin(Some(Arc::clone(key)), ROWS)?;
    job.push(upload, &|| false)?;
    job.finish(&|| false)
}

/// A zip with one file damaged, or two, and a manifest that describes them as they are.
fn resealed(random: &mut Xorshift, zip: &[u8], files: &[&'static str]) -> Vec<u8> {
    let archive = Archive::read(zip).unwrap();
    let manifest = NativeManifest::open(&archive).unwrap();
    let damaged = random.below(files.len());
    let file = |(at, &name): (usize, &&'static str)| {
        let bytes = archive.get(name).unwrap();
        let bytes = if at == damaged { random.damage(bytes) } else { bytes.to_vec() };
        (name, bytes)
    };
    let files: Vec<_> = files.iter().enumerate().map(file).collect();
    NativeManifest::seal(Kind::Ensemble, manifest.model_id, &files).to_zip().unwrap()
}

/// Worker: a damaged `server.zip` is refused, or evaluates as it says.
fn servers(random: &mut Xorshift, party: &Party) -> (usize, usize) {
    let whole = BulkServerArtifact::open(&party.server_zip).unwrap();
    let (mut refused, mut evaluated) = (0, 0);
    for _ in 0..MUTATIONS {
        // What a zip says beside its files, such as times, nobody reads.
        if let Ok(opened) = BulkServerArtifact::open(&random.damage(&party.server_zip)) {
            assert_eq!(opened.program, whole.program);
        }
        let zip = resealed(random, &party.server_zip, &[names::CLIENT_SPECS, names::PROGRAM]);
        let opened = BulkServerArtifact::open(&zip).ok().and_then(|it| BulkEvaluator::new(it).ok());
        let Some(evaluator) = opened.map(Arc::new) else {
            refused += 1;
            continue;
        };
        if evaluated < EVALUATIONS {
            let key = evaluator.prepare(party.key.clone()).map(Arc::new);
            let reply = key.and_then(|key| evaluate(&evaluator, &key, &party.upload));
            // What else is written in the specs changes no reply's length.
            if let Ok(reply) = reply {
                drop(party.owner.decrypt(&reply, party.shape));
            }
        }
        evaluated += 1;
    }
    (refused, evaluated)
}

/// Data owner: a damaged `client.zip` is refused, or takes rows as it says.
fn clients(random: &mut Xorshift, party: &Party) -> (usize, usize) {
    let files = [names::CLIENT_SPECS, names::CLIENT_MODEL, names::REPORT];
    let whole = BulkClientArtifact::open(&party.client_zip).unwrap();
    let (mut refused, mut opened) = (0, 0);
    for _ in 0..MUTATIONS {
        if let Ok(opened) = BulkClientArtifact::open(&random.damage(&party.client_zip)) {
            assert_eq!(opened, whole);
        }
        let zip = resealed(random, &party.client_zip, &files);
        let Ok(client) = BulkClientArtifact::open(&zip) else {
            refused += 1;
            continue;
        };
        opened += 1;
        if let Ok(encoded) = client.model.encode(&party.rows, 0) {
            let mut values = vec![0; party.rows.len()];
            (0..client.specs.columns).for_each(|column| encoded.fill(column, 0, &mut values));
        }
        let integers = vec![i64::MAX; client.specs.outputs as usize];
        assert_eq!(client.model.scores.scores(&integers).len(), client.model.scores.len());
    }
    (refused, opened)
}

/// Both: the files of the row form, in either zip.
fn row_forms(random: &mut Xorshift) -> (usize, usize) {
    let compiled = compiled(WantedForms::Rows);
    let of_client = [names::ROW_SPECS, names::CLIENT_MODEL, names::REPORT];
    let (mut refused, mut opened) = (0, 0);
    for _ in 0..MUTATIONS {
        let zip = resealed(random, &compiled.client_zip, &of_client);
        if let Ok(client) = CompiledClientArtifact::open(&zip) {
            let specs = client.rows.unwrap();
            assert!(specs.parameters.keys.security_bits() >= 128);
            assert_eq!(specs.parameters.columns as usize, client.model.inputs.columns());
        }
        let zip = resealed(random, &compiled.server_zip, &[names::ROW_SPECS, names::ROW_PROGRAM]);
        let Ok(server) = CompiledServerArtifact::open(&zip) else {
            refused += 1;
            continue;
        };
        opened += 1;
        let rows = server.rows.unwrap();
        if opened <= EVALUATIONS {
            let program = rows.program.into_program();
            RowEvaluator::new(rows.model_id, rows.specs.parameters, program).unwrap();
        }
    }
    (refused, opened)
}

/// Worker: keys and uploads. What is damaged and still has the right length may be random words.
fn keys_and_uploads(random: &mut Xorshift, party: &Party) {
    let evaluator = &party.evaluator;
    for _ in 0..EVALUATIONS {
        let key = random.damage(&party.key);
        let length = key.len();
        let Ok(key) = evaluator.prepare(key) else { continue };
        assert_eq!(length, party.key.len());
        evaluate(evaluator, &Arc::new(key), &party.upload).unwrap();
    }
    let key = Arc::new(evaluator.prepare(party.key.clone()).unwrap());
    let mut refused = 0;
    for _ in 0..EVALUATIONS {
        let upload = random.damage(&party.upload);
        match evaluate(evaluator, &key, &upload) {
            Ok(reply) => {
                assert_eq!((upload.len(), reply.len()), (party.upload.len(), party.reply.len()))
            }
            Err(EvaluationError::Shape(_)) => refused += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(refused > EVALUATIONS / 4, "{refused}");
}

/// Data owner: replies.
fn replies(random: &mut Xorshift, party: &Party) {
    for _ in 0..EVALUATIONS {
        let reply = random.damage(&party.reply);
        if party.owner.decrypt(&reply, party.shape).is_ok() {
            assert_eq!(reply.len(), party.reply.len());
        }
    }
    for (rows, outputs, degree, primes) in [
        (usize::MAX, 1, 1, 1),
        (1, usize::MAX, 1, 1),
        (1, 1, u32::MAX, 1),
        (1, 1, 1, u32::MAX),
        (1, 1, 1, 0),
        (usize::MAX, usize::MAX, u32::MAX, 1),
    ] {
        let shape = ReplyShape { rows, outputs, degree, primes };
        assert!(party.owner.decrypt(&party.reply, shape).is_err(), "{shape:?}");
    }
}

/// A field of /proc/self/status, in bytes; none on other systems.
fn status(field: &str) -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with(field))?;
    Some(line.split_whitespace().nth(1)?.parse::<usize>().ok()? * 1024)
}

#[test]
fn damaged_bytes_are_refused_within_bounds() {
    let mut random = Xorshift(0x5eed);
    let party = Party::new();
    let (refused, evaluated) = servers(&mut random, &party);
    assert!(refused > MUTATIONS / 4 && evaluated > EVALUATIONS / 4, "{refused} {evaluated}");
    let (refused, opened) = clients(&mut random, &party);
    assert!(refused > MUTATIONS / 4 && opened > MUTATIONS / 20, "{refused} {opened}");
    keys_and_uploads(&mut random, &party);
    replies(&mut random, &party);
    let (refused, opened) = row_forms(&mut random);
    // Almost every change makes a path, a sum or a size another one.
    assert!(refused > MUTATIONS / 4 && opened > MUTATIONS / 100, "{refused} {opened}");
    if let Some(peak) = status("VmHWM:") {
        let bound = party.evaluator.footprint(ROWS).memory_bytes + PROCESS_BYTES;
        assert!(peak <= bound, "{peak} bytes at the peak, where {bound} were bound");
    }
}
