//! Noise that drowns the noise of an output, which depends on the model.
//!
//! The phase of an output is `t^-1 m + e`. Added is the difference of a sum of two uniform integers
//! and its middle,
//!
//! ```text
//! F = U1 + U2 - (M1 + M2) / 2 + 1,     Ui uniform in [0, Mi)
//! ```
//!
//! whose distribution is a trapezoid: with M1 >= M2, `P(F = x)` climbs in M2 steps to 1 / M1, stays,
//! and falls again. How much of e is left in F + e: the squared Hellinger distance of F from F + 1 is
//!
//! ```text
//! h^2 = 1/2 sum over x of (sqrt P(F = x) - sqrt P(F = x - 1))^2
//!     = 1/(M1 M2) sum over j = 1..M2 of (sqrt j - sqrt(j - 1))^2  <=  (5 + ln M2) / (4 M1 M2)
//! ```
//!
//! so a flood of widths M1 and M2 hides as well as a triangle of width sqrt(M1 M2), which is what the
//! bulk engine draws. But here the sum of both fills what a reply leaves, q / t: of an output that is
//! not reached, the message modulo t is then nearly uniform whatever was added to its phase, which
//! blunts noise that a dishonest owner has put into its bits or keys. Nothing is cut or rounded: F
//! never exceeds (M1 + M2) / 2.
//!
//! F is drawn in constant time. `M = factor 2^bits`: U is an integer uniform below the factor, times
//! 2^bits, plus that many random bits. The first is the high part of the factor times a random word
//! of 128 bits, off by less than 2^-104.

use zeroize::Zeroizing;

use super::parameters::FloodWidth;
use super::ring::RowRing;
use crate::rlwe::montgomery::low;
use crate::rlwe::sampling::UniformDraws;

/// Bits of the digits in which F is summed: sums of some digits are residues of every prime.
const DIGIT_BITS: u32 = 48;
/// Digits of the widest flood: the moduli have 408 bits.
const MAX_FLOOD_DIGITS: usize = 10;

/// The flood of some ring.
#[derive(Debug, Clone)]
pub(super) struct Trapezoid {
    widths: [FloodWidth; 2],
    /// For each prime: `2^(48 i)` for each digit, in Montgomery form.
    powers: Vec<[u64; MAX_FLOOD_DIGITS]>,
    /// For each prime: `(M1 + M2) / 2 - 1`.
    middles: Vec<u64>,
}

/// F, before its middle is subtracted; least significant digit first. Wiped when dropped.
pub(super) struct FloodDraw(Zeroizing<[u64; MAX_FLOOD_DIGITS]>);

impl Trapezoid {
    /// Of valid parameters.
    pub(super) fn new(widths: [FloodWidth; 2], ring: &RowRing) -> Self {
        let fields = ring.primes().iter().map(|prime| prime.montgomery);
        let powers = fields.clone().map(|field| {
            let exponents = (0..).step_by(DIGIT_BITS as usize);
            let mut powers = [0; MAX_FLOOD_DIGITS];
            for (power, exponent) in powers.iter_mut().zip(exponents) {
                *power = field.montgomery_form(field.power(2, exponent));
            }
            powers
        });
        let middles = fields.map(|field| {
            // Each width is even.
            let half = |width: FloodWidth| {
                field.multiply(width.factor.into(), field.power(2, u64::from(width.bits) - 1))
            };
            field.subtract(field.add(half(widths[0]), half(widths[1])), 1)
        });
        Self { widths, powers: powers.collect(), middles: middles.collect() }
    }

    pub(super) fn draw(&self, draws: &mut UniformDraws<'_>) -> FloodDraw {
        let mut digits = Zeroizing::new([0; MAX_FLOOD_DIGITS]);
        for width in self.widths {
            let (whole, rest) = (width.bits / DIGIT_BITS, width.bits % DIGIT_BITS);
            let mut last = 0;
            for digit in &mut digits[..whole as usize] {
                *digit += draws.word() >> (u64::BITS - DIGIT_BITS);
                last += 1;
            }
            // Below 2^24 2^47.
            let top = u128::from(below(width.factor, draws)) << rest;
            let top = top + u128::from(draws.word() & ((1 << rest) - 1));
            digits[last] += low(top) & ((1 << DIGIT_BITS) - 1);
            digits[last + 1] += low(top >> DIGIT_BITS);
        }
        FloodDraw(digits)
    }

    /// `F mod p` for a prime of the ring.
    pub(super) fn residue(&self, draw: &FloodDraw, ring: &RowRing, prime: usize) -> u64 {
        let field = &ring.primes()[prime].montgomery;
        let digits = draw.0.iter().zip(&self.powers[prime]);
        let sum =
            digits.fold(0, |sum, (&digit, &power)| field.add(sum, field.product(digit, power)));
        field.subtract(sum, self.middles[prime])
    }
}

/// Uniform below a factor of at most 24 bits.
fn below(factor: u32, draws: &mut UniformDraws<'_>) -> u64 {
    let (high, low_word) = (draws.word(), draws.word());
    let carry = (u128::from(low_word) * u128::from(factor)) >> 64;
    low((u128::from(high) * u128::from(factor) + carry) >> 64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rlwe::sampling::Noise;
    use crate::rows::tests::models::{centred, parameters};

    /// F as integers, modulo the first two primes.
    fn drawn(widths: [FloodWidth; 2], count: usize) -> Vec<f64> {
        let ring = RowRing::new(&parameters().keys).unwrap();
        let flood = Trapezoid::new(widths, &ring);
        let noise = Noise::from_key(&[9; 16]);
        let mut draws = UniformDraws::new(noise.stream(0));
        let values = (0..count).map(|_| {
            let draw = flood.draw(&mut draws);
            centred(&ring, &[0, 1, 2].map(|prime| flood.residue(&draw, &ring, prime)))
        });
        values.collect()
    }

    #[test]
    fn floods_are_trapezoids_at_any_width() {
        let width = |factor, bits| FloodWidth { factor, bits };
        let cases = [
            [width(3, 1), width(1, 1)],
            [width(5, 47), width(1 << 24, 20)],
            [width(0xff_ffff, 48), width(7, 49)],
            [width(40_000, 95), width(1, 96)],
            [width(65_535, 120), width(65_535, 110)],
        ];
        for widths in cases {
            let [first, second] = widths.map(|width| width.log2().exp2());
            let values = drawn(widths, 1 << 14);
            let most = (first + second) / 2.0;
            assert!(values.iter().all(|value| value.abs() < most), "{widths:?}");
            let count = values.len() as f64;
            let mean = values.iter().sum::<f64>() / count;
            let square = values.iter().map(|value| value * value).sum::<f64>() / count;
            let variance = (first.powi(2) + second.powi(2) - 2.0) / 12.0;
            assert!(mean.abs() < 4.0 * (variance / count).sqrt() + 1e-9, "{widths:?}: {mean}");
            assert!((square / variance - 1.0).abs() < 0.04, "{widths:?}: {square} {variance}");
        }
    }

    /// Of a flood of a few values, each as often as it should be.
    #[test]
    fn small_floods_have_their_distribution() {
        let widths = [FloodWidth { factor: 3, bits: 1 }, FloodWidth { factor: 1, bits: 1 }];
        let values = drawn(widths, 12 << 12);
        // Sums of 0..5 and 0..1, less 3.
        for (value, expected) in (-3..=3).zip([1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 1.0]) {
            let found = values.iter().filter(|&&it| it == f64::from(value)).count() as f64;
            let expected = expected * 4096.0;
            assert!((found - expected).abs() < 5.0 * expected.sqrt(), "{value}: {found}");
        }
    }

    /// The sum in the documentation, for distributions that can be added up.
    #[test]
    fn distances_are_as_bounded() {
        for (first, second) in [(64, 64), (1024, 16), (1000, 333), (5, 1)] {
            let weight = |x: i32| {
                // Pairs of u1 and u2 whose sum is x.
                let low = 0.max(x - second + 1);
                let high = x.min(first - 1);
                f64::from((high - low + 1).max(0)) / f64::from(first) / f64::from(second)
            };
            let steps =
                (0..first + second).map(|x| (weight(x).sqrt() - weight(x - 1).sqrt()).powi(2));
            let square = steps.sum::<f64>() / 2.0;
            let product = f64::from(first) * f64::from(second);
            let bound = (5.0 + f64::from(second).ln()) / (4.0 * product);
            assert!(square <= bound, "{first} {second}: {square} {bound}");
        }
    }
}
