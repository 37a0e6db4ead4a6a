//! Trained models that no file has: what they cost depends on their shape alone.

use cipherscore_compiler::trained::{
    Body, Ensemble, Linear, Link, ScoreKind, TrainedModel, Tree, TreeNode, ValueSet,
};

use super::rows::Training;
use crate::numbers::Numbers;

/// Thresholds of a feature, as many as a trainer with few bins has.
const QUANTILES: usize = 20;

/// A logistic regression in which all features weigh about the same.
pub(super) fn linear(like: &TrainedModel, training: &Training) -> TrainedModel {
    let weights = training.ranges().iter().enumerate().map(|(feature, (low, high))| {
        let sign = if feature % 2 == 0 { 1.0 } else { -1.0 };
        sign / (high - low)
    });
    let linear = Linear { intercepts: vec![0.25], weights: vec![weights.collect()] };
    TrainedModel {
        class_name: "LogisticRegression".into(),
        body: Body::Linear(linear),
        link: Link::Sigmoid { scale: 1.0 },
        score_kind: ScoreKind::Probabilities,
        ..like.clone()
    }
}

/// Full trees: every path has as many splits as the tree is deep.
pub(super) fn full_trees(
    like: &TrainedModel,
    training: &Training,
    trees: usize,
    depth: u32,
) -> TrainedModel {
    let mut numbers = Numbers::new(1);
    let trees = (0..trees).map(|_| full_tree(training, depth, &mut numbers)).collect();
    TrainedModel {
        class_name: "DecisionTreeRegressor".into(),
        body: Body::Ensemble(Ensemble { base: vec![0.0], trees }),
        link: Link::Identity,
        score_kind: ScoreKind::Predictions,
        classes: Vec::new(),
        ..like.clone()
    }
}

fn full_tree(training: &Training, depth: u32, numbers: &mut Numbers) -> Tree {
    let splits = (1u32 << depth) - 1;
    let features = training.rows.width();
    // Neighbours in a path differ: node 2 i + 1 or 2 i + 2 below node i, from a random feature on.
    let first = numbers.below(features);
    let split = |node: u32| {
        let feature = (first + node as usize) % features;
        let threshold = quantile(training, feature, numbers.below(QUANTILES) + 1);
        TreeNode::Split {
            feature: u32::try_from(feature).expect("few features"),
            values: ValueSet(vec![(f64::NEG_INFINITY, threshold)]),
            missing_inside: numbers.below(2) == 0,
            inside: 2 * node + 1,
            outside: 2 * node + 2,
        }
    };
    let mut nodes: Vec<_> = (0..splits).map(split).collect();
    nodes.extend((0..=splits).map(|_| TreeNode::Leaf(vec![(0, 2.0 * numbers.unit() - 1.0)])));
    Tree { nodes }
}

/// One of the thresholds of a feature, as it is in single precision.
fn quantile(training: &Training, feature: usize, index: usize) -> f64 {
    let mut values: Vec<_> = training.rows.rows().map(|row| row[feature]).collect();
    values.sort_by(f64::total_cmp);
    #[expect(clippy::cast_possible_truncation, reason = "rounding is what is wanted")]
    let threshold = values[index * values.len() / (QUANTILES + 1)] as f32;
    threshold.into()
}
