//! Ring, primes and plaintext modulus.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Primes, the first of which make up the ciphertext modulus. Each is 1 modulo 2^16, so that one
/// list serves all rings, and between 2^51 - 2^23 and 2^51: below what AVX-512-IFMA multiplies, and
/// so close to it that one of 2^28 masks is rejected.
pub const PRIMES: [u64; 8] = [
    0x7_ffff_fffe_0001,
    0x7_ffff_ffdd_0001,
    0x7_ffff_ffd2_0001,
    0x7_ffff_ffd1_0001,
    0x7_ffff_ffc6_0001,
    0x7_ffff_ffbd_0001,
    0x7_ffff_ff9c_0001,
    0x7_ffff_ff90_0001,
];

/// Bits of a word of a ciphertext.
pub const WORD_BITS: u32 = 51;

/// Evaluation points, or coefficients, of a block.
pub const BLOCK_POINTS: usize = 256;

/// Where the rows of a batch are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Packing {
    /// Row r is slot r: columns can be multiplied. For ensembles.
    Slots,
    /// Row r is coefficient r: columns can be added and scaled. For linear models.
    Coefficients,
}

/// Everything that both sides must agree on about ciphertexts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    /// Where rows are.
    pub packing: Packing,
    /// N, a power of two: the ring is Z\[X\]/(X^N + 1), and a batch has at most N rows.
    pub ring_dimension: u32,
    /// How many of [`PRIMES`] make up the ciphertext modulus q.
    pub primes: u32,
    /// t. For [`Packing::Slots`] a prime that is 1 modulo 2N; for [`Packing::Coefficients`] a power
    /// of two.
    pub plaintext_modulus: u64,
}

/// Parameters that are not of the table.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct InvalidParameters(pub String);
