//! What a trained model must be before anything is computed from it.

use thiserror::Error;

use crate::trained::{
    Body, Ensemble, Feature, Linear, Link, ScoreKind, TrainedModel, Tree, TreeNode, ValueSet,
};

/// A trained model that contradicts itself.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{place}: {reason}")]
pub struct InvalidModel {
    /// Tree and node, or output.
    pub place: String,
    /// What does not hold there.
    pub reason: String,
}

impl InvalidModel {
    fn new(place: impl Into<String>, reason: impl Into<String>) -> Self {
        InvalidModel { place: place.into(), reason: reason.into() }
    }
}

impl TrainedModel {
    /// Checks all that [`crate::trained`] says about its fields, so that whoever goes on from
    /// here can index without asking.
    ///
    /// # Errors
    /// The first place that does not hold.
    pub fn validate(&self) -> Result<(), InvalidModel> {
        if self.features.is_empty() {
            return Err(InvalidModel::new("features", "there are none"));
        }
        match &self.body {
            Body::Ensemble(ensemble) => validate_ensemble(ensemble, &self.features)?,
            Body::Linear(linear) => validate_linear(linear, self.features.len())?,
        }
        self.validate_scores()
    }

    /// Number of raw outputs.
    pub fn outputs(&self) -> usize {
        match &self.body {
            Body::Ensemble(ensemble) => ensemble.base.len(),
            Body::Linear(linear) => linear.intercepts.len(),
        }
    }

    /// Number of scores of a row.
    pub fn score_count(&self) -> usize {
        match self.link {
            Link::Complement | Link::Sigmoid { .. } => 2,
            _ => self.outputs(),
        }
    }

    fn validate_scores(&self) -> Result<(), InvalidModel> {
        let outputs = self.outputs();
        let (fits, scale) = match self.link {
            Link::Complement | Link::Logistic => (outputs == 1, 1.0),
            Link::Sigmoid { scale } => (outputs == 1, scale),
            Link::OneVsAll { scale, .. } => (outputs >= 1, scale),
            _ => (outputs >= 1, 1.0),
        };
        if !fits || !scale.is_finite() {
            let reason = format!("{:?} of {outputs} raw outputs", self.link);
            return Err(InvalidModel::new("scores", reason));
        }
        let named = self.classes.len();
        let scores = self.score_count();
        let expected = if self.score_kind == ScoreKind::Probabilities { scores } else { 0 };
        if named != 0 && named != expected {
            let reason = format!("{named} names of classes for {expected} probabilities");
            return Err(InvalidModel::new("classes", reason));
        }
        Ok(())
    }
}

fn validate_linear(linear: &Linear, features: usize) -> Result<(), InvalidModel> {
    if linear.weights.len() != linear.intercepts.len() {
        let reason = format!("{} for {} weights", linear.intercepts.len(), linear.weights.len());
        return Err(InvalidModel::new("intercepts", reason));
    }
    finite("intercepts", &linear.intercepts)?;
    for (output, weights) in linear.weights.iter().enumerate() {
        let place = format!("output {output}");
        if weights.len() != features {
            let reason = format!("{} weights for {features} features", weights.len());
            return Err(InvalidModel::new(place, reason));
        }
        finite(&place, weights)?;
    }
    Ok(())
}

fn validate_ensemble(ensemble: &Ensemble, features: &[Feature]) -> Result<(), InvalidModel> {
    finite("base", &ensemble.base)?;
    for (position, tree) in ensemble.trees.iter().enumerate() {
        validate_tree(tree, features, ensemble.base.len()).map_err(|error| InvalidModel {
            place: format!("tree {position}, {}", error.place),
            ..error
        })?;
    }
    Ok(())
}

fn validate_tree(tree: &Tree, features: &[Feature], outputs: usize) -> Result<(), InvalidModel> {
    if tree.nodes.is_empty() {
        return Err(InvalidModel::new("root", "is missing"));
    }
    let mut has_parent = vec![false; tree.nodes.len()];
    for (position, node) in tree.nodes.iter().enumerate() {
        let place = format!("node {position}");
        match node {
            TreeNode::Leaf(values) => validate_leaf(&place, values, outputs)?,
            TreeNode::Split { feature, values, inside, outside, .. } => {
                let Some(feature) = features.get(*feature as usize) else {
                    return Err(InvalidModel::new(place, format!("there is no feature {feature}")));
                };
                validate_set(&place, values, feature)?;
                for child in [*inside as usize, *outside as usize] {
                    let comes_after = child > position && child < tree.nodes.len();
                    if !comes_after || std::mem::replace(&mut has_parent[child], true) {
                        let reason = format!("{child} cannot be its child");
                        return Err(InvalidModel::new(place, reason));
                    }
                }
            }
        }
    }
    match has_parent.iter().skip(1).position(|has_parent| !has_parent) {
        Some(orphan) => Err(InvalidModel::new(format!("node {}", orphan + 1), "has no parent")),
        None => Ok(()),
    }
}

fn validate_leaf(place: &str, values: &[(u32, f64)], outputs: usize) -> Result<(), InvalidModel> {
    for &(output, value) in values {
        if output as usize >= outputs {
            return Err(InvalidModel::new(place, format!("there is no output {output}")));
        }
        finite(place, &[value])?;
    }
    let mut named: Vec<u32> = values.iter().map(|&(output, _)| output).collect();
    named.sort_unstable();
    match named.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(InvalidModel::new(place, format!("adds to output {} twice", pair[0]))),
        None => Ok(()),
    }
}

fn validate_set(place: &str, set: &ValueSet, feature: &Feature) -> Result<(), InvalidModel> {
    let mut end = None;
    for &(low, high) in &set.0 {
        // A bound that is NaN fails the first comparison.
        let is_interval = low < high && end.is_none_or(|end| end < low);
        if !is_interval {
            return Err(InvalidModel::new(place, "intervals are not ascending"));
        }
        if feature.rounded(low) != low || feature.rounded(high) != high {
            return Err(InvalidModel::new(place, "a bound is not of the feature's precision"));
        }
        end = Some(high);
    }
    Ok(())
}

fn finite(place: &str, values: &[f64]) -> Result<(), InvalidModel> {
    match values.iter().find(|value| !value.is_finite()) {
        Some(value) => Err(InvalidModel::new(place, format!("{value} is not a finite number"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trained::Missing;

    fn stump() -> TrainedModel {
        let values = ValueSet(vec![(f64::NEG_INFINITY, 1.0)]);
        let root =
            TreeNode::Split { feature: 0, values, missing_inside: true, inside: 1, outside: 2 };
        let nodes = vec![root, TreeNode::Leaf(vec![(0, 1.0)]), TreeNode::Leaf(vec![(0, 2.0)])];
        TrainedModel {
            class_name: "stump".into(),
            features: vec![Feature::new("f0", true)],
            body: Body::Ensemble(Ensemble { base: vec![0.0], trees: vec![Tree { nodes }] }),
            link: Link::Identity,
            score_kind: ScoreKind::Predictions,
            classes: Vec::new(),
            missing: Missing::OfInputs,
        }
    }

    fn refused(change: impl FnOnce(&mut Vec<TreeNode>)) -> String {
        let mut model = stump();
        if let Body::Ensemble(ensemble) = &mut model.body {
            change(&mut ensemble.trees[0].nodes);
        }
        model.validate().unwrap_err().to_string()
    }

    fn split(intervals: &[(f64, f64)], feature: u32, inside: u32, outside: u32) -> TreeNode {
        let values = ValueSet(intervals.to_vec());
        TreeNode::Split { feature, values, missing_inside: false, inside, outside }
    }

    #[test]
    fn a_valid_model_passes() {
        assert_eq!(stump().validate(), Ok(()));
    }

    #[test]
    fn every_reference_is_checked() {
        assert_eq!(
            refused(|n| n[0] = split(&[], 1, 1, 2)),
            "tree 0, node 0: there is no feature 1"
        );
        assert_eq!(
            refused(|n| n[0] = split(&[], 0, 0, 2)),
            "tree 0, node 0: 0 cannot be its child"
        );
        assert_eq!(
            refused(|n| n[0] = split(&[], 0, 1, 1)),
            "tree 0, node 0: 1 cannot be its child"
        );
        assert_eq!(
            refused(|n| n[0] = split(&[], 0, 1, 3)),
            "tree 0, node 0: 3 cannot be its child"
        );
        assert_eq!(refused(|n| n.push(n[1].clone())), "tree 0, node 3: has no parent");
        assert_eq!(refused(Vec::clear), "tree 0, root: is missing");
        let twice = TreeNode::Leaf(vec![(0, 1.0), (0, 1.0)]);
        assert_eq!(refused(|n| n[1] = twice), "tree 0, node 1: adds to output 0 twice");
        let elsewhere = TreeNode::Leaf(vec![(1, 1.0)]);
        assert_eq!(refused(|n| n[2] = elsewhere), "tree 0, node 2: there is no output 1");
    }

    #[test]
    fn numbers_and_sets_are_checked() {
        let infinite = TreeNode::Leaf(vec![(0, f64::INFINITY)]);
        assert_eq!(refused(|n| n[1] = infinite), "tree 0, node 1: inf is not a finite number");
        for intervals in [&[(1.0, 1.0)][..], &[(0.0, 1.0), (1.0, 2.0)], &[(f64::NAN, 1.0)]] {
            let error = refused(|n| n[0] = split(intervals, 0, 1, 2));
            assert_eq!(error, "tree 0, node 0: intervals are not ascending");
        }
        let error = refused(|n| n[0] = split(&[(0.1, 1.0)], 0, 1, 2));
        assert_eq!(error, "tree 0, node 0: a bound is not of the feature's precision");
    }

    #[test]
    fn scores_fit_the_link() {
        let mut model = stump();
        model.classes = vec!["a".into(), "b".into()];
        assert_eq!(
            model.validate().unwrap_err().to_string(),
            "classes: 2 names of classes for 0 probabilities"
        );
        model.link = Link::Sigmoid { scale: 1.0 };
        model.score_kind = ScoreKind::Probabilities;
        assert_eq!(model.validate(), Ok(()));
        model.body = Body::Linear(Linear { intercepts: vec![0.0; 2], weights: vec![vec![1.0]; 2] });
        assert!(model.validate().is_err());
    }
}
