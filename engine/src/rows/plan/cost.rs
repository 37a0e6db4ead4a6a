//! What a row costs, by what was measured of its parts.

use super::super::evaluation_key::serialised_len;
use super::super::kernel::Kernel;
use super::super::parameters::{ExpansionStep, RowParameters};
use super::super::reply::row_reply_len;
use super::super::upload::upload_len;
use crate::rlwe::kernel::Instructions;

/// Microseconds of a transform modulo one prime, N = 8192, on one thread with AVX-512-IFMA. So are
/// the others.
const TRANSFORM: f64 = 16.0;
/// Of a digit times a key modulo one prime, both components.
const KEY_PRODUCT: f64 = 3.6;
/// Of cutting a ciphertext into digits, for each prime, beside the transforms.
const DIGITS: f64 = 25.0;
/// Of a child of an expansion step, for each prime: its permutations and sums.
const CHILD: f64 = 13.0;
/// Of an upload: mask, words, transforms; for each prime.
const UPLOAD: f64 = 67.0;
/// Of the weights of a group in a ciphertext of the reply, for each prime: their transform, and the
/// products.
const GROUP: f64 = 33.0;
/// Of an edge: its weights drawn and put in place.
const EDGE: f64 = 0.035;
/// Of a ciphertext of the reply, for each prime: sanitised, transformed back and rounded.
const REPLY: f64 = 150.0;

/// How many times as long a row takes with AVX2 and without AVX-512-IFMA, about.
#[cfg(target_arch = "x86_64")]
const AVX2: f64 = 2.0;
/// The same without either.
const PORTABLE: f64 = 4.0;

/// Bytes that a network carries in a microsecond, by which bytes are weighed against time: a link of
/// 100 Mbit/s.
pub const BYTES_PER_MICROSECOND: f64 = 12.5;

/// What a row costs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowCost {
    /// Of one thread with AVX-512-IFMA.
    pub microseconds: f64,
    /// From the data owner.
    pub upload_bytes: u64,
    /// To the data owner.
    pub reply_bytes: u64,
    /// Of the evaluation key, which travels once.
    pub key_bytes: u64,
}

impl RowCost {
    /// Of valid parameters. Every path is taken to be the longest that they allow, so that a cost says
    /// no more of a program than they do.
    pub fn of(parameters: &RowParameters) -> Self {
        let bytes = |length: Option<usize>| length.map_or(u64::MAX, |length| length as u64);
        Self {
            microseconds: microseconds(parameters),
            upload_bytes: bytes(upload_len(parameters, 1)),
            reply_bytes: bytes(row_reply_len(parameters, 1)),
            key_bytes: serialised_len(&parameters.keys) as u64,
        }
    }

    /// Of one thread, with the instructions that there are.
    pub fn microseconds_on(&self, kernel: Kernel) -> f64 {
        let times = match kernel.0 {
            Instructions::Portable => PORTABLE,
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2(_) => AVX2,
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512(_) => 1.0,
        };
        times * self.microseconds
    }

    /// Time until a row is answered, its bytes' included.
    pub fn weight(&self) -> f64 {
        #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
        let bytes = (self.upload_bytes + self.reply_bytes) as f64;
        self.microseconds + bytes / BYTES_PER_MICROSECOND
    }
}

fn microseconds(parameters: &RowParameters) -> f64 {
    let layout = parameters.layout();
    let primes = f64::from(parameters.keys.primes);
    let (replies, groups) = (layout.reply_ciphertexts() as f64, layout.used_groups() as f64);
    let mut expansion = 0.0;
    let (mut round, mut ciphertexts) = (0, 1.0);
    for step in &parameters.keys.steps {
        round += step.rounds;
        let children =
            ciphertexts_after(round, layout.trace_rounds(), layout.used_groups(), layout.groups());
        let is_last = round == parameters.keys.rounds();
        expansion += ciphertexts * of_ciphertext(step, primes);
        expansion += children * primes * (CHILD + if is_last { 0.0 } else { TRANSFORM });
        ciphertexts = children;
    }
    let edges = layout.outputs() as f64 * f64::from(parameters.longest_allowed_path());
    UPLOAD * primes
        + expansion
        + GROUP * primes * groups * replies
        + EDGE * edges
        + REPLY * primes * replies
}

/// Of a step's decomposition and keys for one ciphertext. A residue that is a digit needs no
/// transform modulo its own prime.
fn of_ciphertext(step: &ExpansionStep, primes: f64) -> f64 {
    let digits = primes * f64::from(step.digits);
    let transforms = if step.digits == 1 { digits * (primes - 1.0) } else { digits * primes };
    transforms * TRANSFORM + step.keys() as f64 * digits * primes * KEY_PRODUCT + primes * DIGITS
}

/// Ciphertexts after so many rounds: one in the trace, then the subtrees that have columns.
fn ciphertexts_after(rounds: u32, trace_rounds: u32, used: usize, groups: usize) -> f64 {
    match rounds.checked_sub(trace_rounds) {
        None | Some(0) => 1.0,
        Some(expanded) => used.div_ceil(groups >> expanded) as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::parameters::{OutputRegion, RowKeyParameters};
    use crate::rows::tests::models;

    /// A prototype's times, one thread of Zen 4, within a quarter.
    #[test]
    fn times_are_about_the_prototypes() {
        let step = |rounds| ExpansionStep { rounds, digits: 1 };
        for (columns, outputs, group_columns, rounds, milliseconds) in [
            (145, 271, 16, vec![2, 2, 2, 2, 1], 4.7),
            (216, 750, 8, vec![2, 2, 2, 2, 2], 9.2),
            (85, 310, 16, vec![2, 2, 2, 2, 1], 3.8),
        ] {
            let steps = rounds.into_iter().map(step).collect();
            let parameters = RowParameters {
                keys: RowKeyParameters { ring_dimension: 8192, primes: 3, steps },
                columns,
                group_columns,
                regions: vec![OutputRegion { outputs, trees: 50 }],
                ..models::parameters()
            };
            let cost = RowCost::of(&parameters);
            let found = cost.microseconds / 1000.0;
            assert!((0.75..1.25).contains(&(found / milliseconds)), "{found} {milliseconds}");
        }
    }
}
