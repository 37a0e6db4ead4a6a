//! Evaluation keys: seeded as they travel, prepared as they are used.

use std::fmt;

use tfhe::core_crypto::prelude::*;
use thiserror::Error;

use crate::ciphertext::Seed;
use crate::parameters::{BootstrapKeyParameters, KeysetParameters, KeyswitchKeyParameters};

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
    key: FourierLweBootstrapKeyOwned,
    fft: Fft,
}

impl fmt::Debug for PreparedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PreparedKeys({} bytes)", self.bytes())
    }
}

impl PreparedKeys {
    /// Expands and transforms `keys`, which are dropped one after the other on the way, so that
    /// the peak is the prepared size plus one expanded key.
    pub fn new(parameters: &KeysetParameters, keys: EvaluationKeys) -> Result<Self, NotConformant> {
        keys.check(parameters)?;
        let bootstrap_keys = keys.bootstrap_keys.into_iter().zip(&parameters.bootstrap_keys);
        let keyswitch_keys = keys.keyswitch_keys.into_iter().zip(&parameters.keyswitch_keys);
        Ok(Self {
            bootstrap_keys: bootstrap_keys.map(|(key, is)| prepare_bootstrap(key, is)).collect(),
            keyswitch_keys: keyswitch_keys
                .map(|(key, is)| expand_keyswitch(key, is, parameters))
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

    /// Switches one ciphertext to another secret key.
    pub(crate) fn keyswitch(&self, key: usize, input: &[u64]) -> Vec<u64> {
        let key = &self.keyswitch_keys[key];
        let mut output = vec![0u64; key.output_lwe_size().0];
        keyswitch_lwe_ciphertext(key, &lwe_view(input), &mut lwe_view_mut(&mut output));
        output
    }

    /// Looks the phase of one ciphertext up in `table`, the N-word body of the accumulator.
    pub(crate) fn bootstrap(
        &self,
        key: usize,
        input: &[u64],
        table: &[u64],
        scratch: &mut Scratch,
    ) -> Vec<u64> {
        let PreparedBootstrapKey { key, fft } = &self.bootstrap_keys[key];
        let (size, degree) = (key.glwe_size(), key.polynomial_size());
        let fft = fft.as_view();

        scratch.accumulator.clear();
        scratch.accumulator.resize((size.0 - 1) * degree.0, 0);
        scratch.accumulator.extend_from_slice(table);
        let accumulator = GlweCiphertext::from_container(
            scratch.accumulator.as_slice(),
            degree,
            CiphertextModulus::new_native(),
        );
        scratch.buffers.resize(
            programmable_bootstrap_lwe_ciphertext_mem_optimized_requirement::<u64>(
                size, degree, fft,
            )
            .unaligned_bytes_required(),
        );
        let mut output = vec![0u64; key.output_lwe_dimension().0 + 1];
        programmable_bootstrap_lwe_ciphertext_mem_optimized(
            &lwe_view(input),
            &mut lwe_view_mut(&mut output),
            &accumulator,
            key,
            fft,
            scratch.buffers.stack(),
        );
        output
    }
}

/// Buffers of one bootstrap, to be used again by the next one.
#[derive(Default)]
pub(crate) struct Scratch {
    accumulator: Vec<u64>,
    buffers: ComputationBuffers,
}

fn lwe_view(words: &[u64]) -> LweCiphertextView<'_, u64> {
    LweCiphertext::from_container(words, CiphertextModulus::new_native())
}

fn lwe_view_mut(words: &mut [u64]) -> LweCiphertextMutView<'_, u64> {
    LweCiphertext::from_container(words, CiphertextModulus::new_native())
}

fn prepare_bootstrap(key: SeededKey, is: &BootstrapKeyParameters) -> PreparedBootstrapKey {
    let key = seeded_bootstrap_key(key, is);
    let mut expanded = LweBootstrapKey::new(
        0u64,
        key.glwe_size(),
        key.polynomial_size(),
        key.decomposition_base_log(),
        key.decomposition_level_count(),
        key.input_lwe_dimension(),
        CiphertextModulus::new_native(),
    );
    par_decompress_seeded_lwe_bootstrap_key::<_, _, _, DefaultRandomGenerator>(&mut expanded, &key);
    drop(key);
    let mut prepared = FourierLweBootstrapKey::new(
        expanded.input_lwe_dimension(),
        expanded.glwe_size(),
        expanded.polynomial_size(),
        expanded.decomposition_base_log(),
        expanded.decomposition_level_count(),
    );
    par_convert_standard_lwe_bootstrap_key_to_fourier(&expanded, &mut prepared);
    PreparedBootstrapKey { key: prepared, fft: Fft::new(expanded.polynomial_size()) }
}

fn expand_keyswitch(
    key: SeededKey,
    is: &KeyswitchKeyParameters,
    parameters: &KeysetParameters,
) -> LweKeyswitchKeyOwned<u64> {
    let key = seeded_keyswitch_key(key, is, parameters);
    let mut expanded = LweKeyswitchKey::new(
        0u64,
        key.decomposition_base_log(),
        key.decomposition_level_count(),
        key.input_key_lwe_dimension(),
        key.output_key_lwe_dimension(),
        CiphertextModulus::new_native(),
    );
    par_decompress_seeded_lwe_keyswitch_key::<_, _, _, DefaultRandomGenerator>(&mut expanded, &key);
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
