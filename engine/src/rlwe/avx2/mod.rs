//! Arithmetic modulo a prime for processors with AVX2 and FMA, four words at a time.
//!
//! AVX2 multiplies integers of 32 bits only, but floats of 53. A fused multiply-add rounds once, so two
//! of them give both halves of a product of two words below 2^52 (N. Emmart, F. Zheng, C. Weems,
//! *Faster modular exponentiation using double precision floating point arithmetic on the GPU*, ARITH
//! 2018; there rounded down, here to the nearest). With a *whole* `a` and a *fraction* `b / R`, R = 2^52:
//!
//! ```text
//! c = a (b / R) + M          rounded to a multiple of 1: M = 1.5 * 2^52, and c is below 2^53
//! h = c - M                  exact; the bits of c are those of M plus the integer h
//! l = a (b / R) - h          exact: a multiple of 1/R, at most 1/2 in magnitude
//! ```
//!
//! A sum of products is R (H + L) with H the sum of the h, as 64-bit integers, and L that of the l, as
//! floats. Multiples of 1/R up to 2 in magnitude are floats, so that sums of four l are exact; before
//! there are more, [`Sums::carry`] moves what is whole of L to H.
//!
//! Montgomery's reduction divides by R: with m = L R / p modulo R, any representative, (m / R) p is
//! congruent to L modulo 1, and
//!
//! ```text
//! (R (H + L) - m p) / R = H + (L - (m / R) p)        an integer, so the last product rounds nothing
//! ```

#![allow(unsafe_code)]

mod butterflies;
pub(crate) mod transform;

use std::arch::x86_64::{
    __m256d, __m256i, _mm256_add_epi64, _mm256_add_pd, _mm256_and_si256, _mm256_blendv_pd,
    _mm256_castpd_si256, _mm256_castsi256_pd, _mm256_fmadd_pd, _mm256_fnmadd_pd,
    _mm256_loadu_si256, _mm256_mul_epu32, _mm256_or_si256, _mm256_set1_epi64x, _mm256_set1_pd,
    _mm256_setzero_pd, _mm256_srli_epi64, _mm256_storeu_si256, _mm256_sub_epi64, _mm256_sub_pd,
};

use super::montgomery::{Montgomery, RADIX_BITS, RADIX_MASK};
use super::primes::WORD_BITS;

/// Words of a vector.
pub(crate) const LANES: usize = 4;
/// Words of a vector, in memory.
pub(crate) type Lanes = [u64; LANES];

/// M: floats from 2^52 to 2^53 are the integers, and their bits count upwards like them.
const MAGIC: f64 = 6_755_399_441_055_744.0;
/// The same for multiples of 2, from 2^53 to 2^54.
const EVEN_MAGIC: f64 = 2.0 * MAGIC;

/// Products whose low halves may be summed after a carry, which leaves 1/2 at most.
pub(crate) const TERMS_PER_CARRY: usize = 3;

/// A prime between 2^51 - 2^23 and 2^51, in every lane.
#[derive(Clone, Copy)]
pub(crate) struct Field {
    prime: __m256i,
    float_prime: __m256d,
    /// `p^-1 mod 2^52`, the representative next to 0.
    inverse: __m256d,
    /// `2^51 - p`.
    fold: __m256i,
    word_mask: __m256i,
    /// 5p, without the bits of the one M that a reduction adds.
    above_zero: __m256i,
    magic: __m256d,
    even_magic: __m256d,
}

/// `R (high + low)`, of N vectors.
#[derive(Clone, Copy)]
pub(crate) struct Sums<const N: usize> {
    /// With the bits of M, as often as there were additions.
    high: [__m256i; N],
    low: [__m256d; N],
    additions: u64,
}

impl Field {
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub(crate) fn new(field: &Montgomery) -> Self {
        let inverse = (RADIX_MASK + 1 - field.negative_inverse()).cast_signed();
        let is_upper = i64::from(inverse > 1 << (RADIX_BITS - 1));
        #[allow(clippy::cast_precision_loss, reason = "at most 2^51 in magnitude")]
        let (inverse, prime) =
            ((inverse - (is_upper << RADIX_BITS)) as f64, field.modulus() as f64);
        Self {
            prime: splat(field.modulus()),
            float_prime: _mm256_set1_pd(prime),
            inverse: _mm256_set1_pd(inverse),
            fold: splat((1 << WORD_BITS) - field.modulus()),
            word_mask: splat((1 << WORD_BITS) - 1),
            above_zero: splat((5 * field.modulus()).wrapping_sub(MAGIC.to_bits())),
            magic: _mm256_set1_pd(MAGIC),
            even_magic: _mm256_set1_pd(EVEN_MAGIC),
        }
    }

    /// Residues of words below 2p.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub(crate) fn canonical(&self, words: __m256i) -> __m256i {
        let less = _mm256_sub_epi64(words, self.prime);
        where_negative(less, words, less)
    }

    /// Residues of integers from -p and below p.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub(crate) fn residues(&self, integers: __m256i) -> __m256i {
        where_negative(integers, _mm256_add_epi64(integers, self.prime), integers)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub(crate) fn add(&self, left: __m256i, right: __m256i) -> __m256i {
        self.canonical(_mm256_add_epi64(left, right))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub(crate) fn subtract(&self, left: __m256i, right: __m256i) -> __m256i {
        self.residues(_mm256_sub_epi64(left, right))
    }

    /// Integers below 2^51 in magnitude, as left factors.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub(crate) fn wholes(&self, integers: __m256i) -> __m256d {
        let shifted = _mm256_add_epi64(integers, _mm256_castpd_si256(self.magic));
        _mm256_sub_pd(_mm256_castsi256_pd(shifted), self.magic)
    }

    /// A Montgomery product of a whole below 2^51 in magnitude and the fraction of a residue.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub(crate) fn product(&self, whole: __m256d, fraction: __m256d) -> __m256i {
        let high = _mm256_fmadd_pd(whole, fraction, self.magic);
        let low = _mm256_fmadd_pd(whole, fraction, _mm256_sub_pd(self.magic, high));
        // At most 1/2 times 2^51.
        let inverse = _mm256_fmadd_pd(low, self.inverse, self.magic);
        let multiple = _mm256_fmadd_pd(low, self.inverse, _mm256_sub_pd(self.magic, inverse));
        // The product is below p R / 2 in magnitude, and m p is at most that: the result is below p.
        let rest = _mm256_fnmadd_pd(multiple, self.float_prime, low);
        let shifted = _mm256_castpd_si256(_mm256_add_pd(high, rest));
        self.residues(_mm256_sub_epi64(shifted, _mm256_castpd_si256(self.magic)))
    }

    /// Residues of sums, divided by R. These are above -4 p R, since m p is p R at most, and below
    /// 2^63 R - 6 p R.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub(crate) fn reduce<const N: usize>(&self, sums: &Sums<N>) -> [__m256i; N] {
        let offset = splat(MAGIC.to_bits().wrapping_mul(sums.additions));
        let offset = _mm256_sub_epi64(self.above_zero, offset);
        let mut residues = sums.high;
        for (residue, &low) in residues.iter_mut().zip(&sums.low) {
            // At most 2 times 2^51, and so much may be added to 1.5 * 2^53 or subtracted. What is left
            // is at most 1.
            let inverse = _mm256_fmadd_pd(low, self.inverse, self.even_magic);
            let multiple =
                _mm256_fmadd_pd(low, self.inverse, _mm256_sub_pd(self.even_magic, inverse));
            // At most p + 2, which may be added to M.
            let rest = _mm256_fnmadd_pd(multiple, self.float_prime, low);
            let rest = _mm256_castpd_si256(_mm256_add_pd(rest, self.magic));
            *residue = self.folded(_mm256_add_epi64(_mm256_add_epi64(*residue, rest), offset));
        }
        residues
    }

    /// Residues of words of 63 bits.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn folded(&self, words: __m256i) -> __m256i {
        // 2^51 is 2^51 - p modulo p.
        let high = _mm256_mul_epu32(_mm256_srli_epi64::<{ WORD_BITS as i32 }>(words), self.fold);
        self.canonical(_mm256_add_epi64(_mm256_and_si256(words, self.word_mask), high))
    }
}

impl<const N: usize> Sums<N> {
    /// R times words.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub(crate) fn of(words: [__m256i; N]) -> Self {
        Self { high: words, low: [_mm256_setzero_pd(); N], additions: 0 }
    }

    /// Adds products of wholes below 2^51 in magnitude and fractions of residues.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub(crate) fn multiply_add(&mut self, wholes: [__m256d; N], fractions: [__m256d; N]) {
        let magic = _mm256_set1_pd(MAGIC);
        for vector in 0..N {
            let (whole, fraction) = (wholes[vector], fractions[vector]);
            let high = _mm256_fmadd_pd(whole, fraction, magic);
            let low = _mm256_fmadd_pd(whole, fraction, _mm256_sub_pd(magic, high));
            self.high[vector] = _mm256_add_epi64(self.high[vector], _mm256_castpd_si256(high));
            self.low[vector] = _mm256_add_pd(self.low[vector], low);
        }
        self.additions = self.additions.wrapping_add(1);
    }

    /// Makes room for [`TERMS_PER_CARRY`] more products.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub(crate) fn carry(&mut self) {
        let magic = _mm256_set1_pd(MAGIC);
        for vector in 0..N {
            let whole = _mm256_add_pd(self.low[vector], magic);
            self.high[vector] = _mm256_add_epi64(self.high[vector], _mm256_castpd_si256(whole));
            self.low[vector] = _mm256_sub_pd(self.low[vector], _mm256_sub_pd(whole, magic));
        }
        self.additions = self.additions.wrapping_add(1);
    }
}

/// Words below 2^52 as right factors: divided by R.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(crate) fn fractions(words: __m256i) -> __m256d {
    // Bits of a fraction behind those of 1.
    let one = _mm256_set1_pd(1.0);
    let above_one = _mm256_or_si256(words, _mm256_castpd_si256(one));
    _mm256_sub_pd(_mm256_castsi256_pd(above_one), one)
}

/// Lane by lane, by the sign of the first.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(crate) fn where_negative(sign: __m256i, yes: __m256i, no: __m256i) -> __m256i {
    let (yes, no) = (_mm256_castsi256_pd(yes), _mm256_castsi256_pd(no));
    _mm256_castpd_si256(_mm256_blendv_pd(no, yes, _mm256_castsi256_pd(sign)))
}

#[inline]
#[target_feature(enable = "avx2,fma")]
pub(crate) fn splat(word: u64) -> __m256i {
    _mm256_set1_epi64x(word.cast_signed())
}

#[inline]
#[target_feature(enable = "avx2,fma")]
pub(crate) fn load(words: &Lanes) -> __m256i {
    // SAFETY: the pointer is that of a reference to 32 bytes; it need not be aligned.
    unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
pub(crate) fn store(words: &mut Lanes, vector: __m256i) {
    // SAFETY: the pointer is that of an exclusive reference to 32 bytes; it need not be aligned.
    unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), vector) }
}

/// Vector `at` of a slice that has as many, which the caller has made sure of.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(crate) fn load_at(words: &[u64], at: usize) -> __m256i {
    load(&words.as_chunks().0[at])
}
