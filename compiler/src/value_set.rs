//! Sets of values as trees split by them.

use crate::trained::ValueSet;

impl ValueSet {
    /// All values below a bound.
    pub fn below(bound: f64) -> Self {
        ValueSet(vec![(f64::NEG_INFINITY, bound)])
    }

    /// The union of intervals `low <= x < high` in any order; intervals without content are left
    /// out. No bound is NaN.
    pub fn union(mut intervals: Vec<(f64, f64)>) -> Self {
        intervals.retain(|(low, high)| low < high);
        intervals.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut united: Vec<(f64, f64)> = Vec::with_capacity(intervals.len());
        for (low, high) in intervals {
            match united.last_mut() {
                Some(last) if low <= last.1 => last.1 = last.1.max(high),
                _ => united.push((low, high)),
            }
        }
        ValueSet(united)
    }

    /// Whether a value is in the set. NaN is in none.
    pub fn contains(&self, value: f64) -> bool {
        self.0.iter().any(|&(low, high)| low <= value && (value < high || high == f64::INFINITY))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn infinity_is_inside_of_an_interval_that_ends_in_it() {
        let set = ValueSet(vec![(f64::NEG_INFINITY, 0.0), (1.0, f64::INFINITY)]);
        let values = [f64::NEG_INFINITY, -1e-300, 0.0, 1.0, f64::INFINITY, f64::NAN];
        assert_eq!(values.map(|value| set.contains(value)), [true, true, false, true, true, false]);
    }

    #[test]
    fn unions_are_ascending_and_do_not_touch() {
        let set = ValueSet::union(vec![(3.0, 4.0), (1.0, 2.0), (2.0, 2.5), (9.0, 9.0), (3.5, 3.6)]);
        assert_eq!(set, ValueSet(vec![(1.0, 2.5), (3.0, 4.0)]));
    }
}
