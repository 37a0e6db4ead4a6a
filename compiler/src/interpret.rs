//! What a trained model answers to a row in the clear: the plain meaning against which readers,
//! programs and rounding are checked.
//!
//! Models must be valid ([`TrainedModel::validate`]) and rows have one value for each feature;
//! everything here panics otherwise.

use crate::trained::{Body, Ensemble, Feature, Linear, Missing, TrainedModel, Tree, TreeNode};

impl Feature {
    /// A value as the library compares it.
    pub fn rounded(&self, value: f64) -> f64 {
        // Rounds to nearest, beyond the range to infinity, as the libraries' own casts do.
        #[expect(clippy::cast_possible_truncation)]
        let single = value as f32;
        if self.single_precision { f64::from(single) } else { value }
    }
}

impl Tree {
    /// Position of the leaf that a row reaches.
    fn leaf(&self, features: &[Feature], row: &[f64]) -> usize {
        let mut position = 0;
        while let TreeNode::Split { feature, values, missing_inside, inside, outside } =
            &self.nodes[position]
        {
            let feature = *feature as usize;
            let value = features[feature].rounded(row[feature]);
            let is_inside = if value.is_nan() { *missing_inside } else { values.contains(value) };
            position = if is_inside { *inside } else { *outside } as usize;
        }
        position
    }
}

impl Ensemble {
    fn raw(&self, features: &[Feature], row: &[f64]) -> Vec<f64> {
        let mut sums = self.base.clone();
        for tree in &self.trees {
            if let TreeNode::Leaf(values) = &tree.nodes[tree.leaf(features, row)] {
                for &(output, value) in values {
                    sums[output as usize] += value;
                }
            }
        }
        sums
    }
}

impl Linear {
    fn raw(&self, features: &[Feature], row: &[f64]) -> Vec<f64> {
        let row: Vec<f64> =
            features.iter().zip(row).map(|(feature, &value)| feature.rounded(value)).collect();
        let dot = |weights: &Vec<f64>| weights.iter().zip(&row).map(|(w, x)| w * x).sum::<f64>();
        self.intercepts
            .iter()
            .zip(&self.weights)
            .map(|(base, weights)| base + dot(weights))
            .collect()
    }
}

impl TrainedModel {
    /// For each tree the position of the leaf that a row reaches; nothing for a linear model.
    pub fn leaves(&self, row: &[f64]) -> Vec<usize> {
        assert_eq!(row.len(), self.features.len(), "one value for each feature");
        match &self.body {
            Body::Ensemble(ensemble) => {
                ensemble.trees.iter().map(|tree| tree.leaf(&self.features, row)).collect()
            }
            Body::Linear(_) => Vec::new(),
        }
    }

    /// Raw outputs of a row.
    pub fn raw(&self, row: &[f64]) -> Vec<f64> {
        assert_eq!(row.len(), self.features.len(), "one value for each feature");
        match &self.body {
            Body::Ensemble(ensemble) => ensemble.raw(&self.features, row),
            Body::Linear(linear) if self.missing == Missing::Zero => {
                let present = |&value: &f64| if value.is_nan() { 0.0 } else { value };
                linear.raw(&self.features, &row.iter().map(present).collect::<Vec<_>>())
            }
            Body::Linear(linear) => linear.raw(&self.features, row),
        }
    }

    /// Scores of a row.
    pub fn scores(&self, row: &[f64]) -> Vec<f64> {
        self.link.apply(&self.raw(row))
    }
}
