//! Whether phases fit into a ring: failure probabilities, and the least parameters.

use super::super::flood::Flood;
use super::super::noise::{self, Moments};
use super::super::parameters::{Packing, Parameters};
use super::Goal;
use crate::rlwe::primes::PRIMES;

/// Bits of the largest plaintext modulus.
pub const MAX_PLAINTEXT_BITS: u32 = 40;
/// log2 of the smallest failure probability that is told apart from smaller ones.
pub const MIN_LOG2_FAILURE: f64 = -1024.0;

/// What a program asks of its parameters.
#[derive(Debug)]
pub(super) struct Demand {
    pub(super) moments: Moments,
    /// Largest magnitude of an output.
    pub(super) magnitude: u64,
    pub(super) outputs: usize,
    pub(super) degree: u32,
}

/// Parameters that meet a goal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Fit {
    pub(super) parameters: Parameters,
    pub(super) reply_primes: u32,
    pub(super) log2_failure: f64,
    pub(super) log2_sigma_phase: f64,
}

/// Why a goal is not met.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Shortfall {
    /// Outputs are larger than any plaintext modulus.
    Magnitude,
    /// Bits of q, in the ring that comes closest.
    Modulus { needed: f64, available: f64 },
}

/// Noise of the phase.
struct Phase {
    /// Standard deviation of what must be hidden: the program's noise and, if the model is hidden,
    /// the sanitiser's.
    hidden: f64,
    /// Bound of the flood; 0 if there is none.
    flood: f64,
}

impl Demand {
    /// The least parameters that meet a goal, the first of [`Parameters::rings`].
    pub(super) fn least(&self, goal: &Goal) -> Result<Fit, Shortfall> {
        let mut closest = Shortfall::Magnitude;
        for (ring_dimension, primes) in Parameters::rings() {
            match (self.fit(goal, ring_dimension, primes), closest) {
                (Ok(fit), _) => return Ok(fit),
                (Err(Shortfall::Magnitude), _) => {}
                (Err(found @ Shortfall::Modulus { .. }), before) => {
                    closest = if found.missing() < before.missing() { found } else { before };
                }
            }
        }
        Err(closest)
    }

    /// Checks one ring. Half of the failure probability is for the evaluation, half for the
    /// rounding of the reply to fewer primes.
    fn fit(&self, goal: &Goal, ring_dimension: u32, primes: u32) -> Result<Fit, Shortfall> {
        let packing = goal.packing;
        let plaintext_modulus = plaintext_modulus(packing, ring_dimension, self.magnitude)
            .ok_or(Shortfall::Magnitude)?;
        let parameters = Parameters { packing, ring_dimension, primes, plaintext_modulus };
        let phase = self.phase(&parameters, goal.hide);
        #[allow(clippy::cast_precision_loss)]
        let coefficients = f64::from(ring_dimension) * self.outputs as f64;
        let union = coefficients.log2();
        let deviations = quantile(goal.log2_failure - 1.0 - union);
        let message = self.moments.message_bound(&parameters);
        let taken = deviations * phase.hidden + phase.flood + message;
        let fits = 2.0 * taken <= modulus(primes);
        if !fits {
            let needed = (2.0 * taken).log2();
            return Err(Shortfall::Modulus { needed, available: modulus(primes).log2() });
        }
        // Of the flood as much is left as of the modulus.
        let room = |kept: u32| {
            modulus(kept) / 2.0 - message - phase.flood * (modulus(kept) / modulus(primes))
        };
        let mut log2_failure = log2_tail(room(primes) / phase.hidden) + union;
        let mut reply_primes = primes;
        for fewer in (1..primes).take_while(|_| packing == Packing::Slots) {
            let total = self.rounded(&parameters, &phase, primes, fewer);
            if deviations * total <= room(fewer) {
                let of_rounding = log2_tail(room(fewer) / total) + union;
                log2_failure = log2_sum(log2_failure, of_rounding);
                reply_primes = fewer;
                break;
            }
        }
        let log2_failure = log2_failure.max(MIN_LOG2_FAILURE);
        let log2_sigma_phase = published(phase.hidden);
        Ok(Fit { parameters, reply_primes, log2_failure, log2_sigma_phase })
    }

    fn phase(&self, parameters: &Parameters, hide: bool) -> Phase {
        let of_program = self.moments.variance(parameters);
        if !hide {
            return Phase { hidden: of_program.sqrt(), flood: 0.0 };
        }
        let variance = of_program + noise::sanitiser_variance(parameters, self.degree);
        let hidden = variance.sqrt();
        let modulus = parameters.plaintext_modulus;
        let flood = Flood::hiding(published(hidden), modulus).log2_bound(modulus).exp2();
        Phase { hidden, flood }
    }

    /// Standard deviation of the phase after it was rounded to fewer primes, flood aside.
    fn rounded(&self, parameters: &Parameters, phase: &Phase, primes: u32, fewer: u32) -> f64 {
        let scaled = phase.hidden * (modulus(fewer) / modulus(primes));
        let rounding = noise::rounding_variance(parameters, self.degree);
        (scaled * scaled + rounding).sqrt()
    }

    /// The degree up to which the program's monomials would meet a goal, if any.
    pub(super) fn feasible_degree(&self, goal: &Goal) -> Option<u32> {
        let below = (1..self.degree).rev();
        let mut cut = below.map(|degree| {
            let (moments, outputs) = (self.moments.up_to(degree), self.outputs);
            Self { moments, magnitude: self.magnitude, outputs, degree }
        });
        cut.find(|demand| demand.least(goal).is_ok()).map(|demand| demand.degree)
    }
}

/// What workers are told of a deviation, and draw their floods by: a whole number, which is enough for
/// a flood and says little of the leaves. The flood that is planned for is this one, no narrower. There
/// is noise, so it is not below 0.
fn published(deviation: f64) -> f64 {
    deviation.max(1.0).log2().ceil()
}

impl Shortfall {
    fn missing(self) -> f64 {
        match self {
            Self::Magnitude => f64::INFINITY,
            Self::Modulus { needed, available } => needed - available,
        }
    }
}

/// q, of the first primes.
fn modulus(primes: u32) -> f64 {
    #[allow(clippy::cast_precision_loss)]
    PRIMES.iter().take(primes as usize).map(|&prime| prime as f64).product()
}

/// The least t that the packing allows and of which the magnitude is less than half.
fn plaintext_modulus(packing: Packing, ring_dimension: u32, magnitude: u64) -> Option<u64> {
    if magnitude >> (MAX_PLAINTEXT_BITS - 1) > 0 {
        return None;
    }
    let above = 2 * magnitude + 1;
    let found = match packing {
        Packing::Coefficients => above.next_power_of_two().max(4),
        Packing::Slots => {
            let step = 2 * u64::from(ring_dimension);
            let mut candidates = (above / step..).map(|factor| factor * step + 1);
            candidates.find(|&candidate| candidate >= above && is_prime(candidate))?
        }
    };
    (found >> MAX_PLAINTEXT_BITS == 0).then_some(found)
}

/// By trial: candidates are hardly above 2^40.
fn is_prime(candidate: u64) -> bool {
    let mut factors = (2..).take_while(|factor| factor * factor <= candidate);
    candidate > 1 && factors.all(|factor| !candidate.is_multiple_of(factor))
}

/// Bound of the logarithm of the probability that a Gaussian is more than x standard deviations
/// from 0: `2 φ(x) / x`, and no more than 1.
pub(super) fn log2_tail(x: f64) -> f64 {
    if x < 1.0 {
        return 0.0;
    }
    let density = (2.0 / std::f64::consts::PI).sqrt().log2() - x.log2();
    (density - x * x / 2.0 * std::f64::consts::LOG2_E).min(0.0)
}

/// log2 of the sum of two numbers, given theirs.
fn log2_sum(left: f64, right: f64) -> f64 {
    let larger = left.max(right);
    if larger == f64::NEG_INFINITY {
        return larger;
    }
    larger + ((left - larger).exp2() + (right - larger).exp2()).log2()
}

/// The x at which [`log2_tail`] is a given number, up to 64.
pub(super) fn quantile(log2_probability: f64) -> f64 {
    let (mut low, mut high) = (1.0, 64.0);
    for _ in 0..60 {
        let middle: f64 = (low + high) / 2.0;
        if log2_tail(middle) > log2_probability {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tails_are_those_of_the_gaussian() {
        // erfc(5 / sqrt 2) = 5.733e-7, and the bound is 4 % above.
        assert!((log2_tail(5.0) - 5.733e-7f64.log2()).abs() < 0.06);
        // What 2^-128 of one coefficient takes, and 2^-64.
        assert!((quantile(-128.0) - 13.1).abs() < 0.1);
        assert!((quantile(-64.0) - 9.1).abs() < 0.1);
    }

    #[test]
    fn tiny_probabilities_are_added() {
        assert_eq!(log2_sum(-5000.0, -5000.0), -4999.0);
        assert_eq!(log2_sum(-3.0, f64::NEG_INFINITY), -3.0);
        assert_eq!(log2_sum(f64::NEG_INFINITY, f64::NEG_INFINITY), f64::NEG_INFINITY);
    }

    #[test]
    fn plaintext_moduli_are_the_least() {
        let slots = |dimension, magnitude| plaintext_modulus(Packing::Slots, dimension, magnitude);
        assert_eq!(slots(2048, 0), Some(12289));
        assert_eq!(slots(4096, 20480), Some(40961));
        assert_eq!(slots(4096, 20481), Some(65537));
        assert_eq!(slots(8192, 100), Some(65537));
        assert_eq!(slots(2048, 1 << 39), None);
        let coefficients = |magnitude| plaintext_modulus(Packing::Coefficients, 2048, magnitude);
        assert_eq!(coefficients(7), Some(16));
        assert_eq!(coefficients(8), Some(32));
    }

    #[test]
    fn rings_are_in_the_order_of_cost() {
        let cost = |(dimension, primes): (u32, u32)| (primes, dimension);
        assert!(Parameters::rings().is_sorted_by_key(cost));
    }
}
