//! The phases that a ciphertext can have when noise is left out.

use crate::parameters::Encoding;

/// Phases `first + i step` modulo 2^64, for i from 0 to `last`: all that can occur, and maybe
/// some that cannot. They never come round to where they began, `last * step < 2^64`; those that
/// would are all multiples of a power of two, shifted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Phases {
    first: u64,
    step: u64,
    last: u64,
}

impl Phases {
    pub(super) fn constant(phase: u64) -> Self {
        Self { first: phase, step: 0, last: 0 }
    }

    /// Those of the integers that the encoding has, as the data owner encrypts them.
    pub(super) fn of_encoding(encoding: Encoding) -> Self {
        let Encoding { width, signed } = encoding;
        let step = 1u64 << (63 - width);
        let last = (1 << width) - 1;
        let first = if signed { (step << (width - 1)).wrapping_neg() } else { 0 };
        Self { first, step, last }
    }

    /// Some that hold all of the words.
    pub(super) fn of_words(words: &[u64]) -> Self {
        let Some(&middle) = words.first() else { return Self::constant(0) };
        let distances = || words.iter().map(|word| word.wrapping_sub(middle).cast_signed());
        let (least, most) = distances().fold((0, 0), |(l, m), d| (d.min(l), d.max(m)));
        let step = distances().fold(0, |step, distance| gcd(step, distance.unsigned_abs()));
        let first = middle.wrapping_add(least.cast_unsigned());
        let last = most.abs_diff(least).checked_div(step).unwrap_or(0);
        Self { first, step, last }
    }

    /// All multiples of the largest power of two that divides the step, shifted.
    fn round(first: u64, step: u64) -> Self {
        let step = 1 << step.trailing_zeros();
        Self { first: first & (step - 1), step, last: u64::MAX / step }
    }

    pub(super) fn scaled(self, factor: i64) -> Self {
        let first = self.first.wrapping_mul(factor.cast_unsigned());
        let size = factor.unsigned_abs();
        let step = self.step.wrapping_mul(size);
        if step == 0 {
            return Self::constant(first);
        }
        match self.span().checked_mul(size) {
            None => Self::round(first, step),
            Some(span) if factor < 0 => Self { first: first.wrapping_sub(span), step, ..self },
            Some(_) => Self { first, step, ..self },
        }
    }

    pub(super) fn plus(self, other: Self) -> Self {
        let first = self.first.wrapping_add(other.first);
        let step = gcd(self.step, other.step);
        if step == 0 {
            return Self::constant(first);
        }
        match self.span().checked_add(other.span()) {
            Some(span) => Self { first, step, last: span / step },
            None => Self::round(first, step),
        }
    }

    fn span(self) -> u64 {
        self.last * self.step
    }

    /// The phase, when there is only one.
    pub(super) fn only(self) -> Option<u64> {
        (self.last == 0).then_some(self.first)
    }

    /// All of them, when they are not more than so many.
    pub(super) fn words(self, most: usize) -> Option<impl Iterator<Item = u64>> {
        let few = usize::try_from(self.last).is_ok_and(|last| last < most);
        few.then(|| (0..=self.last).map(move |i| self.first.wrapping_add(i * self.step)))
    }

    /// The factor least in size by which these phases are, but for a constant, what they are by
    /// the given one; and the constant. Full turns of all phases make no difference.
    pub(super) fn reduce(self, factor: i64) -> (i64, u64) {
        let reduced = match self.step.trailing_zeros() {
            0 => factor,
            // All multiples of 2^64 at once: a constant.
            64 => 0,
            turns => {
                // `factor modulo 2^(64 - turns)`, as a signed number: the positive half, when it
                // is just between two.
                let reduced = (factor << turns) >> turns;
                if reduced == -1 << (63 - turns) { -reduced } else { reduced }
            }
        };
        let left_out = factor.wrapping_sub(reduced).cast_unsigned();
        (reduced, self.first.wrapping_mul(left_out))
    }
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// More than any of the tests below make by themselves.
    const ALL: usize = 1 << 16;

    fn words(phases: Phases) -> Option<BTreeSet<u64>> {
        phases.words(ALL).map(Iterator::collect)
    }

    #[test]
    fn of_an_encoding_are_those_of_its_integers() {
        let phases = Phases::of_encoding(Encoding { width: 2, signed: false });
        assert_eq!(words(phases).unwrap(), BTreeSet::from([0, 1 << 61, 1 << 62, 3 << 61]));
        let phases = Phases::of_encoding(Encoding { width: 2, signed: true });
        assert_eq!(words(phases).unwrap(), BTreeSet::from([0, 1 << 61, 3 << 62, 7 << 61]));
        assert_eq!(Phases::round(0, 1).words(ALL).map(Iterator::count), None);
    }

    #[test]
    fn a_lowest_bit_is_that_of_the_sum_and_of_the_difference() {
        let phases = Phases::of_encoding(Encoding { width: 3, signed: true });
        assert_eq!(phases.reduce(-8), (8, 0));
        assert_eq!(phases.reduce(16), (0, 0));
        assert_eq!(phases.reduce(7), (7, 0));
        assert_eq!(phases.plus(Phases::constant(1)).reduce(17), (1, 16));
        assert_eq!(Phases::constant(5).reduce(-3), (0, 15_u64.wrapping_neg()));
    }

    /// Phases of a few words, coarse and fine, and factors that take them round.
    fn some() -> impl Strategy<Value = Vec<u64>> {
        let word = (any::<u8>(), 0..64_u32).prop_map(|(word, shift)| u64::from(word) << shift);
        prop_oneof![
            proptest::collection::vec(word, 1..5),
            proptest::collection::vec(any::<i8>().prop_map(|word| (word as u64) << 56), 1..9),
        ]
    }

    fn factor() -> impl Strategy<Value = i64> {
        prop_oneof![-300..300_i64, any::<i64>(), (0..63_u32).prop_map(|shift| -1 << shift)]
            .prop_filter("factors are not zero", |&factor| factor != 0)
    }

    proptest! {
        #[test]
        fn sums_and_multiples_hold_all_that_there_is(a in some(), b in some(), by in factor()) {
            let sum = Phases::of_words(&a).plus(Phases::of_words(&b).scaled(by));
            if let Some(sum) = words(sum) {
                for (a, b) in a.iter().flat_map(|a| b.iter().map(move |b| (a, b))) {
                    let word = a.wrapping_add(b.wrapping_mul(by.cast_unsigned()));
                    prop_assert!(sum.contains(&word), "{word:#x}");
                }
            }
        }

        #[test]
        fn a_reduced_factor_gives_the_same_phases(a in some(), by in factor()) {
            let (reduced, constant) = Phases::of_words(&a).reduce(by);
            prop_assert!(reduced.unsigned_abs() <= by.unsigned_abs());
            for word in a {
                let found = word.wrapping_mul(reduced.cast_unsigned()).wrapping_add(constant);
                prop_assert_eq!(found, word.wrapping_mul(by.cast_unsigned()));
            }
        }
    }
}
