//! Hiding a model in the reply from who holds the secret key.
//!
//! Components c_1 to c_D of an output are polynomials in masks that the data owner can expand, with
//! the model's leaves as coefficients: untouched, linear algebra reveals the leaves. To the
//! components of each output are therefore added, for i = 1 to D,
//!
//! ```text
//! c_(i-1) += r_i pk_0 + t e1_i        c_i += r_i pk_1 + t e2_i
//! ```
//!
//! with fresh uniform ternary r_i and fresh errors, and to c_0 a flood `t F` ([`super::flood`]). The
//! phase changes by t times `F + sum of s^(i-1) (r_i e + e1_i + e2_i s)`, where e is the public key's
//! error, so it is the same modulo t.
//!
//! Why the reply shows no more than its rows. By the flood, its phase could as well be that of the rows
//! alone, `m + t F`, up to the statistical distance that the flood bounds; c_0 is determined by the
//! phase and the other components, so it shows nothing more. Then r_1 is only in c_1, as
//! `r_1 pk_1 + t e2_1`: an RLWE sample, so c_1 can be replaced by a uniform element. Then r_2 is only
//! in c_2, and so on to c_D. The data owner knows s, but none of the r_i. What this needs is a pk_1 that
//! nobody has chosen, and a phase whose noise is as small as was planned: a data owner who sends a
//! dishonest pk_0, or dishonest errors, makes it larger and sees through the flood.
//!
//! What is added does not depend on the upload. Each addition is used once: two replies with one
//! would show their difference.

use std::sync::Arc;

use rayon::prelude::*;
use zeroize::Zeroizing;

use super::flood::Flood;
use super::ring::Ring;
use super::secret::PublicKey;
use crate::rlwe::sampling::{EntropyError, Noise, NoiseStream};

/// Prepares additions for outputs of one degree under one public key.
pub(super) struct Sanitiser {
    ring: Arc<Ring>,
    key: Arc<PublicKey>,
    degree: u32,
    flood: Flood,
}

/// What is added to one output of one ring batch.
pub(super) struct Addition {
    /// Components 0 to D, each prime by prime, N words of each.
    words: Zeroizing<Vec<u64>>,
}

impl Sanitiser {
    /// Of a public key that was read for the ring's parameters; it panics with another.
    pub(super) fn new(ring: Arc<Ring>, key: Arc<PublicKey>, degree: u32, flood: Flood) -> Self {
        assert_eq!(key.parameters, *ring.parameters(), "a key of the ring's parameters");
        Self { ring, key, degree, flood }
    }

    /// Additions for `outputs` outputs of one ring batch.
    pub(super) fn prepare(&self, outputs: u32) -> Result<Vec<Addition>, EntropyError> {
        let noise = Noise::fresh()?;
        let additions =
            (0..outputs).into_par_iter().map(|output| self.addition(noise.stream(output)));
        Ok(additions.collect())
    }

    fn addition(&self, mut noise: NoiseStream<'_>) -> Addition {
        let dimension = self.ring.dimension();
        let primes = self.ring.primes();
        let degree = self.degree as usize;
        let t = self.ring.parameters().plaintext_modulus;
        let flood = self.flood.draw(&mut noise, dimension);
        // Errors that a component gets are added up, so that they are transformed once.
        let errors: Vec<_> = (0..=degree)
            .map(|component| {
                let mut sums = Zeroizing::new(vec![0; dimension]);
                let count = usize::from(component < degree) + usize::from(component > 0);
                (0..count).for_each(|_| noise.add_errors(&mut sums));
                sums.iter_mut().for_each(|sum| *sum *= t.cast_signed());
                sums
            })
            .collect();
        let secrets: Vec<_> = (0..degree)
            .map(|_| {
                let mut secret = Zeroizing::new(vec![0; dimension]);
                noise.ternary(&mut secret);
                secret
            })
            .collect();
        let mut words = Zeroizing::new(vec![0; (degree + 1) * primes.len() * dimension]);
        let mut secret = Zeroizing::new(vec![0; dimension]);
        for (index, prime) in primes.iter().enumerate() {
            let mut components: Vec<_> =
                words.chunks_mut(dimension).skip(index).step_by(primes.len()).collect();
            for (component, errors) in components.iter_mut().zip(&errors) {
                prime.residues(errors, component);
            }
            Flood::add(&flood, t, prime, components[0]);
            components.iter_mut().for_each(|component| prime.forward(component));
            for (i, coefficients) in secrets.iter().enumerate() {
                prime.residues(coefficients, &mut secret);
                prime.forward(&mut secret);
                prime.multiply_add(components[i], &secret, &self.key.first[index]);
                prime.multiply_add(components[i + 1], &secret, &self.key.second[index]);
            }
        }
        Addition { words }
    }
}

impl Addition {
    /// Adds to an output: components 0 to D, each prime by prime, N plain residues of each.
    pub(super) fn add(self, ring: &Ring, output: &mut [u64]) {
        assert_eq!(output.len(), self.words.len(), "an output has all components and primes");
        let dimension = ring.dimension();
        let words = output.chunks_mut(dimension).zip(self.words.chunks(dimension));
        for ((sum, words), prime) in words.zip(ring.primes().iter().cycle()) {
            prime.add(sum, words);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bulk::noise::sanitiser_variance;
    use crate::bulk::secret::SecretKey;
    use crate::bulk::tests::*;
    use crate::rlwe::sampling::ERROR_VARIANCE;

    fn sanitiser(ring: &Arc<Ring>, secret: &SecretKey, degree: u32, flood: Flood) -> Sanitiser {
        let bytes = secret.public_key(ring).unwrap();
        let key = PublicKey::read(&bytes, ring.parameters()).unwrap();
        Sanitiser::new(Arc::clone(ring), Arc::new(key), degree, flood)
    }

    /// What a sanitiser adds without its flood is as noisy as predicted.
    #[test]
    fn own_noise_is_as_predicted() {
        for (ring, degree) in slots().into_iter().filter(|(_, degree)| *degree <= 3) {
            let secret = fixed_secret(ring.parameters());
            let flood = Flood::hiding(f64::NEG_INFINITY, 2);
            assert_eq!(flood.bits, 0);
            let noise = Noise::from_key(&[8; 16]);
            let addition = sanitiser(&ring, &secret, degree, flood).addition(noise.stream(0));
            let output = Ciphertext::from_words(&ring, &addition.words);
            let measured = output.log2_deviation(&ring, &secret);
            let bound = sanitiser_variance(ring.parameters(), degree).log2() / 2.0;
            let each = |i| {
                mean_growth(&ring, i - 1) * (mean_growth(&ring, 1) + 1.0) + mean_growth(&ring, i)
            };
            let t = ring.parameters().plaintext_modulus as f64;
            let variance = t * t * ERROR_VARIANCE * (1..=degree).map(each).sum::<f64>();
            let predicted = variance.log2() / 2.0;
            assert!((measured - predicted).abs() < 0.25, "{ring:?}: {measured} {predicted}");
            assert!(measured < bound + 0.05, "{ring:?}: {measured} {bound}");
        }
    }

    #[test]
    fn additions_are_fresh_in_every_component_and_prime() {
        let (ring, degree) = slots().swap_remove(2);
        let secret = fixed_secret(ring.parameters());
        let sanitiser = sanitiser(&ring, &secret, degree, Flood::hiding(70.0, 40961));
        let additions = [sanitiser.prepare(2).unwrap(), sanitiser.prepare(1).unwrap()];
        let additions: Vec<_> = additions.into_iter().flatten().collect();
        for index in 0..additions[0].words.len() {
            let [a, b, c] = [0, 1, 2].map(|addition: usize| additions[addition].words[index]);
            assert!(a != b && b != c && c != a, "word {index}");
        }
    }

    #[test]
    fn additions_are_added_to_each_component() {
        let (ring, degree) = slots().swap_remove(2);
        let secret = fixed_secret(ring.parameters());
        let sanitiser = sanitiser(&ring, &secret, degree, Flood::hiding(70.0, 40961));
        let addition = sanitiser.prepare(1).unwrap().swap_remove(0);
        let words = addition.words.clone();
        let mut output = vec![1; words.len()];
        addition.add(&ring, &mut output);
        let mut expected = Ciphertext::from_words(&ring, &vec![1; words.len()]);
        expected.add_scaled(&ring, 1, &Ciphertext::from_words(&ring, &words));
        assert_eq!(Ciphertext::from_words(&ring, &output), expected);
    }
}
