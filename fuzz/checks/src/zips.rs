//! Zips of Concrete ML, and what is in them.

use std::sync::Arc;

use cipherscore_concrete::evaluator::CircuitEvaluator;
use cipherscore_concrete::framing::max_row_bytes;
use cipherscore_concrete::function::{ClientZip, FunctionArtifact};
use cipherscore_concrete::keys::max_evaluation_key_bytes;
use cipherscore_concrete::mlir::{Source, lower};
use cipherscore_concrete::noise::of_circuit;
use cipherscore_concrete::processing::parse_processing;
use cipherscore_concrete::recorder::RecorderCommand;
use cipherscore_concrete::server::ServerArtifact;
use cipherscore_concrete::specs::ClientSpecs;
use cipherscore_engine::artifact::{
    Archive, MAX_ENTRIES, MAX_UNPACKED_BYTES, Manifest, ModelId, names,
};
use cipherscore_engine::evaluator::{Evaluator, JobFootprint};
use cipherscore_engine::model::Model;

use crate::frames::split;

/// Any bytes as a zip. What was unpacked is within the bounds, and survives being packed.
pub(crate) fn zip(bytes: &[u8]) {
    let Ok(archive) = Archive::read(bytes) else { return };
    let unpacked: usize =
        archive.names().filter_map(|name| archive.get(name)).map(<[u8]>::len).sum();
    assert!(unpacked <= MAX_UNPACKED_BYTES && archive.names().count() <= MAX_ENTRIES);
    assert!(archive.names().all(|name| !name.contains(['/', '\\', '\0'])));
    let zip = archive.to_zip().expect("what was unpacked can be packed");
    assert_eq!(Archive::read(&zip).expect("what was packed can be unpacked"), archive);
}

/// A zip of files that were not damaged on the way: digests and checksums are right.
fn packed(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = Archive::default();
    for (name, bytes) in files {
        archive.insert(name, bytes.to_vec());
    }
    archive.to_zip().expect("a zip of a few files")
}

/// Raw zips are not for this check: no program is started.
fn open_server(zip: &[u8]) -> Option<ServerArtifact> {
    ServerArtifact::open(zip, &RecorderCommand::new("/nonexistent", Vec::new())).ok()
}

/// An imported `server.zip`: specs, circuit, versions.
pub(crate) fn server_zip(bytes: &[u8]) {
    let [specs, circuit, versions] = split(bytes);
    let manifest = Manifest::of_circuit(ModelId::of(b"original"), circuit, specs).to_json();
    let zip = packed(&[
        (names::MANIFEST, &manifest),
        (names::CLIENT_SPECS, specs),
        (names::CIRCUIT, circuit),
        (names::VERSIONS, versions),
    ]);
    let Some(artifact) = open_server(&zip) else { return };
    let again = artifact.to_imported_zip().expect("an imported zip can be written");
    let again = open_server(&again).expect("and read again");
    assert_eq!(again.circuit.circuit(), artifact.circuit.circuit());
    assert_eq!((again.specs, again.model_id), (artifact.specs.clone(), artifact.model_id));
    let evaluator = CircuitEvaluator::new(artifact).expect("a valid circuit stays valid");
    sizes(&evaluator);
}

/// A circuit that is not compiled: specs, circuit, configuration, composition rules. Whatever is
/// lowered is a valid circuit.
pub(crate) fn mlir(bytes: &[u8]) {
    let [specs, circuit, configuration, rules] = split(bytes);
    let Ok(specs) = ClientSpecs::parse(specs) else { return };
    let composition_rules = (!rules.is_empty()).then_some(rules);
    let lowered = lower(Source { circuit, configuration, composition_rules }, &specs.signature);
    let lowered = match lowered {
        Ok(lowered) => lowered,
        Err(error) => {
            let message = error.to_string();
            assert!(message.chars().all(|c| !c.is_control()), "{message:?}");
            return;
        }
    };
    let signature = Arc::new(specs.signature);
    let valid = lowered.circuit.validate(signature).expect("what is lowered is valid");
    let noise = of_circuit(&valid, lowered.target);
    assert!(noise.row_failure >= 0.0 && noise.row_failure <= 1.0, "{noise:?}");
    valid.optimise().expect("a valid circuit stays valid");
}

/// What a worker asks before it accepts a job; no number of rows may overflow it.
pub(crate) fn sizes(evaluator: &impl Evaluator) {
    for rows in [1, 2, 1000, u32::MAX] {
        let JobFootprint { memory_bytes: memory, max_input_bytes: input, planned: _ } =
            evaluator.footprint(rows);
        assert!(memory > 0 && input > 0);
        evaluator.released_coefficients(rows);
    }
    evaluator.requirements();
}

/// A `client.zip` of Concrete ML: specs, processing.
pub(crate) fn client_zip(bytes: &[u8]) {
    let [specs, processing] = split(bytes);
    let zip = packed(&[(names::CLIENT_SPECS, specs), (names::PROCESSING, processing)]);
    let artifact = match ClientZip::open(&zip) {
        Ok(ClientZip::Model(artifact)) => artifact,
        Ok(ClientZip::Function(function)) => return arguments(&function),
        Err(_) => return,
    };
    let (_, scores) = artifact.scores();
    for value in [0, 1, -1, i64::MIN, i64::MAX] {
        let integers = vec![value; artifact.output().len()];
        let found = artifact.model().scores(&integers, &artifact.output().shape);
        assert_eq!(found.expect("the shape fits").len(), scores);
    }
    quantise(artifact.model(), artifact.features());
}

/// Whatever an argument takes has its shape, and every integer of an output has a value.
fn arguments(function: &FunctionArtifact) {
    for argument in function.inputs() {
        let count = argument.gate.len();
        for value in [0.0, -0.5, 1e300, f64::NAN] {
            let Ok(integers) = argument.quantise(&vec![value; count]) else { continue };
            assert_eq!(integers.len(), count);
            assert!(value.is_finite());
        }
    }
    for argument in function.outputs() {
        let count = argument.gate.len();
        for integer in [0, -1, i64::MIN, i64::MAX] {
            let reals = argument.dequantise(&vec![integer; count]).expect("the shape fits");
            assert_eq!(reals.len(), argument.lines() * argument.columns());
        }
    }
}

fn quantise(model: &Model, features: usize) {
    for value in [0.0, -0.5, 1e300, f64::MIN_POSITIVE, f64::NAN, f64::INFINITY] {
        let Ok(integers) = model.quantise(&vec![value; features]) else { continue };
        assert_eq!(integers.len(), features);
        assert!(value.is_finite());
    }
}

/// `client.specs.json`: whatever was accepted has sizes that can be computed.
pub(crate) fn specs(bytes: &[u8]) {
    let Ok(specs) = ClientSpecs::parse(bytes) else { return };
    let signature = &specs.signature;
    signature.validate().expect("parsed specs are valid");
    drop(signature.require_security());
    max_row_bytes(&signature.inputs);
    max_row_bytes(&signature.outputs);
    assert!(max_evaluation_key_bytes(&signature.keyset) >= signature.keyset.seeded_bytes());
    signature.keyset.prepared_bytes();
    signature.keyset.id();
}

/// `serialized_processing.json`: whatever was accepted can be applied.
pub(crate) fn processing(bytes: &[u8]) {
    let Ok(model) = parse_processing(bytes) else { return };
    quantise(&model, model.inputs.len());
    for shape in [&[1][..], &[1, 1], &[1, 3], &[1, 1, 2], &[1, 2, 3], &[2, 2], &[], &[0], &[1, 0]] {
        let integers = vec![7; shape.iter().product()];
        drop(model.scores(&integers, shape));
    }
}
