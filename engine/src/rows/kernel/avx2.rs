//! For processors with AVX2 and FMA: four products at a time, by [floats](crate::rlwe::avx2).

#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m256i, _mm_cvtsi64_si128, _mm256_add_epi64, _mm256_and_si256, _mm256_cmpgt_epi64,
    _mm256_permutevar8x32_epi32, _mm256_setr_epi32, _mm256_srl_epi64, _mm256_sub_epi64,
};

use super::super::automorphism::PointPermutation;
use super::{Addend, Both, DigitCut, LANES as PERMUTED, OneRound, Terms, TwoRounds};
use crate::rlwe::avx2::{
    Field, LANES, Sums, TERMS_PER_CARRY, fractions, load, load_at, splat, store,
};
use crate::rlwe::kernel::Avx2;
use crate::rlwe::montgomery::Montgomery;

/// Vectors whose sums are held at a time, to hide the time that a product takes.
const VECTORS: usize = 2;
/// Vectors of the words that a permutation keeps together.
const HALVES: usize = PERMUTED / LANES;

// SAFETY, of all calls below: `self` exists only where `Avx2::detect` has found AVX2 and FMA, which is all that
// the functions ask for.
impl Avx2 {
    pub(super) fn multiply(self, field: &Montgomery, terms: Terms<'_>, sums: Both<&mut [u64]>) {
        // SAFETY: as above.
        unsafe { multiply(field, terms, sums) }
    }

    pub(super) fn digit(
        self,
        fields: [&Montgomery; 2],
        cut: DigitCut,
        words: &[u64],
        digits: &mut [u64],
    ) {
        // SAFETY: as above.
        unsafe { digit(fields, cut, words, digits) }
    }

    pub(super) fn one_round(
        self,
        field: &Montgomery,
        round: &OneRound<'_>,
        children: [Option<&mut [u64]>; 2],
    ) {
        // SAFETY: as above.
        unsafe { one_round(field, round, children) }
    }

    pub(super) fn two_rounds(
        self,
        field: &Montgomery,
        rounds: &TwoRounds<'_>,
        children: [Option<&mut [u64]>; 4],
    ) {
        // SAFETY: as above.
        unsafe { two_rounds(field, rounds, children) }
    }

    pub(super) fn scale(self, field: &Montgomery, factor: u64, words: &mut [u64]) {
        // SAFETY: as above.
        unsafe { scale(field, factor, words) }
    }
}

#[target_feature(enable = "avx2,fma")]
fn multiply(field: &Montgomery, terms: Terms<'_>, [first, second]: Both<&mut [u64]>) {
    let field = Field::new(field);
    let firsts = first.as_chunks_mut::<LANES>().0.as_chunks_mut::<VECTORS>().0;
    let seconds = second.as_chunks_mut::<LANES>().0.as_chunks_mut::<VECTORS>().0;
    for (step, (first, second)) in firsts.iter_mut().zip(seconds).enumerate() {
        let from = VECTORS * step;
        let addends = match terms.addend {
            Addend::Body(words) => {
                let zero = splat(0);
                [load_at(words, from), load_at(words, from + 1), zero, zero]
            }
            Addend::Sums => [load(&first[0]), load(&first[1]), load(&second[0]), load(&second[1])],
        };
        let sums = field.reduce(&sums_of(&field, &terms, from, addends));
        for vector in 0..VECTORS {
            store(&mut first[vector], sums[vector]);
            store(&mut second[vector], sums[VECTORS + vector]);
        }
    }
}

/// R times addends, plus products of [`VECTORS`] vectors from vector `from` on: body, then mask.
///
/// At most [`MAX_TERMS`](super::MAX_TERMS) products of two residues below 2^51 are below 2^62 R, and an
/// addend is below 2^51 R.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn sums_of(
    field: &Field,
    terms: &Terms<'_>,
    from: usize,
    addends: [__m256i; 2 * VECTORS],
) -> Sums<{ 2 * VECTORS }> {
    let mut sums = Sums::of(addends);
    let lefts = terms.left.chunks(TERMS_PER_CARRY);
    let rights = terms.right.map(|right| right.chunks(TERMS_PER_CARRY));
    let [firsts, seconds] = rights;
    for (index, ((left, first), second)) in lefts.zip(firsts).zip(seconds).enumerate() {
        if index > 0 {
            sums.carry();
        }
        for ((left, first), second) in left.iter().zip(first).zip(second) {
            let whole = |at: usize| field.wholes(load_at(left, from + at));
            let fraction = |words: &[u64], at: usize| fractions(load_at(words, from + at));
            let left = [whole(0), whole(1)];
            sums.multiply_add(
                [left[0], left[1], left[0], left[1]],
                [fraction(first, 0), fraction(first, 1), fraction(second, 0), fraction(second, 1)],
            );
        }
    }
    sums
}

#[target_feature(enable = "avx2,fma")]
fn digit([from, to]: [&Montgomery; 2], cut: DigitCut, words: &[u64], digits: &mut [u64]) {
    let (prime, half) = (splat(from.modulus()), splat(from.modulus() / 2));
    let field = Field::new(to);
    // There is no shift that keeps the sign: 2^62 makes all positive, and is a multiple of the base
    // where digits follow.
    let bias = 1u64 << 62;
    let shift = cut.bits * cut.index;
    let above_zero = splat(bias.wrapping_add_signed(cut.half_powers()));
    let (base, half_base) = (1u64 << cut.bits, splat(1 << (cut.bits - 1)));
    let base_mask = splat(base - 1);
    let shifted_bias = splat(bias >> shift);
    let shift = _mm_cvtsi64_si128(i64::from(shift));
    for (words, digits) in words.as_chunks().0.iter().zip(digits.as_chunks_mut().0) {
        let words = load(words);
        let is_upper = _mm256_cmpgt_epi64(words, half);
        let centred = _mm256_sub_epi64(words, _mm256_and_si256(is_upper, prime));
        let rest = _mm256_srl_epi64(_mm256_add_epi64(centred, above_zero), shift);
        let value = if cut.is_last {
            _mm256_sub_epi64(rest, shifted_bias)
        } else {
            let low = _mm256_and_si256(_mm256_add_epi64(rest, half_base), base_mask);
            _mm256_sub_epi64(low, half_base)
        };
        store(digits, field.residues(value));
    }
}

/// For each half of a permuted vector, the half from which it comes and the order of its lanes, as words of
/// 32 bits.
type Order = [(usize, __m256i); HALVES];

/// The orders of a permutation.
///
/// What is said of its vectors of eight holds of their halves: the r's of a half differ by multiples
/// of N/4, so their r' do too, and are those of one half.
#[target_feature(enable = "avx2,fma")]
fn orders(permutation: &PointPermutation) -> [Order; PERMUTED] {
    permutation.lanes().map(|lanes| {
        let half = |half: usize| {
            let lanes = &lanes[LANES * half..][..LANES];
            let word = |lane: usize| i32::try_from(2 * (lanes[lane] % 4)).expect("a lane");
            let [a, b, c, d] = [word(0), word(1), word(2), word(3)];
            let words = _mm256_setr_epi32(a, a + 1, b, b + 1, c, c + 1, d, d + 1);
            (usize::try_from(lanes[0] / 4).expect("a half"), words)
        };
        [half(0), half(1)]
    })
}

/// A half of a vector that comes from another, in another order.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn permuted(words: &[u64], source: usize, order: &Order, half: usize) -> __m256i {
    let (from, lanes) = order[half];
    _mm256_permutevar8x32_epi32(load_at(words, HALVES * source + from), lanes)
}

#[target_feature(enable = "avx2,fma")]
fn one_round(
    field: &Montgomery,
    round: &OneRound<'_>,
    [mut even, mut odd]: [Option<&mut [u64]>; 2],
) {
    let field = Field::new(field);
    let orders = orders(round.permutation);
    for (vector, (source, order)) in round.permutation.vectors().enumerate() {
        for half in 0..HALVES {
            let at = HALVES * vector + half;
            let word = load_at(round.component, at);
            let switched = permuted(round.switched, source, &orders[order], half);
            if let Some(even) = &mut even {
                store(&mut even.as_chunks_mut().0[at], field.add(word, switched));
            }
            if let Some(odd) = &mut odd {
                let difference = field.wholes(_mm256_sub_epi64(word, switched));
                let product = field.product(difference, fractions(load_at(round.monomial, at)));
                store(&mut odd.as_chunks_mut().0[at], product);
            }
        }
    }
}

#[target_feature(enable = "avx2,fma")]
fn two_rounds(field: &Montgomery, rounds: &TwoRounds<'_>, mut children: [Option<&mut [u64]>; 4]) {
    let field = Field::new(field);
    let [first, second, both] = rounds.permutations.map(PointPermutation::vectors);
    let orders = rounds.permutations.map(|permutation| orders(permutation));
    let halves = rounds.half.map(|word| fractions(splat(word)));
    let middle = rounds.component.len() / PERMUTED / 2;
    for (vector, ((a, b), both)) in first.zip(second).zip(both).enumerate() {
        for half in 0..HALVES {
            let at = HALVES * vector + half;
            let switched = |key: usize, (source, order): (usize, usize)| {
                permuted(rounds.switched[key], source, &orders[key][order], half)
            };
            let word = load_at(rounds.component, at);
            let (a, b, both) = (switched(0, a), switched(1, b), switched(2, both));
            let (plus, minus) = (field.add(word, a), field.subtract(word, a));
            let even = field.add(b, both);
            let difference = field.wholes(_mm256_sub_epi64(b, both));
            let odd = field.product(difference, halves[usize::from(vector >= middle)]);
            let values = [
                field.add(plus, even),
                field.subtract(plus, even),
                field.add(minus, odd),
                field.subtract(minus, odd),
            ];
            for index in 0..values.len() {
                let Some(child) = &mut children[index] else { continue };
                let value = match (rounds.monomials, index) {
                    (None, _) | (_, 0) => values[index],
                    (Some(monomials), _) => {
                        let monomial = fractions(load_at(monomials[index - 1], at));
                        field.product(field.wholes(values[index]), monomial)
                    }
                };
                store(&mut child.as_chunks_mut().0[at], value);
            }
        }
    }
}

#[target_feature(enable = "avx2,fma")]
fn scale(field: &Montgomery, factor: u64, words: &mut [u64]) {
    let (field, factor) = (Field::new(field), fractions(splat(factor)));
    for vector in words.as_chunks_mut().0 {
        let product = field.product(field.wholes(load(vector)), factor);
        store(vector, product);
    }
}
