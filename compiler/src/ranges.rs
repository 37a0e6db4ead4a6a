//! Ranges of the features of a linear model, as a file says them or calibration rows show them.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::trained::{Feature, Linear};

/// How much wider than the calibration rows a range is made at least, on either side, as a part of
/// its width.
pub const RANGE_MARGIN: f64 = 0.1;
/// Distances of quartiles beyond the quartiles after which a value is far from the others.
const FAR: f64 = 6.0;
/// Part of the calibration rows that may be far from the others on either side, and is not to
/// decide about a range: one row at least.
const RARE: f64 = 0.005;
/// Calibration rows from which quartiles say anything.
const MIN_ROWS: usize = 20;
/// Longest file of ranges, in bytes.
pub const MAX_RANGES_BYTES: usize = 16 << 20;

/// Values that a feature may have.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureRange {
    /// Name of the feature.
    pub feature: String,
    /// Smallest value.
    pub low: f64,
    /// Largest value.
    pub high: f64,
}

/// Ranges that cannot be used.
#[derive(Debug, Error)]
pub enum RangesError {
    /// Above [`MAX_RANGES_BYTES`].
    #[error("a file of ranges of {0} bytes is above the limit of {MAX_RANGES_BYTES}")]
    TooLarge(usize),
    /// Not a JSON array of objects with `feature`, `low` and `high`.
    #[error("the ranges cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    /// Not CSV with the columns `feature`, `low` and `high`.
    #[error("the ranges cannot be read: {0}")]
    Csv(#[from] csv::Error),
    /// A range of nothing.
    #[error("the model has no feature named {0}")]
    Unknown(String),
    /// The same name twice.
    #[error("there are two ranges for feature {0}")]
    Twice(String),
    /// No range.
    #[error("feature {0} has a weight, and no range")]
    Missing(String),
}

/// Reads ranges: a JSON array of objects, or CSV, with `feature`, `low` and `high`.
pub fn parse_ranges(bytes: &[u8]) -> Result<Vec<FeatureRange>, RangesError> {
    if bytes.len() > MAX_RANGES_BYTES {
        return Err(RangesError::TooLarge(bytes.len()));
    }
    match bytes.trim_ascii_start() {
        [b'[', ..] => Ok(serde_json::from_slice(bytes)?),
        _ => {
            let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(bytes);
            Ok(reader.deserialize().collect::<Result<_, _>>()?)
        }
    }
}

/// What a feature without a weight may be: anything.
const ANY: (f64, f64) = (f64::MIN / 2.0, f64::MAX / 2.0);

fn weighs(linear: &Linear, feature: usize) -> bool {
    linear.weights.iter().any(|weights| weights[feature] != 0.0)
}

/// Ranges of all features, in their order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ranges {
    /// Where nearly all values are: what errors are relative to.
    pub(crate) core: Vec<(f64, f64)>,
    /// What a row must be able to have: it contains the core.
    covered: Vec<(f64, f64)>,
    /// Values that are so far from all others that they did not decide about a range.
    pub(crate) outliers: Vec<Outlier>,
    /// Whether the ranges are as they were given.
    pub(crate) are_given: bool,
}

/// A value of a calibration row that is far from all others.
#[derive(Debug, Clone, PartialEq)]
pub struct Outlier {
    /// Position of the row, from 0.
    pub row: usize,
    /// Name of the feature.
    pub feature: String,
    /// What is there.
    pub value: f64,
    /// Where the others are.
    pub others: (f64, f64),
}

impl Ranges {
    /// The ranges, each at least `room` times as wide as its core.
    pub(crate) fn widened(&self, room: f64) -> Vec<(f64, f64)> {
        let widened = |(core, covered): (&(f64, f64), &(f64, f64))| {
            let margin = (core.1 - core.0) * (room - 1.0) / 2.0;
            let (low, high) = ((core.0 - margin).min(covered.0), (core.1 + margin).max(covered.1));
            let fits = *core != ANY && !self.are_given && (high - low).is_finite();
            if fits { (low, high) } else { *covered }
        };
        self.core.iter().zip(&self.covered).map(widened).collect()
    }
}

/// From named ranges.
pub(crate) fn named(
    ranges: &[FeatureRange],
    features: &[Feature],
    linear: &Linear,
) -> Result<Ranges, RangesError> {
    let mut found = vec![None; features.len()];
    for range in ranges {
        let position = features.iter().position(|feature| feature.name == range.feature);
        let position = position.ok_or_else(|| RangesError::Unknown(range.feature.clone()))?;
        if found[position].replace((range.low, range.high)).is_some() {
            return Err(RangesError::Twice(range.feature.clone()));
        }
    }
    let range = |(index, range): (usize, Option<(f64, f64)>)| match range {
        Some(range) => Ok(range),
        None if !weighs(linear, index) => Ok(ANY),
        None => Err(RangesError::Missing(features[index].name.clone())),
    };
    let core: Vec<_> = found.into_iter().enumerate().map(range).collect::<Result<_, _>>()?;
    Ok(Ranges { covered: core.clone(), core, outliers: Vec::new(), are_given: true })
}

/// From calibration rows: smallest and largest value, but for few that are far from all others.
pub(crate) fn calibrated(
    rows: &[Vec<f64>],
    features: &[Feature],
    linear: &Linear,
) -> Result<Ranges, RangesError> {
    let mut ranges = Ranges {
        core: Vec::with_capacity(features.len()),
        covered: Vec::with_capacity(features.len()),
        outliers: Vec::new(),
        are_given: false,
    };
    for (index, feature) in features.iter().enumerate() {
        if !weighs(linear, index) {
            ranges.core.push(ANY);
            ranges.covered.push(ANY);
            continue;
        }
        let mut values: Vec<f64> = rows.iter().map(|row| row[index]).collect();
        values.retain(|value| value.is_finite());
        values.sort_by(f64::total_cmp);
        let Some((core, covered)) = of_values(&values) else {
            return Err(RangesError::Missing(feature.name.clone()));
        };
        let is_outlier = |value: f64| value < covered.0 || value > covered.1;
        let outliers = rows.iter().enumerate().filter(|(_, row)| is_outlier(row[index]));
        ranges.outliers.extend(outliers.map(|(row, values)| Outlier {
            row,
            feature: feature.name.clone(),
            value: values[index],
            others: covered,
        }));
        ranges.core.push(core);
        ranges.covered.push(covered);
    }
    Ok(ranges)
}

type Range = (f64, f64);

/// Where nearly all of some ascending values are, and all but rare ones; none where there are none.
fn of_values(values: &[f64]) -> Option<(Range, Range)> {
    let (&least, &most) = (values.first()?, values.last()?);
    if least == most {
        // A value that is the same in all rows need not be so in others.
        let room = least.abs().max(1.0);
        return Some(((least - room, least + room), (least - room, least + room)));
    }
    if values.len() < MIN_ROWS {
        return Some(((least, most), (least, most)));
    }
    #[allow(clippy::cast_precision_loss, reason = "numbers of rows")]
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of them")]
    let rare = ((values.len() as f64 * RARE) as usize).max(1);
    let quartile = |part: usize| values[(values.len() - 1) * part / 4];
    let distance = quartile(3) - quartile(1);
    // Where half of the values are one, the rest is as it is, but for the rare ones.
    let (low, high) = match distance > 0.0 {
        true => (quartile(1) - FAR * distance, quartile(3) + FAR * distance),
        false => {
            let (low, high) = (values[rare], values[values.len() - 1 - rare]);
            (low - FAR * (high - low), high + FAR * (high - low))
        }
    };
    let (low, high) = if low < high { (low, high) } else { (least, most) };
    let first = values.partition_point(|&value| value < low);
    let end = values.partition_point(|&value| value <= high);
    let core = (values[first], values[end - 1]);
    let covered_low = if first <= rare { core.0 } else { least };
    let covered_high = if values.len() - end <= rare { core.1 } else { most };
    match core.0 < core.1 {
        true => Some((core, (covered_low, covered_high))),
        false => Some(((least, most), (least, most))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn age() -> FeatureRange {
        FeatureRange { feature: "age".into(), low: 0.0, high: 120.5 }
    }

    #[test]
    fn json_and_csv_say_the_same() {
        let json = br#" [{"feature": "age", "low": 0, "high": 120.5}]"#;
        assert_eq!(parse_ranges(json).unwrap(), [age()]);
        assert_eq!(parse_ranges(b"feature,low,high\nage, 0, 120.5\n").unwrap(), [age()]);
        for bad in [&b"[{\"feature\": 1}]"[..], b"feature,low,high\nage,0\n", b"a,b\nage,0\n"] {
            assert!(parse_ranges(bad).is_err());
        }
    }

    #[test]
    fn every_weight_needs_one_range() {
        let feature = |name: &str| Feature::new(name, false);
        let features = [feature("age"), feature("unused")];
        let linear = Linear { intercepts: vec![0.0], weights: vec![vec![1.0, 0.0]] };
        let named = |ranges: &[FeatureRange]| named(ranges, &features, &linear);
        let given = named(&[age()]).unwrap();
        assert_eq!(given.core[0], (0.0, 120.5));
        assert_eq!(given.widened(100.0), given.core);
        assert!(matches!(named(&[]), Err(RangesError::Missing(name)) if name == "age"));
        assert!(matches!(named(&[age(), age()]), Err(RangesError::Twice(_))));
        let other = FeatureRange { feature: "height".into(), ..age() };
        assert!(matches!(named(&[age(), other]), Err(RangesError::Unknown(_))));
        let rows = [vec![10.0, 1.0], vec![f64::NAN, 1.0], vec![20.0, 1.0]];
        let found = calibrated(&rows, &features, &linear).unwrap();
        assert_eq!(found.core, [(10.0, 20.0), ANY]);
        assert_eq!(found.widened(1.0 + 2.0 * RANGE_MARGIN), [(9.0, 21.0), ANY]);
        assert_eq!(found.widened(100.0)[1], ANY);
    }

    /// Ascending values of one feature: where nearly all are, and what must be covered.
    fn of(values: impl IntoIterator<Item = f64>) -> (Range, Range) {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        of_values(&values).unwrap()
    }

    #[test]
    fn one_value_among_many_does_not_decide() {
        let usual = || (0..400).map(|i| f64::from(i % 41) / 10.0 - 2.0);
        assert_eq!(of(usual()), ((-2.0, 2.0), (-2.0, 2.0)));
        assert_eq!(of(usual().chain([1000.0])), ((-2.0, 2.0), (-2.0, 2.0)));
        // Some of them must be in the range, and do not decide about precision.
        let marks = std::iter::repeat_n(-999.0, 20);
        assert_eq!(of(usual().chain(marks)), ((-2.0, 2.0), (-999.0, 2.0)));
        // Zeros with few others.
        let sparse = std::iter::repeat_n(0.0, 390).chain((1..=10).map(f64::from));
        assert_eq!(of(sparse).1, (0.0, 10.0));
        assert_eq!(of([5.0, 5.0, 5.0]), ((0.0, 10.0), (0.0, 10.0)));
        assert_eq!(of([0.0]), ((-1.0, 1.0), (-1.0, 1.0)));
        assert_eq!(of([1.0, 1000.0]).0, (1.0, 1000.0));
    }

    #[test]
    fn what_is_far_from_all_others_is_named() {
        let mut rows: Vec<_> = (0..50).map(|i| vec![f64::from(i), 1.0]).collect();
        rows[7][0] = 1e6;
        let linear = Linear { intercepts: vec![0.0], weights: vec![vec![1.0, 0.0]] };
        let features = ["age", "unused"].map(|name| Feature::new(name, false));
        let found = calibrated(&rows, &features, &linear).unwrap();
        let outlier = Outlier { row: 7, feature: "age".into(), value: 1e6, others: (0.0, 49.0) };
        assert_eq!(found.outliers, [outlier]);
    }
}
