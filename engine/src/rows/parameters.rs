//! What both sides must agree on about the ciphertexts of a model, and what everybody may know.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::rlwe::primes::{PRIMES, WORD_BITS, log2_product, security_bits};

/// Tag moduli t1 that there are: few, so that t1 says little of the longest path.
pub const TAG_MODULI: [u32; 6] = [7, 13, 31, 61, 127, 251];
/// Largest plaintext modulus t = t1 t2: products of two residues modulo t fit 128 bits many times
/// over, and t stays below every prime.
pub const MAX_ROW_PLAINTEXT_MODULUS: u64 = 1 << 42;
/// Outputs of every row that a client knows beforehand: a key, a model or a place that is wrong
/// passes all of them with probability t^-8.
pub const CANARIES: usize = 8;
/// Most columns of a model.
pub const MAX_ROW_COLUMNS: u32 = 1 << 14;
/// Most outputs of a row, canaries not included.
pub const MAX_ROW_OUTPUTS: u32 = 1 << 17;
/// Most ciphertexts of the reply to a row: megabytes, and as much of a worker's memory for each thread.
pub const MAX_REPLY_CIPHERTEXTS: usize = 256;
/// Most raw outputs.
pub const MAX_REGIONS: usize = 256;
/// Most digits into which a key switch cuts a residue.
pub const MAX_DIGITS: u32 = 4;
/// Largest factor of a width of the flood.
pub const MAX_FLOOD_FACTOR: u32 = 1 << 24;
/// Bits by which a flood may be planned to hide.
pub const HIDE_BITS: RangeInclusive<u32> = 36..=64;
/// Bits of the words of a reply.
pub const REPLY_WORD_BITS: RangeInclusive<u32> = 4..=56;
/// A rounded word is off by a sum of independent uniform terms that exceeds so many of its standard
/// deviations with probability 2^-142; 2^-128 for all outputs of 2^14 rows' replies.
pub const ROUNDING_DEVIATIONS: f64 = 14.1;
/// Weight of a secret, as a part of N, for which the words of a reply are made.
pub const HEAVIEST_SECRET: f64 = 0.74;
/// log2 of a bound of the probability that a secret is heavier, where N is at least
/// [`MIN_ROW_RING_DIMENSION`]: by Chernoff, `8192 (0.74 ln(0.74 / (2/3)) + 0.26 ln(0.26 / (1/3)))` nats.
pub const LOG2_HEAVIER_SECRET: f64 = -149.0;
/// log2 of the least failure probability that can be asked for: what secrets may weigh is far below it.
pub const MIN_LOG2_ROW_FAILURE: f64 = -128.0;
/// Least N of a model. Of 4096 coefficients more than 0.74 N are not 0 with a probability of 2^-74.
pub const MIN_ROW_RING_DIMENSION: u32 = 8192;

/// One or two rounds of the expansion that share a decomposition of their ciphertext.
///
/// Round i is the automorphism `X -> X^(N / 2^i + 1)`. A step of two rounds i and i + 1 has a third
/// key, of their composition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpansionStep {
    /// 1 or 2.
    pub rounds: u32,
    /// d: digits into which each residue is cut, from 1 to [`MAX_DIGITS`]. 1: the residue itself,
    /// centred. Others are digits to the base 2^ceil(51 / d), centred. More digits are less noise,
    /// and a key as many times as long.
    pub digits: u32,
}

impl ExpansionStep {
    /// log2 of the base of the digits: their largest absolute value is half the base.
    pub fn digit_bits(&self) -> u32 {
        WORD_BITS.div_ceil(self.digits)
    }

    /// Keys of the step.
    pub fn keys(&self) -> usize {
        if self.rounds == 2 { 3 } else { 1 }
    }
}

/// All that a data owner's secret and evaluation key depend on: models of equal ones share keys.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowKeyParameters {
    /// N, a power of two: the ring is Z\[X\]/(X^N + 1).
    pub ring_dimension: u32,
    /// k: how many of [`PRIMES`] make up the ciphertext modulus q, at least 2.
    pub primes: u32,
    /// Trace and expansion, round 0 first. All rounds together are `tau = log2(N / c)`. The last steps
    /// have the most ciphertexts, so a single round is best among the first.
    pub steps: Vec<ExpansionStep>,
}

impl RowKeyParameters {
    /// tau: rounds of all steps.
    pub fn rounds(&self) -> u32 {
        self.steps.iter().map(|step| step.rounds).sum()
    }

    /// N.
    pub fn dimension(&self) -> usize {
        self.ring_dimension as usize
    }

    /// The primes whose product is q.
    pub fn moduli(&self) -> &'static [u64] {
        &PRIMES[..self.primes as usize]
    }

    /// log2 of q.
    pub fn log2_modulus(&self) -> f64 {
        log2_product(self.moduli())
    }

    /// log2 of the estimated work of the best attack.
    pub fn security_bits(&self) -> u32 {
        security_bits(self.ring_dimension, self.primes)
    }
}

/// One of the two summands of a flood: uniform in \[0, M), `M = factor 2^bits`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FloodWidth {
    /// From 1 to [`MAX_FLOOD_FACTOR`].
    pub factor: u32,
    /// log2 of what it is multiplied by, at least 1.
    pub bits: u32,
}

impl FloodWidth {
    /// log2 of M.
    pub fn log2(&self) -> f64 {
        f64::from(self.factor).log2() + f64::from(self.bits)
    }
}

/// The outputs of one raw output, which are consecutive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputRegion {
    /// Leaves of all trees, padding included.
    pub outputs: u32,
    /// T: trees, padding included. So many leaves are reached.
    pub trees: u32,
}

/// Everything public about the row form of a model.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowParameters {
    /// Ring, and shape of the evaluation key.
    pub keys: RowKeyParameters,
    /// t1: modulus of tags, one of [`TAG_MODULI`], above R times the longest path.
    pub tag_modulus: u32,
    /// t2: modulus of values, another odd prime. t = t1 t2.
    pub value_modulus: u64,
    /// R: tags are weighted by factors from 1 to R.
    pub tag_factors: u32,
    /// m: bits of an upload.
    pub columns: u32,
    /// c: columns that one expanded ciphertext keeps, a power of two. N / c outputs fit a ciphertext
    /// of the reply.
    pub group_columns: u32,
    /// One for each raw output, in their order. [`CANARIES`] follow the last.
    pub regions: Vec<OutputRegion>,
    /// M1 and M2: the flood is `F = U[0, M1) + U[0, M2) - (M1 + M2) / 2`. They depend on ring, t and a
    /// class of sizes only, never on the real number of edges.
    pub flood: [FloodWidth; 2],
    /// The bits by which the flood is planned to hide: after Q outputs, an owner's advantage is at most
    /// `sqrt(Q) / 2 * 2^-hide`.
    pub hide: u32,
    /// w: bits of the words of a reply.
    pub word_bits: u32,
}

/// Parameters that are not of the table, or that do not fit each other.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct InvalidRowParameters(pub String);
