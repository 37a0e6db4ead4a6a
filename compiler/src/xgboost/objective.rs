//! What XGBoost's objectives make of the sums of leaves.

use crate::reader::ReadError;
use crate::trained::{Link, ScoreKind};

/// How an objective reads its base score, and what it answers.
pub(super) struct Objective {
    /// From the base score of the file to what is added to the leaves.
    margin: Margin,
    pub(super) link: Link,
    pub(super) score_kind: ScoreKind,
}

enum Margin {
    Same,
    Logit,
    Log,
}

impl Objective {
    /// The objective of a name, with a number of outputs, as a version of XGBoost means it.
    pub(super) fn of(name: &str, outputs: usize, version: &[u32]) -> Result<Self, ReadError> {
        let sigmoids = Link::OneVsAll { scale: 1.0, normalised: false };
        let (margin, link, score_kind) = match name {
            "binary:logistic" if outputs == 1 => {
                (Margin::Logit, Link::Sigmoid { scale: 1.0 }, ScoreKind::Probabilities)
            }
            "binary:logistic" => (Margin::Logit, sigmoids, ScoreKind::Probabilities),
            "reg:logistic" if outputs == 1 => {
                (Margin::Logit, Link::Logistic, ScoreKind::Predictions)
            }
            "reg:logistic" => (Margin::Logit, sigmoids, ScoreKind::Predictions),
            "multi:softprob" | "multi:softmax" => {
                (Margin::Same, Link::Softmax, ScoreKind::Probabilities)
            }
            // Later versions take the base score as it is.
            "binary:logitraw" if version < &[1, 3] => {
                (Margin::Logit, Link::Identity, ScoreKind::Predictions)
            }
            // Later versions sort the quantiles of a row.
            "reg:quantileerror" if outputs > 1 && version >= &[3, 4] => {
                let what = "reg:quantileerror with several quantiles, of XGBoost 3.4 and later";
                return Err(ReadError::unsupported("objective", what));
            }
            "reg:squarederror"
            | "reg:linear"
            | "reg:squaredlogerror"
            | "reg:absoluteerror"
            | "reg:pseudohubererror"
            | "reg:quantileerror"
            | "binary:logitraw"
            | "rank:pairwise"
            | "rank:ndcg"
            | "rank:map" => (Margin::Same, Link::Identity, ScoreKind::Predictions),
            "count:poisson" | "reg:gamma" | "reg:tweedie" | "survival:cox" | "survival:aft" => {
                (Margin::Log, Link::Exp, ScoreKind::Predictions)
            }
            "binary:hinge" => {
                let what = "binary:hinge, which answers labels and no scores (train with binary:logistic),";
                return Err(ReadError::unsupported("objective", what));
            }
            other => {
                let what =
                    format!("{other}, whose scores are not known here (train with another one),");
                return Err(ReadError::unsupported("objective", what));
            }
        };
        Ok(Objective { margin, link, score_kind })
    }

    /// What is added to the leaves of each output. The file has one base score for all, or one
    /// for each in brackets.
    pub(super) fn base(&self, text: &str, outputs: usize) -> Result<Vec<f64>, ReadError> {
        let list = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        let bases =
            list.split(',').map(|score| self.margin(score)).collect::<Result<Vec<_>, _>>()?;
        match *bases.as_slice() {
            [base] => Ok(vec![base; outputs]),
            _ if bases.len() == outputs => Ok(bases),
            _ => {
                let reason = format!("{} for {outputs} outputs", bases.len());
                Err(ReadError::malformed("base_score", reason))
            }
        }
    }

    fn margin(&self, score: &str) -> Result<f64, ReadError> {
        // The library holds it as float32.
        let base = score.trim().parse::<f32>().ok().map(|score| {
            let score = f64::from(score);
            match self.margin {
                Margin::Same => score,
                Margin::Logit => -(1.0 / score - 1.0).ln(),
                Margin::Log => score.ln(),
            }
        });
        base.filter(|base| base.is_finite())
            .ok_or_else(|| ReadError::malformed("base_score", format!("{score:?}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_score_is_read_as_its_objective_means_it() {
        let base = |name, text, outputs| {
            Objective::of(name, outputs, &[3, 1, 0]).and_then(|found| found.base(text, outputs))
        };
        assert_eq!(base("binary:logistic", "5E-1", 1), Ok(vec![0.0]));
        assert_eq!(base("binary:logitraw", "[5E-1]", 1), Ok(vec![0.5]));
        let old = Objective::of("binary:logitraw", 1, &[1, 2, 1]);
        assert_eq!(old.and_then(|found| found.base("5E-1", 1)), Ok(vec![0.0]));
        assert_eq!(base("count:poisson", "1E0", 1), Ok(vec![0.0]));
        assert_eq!(base("multi:softprob", "[1E0,-2E0]", 2), Ok(vec![1.0, -2.0]));
        assert_eq!(base("reg:squarederror", "5E-1", 2), Ok(vec![0.5, 0.5]));
        assert!(base("multi:softprob", "[1E0,-2E0]", 3).is_err());
        assert!(base("binary:logistic", "0E0", 1).is_err());
        assert!(base("count:poisson", "-1E0", 1).is_err());
        assert!(base("reg:squarederror", "[", 1).is_err());
    }
}
