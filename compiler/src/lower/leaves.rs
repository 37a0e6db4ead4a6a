//! Leaves as integers: each tree is centred, so that the sum stays small, and scaled.
//!
//! ```text
//! integer = round((leaf - centre) * scale)      centre = (smallest + largest leaf) / 2
//! raw     = sum of integers / scale + base + sum of centres
//! ```

use cipherscore_engine::bulk::client_model::OutputScale;

use super::forest::Forest;

/// Leaves at one scale for each output.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rounding {
    /// For each root.
    centres: Vec<f64>,
    /// For each root.
    scales: Vec<f64>,
    /// For each output.
    pub(crate) outputs: Vec<RoundedOutput>,
}

/// One output, rounded.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RoundedOutput {
    /// What integers mean.
    pub(crate) scale: OutputScale,
    /// Smallest and largest sum of leaves.
    pub(crate) range: (i64, i64),
    /// Largest difference that rounding makes to the raw output.
    pub(crate) error: f64,
}

/// Largest raw output less the smallest, of each output; of no trees 0.
pub(crate) fn spans(forest: &Forest, outputs: usize) -> Vec<f64> {
    let mut spans = vec![0.0; outputs];
    for root in &forest.roots {
        spans[root.output] += root.range.1 - root.range.0;
    }
    spans
}

#[allow(clippy::cast_possible_truncation, reason = "leaves are scaled to what a plaintext holds")]
fn round(value: f64) -> i64 {
    value.round_ties_even() as i64
}

impl Rounding {
    /// Rounds all leaves; `scales` has one for each output.
    pub(crate) fn of(forest: &Forest, base: &[f64], scales: &[f64]) -> Self {
        let scaled = base.iter().zip(scales).map(|(&base, scale)| RoundedOutput {
            scale: OutputScale { step: 1.0 / scale, offset: base },
            range: (0, 0),
            error: 0.0,
        });
        let mut rounding = Self {
            centres: forest
                .roots
                .iter()
                .map(|root| f64::midpoint(root.range.0, root.range.1))
                .collect(),
            scales: forest.roots.iter().map(|root| scales[root.output]).collect(),
            outputs: scaled.collect(),
        };
        for (position, root) in forest.roots.iter().enumerate() {
            let (low, high) = root.range;
            let range = (rounding.leaf(position, low), rounding.leaf(position, high));
            let error = rounding.largest_error(forest, position);
            let output = &mut rounding.outputs[root.output];
            output.scale.offset += rounding.centres[position];
            output.range = (output.range.0 + range.0, output.range.1 + range.1);
            output.error += error;
        }
        rounding
    }

    /// The integer of a leaf below a root.
    pub(crate) fn leaf(&self, root: usize, value: f64) -> i64 {
        round((value - self.centres[root]) * self.scales[root])
    }

    fn largest_error(&self, forest: &Forest, root: usize) -> f64 {
        let leaves = forest.below([forest.roots[root].shape]).into_iter();
        let error = |value: f64| {
            let exact = (value - self.centres[root]) * self.scales[root];
            (exact - exact.round_ties_even()).abs()
        };
        let largest = leaves.filter_map(|shape| forest.leaf(shape)).map(error).fold(0.0, f64::max);
        largest / self.scales[root]
    }
}
