//! Evaluation keys: seeded as they travel, prepared as they are used.
//!
//! A prepared key is larger than a processor's caches, and each operation reads all of it. So
//! operations come in groups of one key: the key is read once, and each part of it serves the
//! whole group while it is in the cache.

mod bootstrap;
mod keyswitch;
mod rotation;

use std::fmt;

use rayon::prelude::*;
use tfhe::core_crypto::fft_impl::fft64::c64;
use tfhe::core_crypto::prelude::*;
use thiserror::Error;

use crate::ciphertext::Seed;
use crate::mask;
use crate::parameters::{BootstrapKeyParameters, KeysetParameters, KeyswitchKeyParameters};

pub(crate) use bootstrap::bootstrap_bytes;
pub use bootstrap::max_bootstraps;
pub(crate) use keyswitch::keyswitch_bytes;
use rotation::{Shape, arrange};

/// Operations of one key that are done together, at most. With more, what is saved of reading the
/// key is next to nothing.
pub const MAX_GROUP: usize = 8;

/// Buffers of a group of operations, to be used again by the next one.
#[derive(Default)]
pub struct Scratch {
    bootstraps: bootstrap::Buffers,
    digits: Vec<u64>,
}

/// A seeded key: the seed of all masks, and the bodies.
#[derive(Clone, PartialEq, Eq)]
pub struct SeededKey {
    /// Seed of the masks.
    pub seed: Seed,
    /// Bodies, in the order of tfhe's seeded entities.
    pub bodies: Vec<u64>,
}

impl fmt::Debug for SeededKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SeededKey({} words)", self.bodies.len())
    }
}

/// A data owner's evaluation keys, in the order of the keyset.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EvaluationKeys {
    /// Bootstrap keys.
    pub bootstrap_keys: Vec<SeededKey>,
    /// Keyswitch keys.
    pub keyswitch_keys: Vec<SeededKey>,
}

/// Keys that do not fit the parameters.
#[derive(Debug, Error, PartialEq)]
pub enum NotConformant {
    /// Too many or too few keys.
    #[error("{found} {kind} keys, where {expected} are specified")]
    Count {
        /// Bootstrap or keyswitch.
        kind: &'static str,
        /// How many there are.
        found: usize,
        /// How many there should be.
        expected: usize,
    },
    /// A key of another size.
    #[error("{kind} key {index} has {found} words, where {expected} are specified")]
    Size {
        /// Bootstrap or keyswitch.
        kind: &'static str,
        /// Which one.
        index: usize,
        /// Its words.
        found: usize,
        /// The words that its parameters give.
        expected: usize,
    },
}

impl EvaluationKeys {
    fn check(&self, parameters: &KeysetParameters) -> Result<(), NotConformant> {
        check_sizes("bootstrap", &self.bootstrap_keys, parameters.bootstrap_key_words())?;
        check_sizes("keyswitch", &self.keyswitch_keys, parameters.keyswitch_key_words())
    }
}

fn check_sizes(
    kind: &'static str,
    keys: &[SeededKey],
    expected: impl ExactSizeIterator<Item = usize>,
) -> Result<(), NotConformant> {
    if keys.len() != expected.len() {
        return Err(NotConformant::Count { kind, found: keys.len(), expected: expected.len() });
    }
    for (index, (key, expected)) in keys.iter().zip(expected).enumerate() {
        if key.bodies.len() != expected {
            return Err(NotConformant::Size { kind, index, found: key.bodies.len(), expected });
        }
    }
    Ok(())
}

/// Evaluation keys ready for use: bootstrap keys in the Fourier domain, keyswitch keys expanded.
///
/// Preparing costs seconds and [`PreparedKeys::bytes`] of memory, so it is done once for each
/// data owner and the result is passed along.
pub struct PreparedKeys {
    parameters: KeysetParameters,
    bootstrap_keys: Vec<PreparedBootstrapKey>,
    keyswitch_keys: Vec<LweKeyswitchKeyOwned<u64>>,
}

struct PreparedBootstrapKey {
    /// With its points where [`rotation::arrange`] puts them.
    key: FourierLweBootstrapKeyOwned,
    fft: Fft,
}

impl fmt::Debug for PreparedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PreparedKeys({} bytes)", self.bytes())
    }
}

impl PreparedKeys {
    /// Expands and transforms `keys`, which are dropped one after the other on the way. The peak is
    /// the prepared size plus the seeded keys that are not prepared yet.
    pub fn new(parameters: &KeysetParameters, keys: EvaluationKeys) -> Result<Self, NotConformant> {
        keys.check(parameters)?;
        let bootstrap_keys = keys.bootstrap_keys.into_iter().zip(&parameters.bootstrap_keys);
        let keyswitch_keys = keys.keyswitch_keys.into_iter().zip(&parameters.keyswitch_keys);
        Ok(Self {
            bootstrap_keys: bootstrap_keys
                .map(|(key, is)| prepare_bootstrap(&key, is, parameters))
                .collect(),
            keyswitch_keys: keyswitch_keys
                .map(|(key, is)| expand_keyswitch(&key, is, parameters))
                .collect(),
            parameters: parameters.clone(),
        })
    }

    /// What the keys were prepared for.
    pub fn parameters(&self) -> &KeysetParameters {
        &self.parameters
    }

    /// Memory that the keys take, in bytes.
    pub fn bytes(&self) -> usize {
        self.parameters.prepared_bytes()
    }
}

/// Expands and transforms one GGSW ciphertext after the other, so that the uncompressed key never
/// exists as a whole.
fn prepare_bootstrap(
    key: &SeededKey,
    is: &BootstrapKeyParameters,
    parameters: &KeysetParameters,
) -> PreparedBootstrapKey {
    let (glwe_size, degree) =
        (GlweDimension(is.glwe_dimension).to_glwe_size(), PolynomialSize(is.polynomial_size));
    let mut prepared = FourierLweBootstrapKey::new(
        LweDimension(parameters.dimension(is.input_key)),
        glwe_size,
        degree,
        DecompositionBaseLog(is.base_log),
        DecompositionLevelCount(is.level_count),
    );
    let (fft, shape) = (Fft::new(degree), Shape::of(&prepared));
    let rows = is.level_count * glwe_size.0;
    let mask_words = is.glwe_dimension * degree.0;
    let ggsws: Vec<_> = prepared.as_mut_view().into_ggsw_iter().collect();
    let bodies = key.bodies.par_chunks_exact(rows * degree.0);
    ggsws.into_par_iter().zip(bodies).enumerate().for_each_init(
        || {
            let words = rows * (mask_words + degree.0);
            (vec![0u64; words], vec![c64::default(); words / 2], ComputationBuffers::new())
        },
        |(standard, copy, buffers), (index, (mut fourier, bodies))| {
            let words = standard.chunks_exact_mut(mask_words + degree.0);
            for (row, (words, body)) in words.zip(bodies.chunks_exact(degree.0)).enumerate() {
                let (mask, row_body) = words.split_at_mut(mask_words);
                mask::expand(key.seed, (index * rows + row) * mask_words, mask);
                row_body.copy_from_slice(body);
            }
            let standard = GgswCiphertext::from_container(
                standard.as_slice(),
                glwe_size,
                degree,
                DecompositionBaseLog(is.base_log),
                CiphertextModulus::new_native(),
            );
            let fft = fft.as_view();
            buffers.resize(fft.forward_scratch().unaligned_bytes_required());
            fourier.as_mut_view().fill_with_forward_fourier(standard, fft, buffers.stack());
            arrange(&shape, fourier.data(), copy);
        },
    );
    PreparedBootstrapKey { key: prepared, fft }
}

fn expand_keyswitch(
    key: &SeededKey,
    is: &KeyswitchKeyParameters,
    parameters: &KeysetParameters,
) -> LweKeyswitchKeyOwned<u64> {
    let mask_words = parameters.dimension(is.output_key);
    let mut expanded = LweKeyswitchKey::new(
        0u64,
        DecompositionBaseLog(is.base_log),
        DecompositionLevelCount(is.level_count),
        LweDimension(parameters.dimension(is.input_key)),
        LweDimension(mask_words),
        CiphertextModulus::new_native(),
    );
    let rows = expanded.as_mut().par_chunks_exact_mut(mask_words + 1);
    rows.zip(&key.bodies).enumerate().for_each(|(row, (words, body))| {
        let (mask, row_body) = words.split_at_mut(mask_words);
        mask::expand(key.seed, row * mask_words, mask);
        row_body[0] = *body;
    });
    expanded
}

pub(crate) fn seeded_bootstrap_key(
    key: SeededKey,
    is: &BootstrapKeyParameters,
) -> SeededLweBootstrapKeyOwned<u64> {
    SeededLweBootstrapKey::from_container(
        key.bodies,
        GlweDimension(is.glwe_dimension).to_glwe_size(),
        PolynomialSize(is.polynomial_size),
        DecompositionBaseLog(is.base_log),
        DecompositionLevelCount(is.level_count),
        key.seed.compression_seed(),
        CiphertextModulus::new_native(),
    )
}

pub(crate) fn seeded_keyswitch_key(
    key: SeededKey,
    is: &KeyswitchKeyParameters,
    parameters: &KeysetParameters,
) -> SeededLweKeyswitchKeyOwned<u64> {
    SeededLweKeyswitchKey::from_container(
        key.bodies,
        DecompositionBaseLog(is.base_log),
        DecompositionLevelCount(is.level_count),
        LweDimension(parameters.dimension(is.output_key)).to_lwe_size(),
        key.seed.compression_seed(),
        CiphertextModulus::new_native(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client_keys::ClientKeys;
    use crate::parameters::SecretKeyParameters;

    /// One key of each kind.
    pub(super) fn parameters(glwe_dimension: usize, level_count: usize) -> KeysetParameters {
        let big = SecretKeyParameters { lwe_dimension: glwe_dimension * 64 };
        KeysetParameters {
            secret_keys: vec![big, SecretKeyParameters { lwe_dimension: 7 }],
            bootstrap_keys: vec![BootstrapKeyParameters {
                input_key: 1,
                output_key: 0,
                level_count,
                base_log: 6,
                glwe_dimension,
                polynomial_size: 64,
                variance: 1e-20,
            }],
            keyswitch_keys: vec![KeyswitchKeyParameters {
                input_key: 0,
                output_key: 1,
                level_count,
                base_log: 5,
                variance: 1e-20,
            }],
        }
    }

    pub(super) fn seeded(parameters: &KeysetParameters) -> EvaluationKeys {
        ClientKeys::generate(parameters).evaluation_keys(parameters, &|| {}).unwrap()
    }

    /// As tfhe expands and transforms it.
    pub(super) fn transformed_by_tfhe(
        key: SeededKey,
        is: &BootstrapKeyParameters,
    ) -> FourierLweBootstrapKeyOwned {
        let standard = seeded_bootstrap_key(key, is).decompress_into_lwe_bootstrap_key();
        let mut transformed = FourierLweBootstrapKey::new(
            standard.input_lwe_dimension(),
            standard.glwe_size(),
            standard.polynomial_size(),
            standard.decomposition_base_log(),
            standard.decomposition_level_count(),
        );
        par_convert_standard_lwe_bootstrap_key_to_fourier(&standard, &mut transformed);
        transformed
    }

    /// Pseudorandom words.
    pub(super) fn words(count: usize, mut seed: u64) -> Vec<u64> {
        let next = || {
            seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed ^ (mixed >> 27)
        };
        std::iter::repeat_with(next).take(count).collect()
    }

    /// tfhe's own expansion and transformation are the reference.
    #[test]
    fn prepared_keys_are_those_of_tfhe_bit_for_bit() {
        for (glwe_dimension, level_count) in [(1, 1), (1, 3), (2, 2), (5, 1)] {
            let parameters = parameters(glwe_dimension, level_count);
            let mut keys = seeded(&parameters);
            let prepared = PreparedKeys::new(&parameters, keys.clone()).unwrap();

            let is = &parameters.keyswitch_keys[0];
            let key = seeded_keyswitch_key(keys.keyswitch_keys.remove(0), is, &parameters);
            let expected = key.decompress_into_lwe_keyswitch_key();
            assert_eq!(prepared.keyswitch_keys[0].as_ref(), expected.as_ref());

            let seeded = keys.bootstrap_keys.remove(0);
            let mut expected = transformed_by_tfhe(seeded, &parameters.bootstrap_keys[0]);
            let shape = Shape::of(&expected);
            let ggsws: Vec<_> = expected.as_mut_view().into_ggsw_iter().collect();
            for ggsw in ggsws {
                let points = ggsw.data();
                arrange(&shape, points, &mut points.to_vec());
            }
            let bits = |key: &FourierLweBootstrapKeyOwned| {
                let points = key.as_view().data().iter();
                points.map(|point| (point.re.to_bits(), point.im.to_bits())).collect::<Vec<_>>()
            };
            assert_eq!(bits(&prepared.bootstrap_keys[0].key), bits(&expected));
        }
    }
}
