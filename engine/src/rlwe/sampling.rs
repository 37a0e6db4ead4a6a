//! Secrets and noise, drawn in constant time: no branch and no address depends on what is drawn.
//!
//! The generator is AES-128 in counter mode under a key from the operating system's entropy. Each
//! column, and each output, draws from a stream of its own, so that they can be drawn in parallel.

use thiserror::Error;
use zeroize::Zeroizing;

use super::keystream::{KEY_BYTES, Keystream, SecretBlocks};

/// Largest absolute value of an error: the difference of two sums of this many bits.
pub const ERROR_BOUND: u32 = 21;
/// σ² of the centred binomial distribution of 21 + 21 bits.
pub const ERROR_VARIANCE: f64 = 10.5;
/// Variance of a coefficient of the uniform ternary secret.
pub const SECRET_VARIANCE: f64 = 2.0 / 3.0;
/// Words drawn at a time.
const DRAWN: usize = 256;

/// The operating system has no randomness to give.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("no randomness from the operating system: {0}")]
pub struct EntropyError(getrandom::Error);

impl EntropyError {
    /// Nothing but zeros where an id was drawn.
    pub const ZEROS: Self = Self(getrandom::Error::UNEXPECTED);
}

/// Fresh random bytes of the operating system.
pub fn entropy<const BYTES: usize>() -> Result<Zeroizing<[u8; BYTES]>, EntropyError> {
    let mut bytes = Zeroizing::new([0; BYTES]);
    getrandom::fill(bytes.as_mut_slice()).map_err(EntropyError)?;
    Ok(bytes)
}

/// A generator of noise, whose key is wiped when it is dropped.
pub(crate) struct Noise(Keystream);

impl Noise {
    /// With a fresh key.
    pub(crate) fn fresh() -> Result<Self, EntropyError> {
        Ok(Self::from_key(&*entropy()?))
    }

    pub(crate) fn from_key(key: &[u8; KEY_BYTES]) -> Self {
        Self(Keystream::new(key))
    }

    /// The stream of a column or an output. To ask twice for one is to draw the same noise twice.
    pub(crate) fn stream(&self, domain: u32) -> NoiseStream<'_> {
        NoiseStream { noise: &self.0, counter: u128::from(domain) << 64 }
    }
}

/// Successive draws from a generator.
pub(crate) struct NoiseStream<'a> {
    noise: &'a Keystream,
    counter: u128,
}

impl NoiseStream<'_> {
    /// Adds to each of `sums` an error of centred binomial distribution, independent of the others:
    /// a sum of 21 random bits less a sum of 21 others.
    pub(crate) fn add_errors(&mut self, sums: &mut [i64]) {
        // The complement of random bits is random bits: subtracting b ones is adding 21 - b.
        const BITS: u64 = (1 << (2 * ERROR_BOUND)) - 1;
        self.draw(sums, |sum, word| {
            *sum += i64::from((word & BITS).count_ones()) - i64::from(ERROR_BOUND);
        });
    }

    /// Fills `values` with -1, 0 and 1, uniformly: the high part of 3 times a random word of 64 bits,
    /// less 1. A probability differs from 1/3 by less than 2^-64.
    pub(crate) fn ternary(&mut self, values: &mut [i64]) {
        self.draw(values, |value, word| *value = third(word).cast_signed() - 1);
    }

    /// Fills `values` with differences of two integers uniform in \[0, 2^bits), independent of each
    /// other; `bits` is at most 62. The distribution is triangular.
    pub(crate) fn differences(&mut self, bits: u32, values: &mut [i64]) {
        let mask = (1u64 << bits) - 1;
        self.draw(values, |value, word| *value = (word & mask).cast_signed());
        self.draw(values, |value, word| *value -= (word & mask).cast_signed());
    }

    /// Fills `words` with random bits.
    pub(crate) fn words(&mut self, words: &mut [i64]) {
        self.draw(words, |word, bits| *word = bits.cast_signed());
    }

    #[inline(always)]
    fn draw(&mut self, values: &mut [i64], take: impl Fn(&mut i64, u64)) {
        let (mut words, mut blocks) = (Zeroizing::new([0; DRAWN]), SecretBlocks::default());
        for values in values.chunks_mut(DRAWN) {
            self.noise.fill_secret(self.counter, words.as_mut_slice(), &mut blocks);
            self.counter += words.len() as u128;
            values.iter_mut().zip(words.iter()).for_each(|(value, word)| take(value, *word));
        }
    }
}

/// Where uniform integers come from: a generator, or all of them one after the other in tests.
pub(crate) trait Uniform {
    /// An integer uniform in \[0, bound), of a bound of at least 1.
    fn below(&mut self, bound: u64) -> u64;

    /// Puts `values` in a uniform order (Fisher and Yates).
    fn shuffle<T>(&mut self, values: &mut [T]) {
        for last in (1..values.len()).rev() {
            let other = self.below(last as u64 + 1);
            values.swap(last, usize::try_from(other).expect("an index"));
        }
    }
}

/// Uniform draws from a generator, by rejection: how long they take does not depend on what is drawn,
/// only on what is not.
pub(crate) struct UniformDraws<'a> {
    stream: NoiseStream<'a>,
    words: Zeroizing<[i64; DRAWN]>,
    used: usize,
}

impl<'a> UniformDraws<'a> {
    pub(crate) fn new(stream: NoiseStream<'a>) -> Self {
        Self { stream, words: Zeroizing::new([0; DRAWN]), used: DRAWN }
    }

    /// 64 random bits.
    #[inline]
    pub(crate) fn word(&mut self) -> u64 {
        if self.used == DRAWN {
            self.stream.words(self.words.as_mut_slice());
            self.used = 0;
        }
        self.used += 1;
        self.words[self.used - 1].cast_unsigned()
    }
}

impl Uniform for UniformDraws<'_> {
    /// The high part of `bound` times a random word, of words for which the low part is at least
    /// `2^64 mod bound` (Lemire, *Fast random integer generation in an interval*, 2019).
    #[inline]
    fn below(&mut self, bound: u64) -> u64 {
        loop {
            let product = u128::from(self.word()) * u128::from(bound);
            // The halves of a value, not its value.
            #[allow(clippy::cast_possible_truncation)]
            let (low, high) = (product as u64, (product >> 64) as u64);
            if low >= bound || low >= bound.wrapping_neg() % bound {
                return high;
            }
        }
    }
}

/// The high part, 0 to 2, of 3 times a word.
#[inline(always)]
fn third(word: u64) -> u64 {
    let low = (word & u64::from(u32::MAX)) * 3;
    ((word >> 32) * 3 + (low >> 32)) >> 32
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNT: usize = 1 << 20;

    fn drawn(draw: impl Fn(&mut NoiseStream<'_>, &mut [i64])) -> Vec<i64> {
        let mut values = vec![0; COUNT];
        draw(&mut Noise::from_key(&[5; KEY_BYTES]).stream(9), &mut values);
        values
    }

    fn mean_and_variance(values: &[i64]) -> (f64, f64) {
        let count = values.len() as f64;
        let mean = values.iter().map(|&value| value as f64).sum::<f64>() / count;
        let squares = values.iter().map(|&value| (value as f64 - mean).powi(2)).sum::<f64>();
        (mean, squares / count)
    }

    fn frequency(values: &[i64], is: impl Fn(i64) -> bool) -> f64 {
        values.iter().filter(|&&value| is(value)).count() as f64 / values.len() as f64
    }

    #[test]
    fn errors_are_centred_binomial() {
        let errors = drawn(|stream, values| stream.add_errors(values));
        let (mean, variance) = mean_and_variance(&errors);
        assert!(mean.abs() < 0.015, "{mean}");
        assert!((variance - ERROR_VARIANCE).abs() < 0.06, "{variance}");
        assert!(errors.iter().all(|error| error.unsigned_abs() <= u64::from(ERROR_BOUND)));
        // C(42, 21 + k) / 2^42.
        let mut probability = (1..=21).fold(1.0, |c, i| c * f64::from(21 + i) / f64::from(i));
        probability /= (1u64 << 42) as f64;
        for k in 0..12 {
            for value in [k, -k] {
                let found = frequency(&errors, |error| error == value);
                let tolerance = 5.0 * (probability / COUNT as f64).sqrt();
                assert!((found - probability).abs() < tolerance, "{value}: {found}");
            }
            probability *= (21 - k) as f64 / (22 + k) as f64;
        }
    }

    #[test]
    fn ternary_values_are_uniform() {
        let values = drawn(|stream, values| stream.ternary(values));
        for value in -1..=1 {
            let found = frequency(&values, |drawn| drawn == value);
            assert!((found - 1.0 / 3.0).abs() < 0.0025, "{value}: {found}");
        }
    }

    #[test]
    fn draws_below_a_bound_are_uniform() {
        let noise = Noise::from_key(&[6; KEY_BYTES]);
        let mut draws = UniformDraws::new(noise.stream(1));
        for bound in [1, 2, 7, 31] {
            let mut counts = vec![0u32; usize::try_from(bound).unwrap()];
            (0..1 << 18).for_each(|_| counts[usize::try_from(draws.below(bound)).unwrap()] += 1);
            let expected = f64::from(1 << 18) / bound as f64;
            let off = |count: &u32| (f64::from(*count) - expected).abs() < 5.0 * expected.sqrt();
            assert!(counts.iter().all(off), "{counts:?}");
        }
        // Rejection is frequent here: a quarter of the words.
        let bound = 3 << 62;
        let high = (0..1 << 16).filter(|_| draws.below(bound) >= 1 << 63).count();
        assert!((high as f64 / 65536.0 - 1.0 / 3.0).abs() < 0.01, "{high}");
    }

    #[test]
    fn every_order_is_as_likely() {
        let noise = Noise::from_key(&[7; KEY_BYTES]);
        let mut draws = UniformDraws::new(noise.stream(1));
        let mut counts = std::collections::HashMap::new();
        for _ in 0..24 << 12 {
            let mut values = [0, 1, 2, 3];
            draws.shuffle(&mut values);
            *counts.entry(values).or_insert(0u32) += 1;
        }
        assert_eq!(counts.len(), 24);
        let squares = counts.values().map(|&count| (f64::from(count) - 4096.0).powi(2) / 4096.0);
        // chi^2 of 23 degrees of freedom is above 60 with probability 4e-5.
        assert!(squares.sum::<f64>() < 60.0, "{counts:?}");
    }

    #[test]
    fn ternary_takes_the_high_part_of_three_times_the_word() {
        for word in [0, 1, u64::MAX / 3, u64::MAX / 3 + 1, u64::MAX / 3 * 2 + 1, u64::MAX] {
            assert_eq!(u128::from(third(word)), (3 * u128::from(word)) >> 64);
        }
    }

    #[test]
    fn differences_are_triangular() {
        for bits in [0, 1, 20, 48, 62] {
            let width = (1u64 << bits) as f64;
            let values = drawn(|stream, values| stream.differences(bits, values));
            assert!(values.iter().all(|value| value.unsigned_abs() < 1 << bits));
            let (mean, variance) = mean_and_variance(&values);
            let expected = (width * width - 1.0) / 6.0;
            assert!(mean.abs() <= 0.003 * width, "{bits}: {mean}");
            assert!((variance - expected).abs() <= 0.004 * expected, "{bits}: {variance}");
            // A corner of the triangle has 1/8 of it; each half a half.
            if bits > 1 {
                let corner = frequency(&values, |value| value as f64 > width / 2.0);
                assert!((corner - 0.125).abs() < 0.002, "{bits}: {corner}");
                let positive = frequency(&values, |value| value > 0);
                assert!((positive - 0.5).abs() < 0.003, "{bits}: {positive}");
            }
        }
    }

    #[test]
    fn streams_differ_and_each_is_its_own() {
        let noise = Noise::from_key(&[5; KEY_BYTES]);
        let draw = |domain| {
            let mut values = vec![0; 512];
            noise.stream(domain).differences(62, &mut values);
            values
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        let mut one = noise.stream(1);
        let (mut first, mut second) = ([0; 512], [0; 512]);
        one.differences(62, &mut first);
        one.differences(62, &mut second);
        assert_eq!(first.to_vec(), draw(1));
        assert_ne!(first, second);
    }

    #[test]
    fn generators_are_fresh() {
        let draw = || {
            let mut values = [0; 16];
            Noise::fresh().unwrap().stream(0).differences(62, &mut values);
            values
        };
        assert_ne!(draw(), draw());
    }
}
