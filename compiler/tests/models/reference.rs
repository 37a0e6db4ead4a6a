//! Reference data of `testdata/models`.

use std::fs;
use std::path::{Path, PathBuf};

use cipherscore_compiler::trained::{Body, TrainedModel, Tree, TreeNode};

/// The folder of all cases.
pub(crate) fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/models")
}

/// Cases whose names begin so, by name.
pub(crate) fn cases(prefix: &str) -> Vec<(String, PathBuf)> {
    let mut cases: Vec<(String, PathBuf)> = fs::read_dir(models())
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), entry.path()))
        .filter(|(name, path)| name.starts_with(prefix) && path.is_dir())
        .collect();
    cases.sort();
    cases
}

/// Names of the columns, and rows; an empty field is NaN.
pub(crate) fn rows(case: &Path) -> (Vec<String>, Vec<Vec<f64>>) {
    let text = fs::read_to_string(case.join("rows.csv")).unwrap();
    let (header, rows) = text.split_once('\n').unwrap();
    (header.split(',').map(str::to_owned).collect(), table(rows))
}

/// Scores, or leaves of trees.
pub(crate) fn answers(case: &Path, file: &str) -> Vec<Vec<f64>> {
    table(&fs::read_to_string(case.join(file)).unwrap())
}

fn table(text: &str) -> Vec<Vec<f64>> {
    let number = |field: &str| if field.is_empty() { f64::NAN } else { field.parse().unwrap() };
    text.lines().map(|line| line.split(',').map(number).collect()).collect()
}

/// For each tree the leaf that a row reaches, counted from left to right.
pub(crate) fn leaf_ranks(model: &TrainedModel, row: &[f64]) -> Vec<usize> {
    let Body::Ensemble(ensemble) = &model.body else {
        return Vec::new();
    };
    let leaves = model.leaves(row);
    ensemble.trees.iter().zip(leaves).map(|(tree, leaf)| rank(tree, leaf)).collect()
}

fn rank(tree: &Tree, leaf: usize) -> usize {
    tree.nodes[..leaf].iter().filter(|node| matches!(node, TreeNode::Leaf(_))).count()
}
