//! Transforms of Z_p\[X\]/(X^N + 1): the butterflies of Cooley and Tukey forward and of Gentleman and
//! Sande backward, two levels at a time.

use super::LANES;
use super::butterflies::{LastRoots, Root, RootLanes, Steps, as_root, spread};
use crate::rlwe::kernel::Avx2;
use crate::rlwe::montgomery::Montgomery;

/// The least N: a part has a block of four vectors.
pub(crate) const MIN_DIMENSION: usize = 64;
/// The largest p: what is 1 and a little must be below 2^51.
pub(crate) const MAX_MODULUS: u64 = (1 << 51) - (1 << 8);

/// Blocks of the first pass, each of which is then transformed while it is in the nearest cache.
const PARTS: usize = 4;

/// What the transforms of one ring and prime need.
pub(crate) struct Transform {
    dimension: usize,
    field: Montgomery,
    forward: Roots,
    inverse: Roots,
    /// 1 / N, and the root of the last level backward divided by N.
    scales: [Root; 2],
}

/// Block i of a level of m blocks has the root m + i, a power of psi in bit-reversed order.
struct Roots {
    /// Of all levels but the last two.
    levels: Vec<Root>,
    /// Of the last two, for four blocks of four points at a time.
    last: Vec<LastRoots>,
}

impl Transform {
    /// For a 2N-th root of unity psi modulo a prime below 2^51.
    pub(crate) fn new(field: Montgomery, dimension: usize, psi: u64) -> Self {
        let inverse_psi = field.inverse(psi);
        let inverse = |at| field.power(inverse_psi, at);
        let part = field.inverse(dimension as u64);
        // The root with index 1 is psi^(N/2).
        let last = field.multiply(part, inverse(dimension as u64 / 2));
        Self {
            dimension,
            field,
            forward: Roots::new(&field, dimension, psi),
            inverse: Roots::new(&field, dimension, inverse_psi),
            scales: [part, last].map(|word| as_root(&field, word)),
        }
    }
}

impl Roots {
    fn new(field: &Montgomery, dimension: usize, psi: u64) -> Self {
        let bits = dimension.ilog2();
        let mut roots = vec![[0.0; 2]; dimension];
        let (factor, mut power) = (field.montgomery_form(psi), 1);
        for exponent in 0..dimension {
            roots[exponent.reverse_bits() >> (usize::BITS - bits)] = as_root(field, power);
            power = field.product(power, factor);
        }
        let of_four = |at: usize, step: usize| {
            [0, 1]
                .map(|part| [0, 1, 2, 3].map(|lane: usize| roots[at + step * lane][part].to_bits()))
        };
        let last = (0..dimension / 4).step_by(4).map(|block| {
            let (outer, inner) = (dimension / 4 + block, dimension / 2 + 2 * block);
            [of_four(outer, 1), of_four(inner, 2), of_four(inner + 1, 2)]
        });
        let last = last.collect();
        roots.truncate(dimension / 4);
        Self { levels: roots, last }
    }
}

impl Roots {
    /// Of a block, and of its halves.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn of_block(&self, block: usize) -> [RootLanes; 3] {
        let Self { levels, .. } = self;
        [spread(levels[block]), spread(levels[2 * block]), spread(levels[2 * block + 1])]
    }
}

// SAFETY, of all calls below: `self` exists only where `Avx2::detect` has found AVX2 and FMA, which is all that
// the functions ask for.
impl Avx2 {
    /// Coefficients to values, in the order of [`PrimeRing`](crate::rlwe::prime_ring::PrimeRing).
    pub(crate) fn forward(self, transform: &Transform, words: &mut [u64]) {
        // SAFETY: as above.
        unsafe { forward(transform, words) }
    }

    /// Values to coefficients.
    pub(crate) fn inverse(self, transform: &Transform, words: &mut [u64]) {
        // SAFETY: as above.
        unsafe { inverse(transform, words) }
    }

    /// Adds `left * right`, point by point.
    pub(crate) fn multiply_add(
        self,
        transform: &Transform,
        sum: &mut [u64],
        left: &[u64],
        right: &[u64],
    ) {
        // SAFETY: as above.
        unsafe { multiply_add(transform, sum, left, right) }
    }
}

#[target_feature(enable = "avx2,fma")]
fn forward(transform: &Transform, words: &mut [u64]) {
    assert_eq!(words.len(), transform.dimension, "coefficients");
    let (steps, roots) = (Steps::new(&transform.field), &transform.forward);
    let words = words.as_chunks_mut().0;
    steps.two_levels::<true>(words, roots.of_block(1));
    let vectors = words.len() / PARTS;
    for (part, words) in words.chunks_exact_mut(vectors).enumerate() {
        // Vectors of a block, and the root of the first one.
        let (mut length, mut first) = (vectors, PARTS + part);
        if !(length * LANES).ilog2().is_multiple_of(2) {
            steps.one_level(words, spread(roots.levels[first]));
            (length, first) = (length / 2, 2 * first);
        }
        while length > 1 {
            for (block, words) in words.chunks_exact_mut(length).enumerate() {
                steps.two_levels::<false>(words, roots.of_block(first + block));
            }
            (length, first) = (length / 4, 4 * first);
        }
        let last = &roots.last[part * vectors / LANES..];
        for (words, roots) in words.as_chunks_mut().0.iter_mut().zip(last) {
            steps.last_levels(words, roots);
        }
    }
}

#[target_feature(enable = "avx2,fma")]
fn inverse(transform: &Transform, words: &mut [u64]) {
    assert_eq!(words.len(), transform.dimension, "values");
    let (steps, roots) = (Steps::new(&transform.field), &transform.inverse);
    let words = words.as_chunks_mut().0;
    let vectors = words.len() / PARTS;
    for (part, words) in words.chunks_exact_mut(vectors).enumerate() {
        let last = &roots.last[part * vectors / LANES..];
        for (words, roots) in words.as_chunks_mut().0.iter_mut().zip(last) {
            steps.first_levels(words, roots);
        }
        let (mut length, mut first) = (4, (PARTS + part) * vectors / 4);
        while length <= vectors {
            for (block, words) in words.chunks_exact_mut(length).enumerate() {
                steps.two_levels_back(words, roots.of_block(first + block));
            }
            (length, first) = (4 * length, first / 4);
        }
        if length / 2 == vectors {
            steps.one_level_back(words, spread(roots.levels[PARTS + part]));
        }
    }
    let [_, left, right] = roots.of_block(1);
    let [scale, scaled_root] = transform.scales;
    steps.last_levels_back(words, [left, right], [spread(scale), spread(scaled_root)]);
}

#[target_feature(enable = "avx2,fma")]
fn multiply_add(transform: &Transform, sum: &mut [u64], left: &[u64], right: &[u64]) {
    let lengths = [sum.len(), left.len(), right.len()];
    assert_eq!(lengths, [transform.dimension; 3], "points");
    let steps = Steps::new(&transform.field);
    let factors = left.as_chunks().0.iter().zip(right.as_chunks().0);
    for (sum, (left, right)) in sum.as_chunks_mut().0.iter_mut().zip(factors) {
        steps.multiply_add(sum, left, right);
    }
}
