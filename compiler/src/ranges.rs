//! Ranges of the features of a linear model, as a file says them or calibration rows show them.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::trained::{Feature, Linear};

/// How much wider than the calibration rows a range is made, on either side, as a part of its
/// width.
pub const RANGE_MARGIN: f64 = 0.1;
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

/// In the order of features, from named ranges.
pub(crate) fn named(
    ranges: &[FeatureRange],
    features: &[Feature],
    linear: &Linear,
) -> Result<Vec<(f64, f64)>, RangesError> {
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
    found.into_iter().enumerate().map(range).collect()
}

/// In the order of features, from calibration rows: smallest and largest value, and
/// [`RANGE_MARGIN`] beyond.
pub(crate) fn calibrated(
    rows: &[Vec<f64>],
    features: &[Feature],
    linear: &Linear,
) -> Result<Vec<(f64, f64)>, RangesError> {
    let range = |(index, feature): (usize, &Feature)| {
        if !weighs(linear, index) {
            return Ok(ANY);
        }
        let values = rows.iter().map(|row| row[index]).filter(|value| value.is_finite());
        let (low, high) = values
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), value| (l.min(value), h.max(value)));
        let margin = (high - low) * RANGE_MARGIN;
        match low <= high {
            true => Ok((low - margin, high + margin)),
            false => Err(RangesError::Missing(feature.name.clone())),
        }
    };
    features.iter().enumerate().map(range).collect()
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
        let feature = |name: &str| Feature { name: name.into(), single_precision: false };
        let features = [feature("age"), feature("unused")];
        let linear = Linear { intercepts: vec![0.0], weights: vec![vec![1.0, 0.0]] };
        let named = |ranges: &[FeatureRange]| named(ranges, &features, &linear);
        assert_eq!(named(&[age()]).unwrap()[0], (0.0, 120.5));
        assert!(matches!(named(&[]), Err(RangesError::Missing(name)) if name == "age"));
        assert!(matches!(named(&[age(), age()]), Err(RangesError::Twice(_))));
        let other = FeatureRange { feature: "height".into(), ..age() };
        assert!(matches!(named(&[age(), other]), Err(RangesError::Unknown(_))));
        let rows = [vec![10.0, 1.0], vec![f64::NAN, 1.0], vec![20.0, 1.0]];
        assert_eq!(calibrated(&rows, &features, &linear).unwrap(), [(9.0, 21.0), ANY]);
    }
}
