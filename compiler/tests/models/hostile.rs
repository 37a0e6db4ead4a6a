//! Damaged and hostile models of XGBoost and LightGBM: an error or a valid model, no panic, and
//! no more memory than the file warrants.

use std::fs;
use std::path::PathBuf;

use cipherscore_compiler::{Format, ReadError, read};

use crate::random::Xorshift;
use crate::reference;

/// Of each file, so that all files together take seconds.
const TRUNCATIONS: usize = 150;
const MUTATIONS: usize = 400;

fn files() -> Vec<(PathBuf, Format, Vec<u8>)> {
    let cases = reference::cases("xgb").into_iter().chain(reference::cases("lgb"));
    let formats = [
        ("model.json", Format::XgboostJson),
        ("model.ubj", Format::XgboostUbjson),
        ("model.txt", Format::Lightgbm),
    ];
    let files = cases
        .flat_map(|(_, case)| formats.map(|(name, format)| (case.join(name), format)).into_iter());
    let files = files.filter(|(path, _)| path.exists());
    files.map(|(path, format)| (path.clone(), format, fs::read(path).unwrap())).collect()
}

/// A valid model answers every row, also a row of nothing.
fn survives(bytes: &[u8], format: Format) {
    for hint in [None, Some(format)] {
        if let Ok(model) = read(bytes, hint) {
            for value in [f64::NAN, 0.0, f64::INFINITY] {
                let scores = model.scores(&vec![value; model.features.len()]);
                assert_eq!(scores.len(), model.score_count());
            }
        }
    }
}

#[test]
fn truncated_models_are_refused() {
    for (path, format, bytes) in files() {
        let end_of_trees = b"end of trees";
        let needed = match format {
            Format::Lightgbm => {
                bytes.windows(end_of_trees.len()).position(|text| text == end_of_trees).unwrap()
            }
            _ => bytes.trim_ascii_end().len(),
        };
        for length in (0..needed).step_by((needed / TRUNCATIONS).max(1)).chain([needed - 1]) {
            for hint in [None, Some(format)] {
                assert!(read(&bytes[..length], hint).is_err(), "{path:?}, {length} bytes");
            }
        }
    }
}

#[test]
fn mutated_models_are_read_or_refused() {
    let mut random = Xorshift(0x5eed);
    for (_, format, bytes) in files() {
        for _ in 0..MUTATIONS {
            let mut mutated = bytes.clone();
            for _ in 0..=random.below(3) {
                let position = random.below(mutated.len());
                match random.below(4) {
                    0 => mutated[position] ^= 1 << random.below(8),
                    1 => mutated[position] = b"0123456789-.,eE[]{}\" =\n"[random.below(23)],
                    2 => drop(mutated.remove(position)),
                    _ => {
                        let from = random.below(mutated.len());
                        let length = random.below(40).min(mutated.len() - from.max(position));
                        mutated.copy_within(from..from + length, position);
                    }
                }
            }
            survives(&mutated, format);
        }
    }
}

/// What is said of the case's model when one text is replaced by another.
fn refused(file: &str, from: &str, to: &str) -> String {
    let text = fs::read_to_string(reference::models().join(file)).unwrap();
    assert!(text.contains(from), "{file} has no {from}");
    read(text.replacen(from, to, 1).as_bytes(), None).unwrap_err().to_string()
}

#[test]
fn claims_of_xgboost_are_not_believed() {
    let binary = |from, to| refused("xgb_binary/model.json", from, to);
    assert_eq!(
        binary(r#""num_feature":"3","num_target""#, r#""num_feature":"4000000000","num_target""#),
        "learner_model_param: 1 outputs of 4000000000 features"
    );
    let negative = binary(r#""num_class":"0""#, r#""num_class":"-1""#);
    assert!(negative.contains("a number in quotes"), "{negative}");
    assert_eq!(
        binary(r#""left_children":[1,"#, r#""left_children":[0,"#),
        "tree 0, nodes: children that do not form a tree"
    );
    let best = |value| format!(r#""best_iteration":"{value}""#);
    assert_eq!(
        refused("xgb_early_stopping/model.json", &best(0), &best(7)),
        "best_iteration: \"7\" of 6 trees"
    );
    let categories = |from, to| refused("xgb_categorical/model.json", from, to);
    assert_eq!(
        categories(r#""categories_sizes":["#, r#""categories_sizes":[9,"#),
        "tree 0, categories: arrays of different lengths"
    );
    assert_eq!(
        categories(r#""categories_segments":[0"#, r#""categories_segments":[1"#),
        "tree 0, categories_segments: is not without gaps"
    );
    let vectors = refused("xgb_vectors/model.json", r#""leaf_weights":["#, r#""leaf_weights":[1,"#);
    assert!(vectors.starts_with("tree 0, leaf_weights: "), "{vectors}");
    let old =
        refused("xgb1_categorical/model.json", r#""version":[1,7,6]"#, r#""version":[1,6,2]"#);
    assert!(old.ends_with("categorical splits of XGBoost before 1.7 is not supported"), "{old}");
    let sorted =
        refused("xgb_quantiles/model.json", r#""version":[3,2,0]"#, r#""version":[3,4,0]"#);
    assert!(sorted.contains("several quantiles"), "{sorted}");
}

#[test]
fn claims_of_lightgbm_are_not_believed() {
    let cases = [
        ("num_leaves=5", "num_leaves=4000000000", "tree 0, leaf_value: "),
        ("num_leaves=5", "num_leaves=0", "tree 0, num_leaves: there are none"),
        ("num_cat=", "num_cat=99999999999999999999", "tree 0, num_cat: "),
        ("num_class=1", "num_class=4000000000", "num_tree_per_iteration: 1 for 4000000000 classes"),
        ("max_feature_idx=2", "max_feature_idx=18446744073709551615", "feature_names: "),
        ("version=v4", "version=v9", "version: v9 is not supported"),
        ("cat_boundaries=0 ", "cat_boundaries=9 ", "tree 0, cat_boundaries: "),
        ("left_child=-1 3", "left_child=-1 1", "tree 0, nodes: children that do not form a tree"),
        (
            "objective=regression",
            "objective=other",
            "objective: other, whose scores are not known here",
        ),
    ];
    for (from, to, expected) in cases {
        let error = refused("lgb_categorical/model.txt", from, to);
        assert!(error.starts_with(expected), "{to}: {error}");
    }
}

#[test]
fn deep_nesting_ends() {
    let json = format!("{{\"learner\":{}", "[".repeat(1 << 20));
    assert!(matches!(read(json.as_bytes(), None), Err(ReadError::Malformed { .. })));
    let json = format!("{{\"other\":{}", "{\"a\":".repeat(1 << 20));
    assert!(matches!(read(json.as_bytes(), None), Err(ReadError::Malformed { .. })));
    let mut binary = b"{L\0\0\0\0\0\0\0\x05other".to_vec();
    binary.extend(vec![b'['; 1 << 20]);
    assert!(matches!(read(&binary, None), Err(ReadError::Malformed { .. })));
}
