//! From residues modulo primes to the centred integer, modulo t: the last step of decryption.
//!
//! What is lifted depends on the secret, so there is no branch and no division here: t is a prime of
//! slots or a power of two, and products by constants are reduced by quotients that are computed
//! beforehand.

use super::parameters::Parameters;
use crate::rlwe::montgomery::{Montgomery, low};

/// The first primes p_0 .. p_(r-1) of some parameters, and t.
///
/// An integer x from 0 to q' - 1, where q' is the product of the primes, has digits v_i below p_i in
/// the mixed radix: `x = v_0 + v_1 p_0 + v_2 p_0 p_1 + ..`. The digits of (q' - 1) / 2 are (p_i - 1) / 2,
/// so that comparing digits tells whether x stands for x - q'.
pub(super) struct Lift {
    primes: Vec<Montgomery>,
    /// At `[i][j]`, j < i: the inverse of p_j modulo p_i, in Montgomery form.
    inverses: Vec<Vec<u64>>,
    /// `p_0 .. p_(i-1) mod t`.
    radix: Vec<Factor>,
    /// `-q' mod t`.
    minus_product: u64,
    t: u64,
    /// Product of the primes that are not there, modulo t.
    factor: Factor,
}

/// A residue w modulo t, to multiply by.
///
/// With `w' = floor(2^64 w / t)`, `a w - t floor(a w' / 2^64)` is from 0 to 2t - 1 for every a below 2^64: V. Shoup,
/// in NTL; D. Harvey, *Faster arithmetic for number-theoretic transforms*, 2014.
struct Factor {
    residue: u64,
    quotient: u64,
}

impl Factor {
    /// Of a residue below t, which is at most 2^40.
    fn new(residue: u64, t: u64) -> Self {
        let quotient = (u128::from(residue) << 64) / u128::from(t);
        Self { residue, quotient: low(quotient) }
    }

    /// `a w mod t`, of any a.
    fn times(&self, a: u64, t: u64) -> u64 {
        let quotient = low((u128::from(a) * u128::from(self.quotient)) >> 64);
        let product = a.wrapping_mul(self.residue).wrapping_sub(quotient.wrapping_mul(t));
        reduce_once(product, t)
    }
}

/// What is below 2t, modulo t.
fn reduce_once(a: u64, t: u64) -> u64 {
    let difference = a.wrapping_sub(t);
    difference.wrapping_add(t & sign(difference).wrapping_neg())
}

/// 1 for a negative difference of numbers below 2^63, else 0.
fn sign(difference: u64) -> u64 {
    difference >> 63
}

/// The integer of least magnitude that is `word` modulo t.
pub(super) fn centred(word: u64, t: u64) -> i64 {
    let above = sign(((t - 1) / 2).wrapping_sub(word));
    word.wrapping_sub(t & above.wrapping_neg()).cast_signed()
}

impl Lift {
    /// Of the first `primes` primes of `parameters`, at least one. What was switched away from the
    /// others has been divided by them, which is undone modulo t.
    pub(super) fn new(parameters: &Parameters, primes: usize) -> Self {
        let t = parameters.plaintext_modulus;
        let (kept, dropped) = parameters.moduli().split_at(primes);
        let primes: Vec<_> = kept.iter().map(|&modulus| Montgomery::new(modulus)).collect();
        let inverse = |of: u64, field: &Montgomery| {
            field.montgomery_form(field.inverse(of % field.modulus()))
        };
        let inverses = primes
            .iter()
            .enumerate()
            .map(|(i, field)| kept[..i].iter().map(|&of| inverse(of, field)).collect())
            .collect();
        let product = |moduli: &[u64]| {
            moduli.iter().fold(1 % t, |product, &modulus| {
                low(u128::from(product) * u128::from(modulus % t) % u128::from(t))
            })
        };
        let radix = (0..kept.len()).map(|i| Factor::new(product(&kept[..i]), t)).collect();
        Self {
            primes,
            inverses,
            radix,
            minus_product: (t - product(kept)) % t,
            t,
            factor: Factor::new(product(dropped), t),
        }
    }

    /// The centred integer that `residues` stand for, one of each prime, times the primes that are
    /// not there, modulo t. How long it takes does not depend on them.
    pub(super) fn lift(&self, residues: impl IntoIterator<Item = u64>) -> u64 {
        let mut digits = [0; crate::rlwe::primes::PRIMES.len()];
        let mut negative = 0;
        let mut value = 0;
        let residues = residues.into_iter().zip(&self.primes).zip(&self.inverses);
        for (i, ((residue, field), inverses)) in residues.enumerate() {
            let mut digit = residue;
            for (&earlier, &inverse) in digits[..i].iter().zip(inverses) {
                // Below twice the prime, as all primes have 51 bits.
                let earlier = field.add(earlier, 0);
                digit = field.product(field.subtract(digit, earlier), inverse);
            }
            digits[i] = digit;
            value = reduce_once(value + self.radix[i].times(digit, self.t), self.t);
            // The more significant digit decides: (half - digit - negative) is below 0 where digit
            // is above half, or equal with a remainder that is negative.
            let half = field.modulus() / 2;
            negative = sign(half.wrapping_sub(digit).wrapping_sub(negative));
        }
        value = reduce_once(value + (self.minus_product & negative.wrapping_neg()), self.t);
        self.factor.times(value, self.t)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bulk::parameters::Packing;

    #[test]
    fn integers_of_either_sign_are_lifted() {
        for (ring_dimension, primes) in Parameters::rings() {
            for kept in 1..=primes as usize {
                for t in [65537, 786433, 1 << 20] {
                    let parameters = Parameters {
                        packing: Packing::Slots,
                        ring_dimension,
                        primes,
                        plaintext_modulus: t,
                    };
                    let lift = Lift::new(&parameters, kept);
                    let fields = parameters.moduli()[..kept].iter().map(|&p| Montgomery::new(p));
                    let fields: Vec<_> = fields.collect();
                    let dropped = &parameters.moduli()[kept..];
                    let largest = 1i128 << (51 * kept - 2).min(100);
                    for x in [0, 1, -1, 5, -65537, 1 << 48, -(1 << 48), largest, -largest] {
                        let t = i128::from(t);
                        let times = |product, &p: &u64| product * (i128::from(p) % t) % t;
                        let expected = dropped.iter().fold(x.rem_euclid(t), times);
                        let residues = fields.iter().map(|field| field.residue_of(x));
                        assert_eq!(i128::from(lift.lift(residues)), expected, "{x} {kept} {t}");
                    }
                }
            }
        }
    }

    #[test]
    fn residues_are_centred() {
        for t in [7_u64, 8, 65537, 1 << 20] {
            for word in [0, 1, (t - 1) / 2, (t - 1) / 2 + 1, t - 1] {
                let (word, t) = (word.cast_signed(), t.cast_signed());
                let expected = if 2 * word > t - 1 { word - t } else { word };
                assert_eq!(
                    centred(word.cast_unsigned(), t.cast_unsigned()),
                    expected,
                    "{word} {t}"
                );
            }
        }
    }

    /// Around q/2, where the sign changes, each digit of the mixed radix counts.
    #[test]
    fn sign_changes_at_half_the_modulus() {
        let parameters = Parameters {
            packing: Packing::Slots,
            ring_dimension: 4096,
            primes: 2,
            plaintext_modulus: 40961,
        };
        let lift = Lift::new(&parameters, 2);
        let fields: Vec<_> = parameters.moduli().iter().map(|&p| Montgomery::new(p)).collect();
        let q: i128 = parameters.moduli().iter().map(|&p| i128::from(p)).product();
        for x in [q / 2 - 1, q / 2, -(q / 2), -(q / 2) + 1] {
            let residues = fields.iter().map(|field| field.residue_of(x));
            assert_eq!(i128::from(lift.lift(residues)), x.rem_euclid(40961), "{x}");
        }
    }
}
