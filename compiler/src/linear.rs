//! Linear models: features and weights as integers.
//!
//! ```text
//! X = round((x - mid) / step)         |X| <= steps / 2 within the range of the feature
//! W = round(w * step * scale)
//! raw = (sum of W * X) / scale + intercept + sum of w * mid
//! ```
//!
//! The first rounding is off by half a step of each feature, the second by half of 1 / scale for
//! each unit of |X|. Errors are relative to the span of a raw output where nearly all values are (the
//! *core* of a range), and what a range is wider by a factor f costs steps, not precision. With as
//! many steps for the core of every feature and scale * span = n * f * steps^2 / 2, where n weights
//! span the raw output and f is their mean, both are at most span / (2 * steps): one number decides.

use cipherscore_engine::bulk::client_model::{
    InvalidBulkClientModel, LinearFeature, LinearInputs, MAX_STEPS, OutputScale,
};
use cipherscore_engine::bulk::program::{ColumnSum, Node, Output, Program};

use crate::lower::{LowerError, RoundedOutput};
use crate::trained::{Feature, Linear};

/// How far off a quotient of doubles is, in steps, beside the half of rounding it.
const QUOTIENT_ERROR: f64 = 1e-6;
/// How far off a value that is rounded to float32 is, relative to it.
const SINGLE_ERROR: f64 = 1.0 / 16_777_216.0;

/// A linear model at some number of steps.
#[derive(Debug, Clone)]
pub(crate) struct RoundedLinear {
    pub(crate) inputs: LinearInputs,
    pub(crate) outputs: Vec<RoundedOutput>,
    pub(crate) program: Program,
}

/// A linear model and the ranges of its features.
#[derive(Debug)]
pub(crate) struct Ranged<'a> {
    pub(crate) linear: &'a Linear,
    pub(crate) features: &'a [Feature],
    /// For each feature where nearly all values are.
    pub(crate) core: Vec<(f64, f64)>,
    /// For each feature the smallest and the largest value: no less than the core.
    pub(crate) ranges: Vec<(f64, f64)>,
}

impl Ranged<'_> {
    /// Refuses a model that depends on nothing, and ranges that are none.
    pub(crate) fn check(&self) -> Result<(), LinearError> {
        let inputs = self.inputs(2);
        inputs.validate()?;
        match self.spans().iter().all(|&span| span == 0.0) {
            true => Err(LinearError::Constant(LowerError::Constant)),
            false => Ok(()),
        }
    }

    /// How many times wider than its core a feature's range is.
    fn factor(&self, feature: usize) -> f64 {
        let (core, range) = (self.core[feature], self.ranges[feature]);
        let factor = (range.1 - range.0) / (core.1 - core.0);
        if factor.is_finite() { factor.max(1.0) } else { 1.0 }
    }

    fn weighs(&self, feature: usize) -> bool {
        self.linear.weights.iter().any(|weights| weights[feature] != 0.0)
    }

    /// How many times wider than its core the range of each feature is at least; 1 where there are
    /// no weights.
    pub(crate) fn least_factor(&self) -> f64 {
        let weighed = (0..self.features.len()).filter(|&feature| self.weighs(feature));
        let least = weighed.map(|feature| self.factor(feature)).fold(f64::INFINITY, f64::min);
        if least.is_finite() { least } else { 1.0 }
    }

    /// Largest raw output less the smallest where nearly all values are, of each output.
    pub(crate) fn spans(&self) -> Vec<f64> {
        let span = |weights: &Vec<f64>| {
            let widths = self.core.iter().map(|(low, high)| high - low);
            weights.iter().zip(widths).filter(|(w, _)| **w != 0.0).map(|(w, x)| w.abs() * x).sum()
        };
        self.linear.weights.iter().map(span).collect()
    }

    /// Features without a weight take part with no steps.
    fn inputs(&self, steps: u32) -> LinearInputs {
        let feature = |(index, feature): (usize, &Feature)| {
            let (low, high) = self.ranges[index];
            let steps = if self.weighs(index) && low < high { self.steps(index, steps) } else { 0 };
            LinearFeature { name: feature.name.clone(), low, high, steps }
        };
        LinearInputs { features: self.features.iter().enumerate().map(feature).collect() }
    }

    /// Even steps of a range whose core has so many.
    fn steps(&self, feature: usize, core: u32) -> u32 {
        let steps = f64::from(core) * self.factor(feature);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
        let half = (steps.clamp(2.0, f64::from(MAX_STEPS)) / 2.0).ceil() as u32;
        2 * half
    }

    /// Rounds the cores of features to about `steps` steps, and weights accordingly.
    pub(crate) fn round(&self, steps: f64) -> RoundedLinear {
        let factors = (0..self.features.len()).filter(|&feature| self.weighs(feature));
        let factors = factors.map(|feature| self.factor(feature)).fold(1.0, f64::max);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
        let steps = 2 * (steps.clamp(2.0, f64::from(MAX_STEPS) / factors) / 2.0).ceil() as u32;
        let inputs = self.inputs(steps);
        let spans = self.spans();
        let mut nodes = Vec::new();
        let mut outputs = Vec::new();
        let mut rounded = Vec::new();
        for (output, weights) in self.linear.weights.iter().enumerate() {
            let scale = self.scale(weights, spans[output], steps);
            let (terms, of_output) = self.round_output(output, &inputs, scale);
            let roots = match terms.is_empty() {
                true => Vec::new(),
                false => vec![u32::try_from(nodes.len()).expect("fewer outputs than memory")],
            };
            if !terms.is_empty() {
                nodes.push(Node::Affine(ColumnSum { constant: 0, terms }));
            }
            outputs.push(Output { constant: 0, roots });
            rounded.push(of_output);
        }
        let columns = u32::try_from(self.features.len()).expect("fewer features than memory");
        let program = Program { columns, nodes, outputs };
        RoundedLinear { inputs, outputs: rounded, program }
    }

    /// n * f * steps^2 / (2 * span), where n * f is the sum of the factors.
    fn scale(&self, weights: &[f64], span: f64, steps: u32) -> f64 {
        let weighed = weights.iter().enumerate().filter(|(_, weight)| **weight != 0.0);
        let factors: f64 = weighed.map(|(feature, _)| self.factor(feature)).sum();
        if span > 0.0 { factors * f64::from(steps).powi(2) / (2.0 * span) } else { 1.0 }
    }

    fn round_output(
        &self,
        output: usize,
        inputs: &LinearInputs,
        scale: f64,
    ) -> (Vec<(u32, i64)>, RoundedOutput) {
        let (mut terms, mut largest, mut error) = (Vec::new(), 0, 0.0);
        let mut offset = self.linear.intercepts[output];
        for (index, feature) in inputs.features.iter().enumerate() {
            let weight = self.linear.weights[output][index];
            if weight == 0.0 {
                continue;
            }
            let exact = weight * feature.step() * scale;
            #[allow(clippy::cast_possible_truncation, reason = "below 2^50 by the choice of scale")]
            let integer = exact.round_ties_even() as i64;
            #[allow(clippy::cast_precision_loss, reason = "bounds are below 2^24")]
            let bound = feature.bound() as f64;
            offset += weight * feature.mid();
            error += weight.abs() * feature.step() * (0.5 + QUOTIENT_ERROR);
            error += (exact - exact.round_ties_even()).abs() / scale * bound;
            if self.features[index].single_precision {
                error += weight.abs() * feature.low.abs().max(feature.high.abs()) * SINGLE_ERROR;
            }
            // Columns stay below half of the plaintext modulus, whatever their weights.
            largest = (largest + integer.abs() * feature.bound()).max(feature.bound());
            if integer != 0 {
                terms.push((u32::try_from(index).expect("fewer features than memory"), integer));
            }
        }
        let scale = OutputScale { step: 1.0 / scale, offset };
        (terms, RoundedOutput { scale, range: (-largest, largest), error })
    }
}

/// Why a linear model cannot be compiled in its ranges.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LinearError {
    #[error(transparent)]
    Constant(#[from] LowerError),
    #[error(transparent)]
    Range(#[from] InvalidBulkClientModel),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranged(linear: &Linear) -> Ranged<'_> {
        static FEATURES: std::sync::OnceLock<Vec<Feature>> = std::sync::OnceLock::new();
        let feature = |index: usize| Feature::new(format!("f{index}"), index == 0);
        let features = FEATURES.get_or_init(|| (0..4).map(feature).collect());
        let ranges = vec![(-1.0, 3.0), (0.0, 1000.0), (5.0, 5.0), (-1e9, 1e9)];
        Ranged { linear, features, core: ranges.clone(), ranges }
    }

    #[test]
    fn every_row_of_the_range_stays_within_bound_and_error() {
        let linear = Linear {
            intercepts: vec![1.5, 0.0],
            weights: vec![vec![0.3, -0.001, 7.0, 0.0], vec![1e-3, 2.0, 0.0, 0.0]],
        };
        let ranged = ranged(&linear);
        ranged.check().unwrap();
        for steps in [2.0, 17.0, 1000.0, 60_000.0] {
            let rounded = ranged.round(steps);
            let program = rounded.program.clone().validate().unwrap();
            for i in 0..200u32 {
                let part = |k: u32| f64::from(i * k % 200) / 199.0;
                let row = [-1.0 + 4.0 * part(1), 1000.0 * part(7), 5.0, 1e8];
                let features = rounded.inputs.features.iter().zip(row);
                let integers: Vec<i64> = features.map(|(f, x)| f.integer(x).unwrap()).collect();
                for (k, integer) in program.interpret(&integers).unwrap().into_iter().enumerate() {
                    let output = &rounded.outputs[k];
                    assert!((output.range.0..=output.range.1).contains(&integer));
                    let exact: f64 = linear.weights[k].iter().zip(row).map(|(w, x)| w * x).sum();
                    let raw = integer as f64 * output.scale.step + output.scale.offset;
                    let error = (raw - exact - linear.intercepts[k]).abs();
                    assert!(error <= output.error + 1e-9, "{error} {}", output.error);
                }
            }
            let relative = rounded.outputs[1].error / ranged.spans()[1];
            assert!(relative <= 1.01 / steps, "{relative} at {steps}");
        }
    }

    #[test]
    fn a_wider_range_is_no_less_precise() {
        let linear = Linear { intercepts: vec![0.0], weights: vec![vec![0.3, -0.001, 0.0, 0.0]] };
        let narrow = ranged(&linear);
        let mut wide = ranged(&linear);
        wide.ranges = vec![(-201.0, 199.0), (-50_000.0, 50_000.0), (5.0, 5.0), (-1e9, 1e9)];
        assert_eq!((narrow.least_factor(), wide.least_factor()), (1.0, 100.0));
        for steps in [16.0, 1000.0] {
            let (narrow, wide) = (narrow.round(steps), wide.round(steps));
            let error = |rounded: &RoundedLinear| rounded.outputs[0].error;
            // Single precision is relative to what a value may be.
            assert!(error(&wide) <= 1.1 * error(&narrow) + 1e-5, "{steps}");
            assert_eq!(wide.inputs.features[0].steps, 100 * narrow.inputs.features[0].steps);
            let program = wide.program.clone().validate().unwrap();
            for row in [[199.0, -50_000.0, 5.0, 0.0], [0.5, 20.0, 5.0, 0.0]] {
                let features = wide.inputs.features.iter().zip(row);
                let integers: Vec<i64> = features.map(|(f, x)| f.integer(x).unwrap()).collect();
                let integer = program.interpret(&integers).unwrap()[0];
                let output = &wide.outputs[0];
                assert!((output.range.0..=output.range.1).contains(&integer));
                let raw = integer as f64 * output.scale.step + output.scale.offset;
                let exact = 0.3 * row[0] - 0.001 * row[1];
                assert!((raw - exact).abs() <= output.error + 1e-9, "{raw} {exact}");
            }
        }
    }

    #[test]
    fn ranges_and_weights_that_are_none_are_refused() {
        let constant = Linear { intercepts: vec![1.0], weights: vec![vec![0.0, 0.0, 3.0, 0.0]] };
        assert!(matches!(ranged(&constant).check(), Err(LinearError::Constant(_))));
        let linear = Linear { weights: vec![vec![1.0; 4]], ..constant };
        let mut ranged = ranged(&linear);
        ranged.ranges[1] = (f64::NAN, 1.0);
        assert!(matches!(ranged.check(), Err(LinearError::Range(_))));
    }
}
