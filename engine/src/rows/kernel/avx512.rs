//! For processors with AVX-512-IFMA: eight products of 52 bits at a time.

#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m512i, _mm_cvtsi64_si128, _mm512_add_epi64, _mm512_and_si512, _mm512_cmpgt_epu64_mask,
    _mm512_loadu_si512, _mm512_madd52hi_epu64, _mm512_madd52lo_epu64, _mm512_mask_sub_epi64,
    _mm512_min_epu64, _mm512_permutexvar_epi64, _mm512_set1_epi64, _mm512_setzero_si512,
    _mm512_sra_epi64, _mm512_srli_epi64, _mm512_storeu_si512, _mm512_sub_epi64,
};

use super::super::automorphism::PointPermutation;
use super::{Addend, Both, DigitCut, LANES, OneRound, Terms, TwoRounds};
use crate::rlwe::kernel::Avx512;
use crate::rlwe::montgomery::{Montgomery, RADIX_BITS};
use crate::rlwe::primes::WORD_BITS;

/// Words of a vector.
type Lanes = [u64; LANES];

/// Vectors whose sums are held at a time, to hide the time that a product takes.
const VECTORS: usize = 2;

// SAFETY, of all calls below: `self` exists only where `Avx512::detect` has found AVX-512F and AVX-512-IFMA,
// which is all that the functions ask for.
impl Avx512 {
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

/// A prime, in every lane.
#[derive(Clone, Copy)]
struct Field {
    prime: __m512i,
    /// `-p^-1 mod 2^52`.
    negative_inverse: __m512i,
    /// `2^51 - p`.
    fold: __m512i,
    word_mask: __m512i,
    zero: __m512i,
}

/// `low + 2^52 high`.
#[derive(Clone, Copy)]
struct Sum {
    low: __m512i,
    high: __m512i,
}

impl Field {
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn new(field: &Montgomery) -> Self {
        Self {
            prime: splat(field.modulus()),
            negative_inverse: splat(field.negative_inverse()),
            fold: splat((1 << WORD_BITS) - field.modulus()),
            word_mask: splat((1 << WORD_BITS) - 1),
            zero: _mm512_setzero_si512(),
        }
    }

    /// Residues of words below 2p.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn canonical(&self, words: __m512i) -> __m512i {
        // What is too small to subtract from wraps to a large number.
        _mm512_min_epu64(words, _mm512_sub_epi64(words, self.prime))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn add(&self, left: __m512i, right: __m512i) -> __m512i {
        self.canonical(_mm512_add_epi64(left, right))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn subtract(&self, left: __m512i, right: __m512i) -> __m512i {
        let difference = _mm512_sub_epi64(left, right);
        _mm512_min_epu64(difference, _mm512_add_epi64(difference, self.prime))
    }

    /// `(low + 2^52 high) / R`, without the last reductions: at most p more than `high` has.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn divide(&self, sum: Sum) -> __m512i {
        // A multiplication reads the low 52 bits of its factors.
        let multiple = _mm512_madd52lo_epu64(self.zero, sum.low, self.negative_inverse);
        let low = _mm512_madd52lo_epu64(sum.low, multiple, self.prime);
        let high = _mm512_madd52hi_epu64(sum.high, multiple, self.prime);
        _mm512_add_epi64(high, _mm512_srli_epi64::<RADIX_BITS>(low))
    }

    /// Residues of sums of up to 2^12 products, divided by R.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn reduce(&self, sum: Sum) -> __m512i {
        let quotient = self.divide(sum);
        let high = _mm512_srli_epi64::<WORD_BITS>(quotient);
        let low = _mm512_and_si512(quotient, self.word_mask);
        self.canonical(_mm512_madd52lo_epu64(low, high, self.fold))
    }

    /// A Montgomery product.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn product(&self, left: __m512i, right: __m512i) -> __m512i {
        // Below p / 2 + p.
        self.canonical(self.divide(Sum::zero().multiply_add(left, right)))
    }
}

impl Sum {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn zero() -> Self {
        Self { low: _mm512_setzero_si512(), high: _mm512_setzero_si512() }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn multiply_add(self, left: __m512i, right: __m512i) -> Self {
        Self {
            low: _mm512_madd52lo_epu64(self.low, left, right),
            high: _mm512_madd52hi_epu64(self.high, left, right),
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn splat(word: u64) -> __m512i {
    _mm512_set1_epi64(word.cast_signed())
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(words: &Lanes) -> __m512i {
    // SAFETY: the pointer is that of a reference to 64 bytes; it need not be aligned.
    unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store(words: &mut Lanes, vector: __m512i) {
    // SAFETY: the pointer is that of an exclusive reference to 64 bytes; it need not be aligned.
    unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), vector) }
}

/// Vector `at` of a slice that has as many, which the caller has made sure of.
#[inline]
#[target_feature(enable = "avx512f")]
fn load_at(words: &[u64], at: usize) -> __m512i {
    load(&words.as_chunks().0[at])
}

#[target_feature(enable = "avx512f,avx512ifma")]
fn multiply(field: &Montgomery, terms: Terms<'_>, [first, second]: Both<&mut [u64]>) {
    let field = Field::new(field);
    let bodies = match terms.addend {
        Addend::Body(words) => Some(words),
        Addend::Sums => None,
    };
    let firsts = first.as_chunks_mut::<LANES>().0;
    let seconds = second.as_chunks_mut::<LANES>().0;
    let sums =
        firsts.as_chunks_mut::<VECTORS>().0.iter_mut().zip(seconds.as_chunks_mut::<VECTORS>().0);
    for (step, (first, second)) in sums.enumerate() {
        let from = VECTORS * step;
        let [body_sums, mask_sums] = sums_of(&terms, from);
        for vector in 0..VECTORS {
            let mut body = field.reduce(body_sums[vector]);
            let mut mask = field.reduce(mask_sums[vector]);
            match bodies {
                Some(words) => body = field.add(body, load_at(words, from + vector)),
                None => {
                    body = field.add(body, load(&first[vector]));
                    mask = field.add(mask, load(&second[vector]));
                }
            }
            store(&mut first[vector], body);
            store(&mut second[vector], mask);
        }
    }
}

/// Sums of products of [`VECTORS`] vectors from vector `from` on.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn sums_of(terms: &Terms<'_>, from: usize) -> Both<[Sum; VECTORS]> {
    let mut sums = [[Sum::zero(); VECTORS]; 2];
    for ((left, first), second) in terms.left.iter().zip(terms.right[0]).zip(terms.right[1]) {
        let vectors = |words: &[u64]| -> [__m512i; VECTORS] {
            let words = &words.as_chunks::<LANES>().0[from..from + VECTORS];
            [load(&words[0]), load(&words[1])]
        };
        let (left, first, second) = (vectors(left), vectors(first), vectors(second));
        for vector in 0..VECTORS {
            sums[0][vector] = sums[0][vector].multiply_add(left[vector], first[vector]);
            sums[1][vector] = sums[1][vector].multiply_add(left[vector], second[vector]);
        }
    }
    sums
}

#[target_feature(enable = "avx512f,avx512ifma")]
fn digit([from, to]: [&Montgomery; 2], cut: DigitCut, words: &[u64], digits: &mut [u64]) {
    let (prime, half) = (splat(from.modulus()), splat(from.modulus() / 2));
    let field = Field::new(to);
    let shift = _mm_cvtsi64_si128(i64::from(cut.bits * cut.index));
    let half_powers = _mm512_set1_epi64(cut.half_powers());
    let (base, half_base) = (1u64 << cut.bits, splat(1 << (cut.bits - 1)));
    let base_mask = splat(base - 1);
    let vectors = words.as_chunks().0.iter().zip(digits.as_chunks_mut().0);
    for (words, digits) in vectors {
        let words = load(words);
        let is_upper = _mm512_cmpgt_epu64_mask(words, half);
        let centred = _mm512_mask_sub_epi64(words, is_upper, words, prime);
        let rest = _mm512_sra_epi64(_mm512_add_epi64(centred, half_powers), shift);
        let value = if cut.is_last {
            rest
        } else {
            let low = _mm512_and_si512(_mm512_add_epi64(rest, half_base), base_mask);
            _mm512_sub_epi64(low, half_base)
        };
        // What is negative is a large number without its sign.
        store(digits, _mm512_min_epu64(value, _mm512_add_epi64(value, field.prime)));
    }
}

/// Vectors of words, whose lanes are in the order of a permutation.
#[inline]
#[target_feature(enable = "avx512f")]
fn permuted(words: &[u64], (source, order): (usize, usize), orders: &[Lanes; LANES]) -> __m512i {
    _mm512_permutexvar_epi64(load(&orders[order]), load_at(words, source))
}

#[target_feature(enable = "avx512f,avx512ifma")]
fn one_round(
    field: &Montgomery,
    round: &OneRound<'_>,
    [mut even, mut odd]: [Option<&mut [u64]>; 2],
) {
    let field = Field::new(field);
    let orders = round.permutation.lanes();
    for (at, from) in round.permutation.vectors().enumerate() {
        let word = load_at(round.component, at);
        let switched = permuted(round.switched, from, orders);
        if let Some(even) = &mut even {
            store(&mut even.as_chunks_mut().0[at], field.add(word, switched));
        }
        if let Some(odd) = &mut odd {
            let difference = field.subtract(word, switched);
            let product = field.product(difference, load_at(round.monomial, at));
            store(&mut odd.as_chunks_mut().0[at], product);
        }
    }
}

#[target_feature(enable = "avx512f,avx512ifma")]
fn two_rounds(field: &Montgomery, rounds: &TwoRounds<'_>, mut children: [Option<&mut [u64]>; 4]) {
    let field = Field::new(field);
    let [first, second, both] = rounds.permutations.map(PointPermutation::vectors);
    let orders = rounds.permutations.map(PointPermutation::lanes);
    let (halves, middle) =
        (rounds.half.map(|word| splat(word)), rounds.component.len() / LANES / 2);
    for (at, ((from_first, from_second), from_both)) in first.zip(second).zip(both).enumerate() {
        let word = load_at(rounds.component, at);
        let a = permuted(rounds.switched[0], from_first, orders[0]);
        let b = permuted(rounds.switched[1], from_second, orders[1]);
        let both = permuted(rounds.switched[2], from_both, orders[2]);
        let (plus, minus) = (field.add(word, a), field.subtract(word, a));
        let even = field.add(b, both);
        let odd = field.product(field.subtract(b, both), halves[usize::from(at >= middle)]);
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
                    field.product(values[index], load_at(monomials[index - 1], at))
                }
            };
            store(&mut child.as_chunks_mut().0[at], value);
        }
    }
}

#[target_feature(enable = "avx512f,avx512ifma")]
fn scale(field: &Montgomery, factor: u64, words: &mut [u64]) {
    let (field, factor) = (Field::new(field), splat(factor));
    for vector in words.as_chunks_mut().0 {
        let product = field.product(load(vector), factor);
        store(vector, product);
    }
}
