//! From decrypted integers to scores.

use serde::{Deserialize, Serialize};

use super::{InvalidBulkClientModel, MAX_OUTPUTS, check_name, invalid};
use crate::model::ScoreKind;

/// What the integers of a row mean.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scores {
    /// One for each output.
    pub outputs: Vec<OutputScale>,
    /// From raw outputs to scores.
    pub link: Link,
    /// What scores are.
    pub kind: ScoreKind,
    /// Names of the classes in the order of the probabilities, where the trained model has them.
    pub classes: Vec<String>,
}

/// Raw output = integer * step + offset.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputScale {
    /// What 1 is worth.
    pub step: f64,
    /// What 0 is worth.
    pub offset: f64,
}

/// From the raw outputs of a row to its scores.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Link {
    /// As they are.
    Identity,
    /// `[1 - p, p]` with p the one raw output as it is.
    Complement,
    /// `[1 - p, p]` with p = 1 / (1 + exp(-scale * x)) of the one raw output.
    Sigmoid {
        /// Usually 1.
        scale: f64,
    },
    /// p = 1 / (1 + exp(-x)) of the one raw output, alone: a regressor's (`reg:logistic`).
    Logistic,
    /// Softmax of all.
    Softmax,
    /// Sigmoid of each, divided by their sum.
    OneVsAll {
        /// Usually 1.
        scale: f64,
        /// Whether they are divided by their sum.
        normalised: bool,
    },
    /// exp(x) of each: Poisson, gamma and Tweedie regressors.
    Exp,
    /// ln(1 + exp(x)): LightGBM's `cross_entropy_lambda`.
    Softplus,
    /// x * |x|: LightGBM's `reg_sqrt`.
    SignedSquare,
}

impl Link {
    /// How many scores a row of so many raw outputs has; none where the link does not fit them.
    pub fn scores(self, outputs: usize) -> Option<usize> {
        match (self, outputs) {
            (_, 0) => None,
            (Self::Complement | Self::Sigmoid { .. }, 1) => Some(2),
            (Self::Logistic, 1) => Some(1),
            (Self::Complement | Self::Sigmoid { .. } | Self::Logistic, _) => None,
            _ => Some(outputs),
        }
    }

    /// Scores of one row; none for outputs that the link does not fit.
    pub fn apply(self, raw: &[f64]) -> Vec<f64> {
        let each = |function: fn(f64) -> f64| raw.iter().copied().map(function).collect();
        match self {
            Self::Identity => raw.to_vec(),
            Self::Complement => raw.iter().flat_map(|&p| [1.0 - p, p]).collect(),
            Self::Sigmoid { scale } => {
                let two = |&x: &f64| [sigmoid(-scale * x), sigmoid(scale * x)];
                raw.iter().flat_map(two).collect()
            }
            Self::Logistic => each(sigmoid),
            Self::Softmax => softmax(raw),
            Self::OneVsAll { scale, normalised } => {
                let each = raw.iter().map(|x| sigmoid(scale * x)).collect();
                if normalised { normalise(each) } else { each }
            }
            Self::Exp => each(f64::exp),
            Self::Softplus => each(softplus),
            Self::SignedSquare => each(|x| x * x.abs()),
        }
    }
}

/// 1 / (1 + exp(-x)); exp(-x) may overflow to infinity, whose inverse is right.
fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// ln(1 + exp(x)) = max(x, 0) + ln(1 + exp(-|x|)), without overflow on either side.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// Shifted by the largest value, so that no exponential overflows.
fn softmax(raw: &[f64]) -> Vec<f64> {
    let largest = raw.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    normalise(raw.iter().map(|value| (value - largest).exp()).collect())
}

/// Divides by the sum. Where all are 0 (each sigmoid underflowed) all are equally likely.
fn normalise(mut values: Vec<f64>) -> Vec<f64> {
    let sum: f64 = values.iter().sum();
    #[allow(clippy::cast_precision_loss, reason = "at most MAX_OUTPUTS")]
    let equal = 1.0 / values.len() as f64;
    values.iter_mut().for_each(|value| *value = if sum > 0.0 { *value / sum } else { equal });
    values
}

impl Scores {
    /// Checks numbers, names and how they fit.
    pub fn validate(&self) -> Result<(), InvalidBulkClientModel> {
        let outputs = self.outputs.len();
        if outputs > MAX_OUTPUTS {
            return invalid(format!("{outputs} outputs, where at most {MAX_OUTPUTS} are possible"));
        }
        let Some(scores) = self.link.scores(outputs) else {
            return invalid(format!("{:?} of {outputs} outputs", self.link));
        };
        let sound = |scale: f64| scale.is_finite() && scale > 0.0;
        if !self.outputs.iter().all(|output| sound(output.step) && output.offset.is_finite()) {
            return invalid("an output without a positive step and a finite offset");
        }
        match self.link {
            Link::Sigmoid { scale } | Link::OneVsAll { scale, .. } if !scale.is_finite() => {
                return invalid(format!("a sigmoid of scale {scale}"));
            }
            _ => {}
        }
        if ![0, scores].contains(&self.classes.len()) {
            return invalid(format!("{} class names for {scores} scores", self.classes.len()));
        }
        self.classes.iter().try_for_each(|name| check_name(name))
    }

    /// Number of scores of a row.
    pub fn len(&self) -> usize {
        self.link.scores(self.outputs.len()).unwrap_or(0)
    }

    /// Whether a row has no scores, which a valid model always has.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Raw outputs of a row from its decrypted integers.
    pub fn raw(&self, integers: &[i64]) -> Vec<f64> {
        #[allow(clippy::cast_precision_loss, reason = "integers are below the plaintext modulus")]
        let raw = |(output, &integer): (&OutputScale, &i64)| {
            (integer as f64).mul_add(output.step, output.offset)
        };
        self.outputs.iter().zip(integers).map(raw).collect()
    }

    /// Scores of a row from its decrypted integers, one for each output.
    pub fn scores(&self, integers: &[i64]) -> Vec<f64> {
        self.link.apply(&self.raw(integers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(link: Link, outputs: usize) -> Scores {
        let output = OutputScale { step: 0.5, offset: 1.0 };
        let outputs = vec![output; outputs];
        Scores { outputs, link, kind: ScoreKind::Probabilities, classes: vec![] }
    }

    #[test]
    fn integers_become_scores() {
        assert_eq!(scores(Link::Identity, 2).scores(&[4, -4]), [3.0, -1.0]);
        assert_eq!(scores(Link::Complement, 1).scores(&[-1]), [0.5, 0.5]);
        assert_eq!(scores(Link::Sigmoid { scale: 1.0 }, 1).scores(&[-2]), [0.5, 0.5]);
        assert_eq!(scores(Link::Softmax, 3).scores(&[4_000, 0, 4_000]), [0.5, 0.0, 0.5]);
        assert_eq!(scores(Link::SignedSquare, 1).scores(&[-6]), [-4.0]);
        let one_vs_all = Link::OneVsAll { scale: 1.0, normalised: true };
        assert_eq!(scores(one_vs_all, 2).scores(&[-9_000, -9_000]), [0.5, 0.5]);
    }

    #[test]
    fn nothing_overflows() {
        for link in [Link::Sigmoid { scale: 1.0 }, Link::Logistic] {
            assert_eq!(link.apply(&[-1e4]).last(), Some(&0.0));
            assert_eq!(link.apply(&[1e4]).last(), Some(&1.0));
        }
        assert_eq!(Link::Softplus.apply(&[-1e4, 0.0, 1e4]), [0.0, 2f64.ln(), 1e4]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert_eq!(scores(Link::Sigmoid { scale: 2.0 }, 1).validate(), Ok(()));
        let with = |step: f64| {
            let mut scores = scores(Link::Identity, 1);
            scores.outputs[0].step = step;
            scores
        };
        let classes = Scores { classes: vec!["one".into()], ..scores(Link::Softmax, 2) };
        for refused in [
            scores(Link::Identity, 0),
            scores(Link::Identity, MAX_OUTPUTS + 1),
            scores(Link::Complement, 2),
            scores(Link::Sigmoid { scale: f64::NAN }, 1),
            with(0.0),
            with(f64::INFINITY),
            classes,
        ] {
            assert!(refused.validate().is_err(), "{:?}", refused.link);
        }
    }
}
