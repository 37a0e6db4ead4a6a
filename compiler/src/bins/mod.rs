//! Which thresholds a data owner is offered.

mod calibration;
mod decoys;
mod merge;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub(crate) use calibration::Calibration;
pub(crate) use decoys::{grid, pad};
pub(crate) use merge::{merge, snap};

use crate::trained::{Ensemble, TreeNode, ValueSet};

/// Points of the grid of [`Bins::Full`], for each feature.
pub const GRID_POINTS: usize = 63;

/// What a data owner sees of the thresholds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bins {
    /// The thresholds of the model and no others: the smallest upload.
    Used,
    /// Mixed with decoys that are drawn as trainers draw thresholds.
    #[default]
    Padded,
    /// A grid of quantiles, to which thresholds are moved: it hides them and changes decisions.
    Full,
}

/// The threshold of a set that is a ray, `x < t` or `x >= t`.
fn threshold(set: &ValueSet) -> Option<f64> {
    match *set.0.as_slice() {
        [(f64::NEG_INFINITY, t) | (t, f64::INFINITY)] if t.is_finite() => Some(t),
        _ => None,
    }
}

/// Splits of each feature that only has thresholds, as often as they are there, ascending; none of
/// features that have categories, or no splits.
pub(crate) fn thresholds(ensemble: &Ensemble, features: usize) -> Vec<Vec<f64>> {
    let mut thresholds = vec![Some(Vec::new()); features];
    for node in ensemble.trees.iter().flat_map(|tree| &tree.nodes) {
        let TreeNode::Split { feature, values, .. } = node else { continue };
        let of_feature = &mut thresholds[*feature as usize];
        match threshold(values) {
            Some(threshold) => of_feature.iter_mut().for_each(|known| known.push(threshold)),
            None => *of_feature = None,
        }
    }
    let sorted = thresholds.into_iter().map(|thresholds| {
        let mut thresholds = thresholds.unwrap_or_default();
        thresholds.sort_by(f64::total_cmp);
        thresholds
    });
    sorted.collect()
}
