//! Rows that stand for those to come.

use crate::trained::Feature;

/// Values of every feature as the library compares them, without what is missing, ascending.
#[derive(Debug, Clone)]
pub(crate) struct Calibration(Vec<Vec<f64>>);

impl Calibration {
    pub(crate) fn of(rows: &[Vec<f64>], features: &[Feature]) -> Self {
        let values = |(index, feature): (usize, &Feature)| {
            let values = rows.iter().map(|row| feature.rounded(row[index]));
            let mut values: Vec<f64> = values.filter(|value| value.is_finite()).collect();
            values.sort_by(f64::total_cmp);
            values
        };
        Self(features.iter().enumerate().map(values).collect())
    }

    /// Values of one feature, ascending.
    pub(crate) fn values(&self, feature: usize) -> &[f64] {
        &self.0[feature]
    }

    /// How many values are below a threshold.
    pub(crate) fn rank(&self, feature: usize, threshold: f64) -> usize {
        self.0[feature].partition_point(|&value| value < threshold)
    }

    /// Neighbouring distinct values around position `rank`: the largest one up to the value that
    /// is there, and the next one; none at the end.
    pub(crate) fn gap(&self, feature: usize, rank: usize) -> Option<(f64, f64)> {
        let values = &self.0[feature];
        let below = *values.get(rank)?;
        let above = values[rank..].iter().find(|&&value| value > below)?;
        Some((below, *above))
    }
}
