//! Ring, primes and plaintext modulus.

use serde::{Deserialize, Serialize};
use tfhe_ntt::prime::is_prime64;
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

/// Where the rows of a ring batch are.
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
    /// N, a power of two: the ring is Z\[X\]/(X^N + 1), and a ring batch has at most N rows.
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
pub struct InvalidRingParameters(pub String);

/// Largest plaintext modulus: the plaintext, and t times what encryption adds, stay far below one
/// prime and within 64 bits.
pub const MAX_PLAINTEXT_MODULUS: u64 = 1 << 40;

/// A row of the security estimates: no ring with more primes is safe, and none with fewer is worth
/// its size.
struct Security {
    ring_dimension: u32,
    primes: u32,
    bits: u32,
}

/// Minimum over the attacks estimated, for uniform ternary secrets and centred binomial errors;
/// rounded down. `docs/security/` has the script and the estimator's output.
const SECURITY: [Security; 11] = [
    Security { ring_dimension: 2048, primes: 1, bits: 134 },
    Security { ring_dimension: 4096, primes: 1, bits: 285 },
    Security { ring_dimension: 4096, primes: 2, bits: 134 },
    Security { ring_dimension: 8192, primes: 2, bits: 291 },
    Security { ring_dimension: 8192, primes: 3, bits: 184 },
    Security { ring_dimension: 8192, primes: 4, bits: 134 },
    Security { ring_dimension: 16384, primes: 4, bits: 294 },
    Security { ring_dimension: 16384, primes: 5, bits: 228 },
    Security { ring_dimension: 16384, primes: 6, bits: 185 },
    Security { ring_dimension: 16384, primes: 7, bits: 156 },
    Security { ring_dimension: 16384, primes: 8, bits: 135 },
];

impl Parameters {
    /// Ring dimensions and numbers of primes that [`Self::validate`] accepts. Those with fewer
    /// primes come first, as uploads and evaluation grow with these and with nothing else; then
    /// those with fewer rows, whose last ring batch wastes less.
    pub fn rings() -> impl Iterator<Item = (u32, u32)> {
        SECURITY.iter().map(|row| (row.ring_dimension, row.primes))
    }

    /// Refuses what is not of the table, and plaintext moduli that do not fit the packing.
    pub fn validate(&self) -> Result<(), InvalidRingParameters> {
        let Self { packing, ring_dimension, primes, plaintext_modulus: t } = *self;
        let refuse = |reason| Err(InvalidRingParameters(reason));
        if self.security_bits() == 0 {
            return refuse(format!(
                "ring dimension {ring_dimension} with {primes} primes is not of the table"
            ));
        }
        if !(2..=MAX_PLAINTEXT_MODULUS).contains(&t) {
            return refuse(format!("plaintext modulus {t} is not from 2 to 2^40"));
        }
        match packing {
            Packing::Slots if t % (2 * u64::from(ring_dimension)) != 1 || !is_prime64(t) => {
                refuse(format!(
                    "plaintext modulus {t} is not a prime that is 1 modulo 2 * {ring_dimension}"
                ))
            }
            Packing::Coefficients if !t.is_power_of_two() => {
                refuse(format!("plaintext modulus {t} is not a power of two"))
            }
            _ => Ok(()),
        }
    }

    /// log2 of the estimated work of the best attack. 0 for a ring that is not of the table.
    pub fn security_bits(&self) -> u32 {
        let ring = (self.ring_dimension, self.primes);
        let row = SECURITY.iter().find(|row| (row.ring_dimension, row.primes) == ring);
        row.map_or(0, |row| row.bits)
    }

    /// The primes whose product is q.
    pub fn moduli(&self) -> &'static [u64] {
        &PRIMES[..self.primes as usize]
    }

    /// log2 of q.
    pub fn log2_modulus(&self) -> f64 {
        log2_product(self.moduli())
    }

    /// N.
    pub fn dimension(&self) -> usize {
        self.ring_dimension as usize
    }

    /// Ring batches that `rows` rows take, and so mask seeds of their upload.
    pub fn ring_batches(&self, rows: usize) -> usize {
        rows.div_ceil(self.dimension())
    }
}

/// log2 of the product of `moduli`.
pub(super) fn log2_product(moduli: &[u64]) -> f64 {
    // Exact enough: converting 51 bits to a float loses nothing.
    moduli.iter().map(|&modulus| (modulus as f64).log2()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(packing: Packing, ring_dimension: u32, primes: u32, t: u64) -> Parameters {
        Parameters { packing, ring_dimension, primes, plaintext_modulus: t }
    }

    #[test]
    fn primes_are_as_their_documentation_says() {
        for (index, prime) in PRIMES.into_iter().enumerate() {
            assert!(is_prime64(prime) && prime % (1 << 16) == 1);
            assert!((1 << 51) - (1 << 23) < prime && prime < 1 << 51);
            assert!(!PRIMES[..index].contains(&prime));
        }
    }

    #[test]
    fn rings_of_the_table_have_at_least_128_bits() {
        let rings: Vec<_> = Parameters::rings().collect();
        assert_eq!(rings.len(), 1 + 2 + 3 + 5);
        for (dimension, primes) in rings {
            let parameters = parameters(Packing::Coefficients, dimension, primes, 1 << 20);
            parameters.validate().unwrap();
            assert!(parameters.security_bits() >= 128, "{parameters:?}");
        }
        let parameters = parameters(Packing::Slots, 8192, 3, 65537);
        assert_eq!(parameters.security_bits(), 184);
        assert!((parameters.log2_modulus() - 153.0).abs() < 1e-6);
        assert_eq!(parameters.ring_batches(8193), 2);
    }

    #[test]
    fn other_parameters_are_refused() {
        use Packing::{Coefficients, Slots};
        for (what, bad) in [
            ("dimension", parameters(Slots, 1024, 1, 12289)),
            ("no prime", parameters(Slots, 2048, 0, 12289)),
            ("too large a modulus", parameters(Slots, 2048, 2, 12289)),
            ("too large a modulus", parameters(Slots, 8192, 5, 65537)),
            ("too small a modulus", parameters(Slots, 16384, 3, 65537)),
            ("not 1 modulo 2N", parameters(Slots, 4096, 2, 12289)),
            ("not a prime", parameters(Slots, 4096, 2, 8193)),
            ("too large", parameters(Coefficients, 4096, 2, 1 << 41)),
            ("too small", parameters(Coefficients, 4096, 2, 1)),
            ("no power of two", parameters(Coefficients, 4096, 2, 40961)),
            ("a power of two", parameters(Slots, 4096, 2, 1 << 20)),
        ] {
            assert!(bad.validate().is_err(), "{what}: {bad:?}");
        }
        parameters(Slots, 4096, 2, 40961).validate().unwrap();
    }
}
