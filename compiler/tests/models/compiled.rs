//! What the libraries' models answer once they are compiled: raw outputs within the stated error.

use std::fs;

use cipherscore_compiler::{Bins, CompileOptions, Compiled, compile, read};
use cipherscore_engine::bulk::artifact::{BulkClientArtifact, BulkServerArtifact};

use crate::reference::{cases, rows};

/// Cases that give every row the same answer, or need ranges that a few rows do not show.
fn is_compiled(name: &str) -> bool {
    !["constant", "linear"].iter().any(|kind| name.ends_with(kind))
}

#[test]
fn compiled_models_answer_within_their_error() {
    let cases = ["lgb_", "xgb"].into_iter().flat_map(cases);
    for (name, case) in cases.filter(|(name, _)| is_compiled(name)) {
        let file = ["model.json", "model.txt"].map(|file| case.join(file));
        let file = file.iter().find(|file| file.exists()).unwrap();
        let model = read(&fs::read(file).unwrap(), None).unwrap();
        let (_, rows) = rows(&case);
        for (bins, hide) in [(Bins::Used, false), (Bins::Padded, true)] {
            let calibration = Some(rows.clone());
            let options = CompileOptions { calibration, bins, hide, ..CompileOptions::default() };
            let compiled = compile(&model, &options);
            let compiled = compiled.unwrap_or_else(|error| panic!("{name}: {error}"));
            let largest = largest_raw_difference(&compiled, &rows, |row| model.raw(row));
            let error = compiled.report.raw_error.iter().copied().fold(0.0, f64::max);
            assert!(largest <= error * 1.001 + 1e-9, "{name}: {largest} above {error}");
            assert!(compiled.report.relative_error <= options.max_error, "{name}");
        }
    }
}

fn largest_raw_difference(
    compiled: &Compiled,
    rows: &[Vec<f64>],
    raw: impl Fn(&[f64]) -> Vec<f64>,
) -> f64 {
    let client = BulkClientArtifact::open(&compiled.client_zip).unwrap();
    let server = BulkServerArtifact::open(&compiled.server_zip).unwrap();
    let encoded = client.model.encode(rows, 0).unwrap();
    let mut columns = vec![vec![0; rows.len()]; client.specs.columns as usize];
    for (column, values) in (0..).zip(&mut columns) {
        encoded.fill(column, 0, values);
    }
    let difference = |(index, row): (usize, &Vec<f64>)| {
        let bits: Vec<i64> = columns.iter().map(|column| column[index]).collect();
        let ours = client.model.scores.raw(&server.program.interpret(&bits).unwrap());
        ours.iter().zip(raw(row)).map(|(ours, theirs)| (ours - theirs).abs()).fold(0.0, f64::max)
    };
    rows.iter().enumerate().map(difference).fold(0.0, f64::max)
}
