//! Models of XGBoost and LightGBM against what the libraries themselves say of rows at, beside
//! and far from their thresholds.

use std::fs;
use std::path::Path;

use cipherscore_compiler::trained::{
    Body, CategoryNames, Missing, NamedCategories, TrainedModel, Unseen,
};
use cipherscore_compiler::{Format, Rounds, read, read_rounds};

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
    assert_eq!(
        refused("xgb_hinge.json"),
        "objective: binary:hinge, which answers labels and no scores (train with binary:logistic), is not \
         supported"
    );
    assert_eq!(
        refused("lgb_linear_tree.txt"),
        "tree 0, is_linear: a linear model in each leaf (train with linear_tree=false) is not supported"
    );
}

#[test]
fn categories_have_the_names_of_the_data_frame() {
    let categories = |file: &str| {
        let features = model(&reference::models().join(file)).features;
        features.into_iter().map(|feature| feature.categories).collect::<Vec<_>>()
    };
    let letters = CategoryNames::Texts(["a", "b", "c", "d", "e", "f"].map(str::to_owned).into());
    let numbers = CategoryNames::Numbers((0..6).map(|code| f64::from(10 * code)).collect());
    for (file, names, unseen) in [
        ("xgb_frame/model.json", &letters, Unseen::Refused),
        ("lgb_frame/model.txt", &letters, Unseen::Missing),
        ("refused/xgb_category_numbers.json", &numbers, Unseen::Refused),
        ("refused/lgb_category_numbers.txt", &numbers, Unseen::Missing),
    ] {
        let expected = NamedCategories { names: names.clone(), unseen };
        assert_eq!(categories(file), [None, Some(expected)], "{file}");
    }
    assert_eq!(categories("xgb_categorical/model.json"), [None, None, None]);
}

#[test]
fn rounds_are_chosen() {
    let path = reference::models().join("xgb_early_stopping/model.json");
    let bytes = fs::read(path).unwrap();
    let read = |rounds| read_rounds(&bytes, None, rounds);
    let trees = |rounds| match read(rounds).unwrap().model.body {
        Body::Ensemble(ensemble) => ensemble.trees.len(),
        Body::Linear(_) => 0,
    };
    let count = read(Rounds::Best).unwrap().rounds.unwrap();
    assert!(count.is_open() && count.best == Some(count.used) && count.used == 1);
    assert_eq!(trees(Rounds::All), trees(Rounds::Best) * count.all);
    assert_eq!(trees(Rounds::First(2)), 2 * trees(Rounds::Best));
    assert!(read(Rounds::First(0)).is_err() && read(Rounds::First(count.all + 1)).is_err());
    let forest = fs::read(reference::models().join("lgb_forest/model.txt")).unwrap();
    let all = read_rounds(&forest, None, Rounds::All).unwrap();
    let first = read_rounds(&forest, None, Rounds::First(1)).unwrap();
    assert!(!all.rounds.unwrap().is_open() && all.rounds.unwrap().all > 1);
    // A forest averages over its rounds, and one round is itself.
    let row = vec![0.5; all.model.features.len()];
    assert!(first.model.raw(&row).iter().all(|raw| raw.is_finite()));
}

#[test]
fn missing_values_are_left_out_of_a_linear_sum() {
    let model = model(&reference::models().join("xgb_linear/model.json"));
    assert_eq!(model.missing, Missing::Zero);
    let (mut missing, mut zero) = (vec![0.5; 3], vec![0.5; 3]);
    (missing[1], zero[1]) = (f64::NAN, 0.0);
    assert_eq!(model.features.len(), 3);
    assert_eq!(model.raw(&missing), model.raw(&zero));
}

#[test]
fn other_files_are_named() {
    let refused = |bytes: &[u8]| read(bytes, None).unwrap_err().to_string();
    assert!(refused(b"binf\0\0").contains("XGBoost's old binary format"));
    let mut old = vec![0; 136];
    old.extend([&15u64.to_le_bytes()[..], b"binary:logistic"].concat());
    old.extend([&6u64.to_le_bytes()[..], b"gbtree"].concat());
    assert!(refused(&old).contains("XGBoost's old binary format"));
    old[0] = b'{';
    assert!(refused(&old).contains("XGBoost's old binary format"));
    let dump = br#"{"tree_info": [{"tree_structure": {}}]}"#;
    assert!(refused(dump).contains("save_model(\"model.txt\")"));
    let catboost = br#"{ "features_info": {}, "oblivious_trees": []}"#;
    assert!(refused(catboost).contains("format=\"onnx\""));
    assert!(refused(b"\x80\x04\x95").contains("a pickle"));
    assert!(refused(b"").contains("neither"));
    assert!(refused(b"{\"tree_info\": []}").contains("missing field `learner`"));
    assert!(read(b"{}", Some(Format::Lightgbm)).is_err());
}
