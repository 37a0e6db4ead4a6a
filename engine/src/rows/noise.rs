//! How large the noise of a row becomes, in the units of errors: phases are `t^-1 m + e`.
//!
//! In an expanded ciphertext a place's noise depends on its *valuation* v, the power of 2 that divides
//! it. A key switch adds, with digits as uniform as masks,
//!
//! ```text
//! V_KS = k d N (2^b)^2 / 12 * sigma^2      d digits of b bits for each of k residues
//! ```
//!
//! and a step that begins with round i makes of the variance V
//!
//! ```text
//! one round     v > i: 4 V + V_KS      v = i:       V_KS      v < i: 2 V + V_KS
//! two rounds    v > i + 1: 16 V + 3 V_KS      v = i, i + 1: 3 V_KS      v < i: 4 V + 3 V_KS
//! ```
//!
//! The dropped residue of an upload, p_k^2 / 12, and its error are at multiples of S in the beginning;
//! elsewhere is nothing that the trace would leave.
//!
//! An output adds a path's d places, each times a weight that is uniform modulo t, and the other
//! places times the weights of the L' other outputs of its ciphertext:
//!
//! ```text
//! V = t^2 / 12 [ d V_own + E sum over v < tau of 2^-(v+1) V_v ]      E: edges of all L' paths
//! ```
//!
//! with V_own of the places of columns, whose valuation is tau or more.

use crate::rlwe::sampling::{ERROR_VARIANCE, SECRET_VARIANCE};

use super::parameters::{ExpansionStep, RowKeyParameters, RowParameters};

/// An owner's key and errors are fixed, so its noise is not the mean of all: a bit of the standard
/// deviation more than the formula's.
const FIXED_KEY_BITS: f64 = 1.0;

/// Variances of the places of an expanded ciphertext.
#[derive(Debug, Clone, PartialEq)]
pub struct ExpandedNoise {
    /// By valuation; the last one is place 0's.
    pub by_valuation: Vec<f64>,
    /// tau: valuations of the places of columns are this or more.
    rounds: u32,
}

/// V_KS of one key switch.
pub fn key_switch_variance(keys: &RowKeyParameters, step: &ExpansionStep) -> f64 {
    let digits = f64::from(keys.primes) * f64::from(step.digits);
    let base = f64::from(step.digit_bits()).exp2();
    digits * f64::from(keys.ring_dimension) * base * base / 12.0 * ERROR_VARIANCE
}

/// V of a fresh upload's place.
fn fresh_variance(keys: &RowKeyParameters) -> f64 {
    let dropped = keys.moduli().last().map_or(0.0, |&prime| prime as f64);
    dropped * dropped / 12.0 + ERROR_VARIANCE
}

impl ExpandedNoise {
    /// After all steps, of columns at multiples of `2^trace_rounds`.
    pub fn of(keys: &RowKeyParameters, trace_rounds: u32) -> Self {
        let fresh = fresh_variance(keys);
        let valuations = 0..=keys.ring_dimension.ilog2();
        let begin = |valuation| if valuation >= trace_rounds { fresh } else { 0.0 };
        let mut noise = Self { by_valuation: valuations.map(begin).collect(), rounds: 0 };
        for step in &keys.steps {
            noise.step(step, key_switch_variance(keys, step));
        }
        noise
    }

    fn step(&mut self, step: &ExpansionStep, key_switch: f64) {
        let (first, next) = (self.rounds, self.rounds + step.rounds);
        let added = key_switch * step.keys() as f64;
        for (valuation, variance) in (0..).zip(&mut self.by_valuation) {
            let doubled = f64::from(step.rounds).exp2();
            let factor = match valuation {
                _ if valuation >= next => doubled * doubled,
                _ if valuation >= first => 0.0,
                _ => doubled,
            };
            *variance = factor * *variance + added;
        }
        self.rounds = next;
    }

    /// V_own: of the worst place of a column.
    pub fn own(&self) -> f64 {
        self.by_valuation[self.rounds as usize..].iter().copied().fold(0.0, f64::max)
    }

    /// Mean over all places that are no column's, as the sum over them for one edge counts them.
    pub fn others(&self) -> f64 {
        let others = self.by_valuation[..self.rounds as usize].iter();
        (1..).zip(others).map(|(power, variance): (i32, _)| variance * 0.5f64.powi(power)).sum()
    }
}

/// V of an output before it is sanitised, whose path has `path` edges and whose ciphertext has
/// `edges`.
pub fn output_variance(parameters: &RowParameters, path: f64, edges: f64) -> f64 {
    let expanded = ExpandedNoise::of(&parameters.keys, parameters.layout().trace_rounds());
    let t = parameters.plaintext_modulus() as f64;
    t * t / 12.0 * (path * expanded.own() + edges * expanded.others())
}

/// Variance of what the sanitiser adds beside the flood: `r e + e_1 + e_2 s`.
pub fn sanitiser_variance(keys: &RowKeyParameters) -> f64 {
    let ternary = SECRET_VARIANCE * f64::from(keys.ring_dimension);
    ERROR_VARIANCE * (2.0 * ternary + 1.0)
}

/// log2 of the standard deviation that a flood is made for. It knows of a program only what
/// everybody does: its longest path is taken to be the longest that the modulus of tags allows, and
/// so is every other path.
pub fn log2_planned_deviation(parameters: &RowParameters) -> f64 {
    let longest = f64::from(parameters.longest_allowed_path());
    let layout = parameters.layout();
    let outputs = layout.outputs().min(layout.outputs_per_reply()) as f64;
    let variance = output_variance(parameters, longest, longest * outputs)
        + sanitiser_variance(&parameters.keys);
    variance.log2() / 2.0 + FIXED_KEY_BITS
}

/// log2 of the least `sqrt(M1 M2)` of a flood that hides a standard deviation by so many bits.
///
/// `F = U[0, M1) + U[0, M2)` with `M1 >= M2` is a trapezoid of height `1 / M1`, whose sides have the
/// probabilities `j / (M1 M2)`. As for the triangle, its squared Hellinger distance from `F + 1` is
///
/// ```text
/// h^2 = 1 / (M1 M2) sum over j = 1..M2 of (sqrt j - sqrt(j - 1))^2  <=  (5 + ln M2) / (4 M1 M2)
/// ```
///
/// and the distance after Q outputs at most `sqrt(2 Q) sigma h`. It is `sqrt(Q) / 2 * 2^-hide` where
/// `M1 M2 >= 2^(2 hide) sigma^2 2 (5 + ln M2)`.
pub fn log2_required_flood(log2_deviation: f64, hide: u32, log2_short_side: f64) -> f64 {
    let sides = 2.0 * (5.0 + log2_short_side * std::f64::consts::LN_2);
    f64::from(hide) + log2_deviation + sides.log2() / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::parameters::OutputRegion;

    fn step(rounds: u32, digits: u32) -> ExpansionStep {
        ExpansionStep { rounds, digits }
    }

    /// The four cases that were measured on ciphertexts of N = 8192: log2 of the deviation.
    #[test]
    fn deviations_are_as_measured() {
        let pairs = |count| vec![step(2, 1); count];
        let one = [step(1, 1)];
        for (columns, outputs, edges, path, c, primes, t1, t2, steps, expected) in [
            (145, 279, 1200.0, 4.0, 16, 3, 5, 8209, [&pairs(4)[..], &one].concat(), 81.2),
            (216, 758, 3000.0, 4.0, 8, 3, 5, 8209, pairs(5), 82.6),
            (216, 758, 3000.0, 4.0, 8, 4, 37, 65537, pairs(5), 88.7),
        ] {
            let parameters = RowParameters {
                keys: RowKeyParameters { ring_dimension: 8192, primes, steps },
                tag_modulus: t1,
                value_modulus: t2,
                tag_factors: 1,
                columns,
                group_columns: c,
                regions: vec![OutputRegion { outputs, trees: 50 }],
                flood: crate::rows::tests::models::parameters().flood,
                hide: 45,
                word_bits: 30,
            };
            let found = output_variance(&parameters, path, edges).log2() / 2.0;
            assert!((found - expected).abs() < 0.3, "{columns} columns: {found}, not {expected}");
        }
    }

    #[test]
    fn a_step_of_two_rounds_is_two_steps_of_one_but_for_its_key_switches() {
        let noise = |steps: &[ExpansionStep]| {
            let keys = RowKeyParameters { ring_dimension: 8192, primes: 3, steps: steps.to_vec() };
            ExpandedNoise::of(&keys, 0)
        };
        let (single, double) = (noise(&[step(1, 1), step(1, 1)]), noise(&[step(2, 1)]));
        let switch = |digits| {
            let keys = RowKeyParameters { ring_dimension: 8192, primes: 3, steps: vec![] };
            key_switch_variance(&keys, &step(1, digits))
        };
        // 4 (4 V + V_KS) + V_KS, and 16 V + 3 V_KS.
        let difference = single.own() - double.own();
        assert!((difference / (2.0 * switch(1)) - 1.0).abs() < 1e-9);
        // Digits of 26 bits: twice as many, each 2^25 times smaller.
        assert!((switch(1).log2() - switch(2).log2() - 49.0).abs() < 1e-9);
        assert!((switch(1).log2() / 2.0 - 58.2).abs() < 0.1);
    }

    /// The sum in the documentation, by counting.
    #[test]
    fn distances_of_trapezoids_are_as_bounded() {
        for (long, short) in [(8usize, 8usize), (64, 8), (500, 77), (4096, 1)] {
            let mut weights = vec![0.0f64; long + short];
            for a in 0..long {
                for b in 0..short {
                    weights[a + b] += 1.0 / (long * short) as f64;
                }
            }
            let shifted = std::iter::once(&0.0).chain(&weights);
            let squares = weights.iter().zip(shifted).map(|(p, q)| (p.sqrt() - q.sqrt()).powi(2));
            let distance = squares.sum::<f64>() / 2.0;
            let bound = (5.0 + (short as f64).ln()) / (4.0 * (long * short) as f64);
            assert!(distance <= bound, "{long} {short}: {distance} {bound}");
        }
    }
}
