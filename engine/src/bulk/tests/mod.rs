//! A worker as slow and plain as can be, for tests: what the kernels must agree with.

pub(super) mod samples;

use std::sync::Arc;

use cipherscore_ids::Digest;
use zeroize::Zeroizing;

use super::client::{BulkClient, Seeds};
use super::layout::{block_words, component_words, ring_batch_rows};
use super::parameters::{Packing, Parameters};
use super::ring::Ring;
use super::secret::SecretKey;
use super::switch::Switch;
use crate::rlwe::mask::{MaskId, Masks, SEED_BYTES};
use crate::rlwe::primes::BLOCK_POINTS;
use crate::rlwe::sampling::Noise;
use crate::rlwe::sampling::SECRET_VARIANCE;
use crate::rlwe::words::{pack, packed_len, unpack};

/// Words of a component, prime by prime.
pub(super) type Words = Vec<Vec<u64>>;

/// Components 0 to D, plain residues.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ciphertext(pub(super) Vec<Words>);

pub(super) fn ring(
    packing: Packing,
    ring_dimension: u32,
    primes: u32,
    plaintext_modulus: u64,
) -> Arc<Ring> {
    Ring::new(Parameters { packing, ring_dimension, primes, plaintext_modulus }).unwrap()
}

/// Every ring with slots, at plaintext moduli that leave room for the degree.
pub(super) fn slots() -> Vec<(Arc<Ring>, u32)> {
    use Packing::Slots;
    vec![
        (ring(Slots, 2048, 1, 12289), 1),
        (ring(Slots, 4096, 1, 40961), 1),
        (ring(Slots, 4096, 2, 40961), 3),
        (ring(Slots, 4096, 2, 8_380_417), 2),
        (ring(Slots, 8192, 2, 65537), 2),
        (ring(Slots, 8192, 3, 65537), 4),
        (ring(Slots, 8192, 4, 786_433), 5),
        (ring(Slots, 16384, 4, 65537), 5),
        (ring(Slots, 16384, 8, 786_433), 8),
    ]
}

/// Bits that look random.
pub(super) fn bit(column: u32, row: usize) -> i64 {
    let mixed = (row as u64 * 31 + u64::from(column) + 7).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    i64::from(mixed >> 63 == 1)
}

pub(super) fn fill_bits(column: u32, first: usize, values: &mut [i64]) {
    values.iter_mut().enumerate().for_each(|(at, value)| *value = bit(column, first + at));
}

/// A secret that is the same in every run.
pub(super) fn fixed_secret(parameters: &Parameters) -> SecretKey {
    SecretKey::draw(parameters, &Noise::from_key(&[1; 16]))
}

/// The same with an owner id of 16 times 7.
pub(super) fn owned_secret(parameters: &Parameters) -> SecretKey {
    let mut bytes = fixed_secret(parameters).to_bytes().to_vec();
    bytes[8] = 2;
    bytes.splice(16..16, [7; 16]);
    SecretKey::from_bytes(&bytes, parameters).unwrap()
}

/// Encrypts under seeds that are the same in every run, of each ring batch others.
pub(super) fn encrypt_fixed(
    client: &BulkClient,
    rows: usize,
    columns: u32,
    fill: impl Fn(u32, usize, &mut [i64]) + Sync,
) -> Vec<u8> {
    let mut seed = 1u8;
    let seeds = || {
        seed += 1;
        Ok(Seeds { mask: [seed; 16], noise: Zeroizing::new([seed + 100; 16]) })
    };
    client.encrypt_with(rows, columns, fill, seeds, &|| false).unwrap()
}

pub(super) fn sha256(bytes: &[u8]) -> String {
    Digest::of(bytes).to_string()
}

/// The columns of each ring batch of an upload.
pub(super) fn read_upload(
    ring: &Ring,
    upload: &[u8],
    rows: usize,
    columns: u32,
) -> Vec<Vec<Ciphertext>> {
    let parameters = ring.parameters();
    let mut rest = upload;
    let ring_batches = ring_batch_rows(parameters, rows).map(|rows| {
        let (seed, bodies) = rest.split_at(SEED_BYTES);
        rest = bodies;
        let masks = Masks::new(seed.try_into().unwrap());
        let empty = vec![vec![0; ring.dimension()]; parameters.primes as usize];
        let mut ciphertexts = vec![Ciphertext(vec![empty.clone(), empty]); columns as usize];
        for (block, words) in block_words(parameters, rows).enumerate() {
            for (index, prime) in ring.primes().iter().enumerate() {
                for column in &mut ciphertexts {
                    let (packed, others) = rest.split_at(packed_len(words));
                    rest = others;
                    let body = &mut column.0[0][index][BLOCK_POINTS * block..][..words];
                    unpack(packed, prime.modulus(), body).unwrap();
                }
            }
        }
        for (column, ciphertext) in (0..).zip(&mut ciphertexts) {
            for (index, prime) in (0..).zip(ring.primes()) {
                let mask = &mut ciphertext.0[1][usize::from(index)];
                for (block, words) in (0..).zip(mask.chunks_mut(BLOCK_POINTS)) {
                    let id = MaskId { column, prime: index, block };
                    masks.expand(id, prime.modulus(), words);
                }
            }
            ciphertext.each_word(ring, |field, word| field.plain_form(word));
        }
        ciphertexts
    });
    let ring_batches = ring_batches.collect();
    assert!(rest.is_empty(), "{} bytes behind the upload", rest.len());
    ring_batches
}

impl Ciphertext {
    fn each_word(
        &mut self,
        ring: &Ring,
        change: impl Fn(&crate::rlwe::montgomery::Montgomery, u64) -> u64,
    ) {
        for component in &mut self.0 {
            for (words, prime) in component.iter_mut().zip(ring.primes()) {
                words.iter_mut().for_each(|word| *word = change(&prime.montgomery, *word));
            }
        }
    }

    /// Adds `factor * other`.
    pub(super) fn add_scaled(&mut self, ring: &Ring, factor: i64, other: &Self) {
        let empty = vec![vec![0; ring.dimension()]; ring.primes().len()];
        self.0.resize(self.0.len().max(other.0.len()), empty);
        for (component, other) in self.0.iter_mut().zip(&other.0) {
            for ((sum, other), prime) in component.iter_mut().zip(other).zip(ring.primes()) {
                let field = &prime.montgomery;
                let factor = field.residue(factor);
                for (sum, other) in sum.iter_mut().zip(other) {
                    *sum = field.add(*sum, field.multiply(factor, *other));
                }
            }
        }
    }

    /// Adds a constant to every slot.
    pub(super) fn add_constant(&mut self, ring: &Ring, constant: i64) {
        assert_eq!(ring.parameters().packing, Packing::Slots);
        for (words, prime) in self.0[0].iter_mut().zip(ring.primes()) {
            let field = &prime.montgomery;
            words.iter_mut().for_each(|word| *word = field.add(*word, field.residue(constant)));
        }
    }

    pub(super) fn times(&self, ring: &Ring, other: &Self) -> Self {
        let empty = vec![vec![0; ring.dimension()]; ring.primes().len()];
        let mut product = vec![empty; self.0.len() + other.0.len() - 1];
        for (i, left) in self.0.iter().enumerate() {
            for (j, right) in other.0.iter().enumerate() {
                for (k, prime) in ring.primes().iter().enumerate() {
                    let field = &prime.montgomery;
                    for (point, sum) in product[i + j][k].iter_mut().enumerate() {
                        let term = field.multiply(left[k][point], right[k][point]);
                        *sum = field.add(*sum, term);
                    }
                }
            }
        }
        Self(product)
    }
}

impl Ciphertext {
    /// From components 0 to D, each prime by prime.
    pub(super) fn from_words(ring: &Ring, words: &[u64]) -> Self {
        let components = words.chunks(ring.primes().len() * ring.dimension());
        let primes = |words: &[u64]| words.chunks(ring.dimension()).map(<[u64]>::to_vec).collect();
        Self(components.map(primes).collect())
    }

    pub(super) fn to_words(&self) -> Vec<u64> {
        self.0.concat().concat()
    }

    pub(super) fn switch(&mut self, ring: &Ring, switch: &Switch) {
        for component in &mut self.0 {
            let mut words = component.concat();
            switch.apply(&mut words);
            let words = words.chunks(ring.dimension()).take(switch.kept());
            *component = words.map(<[u64]>::to_vec).collect();
        }
    }

    /// log2 of the standard deviation of the phase modulo the first prime.
    pub(super) fn log2_deviation(&self, ring: &Ring, secret: &SecretKey) -> f64 {
        let prime = &ring.primes()[0];
        let secret = secret.evaluated(prime);
        let mut phase = vec![0; ring.dimension()];
        for component in self.0.iter().rev() {
            let mut sum = component[0].clone();
            prime.multiply_add(&mut sum, &phase, &secret);
            phase = sum;
        }
        prime.inverse(&mut phase);
        let modulus = prime.modulus() as f64;
        let squares = phase.iter().map(|&word| {
            let word = word as f64;
            word.min(modulus - word).powi(2)
        });
        (squares.sum::<f64>() / ring.dimension() as f64).log2() / 2.0
    }
}

/// By what multiplication by s^power makes the variance of a coefficient grow, on average over
/// secrets: the planner counts on secrets that are far from it.
pub(super) fn mean_growth(ring: &Ring, power: u32) -> f64 {
    let variance = ring.dimension() as f64 * SECRET_VARIANCE;
    (1..=power).map(|factor| f64::from(factor) * variance).product()
}

/// A ciphertext of degree `degree` whose phase is 0 and whose other components are uniform.
pub(super) fn random_zero(ring: &Ring, secret: &SecretKey, degree: u32) -> Ciphertext {
    let dimension = ring.dimension();
    let mut components = vec![vec![vec![0; dimension]; ring.primes().len()]; degree as usize + 1];
    let masks = Masks::new(&[77; SEED_BYTES]);
    for (index, prime) in (0..).zip(ring.primes()) {
        let secret = secret.evaluated(prime);
        let mut phase = vec![0; dimension];
        for component in (1..=degree).rev() {
            let words = &mut components[component as usize][usize::from(index)];
            masks.expand_all(component, index, prime.modulus(), words);
            let mut sum = vec![0; dimension];
            prime.add(&mut phase, words);
            prime.multiply_add(&mut sum, &phase, &secret);
            phase = sum;
        }
        let first = &mut components[0][usize::from(index)];
        first.iter_mut().zip(phase).for_each(|(word, phase)| {
            *word = prime.montgomery.negate(phase);
        });
    }
    Ciphertext(components)
}

/// A reply with `outputs` of each ring batch, which may have fewer primes than the ring.
pub(super) fn write_reply(ring: &Ring, rows: usize, ring_batches: &[Vec<Ciphertext>]) -> Vec<u8> {
    let mut reply = Vec::new();
    for (rows, outputs) in ring_batch_rows(ring.parameters(), rows).zip(ring_batches) {
        for output in outputs {
            for (index, component) in output.0.iter().enumerate() {
                for words in component {
                    let words = &words[..component_words(ring.parameters(), rows, index)];
                    let start = reply.len();
                    reply.resize(start + packed_len(words.len()), 0);
                    pack(words, &mut reply[start..]);
                }
            }
        }
    }
    reply
}
