//! Which values LightGBM sends left.

use crate::reader::ReadError;
use crate::trained::ValueSet;

/// Values up to here are zero to LightGBM, which holds it as float32. Before it predicts, it
/// drops them from rows, so that a threshold cannot tell them from zero.
const ZERO: f32 = 1e-35;

/// What is missing for a split, by two bits of its `decision_type`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    /// Nothing: NaN counts as zero.
    Nothing,
    /// Zero and NaN.
    Zero,
    /// NaN.
    Nan,
}

/// The bits of a split's `decision_type`.
#[derive(Clone, Copy)]
pub(super) struct Decision {
    pub(super) is_categorical: bool,
    default_left: bool,
    missing: Missing,
}

impl Decision {
    pub(super) fn of(bits: i8) -> Result<Self, ReadError> {
        let missing = match bits >> 2 {
            0 => Missing::Nothing,
            1 => Missing::Zero,
            2 => Missing::Nan,
            _ => return Err(ReadError::malformed("decision_type", bits.to_string())),
        };
        Ok(Decision { is_categorical: bits & 1 != 0, default_left: bits & 2 != 0, missing })
    }

    /// What a numeric split sends left, and whether missing values are among it.
    pub(super) fn numeric(self, threshold: f64) -> Result<(ValueSet, bool), ReadError> {
        if threshold.is_nan() {
            return Err(ReadError::malformed("threshold", "NaN"));
        }
        let zero = f64::from(ZERO);
        let after_zero = zero.next_up();
        // All of zero lies on one side of the cut.
        let cut = match threshold {
            below if below < -zero => below.next_up(),
            inside if inside < 0.0 => -zero,
            inside if inside <= zero => after_zero,
            above => above.next_up(),
        };
        let left = ValueSet::below(cut);
        Ok(match self.missing {
            Missing::Nothing => {
                let has_zero = left.contains(0.0);
                (left, has_zero)
            }
            Missing::Nan => (left, self.default_left),
            Missing::Zero if self.default_left => {
                (ValueSet::union(vec![(f64::NEG_INFINITY, cut), (-zero, after_zero)]), true)
            }
            Missing::Zero => {
                let below = (f64::NEG_INFINITY, cut.min(-zero));
                (ValueSet::union(vec![below, (after_zero, cut)]), false)
            }
        })
    }
}

/// The categories that a split sends left. LightGBM drops the digits behind the point of a
/// value and looks up its bit; what is negative, too large or missing goes right.
pub(super) fn categories(words: &[u32]) -> ValueSet {
    let bits = (0_u32..).zip(words).flat_map(|(position, &word)| {
        let first = 32.0 * f64::from(position);
        (0..32).filter(move |bit| word >> bit & 1 == 1).map(move |bit| first + f64::from(bit))
    });
    let interval = |category: f64| {
        // All numbers above -1 lose their digits to zero.
        (if category == 0.0 { (-1.0_f64).next_up() } else { category }, category + 1.0)
    };
    ValueSet::union(bits.map(interval).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(bits: i8, threshold: f64, values: &[f64]) -> Vec<bool> {
        let (set, missing) = Decision::of(bits).unwrap().numeric(threshold).unwrap();
        values.iter().map(|&x| if x.is_nan() { missing } else { set.contains(x) }).collect()
    }

    #[test]
    fn missing_values_go_where_the_library_sends_them() {
        let zero = f64::from(ZERO);
        let values = [-1.0, -zero, 0.0, zero, 0.5, 0.75, f64::NAN];
        let (yes, no) = (true, false);
        // Nothing is missing: NaN goes with zero.
        assert_eq!(left(0, 0.5, &values), [yes, yes, yes, yes, yes, no, yes]);
        assert_eq!(left(0, -1.0, &values), [yes, no, no, no, no, no, no]);
        // NaN is missing.
        assert_eq!(left(8, 0.5, &values), [yes, yes, yes, yes, yes, no, no]);
        assert_eq!(left(10, -1.0, &values), [yes, no, no, no, no, no, yes]);
        // Zero is missing.
        assert_eq!(left(4, 0.5, &values), [yes, no, no, no, yes, no, no]);
        assert_eq!(left(6, -1.0, &values), [yes, yes, yes, yes, no, no, yes]);
        // Thresholds at the ends of zero do not divide it.
        assert_eq!(left(8, -zero, &values), [yes, no, no, no, no, no, no]);
        assert_eq!(left(8, zero, &values), [yes, yes, yes, yes, no, no, no]);
    }

    #[test]
    fn categories_lose_their_digits() {
        let set = categories(&[0b1001, 1]);
        let values = [-1.0, -0.9, 0.9, 1.0, 3.0, 3.9, 4.0, 32.0, 33.0];
        let expected = [false, true, true, false, true, true, false, true, false];
        assert_eq!(values.map(|value| set.contains(value)), expected);
    }
}
