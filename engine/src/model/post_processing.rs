//! From dequantised outputs to scores: the part of `predict_proba` and `predict` that Concrete
//! ML leaves to the client.

use super::{ModelError, ScoreKind};

/// Inverse of a generalised linear model's link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// The value itself.
    Identity,
    /// `exp`.
    Log,
}

/// What is done to the dequantised outputs of one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PostProcessing {
    /// Linear regressors: `link(x)`.
    Linear(Link),
    /// Linear classifiers: sigmoid of one output, softmax of several.
    LinearClassifier,
    /// `SGDClassifier`: sigmoid of each output, then normalised (one versus rest).
    OneVersusRest,
    /// Random forests and decision trees: the sum over trees is the score.
    TreeSum {
        /// Whether the sums are probabilities.
        classifier: bool,
    },
    /// Boosted classifiers: the sum over trees, then as for linear classifiers.
    BoostedClassifier,
    /// `XGBRegressor`: the sum over trees, plus XGBoost's base score of 0.5, which Concrete ML
    /// cuts off the circuit.
    BoostedRegressor,
}

/// Base score of XGBoost regressors, which Concrete ML assumes for all of them.
const XGB_BASE_SCORE: f64 = 0.5;

impl PostProcessing {
    /// How many outputs (classes or targets) an output of this shape has.
    pub(super) fn outputs(self, shape: &[usize]) -> Result<usize, ModelError> {
        let wrong = |family| Err(ModelError::Shape { shape: shape.to_vec(), family });
        match (self, shape) {
            (Self::Linear(_) | Self::LinearClassifier | Self::OneVersusRest, &[1, outputs]) => {
                Ok(outputs)
            }
            (Self::Linear(_) | Self::LinearClassifier | Self::OneVersusRest, _) => {
                wrong("a linear model: (1, outputs)")
            }
            (_, &[1, outputs, _trees]) => Ok(outputs),
            (_, _) => wrong("an ensemble of trees: (1, outputs, trees)"),
        }
    }

    pub(super) fn score_kind(self) -> ScoreKind {
        match self {
            Self::Linear(_) | Self::BoostedRegressor | Self::TreeSum { classifier: false } => {
                ScoreKind::Predictions
            }
            Self::LinearClassifier
            | Self::OneVersusRest
            | Self::BoostedClassifier
            | Self::TreeSum { classifier: true } => ScoreKind::Probabilities,
        }
    }

    /// Scores of one row; `values` holds `outputs` times as many values as there are trees.
    pub(super) fn apply(self, values: &[f64], outputs: usize) -> Vec<f64> {
        match self {
            Self::Linear(Link::Identity) => values.to_vec(),
            Self::Linear(Link::Log) => values.iter().map(|value| value.exp()).collect(),
            Self::LinearClassifier => probabilities(values),
            Self::OneVersusRest => one_versus_rest(values),
            Self::TreeSum { .. } => sum_trees(values, outputs),
            Self::BoostedClassifier => probabilities(&sum_trees(values, outputs)),
            Self::BoostedRegressor => {
                sum_trees(values, outputs).iter().map(|sum| sum + XGB_BASE_SCORE).collect()
            }
        }
    }
}

fn sum_trees(values: &[f64], outputs: usize) -> Vec<f64> {
    values.chunks_exact(values.len() / outputs).map(|trees| trees.iter().sum()).collect()
}

/// `exp(-log(1 + exp(-x)))`, without overflow on either side.
fn sigmoid(x: f64) -> f64 {
    let log_1_plus_exp = (-x).max(0.0) + (-x.abs()).exp().ln_1p();
    (-log_1_plus_exp).exp()
}

/// One output is a binary classifier's; two are taken as two sigmoids, as Concrete ML does.
fn probabilities(values: &[f64]) -> Vec<f64> {
    match values {
        [value] => two_classes(sigmoid(*value)),
        [_, _] => values.iter().copied().map(sigmoid).collect(),
        _ => softmax(values),
    }
}

/// Shifted by the largest value, so that no exponential overflows.
fn softmax(values: &[f64]) -> Vec<f64> {
    let largest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    normalise(values.iter().map(|value| (value - largest).exp()).collect())
}

fn one_versus_rest(values: &[f64]) -> Vec<f64> {
    match values {
        [value] => two_classes(sigmoid(*value)),
        _ => normalise(values.iter().copied().map(sigmoid).collect()),
    }
}

fn two_classes(probability: f64) -> Vec<f64> {
    vec![1.0 - probability, probability]
}

fn normalise(mut values: Vec<f64>) -> Vec<f64> {
    let sum: f64 = values.iter().sum();
    values.iter_mut().for_each(|value| *value /= sum);
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sigmoid_is_exact_at_its_ends() {
        assert_eq!(sigmoid(0.0), 0.5);
        assert_eq!(sigmoid(-1e4), 0.0);
        assert_eq!(sigmoid(1e4), 1.0);
        assert!((sigmoid(-40.0) - (-40f64).exp()).abs() < 1e-30);
    }

    #[test]
    fn trees_are_summed_for_each_output() {
        let values = [1.0, 2.0, 3.0, 10.0, 20.0, 30.0];
        let forest = PostProcessing::TreeSum { classifier: true };
        assert_eq!(forest.outputs(&[1, 2, 3]), Ok(2));
        assert_eq!(forest.apply(&values, 2), [6.0, 60.0]);
        assert_eq!(PostProcessing::BoostedRegressor.apply(&values, 1), [66.5]);
    }

    #[test]
    fn probabilities_sum_to_one() {
        for family in [PostProcessing::LinearClassifier, PostProcessing::OneVersusRest] {
            for values in [&[0.3][..], &[0.3, -2.0, 7.0]] {
                let sum: f64 = family.apply(values, values.len()).iter().sum();
                assert!((sum - 1.0).abs() < 1e-12, "{family:?} {values:?}");
            }
        }
    }

    #[test]
    fn large_values_do_not_overflow_a_softmax() {
        assert_eq!(PostProcessing::LinearClassifier.apply(&[1e4, 0.0, 1e4], 3), [0.5, 0.0, 0.5]);
    }

    #[test]
    fn shapes_of_another_family_are_refused() {
        assert!(PostProcessing::LinearClassifier.outputs(&[1, 2, 3]).is_err());
        assert!(PostProcessing::BoostedClassifier.outputs(&[1, 2]).is_err());
        assert!(PostProcessing::BoostedClassifier.outputs(&[2, 2, 3]).is_err());
    }
}
