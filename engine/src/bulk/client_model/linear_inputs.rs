//! Inputs of linear models: features rounded to integers within proven ranges.

use serde::{Deserialize, Serialize};

use super::{BulkRowError, InvalidBulkClientModel, MAX_COLUMNS, check_feature_name, invalid};

/// Steps of one feature's range.
pub const MAX_STEPS: u32 = 1 << 24;

/// The columns of a linear model, one for each feature.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinearInputs {
    /// In the order of a row and of an upload.
    pub features: Vec<LinearFeature>,
}

/// A feature: X = round((x - mid) / step) with mid = (low + high) / 2 and
/// step = (high - low) / steps, so that |X| <= steps / 2.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinearFeature {
    /// As the trained model names it.
    pub name: String,
    /// Smallest value that fits.
    pub low: f64,
    /// Largest value that fits.
    pub high: f64,
    /// Even. 0 where the feature has no weight or only one value: X is 0.
    pub steps: u32,
}

impl LinearFeature {
    /// Middle of the range. Halves are added, so that no sum overflows.
    pub fn mid(&self) -> f64 {
        self.low / 2.0 + self.high / 2.0
    }

    /// One of `others + 1` values within the range, by its number; the first is the middle.
    pub(super) fn within(&self, number: usize, others: usize) -> f64 {
        match number {
            0 => self.mid(),
            _ => {
                let part = number as f64 / (others + 2) as f64;
                self.low * (1.0 - part) + self.high * part
            }
        }
    }

    /// Distance of neighbouring values; 0 where there are no steps.
    pub fn step(&self) -> f64 {
        match self.steps {
            0 => 0.0,
            steps => self.high / f64::from(steps) - self.low / f64::from(steps),
        }
    }

    /// Largest |X|.
    pub fn bound(&self) -> i64 {
        i64::from(self.steps / 2)
    }

    /// The integer of a value; none outside of the range, and for NaN.
    pub fn integer(&self, value: f64) -> Option<i64> {
        if !(self.low..=self.high).contains(&value) {
            return None;
        }
        if self.steps == 0 {
            return Some(0);
        }
        let real = ((value - self.mid()) / self.step()).round_ties_even();
        #[allow(clippy::cast_possible_truncation, reason = "at most MAX_STEPS, after the clamp")]
        let integer = real.clamp(-f64::from(MAX_STEPS), f64::from(MAX_STEPS)) as i64;
        // Rounding of the quotient may not lead beyond what the range is proven for.
        Some(integer.clamp(-self.bound(), self.bound()))
    }

    fn validate(&self) -> Result<(), InvalidBulkClientModel> {
        check_feature_name(&self.name)?;
        let Self { name, low, high, steps } = self;
        if !(low.is_finite() && high.is_finite() && low <= high && (high - low).is_finite()) {
            return invalid(format!("feature {name} has a range from {low} to {high}"));
        }
        if *steps > MAX_STEPS || steps % 2 != 0 {
            return invalid(format!(
                "feature {name} has {steps} steps, not an even number up to {MAX_STEPS}"
            ));
        }
        match *steps > 0 && self.step() <= 0.0 {
            true => invalid(format!("the range of feature {name} is too narrow for {steps} steps")),
            false => Ok(()),
        }
    }
}

impl LinearInputs {
    /// Checks every feature.
    pub fn validate(&self) -> Result<(), InvalidBulkClientModel> {
        if self.features.len() > MAX_COLUMNS {
            return invalid(format!("more than {MAX_COLUMNS} features"));
        }
        self.features.iter().try_for_each(LinearFeature::validate)
    }

    /// Why a row cannot be encoded: of its first value that does not fit.
    pub(super) fn refusal(&self, values: &[f64], row: usize) -> Option<BulkRowError> {
        let mut features = self.features.iter().zip(values);
        let (feature, &value) =
            features.find(|(feature, value)| feature.integer(**value).is_none())?;
        Some(feature.refusal(row, value))
    }

    /// Feature by feature the integers of all rows.
    pub(super) fn encode<R: AsRef<[f64]>>(
        &self,
        rows: &[R],
        first_row: usize,
    ) -> Result<Vec<Vec<i64>>, BulkRowError> {
        let encode = |(index, feature): (usize, &LinearFeature)| {
            let integer = |(row, values): (usize, &R)| {
                let value = values.as_ref()[index];
                let integer = feature.integer(value);
                integer.ok_or_else(|| feature.refusal(first_row + row, value))
            };
            rows.iter().enumerate().map(integer).collect()
        };
        self.features.iter().enumerate().map(encode).collect()
    }
}

impl LinearFeature {
    fn refusal(&self, row: usize, value: f64) -> BulkRowError {
        let Self { name, low, high, .. } = self;
        match value.is_nan() {
            true => BulkRowError::Missing { row, name: name.clone() },
            false => {
                BulkRowError::OutOfRange { row, name: name.clone(), value, low: *low, high: *high }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn age() -> LinearFeature {
        LinearFeature { name: "age".into(), low: -10.0, high: 90.0, steps: 200 }
    }

    #[test]
    fn integers_stay_within_the_bound_and_half_a_step_of_the_value() {
        let age = age();
        for value in [-10.0, -9.8, 0.0, 39.9, 40.0, 89.99, 90.0] {
            let integer = age.integer(value).unwrap();
            assert!(integer.abs() <= age.bound());
            #[allow(clippy::cast_precision_loss, reason = "a small integer")]
            let back = age.mid() + integer as f64 * age.step();
            assert!((back - value).abs() <= age.step() / 2.0 + 1e-12, "{value} -> {back}");
        }
        let constant = LinearFeature { high: -10.0, steps: 0, ..age };
        assert_eq!((constant.integer(-10.0), constant.integer(-9.0)), (Some(0), None));
    }

    #[test]
    fn a_row_outside_of_the_range_is_refused_by_name() {
        let inputs = LinearInputs { features: vec![age()] };
        let refused = |value: f64| inputs.encode(&[[0.0], [value]], 5).unwrap_err().to_string();
        assert!(
            refused(90.5)
                .contains("row 6, column \"age\": 90.5 is outside of the range from -10 to 90")
        );
        assert!(refused(f64::INFINITY).contains("inf is outside"));
        assert!(refused(f64::NAN).contains("row 6, column \"age\": the value is missing"));
    }

    #[test]
    fn ranges_that_make_no_sense_are_refused() {
        for feature in [
            LinearFeature { low: f64::NAN, ..age() },
            LinearFeature { low: f64::MIN, high: f64::MAX, ..age() },
            LinearFeature { low: 91.0, ..age() },
            LinearFeature { low: 90.0, ..age() },
            LinearFeature { steps: 7, ..age() },
            LinearFeature { steps: MAX_STEPS + 2, ..age() },
        ] {
            assert!(
                LinearInputs { features: vec![feature.clone()] }.validate().is_err(),
                "{feature:?}"
            );
        }
    }
}
