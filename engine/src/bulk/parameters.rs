//! Ring, primes and plaintext modulus.

use serde::{Deserialize, Serialize};
use tfhe_ntt::prime::is_prime64;
use thiserror::Error;

use crate::rlwe::primes::{PRIMES, log2_product, rings, security_bits};

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

impl Parameters {
    /// Ring dimensions and numbers of primes that [`Self::validate`] accepts. Those with fewer
    /// primes come first, as uploads and evaluation grow with these and with nothing else; then
    /// those with fewer rows, whose last ring batch wastes less.
    pub fn rings() -> impl Iterator<Item = (u32, u32)> {
        rings()
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
        security_bits(self.ring_dimension, self.primes)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(packing: Packing, ring_dimension: u32, primes: u32, t: u64) -> Parameters {
        Parameters { packing, ring_dimension, primes, plaintext_modulus: t }
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
