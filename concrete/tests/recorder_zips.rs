//! Records the circuits of real zips, as Concrete ML saved them, and evaluates them in the clear.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
// A test that cannot go on fails.
#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "not every test needs all of it")]
mod circuits;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cipherscore_concrete::recorder::{RecordError, RecorderCommand, record};
use cipherscore_concrete::specs::ClientSpecs;
use cipherscore_engine::artifact::Archive;
use cipherscore_engine::circuit::ValidCircuit;
use serde_json::Value;

use circuits::evaluate_row;

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
fn record_model(model: &Path) -> Option<ValidCircuit> {
    let zip = Archive::read(&fs::read(model.join("server.zip")).unwrap()).unwrap();
    let object = zip.get("sharedlib.so")?;
    let specs = ClientSpecs::parse(zip.get("client.specs.json").unwrap()).unwrap();
    let command = RecorderCommand::new(env!("CARGO_BIN_EXE_cipherscore-recorder"), vec![]);
    let circuit = match record(&command, object, &specs.circuit_name, &specs.signature) {
        Ok(circuit) => circuit,
        Err(error) if lacks_instructions(&error) => return None,
        Err(error) => panic!("{}: {error}", model.display()),
    };
    let valid = circuit.validate(Arc::new(specs.signature));
    Some(valid.unwrap_or_else(|error| panic!("{}: {error}", model.display())))
}

/// Rows of integers in `expected.json`.
fn rows(expected: &Value, name: &str) -> Vec<Vec<i64>> {
    let row = |row: &Value| row.as_array().unwrap().iter().map(|v| v.as_i64().unwrap()).collect();
    expected[name].as_array().unwrap().iter().map(row).collect()
}

#[test]
fn recorded_circuits_compute_what_the_models_compute() {
    let mut recorded = 0;
    for model in models() {
        let Some(circuit) = record_model(&model) else { continue };
        recorded += 1;
        let Ok(expected) = fs::read(model.join("expected.json")) else { continue };
        let expected: Value = serde_json::from_slice(&expected).unwrap();
        let (quantised, outputs) = (rows(&expected, "quantized"), rows(&expected, "outputs"));
        assert!(!quantised.is_empty() && quantised.len() == outputs.len(), "{}", model.display());
        for (row, output) in quantised.iter().zip(&outputs) {
            assert_eq!(evaluate_row(&circuit, row), *output, "{}", model.display());
        }
    }
    let required = if is_x86_feature_detected!("avx512f") { 28 } else { 0 };
    assert!(recorded >= required, "only {recorded} circuits recorded");
}
