//! Decoys: thresholds that no tree has, drawn as trainers draw theirs.
//!
//! Trainers put a threshold between two neighbouring values of the training rows: at the middle,
//! rounded to the precision in which they compare, or at one of the values. How the model's own
//! trainer does it is read off its thresholds: the rules that give them from the calibration rows.
//! Decoys follow the same rules between values drawn from these rows, so that they are dense where
//! rows are. Which side takes what is missing is drawn as often as in the feature's columns.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use super::Calibration;
use crate::lower::Column;
use crate::stream::{Purpose, Stream};
use crate::trained::{Ensemble, Feature, ValueSet};

/// Draws for one decoy, after which the calibration rows are taken to have no more.
const MAX_DRAWS: usize = 64;

/// Next of 1, 3, 7, 15, 31 and 63, then of the multiples of 64.
fn padded(columns: usize) -> usize {
    match (columns + 1).next_power_of_two() - 1 {
        small @ ..=63 => small,
        _ => columns.next_multiple_of(64),
    }
}

/// How a threshold comes from the neighbouring values `below < above`.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Rule {
    /// `x < middle`, rounded to the feature's precision.
    Middle,
    /// `x <= middle`.
    AfterMiddle,
    /// `x < middle`, rounded to float32 whatever the feature's precision.
    SingleMiddle,
    /// `x <= middle`, the same.
    AfterSingleMiddle,
    /// `x < above`.
    Above,
    /// `x <= below`.
    AfterBelow,
    /// `x <= the number after the middle`, as LightGBM writes it, whose zero has a bin of its own.
    AfterNextMiddle,
}

/// Values that LightGBM takes for zero reach up to this, 1e-35 as float32.
const ZERO: f64 = 1e-35f32 as f64;

const RULES: [Rule; 7] = [
    Rule::Middle,
    Rule::AfterMiddle,
    Rule::SingleMiddle,
    Rule::AfterSingleMiddle,
    Rule::Above,
    Rule::AfterBelow,
    Rule::AfterNextMiddle,
];

impl Rule {
    fn threshold(self, feature: &Feature, (below, above): (f64, f64)) -> f64 {
        let middle = f64::midpoint(below, above);
        #[allow(clippy::cast_possible_truncation, reason = "the rounding that trainers do")]
        let single = f64::from(middle as f32);
        match self {
            Self::Middle => feature.rounded(middle),
            Self::AfterMiddle => next(feature, feature.rounded(middle)),
            Self::SingleMiddle => single,
            Self::AfterSingleMiddle => next(feature, single),
            Self::Above => above,
            Self::AfterBelow => next(feature, below),
            Self::AfterNextMiddle if below.abs() <= ZERO => ZERO.next_up(),
            Self::AfterNextMiddle if above.abs() <= ZERO => (-ZERO).next_up(),
            Self::AfterNextMiddle => middle.next_up().next_up(),
        }
    }
}

/// The next larger number of the feature's precision.
#[allow(clippy::cast_possible_truncation, reason = "it is of that precision")]
fn next(feature: &Feature, value: f64) -> f64 {
    match feature.single_precision {
        true => f64::from((value as f32).next_up()),
        false => value.next_up(),
    }
}

/// Columns that are thresholds of one feature; that of infinity tells whether a value is there.
fn thresholds(columns: &[Column], feature: usize) -> Vec<(f64, bool)> {
    let of_feature = columns.iter().filter(|column| column.feature == feature);
    let threshold = |column: &Column| Some((column.threshold()?, column.missing));
    of_feature.filter_map(threshold).collect()
}

fn column(feature: usize, (threshold, missing): (f64, bool)) -> Column {
    Column { feature, values: ValueSet(vec![(f64::NEG_INFINITY, threshold)]), missing }
}

/// Decoys that bring the thresholds of each feature up to the next of 1, 3, 7, 15, 31, 63, 128,
/// 192, ... as far as the calibration rows have room for them.
pub(crate) fn pad(
    ensemble: &Ensemble,
    features: &[Feature],
    columns: &[Column],
    calibration: &Calibration,
) -> Vec<Column> {
    let mut stream = Stream::of(ensemble, Purpose::Decoys);
    let mut decoys = Vec::new();
    for (index, feature) in features.iter().enumerate() {
        let real = thresholds(columns, index);
        let rules = rules(feature, &real, calibration, index);
        let mut offered: BTreeSet<_> = real.iter().map(|&(t, missing)| (Key(t), missing)).collect();
        while !real.is_empty() && offered.len() < padded(real.len()) {
            let mut draw = || {
                let rank = stream.below(calibration.values(index).len());
                let gap = calibration.gap(index, rank)?;
                let threshold = rules[stream.below(rules.len())].threshold(feature, gap);
                let missing = real[stream.below(real.len())].1;
                let fresh = threshold.is_finite() && offered.insert((Key(threshold), missing));
                fresh.then_some((threshold, missing))
            };
            let Some(decoy) = (0..MAX_DRAWS).find_map(|_| draw()) else { break };
            decoys.push(column(index, decoy));
        }
    }
    decoys
}

/// The rules that give the real thresholds, as often as they do; all middles where none does.
fn rules(
    feature: &Feature,
    real: &[(f64, bool)],
    calibration: &Calibration,
    index: usize,
) -> Vec<Rule> {
    let rule = |&(threshold, _): &(f64, bool)| {
        let rank = calibration.rank(index, threshold);
        // A rule that takes the next number begins a gap of its own, one further down.
        let gaps = [rank.checked_sub(1), Some(rank)].into_iter().flatten();
        let gaps: Vec<_> = gaps.filter_map(|rank| calibration.gap(index, rank)).collect();
        let gives = |rule: &Rule| gaps.iter().any(|&gap| rule.threshold(feature, gap) == threshold);
        RULES.into_iter().find(gives)
    };
    let rules: Vec<Rule> = real.iter().filter_map(rule).collect();
    if rules.is_empty() { vec![Rule::Middle] } else { rules }
}

/// All points of the grids that no real column has; with both ways to treat what is missing where
/// the feature has both.
pub(crate) fn grid(grids: &[Vec<f64>], columns: &[Column]) -> Vec<Column> {
    let mut added = Vec::new();
    for (feature, grid) in grids.iter().enumerate() {
        let real = thresholds(columns, feature);
        let finite = real.iter().filter(|(threshold, _)| threshold.is_finite());
        let ways: BTreeSet<bool> = finite.map(|&(_, missing)| missing).collect();
        let points = grid.iter().flat_map(|&t| ways.iter().map(move |&missing| (t, missing)));
        added.extend(points.filter(|point| !real.contains(point)).map(|p| column(feature, p)));
    }
    added
}

/// A threshold, in the order of numbers; both zeros are one.
#[derive(Debug, Clone, Copy)]
struct Key(f64);

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.0 + 0.0).total_cmp(&(other.0 + 0.0))
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Key {}
