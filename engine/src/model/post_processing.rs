//! From dequantised outputs to scores: the part of `predict_proba` and `predict` that Concrete
//! ML leaves to the client.

use super::{ModelError, ScoreKind};

/// Inverse of a generalised linear model's link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InverseLink {
    /// The value itself.
    Identity,
    /// `exp`.
    Log,
}

/// What is done to the dequantised outputs of one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PostProcessing {
    /// Linear regressors: `link(x)`.
    Linear(InverseLink),
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
    /// `NeuralNetClassifier`: as for linear classifiers, in 32-bit floats.
    NetworkClassifier,
    /// `NeuralNetRegressor`: the value as a 32-bit float.
    NetworkRegressor,
    /// `KNeighborsClassifier`: the most frequent label among the nearest rows. Its integers are
    /// the labels themselves; nothing is dequantised.
    MajorityVote,
    /// A torch module: the values themselves.
    Module,
}

/// Base score of XGBoost regressors, which Concrete ML assumes for all of them.
const XGB_BASE_SCORE: f64 = 0.5;

impl PostProcessing {
    /// How many outputs (classes or targets) an output of this shape has.
    pub(super) fn outputs(self, shape: &[usize]) -> Result<usize, ModelError> {
        let family = match (self, shape) {
            (Self::Module, &[1, ref dimensions @ ..]) => return Ok(dimensions.iter().product()),
            (Self::Module, _) => "a torch module: (1, ..)",
            (Self::MajorityVote, &[1, _neighbours]) => return Ok(1),
            (Self::MajorityVote, _) => "nearest neighbours: (1, neighbours)",
            (Self::NetworkClassifier | Self::NetworkRegressor, &[1, outputs]) => {
                return Ok(outputs);
            }
            (Self::NetworkClassifier | Self::NetworkRegressor, _) => {
                "a neural network: (1, outputs)"
            }
            (Self::Linear(_) | Self::LinearClassifier | Self::OneVersusRest, &[1, outputs]) => {
                return Ok(outputs);
            }
            (Self::Linear(_) | Self::LinearClassifier | Self::OneVersusRest, _) => {
                "a linear model: (1, outputs)"
            }
            (_, &[1, outputs, _trees]) => return Ok(outputs),
            (_, _) => "an ensemble of trees: (1, outputs, trees)",
        };
        Err(ModelError::Shape { shape: shape.to_vec(), family })
    }

    pub(super) fn score_kind(self) -> ScoreKind {
        match self {
            Self::Module => ScoreKind::Outputs,
            Self::Linear(_)
            | Self::BoostedRegressor
            | Self::NetworkRegressor
            | Self::MajorityVote
            | Self::TreeSum { classifier: false } => ScoreKind::Predictions,
            Self::LinearClassifier
            | Self::NetworkClassifier
            | Self::OneVersusRest
            | Self::BoostedClassifier
            | Self::TreeSum { classifier: true } => ScoreKind::Probabilities,
        }
    }

    /// Scores of one row; `values` holds `outputs` times as many values as there are trees.
    pub(super) fn apply(self, values: &[f64], outputs: usize) -> Vec<f64> {
        match self {
            Self::Linear(InverseLink::Identity) | Self::Module => values.to_vec(),
            Self::Linear(InverseLink::Log) => values.iter().map(|value| value.exp()).collect(),
            Self::LinearClassifier => probabilities(values),
            Self::OneVersusRest => one_versus_rest(values),
            Self::TreeSum { .. } => sum_trees(values, outputs),
            Self::BoostedClassifier => probabilities(&sum_trees(values, outputs)),
            Self::BoostedRegressor => {
                sum_trees(values, outputs).iter().map(|sum| sum + XGB_BASE_SCORE).collect()
            }
            Self::NetworkClassifier => network_probabilities(values),
            Self::NetworkRegressor => {
                values.iter().map(|&value| f64::from(single(value))).collect()
            }
            Self::MajorityVote => vec![most_frequent(values)],
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

/// As `numpy.float32` rounds it.
#[allow(clippy::cast_possible_truncation, reason = "to 32 bits is what is wanted")]
fn single(value: f64) -> f32 {
    value as f32
}

/// [`probabilities`] as the client of a neural network computes them, in 32-bit floats. A sigmoid
/// takes the same steps, so that what they lose is lost alike: for a probability of 1e-9 that is
/// 1e-6 of it. A softmax loses little in numpy, so here it may lose nothing before it is rounded.
fn network_probabilities(values: &[f64]) -> Vec<f64> {
    let sigmoid = |value: f64| {
        let x = single(value);
        let log_1_plus_exp = (-x).max(0.0) + (-x.abs()).exp().ln_1p();
        (-log_1_plus_exp).exp()
    };
    let rounded: Vec<f64> = values.iter().map(|&value| f64::from(single(value))).collect();
    let probabilities: Vec<f32> = match values {
        [value] => vec![1.0 - sigmoid(*value), sigmoid(*value)],
        [_, _] => values.iter().copied().map(sigmoid).collect(),
        _ => softmax(&rounded).into_iter().map(single).collect(),
    };
    probabilities.into_iter().map(f64::from).collect()
}

/// The smallest of the values that come most often.
fn most_frequent(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let runs = sorted.chunk_by(|a, b| a == b);
    // `max_by_key` takes the last of equals.
    runs.rev().max_by_key(|run| run.len()).map_or(f64::NAN, |run| run[0])
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
    fn a_vote_goes_to_the_smallest_of_the_most_frequent() {
        let vote = |labels: &[f64]| PostProcessing::MajorityVote.apply(labels, 1);
        assert_eq!(vote(&[2.0]), [2.0]);
        assert_eq!(vote(&[2.0, 0.0, 2.0]), [2.0]);
        assert_eq!(vote(&[2.0, 1.0, 0.0]), [0.0]);
        assert_eq!(vote(&[2.0, 1.0, 1.0, 2.0, 0.0]), [1.0]);
    }

    #[test]
    fn networks_compute_in_32_bits() {
        assert_eq!(PostProcessing::NetworkRegressor.apply(&[0.1], 1), [f64::from(0.1f32)]);
        let family = PostProcessing::NetworkClassifier;
        for values in [&[0.3][..], &[0.3, -20.5], &[0.3, -2.0, 7.0]] {
            let scores = family.apply(values, values.len());
            assert!(scores.iter().all(|&score| f64::from(single(score)) == score), "{scores:?}");
        }
        // 1 + exp(20.5) needs more than 24 bits: the sigmoid is exp(-20.5), give or take.
        assert_eq!(family.apply(&[0.0, -20.5], 2), [0.5, f64::from((-20.5f32).exp())]);
        assert_eq!(family.apply(&[200.0, 0.0, 200.0], 3), [0.5, 0.0, 0.5]);
    }

    #[test]
    fn shapes_of_another_family_are_refused() {
        for family in [PostProcessing::MajorityVote, PostProcessing::NetworkClassifier] {
            assert!(family.outputs(&[1, 2]).is_ok());
            assert!(family.outputs(&[2, 2]).is_err() && family.outputs(&[1, 2, 2]).is_err());
        }
        assert_eq!(PostProcessing::MajorityVote.outputs(&[1, 5]), Ok(1));
        assert_eq!(PostProcessing::Module.outputs(&[1, 2, 3, 4]), Ok(24));
        assert!(PostProcessing::Module.outputs(&[2, 2]).is_err());
        assert!(PostProcessing::LinearClassifier.outputs(&[1, 2, 3]).is_err());
        assert!(PostProcessing::BoostedClassifier.outputs(&[1, 2]).is_err());
        assert!(PostProcessing::BoostedClassifier.outputs(&[2, 2, 3]).is_err());
    }
}
