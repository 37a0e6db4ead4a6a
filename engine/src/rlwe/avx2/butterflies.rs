//! Butterflies of transforms modulo a prime, by floats.
//!
//! Residues are floats of any representative z. With w a root, centred, and the float w' next to w / p,
//!
//! ```text
//! q = z w' rounded to an integer     h = z w rounded to a float     l = z w - h, exact
//! (h - q p) + l = z w - q p
//! ```
//!
//! Both operations of the last line are exact: their results are integers below 2^53. The quotient q
//! is wrong by what rounding w' makes of it, |z| 2^-55 at most, and by 1/2: in units of p, a product is
//! at most 1/2 + |z| / 16. That needs z w' below 2^51, so |z| at most 2: the bounds of the steps below
//! are in these units.
//!
//! Secrets are transformed too: nothing branches on a word, and no float is below the normal ones.

use std::arch::x86_64::{
    __m256d, _mm256_add_pd, _mm256_castpd_si256, _mm256_castsi256_pd, _mm256_div_pd,
    _mm256_fmadd_pd, _mm256_fmsub_pd, _mm256_fnmadd_pd, _mm256_mul_pd, _mm256_permute2f128_pd,
    _mm256_set1_pd, _mm256_sub_epi64, _mm256_sub_pd, _mm256_unpackhi_pd, _mm256_unpacklo_pd,
};

use super::{Field, Lanes, load, store};
use crate::rlwe::montgomery::Montgomery;

/// A root of unity w, centred, and w / p.
pub(super) type Root = [f64; 2];

/// Bits of the roots of three butterflies in every lane.
pub(super) type LastRoots = [[Lanes; 2]; 3];

/// A root in every lane, or one for each.
pub(super) type RootLanes = [__m256d; 2];

#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn spread([whole, quotient]: Root) -> RootLanes {
    [_mm256_set1_pd(whole), _mm256_set1_pd(quotient)]
}

/// A residue as a factor.
#[allow(clippy::cast_precision_loss, reason = "below 2^51")]
pub(super) fn as_root(field: &Montgomery, word: u64) -> Root {
    let (word, prime) = (word.cast_signed(), field.modulus().cast_signed());
    let centred = if word > prime / 2 { word - prime } else { word };
    [centred as f64, centred as f64 / prime as f64]
}

/// Steps of transforms modulo a prime.
pub(super) struct Steps {
    field: Field,
    prime: __m256d,
    /// 1 / p.
    inverse: __m256d,
    magic: __m256d,
}

impl Steps {
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub(super) fn new(field: &Montgomery) -> Self {
        let field = Field::new(field);
        let inverse = _mm256_div_pd(_mm256_set1_pd(1.0), field.float_prime);
        Self { field, prime: field.float_prime, inverse, magic: field.magic }
    }

    /// `z w`: at most 1/2 + |z| / 16.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn times(&self, z: __m256d, [whole, quotient]: RootLanes) -> __m256d {
        let rounded = _mm256_sub_pd(_mm256_fmadd_pd(z, quotient, self.magic), self.magic);
        let high = _mm256_mul_pd(z, whole);
        let low = _mm256_fmsub_pd(z, whole, high);
        _mm256_add_pd(_mm256_fnmadd_pd(rounded, self.prime, high), low)
    }

    /// Adds a product of words.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub(super) fn multiply_add(&self, sum: &mut Lanes, left: &Lanes, right: &Lanes) {
        let (a, b) = (self.load_words(left), self.load_words(right));
        // As above, but that the product and 1 / p are rounded before they are multiplied, which adds 1/2
        // to the error of a quotient below 2^51: at most 1.
        let high = _mm256_mul_pd(a, b);
        let rounded = _mm256_sub_pd(_mm256_fmadd_pd(high, self.inverse, self.magic), self.magic);
        let low = _mm256_fmsub_pd(a, b, high);
        let product = _mm256_add_pd(_mm256_fnmadd_pd(rounded, self.prime, high), low);
        let with_sum = _mm256_add_pd(product, self.load_words(sum));
        self.store_words(sum, self.centred(with_sum));
    }

    /// The representative next to 0, but for rounding: at most 1/2 and a little.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn centred(&self, z: __m256d) -> __m256d {
        let quotient = _mm256_sub_pd(_mm256_fmadd_pd(z, self.inverse, self.magic), self.magic);
        _mm256_fnmadd_pd(quotient, self.prime, z)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn load_words(&self, words: &Lanes) -> __m256d {
        self.field.wholes(load(words))
    }

    /// Canonical residues of what is below 1.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn store_words(&self, words: &mut Lanes, z: __m256d) {
        let shifted = _mm256_castpd_si256(_mm256_add_pd(z, self.magic));
        let integers = _mm256_sub_epi64(shifted, _mm256_castpd_si256(self.magic));
        store(words, self.field.residues(integers));
    }

    /// `a + w b` and `a - w b`.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn butterfly(&self, a: __m256d, b: __m256d, root: RootLanes) -> [__m256d; 2] {
        let product = self.times(b, root);
        [_mm256_add_pd(a, product), _mm256_sub_pd(a, product)]
    }

    /// A block's quarters a, b, c, d by the root of the block, and by those of its halves. If what comes
    /// is at most z, what leaves is at most 1.57 + z / 15: 1.68 at most, pass after pass.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn quarters(&self, [a, b, c, d]: [__m256d; 4], roots: [RootLanes; 3]) -> [__m256d; 4] {
        let [outer, left, right] = roots;
        let [a, c] = self.butterfly(self.centred(a), c, outer);
        let [b, d] = self.butterfly(self.centred(b), d, outer);
        let ([a, b], [c, d]) = (self.butterfly(a, b, left), self.butterfly(c, d, right));
        [a, b, c, d]
    }

    /// The same backward: what comes is at most 1, and so is what leaves.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn quarters_back(&self, [a, b, c, d]: [__m256d; 4], roots: [RootLanes; 3]) -> [__m256d; 4] {
        let [outer, left, right] = roots;
        let [a, b, c, d] = self.halves_back([a, b, c, d], [left, right]);
        let [sum, difference] = [_mm256_add_pd(b, d), _mm256_sub_pd(b, d)];
        [
            _mm256_add_pd(a, c),
            self.centred(sum),
            self.times(_mm256_sub_pd(a, c), outer),
            self.times(difference, outer),
        ]
    }

    /// The inner level backward: of what is at most 1, a and c are at most 1/2 and a little, b and d 5/8.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn halves_back(
        &self,
        [a, b, c, d]: [__m256d; 4],
        [left, right]: [RootLanes; 2],
    ) -> [__m256d; 4] {
        [
            self.centred(_mm256_add_pd(a, b)),
            self.times(_mm256_sub_pd(a, b), left),
            self.centred(_mm256_add_pd(c, d)),
            self.times(_mm256_sub_pd(c, d), right),
        ]
    }

    /// Two levels of a block, which is of words or of floats.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub(super) fn two_levels<const OF_WORDS: bool>(
        &self,
        block: &mut [Lanes],
        roots: [RootLanes; 3],
    ) {
        for [a, b, c, d] in quarters_of(block) {
            let z = match OF_WORDS {
                true => {
                    [self.load_words(a), self.load_words(b), self.load_words(c), self.load_words(d)]
                }
                false => load_all([a, b, c, d]),
            };
            store_all([a, b, c, d], self.quarters(z, roots));
        }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub(super) fn two_levels_back(&self, block: &mut [Lanes], roots: [RootLanes; 3]) {
        for [a, b, c, d] in quarters_of(block) {
            let z = self.quarters_back(load_all([a, b, c, d]), roots);
            store_all([a, b, c, d], z);
        }
    }

    /// What leaves is at most 1.2.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub(super) fn one_level(&self, block: &mut [Lanes], root: RootLanes) {
        let (first, second) = block.split_at_mut(block.len() / 2);
        for (a, b) in first.iter_mut().zip(second) {
            let z = self.butterfly(self.centred(load_floats(a)), load_floats(b), root);
            store_floats(a, z[0]);
            store_floats(b, z[1]);
        }
    }

    /// What comes is at most 1, and what leaves 5/8.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub(super) fn one_level_back(&self, block: &mut [Lanes], root: RootLanes) {
        let (first, second) = block.split_at_mut(block.len() / 2);
        for (a, b) in first.iter_mut().zip(second) {
            let z = [load_floats(a), load_floats(b)];
            store_floats(a, self.centred(_mm256_add_pd(z[0], z[1])));
            store_floats(b, self.times(_mm256_sub_pd(z[0], z[1]), root));
        }
    }

    /// The last two levels of four blocks of four points, to words.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub(super) fn last_levels(&self, blocks: &mut [Lanes; 4], roots: &LastRoots) {
        let z = transposed(load_all(blocks.each_ref()));
        let [a, b, c, d] = transposed(self.quarters(z, load_roots(roots)));
        self.store_words(&mut blocks[0], self.centred(a));
        self.store_words(&mut blocks[1], self.centred(b));
        self.store_words(&mut blocks[2], self.centred(c));
        self.store_words(&mut blocks[3], self.centred(d));
    }

    /// The first two levels backward of four blocks of four points, from words.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub(super) fn first_levels(&self, blocks: &mut [Lanes; 4], roots: &LastRoots) {
        let [a, b, c, d] = blocks.each_ref();
        let z = [self.load_words(a), self.load_words(b), self.load_words(c), self.load_words(d)];
        let z = transposed(self.quarters_back(transposed(z), load_roots(roots)));
        store_all(blocks.each_mut(), z);
    }

    /// The last two levels backward of all, divided by N, to words.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub(super) fn last_levels_back(
        &self,
        block: &mut [Lanes],
        inner: [RootLanes; 2],
        scales: [RootLanes; 2],
    ) {
        let [scale, scaled_root] = scales;
        for [a, b, c, d] in quarters_of(block) {
            let [za, zb, zc, zd] = self.halves_back(load_all([a, b, c, d]), inner);
            self.store_words(a, self.times(_mm256_add_pd(za, zc), scale));
            self.store_words(b, self.times(_mm256_add_pd(zb, zd), scale));
            self.store_words(c, self.times(_mm256_sub_pd(za, zc), scaled_root));
            self.store_words(d, self.times(_mm256_sub_pd(zb, zd), scaled_root));
        }
    }
}

/// Vectors of the four quarters of a block, side by side.
#[inline]
fn quarters_of(block: &mut [Lanes]) -> impl Iterator<Item = [&mut Lanes; 4]> {
    let (first, second) = block.split_at_mut(block.len() / 2);
    let (a, b) = first.split_at_mut(first.len() / 2);
    let (c, d) = second.split_at_mut(second.len() / 2);
    a.iter_mut().zip(b).zip(c).zip(d).map(|(((a, b), c), d)| [a, b, c, d])
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn load_floats(words: &Lanes) -> __m256d {
    _mm256_castsi256_pd(load(words))
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn store_floats(words: &mut Lanes, z: __m256d) {
    store(words, _mm256_castpd_si256(z));
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn load_all([a, b, c, d]: [&Lanes; 4]) -> [__m256d; 4] {
    [load_floats(a), load_floats(b), load_floats(c), load_floats(d)]
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn store_all([a, b, c, d]: [&mut Lanes; 4], z: [__m256d; 4]) {
    store_floats(a, z[0]);
    store_floats(b, z[1]);
    store_floats(c, z[2]);
    store_floats(d, z[3]);
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn load_roots([outer, left, right]: &LastRoots) -> [RootLanes; 3] {
    [
        [load_floats(&outer[0]), load_floats(&outer[1])],
        [load_floats(&left[0]), load_floats(&left[1])],
        [load_floats(&right[0]), load_floats(&right[1])],
    ]
}

/// Lane j of vector i becomes lane i of vector j.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn transposed([a, b, c, d]: [__m256d; 4]) -> [__m256d; 4] {
    let pairs = [
        _mm256_unpacklo_pd(a, b),
        _mm256_unpackhi_pd(a, b),
        _mm256_unpacklo_pd(c, d),
        _mm256_unpackhi_pd(c, d),
    ];
    [
        _mm256_permute2f128_pd::<0x20>(pairs[0], pairs[2]),
        _mm256_permute2f128_pd::<0x20>(pairs[1], pairs[3]),
        _mm256_permute2f128_pd::<0x31>(pairs[0], pairs[2]),
        _mm256_permute2f128_pd::<0x31>(pairs[1], pairs[3]),
    ]
}
