//! Montgomery arithmetic modulo a prime, with R = 2^52.
//!
//! Words of uploads are Montgomery forms, because then one product in the style of AVX-512-IFMA
//! multiplies a column by a plain residue into a plain residue. These functions are the reference
//! that every faster kernel must equal.

/// log2 of R: what AVX-512-IFMA multiplies are words of 52 bits.
pub(crate) const RADIX_BITS: u32 = 52;
/// Words below R.
pub(crate) const RADIX_MASK: u64 = (1 << RADIX_BITS) - 1;

/// A prime p below 2^51, and what Montgomery products modulo p need. Residues are below p.
#[derive(Debug, Clone, Copy)]
pub struct Montgomery {
    modulus: u64,
    /// -p^-1 modulo R.
    negative_inverse: u64,
    /// R^2 modulo p.
    radix_squared: u64,
}

impl Montgomery {
    /// Of an odd modulus below 2^51.
    pub const fn new(modulus: u64) -> Self {
        assert!(modulus % 2 == 1 && modulus < 1 << (RADIX_BITS - 1));
        // Newton's iteration doubles the correct low bits, of which an odd number has three.
        let mut inverse = modulus;
        let mut step = 0;
        while step < 5 {
            inverse = inverse.wrapping_mul(2u64.wrapping_sub(modulus.wrapping_mul(inverse)));
            step += 1;
        }
        let radix = (1 << RADIX_BITS) % modulus as u128;
        Self {
            modulus,
            negative_inverse: inverse.wrapping_neg() & RADIX_MASK,
            radix_squared: low(radix * radix % modulus as u128),
        }
    }

    /// p.
    pub const fn modulus(&self) -> u64 {
        self.modulus
    }

    /// `-p^-1 mod 2^52`.
    pub const fn negative_inverse(&self) -> u64 {
        self.negative_inverse
    }

    /// `a b R^-1 mod p`: the plain product, when one of them is in Montgomery form.
    #[inline(always)]
    pub const fn product(&self, a: u64, b: u64) -> u64 {
        let product = a as u128 * b as u128;
        let factor = low(product).wrapping_mul(self.negative_inverse) & RADIX_MASK;
        // Below 2p: product < p R, and factor p < p R.
        let reduced =
            low(product.wrapping_add(factor as u128 * self.modulus as u128) >> RADIX_BITS);
        self.reduce_once(reduced)
    }

    /// `a R mod p`, of any a below R.
    pub const fn montgomery_form(&self, a: u64) -> u64 {
        self.product(a, self.radix_squared)
    }

    /// `a R^-1 mod p`.
    pub const fn plain_form(&self, a: u64) -> u64 {
        self.product(a, 1)
    }

    /// `a b mod p`.
    pub const fn multiply(&self, a: u64, b: u64) -> u64 {
        self.product(self.montgomery_form(a), b)
    }

    /// `a + b mod p`.
    #[inline(always)]
    pub const fn add(&self, a: u64, b: u64) -> u64 {
        self.reduce_once(a.wrapping_add(b))
    }

    /// `a - b mod p`.
    #[inline(always)]
    pub const fn subtract(&self, a: u64, b: u64) -> u64 {
        let difference = a.wrapping_sub(b);
        // p where the difference is negative.
        difference.wrapping_add(self.modulus & (difference >> 63).wrapping_neg())
    }

    /// `-a mod p`.
    pub const fn negate(&self, a: u64) -> u64 {
        self.subtract(0, a)
    }

    /// The residue of an integer between -p and p.
    #[inline(always)]
    pub const fn residue(&self, a: i64) -> u64 {
        self.subtract(a.cast_unsigned(), 0)
    }

    /// The residue of any integer.
    pub const fn residue_of(&self, a: i128) -> u64 {
        low(a.rem_euclid(self.modulus as i128).cast_unsigned())
    }

    /// `a^exponent mod p`.
    pub const fn power(&self, a: u64, mut exponent: u64) -> u64 {
        let mut square = self.montgomery_form(a);
        let mut power = self.montgomery_form(1);
        while exponent > 0 {
            if exponent % 2 == 1 {
                power = self.product(power, square);
            }
            square = self.product(square, square);
            exponent /= 2;
        }
        self.plain_form(power)
    }

    /// `a^-1 mod p`, for a prime p.
    pub const fn inverse(&self, a: u64) -> u64 {
        self.power(a, self.modulus - 2)
    }

    /// What is below 2p, modulo p, without a branch.
    #[inline(always)]
    const fn reduce_once(&self, a: u64) -> u64 {
        self.subtract(a, self.modulus)
    }
}

/// The low half of what is known to fit, or is to be reduced modulo a power of two.
#[allow(clippy::cast_possible_truncation)]
#[inline(always)]
pub(crate) const fn low(value: u128) -> u64 {
    value as u64
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::rlwe::keystream::Keystream;
    use crate::rlwe::primes::PRIMES;

    /// Residues, the first of which are the extreme ones.
    pub(crate) fn random(count: usize, modulus: u64, seed: u8) -> Vec<u64> {
        let mut words = vec![0; count];
        Keystream::new(&[seed; 16]).fill(0, &mut words);
        words.iter_mut().for_each(|word| *word %= modulus);
        words[..4].copy_from_slice(&[0, modulus - 1, 1, modulus / 2]);
        words
    }

    pub(crate) fn product(a: u64, b: u64, modulus: u64) -> u64 {
        u64::try_from(u128::from(a) * u128::from(b) % u128::from(modulus)).unwrap()
    }

    #[test]
    fn arithmetic_is_modulo_the_prime() {
        for modulus in PRIMES.into_iter().chain([3, 40961]) {
            let field = Montgomery::new(modulus);
            let words = random(64, modulus, 1);
            for &a in &words {
                assert_eq!(field.plain_form(field.montgomery_form(a)), a);
                assert_eq!(field.montgomery_form(a), product(a, (1 << 52) % modulus, modulus));
                assert_eq!(field.add(a, field.negate(a)), 0);
                assert_eq!(
                    field.power(a, 5),
                    (1..5).fold(a, |power, _| product(power, a, modulus))
                );
                if a != 0 {
                    assert_eq!(field.multiply(a, field.inverse(a)), 1);
                }
                for &b in &words {
                    let (sum, difference) = (a + b, a + modulus - b);
                    assert_eq!(field.multiply(a, b), product(a, b, modulus));
                    assert_eq!(field.product(field.montgomery_form(a), b), product(a, b, modulus));
                    assert_eq!(field.add(a, b), sum % modulus);
                    assert_eq!(field.subtract(a, b), difference % modulus);
                }
            }
            for a in [RADIX_MASK, RADIX_MASK - modulus / 2] {
                assert_eq!(field.plain_form(field.montgomery_form(a)), a % modulus);
            }
            assert_eq!(field.residue(-1), modulus - 1);
            assert_eq!(field.residue(2), 2);
            assert_eq!(field.residue_of(-1 - 3 * i128::from(modulus)), modulus - 1);
        }
    }
}
