//! Noise that drowns the noise of a reply, which depends on the model.
//!
//! The phase of an output is `m + t d`, where d is what evaluation has made of the errors; its
//! coefficients have the standard deviation sigma_phase / t. Added is `t F`, where each coefficient of
//! F is the difference of two integers that are uniform in \[0, M), M = 2^w. It is drawn in constant
//! time, exactly, and never exceeds M.
//!
//! How much of d is left in F + d: P(F = x) = (M - |x|) / M^2, so that the squared Hellinger distance
//! of F from F + 1 is
//!
//! ```text
//! h^2 = 1/2 sum over x of (sqrt P(F = x) - sqrt P(F = x - 1))^2
//!     = 1/M^2 sum over j = 1..M of (sqrt j - sqrt(j - 1))^2
//!    <= 1/M^2 (1 + sum over j = 2..M of 1 / (4 (j - 1)))  <=  (5 + ln M) / (4 M^2)
//! ```
//!
//! The distance is a metric, so that of F from F + d is at most |d| h. Squares of Hellinger distances
//! of independent coefficients add up, and the statistical distance is at most sqrt 2 times the
//! Hellinger distance. After Q released coefficients it is therefore at most
//!
//! ```text
//! sqrt(2 Q) sigma_phase / t * h  <=  sqrt(Q) / 2 * sigma_phase / t * sqrt(2 (5 + ln M)) / M
//! ```
//!
//! and w is the least for which this is at most sqrt(Q) / 2 * 2^-45. There is no error term besides: no
//! table is rounded and no tail is cut. A Gaussian with the same bound has the standard deviation
//! 2^45 sigma_phase / t, and room for 14.1 times that must be left for failures to have probability
//! 2^-145; this F never exceeds 10 to 15 times that, before w is rounded up.

use zeroize::Zeroizing;

use crate::rlwe::prime_ring::PrimeRing;
use crate::rlwe::sampling::NoiseStream;

/// After Q released coefficients, an observer's advantage is at most sqrt(Q) / 2 times 2^-45.
pub(super) const HIDING_BITS: u32 = 45;

/// Bits of the digits in which F is drawn: differences of them are residues of any prime.
const DIGIT_BITS: u32 = 48;

/// The width of a flood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flood {
    /// w: F is between -2^w and 2^w.
    pub(super) bits: u32,
}

impl Flood {
    /// The narrowest that hides phases whose noise has the standard deviation
    /// `2^log2_deviation`, all noise besides the flood included, modulo a plaintext modulus t.
    pub(super) fn hiding(log2_deviation: f64, t: u64) -> Self {
        let log2_errors = log2_deviation - (t as f64).log2();
        let hides = |bits: u32| {
            let log_width = f64::from(bits) * std::f64::consts::LN_2;
            let log2_factor = (2.0 * (5.0 + log_width)).log2() / 2.0;
            f64::from(bits) >= log2_errors + f64::from(HIDING_BITS) + log2_factor
        };
        // More bits than any modulus has; the planner refuses what does not fit.
        let bits = (0..1024).find(|&bits| hides(bits)).unwrap_or(1024);
        Self { bits }
    }

    /// log2 of the bound of `|t F|`, which no coefficient reaches.
    pub(super) fn log2_bound(&self, t: u64) -> f64 {
        f64::from(self.bits) + (t as f64).log2()
    }

    /// Draws the coefficients of F: digits to the base 2^48, least significant first, each of either
    /// sign.
    pub(super) fn draw(
        &self,
        noise: &mut NoiseStream<'_>,
        dimension: usize,
    ) -> Vec<Zeroizing<Vec<i64>>> {
        let digits = (0..self.bits).step_by(DIGIT_BITS as usize).map(|first| {
            let mut digits = Zeroizing::new(vec![0; dimension]);
            noise.differences(DIGIT_BITS.min(self.bits - first), &mut digits);
            digits
        });
        digits.collect()
    }

    /// Adds `factor * F`, drawn as `digits`, modulo a prime.
    pub(super) fn add(
        digits: &[Zeroizing<Vec<i64>>],
        factor: u64,
        prime: &PrimeRing,
        sum: &mut [u64],
    ) {
        let base = 1 << DIGIT_BITS;
        let mut residues = Zeroizing::new(vec![0; sum.len()]);
        let mut factors = vec![0; sum.len()];
        let mut weight = factor % prime.modulus();
        for digits in digits {
            prime.residues(digits, &mut residues);
            prime.multiply_add_constant(sum, &residues, weight, &mut factors);
            weight = prime.montgomery.multiply(weight, base);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bulk::parameters::{Packing, Parameters};
    use crate::bulk::ring::Ring;
    use crate::rlwe::sampling::Noise;

    /// The coefficients of a flood, from two primes.
    fn drawn(bits: u32) -> Vec<i128> {
        let parameters = Parameters {
            packing: Packing::Slots,
            ring_dimension: 4096,
            primes: 2,
            plaintext_modulus: 40961,
        };
        let ring = Ring::new(parameters).unwrap();
        let noise = Noise::from_key(&[3; 16]);
        let digits = Flood { bits }.draw(&mut noise.stream(0), 4096);
        let residues = ring.primes().iter().map(|prime| {
            let mut sum = vec![0; 4096];
            Flood::add(&digits, 3, prime, &mut sum);
            let third = prime.montgomery.inverse(3);
            sum.iter_mut().for_each(|word| *word = prime.montgomery.multiply(*word, third));
            sum
        });
        let residues: Vec<_> = residues.collect();
        let [p, q] = [0, 1].map(|index| i128::from(ring.primes()[index].modulus()));
        let field = &ring.primes()[1].montgomery;
        let inverse = field.inverse(field.residue_of(p));
        let values = residues[0].iter().zip(&residues[1]).map(|(&a, &b)| {
            let difference = field.residue_of(i128::from(b) - i128::from(a));
            let value = i128::from(a) + p * i128::from(field.multiply(difference, inverse));
            if value > p * q / 2 { value - p * q } else { value }
        });
        values.collect()
    }

    #[test]
    fn floods_are_triangular_at_any_width() {
        for bits in [0, 1, 30, 48, 49, 60, 95, 96, 97, 100] {
            let values = drawn(bits);
            assert!(values.iter().all(|value| value.unsigned_abs() < 1 << bits), "{bits}");
            let scale = (bits as f64).exp2();
            let (mut mean, mut square) = (0.0, 0.0);
            for value in values {
                mean += value as f64 / scale / 4096.0;
                square += (value as f64 / scale).powi(2) / 4096.0;
            }
            let expected = (1.0 - scale.powi(-2)) / 6.0;
            assert!(mean.abs() < 0.03, "{bits}: {mean}");
            assert!((square - expected).abs() < 0.01, "{bits}: {square}");
        }
    }

    /// The sum in the documentation, and the width chosen from it.
    #[test]
    fn distances_are_as_bounded() {
        for bits in [0, 1, 2, 8, 16] {
            let width = 1 << bits;
            let steps =
                (1..=width).map(|j| (f64::from(j).sqrt() - f64::from(j - 1).sqrt()).powi(2));
            let bound = (5.0 + f64::from(width).ln()) / 4.0;
            assert!(steps.sum::<f64>() <= bound, "{bits}");
        }
        for log2_deviation in [20.0, 60.0, 97.5, 151.1] {
            let t = 65537;
            let flood = Flood::hiding(log2_deviation, t);
            let leak = |bits: u32| {
                let log_width = f64::from(bits) * std::f64::consts::LN_2;
                let log2_errors = log2_deviation - (t as f64).log2();
                (2.0 * (5.0 + log_width)).sqrt() * (log2_errors - f64::from(bits)).exp2()
            };
            assert!(leak(flood.bits) <= (-45f64).exp2());
            assert!(leak(flood.bits - 1) > (-45f64).exp2());
            let over = flood.log2_bound(t) - log2_deviation - 45.0;
            assert!((3.3..5.1).contains(&over), "{over}");
        }
    }
}
