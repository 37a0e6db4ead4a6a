//! Models and rows as people have them: the library's scores, or a refusal with its true cause and a
//! way out, and never other scores with exit code 0.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]
// What tests share is more than one of them uses.
#![allow(dead_code)]

mod example;

use std::path::{Path, PathBuf};
use std::process::Output;

use example::{run, text};
use tempfile::TempDir;

/// How far scores may be off: of a probability, and relative to what a prediction and an ordinary one
/// are.
const TOLERANCE: f64 = 2e-3;

fn folder(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/tabular").join(case)
}

fn file(case: &str, name: &str) -> String {
    text(&folder(case).join(name))
}

fn model(case: &str) -> String {
    let names = ["model.json", "model.txt", "model.onnx"];
    let path = names.map(|name| folder(case).join(name)).into_iter().find(|path| path.exists());
    text(&path.unwrap())
}

fn said(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr].concat();
    let said = String::from_utf8(both).unwrap();
    assert!(!said.contains("panicked"), "{said}");
    said
}

/// Compiles a case into a folder.
fn compile(case: &str, into: &TempDir, more: &[&str]) -> Output {
    let (model, calibration) = (model(case), file(case, "calibration.csv"));
    let output = text(into.path());
    let words = ["compile", &model, "-o", &output, "--calibration", &calibration, "--form", "bulk"];
    run(&[&words[..], more].concat())
}

fn predict(case: &str, artifact: &TempDir, more: &[&str]) -> Output {
    let (input, output) = (file(case, "rows.csv"), text(&artifact.path().join("scores.csv")));
    let artifact = text(artifact.path());
    let words = ["predict", "--artifact", &artifact, "--input", &input, "--output", &output];
    run(&[&words[..], more].concat())
}

/// Lines of numbers below a header; none for a line without any.
fn table(path: &Path) -> Vec<Option<Vec<f64>>> {
    let text = std::fs::read_to_string(path).unwrap();
    let line = |line: &str| {
        let fields: Vec<&str> = line.split(',').collect();
        let is_empty = fields.iter().all(|field| field.trim_matches('"').is_empty());
        (!is_empty).then(|| fields.iter().map(|field| field.parse().unwrap()).collect())
    };
    text.lines().skip(1).map(line).collect()
}

/// Rows of the case with the library's scores, and those without any.
fn scores(case: &str, told: &[&str], of_rows: &[&str]) -> (usize, Vec<usize>) {
    let artifact = TempDir::new().unwrap();
    let compiled = compile(case, &artifact, told);
    assert_eq!(compiled.status.code(), Some(0), "{case}: {}", said(&compiled));
    let predicted = predict(case, &artifact, of_rows);
    let found = table(&artifact.path().join("scores.csv"));
    let expected = table(&folder(case).join("expected.csv"));
    assert_eq!(found.len(), expected.len(), "{case}");
    let mut sizes: Vec<f64> = expected.iter().flatten().flatten().map(|x| x.abs()).collect();
    sizes.sort_by(f64::total_cmp);
    let usual = sizes[sizes.len() / 2];
    let (mut close, mut without) = (0, Vec::new());
    for (row, (found, expected)) in found.iter().zip(&expected).enumerate() {
        let (Some(found), Some(expected)) = (found, expected) else {
            without.push(row + 1);
            continue;
        };
        for (found, expected) in found.iter().zip(expected) {
            let bound = TOLERANCE * (usual.max(1.0) + expected.abs());
            assert!((found - expected).abs() <= bound, "{case}, row {row}: {found} {expected}");
        }
        close += 1;
    }
    let code = if without.is_empty() { 0 } else { 2 };
    assert_eq!(predicted.status.code(), Some(code), "{case}: {}", said(&predicted));
    (close, without)
}

fn all_scores(case: &str, told: &[&str]) {
    assert_eq!(scores(case, told, &[]).1, [0; 0], "{case}");
}

#[test]
fn categories_are_found_by_their_texts() {
    for case in
        ["lgb_cat_NA", "lgb_cat_missing", "lgb_cat_ints", "xgb_cat_plain", "xgb_cat_nan_text"]
    {
        all_scores(case, &[]);
    }
    all_scores("xgb_cat_20", &[]);
    all_scores("xgb_bool", &[]);
}

/// `.cat.codes` of another data frame.
#[test]
fn codes_are_no_names() {
    let artifact = TempDir::new().unwrap();
    let refused = compile("lgb_recoded_codes", &artifact, &[]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("--category-codes"), "{}", said(&refused));
    let compiled = compile("lgb_recoded_codes", &artifact, &["--category-codes"]);
    assert_eq!(compiled.status.code(), Some(0), "{}", said(&compiled));
    let predicted = said(&predict("lgb_recoded_codes", &artifact, &[]));
    assert!(predicted.contains("line 2, column \"city\": \"2\" is none of"), "{predicted}");
}

#[test]
fn columns_are_found_by_their_names_whatever_these_are() {
    for case in [
        "lgb_name_space",
        "xgb_name_trailspace",
        "xgb_name_tab",
        "xgb_names_newline",
        "xgb_noname_reordered",
        "onnx_grouped",
    ] {
        all_scores(case, &[]);
    }
    scores("xgb_noname_no_header", &["--no-header"], &["--no-header"]);
    let artifact = TempDir::new().unwrap();
    let refused = said(&compile("xgb_noname_no_header", &artifact, &[]));
    assert!(refused.contains("--no-header"), "{refused}");
}

#[test]
fn what_the_file_does_not_say_is_asked_for() {
    for (case, asked, told) in [
        ("xgb_missing_999", "--missing -999", &["--missing", "-999"][..]),
        ("xgb_sparse_zero", "--missing 0", &["--missing", "0"]),
        ("xgb_early_native_booster", "--rounds all", &["--rounds", "all"]),
        ("onnx_hist_poisson", "--link exp", &["--link", "exp"]),
    ] {
        let artifact = TempDir::new().unwrap();
        let refused = compile(case, &artifact, &[]);
        assert_eq!(refused.status.code(), Some(1), "{case}");
        assert!(said(&refused).contains(asked), "{case}: {}", said(&refused));
        assert!(!artifact.path().join("client.zip").exists(), "{case}");
        all_scores(case, told);
    }
}

/// Compiles with the rows of the case as calibration, of which the library's answers are known.
fn against_the_library(case: &str, more: &[&str]) -> Output {
    let artifact = TempDir::new().unwrap();
    let (model, rows, expected) = (model(case), file(case, "rows.csv"), file(case, "expected.csv"));
    let output = text(artifact.path());
    let words = ["compile", &model, "-o", &output, "--calibration", &rows, "--expected", &expected];
    let compiled = run(&[&words[..], &["--form", "bulk"], more].concat());
    let written = artifact.path().join("client.zip").exists();
    assert_eq!(written, compiled.status.success(), "{case}");
    compiled
}

#[test]
fn what_the_library_answers_decides() {
    for case in ["xgb_early_native_booster", "onnx_hist_poisson", "xgb_cat_plain"] {
        let compiled = against_the_library(case, &[]);
        assert_eq!(compiled.status.code(), Some(0), "{case}: {}", said(&compiled));
        assert!(said(&compiled).contains("of 30 rows 0 differ"), "{case}: {}", said(&compiled));
    }
    for (case, told, cause) in [
        ("xgb_missing_999", &[][..], "With --missing -999 all rows agree"),
        ("xgb_sparse_zero", &["--missing", "none"], "With --missing 0 all rows agree"),
        ("xgb_early_native_booster", &["--rounds", "best"], "With --rounds 28 all rows agree"),
        ("onnx_forest_nan", &[], "All of these rows have missing values"),
        ("onnx_big_hist_double", &[], "thresholds in float32"),
        ("onnx_hist_poisson", &["--link", "identity"], "With --link exp all rows agree"),
    ] {
        let refused = against_the_library(case, told);
        assert_eq!(refused.status.code(), Some(3), "{case}: {}", said(&refused));
        assert!(said(&refused).contains(cause), "{case}: {}", said(&refused));
    }
}

#[test]
fn ranges_are_not_what_one_cell_makes_of_them() {
    for case in ["onnx_linear_outlier_1000", "onnx_linear_sentinel", "onnx_linear_const_col"] {
        all_scores(case, &[]);
    }
    all_scores("onnx_linear_one_calib_row", &[]);
    let artifact = TempDir::new().unwrap();
    let compiled = said(&compile("onnx_linear_outlier_1000", &artifact, &[]));
    assert!(compiled.contains("calibration row 1, column \"a\": 1000 is far"), "{compiled}");
    let strict = compile("onnx_linear_outlier_1000", &artifact, &["--strict"]);
    assert_eq!(strict.status.code(), Some(3), "{}", said(&strict));
}

#[test]
fn a_row_that_the_model_does_not_take_fails_alone() {
    let (close, without) = scores("onnx_linear_row_missing", &[], &[]);
    assert_eq!((close, without), (3, vec![4]));
    let artifact = TempDir::new().unwrap();
    compile("onnx_linear_row_missing", &artifact, &[]);
    predict("onnx_linear_row_missing", &artifact, &[]);
    let failed = artifact.path().join("scores.csv.failed.csv");
    let listed = std::fs::read_to_string(failed).unwrap();
    assert!(listed.starts_with("row,job,reason\n4,,"), "{listed}");
    assert!(listed.contains("column") && listed.contains("a"), "{listed}");
}

#[test]
fn what_libraries_and_converters_write_is_read() {
    for case in
        ["xgb_gblinear_nan", "onnx_double_logreg", "onnx_zipmap_cols", "lgb_no_end_of_trees"]
    {
        all_scores(case, &[]);
    }
    // A target with few very large values.
    all_scores("xgb_skewed", &[]);
}

#[test]
fn refusals_say_the_cause_and_a_way_out() {
    let artifact = TempDir::new().unwrap();
    for (case, cause, way_out) in [
        ("onnx_forest_nan", "does not convert it", "from Python"),
        ("onnx_big_hist_double", "thresholds in float32", "from Python"),
        ("xgb_zero_trees", "gives every row the same answer", "nothing to encrypt"),
        ("onnx_adaboost", "AdaBoostClassifier of scikit-learn", "gradient boosting"),
        ("onnx_impute_scale_logreg", "SimpleImputer of scikit-learn", "where the rows are made"),
    ] {
        let refused = compile(case, &artifact, &[]);
        assert_eq!(refused.status.code(), Some(1), "{case}");
        let said = said(&refused);
        assert!(said.contains(cause) && said.contains(way_out), "{case}: {said}");
    }
    for name in ["half.model", "brace.model"] {
        let path = file("old_binary", name);
        let refused = run(&["compile", &path, "-o", &text(artifact.path()), "--bins", "used"]);
        assert!(said(&refused).contains("XGBoost's old binary format"), "{name}");
    }
}
