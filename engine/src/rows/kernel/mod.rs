//! The arithmetic of the row engine that takes its time, once for every kind of processor.
//!
//! All kernels give the same words. Everything is modulo one prime p of
//! [`PRIMES`], in canonical residues; factors of a product are one of
//! them in Montgomery form with R = 2^52, so that the product is plain.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;
#[cfg(test)]
mod tests;

use super::automorphism::PointPermutation;
use crate::rlwe::kernel::Instructions;
pub use crate::rlwe::kernel::Kernel;
use crate::rlwe::montgomery::Montgomery;
use crate::rlwe::primes::PRIMES;

/// Words of a vector.
pub(super) const LANES: usize = 8;
/// Products that may be summed before they are reduced: halves of 52 bits, and one more that the
/// reduction adds, stay within 64.
pub(super) const MAX_TERMS: usize = (1 << 12) - 1;

/// Both components of something, modulo one prime.
pub(super) type Both<T> = [T; 2];

/// What sums of products are added to.
#[derive(Clone, Copy)]
pub(super) enum Addend<'a> {
    /// Body: these words; mask: nothing.
    Body(&'a [u64]),
    /// What the sums were before.
    Sums,
}

/// Sums of products `left_d * right_(component, d)`.
#[derive(Clone, Copy)]
pub(super) struct Terms<'a> {
    pub(super) left: &'a [&'a [u64]],
    pub(super) right: Both<&'a [&'a [u64]]>,
    pub(super) addend: Addend<'a>,
}

/// How residues modulo one prime are cut into digits.
#[derive(Debug, Clone, Copy)]
pub(super) struct DigitCut {
    /// log2 of the base B.
    pub(super) bits: u32,
    /// Which digit, from the least significant one.
    pub(super) index: u32,
    /// Whether it is the most significant one, which takes all that is left.
    pub(super) is_last: bool,
}

impl DigitCut {
    /// Sum of half of the base's powers below the digit: added to a number, it makes its lower
    /// digits those of their centred form.
    fn half_powers(self) -> i64 {
        (0..self.index).map(|i| 1 << (self.bits * (i + 1) - 1)).sum()
    }
}

/// A ciphertext's component c, and those of its key switches before their automorphism.
pub(super) struct OneRound<'a> {
    pub(super) component: &'a [u64],
    pub(super) switched: &'a [u64],
    pub(super) permutation: &'a PointPermutation,
    /// X^-S', in Montgomery form.
    pub(super) monomial: &'a [u64],
}

/// The same for two rounds: of the first, the second and of both, in this order.
pub(super) struct TwoRounds<'a> {
    pub(super) component: &'a [u64],
    pub(super) switched: [&'a [u64]; 3],
    pub(super) permutations: [&'a PointPermutation; 3],
    /// I = X^(-N/2), in Montgomery form: its value at the points of the first half, and of the second.
    pub(super) half: [u64; 2],
    /// X^(-2S'), X^-S' and X^(-3S'), in Montgomery form, where children are multiplied by them.
    pub(super) monomials: Option<[&'a [u64]; 3]>,
}

impl Kernel {
    /// `sums_c = addend_c + sum of left_d right_(c, d)`, point by point.
    pub(super) fn multiply(self, field: &Montgomery, terms: Terms<'_>, sums: Both<&mut [u64]>) {
        let points = sums[0].len();
        assert!(points.is_multiple_of(2 * LANES) && sums[1].len() == points, "points of both sums");
        let Terms { left, right, addend } = terms;
        assert!(left.len() <= MAX_TERMS, "terms of a sum");
        assert!(right.iter().all(|right| right.len() == left.len()), "factors of both components");
        let all = left.iter().chain(right[0]).chain(right[1]);
        assert!(all.into_iter().all(|words| words.len() == points), "points of the factors");
        if let Addend::Body(words) = addend {
            assert_eq!(words.len(), points, "points of the addend");
        }
        match self.0 {
            Instructions::Portable => portable::multiply(field, terms, sums),
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2(available) => available.multiply(field, terms, sums),
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512(available) => available.multiply(field, terms, sums),
        }
    }

    /// The residues modulo `to` of a digit of the centred residues `words` modulo `from`.
    pub(super) fn digit(
        self,
        [from, to]: [&Montgomery; 2],
        cut: DigitCut,
        words: &[u64],
        digits: &mut [u64],
    ) {
        assert!(words.len() == digits.len() && words.len().is_multiple_of(LANES), "a word a digit");
        match self.0 {
            Instructions::Portable => portable::digit([from, to], cut, words, digits),
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2(available) => available.digit([from, to], cut, words, digits),
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512(available) => available.digit([from, to], cut, words, digits),
        }
    }

    /// `even = c + v` and `odd = X^-S' (c - v)`, v being the permuted key switch; those that are
    /// wanted.
    pub(super) fn one_round(
        self,
        field: &Montgomery,
        round: &OneRound<'_>,
        children: [Option<&mut [u64]>; 2],
    ) {
        let points = round.component.len();
        assert!(round.switched.len() == points && round.monomial.len() == points, "points");
        assert_eq!(round.permutation.points(), points, "points of the permutation");
        assert!(children.iter().flatten().all(|child| child.len() == points), "points of children");
        match self.0 {
            Instructions::Portable => portable::one_round(field, round, children),
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2(available) => available.one_round(field, round, children),
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512(available) => available.one_round(field, round, children),
        }
    }

    /// The four children of two rounds, those that are wanted:
    ///
    /// ```text
    /// 00: c + a + (b + ab)                 01: X^(-2S') (c + a - (b + ab))
    /// 10: X^-S' (c - a + I (b - ab))       11: X^(-3S') (c - a - I (b - ab))
    /// ```
    ///
    /// with a, b and ab the permuted key switches of the first round, the second, and of both. Without
    /// monomials, they are not multiplied by the powers of X before the parentheses.
    pub(super) fn two_rounds(
        self,
        field: &Montgomery,
        rounds: &TwoRounds<'_>,
        children: [Option<&mut [u64]>; 4],
    ) {
        let points = rounds.component.len();
        let words = rounds.switched.iter().chain(rounds.monomials.iter().flatten());
        assert!(words.into_iter().all(|words| words.len() == points), "points of the factors");
        assert!(rounds.permutations.iter().all(|it| it.points() == points), "points permuted");
        assert!(children.iter().flatten().all(|child| child.len() == points), "points of children");
        match self.0 {
            Instructions::Portable => portable::two_rounds(field, rounds, children),
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2(available) => available.two_rounds(field, rounds, children),
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512(available) => available.two_rounds(field, rounds, children),
        }
    }

    /// Multiplies words by a constant in Montgomery form.
    pub(super) fn scale(self, field: &Montgomery, factor: u64, words: &mut [u64]) {
        assert!(words.len().is_multiple_of(LANES), "whole vectors");
        match self.0 {
            Instructions::Portable => portable::scale(field, factor, words),
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2(available) => available.scale(field, factor, words),
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512(available) => available.scale(field, factor, words),
        }
    }
}

/// Every kernel counts on this: `2^51 - p < 2^23`, so that folding the bits from 51 on makes any
/// number of 63 bits less than 2p.
const _: () = {
    let mut index = 0;
    while index < PRIMES.len() {
        assert!((1 << 51) - PRIMES[index] < 1 << 23);
        index += 1;
    }
};
