//! Rows in which a model may be another one than its file says: values that look like marks of missing
//! ones, and values too close to thresholds that a converter rounded.

use std::collections::BTreeMap;
use std::fmt;

use crate::trained::{Body, TrainedModel, TreeNode};

/// How much farther than all others are from each other a mark is from them.
const APART: f64 = 3.0;
/// Part of a column's values that are zero, above which it may come from a sparse matrix.
const SPARSE: f64 = 0.5;
/// Different values among which a whole number far from all of them is no value of its own.
const MANY: usize = 8;
/// Rows from which a column shows anything.
const MIN_ROWS: usize = 20;

/// A number that may stand for a missing value, which the file of the model does not say.
#[derive(Debug, Clone, PartialEq)]
pub struct Suspect {
    /// The number.
    pub value: f64,
    /// Name of a feature that has it.
    pub feature: String,
    /// In how many calibration rows.
    pub count: usize,
    /// Of how many.
    pub rows: usize,
}

impl fmt::Display for Suspect {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { value, feature, count, rows } = self;
        write!(out, "{count} of {rows} calibration rows have {value} for feature {feature:?}")?;
        match *value == 0.0 {
            true => write!(
                out,
                ", and other numbers have digits behind the point: rows of a sparse matrix, perhaps, whose \
                 zeros are missing values to XGBoost"
            )?,
            false => write!(
                out,
                ", far from all others: a mark of missing values, perhaps, as XGBClassifier(missing={value}) \
                 takes it"
            )?,
        }
        write!(
            out,
            ". The file does not say so: give --missing {value} if it is so, --missing none if not, or \
             --expected with what the library answers to these rows"
        )
    }
}

/// Rows that are too close to thresholds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Doubtful {
    /// How many.
    pub(crate) count: usize,
    /// Position of the first one.
    pub(crate) row: usize,
    /// Name of its feature.
    pub(crate) feature: String,
}

/// Whether a number is one that people write for what they do not know: nines, with or without a sign.
fn is_mark(value: f64) -> bool {
    let digits = value.abs();
    (99.0..1e10).contains(&digits) && digits.to_string().chars().all(|digit| digit == '9')
}

/// A value that is far from all others.
#[derive(Debug, Clone, Copy, PartialEq)]
struct FarValue {
    value: f64,
    /// How often it is there.
    count: usize,
    /// How many different values the others are.
    others: usize,
}

impl FarValue {
    /// Whether it may be a mark: it comes several times, and is a number that people write for what
    /// they do not know, or a whole one beside many others.
    fn is_suspect(self) -> bool {
        let beside_many = self.others >= MANY && self.value.fract() == 0.0;
        self.count > 1 && (is_mark(self.value) || beside_many)
    }
}

/// Values of a column that are far from all others, at either end of them.
fn far_values(values: &[f64]) -> Vec<FarValue> {
    let mut counts: Vec<(f64, usize)> = Vec::new();
    let mut sorted: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    for value in sorted {
        match counts.last_mut() {
            Some((last, count)) if *last == value => *count += 1,
            _ => counts.push((value, 1)),
        }
    }
    let mut found = Vec::new();
    if let [(first, count), rest @ ..] = counts.as_slice()
        && let ([(low, _), ..], [.., (high, _)]) = (rest, rest)
        && low - first > APART * (high - low)
    {
        found.push(FarValue { value: *first, count: *count, others: rest.len() });
    }
    if let [rest @ .., (last, count)] = counts.as_slice()
        && let ([(low, _), ..], [.., (high, _)]) = (rest, rest)
        && last - high > APART * (high - low)
    {
        found.push(FarValue { value: *last, count: *count, others: rest.len() });
    }
    found
}

/// Numbers that may stand for a missing value in some rows, with zero.
pub(crate) fn marks(rows: &[Vec<f64>]) -> Vec<f64> {
    let mut marks = BTreeMap::from([(0, 0.0)]);
    let width = rows.first().map_or(0, Vec::len);
    for feature in 0..width {
        let values: Vec<f64> = rows.iter().map(|row| row[feature]).collect();
        let near = [-1.0, -9.0, -99.0, -999.0, -9999.0, 999.0, 9999.0];
        let known = near.into_iter().filter(|mark| values.contains(mark));
        for mark in far_values(&values).into_iter().map(|far| far.value).chain(known) {
            marks.insert(mark.to_bits(), mark);
        }
    }
    marks.into_values().collect()
}

/// The first number that is so far from all others, or so often zero, that it may stand for a missing
/// value.
pub(crate) fn missing(model: &TrainedModel, rows: &[Vec<f64>]) -> Option<Suspect> {
    if rows.len() < MIN_ROWS {
        return None;
    }
    let suspect = |feature: usize, value: f64, count: usize| Suspect {
        value,
        feature: model.features[feature].name.clone(),
        count,
        rows: rows.len(),
    };
    let numbers = (0..model.features.len()).filter(|&at| model.features[at].categories.is_none());
    let columns: Vec<(usize, Vec<f64>)> =
        numbers.map(|at| (at, rows.iter().map(|row| row[at]).collect())).collect();
    for (feature, values) in &columns {
        let mut far = far_values(values).into_iter();
        if let Some(FarValue { value, count, .. }) = far.find(|far| far.is_suspect()) {
            return Some(suspect(*feature, value, count));
        }
    }
    // Columns of 0 and 1 and of counts are as often dense.
    for (feature, values) in &columns {
        let zeros = values.iter().filter(|value| **value == 0.0).count();
        let others = values.iter().filter(|value| **value != 0.0 && value.is_finite());
        let is_real = others.clone().any(|value| value.fract() != 0.0);
        #[allow(clippy::cast_precision_loss, reason = "numbers of rows")]
        let is_sparse = zeros as f64 >= SPARSE * rows.len() as f64;
        if is_sparse && is_real {
            return Some(suspect(*feature, 0.0, zeros));
        }
    }
    None
}

/// Rows that have a value of float64 so close to a threshold of float32 that the library's own, which
/// was rounded to it, may be on either side.
pub(crate) fn close_rows(model: &TrainedModel, rows: &[Vec<f64>]) -> Option<Doubtful> {
    let Body::Ensemble(ensemble) = &model.body else { return None };
    let mut thresholds = vec![Vec::new(); model.features.len()];
    for node in ensemble.trees.iter().flat_map(|tree| &tree.nodes) {
        if let TreeNode::Split { feature, values, .. } = node {
            let bounds = values.0.iter().flat_map(|&(low, high)| [low, high]);
            thresholds[*feature as usize].extend(bounds.filter(|bound| bound.is_finite()));
        }
    }
    for list in &mut thresholds {
        list.sort_by(f64::total_cmp);
        list.dedup();
    }
    let close = |row: &Vec<f64>| {
        let near = |(feature, &value): (usize, &f64)| {
            let list = &thresholds[feature];
            let above = list.partition_point(|&threshold| threshold < value);
            let around = &list[above.saturating_sub(1)..(above + 1).min(list.len())];
            around.iter().any(|&threshold| (threshold - value).abs() <= half_step(threshold))
        };
        row.iter().enumerate().position(|(feature, value)| near((feature, value)))
    };
    let mut found = rows.iter().enumerate().filter_map(|(at, row)| Some((at, close(row)?)));
    let (row, feature) = found.next()?;
    let feature = model.features[feature].name.clone();
    Some(Doubtful { count: 1 + found.count(), row, feature })
}

/// Half of the distance of float32 numbers around a value.
fn half_step(value: f64) -> f64 {
    #[allow(clippy::cast_possible_truncation, reason = "the numbers around it are looked for")]
    let near = value as f32;
    f64::from(near.next_up() - near) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_far_from_all_others() {
        let far = far_values(&[-999.0, 0.5, 1.5, -999.0, f64::NAN]);
        assert_eq!(far, [FarValue { value: -999.0, count: 2, others: 2 }]);
        assert!(far[0].is_suspect());
        // Truth values and counts are no marks, a whole number beside many is.
        let is_suspect = |values: &[f64]| far_values(values).iter().any(|far| far.is_suspect());
        assert!(!is_suspect(&[0.0, 1.0, 1.0, 0.0]) && !is_suspect(&[0.0, 0.0, 1.0, 1.0, 5.0, 5.0]));
        let mut many: Vec<f64> = (0..9).map(|i| f64::from(i) / 10.0).collect();
        assert!(!is_suspect(&many));
        many.extend([-5.0, -5.0]);
        assert!(is_suspect(&many));
        assert!(far_values(&[1.0, 2.0, 3.0, 4.0]).is_empty());
        assert!(far_values(&[7.0, 7.0]).is_empty());
        assert!(is_mark(-999.0) && is_mark(9999.0) && !is_mark(-998.0) && !is_mark(9.0));
        assert!(marks(&[vec![-999.0], vec![0.5], vec![0.75]]).contains(&-999.0));
    }

    #[test]
    fn a_step_of_float32_grows_with_the_number() {
        assert_eq!(half_step(1_690_324_352.0), 64.0);
        assert!(half_step(1.0) < 1e-7);
    }
}
