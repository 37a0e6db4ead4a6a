//! What a trained model answers to a row in the clear: the plain meaning against which readers,
//! programs and rounding are checked.
//!
//! Models must be valid ([`TrainedModel::validate`]) and rows have one value for each feature;
//! everything here panics otherwise.

use crate::trained::{Body, Ensemble, Feature, Linear, Link, TrainedModel, Tree, TreeNode};

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

impl Link {
    /// Scores of raw outputs.
    pub fn apply(&self, raw: &[f64]) -> Vec<f64> {
        let each = |score: &dyn Fn(f64) -> f64| raw.iter().map(|&x| score(x)).collect();
        match *self {
            Link::Identity => raw.to_vec(),
            Link::Complement => vec![1.0 - raw[0], raw[0]],
            Link::Sigmoid { scale } => vec![sigmoid(-scale * raw[0]), sigmoid(scale * raw[0])],
            Link::Logistic => vec![sigmoid(raw[0])],
            Link::Softmax => softmax(raw),
            Link::OneVsAll { scale, normalised } => {
                let scores: Vec<f64> = each(&|x| sigmoid(scale * x));
                let sum: f64 = scores.iter().sum();
                if normalised { scores.iter().map(|score| score / sum).collect() } else { scores }
            }
            Link::Exp => each(&f64::exp),
            Link::Softplus => each(&|x| x.max(0.0) + (-x.abs()).exp().ln_1p()),
            Link::SignedSquare => each(&|x| x * x.abs()),
        }
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
            Body::Linear(linear) => linear.raw(&self.features, row),
        }
    }

    /// Scores of a row.
    pub fn scores(&self, row: &[f64]) -> Vec<f64> {
        self.link.apply(&self.raw(row))
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn softmax(raw: &[f64]) -> Vec<f64> {
    let highest = raw.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = raw.iter().map(|x| (x - highest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|power| power / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_do_not_overflow() {
        for link in [Link::Softmax, Link::Softplus, Link::Sigmoid { scale: 1.0 }] {
            for raw in [[-1000.0, 0.0], [1000.0, 0.0]] {
                assert!(link.apply(&raw).iter().all(|score| score.is_finite()), "{link:?}");
            }
        }
        assert_eq!(Link::SignedSquare.apply(&[-3.0]), [-9.0]);
        assert_eq!(Link::Complement.apply(&[0.25]), [0.75, 0.25]);
    }
}
