//! Both sides of a job: a model behind the evaluation trait, and its data owner.

#![allow(dead_code, reason = "each test binary uses a part of this")]

use std::num::NonZeroUsize;
use std::sync::{Arc, OnceLock};

use cipherscore_concrete::evaluator::CircuitEvaluator;
use cipherscore_concrete::framing::{FramedRowReader, Row, frame_values};
use cipherscore_concrete::keys::write_evaluation_keys;
use cipherscore_concrete::recorder::{RecordError, RecorderCommand};
use cipherscore_concrete::server::{ServerArtifact, ServerZipError};
use cipherscore_concrete::values::{read_value, write_value};
use cipherscore_engine::artifact::{Archive, Manifest, ModelId, names};
use cipherscore_engine::circuit::{Affine, Circuit, Root, Term};
use cipherscore_engine::client_keys::ClientKeys;
use cipherscore_engine::evaluator::{EvaluationError, Evaluator, PreparedKey, Stop};
use cipherscore_engine::parameters::{Compression, Signature};

use crate::cases::Case;
pub(crate) use crate::cases::named;

/// Never ends an evaluation.
pub(crate) const GO_ON: Stop<'static> = &|| false;

/// A model and a data owner of it.
pub(crate) struct Party {
    pub(crate) evaluator: Arc<CircuitEvaluator>,
    pub(crate) signature: Signature,
    pub(crate) client_keys: ClientKeys,
    /// The serialised evaluation key.
    pub(crate) key: Vec<u8>,
    /// The same prepared, where the model needs one.
    pub(crate) prepared: Option<Arc<PreparedKey>>,
}

impl Party {
    /// Rows of values encrypted to a job's body; `rows[row][input]` are integers.
    pub(crate) fn body(&self, rows: &[Vec<Vec<i64>>]) -> Vec<u8> {
        let gates = &self.signature.inputs;
        frame_values(rows.iter().flat_map(|row| gates.iter().zip(row)).map(|(gate, integers)| {
            let words = self.client_keys.encrypt(integers, gate).unwrap();
            write_value(gate, Compression::Seed, &words)
        }))
    }

    /// A result's integers, `[row][output]`.
    pub(crate) fn decrypt(&self, result: &[u8], rows: u32) -> Vec<Vec<Vec<i64>>> {
        let gates = &self.signature.outputs;
        let mut reader = FramedRowReader::new(gates, rows);
        let mut bytes = result;
        let mut found = Vec::new();
        while let Some(row) = reader.next_row(&mut bytes).unwrap() {
            let decrypt = |(gate, value): (_, &Vec<u8>)| {
                self.client_keys.decrypt(&read_value(gate, value).unwrap(), gate).unwrap()
            };
            found.push(gates.iter().zip(&row).map(decrypt).collect());
        }
        reader.finish().unwrap();
        found
    }

    /// Evaluates a body that comes in the given pieces.
    pub(crate) fn run<'a>(
        &self,
        pieces: impl IntoIterator<Item = &'a [u8]>,
        rows: u32,
        stop: Stop<'_>,
    ) -> Result<Vec<u8>, EvaluationError> {
        let evaluator: Arc<dyn Evaluator> = Arc::clone(&self.evaluator) as _;
        let mut job = evaluator.begin(self.prepared.clone(), rows)?;
        for piece in pieces {
            job.push(piece, stop)?;
        }
        job.finish(stop)
    }
}

/// Opens a `server.zip`; none where its machine code cannot run, since Concrete compiles for the
/// processor it runs on.
pub(crate) fn open(zip: &[u8]) -> Option<ServerArtifact> {
    const SIGILL: i32 = 4;
    let recorder = RecorderCommand::new(env!("CARGO_BIN_EXE_cipherscore-recorder"), vec![]);
    match ServerArtifact::open(zip, &recorder) {
        Ok(artifact) => Some(artifact),
        Err(ServerZipError::Record(RecordError::Crashed(SIGILL))) => None,
        Err(error) => panic!("{error}"),
    }
}

/// An evaluator with fresh keys.
pub(crate) fn party(artifact: ServerArtifact) -> Party {
    let signature = artifact.signature().clone();
    let client_keys = ClientKeys::generate(&signature.keyset);
    party_of(artifact, client_keys)
}

/// An evaluator with the given keys.
pub(crate) fn party_of(artifact: ServerArtifact, client_keys: ClientKeys) -> Party {
    let signature = artifact.signature().clone();
    let evaluator = CircuitEvaluator::new(artifact).unwrap();
    let evaluator = Arc::new(evaluator.with_threads(threads()));
    let keys = client_keys.evaluation_keys(&signature.keyset, &|| {}).unwrap();
    let key = write_evaluation_keys(&keys, &signature.keyset);
    let prepared = evaluator.prepare(key.clone()).unwrap();
    let prepared = evaluator.requirements().needs_key.then(|| Arc::new(prepared));
    Party { evaluator, signature, client_keys, key, prepared }
}

fn threads() -> NonZeroUsize {
    NonZeroUsize::new(rayon::current_num_threads()).unwrap()
}

/// A committed case with its keys, which are made once.
pub(crate) fn case(name: &'static str) -> (Case, Option<&'static Party>) {
    const NAMES: [&str; 3] =
        ["logistic_regression_multiclass", "decision_tree_classifier", "random_forest_regressor"];
    static PARTIES: [OnceLock<Option<Party>>; 3] = [const { OnceLock::new() }; 3];
    let case = named(name);
    let index = NAMES.iter().position(|known| *known == name).unwrap();
    let party = PARTIES[index].get_or_init(|| open(&case.read("server.zip")).map(party)).as_ref();
    (case, party)
}

/// A linear model of two inputs and two outputs, with the parameters of a committed one: the first
/// output is the inputs' sums `a + 2 b`, the second is `b`'s first integer plus one.
pub(crate) fn two_by_two() -> ServerArtifact {
    /// Bits of the integers, in all four.
    const WIDTH: u32 = 17;
    let archive = Archive::read(&named("linear_regression").read("server.zip")).unwrap();
    let specs = archive.require(names::CLIENT_SPECS).unwrap();
    let mut specs: serde_json::Value = serde_json::from_slice(specs).unwrap();
    for side in ["inputs", "outputs"] {
        let gates = specs["circuits"][0][side].as_array_mut().unwrap();
        gates.push(gates[0].clone());
    }
    let specs = serde_json::to_vec(&specs).unwrap();
    let input = |argument, index| Root::Input { argument, index };
    let term = |root, coefficient| Term { root, coefficient };
    let circuit = Circuit {
        roots: vec![input(0, 0), input(0, 1), input(1, 0), input(1, 1)],
        tables: vec![],
        outputs: vec![
            vec![Affine {
                constant: 0,
                terms: vec![term(0, 1), term(1, 1), term(2, 2), term(3, 2)],
            }],
            vec![Affine { constant: 1 << (63 - WIDTH), terms: vec![term(2, 1)] }],
        ],
    };
    let circuit = circuit.to_bytes().unwrap();
    let manifest = Manifest::of_circuit(ModelId::of(b"two by two"), &circuit, &specs);
    let mut imported = Archive::default();
    imported.insert(names::MANIFEST, manifest.to_json());
    imported.insert(names::CLIENT_SPECS, specs);
    imported.insert(names::CIRCUIT, circuit);
    open(&imported.to_zip().unwrap()).unwrap()
}

/// The rows of a body, each framed on its own.
pub(crate) fn split_rows(party: &Party, body: &[u8], rows: u32) -> Vec<Vec<u8>> {
    let mut reader = FramedRowReader::new(&party.signature.inputs, rows);
    let mut bytes = body;
    let mut split = Vec::new();
    while let Some(row) = reader.next_row(&mut bytes).unwrap() {
        let row: Row = row;
        split.push(frame_values(row));
    }
    split
}
