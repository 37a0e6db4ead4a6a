//! The form for single rows: the same integers as the bulk form's, in the clear for every row, and
//! decrypted for some.

use std::collections::BTreeSet;
use std::sync::Arc;

use cipherscore_compiler::trained::Body;
use cipherscore_compiler::{Bins, CompileOptions, Compiled, WantedForms, compile};
use cipherscore_engine::bulk::client_model::BulkClientModel;
use cipherscore_engine::bulk::program::ValidProgram;
use cipherscore_engine::compiled::{CompiledClientArtifact, CompiledServerArtifact};
use cipherscore_engine::evaluator::{Evaluator, Stop};
use cipherscore_engine::rows::artifact::RowServerArtifact;
use cipherscore_engine::rows::client::{ReplyCounts, RowClient};
use cipherscore_engine::rows::evaluator::RowEvaluator;
use cipherscore_engine::rows::ring::RowRing;
use cipherscore_engine::rows::secret::RowSecretKey;
use cipherscore_ids::OwnerId;

use crate::cases::{Case, all};

const NEVER: Stop<'static> = &|| false;
/// Rows of each case that are encrypted.
const ENCRYPTED_ROWS: usize = 2;

fn options(case: &Case, forms: WantedForms, bins: Bins) -> CompileOptions {
    let calibration = Some(case.rows.clone());
    CompileOptions { calibration, bins, forms, ..CompileOptions::default() }
}

fn is_ensemble(case: &Case) -> bool {
    matches!(case.model.body, Body::Ensemble(_)) && !case.name.ends_with("constant")
}

/// Bits of all columns, row by row.
fn bits(model: &BulkClientModel, rows: &[Vec<f64>]) -> Vec<Vec<bool>> {
    let encoded = model.encode(rows, 0).unwrap();
    let mut bits = vec![vec![false; model.inputs.columns()]; rows.len()];
    let mut column = vec![0; rows.len()];
    for position in 0..model.inputs.columns() {
        encoded.fill(u32::try_from(position).unwrap(), 0, &mut column);
        bits.iter_mut().zip(&column).for_each(|(row, &bit)| row[position] = bit == 1);
    }
    bits
}

/// Integers of all rows by the row program.
fn of_paths(server: &RowServerArtifact, bits: &[Vec<bool>]) -> Vec<Vec<i64>> {
    let centre = server.specs.parameters.value_centre();
    let integers = |row: &Vec<bool>| {
        server.program.interpret(row).unwrap().iter().map(|sum| sum - centre).collect()
    };
    bits.iter().map(integers).collect()
}

fn of_polynomials(program: &ValidProgram, bits: &[Vec<bool>]) -> Vec<Vec<i64>> {
    let integers = |row: &Vec<bool>| {
        let row: Vec<i64> = row.iter().map(|&bit| i64::from(bit)).collect();
        program.interpret(&row).unwrap()
    };
    bits.iter().map(integers).collect()
}

/// Encrypts rows, evaluates and decrypts them, with fresh keys.
fn decrypted(server: &RowServerArtifact, bits: &[Vec<bool>]) -> Vec<Vec<i64>> {
    let parameters = server.specs.parameters.clone();
    let program = server.program.clone().into_program();
    let evaluator = RowEvaluator::new(server.model_id, parameters.clone(), program).unwrap();
    let ring = RowRing::new(&parameters.keys).unwrap();
    let secret = RowSecretKey::generate(&parameters.keys).unwrap();
    let key = evaluator.prepare(secret.evaluation_key(&ring).unwrap()).unwrap();
    let owner = OwnerId::from_bytes([7; 16]).unwrap();
    let centre = parameters.value_centre();
    let client = RowClient::new(ring, parameters, server.model_id, owner, &secret).unwrap();
    let mut counts = ReplyCounts::default();
    let upload = client.encrypt(bits, &counts).unwrap();
    let rows = u32::try_from(bits.len()).unwrap();
    let mut job = Arc::new(evaluator).begin(Some(Arc::new(key)), rows).unwrap();
    job.push(&upload.bytes, NEVER).unwrap();
    let reply = job.finish(NEVER).unwrap();
    let sums = client.decrypt(upload.digest, rows, &reply, &mut counts).unwrap();
    let integer = |&sum: &u64| i64::try_from(sum).unwrap() - centre;
    sums.iter().map(|row| row.iter().map(integer).collect()).collect()
}

fn opened(compiled: &Compiled) -> (CompiledClientArtifact, CompiledServerArtifact) {
    let client = CompiledClientArtifact::open(&compiled.client_zip).unwrap();
    (client, CompiledServerArtifact::open(&compiled.server_zip).unwrap())
}

/// Whichever form a row takes, its integers are the same, and so are its scores.
#[test]
fn both_forms_have_the_same_integers() {
    let (mut both, mut families) = (0, BTreeSet::new());
    for case in all().iter().filter(|case| is_ensemble(case)) {
        for bins in [Bins::Used, Bins::Padded, Bins::Full] {
            let compiled = compile(&case.model, &options(case, WantedForms::Both, bins));
            let compiled = compiled.unwrap_or_else(|error| panic!("{}: {error}", case.name));
            let (client, server) = opened(&compiled);
            let (Some(bulk), Some(rows)) = (server.bulk, server.rows) else {
                assert!(compiled.left_out.is_some(), "{}", case.name);
                continue;
            };
            assert_eq!(
                (&client.bulk, &client.rows),
                (&Some(bulk.specs), &Some(rows.specs.clone()))
            );
            let bits = bits(&client.model, &case.rows);
            let integers = of_polynomials(&bulk.program, &bits);
            assert_eq!(of_paths(&rows, &bits), integers, "{}", case.name);
            assert!(compiled.report.relative_error <= 1e-3, "{}", case.name);
            both += 1;
            families.insert(case.name[..3].to_owned());
        }
    }
    assert!(both > 200, "{both}");
    assert!(families.len() >= 3, "{families:?}");
}

#[test]
fn single_rows_decrypt_to_the_integers_of_their_program() {
    let mut models = 0;
    for case in all().iter().filter(|case| is_ensemble(case)) {
        let compiled = compile(&case.model, &options(case, WantedForms::Rows, Bins::Used));
        let compiled = compiled.unwrap_or_else(|error| panic!("{}: {error}", case.name));
        let (client, server) = opened(&compiled);
        assert!(client.bulk.is_none() && server.bulk.is_none());
        let rows = server.rows.unwrap();
        let some = &case.rows[..ENCRYPTED_ROWS.min(case.rows.len())];
        let bits = bits(&client.model, some);
        assert_eq!(decrypted(&rows, &bits), of_paths(&rows, &bits), "{}", case.name);
        models += 1;
    }
    assert!(models > 80, "{models}");
}
