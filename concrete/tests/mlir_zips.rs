//! Default zips of Concrete ML: what is lowered is what was compiled.
// A test that cannot go on fails.
#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "not every test needs all of it")]
mod circuits;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cipherscore_concrete::noise::MAX_RECORDED_RATIO;
use cipherscore_concrete::recorder::RecorderCommand;
use cipherscore_concrete::server::{Origin, ServerArtifact, ServerZipError};
use cipherscore_engine::artifact::{Archive, ModelId, names};
use serde::Deserialize;
use serde_json::Value;

use circuits::{evaluate_integers, same_outputs};

/// Folders that have both forms of a model.
fn pairs() -> Vec<PathBuf> {
    let testdata = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata");
    let mut folders: Vec<_> = ["concrete", "ensembles", "circuits"]
        .iter()
        .flat_map(|group| fs::read_dir(testdata.join(group)).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|folder| folder.join("server.mlir.zip").exists())
        .collect();
    folders.sort();
    folders
}

fn lowered(folder: &Path) -> ServerArtifact {
    let zip = fs::read(folder.join("server.mlir.zip")).unwrap();
    // Nothing is started for it.
    let nobody = RecorderCommand::new("/nonexistent", Vec::new());
    let artifact = ServerArtifact::open(&zip, &nobody);
    let artifact = artifact.unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    assert_eq!((artifact.origin, artifact.model_id), (Origin::Lowered, ModelId::of(&zip)));
    artifact
}

#[test]
fn lowered_circuits_are_the_recorded_ones() {
    let folders = pairs();
    assert!(folders.len() >= 39, "only {} pairs", folders.len());
    for folder in folders {
        let zip = fs::read(folder.join("server.zip")).unwrap();
        let Some(recorded) = circuits::record(&zip) else { continue };
        let lowered = lowered(&folder);
        let (one, other) = (lowered.circuit.circuit(), recorded.circuit.circuit());
        assert!(same_outputs(one, other), "{}", folder.display());
        assert_eq!(one.cost().bootstraps, other.cost().bootstraps, "{}", folder.display());
    }
}

/// What goes into a circuit and what comes out, of each row: integers of each argument.
#[derive(Deserialize)]
struct Expected {
    /// Of models: one argument.
    #[serde(default)]
    quantized: Vec<Vec<i64>>,
    /// Of circuits that are no models.
    #[serde(default)]
    inputs: Vec<Vec<Vec<i64>>>,
    outputs: Value,
}

#[test]
fn lowered_circuits_compute_what_the_models_compute() {
    for folder in pairs() {
        let Ok(expected) = fs::read(folder.join("expected.json")) else { continue };
        let mut expected: Expected = serde_json::from_slice(&expected).unwrap();
        let of_model = !expected.quantized.is_empty();
        expected.inputs.extend(expected.quantized.into_iter().map(|row| vec![row]));
        let lowered = lowered(&folder);
        assert!(!expected.inputs.is_empty());
        for (row, output) in expected.inputs.iter().zip(expected.outputs.as_array().unwrap()) {
            let row: Vec<&[i64]> = row.iter().map(Vec::as_slice).collect();
            let found = evaluate_integers(&lowered.circuit, &row);
            let output = if of_model { output } else { &output[0] };
            assert_eq!(Value::from(found), *output, "{}", folder.display());
        }
    }
}

/// Concrete's formulas and its choice of keys confirm each other: the worst table of a circuit is
/// just within its bound. Linear models have other sums here than Concrete has when it picks keys:
/// terms of one input are added before they are squared. They are warned of, and the noisiest is a
/// support vector machine of Concrete ML 1.8, with 1.21.
#[test]
fn noise_is_what_the_circuits_were_compiled_for() {
    for folder in pairs() {
        let artifact = lowered(&folder);
        let (noise, has_tables) = (artifact.noise, !artifact.circuit.circuit().cost().is_linear());
        // Where outputs are inputs of the next call, Concrete counts them so, and here they are fresh.
        let least = if folder.ends_with("data_frames") { 0.85 } else { 0.95 };
        let fits = match has_tables {
            true => (least..=1.0005).contains(&noise.ratio),
            false => noise.ratio < MAX_RECORDED_RATIO,
        };
        assert!(fits, "{}: {noise:?}", folder.display());
        assert!(noise.row_failure >= noise.worst_failure && noise.row_failure < 1e-4, "{noise:?}");
    }
}

#[test]
fn ensembles_of_fifty_trees_are_lowered_at_once() {
    for name in ["xgb50x4_breast_cancer", "rf50x4_breast_cancer"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/ensembles").join(name);
        let start = Instant::now();
        let bootstraps = lowered(&folder).circuit.circuit().cost().bootstraps;
        // A machine under load is given ten times what it needs.
        assert!(start.elapsed() < Duration::from_secs(5), "{name}: {:?}", start.elapsed());
        assert!(bootstraps > 4000, "{name}: {bootstraps}");
    }
}

/// The circuit of a tree with the parameters of two bootstrap keys, and of the keyswitch keys that
/// lead to them, exchanged.
#[test]
fn swapped_keys_are_refused_by_their_noise() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/concrete");
    let zip = fs::read(folder.join("decision_tree_classifier/server.mlir.zip")).unwrap();
    let mut archive = Archive::read(&zip).unwrap();
    let specs = archive.require(names::CLIENT_SPECS).unwrap();
    let mut specs: Value = serde_json::from_slice(specs).unwrap();
    let keyset = &mut specs["keyset"];
    let bootstraps = keyset["lweBootstrapKeys"].as_array().unwrap();
    // Two that share their big key, and so fit in each other's place.
    let shares =
        |one: usize, other: usize| bootstraps[one]["outputId"] == bootstraps[other]["outputId"];
    let pairs = (0..bootstraps.len()).flat_map(|one| (0..one).map(move |other| (one, other)));
    let (one, other) = pairs.into_iter().find(|&(one, other)| shares(one, other)).unwrap();
    let small = |key: usize| bootstraps[key]["inputId"].clone();
    let (small_one, small_other) = (small(one), small(other));
    let exchange = |keys: &mut Value, by: &str| {
        let keys = keys.as_array_mut().unwrap();
        let at = |id: &Value| keys.iter().position(|key| key[by] == *id).unwrap();
        let (one, other) = (at(&small_one), at(&small_other));
        keys.swap(one, other);
        (keys[one]["id"], keys[other]["id"]) = (one.into(), other.into());
    };
    exchange(&mut keyset["lweBootstrapKeys"], "inputId");
    exchange(&mut keyset["lweKeyswitchKeys"], "outputId");
    archive.insert(names::CLIENT_SPECS, serde_json::to_vec(&specs).unwrap());
    let nobody = RecorderCommand::new("/nonexistent", Vec::new());
    let error = ServerArtifact::open(&archive.to_zip().unwrap(), &nobody).unwrap_err();
    let message = error.to_string();
    assert!(matches!(error, ServerZipError::Noise { ratio, .. } if ratio > 1.2), "{message}");
    assert!(message.contains("keys are not those that it was compiled for"), "{message}");
}
