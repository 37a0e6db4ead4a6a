//! Montgomery reduction with R = 2^52, after sums of products.
//!
//! Let T be a sum of k products of residues, plus R times a sum of j residues. With
//! `m = -T / p mod R`, `T + m p` is a multiple of R, and
//!
//! ```text
//! (T + m p) / R = T / R  (mod p),    (T + m p) / R < (k p / 2^52 + j + 1) p <= (k/2 + j + 1) p
//! ```
//!
//! as p < 2^51. Conditional subtractions of 4p, 2p and p make it canonical when it is below 8p,
//! those of 2p and p when it is below 4p.

use crate::rlwe::montgomery::Montgomery;
pub(super) use crate::rlwe::montgomery::{RADIX_BITS, RADIX_MASK};

/// Terms that an affine combination sums before it reduces: with a constant, or what was summed
/// before, it is below `(12/2 + 1 + 1) p = 8 p`.
pub(super) const TERMS_PER_REDUCTION: usize = 12;

/// A prime below 2^51.
#[derive(Debug, Clone, Copy)]
pub(super) struct Modulus {
    pub(super) prime: u64,
    /// -1 / p mod R.
    pub(super) inverse: u64,
}

impl Modulus {
    pub(super) fn new(prime: u64) -> Self {
        Self { prime, inverse: Montgomery::new(prime).negative_inverse() }
    }

    /// The residue of an integer above -2p and below 2p.
    pub(super) fn residue(self, value: i64) -> u64 {
        let double = 2 * self.prime;
        self.canonical(double.wrapping_add_signed(value))
    }

    /// R mod p: 1 in Montgomery form.
    pub(super) fn one(self) -> u64 {
        (1 << RADIX_BITS) % self.prime
    }

    /// The residue of a number below 8p.
    pub(super) fn canonical(self, value: u64) -> u64 {
        // What is too small to subtract from wraps to a large number.
        let value = value.min(value.wrapping_sub(4 * self.prime));
        let value = value.min(value.wrapping_sub(2 * self.prime));
        value.min(value.wrapping_sub(self.prime))
    }

    /// `sum / R mod p` for a sum of products as above: the result is below 8p.
    pub(super) fn reduce(self, sum: u128) -> u64 {
        let product = low(sum).wrapping_mul(self.inverse) & RADIX_MASK;
        // Both are far below 2^127.
        let multiple = sum.wrapping_add(u128::from(product) * u128::from(self.prime));
        self.canonical(low(multiple >> RADIX_BITS))
    }
}

/// The low 64 bits.
#[allow(clippy::cast_possible_truncation)]
fn low(value: u128) -> u64 {
    value as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rlwe::primes::PRIMES;

    #[test]
    fn reduction_divides_by_the_radix() {
        for prime in PRIMES {
            let modulus = Modulus::new(prime);
            let largest = u128::from(prime - 1) * u128::from(prime - 1);
            let constants = u128::from(prime - 1) << RADIX_BITS;
            for sum in [0, 1, largest, 12 * largest + constants, 2 * largest + 2 * constants] {
                let reduced = modulus.reduce(sum);
                assert!(reduced < prime);
                let back = (u128::from(reduced) << RADIX_BITS) % u128::from(prime);
                assert_eq!(back, sum % u128::from(prime));
            }
        }
    }

    #[test]
    fn integers_have_residues() {
        let modulus = Modulus::new(PRIMES[7]);
        let prime = PRIMES[7].cast_signed();
        for value in [0, 1, -1, prime, -prime, 2 * prime - 1, 1 - 2 * prime, (1 << 51) - 2] {
            let expected = value.rem_euclid(prime).cast_unsigned();
            assert_eq!(modulus.residue(value), expected);
            assert_eq!(modulus.residue(-value), (-value).rem_euclid(prime).cast_unsigned());
        }
        assert_eq!(modulus.reduce(u128::from(modulus.one())), 1);
    }
}
