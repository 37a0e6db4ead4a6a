//! Replies modulo fewer primes.
//!
//! After evaluation most of the modulus is noise. A component c modulo p_0 .. p_k is replaced by
//! `(c + t u) / p_k` modulo the primes before, where u is the centred residue of `-c / t` modulo p_k:
//! the sum is divisible by p_k and is c modulo t. The plaintext is thereby divided by p_k modulo t,
//! which decryption undoes. The phase, noise included, is divided by p_k, and a rounding noise is added
//! that does not depend on it ([`super::noise::rounding_variance`]): what earlier primes add of it is
//! divided by later ones and does not show.
//!
//! Switching is of what a reply shows anyhow, so it comes after sanitising and needs no secrecy.

use std::sync::Arc;

use super::ring::Ring;

/// Switches from all primes of a ring to the first few.
#[derive(Debug)]
pub(super) struct Switch {
    ring: Arc<Ring>,
    kept: usize,
}

impl Switch {
    /// To the first `kept` primes, at least one.
    pub(super) fn new(ring: Arc<Ring>, kept: u32) -> Self {
        assert!((1..=ring.parameters().primes).contains(&kept), "primes that are kept");
        Self { ring, kept: kept as usize }
    }

    /// Primes that are kept.
    pub(super) fn kept(&self) -> usize {
        self.kept
    }

    /// Switches a component: N plain residues at the evaluation points, prime by prime. The words of
    /// primes that are kept come first, and the others mean nothing afterwards.
    pub(super) fn apply(&self, component: &mut [u64]) {
        let dimension = self.ring.dimension();
        let primes = self.ring.primes();
        assert_eq!(component.len(), primes.len() * dimension, "a component has all primes");
        let mut rounded = vec![0; dimension];
        let mut residues = vec![0; dimension];
        let mut factors = vec![0; dimension];
        let mut quotient = vec![0; dimension];
        for last in (self.kept..primes.len()).rev() {
            let (others, words) = component.split_at_mut(last * dimension);
            self.round(last, &mut words[..dimension], &mut rounded);
            let dropped = primes[last].modulus();
            for (prime, words) in primes.iter().zip(others.chunks_mut(dimension)) {
                let field = &prime.montgomery;
                let inverse = field.inverse(dropped % prime.modulus());
                let scaled = field.multiply(self.ring.parameters().plaintext_modulus, inverse);
                prime.residues(&rounded, &mut residues);
                prime.forward(&mut residues);
                quotient.fill(0);
                prime.multiply_add_constant(&mut quotient, words, inverse, &mut factors);
                prime.multiply_add_constant(&mut quotient, &residues, scaled, &mut factors);
                words.copy_from_slice(&quotient);
            }
        }
    }

    /// u: the centred residues of `-c / t` modulo prime `last`, in coefficients.
    fn round(&self, last: usize, words: &mut [u64], rounded: &mut [i64]) {
        let prime = &self.ring.primes()[last];
        let field = &prime.montgomery;
        prime.inverse(words);
        let t = self.ring.parameters().plaintext_modulus;
        let factor = field.montgomery_form(field.negate(field.inverse(t)));
        let half = prime.modulus() / 2;
        for (rounded, word) in rounded.iter_mut().zip(words) {
            let residue = field.product(*word, factor);
            // Shifted by half the prime, reduced, and back.
            *rounded = field.add(residue, half).cast_signed() - half.cast_signed();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bulk::noise::rounding_variance;
    use crate::bulk::tests::*;

    /// Of the polynomial 0, whose noise is rounding alone.
    #[test]
    fn rounding_noise_is_as_predicted() {
        for (ring, degree) in slots().into_iter().filter(|(ring, _)| ring.primes().len() > 1) {
            let secret = fixed_secret(ring.parameters());
            let degree = degree.min(3);
            let zero = random_zero(&ring, &secret, degree);
            assert_eq!(zero.log2_deviation(&ring, &secret), f64::NEG_INFINITY);
            for kept in 1..ring.parameters().primes {
                let switch = Switch::new(Arc::clone(&ring), kept);
                let mut switched = zero.clone();
                switched.switch(&ring, &switch);
                let measured = switched.log2_deviation(&ring, &secret);
                let bound = rounding_variance(ring.parameters(), degree).log2() / 2.0;
                let t = ring.parameters().plaintext_modulus as f64;
                let growth: f64 = (0..=degree).map(|power| mean_growth(&ring, power)).sum();
                let predicted = (t * t / 12.0 * growth).log2() / 2.0;
                assert!((measured - predicted).abs() < 0.25, "{ring:?}: {measured} {predicted}");
                assert!(measured < bound + 0.05, "{ring:?}: {measured} {bound}");
            }
        }
    }
}
