//! Decrypted integers equal the program's, and scores are the library's within the stated error.

use cipherscore_compiler::trained::{Body, ScoreKind};
use cipherscore_compiler::{Bins, CompileOptions, CompileReport, compile};

use cipherscore_engine::bulk::artifact::BulkClientArtifact;

use crate::bounds::{label, scores};
use crate::cases::{Case, all};
use crate::owner::answer;

/// Every other model compiles, hidden if it is an ensemble.
const REFUSED: [(&str, &str); 2] =
    [("xgb_constant", "the same answer"), ("lgb_constant", "the same answer")];

/// Standard deviations that noise is beyond in one of 2^128 cases.
const DEVIATIONS: f64 = 13.1;

fn options(case: &Case, bins: Bins) -> CompileOptions {
    CompileOptions { calibration: Some(case.rows.clone()), bins, ..CompileOptions::default() }
}

fn is_refused(case: &Case) -> bool {
    REFUSED.iter().any(|(name, _)| *name == case.name)
}

/// Compiles, encrypts, evaluates and decrypts, and compares integers. Decrypted rows and the raw
/// outputs and report that they come with.
fn integers(case: &Case, options: &CompileOptions) -> (Vec<Vec<f64>>, CompileReport) {
    let compiled = compile(&case.model, options);
    let compiled = compiled.unwrap_or_else(|error| panic!("{}: {error}", case.name));
    let is_ensemble = matches!(case.model.body, Body::Ensemble(_));
    assert_eq!(compiled.report.hidden, is_ensemble && options.hide, "{}", case.name);
    let answer = answer(&compiled, &case.rows);
    assert_eq!(answer.decrypted, answer.clear, "{}, {options:?}", case.name);
    let raw = answer.decrypted.iter().map(|integers| answer.client.model.scores.raw(integers));
    (raw.collect(), compiled.report)
}

/// Scores of all rows; gives how many labels had to be the library's.
fn agrees(case: &Case, raw: &[Vec<f64>], report: &CompileReport) -> usize {
    assert_eq!(raw.len(), case.scores.len(), "{}", case.name);
    let (relative, absolute) = case.tolerance;
    let mut labels = 0;
    for (row, (raw, expected)) in raw.iter().zip(&case.scores).enumerate() {
        let place = format!("{}, row {row}", case.name);
        let found = scores(case.model.link, raw, &report.raw_error);
        assert_eq!(found.scores.len(), expected.len(), "{place}");
        let mut largest = 0.0;
        for ((found, expected), bound) in found.scores.iter().zip(expected).zip(&found.bounds) {
            // What the library rounds is relative to terms that may cancel.
            let bound = bound * 1.001 + relative * expected.abs().max(1.0) + absolute;
            assert!((found - expected).abs() <= bound, "{place}: {found} {expected} {bound}");
            largest = f64::max(largest, bound);
        }
        let (best, margin) = label(expected);
        if case.model.score_kind == ScoreKind::Probabilities && margin > 2.0 * largest {
            assert_eq!(label(&found.scores).0, best, "{place}");
            labels += 1;
        }
    }
    labels
}

#[test]
fn what_is_refused_is_known() {
    let cases = all();
    for (name, reason) in REFUSED {
        let case = cases.iter().find(|case| case.name == name).unwrap();
        for bins in [Bins::Used, Bins::Padded] {
            let refused = compile(&case.model, &options(case, bins)).unwrap_err().to_string();
            assert!(refused.contains(reason), "{name}: {refused}");
        }
    }
}

/// Phases with all that is added to them stay below half of the modulus, by the deviation that the
/// specs say and workers flood by.
#[test]
fn floods_fit_into_their_moduli() {
    let mut hidden = 0;
    for case in all().iter().filter(|case| !is_refused(case)) {
        for max_error in [1e-1, 1e-2, 1e-3, 1e-4] {
            let options = CompileOptions { max_error, ..options(case, Bins::Used) };
            // A large error may leave nothing of a model, and a small one not fit.
            let Ok(compiled) = compile(&case.model, &options) else { continue };
            let specs = BulkClientArtifact::open(&compiled.client_zip).unwrap().specs;
            if !specs.hidden {
                continue;
            }
            let flood = specs.log2_flood().exp2();
            let noise = DEVIATIONS * specs.log2_sigma_phase.exp2();
            let taken = (2.0 * (flood + noise)).log2();
            let available = specs.parameters.log2_modulus();
            assert!(taken < available, "{}, {max_error}: {taken} {available}", case.name);
            hidden += 1;
        }
    }
    assert!(hidden > 200, "{hidden}");
}

#[test]
fn decrypted_scores_are_those_of_the_libraries() {
    let (mut models, mut labels) = (0, 0);
    for case in all().iter().filter(|case| !is_refused(case)) {
        for (bins, hide) in [(Bins::Used, true), (Bins::Used, false), (Bins::Padded, true)] {
            let options = CompileOptions { hide, ..options(case, bins) };
            let (raw, report) = integers(case, &options);
            assert!(report.relative_error <= options.max_error, "{}", case.name);
            labels += agrees(case, &raw, &report);
        }
        models += 1;
    }
    assert!(models >= 110, "{models}");
    assert!(labels >= 3000, "{labels}");
}

/// Merged and snapped thresholds are other models than the library's, and as exact.
#[test]
fn merged_and_snapped_thresholds_decrypt_to_what_their_program_says() {
    let mut fewer = 0;
    for case in all().iter().filter(|case| !is_refused(case)) {
        let used = compile(&case.model, &options(case, Bins::Used)).unwrap().report;
        let full = options(case, Bins::Full);
        let merged = CompileOptions { max_bins: Some(2), ..options(case, Bins::Used) };
        for options in [full, merged] {
            let (raw, report) = integers(case, &options);
            assert_eq!((raw.len(), report.outputs), (case.rows.len(), used.outputs));
            fewer += usize::from(report.columns < used.columns);
        }
    }
    assert!(fewer >= 10, "{fewer}");
}
