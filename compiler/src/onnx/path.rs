//! What happens to one feature before trees compare it, and which values of the feature a
//! comparison therefore means.
//!
//! A scaler's steps are rounded operations that never fall (or never rise) as their input grows:
//! rounding is monotone, and so is adding, and so is multiplying by a constant. So the values x
//! with `step(x) <= t` are exactly those below some number of the feature's precision, and a
//! search over the ordered bit patterns finds it by running the steps themselves. Thresholds
//! behind a scaler are folded without any error.

use crate::trained::ValueSet;

/// Most steps between a feature and its comparison.
const MAX_STEPS: usize = 16;

/// The way of one feature.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Path {
    /// Position in the row.
    pub(super) feature: u32,
    /// Whether its value is rounded to float32 before anything else.
    pub(super) rounded: bool,
    steps: Vec<Step>,
    /// Whether the steps turn the order around.
    falling: bool,
}

/// One rounded operation with a constant.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Step {
    pub(super) operation: Operation,
    /// Finite; for a product or quotient not 0.
    pub(super) operand: f64,
    /// Whether it is computed in float32.
    pub(super) single: bool,
}

/// What a step does to its input x with its operand c.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    /// x + c
    Add,
    /// x - c
    Subtract,
    /// c - x
    SubtractFrom,
    /// x * c
    Multiply,
    /// x / c
    Divide,
}

/// How a node compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    LessOrEqual,
    Less,
    GreaterOrEqual,
    Greater,
    Equal,
    NotEqual,
}

/// A set that [`ValueSet`] cannot write: infinity apart from the largest finite number.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BeyondFinite;

impl Path {
    /// The feature as it is.
    pub(super) fn new(feature: u32, rounded: bool) -> Self {
        Path { feature, rounded, steps: Vec::new(), falling: false }
    }

    /// Rounds to float32. Nothing for a value that already is one.
    pub(super) fn round(self) -> Option<Self> {
        if self.steps.is_empty() {
            return Some(Path { rounded: true, ..self });
        }
        // Adding -0 changes no number, not even -0.
        self.then(Step { operation: Operation::Add, operand: -0.0, single: true })
    }

    /// Goes on by one step. `None` where the result is not monotone or the way is too long.
    pub(super) fn then(mut self, step: Step) -> Option<Self> {
        let scales = matches!(step.operation, Operation::Multiply | Operation::Divide);
        let turns = step.operation == Operation::SubtractFrom
            || (scales && step.operand.is_sign_negative());
        let operand = if step.single { single(step.operand) } else { step.operand };
        if !operand.is_finite() || (scales && operand == 0.0) || self.steps.len() == MAX_STEPS {
            return None;
        }
        self.steps.push(Step { operand, ..step });
        self.falling ^= turns;
        Some(self)
    }

    /// Values of the feature for which the comparison with `threshold` holds.
    pub(super) fn set(
        &self,
        comparison: Comparison,
        threshold: f64,
    ) -> Result<ValueSet, BeyondFinite> {
        use Comparison::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
        const ALL: (f64, f64) = (f64::NEG_INFINITY, f64::INFINITY);
        if threshold.is_nan() {
            return Ok(ValueSet(if comparison == NotEqual { vec![ALL] } else { Vec::new() }));
        }
        // -g rises where g falls, and g <= t is -g >= -t.
        let (sign, comparison) = match (self.falling, comparison) {
            (true, LessOrEqual) => (-1.0, GreaterOrEqual),
            (true, Less) => (-1.0, Greater),
            (true, GreaterOrEqual) => (-1.0, LessOrEqual),
            (true, Greater) => (-1.0, Less),
            (true, other) => (-1.0, other),
            (false, other) => (1.0, other),
        };
        let threshold = sign * threshold;
        let reaches = || self.first(|x| sign * self.apply(x) >= threshold);
        let exceeds = || self.first(|x| sign * self.apply(x) > threshold);
        let intervals = match comparison {
            LessOrEqual => vec![(ALL.0, exceeds()?)],
            Less => vec![(ALL.0, reaches()?)],
            GreaterOrEqual => vec![(reaches()?, ALL.1)],
            Greater => vec![(exceeds()?, ALL.1)],
            Equal => vec![(reaches()?, exceeds()?)],
            NotEqual => vec![(ALL.0, reaches()?), (exceeds()?, ALL.1)],
        };
        Ok(union(intervals))
    }

    /// Values of the feature that become one of `members`.
    pub(super) fn members(&self, members: &[f64]) -> Result<ValueSet, BeyondFinite> {
        let mut intervals = Vec::new();
        for &member in members {
            intervals.extend(self.set(Comparison::Equal, member)?.0);
        }
        Ok(union(intervals))
    }

    fn apply(&self, x: f64) -> f64 {
        self.steps.iter().fold(x, |x, step| step.apply(x))
    }

    /// The least number of the feature's precision at which `holds`, which holds for all greater
    /// ones; minus infinity if it holds for that too, infinity if it holds nowhere.
    fn first(&self, holds: impl Fn(f64) -> bool) -> Result<f64, BeyondFinite> {
        if holds(f64::NEG_INFINITY) {
            return Ok(f64::NEG_INFINITY);
        }
        let (number, largest): (fn(i64) -> f64, f64) = match self.rounded {
            true => (single_of, f64::from(f32::MAX)),
            false => (double_of, f64::MAX),
        };
        if !holds(largest) {
            return if holds(f64::INFINITY) { Err(BeyondFinite) } else { Ok(f64::INFINITY) };
        }
        // `number` rises, `number(low)` is the least finite one, and `holds(number(high))`.
        let (mut low, mut high) = match self.rounded {
            true => (position_of_single(-f32::MAX), position_of_single(f32::MAX)),
            false => (position_of_double(-f64::MAX), position_of_double(f64::MAX)),
        };
        while low < high {
            // Half of their sum, rounded down, also where the sum is too large.
            let middle = (low & high) + ((low ^ high) >> 1);
            if holds(number(middle)) { high = middle } else { low = middle + 1 }
        }
        // Plus zero for minus zero, which compares equal.
        Ok(number(low) + 0.0)
    }
}

impl Step {
    fn apply(&self, x: f64) -> f64 {
        let c = self.operand;
        // Of two float32 numbers, these operations in float64, rounded to float32, are the
        // operations in float32: 53 bits are more than twice 24 and two more.
        let result = match self.operation {
            Operation::Add => x + c,
            Operation::Subtract => x - c,
            Operation::SubtractFrom => c - x,
            Operation::Multiply => x * c,
            Operation::Divide => x / c,
        };
        if self.single { single(result) } else { result }
    }
}

/// Rounded to float32.
#[expect(clippy::cast_possible_truncation)]
fn single(x: f64) -> f64 {
    f64::from(x as f32)
}

/// Sorted and joined where intervals touch; empty ones are dropped.
fn union(mut intervals: Vec<(f64, f64)>) -> ValueSet {
    intervals.retain(|&(low, high)| low < high);
    intervals.sort_by(|left, right| left.0.total_cmp(&right.0));
    let mut joined: Vec<(f64, f64)> = Vec::with_capacity(intervals.len());
    for (low, high) in intervals {
        match joined.last_mut() {
            Some(last) if low <= last.1 => last.1 = last.1.max(high),
            _ => joined.push((low, high)),
        }
    }
    ValueSet(joined)
}

// Positions of numbers in their order: the bits of non-negative numbers rise as they do, those of
// negative ones fall.

fn position_of_double(x: f64) -> i64 {
    ordered(x.to_bits().cast_signed(), i64::MAX)
}

fn double_of(position: i64) -> f64 {
    f64::from_bits(ordered(position, i64::MAX).cast_unsigned())
}

fn position_of_single(x: f32) -> i64 {
    ordered(i64::from(x.to_bits().cast_signed()), i64::from(i32::MAX))
}

fn single_of(position: i64) -> f64 {
    // Positions lie between those of two numbers of float32.
    #[expect(clippy::cast_possible_truncation)]
    let bits = ordered(position, i64::from(i32::MAX)) as i32;
    f64::from(f32::from_bits(bits.cast_unsigned()))
}

/// Turns the order of negative numbers around; its own inverse.
fn ordered(bits: i64, magnitude: i64) -> i64 {
    if bits < 0 { bits ^ magnitude } else { bits }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Comparison::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};

    const ALL: [Comparison; 6] = [LessOrEqual, Less, GreaterOrEqual, Greater, Equal, NotEqual];

    fn holds(comparison: Comparison, x: f64, threshold: f64) -> bool {
        match comparison {
            LessOrEqual => x <= threshold,
            Less => x < threshold,
            GreaterOrEqual => x >= threshold,
            Greater => x > threshold,
            Equal => x == threshold,
            NotEqual => x != threshold,
        }
    }

    /// Numbers of float32 around the preimage of the threshold, and the extreme ones.
    fn candidates(around: f64) -> Vec<f64> {
        #[expect(clippy::cast_possible_truncation)]
        let start = around as f32;
        let mut list = vec![f32::NEG_INFINITY, f32::MIN, -0.0, 0.0, f32::MAX, f32::INFINITY];
        let (mut up, mut down) = (start, start);
        for _ in 0..40 {
            list.extend([up, down]);
            (up, down) = (up.next_up(), down.next_down());
        }
        list.into_iter().map(f64::from).collect()
    }

    #[test]
    fn sets_say_what_the_steps_say() {
        let steps = |operations: &[(Operation, f64)], rounded| {
            operations.iter().fold(Path::new(0, rounded), |path, &(operation, operand)| {
                path.then(Step { operation, operand, single: rounded }).unwrap()
            })
        };
        use Operation::{Add, Divide, Multiply, Subtract, SubtractFrom};
        for rounded in [true, false] {
            for path in [
                steps(&[], rounded),
                steps(&[(Subtract, 0.3), (Multiply, 1.7)], rounded),
                steps(&[(Subtract, 0.3), (Divide, -0.011)], rounded),
                steps(&[(SubtractFrom, 5.5), (Add, 1e-3)], rounded),
                steps(&[(Multiply, 1e-3), (Add, 100.0)], rounded),
            ] {
                for around in [0.0, 0.75, -3.2e-5, 1234.5] {
                    let threshold = path.apply(single(around));
                    for comparison in ALL {
                        let set = path.set(comparison, threshold).unwrap();
                        for x in candidates(around) {
                            let expected = holds(comparison, path.apply(x), threshold);
                            assert_eq!(
                                set.contains(x),
                                expected,
                                "{comparison:?} {x} {threshold} {path:?}"
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn the_largest_number_and_infinity_are_not_told_apart() {
        let path = Path::new(0, true);
        let largest = f64::from(f32::MAX);
        assert_eq!(path.set(LessOrEqual, largest), Err(BeyondFinite));
        assert_eq!(path.set(Less, f64::INFINITY), Err(BeyondFinite));
        let all = ValueSet(vec![(f64::NEG_INFINITY, f64::INFINITY)]);
        assert_eq!(path.set(LessOrEqual, f64::INFINITY).unwrap(), all);
        assert_eq!(path.set(NotEqual, f64::NAN).unwrap(), all);
        assert_eq!(path.set(LessOrEqual, f64::NAN).unwrap(), ValueSet(Vec::new()));
        assert_eq!(path.set(Less, largest).unwrap().0, [(f64::NEG_INFINITY, largest)]);
    }

    #[test]
    fn a_threshold_between_two_numbers_ends_in_the_greater() {
        let set = Path::new(0, true).set(LessOrEqual, 1.0 + 1e-12).unwrap();
        assert_eq!(set.0, [(f64::NEG_INFINITY, f64::from(1f32.next_up()))]);
        let set = Path::new(0, true).members(&[1.0, f64::from(1f32.next_up()), 3.0]).unwrap();
        assert_eq!(set.0.len(), 2);
    }

    #[test]
    fn what_is_not_monotone_ends_the_path() {
        let step = |operand| Step { operation: Operation::Multiply, operand, single: true };
        assert_eq!(Path::new(0, true).then(step(0.0)), None);
        assert_eq!(Path::new(0, true).then(step(f64::NAN)), None);
        assert_eq!(Path::new(0, true).then(step(1e-60)), None);
        let long = (0..=MAX_STEPS).try_fold(Path::new(0, true), |path, _| path.then(step(2.0)));
        assert_eq!(long, None);
    }
}
