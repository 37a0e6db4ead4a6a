//! Concrete ML's encrypted training: several inputs and outputs, and outputs that go in again.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod cases;
mod jobs;

use std::path::{Path, PathBuf};

use cipherscore_concrete::client::ClientArtifact;
use cipherscore_concrete::framing::{FramedRowReader, frame_values};
use cipherscore_concrete::function::{Argument, ArgumentError, ClientZip, FunctionArtifact};
use cipherscore_engine::evaluator::{EvaluationError, Evaluator};
use cipherscore_engine::parameters::Compression;
use jobs::{GO_ON, Party, open, party};
use serde::Deserialize;

/// Bootstraps of an iteration once optimised, at most: fewer are better.
const OPTIMISED_BOOTSTRAPS: usize = 154;

/// `training.json`.
#[derive(Deserialize)]
struct Training {
    input_shapes: Vec<Vec<usize>>,
    output_shapes: Vec<Vec<usize>>,
    iterations: Vec<Iteration>,
}

#[derive(Deserialize)]
struct Iteration {
    /// Integers of x, y, weights and bias.
    quantized: Vec<Vec<i64>>,
    /// Integers of the new weights and bias.
    outputs: Vec<Vec<i64>>,
    /// The same de-quantised.
    values: Vec<Vec<f64>>,
}

fn path(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/concrete/sgd_training");
    root.join(name)
}

fn read(name: &str) -> Vec<u8> {
    std::fs::read(path(name)).unwrap()
}

fn training() -> Training {
    serde_json::from_slice(&read("training.json")).unwrap()
}

fn function() -> FunctionArtifact {
    match ClientZip::open(&read("client.zip")).unwrap() {
        ClientZip::Function(function) => function,
        ClientZip::Model(_) => panic!("a training function is no model"),
    }
}

/// Numbers of a file, row-major, cut into values of an argument.
fn values(argument: &Argument, file: &str) -> Vec<Vec<f64>> {
    let text = String::from_utf8(read(file)).unwrap();
    let numbers: Vec<f64> =
        text.lines().skip(1).flat_map(|line| line.split(',')).map(|x| x.parse().unwrap()).collect();
    let values = numbers.chunks_exact(argument.gate.len());
    assert!(values.remainder().is_empty());
    values.map(<[f64]>::to_vec).collect()
}

#[test]
fn arguments_are_those_of_concrete_ml() {
    let (function, training) = (function(), training());
    assert!(function.is_training());
    let names = |arguments: &[Argument]| -> Vec<_> {
        arguments.iter().map(|argument| argument.name.clone()).collect()
    };
    let shapes = |arguments: &[Argument]| -> Vec<_> {
        arguments.iter().map(|argument| argument.gate.shape.clone()).collect()
    };
    assert_eq!(names(function.inputs()), ["x", "y", "weights", "bias"]);
    assert_eq!(names(function.outputs()), ["weights", "bias"]);
    assert_eq!(shapes(function.inputs()), training.input_shapes);
    assert_eq!(shapes(function.outputs()), training.output_shapes);
    let [x, y, weights, bias] = function.inputs() else { panic!("four inputs") };
    assert_eq!((x.lines(), x.columns(), bias.lines()), (4, 2, 1));

    let quantised = |argument: &Argument, file| -> Vec<_> {
        let values = values(argument, file);
        values.iter().map(|value| argument.quantise(value).unwrap()).collect()
    };
    let (batches, labels) = (quantised(x, "x.csv"), quantised(y, "y.csv"));
    assert_eq!(batches.len(), training.iterations.len());
    for (index, iteration) in training.iterations.iter().enumerate() {
        assert_eq!(
            [&batches[index], &labels[index]],
            [&iteration.quantized[0], &iteration.quantized[1]]
        );
        for (output, (integers, expected)) in
            function.outputs().iter().zip(iteration.outputs.iter().zip(&iteration.values))
        {
            assert_eq!(&output.dequantise(integers).unwrap(), expected);
        }
    }
    let first = &training.iterations[0].quantized;
    assert_eq!(quantised(weights, "weights.csv"), [first[2].clone()]);
    assert_eq!(quantised(bias, "bias.csv"), [first[3].clone()]);
}

#[test]
fn values_that_do_not_fit_are_refused_by_name() {
    let function = function();
    let weights = &function.inputs()[2];
    let refused = |values: &[f64]| weights.quantise(values).unwrap_err();
    assert_eq!(refused(&[0.5]).to_string(), "1 numbers, where weights has 2 (shape [1, 2, 1])");
    let error = refused(&[0.5, f64::INFINITY]);
    assert!(matches!(error, ArgumentError::Number { position: 2, .. }), "{error}");
    assert!(weights.quantise(&[0.5, f64::NAN]).is_err());
    let no_model = ClientArtifact::open(&read("client.zip")).unwrap_err();
    assert!(no_model.to_string().contains("encrypted training"), "{no_model}");
}

fn seeded(party: &Party, argument: &Argument, integers: &[i64]) -> Vec<u8> {
    let words = party.client_keys.encrypt(integers, &argument.gate).unwrap();
    cipherscore_concrete::values::write_value(&argument.gate, Compression::Seed, &words)
}

/// The values of a result of one row.
fn split(party: &Party, result: &[u8]) -> Vec<Vec<u8>> {
    let mut reader = FramedRowReader::new(&party.signature.outputs, 1);
    let mut rest = result;
    let row = reader.next_row(&mut rest).unwrap().unwrap();
    reader.finish().unwrap();
    row
}

/// Every iteration's integers are those of the clear function, although nothing is decrypted on the
/// way: the outputs, as they were written, are inputs again.
#[test]
fn encrypted_iterations_give_the_integers_of_clear_ones() {
    let (function, training) = (function(), training());
    let Some(artifact) = open(&read("server.zip")) else { return };
    let compiled = artifact.circuit.circuit().cost().bootstraps;
    let party = party(artifact);
    let optimised = party.evaluator.cost().bootstraps;
    assert!(optimised <= OPTIMISED_BOOTSTRAPS, "{optimised} bootstraps, of {compiled} compiled");

    let inputs = function.inputs();
    let first = &training.iterations[0].quantized;
    let mut state: Vec<_> =
        (2..4).map(|index| seeded(&party, &inputs[index], &first[index])).collect();
    for (number, iteration) in training.iterations.iter().enumerate().take(3) {
        let batch = (0..2).map(|index| seeded(&party, &inputs[index], &iteration.quantized[index]));
        let body = frame_values(batch.chain(state));
        assert!(body.len() as u64 <= party.evaluator.footprint(1).max_input_bytes);
        let result = party.run(body.chunks(10_000), 1, GO_ON).unwrap();
        let outputs = &party.decrypt(&result, 1)[0];
        assert_eq!(*outputs, iteration.outputs, "iteration {number}");
        state = split(&party, &result);
    }
    refused_by_position(&party, &function, &first[..]);
}

/// A value in another's place is refused before anything is evaluated.
fn refused_by_position(party: &Party, function: &FunctionArtifact, integers: &[Vec<i64>]) {
    let values: Vec<_> = function
        .inputs()
        .iter()
        .zip(integers)
        .map(|(argument, integers)| seeded(party, argument, integers))
        .collect();
    let [x, y, weights, bias] = values.as_slice() else { panic!("four inputs") };
    let refused = |row: &[&Vec<u8>]| match party.run([frame_values(row).as_slice()], 1, GO_ON) {
        Err(EvaluationError::Shape(reason)) => reason,
        other => panic!("{other:?}"),
    };
    let swapped = refused(&[x, y, bias, weights]);
    assert!(swapped.contains("row 1, value 2"), "{swapped}");
    assert!(swapped.contains("abstract shape is [1, 1, 1], [1, 2, 1] is specified"), "{swapped}");
    assert!(refused(&[x, y, weights]).contains("0 complete rows, where 1 were announced"));
    assert!(refused(&[x, y, weights, bias, bias]).contains("more than the 1 rows"));
}
