//! From residues modulo primes to the centred integer, modulo t: the last step of decryption.

use super::parameters::Parameters;
use crate::rlwe::montgomery::Montgomery;

/// The first primes p_0 .. p_(r-1) of some parameters, and t.
///
/// An integer x from 0 to q' - 1, where q' is the product of the primes, has digits v_i below p_i in
/// the mixed radix: `x = v_0 + v_1 p_0 + v_2 p_0 p_1 + ..`. The digits of (q' - 1) / 2 are (p_i - 1) / 2,
/// so that comparing digits tells whether x stands for x - q'.
pub(super) struct Lift {
    primes: Vec<Montgomery>,
    /// At `[i][j]`, j < i: the inverse of p_j modulo p_i, in Montgomery form.
    inverses: Vec<Vec<u64>>,
    /// `p_0 .. p_(i-1) mod t`, and last q' mod t.
    radix: Vec<u64>,
    t: u64,
    /// Product of the primes that are not there, modulo t.
    factor: u64,
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
        let mut radix = vec![1 % t];
        radix.extend(kept.iter().scan(1, |product, &modulus| {
            *product = multiply(*product, modulus % t, t);
            Some(*product)
        }));
        let factor = dropped.iter().fold(1, |factor, &modulus| multiply(factor, modulus % t, t));
        Self { primes, inverses, radix, t, factor }
    }

    /// The centred integer that `residues` stand for, one of each prime, times the primes that are
    /// not there, modulo t.
    pub(super) fn lift(&self, residues: impl IntoIterator<Item = u64>) -> u64 {
        let mut digits = [0; crate::rlwe::primes::PRIMES.len()];
        let mut negative = false;
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
            value = (value + multiply(digit % self.t, self.radix[i], self.t)) % self.t;
            // The more significant digit decides.
            let half = field.modulus() / 2;
            negative = digit > half || (digit == half && negative);
        }
        if negative {
            value = (value + self.t - self.radix[self.primes.len()]) % self.t;
        }
        multiply(value, self.factor, self.t)
    }
}

/// `a b mod t`, for a and b below t, which is at most 2^40.
fn multiply(a: u64, b: u64, t: u64) -> u64 {
    let product = u128::from(a) * u128::from(b) % u128::from(t);
    u64::try_from(product).expect("a residue is below its modulus")
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
