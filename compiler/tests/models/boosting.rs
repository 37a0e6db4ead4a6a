//! Models of XGBoost and LightGBM against what the libraries themselves say of rows at, beside
//! and far from their thresholds.

use std::fs;
use std::path::Path;

use cipherscore_compiler::trained::TrainedModel;
use cipherscore_compiler::{Format, read};

use crate::reference;

fn model(path: &Path) -> TrainedModel {
    read(&fs::read(path).unwrap(), None).unwrap_or_else(|error| panic!("{path:?}: {error}"))
}

/// Same leaf of every tree, and scores that differ by less than `relative`, or `absolute` around
/// zero.
fn agrees(file: &str, case: &Path, relative: f64, absolute: f64) {
    let model = model(&case.join(file));
    let (names, rows) = reference::rows(case);
    let features: Vec<_> = model.features.iter().map(|feature| feature.name.as_str()).collect();
    assert_eq!(features, names, "{case:?}");
    let leaves = reference::answers(case, "leaves.csv");
    let scores = reference::answers(case, "scores.csv");
    assert_eq!((rows.len(), rows.len()), (leaves.len(), scores.len()));
    for (position, row) in rows.iter().enumerate() {
        let place = format!("{case:?}, row {position}: {row:?}");
        #[expect(clippy::cast_precision_loss)]
        let reached: Vec<f64> =
            reference::leaf_ranks(&model, row).into_iter().map(|leaf| leaf as f64).collect();
        // A line without fields has one that is empty.
        let expected: Vec<_> =
            leaves[position].iter().copied().filter(|leaf| !leaf.is_nan()).collect();
        assert!(!reached.is_empty() || case.ends_with("xgb_linear"), "{place}");
        assert_eq!(reached, expected, "{place}");
        let found = model.scores(row);
        assert_eq!(found.len(), scores[position].len(), "{place}");
        for (found, expected) in found.iter().zip(&scores[position]) {
            let error = (found - expected).abs();
            assert!(error <= relative * expected.abs() + absolute, "{place}: {found} {expected}");
        }
    }
}

#[test]
fn xgboost_agrees() {
    let cases = reference::cases("xgb");
    assert!(cases.len() >= 37);
    for (_, case) in cases {
        agrees("model.json", &case, 1e-6, 1e-7);
    }
}

#[test]
fn lightgbm_agrees() {
    let cases = reference::cases("lgb");
    assert!(cases.len() >= 27);
    for (_, case) in cases {
        agrees("model.txt", &case, 1e-12, 1e-15);
    }
}

#[test]
fn both_formats_of_xgboost_read_equal() {
    let mut compared = 0;
    for (name, case) in reference::cases("xgb") {
        let binary = case.join("model.ubj");
        if binary.exists() {
            assert_eq!(model(&binary), model(&case.join("model.json")), "{name}");
            compared += 1;
        }
    }
    assert!(compared >= 8);
}

/// XGBoost before 1.3 writes flags as `true` and `false`, and knows no categories.
#[test]
fn flags_of_older_versions_read_equal() {
    let case = reference::models().join("xgb_binary/model.json");
    let text = fs::read_to_string(&case).unwrap();
    let (start, end) = (r#""default_left":["#, ']');
    let mut parts = text.split(start);
    let mut rewritten = parts.next().unwrap().to_owned();
    for part in parts {
        let (flags, rest) = part.split_once(end).unwrap();
        let flags = flags.replace('1', "true").replace('0', "false");
        rewritten += &format!("{start}{flags}{end}{rest}");
    }
    let rewritten = rewritten.replace(r#""split_type""#, r#""unknown""#);
    assert_ne!(rewritten, text);
    assert_eq!(read(rewritten.as_bytes(), None).unwrap(), model(&case));
}

#[test]
fn what_is_not_supported_is_named() {
    let refused = |file: &str| {
        let bytes = fs::read(reference::models().join("refused").join(file)).unwrap();
        read(&bytes, None).unwrap_err().to_string()
    };
    let numbers =
        "categories that are numbers other than their positions 0, 1, .. is not supported";
    assert_eq!(refused("xgb_hinge.json"), "objective: binary:hinge is not supported");
    assert_eq!(refused("xgb_category_numbers.json"), format!("feature 1: {numbers}"));
    assert_eq!(refused("lgb_category_numbers.txt"), format!("pandas_categorical 0: {numbers}"));
    assert_eq!(
        refused("lgb_linear_tree.txt"),
        "tree 0, is_linear: a linear model in each leaf is not supported"
    );
}

#[test]
fn other_files_are_named() {
    let refused = |bytes: &[u8]| read(bytes, None).unwrap_err().to_string();
    assert!(refused(b"binf\0\0").contains("XGBoost's old binary format"));
    assert!(refused(b"\x80\x04\x95").contains("a pickle"));
    assert!(refused(b"").contains("neither"));
    assert!(refused(b"{\"tree_info\": []}").contains("missing field `learner`"));
    assert!(read(b"{}", Some(Format::Lightgbm)).is_err());
}
