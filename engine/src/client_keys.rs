//! The data owner's side: secret keys, evaluation keys made from them, encryption, decryption.

use std::fmt;

use tfhe::core_crypto::commons::generators::DeterministicSeeder;
use tfhe::core_crypto::commons::math::random::Seeder;
use tfhe::core_crypto::prelude::*;
use tfhe::core_crypto::seeders::new_seeder;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::ciphertext::{Ciphertexts, SEEDED_WORDS, Seed};
use crate::evaluation_keys::{
    EvaluationKeys, SeededKey, seeded_bootstrap_key, seeded_keyswitch_key,
};
use crate::parameters::{Encoding, Gate, KeysetParameters};

/// Secret keys that do not fit the parameters, or integers that do not fit a gate.
#[derive(Debug, Error, PartialEq)]
pub enum ClientKeyError {
    /// Keys of other parameters.
    #[error("these client keys were made for other parameters; make keys for this client.zip")]
    Keys,
    /// A secret key word that is neither 0 nor 1.
    #[error("client key {0} is not binary: the file is damaged")]
    NotBinary(usize),
    /// An integer out of the gate's range.
    #[error("integer {value} at position {index} does not fit {} {} bits", if *.signed { "signed" } else { "unsigned" }, .width)]
    Range {
        /// The integer.
        value: i64,
        /// Where it is.
        index: usize,
        /// Bits of the gate.
        width: u32,
        /// Whether the gate is signed.
        signed: bool,
    },
    /// Another number of integers or ciphertexts than the gate has.
    #[error("{found} values, where {expected} are specified")]
    Count {
        /// How many there are.
        found: usize,
        /// How many there should be.
        expected: usize,
    },
}

/// Secret keys, in the order of the keyset. Wiped when dropped, never printed.
#[derive(Clone)]
pub struct ClientKeys {
    keys: Vec<Zeroizing<Vec<u64>>>,
}

impl fmt::Debug for ClientKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientKeys({} keys)", self.keys.len())
    }
}

impl ClientKeys {
    /// Draws fresh uniform binary keys from the operating system's or the processor's entropy.
    pub fn generate(parameters: &KeysetParameters) -> Self {
        let mut generator =
            SecretRandomGenerator::<DefaultRandomGenerator>::new(new_seeder().seed());
        let draw = |dimension| {
            let mut words = Zeroizing::new(vec![0u64; dimension]);
            let mut key = LweSecretKey::from_container(words.as_mut_slice());
            generate_binary_lwe_secret_key(&mut key, &mut generator);
            words
        };
        let dimensions = parameters.secret_keys.iter().map(|key| key.lwe_dimension);
        Self { keys: dimensions.map(draw).collect() }
    }

    /// Takes the keys' words, which must be 0 or 1.
    pub fn from_words(
        keys: Vec<Zeroizing<Vec<u64>>>,
        parameters: &KeysetParameters,
    ) -> Result<Self, ClientKeyError> {
        let dimensions = parameters.secret_keys.iter().map(|key| key.lwe_dimension);
        if !keys.iter().map(|key| key.len()).eq(dimensions) {
            return Err(ClientKeyError::Keys);
        }
        match keys.iter().position(|key| key.iter().any(|&word| word > 1)) {
            Some(index) => Err(ClientKeyError::NotBinary(index)),
            None => Ok(Self { keys }),
        }
    }

    /// The words of each key. Handle with care.
    pub fn words(&self) -> impl ExactSizeIterator<Item = &[u64]> {
        self.keys.iter().map(|key| key.as_slice())
    }

    /// Makes the evaluation keys of these secret keys. `made` is called after each one.
    pub fn evaluation_keys(
        &self,
        parameters: &KeysetParameters,
        made: &dyn Fn(),
    ) -> Result<EvaluationKeys, ClientKeyError> {
        let dimensions = parameters.secret_keys.iter().map(|key| key.lwe_dimension);
        if !self.keys.iter().map(|key| key.len()).eq(dimensions) {
            return Err(ClientKeyError::Keys);
        }
        let mut seeder = new_seeder();
        let seeder = seeder.as_mut();
        let mut keys = EvaluationKeys::default();
        for is in &parameters.bootstrap_keys {
            let words = is.seeded_words(parameters.dimension(is.input_key));
            let empty = empty_key(words, seeder);
            let seed = empty.seed;
            let mut key = seeded_bootstrap_key(empty, is);
            let output = GlweSecretKey::from_container(
                self.keys[is.output_key].as_slice(),
                PolynomialSize(is.polynomial_size),
            );
            let noise = gaussian(is.variance);
            par_generate_seeded_lwe_bootstrap_key(
                &self.lwe(is.input_key),
                &output,
                &mut key,
                noise,
                seeder,
            );
            keys.bootstrap_keys.push(SeededKey { seed, bodies: key.into_container() });
            made();
        }
        for is in &parameters.keyswitch_keys {
            let words = is.seeded_words(parameters.dimension(is.input_key));
            let empty = empty_key(words, seeder);
            let seed = empty.seed;
            let mut key = seeded_keyswitch_key(empty, is, parameters);
            generate_seeded_lwe_keyswitch_key(
                &self.lwe(is.input_key),
                &self.lwe(is.output_key),
                &mut key,
                gaussian(is.variance),
                seeder,
            );
            keys.keyswitch_keys.push(SeededKey { seed, bodies: key.into_container() });
            made();
        }
        Ok(keys)
    }

    /// Encrypts integers, one seeded ciphertext of [`SEEDED_WORDS`] words each, under fresh seeds.
    pub fn encrypt(&self, values: &[i64], gate: &Gate) -> Result<Vec<u64>, ClientKeyError> {
        expect_count(values.len(), gate.len())?;
        let key = self.lwe_of(gate)?;
        // Fresh entropy for each call, stretched: the processor's source is slow, and one for all
        // its cores. What is public and what is secret do not come from the same seed.
        let (mut mask_seeds, mut noise_seeds) = (stretched_entropy(), stretched_entropy());
        let mut words = Vec::with_capacity(values.len() * SEEDED_WORDS);
        for (index, &value) in values.iter().enumerate() {
            let Encoding { width, signed } = gate.encoding;
            let plaintext = encode(value, gate.encoding).ok_or(ClientKeyError::Range {
                value,
                index,
                width,
                signed,
            })?;
            let seed = Seed::from_u128(mask_seeds.seed().0);
            let mut ciphertext = SeededLweCiphertext::new(
                0u64,
                key.lwe_dimension().to_lwe_size(),
                seed.compression_seed(),
                CiphertextModulus::new_native(),
            );
            encrypt_seeded_lwe_ciphertext(
                &key,
                &mut ciphertext,
                Plaintext(plaintext),
                gaussian(gate.variance),
                &mut noise_seeds,
            );
            words.extend([seed.0[0], seed.0[1], *ciphertext.get_body().data]);
        }
        Ok(words)
    }

    /// Decrypts ciphertexts to integers.
    pub fn decrypt(
        &self,
        ciphertexts: &Ciphertexts,
        gate: &Gate,
    ) -> Result<Vec<i64>, ClientKeyError> {
        expect_count(ciphertexts.len(), gate.len())?;
        let key = self.lwe_of(gate)?;
        if ciphertexts.lwe_dimension() != gate.lwe_dimension {
            return Err(ClientKeyError::Keys);
        }
        let decrypt = |index| {
            let view = LweCiphertext::from_container(
                ciphertexts.get(index),
                CiphertextModulus::new_native(),
            );
            decode(decrypt_lwe_ciphertext(&key, &view).0, gate.encoding)
        };
        Ok((0..ciphertexts.len()).map(decrypt).collect())
    }

    fn lwe(&self, key: usize) -> LweSecretKeyView<'_, u64> {
        LweSecretKey::from_container(self.keys[key].as_slice())
    }

    fn lwe_of(&self, gate: &Gate) -> Result<LweSecretKeyView<'_, u64>, ClientKeyError> {
        match self.keys.get(gate.key) {
            Some(key) if key.len() == gate.lwe_dimension => Ok(self.lwe(gate.key)),
            _ => Err(ClientKeyError::Keys),
        }
    }
}

/// A stream of seeds from one draw of entropy (AES-128 in counter mode).
fn stretched_entropy() -> DeterministicSeeder<DefaultRandomGenerator> {
    DeterministicSeeder::new(new_seeder().seed())
}

fn empty_key(words: usize, seeder: &mut dyn Seeder) -> SeededKey {
    SeededKey { seed: Seed::from_u128(seeder.seed().0), bodies: vec![0; words] }
}

fn gaussian(variance: f64) -> Gaussian<f64> {
    Gaussian::from_dispersion_parameter(Variance(variance), 0.0)
}

fn expect_count(found: usize, expected: usize) -> Result<(), ClientKeyError> {
    if found == expected { Ok(()) } else { Err(ClientKeyError::Count { found, expected }) }
}

/// The integer in the most significant bits, below one bit of padding; none when it does not fit.
fn encode(value: i64, Encoding { width, signed }: Encoding) -> Option<u64> {
    let fits = match signed {
        true => (-(1i64 << (width - 1))..1i64 << (width - 1)).contains(&value),
        false => (0..1i64 << width).contains(&value),
    };
    fits.then(|| value.cast_unsigned() << (63 - width))
}

/// The nearest integer to a phase; the inverse of [`encode`].
///
/// The padding bit counts as a bit of the integer, as in Concrete's decoder, so that a sum that
/// overflows shows as such.
fn decode(phase: u64, Encoding { width, signed }: Encoding) -> i64 {
    let rounded = (phase >> (62 - width)).wrapping_add(1) >> 1;
    let value = (rounded & ((1u64 << (width + 1)) - 1)).cast_signed();
    match signed && value >= 1 << (width - 1) {
        true => value | (-1i64 << width),
        false => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoding_is_inverted_by_decoding_at_the_ends_of_the_range() {
        for width in [1, 2, 8, 17, 62] {
            for (signed, low, high) in [
                (true, -(1i64 << (width - 1)), (1i64 << (width - 1)) - 1),
                (false, 0, (1i64 << width) - 1),
            ] {
                let encoding = Encoding { width, signed };
                for value in [low, high, 0] {
                    assert_eq!(decode(encode(value, encoding).unwrap(), encoding), value);
                }
                assert_eq!(encode(low - 1, encoding), None);
                assert_eq!(encode(high + 1, encoding), None);
            }
        }
    }

    #[test]
    fn decoding_rounds_to_the_nearest_integer() {
        let encoding = Encoding { width: 4, signed: true };
        let step = 1u64 << 59;
        assert_eq!(decode(3 * step + step / 2 - 1, encoding), 3);
        assert_eq!(decode(3 * step + step / 2, encoding), 4);
        assert_eq!(decode(0u64.wrapping_sub(step / 2), encoding), 0);
        assert_eq!(decode(0u64.wrapping_sub(step / 2 + 1), encoding), -1);
    }
}
