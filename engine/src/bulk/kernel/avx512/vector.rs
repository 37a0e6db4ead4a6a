//! Residues and sums of products, eight to a vector.
//!
//! The low and the high halves of products are summed apart, each in words of 64 bits, and reduced
//! once for each component: see [`montgomery`](super::super::montgomery).

#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m512i, _mm512_add_epi64, _mm512_loadu_si512, _mm512_madd52hi_epu64, _mm512_madd52lo_epu64,
    _mm512_min_epu64, _mm512_set1_epi64, _mm512_setzero_si512, _mm512_srli_epi64,
    _mm512_storeu_si512, _mm512_sub_epi64,
};

use super::super::montgomery::{Modulus, RADIX_BITS};
use super::super::{LANES, VECTORS};

/// Words of [`Points`](super::super::Points) in registers.
pub(super) type Vectors = [__m512i; VECTORS];

/// A prime, in every lane.
#[derive(Clone, Copy)]
pub(super) struct Field {
    pub(super) modulus: Modulus,
    prime: __m512i,
    twice: __m512i,
    four_times: __m512i,
    inverse: __m512i,
    pub(super) zero: __m512i,
}

impl Field {
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(super) fn new(modulus: Modulus) -> Self {
        Self {
            modulus,
            prime: splat(modulus.prime),
            twice: splat(2 * modulus.prime),
            four_times: splat(4 * modulus.prime),
            inverse: splat(modulus.inverse),
            zero: _mm512_setzero_si512(),
        }
    }

    /// Residues of words below 4p.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(super) fn canonical4(&self, words: __m512i) -> __m512i {
        // What is too small to subtract from wraps to a large number.
        let words = _mm512_min_epu64(words, _mm512_sub_epi64(words, self.twice));
        _mm512_min_epu64(words, _mm512_sub_epi64(words, self.prime))
    }

    /// Residues of words below 8p.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(super) fn canonical8(&self, words: __m512i) -> __m512i {
        let words = _mm512_min_epu64(words, _mm512_sub_epi64(words, self.four_times));
        self.canonical4(words)
    }

    /// Divides sums of products by R; not yet canonical.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(super) fn reduce(&self, sum: Sum) -> __m512i {
        // A multiplication reads the low 52 bits of its factors.
        let multiple = _mm512_madd52lo_epu64(self.zero, sum.low, self.inverse);
        let low = _mm512_madd52lo_epu64(sum.low, multiple, self.prime);
        let high = _mm512_madd52hi_epu64(sum.high, multiple, self.prime);
        _mm512_add_epi64(high, _mm512_srli_epi64::<RADIX_BITS>(low))
    }

    /// The difference of canonical words.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(super) fn difference(&self, left: __m512i, right: __m512i) -> __m512i {
        let difference = _mm512_sub_epi64(left, right);
        _mm512_min_epu64(difference, _mm512_add_epi64(difference, self.prime))
    }
}

/// `low + 2^52 high`. Words of 52 bits are added, up to 2^12 of them.
#[derive(Clone, Copy)]
pub(super) struct Sum {
    pub(super) low: __m512i,
    pub(super) high: __m512i,
}

impl Sum {
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(super) fn multiply_add(self, left: __m512i, right: __m512i) -> Self {
        Self {
            low: _mm512_madd52lo_epu64(self.low, left, right),
            high: _mm512_madd52hi_epu64(self.high, left, right),
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn splat(word: u64) -> __m512i {
    _mm512_set1_epi64(word.cast_signed())
}

/// The first [`VECTORS`] of a slice that has as many.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_all(words: &[[u64; LANES]]) -> Vectors {
    let mut vectors = [_mm512_setzero_si512(); VECTORS];
    for (vector, words) in vectors.iter_mut().zip(words) {
        // SAFETY: the pointer is that of a reference to 64 bytes; it need not be aligned.
        *vector = unsafe { _mm512_loadu_si512(words.as_ptr().cast()) };
    }
    vectors
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store_all(words: &mut [[u64; LANES]], vectors: &Vectors) {
    for (words, &vector) in words.iter_mut().zip(vectors) {
        // SAFETY: the pointer is that of an exclusive reference to 64 bytes; it need not be
        // aligned.
        unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), vector) };
    }
}
