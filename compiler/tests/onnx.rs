//! ONNX files as converters write them, against what the libraries themselves answer; and files
//! that are refused or broken.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cipherscore_compiler::trained::{Link, ScoreKind, TrainedModel};
use cipherscore_compiler::{Format, ReadError, read};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/models/onnx")
}

fn bytes(name: &str) -> Vec<u8> {
    let path = folder().join(format!("{name}.onnx"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn model(name: &str) -> TrainedModel {
    read(&bytes(name), None).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Rows of numbers.
fn table(name: &str) -> Vec<Vec<f64>> {
    let text = std::fs::read_to_string(folder().join(format!("{name}.csv"))).unwrap();
    text.lines().map(|line| line.split(',').map(|x| x.parse().unwrap()).collect()).collect()
}

/// Names of the models, and how close scores have to be.
fn manifest() -> Vec<(String, f64)> {
    let text = std::fs::read_to_string(folder().join("manifest.csv")).unwrap();
    let entry = |line: &str| {
        let (name, tolerance) = line.split_once(',').unwrap();
        (name.to_owned(), tolerance.parse().unwrap())
    };
    text.lines().map(entry).collect()
}

#[test]
fn scores_are_those_of_the_library() {
    let manifest = manifest();
    assert!(manifest.len() > 40);
    for (name, tolerance) in manifest {
        let model = model(&name);
        assert_eq!(model.validate(), Ok(()), "{name}");
        let rows = table(&format!("{name}.rows"));
        let expected = table(&format!("{name}.scores"));
        assert_eq!(rows.len(), expected.len(), "{name}");
        for (position, (row, expected)) in rows.iter().zip(expected).enumerate() {
            let scores = model.scores(row);
            assert_eq!(scores.len(), expected.len(), "{name}");
            for (score, expected) in scores.iter().zip(&expected) {
                let bound = tolerance * expected.abs().max(1.0);
                let close = (score - expected).abs() <= bound;
                assert!(close, "{name}, row {position}: {score} and {expected}");
            }
        }
    }
}

/// Libraries number leaves in their own ways: which rows share a leaf is what counts.
#[test]
fn rows_share_leaves_as_in_the_library() {
    let mut compared = 0;
    for (name, _) in manifest() {
        if !folder().join(format!("{name}.leaves.csv")).exists() {
            continue;
        }
        let model = model(&name);
        let rows = table(&format!("{name}.rows"));
        let expected = table(&format!("{name}.leaves"));
        assert_eq!(rows.len(), expected.len(), "{name}");
        let trees = expected[0].len();
        let mut ours: Vec<BTreeMap<usize, f64>> = vec![BTreeMap::new(); trees];
        let mut theirs: Vec<BTreeMap<u64, usize>> = vec![BTreeMap::new(); trees];
        for (row, expected) in rows.iter().zip(expected) {
            let leaves = model.leaves(row);
            assert_eq!(leaves.len(), trees, "{name}");
            for (tree, (leaf, expected)) in leaves.into_iter().zip(expected).enumerate() {
                let first = *ours[tree].entry(leaf).or_insert(expected);
                let first_leaf = *theirs[tree].entry(expected.to_bits()).or_insert(leaf);
                assert_eq!((first, first_leaf), (expected, leaf), "{name}, tree {tree}");
                compared += 1;
            }
        }
    }
    assert!(compared > 5000, "{compared}");
}

/// A file may put a tree's nodes in the order of the library, and then leaves have its numbers.
#[test]
fn nodes_keep_the_order_of_the_file() {
    for name in ["tree_two", "forest_three", "extra_real"] {
        let model = model(name);
        for (row, expected) in
            table(&format!("{name}.rows")).iter().zip(table(&format!("{name}.leaves")))
        {
            let leaves: Vec<f64> = model.leaves(row).into_iter().map(|leaf| leaf as f64).collect();
            assert_eq!(leaves, expected, "{name}");
        }
    }
}

#[test]
fn links_classes_and_names_are_those_of_the_file() {
    let link = |name: &str| model(name).link;
    assert_eq!(link("forest_two"), Link::Complement);
    assert_eq!(link("forest_three"), Link::Identity);
    for name in ["gradient_two", "xgboost_two", "lightgbm_two", "logistic_two", "sgd_two"] {
        assert_eq!(link(name), Link::Sigmoid { scale: 1.0 }, "{name}");
    }
    for name in ["gradient_three", "logistic_three", "histogram_three"] {
        assert_eq!(link(name), Link::Softmax, "{name}");
    }
    assert_eq!(link("logistic_one_vs_rest"), Link::OneVsAll { scale: 1.0, normalised: true });
    for name in ["poisson", "xgboost_poisson", "lightgbm_poisson"] {
        assert_eq!(link(name), Link::Exp, "{name}");
    }
    let text = model("tree_three_text");
    assert_eq!(text.classes, ["high", "low", "middle"]);
    assert_eq!(text.score_kind, ScoreKind::Probabilities);
    assert_eq!(text.class_name, "TreeEnsembleClassifier");
    assert_eq!(text.features[4].name, "f4");
    assert!(text.features[4].single_precision);
    for name in ["logistic_one_vs_rest", "sgd_two"] {
        assert_eq!(model(name).score_kind, ScoreKind::Probabilities, "{name}");
        assert_eq!(model(name).classes[..2], ["0", "1"], "{name}");
    }
    assert_eq!(model("linear").score_kind, ScoreKind::Predictions);
    assert_eq!(model("svc_two").score_kind, ScoreKind::Predictions);
    assert!(!model("histogram_double").features[0].single_precision);
    let names = |name: &str| -> Vec<String> {
        model(name).features.into_iter().map(|feature| feature.name).collect()
    };
    assert_eq!(names("dataframe"), ["age", "income", "debt", "months", "score"]);
    assert_eq!(names("modes"), ["a", "b", "c", "d", "e"]);
}

#[test]
fn what_is_not_supported_is_named() {
    for (name, wanted) in [
        ("adaboost", "operator ArgMax"),
        ("clip", "operator Clip"),
        ("sgd_three", "arithmetic after a link"),
        ("forest_of_two_labels", "the labels"),
        ("regressor_min", "aggregate_function MIN"),
        ("regressor_max", "aggregate_function MAX"),
        ("regressor_probit", "post_transform PROBIT"),
        ("regressor_logistic", "post_transform LOGISTIC of one target"),
        ("classifier_second", "two classes with weights of the second alone"),
        ("classifier_softmax_zero", "post_transform SOFTMAX_ZERO"),
        ("classifier_two_bases", "two base values"),
        ("infinite_threshold", "infinity"),
        ("normalizer", "norm L2"),
    ] {
        match read(&bytes(&format!("refused/{name}")), None) {
            Err(error @ (ReadError::Unsupported { .. } | ReadError::InEstimator { .. })) => {
                let message = error.to_string();
                assert!(message.contains(wanted) && message.contains("node "), "{name}: {message}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}

/// Files that decode and contradict themselves: cycles, shared nodes, lists of different lengths,
/// counts and positions of nothing.
#[test]
fn contradictions_are_errors() {
    let mut count = 0;
    for entry in std::fs::read_dir(folder().join("broken")).unwrap() {
        let path = entry.unwrap().path();
        let read = read(&std::fs::read(&path).unwrap(), Some(Format::Onnx));
        assert!(read.is_err(), "{}: {read:?}", path.display());
        count += 1;
    }
    assert!(count > 20, "{count}");
    for (name, wanted) in [
        ("itself_as_child", "entry 0 of nodes: two ways lead to it"),
        ("circle_of_operators", "nothing computes its input \"a\" before it"),
        ("many_targets", "1152921504606846976 targets or classes"),
        ("huge_shape", "elements of shape"),
        ("five_few_members", "fewer membership_values"),
        ("doubled_columns", "more than 65536 columns"),
    ] {
        let error = read(&bytes(&format!("broken/{name}")), None).unwrap_err().to_string();
        assert!(error.contains(wanted), "{name}: {error}");
    }
}

/// Whatever a file says, reading it ends, and what is read can be computed with.
fn read_whatever(bytes: &[u8]) {
    if let Ok(model) = read(bytes, Some(Format::Onnx)) {
        let row = vec![0.5; model.features.len()];
        assert_eq!(model.scores(&row).len(), model.score_count());
    }
}

const ATTACKED: [&str; 7] = [
    "tree_three_text",
    "forest_two",
    "logistic_one_vs_rest",
    "dataframe",
    "modes",
    "version_five",
    "lightgbm_three",
];

#[test]
fn truncated_files_do_not_panic() {
    for name in ATTACKED {
        let bytes = bytes(name);
        for end in 0..bytes.len() {
            read_whatever(&bytes[..end]);
        }
    }
}

#[test]
fn changed_files_do_not_panic() {
    // A linear congruential generator (Knuth), so that failures come again.
    let mut state = 1u64;
    let mut next = |below: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        usize::try_from(state >> 33).unwrap() % below
    };
    for name in ATTACKED {
        let original = bytes(name);
        for _ in 0..3000 {
            let mut bytes = original.clone();
            for _ in 0..=next(3) {
                let at = next(bytes.len());
                match next(4) {
                    0 => bytes[at] = u8::MAX,
                    1 => bytes[at] ^= 1 << next(8),
                    2 => drop(bytes.remove(at)),
                    _ => bytes.insert(at, u8::try_from(next(256)).unwrap()),
                }
            }
            read_whatever(&bytes);
        }
    }
}
