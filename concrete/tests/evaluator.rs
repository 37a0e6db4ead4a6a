//! Circuits behind the evaluation trait: jobs in pieces, hostile jobs, stopped jobs, bounds.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod cases;
mod jobs;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cipherscore_concrete::evaluator::{
    CircuitEvaluator, MAX_WAITING_BYTES, MAX_WAITING_LINEAR_ROWS,
};
use cipherscore_concrete::framing::frame_values;
use cipherscore_concrete::values::{read_value, write_value};
use cipherscore_engine::artifact::ModelId;
use cipherscore_engine::ciphertext::{Ciphertexts, SEEDED_WORDS};
use cipherscore_engine::evaluator::{EvaluationError, Evaluator, PreparedKey};
use cipherscore_engine::parameters::Compression;
use jobs::{GO_ON, Party, case, named, open, party, split_rows, two_by_two};

const LINEAR: &str = "logistic_regression_multiclass";
const TREE: &str = "decision_tree_classifier";
const FOREST: &str = "random_forest_regressor";

/// The case's rows as a job.
fn rows(name: &'static str) -> Vec<Vec<Vec<i64>>> {
    let quantized = case(name).0.expected().quantized;
    quantized.into_iter().map(|row| vec![row]).collect()
}

fn count(rows: &[Vec<Vec<i64>>]) -> u32 {
    u32::try_from(rows.len()).unwrap()
}

/// The outcome of an evaluation that must not succeed.
fn refused<T>(result: Result<T, EvaluationError>) -> EvaluationError {
    result.err().expect("must be refused")
}

fn is_shape(error: &EvaluationError, part: &str) -> bool {
    matches!(error, EvaluationError::Shape(reason) if reason.contains(part))
}

/// Cuts bytes into pieces of pseudorandom lengths below `longest`, the empty one among them.
fn cut(bytes: &[u8], longest: usize, mut seed: u64) -> Vec<&[u8]> {
    let mut rest = bytes;
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let length = usize::try_from(seed >> 33).unwrap() % longest;
        let (piece, after) = rest.split_at(length.min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    pieces
}

#[test]
fn results_are_the_integers_of_concrete_ml() {
    for name in [LINEAR, TREE, FOREST] {
        let (case, Some(party)) = case(name) else { continue };
        let rows = rows(name);
        let result = party.run([party.body(&rows).as_slice()], count(&rows), GO_ON).unwrap();
        let expected: Vec<_> = case.expected().outputs.into_iter().map(|row| vec![row]).collect();
        assert_eq!(party.decrypt(&result, count(&rows)), expected, "{name}");
    }
}

#[test]
fn a_job_of_the_real_client_gives_the_result_of_the_real_server() {
    let case = named("linear_regression");
    let Some(artifact) = open(&case.read("server.zip")) else { return };
    let gate = artifact.signature().outputs[0].clone();
    let evaluator = Arc::new(CircuitEvaluator::new(artifact).unwrap());
    let key = evaluator.prepare(case.read("golden/evaluation_keys.bin")).unwrap();
    for key in [None, Some(Arc::new(key))] {
        let mut job = Arc::clone(&evaluator).begin(key, 1).unwrap();
        job.push(&frame_values([case.read("golden/input.bin")]), GO_ON).unwrap();
        let result = job.finish(GO_ON).unwrap();
        let theirs = read_value(&gate, &case.read("golden/result.bin")).unwrap();
        let expected = write_value(&gate, Compression::None, theirs.words());
        assert_eq!(result, frame_values([expected]));
    }
}

#[test]
fn pieces_do_not_matter() {
    let (_, Some(party)) = case(LINEAR) else { return };
    let rows = rows(LINEAR);
    let body = party.body(&rows);
    let whole = party.run([body.as_slice()], count(&rows), GO_ON).unwrap();
    assert_eq!(party.run(body.chunks(1), count(&rows), GO_ON).unwrap(), whole);
    for seed in 0..20 {
        let pieces = cut(&body, 1 << (seed % 12 + 1), seed);
        assert_eq!(party.run(pieces, count(&rows), GO_ON).unwrap(), whole, "seed {seed}");
    }
    let single: Vec<_> = split_rows(party, &body, count(&rows))
        .iter()
        .map(|row| party.run([row.as_slice()], 1, GO_ON).unwrap())
        .collect();
    assert_eq!(single.concat(), whole);

    let (_, Some(party)) = case(FOREST) else { return };
    let rows = self::rows(FOREST);
    let body = party.body(&rows);
    let decrypt = |result: Vec<u8>| party.decrypt(&result, count(&rows));
    let whole = decrypt(party.run([body.as_slice()], count(&rows), GO_ON).unwrap());
    assert_eq!(decrypt(party.run(body.chunks(1), count(&rows), GO_ON).unwrap()), whole);
    assert_eq!(decrypt(party.run(cut(&body, 900, 1), count(&rows), GO_ON).unwrap()), whole);
    for (row, expected) in split_rows(party, &body, count(&rows)).iter().zip(whole) {
        let result = party.run([row.as_slice()], 1, GO_ON).unwrap();
        assert_eq!(party.decrypt(&result, 1), [expected]);
    }
}

#[test]
fn several_inputs_and_outputs_and_more_rows_than_are_evaluated_together() {
    let party = party(two_by_two());
    assert!(!party.evaluator.requirements().needs_key && party.evaluator.requirements().is_quick);
    // Encrypting is most of the test's time: a few rows, again and again, in a period that no
    // power of two divides.
    let period: Vec<_> = (0..7i64)
        .map(|row| [10, -20].map(|sign| (0..10).map(|at| sign * row + at).collect()).to_vec())
        .collect();
    let body = party.body(&period);
    let times = MAX_WAITING_LINEAR_ROWS / period.len() + 2;
    let (body, rows) = (body.repeat(times), vec![period; times].concat());
    let result = party.run(cut(&body, 5000, 2), count(&rows), GO_ON).unwrap();
    let expected: Vec<Vec<Vec<i64>>> = rows
        .iter()
        .map(|row| {
            let (a, b): (&Vec<i64>, &Vec<i64>) = (&row[0], &row[1]);
            vec![vec![a[0] + a[1] + 2 * (b[0] + b[1])], vec![b[0] + 1]]
        })
        .collect();
    assert_eq!(party.decrypt(&result, count(&rows)), expected);
}

#[test]
fn inputs_may_be_uncompressed() {
    let party = party(two_by_two());
    let gate = &party.signature.inputs[0];
    let integers = [vec![3; 10], vec![4; 10]];
    let values: Vec<_> = integers
        .iter()
        .map(|integers| {
            let seeded = party.client_keys.encrypt(integers, gate).unwrap();
            assert_eq!(seeded.len(), SEEDED_WORDS * gate.len());
            let expanded = Ciphertexts::decompress(gate.lwe_dimension, &seeded);
            write_value(gate, Compression::None, expanded.words())
        })
        .collect();
    // As many rows as wait at a time, and a few.
    let waiting = MAX_WAITING_BYTES / values.concat().len();
    let rows = u32::try_from(waiting + 3).unwrap();
    let body = frame_values(&values).repeat(waiting + 3);
    assert!(body.len() as u64 <= party.evaluator.footprint(rows).max_input_bytes);
    let result = party.run([body.as_slice()], rows, GO_ON).unwrap();
    let expected = vec![vec![vec![22], vec![5]]; waiting + 3];
    assert_eq!(party.decrypt(&result, rows), expected);
}

#[test]
fn hostile_bodies_are_refused() {
    let (_, Some(party)) = case(LINEAR) else { return };
    let rows = rows(LINEAR);
    let (body, count) = (party.body(&rows), count(&rows));
    let run = |body: &[u8], rows| refused(party.run([body], rows, GO_ON));
    assert!(is_shape(&run(&body, 0), "no rows"));
    for length in [0, 1, 4, 5, body.len() / 2, body.len() - 1] {
        assert!(is_shape(&run(&body[..length], count), "were announced"), "{length}");
    }
    assert!(is_shape(&run(&[&body[..], &[0]].concat(), count), "more than the 8 rows"));
    assert!(is_shape(&run(&body, count - 1), "more than the 7 rows"));
    assert!(is_shape(&run(&body, count + 1), "8 complete rows, where 9"));

    let mut long = body.clone();
    long[..4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(is_shape(&run(&long[..4], count), "row 1, value 0: 4294967295 bytes"));
    // A length that is possible, and not the value's.
    let mut short = body.clone();
    short[0] -= 8;
    assert!(matches!(run(&short, count), EvaluationError::Shape(_)));
    let mut spoilt = body.clone();
    let third = body.len() / count as usize * 2;
    spoilt[third + 4..third + 40].fill(0xff);
    assert!(is_shape(&run(&spoilt, count), "row 3, value 0: "));

    let other = jobs::party(two_by_two()).body(&[vec![vec![0; 10], vec![0; 10]]]);
    assert!(is_shape(&run(&other, 2), "row 1, value 0: the ciphertext does not belong"));
}

#[test]
fn what_is_too_much_is_refused_at_once_and_a_failure_is_final() {
    let party = party(two_by_two());
    let row = party.body(&[vec![vec![0; 10], vec![0; 10]]]);
    let mut job = Arc::clone(&party.evaluator).begin(None, 1).unwrap();
    job.push(&row, GO_ON).unwrap();
    let error = refused(job.push(&row[..1], GO_ON));
    assert!(is_shape(&error, "more than the 1 rows"));
    assert_eq!(refused(job.push(&[], GO_ON)), error);
    assert_eq!(refused(job.finish(GO_ON)), error);
}

#[test]
fn keys_of_others_are_refused() {
    let (_, Some(tree)) = case(TREE) else { return };
    let (_, Some(forest)) = case(FOREST) else { return };
    let evaluator = || Arc::clone(&tree.evaluator);
    let not_conformant =
        |error: EvaluationError| assert!(matches!(error, EvaluationError::NotConformant(_)));

    assert!(evaluator().requirements().needs_key);
    assert_eq!(refused(evaluator().begin(None, 1)), EvaluationError::KeyRequired);
    not_conformant(refused(evaluator().begin(forest.prepared.clone(), 1)));
    let other_kind =
        PreparedKey::new(evaluator().requirements().keyset_id, 1, "not a key of circuits");
    not_conformant(refused(evaluator().begin(Some(Arc::new(other_kind)), 1)));

    not_conformant(refused(evaluator().prepare(forest.key.clone())));
    not_conformant(refused(evaluator().prepare(Vec::new())));
    not_conformant(refused(evaluator().prepare(vec![0x5a; 4096])));
    not_conformant(refused(evaluator().prepare(tree.key[..tree.key.len() - 8].to_vec())));
    not_conformant(refused(evaluator().prepare([&tree.key[..], &[0; 8]].concat())));
    let too_long =
        refused(evaluator().prepare(vec![0; evaluator().requirements().max_key_bytes + 1]));
    assert!(too_long.to_string().contains("is it one of another model?"));

    // A linear model needs none, and does not take anyone's.
    let linear = party(two_by_two());
    not_conformant(refused(Arc::clone(&linear.evaluator).begin(tree.prepared.clone(), 1)));
    not_conformant(refused(linear.evaluator.prepare(tree.key.clone())));
}

#[test]
fn stopping_ends_an_evaluation() {
    for (name, more_than) in [(LINEAR, 2), (TREE, 3), (FOREST, 3)] {
        let (_, Some(party)) = case(name) else { continue };
        let rows = rows(name);
        let body = party.body(&rows);
        let run = |looks: usize| {
            let left = AtomicUsize::new(looks);
            let stop = || {
                let looked = |left: usize| left.checked_sub(1);
                left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, looked).is_err()
            };
            let result = party.run([body.as_slice()], count(&rows), &stop);
            (result, looks - left.load(Ordering::Relaxed))
        };
        for looks in [0, 1, 2, more_than] {
            assert_eq!(run(looks).0, Err(EvaluationError::Stopped), "{name} after {looks}");
        }
        // At every row and every step.
        let (result, looks) = run(1 << 20);
        let cost = party.evaluator.cost();
        assert!(looks >= rows.len() * (1 + cost.bootstraps + cost.keyswitches), "{name} {looks}");
        assert!(result.is_ok());
        assert_eq!(run(looks - 1).0, Err(EvaluationError::Stopped), "{name} before its end");
    }
}

#[test]
fn models_of_equal_keysets_share_prepared_keys() {
    let regression = open(&named("linear_regression").read("server.zip"));
    let Some(regression) = regression.map(party) else { return };
    let (two, ridge) = (party(two_by_two()), open(&named("ridge").read("server.zip")).map(party));
    let id = |party: &Party| party.evaluator.requirements().keyset_id;
    assert_ne!(two.evaluator.requirements().model_id, regression.evaluator.requirements().model_id);
    assert_eq!(two.evaluator.requirements().model_id, ModelId::of(b"two by two"));
    assert_eq!(id(&two), id(&regression));
    assert_ne!(id(&two), id(&ridge.unwrap()));
    let key = regression.evaluator.prepare(regression.key.clone()).unwrap();
    assert!(two.evaluator.begin(Some(Arc::new(key)), 1).is_ok());
}

#[test]
fn bounds_hold_and_grow_with_rows() {
    for name in [LINEAR, TREE, FOREST] {
        let (_, Some(party)) = case(name) else { continue };
        let evaluator = &party.evaluator;
        assert!(party.key.len() <= evaluator.requirements().max_key_bytes, "{name}");
        assert!(evaluator.requirements().max_key_bytes <= party.key.len() + 8192, "{name}");
        let bytes = party.prepared.as_ref().map_or(0, |key| key.bytes());
        assert_eq!(bytes, evaluator.requirements().prepared_key_bytes, "{name}");

        let rows = rows(name);
        let body = party.body(&rows);
        assert!(body.len() as u64 <= evaluator.footprint(count(&rows)).max_input_bytes, "{name}");
        let result = party.run([body.as_slice()], count(&rows), GO_ON).unwrap();
        assert!(
            body.len() + result.len() <= evaluator.footprint(count(&rows)).memory_bytes,
            "{name}"
        );
        let sizes = [1, 2, 3, 100, 5000, u32::MAX];
        assert!(sizes.is_sorted_by_key(|&rows| evaluator.footprint(rows).memory_bytes), "{name}");
        assert!(sizes.windows(2).all(|pair| {
            evaluator.footprint(pair[0]).max_input_bytes
                < evaluator.footprint(pair[1]).max_input_bytes
        }));
    }
}
