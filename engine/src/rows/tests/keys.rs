//! Keys and their masks.

use std::collections::HashSet;

use super::models::{centred, fixed_secret, parameters, steps};
use crate::rlwe::mask::Masks;
use crate::rlwe::primes::{PRIMES, rings};
use crate::rlwe::sampling::ERROR_BOUND;
use crate::rows::domain::{Domain, first_bytes, ring_bytes};
use crate::rows::evaluation_key::{KeySample, RowEvaluationKey};
use crate::rows::parameters::RowKeyParameters;
use crate::rows::ring::{Element, RowRing};
use crate::rows::secret::RowKeyError;

/// Every sample of every key of every ring, and every upload, has a mask of its own.
#[test]
fn no_two_samples_share_a_mask() {
    let mut seeds = HashSet::new();
    let mut count = 0;
    for (ring_dimension, primes) in rings() {
        let keys = RowKeyParameters { ring_dimension, primes, steps: Vec::new() };
        seeds.insert(KeySample::Public.mask_seed(&keys));
        let upload = Domain::UploadMask.digest(&[&ring_bytes(&keys), &[0; 16]]);
        seeds.insert(first_bytes(&upload));
        count += 2;
        for round in 0..ring_dimension.ilog2() - 1 {
            let first = (ring_dimension >> round) + 1;
            // This round and the next.
            let second = (ring_dimension >> round >> 1) + 1;
            let both = u64::from(first) * u64::from(second) % (2 * u64::from(ring_dimension));
            for exponent in [first, u32::try_from(both).unwrap()] {
                for digits in 1..=4 {
                    for (prime, digit) in (0..primes).flat_map(|p| (0..digits).map(move |d| (p, d)))
                    {
                        let sample = KeySample::Switch { exponent, digits, prime, digit };
                        seeds.insert(sample.mask_seed(&keys));
                        count += 1;
                    }
                }
            }
        }
    }
    assert_eq!(seeds.len(), count);
    let streams = seeds.iter().map(|seed| {
        let mut words = [0; 2];
        Masks::new(seed).expand_all(0, 0, PRIMES[0], &mut words);
        words
    });
    assert_eq!(streams.collect::<HashSet<_>>().len(), count);
}

/// `k_0 + k_1 s = e + g sigma(s)`, with small errors that are all different.
#[test]
fn switch_keys_encrypt_the_images_of_the_secret() {
    for digits in [1, 2] {
        let keys = RowKeyParameters { ring_dimension: 4096, primes: 2, steps: steps(3, digits) };
        let ring = RowRing::new(&keys).unwrap();
        let secret = fixed_secret(&keys);
        let bytes = secret.evaluation_key(&ring).unwrap();
        let key = RowEvaluationKey::read(&bytes, &ring).unwrap();
        let evaluated: Vec<_> = ring.primes().iter().map(|prime| secret.evaluated(prime)).collect();
        let mut seen = HashSet::new();
        for (tables, step) in ring.steps().iter().zip(&key.steps) {
            for (automorphism, switch) in tables.automorphisms.iter().zip(step) {
                for (index, sample) in switch.samples.iter().enumerate() {
                    let digit = u32::try_from(index).unwrap() % digits;
                    let of = index / digits as usize;
                    let mut phase = Element::zero(&ring);
                    for (number, prime) in ring.primes().iter().enumerate() {
                        let field = &prime.montgomery;
                        let gadget = match of == number {
                            true => field.power(2, u64::from(tables.step.digit_bits() * digit)),
                            false => 0,
                        };
                        for point in 0..ring.dimension() {
                            // Samples are under the inverse automorphism.
                            let source = automorphism.points.source(point);
                            let [body, mask] = [0, 1].map(|component: usize| {
                                field.plain_form(sample.components[component].of(number)[source])
                            });
                            let secret = &evaluated[number];
                            let image = field.multiply(gadget, secret[source]);
                            let sum = field.add(body, field.multiply(mask, secret[point]));
                            phase.of_mut(number)[point] = field.subtract(sum, image);
                        }
                        prime.inverse(phase.of_mut(number));
                    }
                    let errors = (0..ring.dimension()).map(|at| {
                        let residues = [0, 1].map(|prime| phase.of(prime)[at]);
                        centred(&ring, &residues)
                    });
                    let errors: Vec<_> = errors.collect();
                    let bound = f64::from(ERROR_BOUND);
                    assert!(errors.iter().all(|error| error.abs() <= bound), "{digits} {index}");
                    let squares = errors.iter().map(|error| error * error).sum::<f64>();
                    assert!((squares / 4096.0 - 10.5).abs() < 1.5, "{squares}");
                    assert!(seen.insert(errors.iter().map(|e| e.to_bits()).collect::<Vec<_>>()));
                }
            }
        }
    }
}

#[test]
fn a_key_is_a_function_of_its_secret_and_ring() {
    let keys = parameters().keys;
    let ring = RowRing::new(&keys).unwrap();
    let secret = fixed_secret(&keys);
    let key = secret.evaluation_key(&ring).unwrap();
    assert_eq!(secret.evaluation_key(&ring).unwrap(), key);
    assert_eq!(RowEvaluationKey::read(&key, &ring).unwrap().id(), secret.id());
    let other = RowKeyParameters { primes: 4, ..keys };
    let other = RowRing::new(&other).unwrap();
    assert_eq!(secret.evaluation_key(&other), Err(RowKeyError::Parameters));
}
