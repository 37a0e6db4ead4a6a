//! Records the circuits of real zips, as Concrete ML saved them, and evaluates them in the clear.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
// A test that cannot go on fails.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cipherscore_concrete::recorder::{RecordError, RecorderCommand, record};
use cipherscore_concrete::specs::ClientSpecs;
use cipherscore_engine::artifact::Archive;
use cipherscore_engine::circuit::{Affine, Circuit, Root};
use cipherscore_engine::parameters::{Encoding, Gate, Signature};
use serde_json::Value;

/// Folders of all models in the test data.
fn models() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/concrete");
    let mut models: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|model| model.join("server.zip").exists())
        .collect();
    models.sort();
    models
}

/// Concrete compiles for the processor it runs on: the circuits of the test data need AVX-512.
fn lacks_instructions(error: &RecordError) -> bool {
    const SIGILL: i32 = 4;
    *error == RecordError::Crashed(SIGILL) && !is_x86_feature_detected!("avx512f")
}

/// Records a model's circuit and validates it; none for one without machine code for us.
fn record_model(model: &Path) -> Option<(Circuit, Signature)> {
    let zip = Archive::read(&fs::read(model.join("server.zip")).unwrap()).unwrap();
    let object = zip.get("sharedlib.so")?;
    let specs = ClientSpecs::parse(zip.get("client.specs.json").unwrap()).unwrap();
    let command = RecorderCommand::new(env!("CARGO_BIN_EXE_cipherscore-recorder"), vec![]);
    let circuit = match record(&command, object, &specs.circuit_name, &specs.signature) {
        Ok(circuit) => circuit,
        Err(error) if lacks_instructions(&error) => return None,
        Err(error) => panic!("{}: {error}", model.display()),
    };
    let valid = circuit.validate(Arc::new(specs.signature.clone()));
    let valid = valid.unwrap_or_else(|error| panic!("{}: {error}", model.display()));
    Some((valid.circuit().clone(), specs.signature))
}

/// An integer as a phase: below one bit of padding, at the top of the word.
fn encode(value: i64, encoding: Encoding) -> u64 {
    value.cast_unsigned() << (63 - encoding.width)
}

/// The integer nearest to a phase.
fn decode(phase: u64, encoding: Encoding) -> i64 {
    let shift = 63 - encoding.width;
    let rounded = phase.wrapping_add(1 << (shift - 1));
    match encoding.signed {
        true => rounded.cast_signed() >> shift,
        false => (rounded >> shift).cast_signed(),
    }
}

/// Evaluates a circuit on phases instead of ciphertexts: the same without keys and noise.
fn evaluate(circuit: &Circuit, inputs: &[Vec<u64>]) -> Vec<Vec<u64>> {
    let mut phases: Vec<u64> = Vec::new();
    let phase = |affine: &Affine, phases: &[u64]| {
        affine.terms.iter().fold(affine.constant, |sum, term| {
            let term = phases[term.root as usize].wrapping_mul(term.coefficient.cast_unsigned());
            sum.wrapping_add(term)
        })
    };
    for root in &circuit.roots {
        let value = match root {
            Root::Input { argument, index } => inputs[*argument as usize][*index as usize],
            Root::Keyswitch { input, .. } => phase(input, &phases),
            Root::Bootstrap { input, table, .. } => {
                let table = &circuit.tables[*table as usize];
                // The accumulator is a polynomial modulo X^N + 1, rotated by the phase in 2N steps.
                let steps = 64 - (2 * table.len()).ilog2();
                let rotation = phase(input, &phases).wrapping_add(1 << (steps - 1)) >> steps;
                let rotation = usize::try_from(rotation).unwrap();
                match table.get(rotation) {
                    Some(&value) => value,
                    None => table[rotation - table.len()].wrapping_neg(),
                }
            }
        };
        phases.push(value);
    }
    let outputs = circuit.outputs.iter();
    outputs.map(|output| output.iter().map(|affine| phase(affine, &phases)).collect()).collect()
}

/// Rows of integers in `expected.json`.
fn rows(expected: &Value, name: &str) -> Vec<Vec<i64>> {
    let row = |row: &Value| row.as_array().unwrap().iter().map(|v| v.as_i64().unwrap()).collect();
    expected[name].as_array().unwrap().iter().map(row).collect()
}

fn encode_row(row: &[i64], gate: &Gate) -> Vec<u64> {
    row.iter().map(|&value| encode(value, gate.encoding)).collect()
}

#[test]
fn recorded_circuits_compute_what_the_models_compute() {
    let mut recorded = 0;
    for model in models() {
        let Some((circuit, signature)) = record_model(&model) else { continue };
        recorded += 1;
        let Ok(expected) = fs::read(model.join("expected.json")) else { continue };
        let expected: Value = serde_json::from_slice(&expected).unwrap();
        let (quantised, outputs) = (rows(&expected, "quantized"), rows(&expected, "outputs"));
        assert!(!quantised.is_empty() && quantised.len() == outputs.len(), "{}", model.display());
        for (row, output) in quantised.iter().zip(&outputs) {
            let phases = evaluate(&circuit, &[encode_row(row, &signature.inputs[0])]);
            let encoding = signature.outputs[0].encoding;
            let found: Vec<i64> = phases[0].iter().map(|&phase| decode(phase, encoding)).collect();
            assert_eq!(found, *output, "{}", model.display());
        }
    }
    let required = if is_x86_feature_detected!("avx512f") { 28 } else { 0 };
    assert!(recorded >= required, "only {recorded} circuits recorded");
}
