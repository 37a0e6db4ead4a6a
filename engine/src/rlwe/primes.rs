//! Primes of ciphertext moduli, the rings that are safe with how many of them, and what these are
//! worth.

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

/// Ring dimensions N and numbers of primes that are safe. Those with fewer primes come first for each
/// N.
pub fn rings() -> impl Iterator<Item = (u32, u32)> {
    SECURITY.iter().map(|row| (row.ring_dimension, row.primes))
}

/// log2 of the estimated work of the best attack on a ring of dimension N with so many primes. 0 for
/// a ring that is not of the table.
pub fn security_bits(ring_dimension: u32, primes: u32) -> u32 {
    let row =
        SECURITY.iter().find(|row| (row.ring_dimension, row.primes) == (ring_dimension, primes));
    row.map_or(0, |row| row.bits)
}

/// log2 of the product of `moduli`.
pub(crate) fn log2_product(moduli: &[u64]) -> f64 {
    // Exact enough: converting 51 bits to a float loses nothing.
    moduli.iter().map(|&modulus| (modulus as f64).log2()).sum()
}

#[cfg(test)]
mod tests {
    use tfhe_ntt::prime::is_prime64;

    use super::*;

    #[test]
    fn primes_are_as_their_documentation_says() {
        for (index, prime) in PRIMES.into_iter().enumerate() {
            assert!(is_prime64(prime) && prime % (1 << 16) == 1);
            assert!((1 << 51) - (1 << 23) < prime && prime < 1 << 51);
            assert!(!PRIMES[..index].contains(&prime));
        }
    }
}
