//! Programmable bootstraps, several by one key.
//!
//! tfhe's blind rotation goes through the key once: each GGSW ciphertext of it serves the
//! accumulators of the whole batch, one after the other. On what it computes a batch has no
//! influence: each result is that of tfhe's single bootstrap, bit for bit.

use tfhe::core_crypto::fft_impl::common::modulus_switch;
use tfhe::core_crypto::fft_impl::fft64::crypto::bootstrap::batch_blind_rotate_assign_scratch;
use tfhe::core_crypto::prelude::*;

use super::{MAX_BATCH, PreparedBootstrapKey, PreparedKeys, Scratch};
use crate::parameters::{BootstrapKeyParameters, KeysetParameters};

/// Bytes of accumulators and their rotations that a batch may have, if it is not one bootstrap.
/// Together with one GGSW ciphertext they are to stay in a core's own cache, of which current
/// server processors have 1 or 2 MiB.
const MAX_ACCUMULATOR_BYTES: usize = 512 << 10;
/// Bytes of a cache line, at which accumulators begin.
const CACHE_LINE_BYTES: usize = 64;

/// Bootstraps by a key that are done together, at most: [`MAX_BATCH`], or fewer of large ones.
pub fn max_bootstraps(is: &BootstrapKeyParameters) -> usize {
    let accumulator = 8 * (is.glwe_dimension + 1) * is.polynomial_size;
    (MAX_ACCUMULATOR_BYTES / (2 * accumulator)).clamp(1, MAX_BATCH)
}

/// Accumulators, switched inputs, and what tfhe needs.
#[derive(Default)]
pub(super) struct Buffers {
    accumulators: Vec<u64>,
    switched: Vec<usize>,
    stack: ComputationBuffers,
}

impl PreparedKeys {
    /// Looks the phases of ciphertexts up: that of each of `inputs`, which are ciphertexts one after
    /// the other, in the table at its place. A table is the N-word body of an accumulator.
    ///
    /// # Panics
    ///
    /// If there is no such key, or lengths are not those of its parameters.
    pub fn bootstrap(
        &self,
        key: usize,
        inputs: &[u64],
        tables: &[&[u64]],
        scratch: &mut Scratch,
    ) -> Vec<Vec<u64>> {
        let PreparedBootstrapKey { key, fft } = &self.bootstrap_keys[key];
        let (size, degree) = (key.glwe_size(), key.polynomial_size());
        let input_words = key.input_lwe_dimension().0 + 1;
        assert_eq!(inputs.len(), input_words * tables.len(), "a table for each ciphertext");
        let Buffers { accumulators, switched, stack } = &mut scratch.bootstraps;

        let words = tables.len() * size.0 * degree.0;
        accumulators.clear();
        accumulators.resize(words + CACHE_LINE_BYTES / 8 - 1, 0);
        // Where alignment is not known, which only costs time, it is none.
        let start = accumulators.as_ptr().align_offset(CACHE_LINE_BYTES);
        let start = if start < CACHE_LINE_BYTES / 8 { start } else { 0 };
        let accumulators = &mut accumulators[start..start + words];
        for (accumulator, table) in accumulators.chunks_exact_mut(size.0 * degree.0).zip(tables) {
            accumulator[(size.0 - 1) * degree.0..].copy_from_slice(table);
        }

        let log_modulus = degree.to_blind_rotation_input_modulus_log();
        switched.clear();
        switched.extend(inputs.iter().map(|&word| {
            usize::try_from(modulus_switch(word, log_modulus)).expect("below 2N, and tables fit")
        }));
        let switched: Vec<_> = switched
            .chunks_exact(input_words)
            .map(|words| Switched { words, log_modulus })
            .collect();

        let fft = fft.as_view();
        stack.resize(stack_bytes(size, degree, tables.len(), fft));
        let modulus = CiphertextModulus::new_native();
        let list = GlweCiphertextList::from_container(&mut *accumulators, size, degree, modulus);
        key.as_view().batch_blind_rotate_assign(list, &switched, fft, stack.stack());

        let results = accumulators.chunks_exact(size.0 * degree.0).map(|accumulator| {
            let accumulator = GlweCiphertext::from_container(accumulator, degree, modulus);
            let mut words = vec![0u64; key.output_lwe_dimension().0 + 1];
            let mut result = LweCiphertext::from_container(words.as_mut_slice(), modulus);
            extract_lwe_sample_from_glwe_ciphertext(&accumulator, &mut result, MonomialDegree(0));
            words
        });
        results.collect()
    }
}

/// A ciphertext of which each word is rounded to a 2N-th of the torus.
struct Switched<'a> {
    words: &'a [usize],
    log_modulus: CiphertextModulusLog,
}

impl ModulusSwitchedLweCiphertext<usize> for Switched<'_> {
    fn log_modulus(&self) -> CiphertextModulusLog {
        self.log_modulus
    }

    fn lwe_dimension(&self) -> LweDimension {
        LweDimension(self.words.len() - 1)
    }

    fn body(&self) -> usize {
        self.words[self.words.len() - 1]
    }

    fn mask(&self) -> impl ExactSizeIterator<Item = usize> + '_ {
        self.words[..self.words.len() - 1].iter().copied()
    }
}

fn stack_bytes(size: GlweSize, degree: PolynomialSize, count: usize, fft: FftView<'_>) -> usize {
    batch_blind_rotate_assign_scratch::<u64>(size, degree, CiphertextCount(count), fft)
        .unaligned_bytes_required()
}

/// Bytes of the largest batch by a key: its inputs, buffers and results.
pub(crate) fn bootstrap_bytes(is: &BootstrapKeyParameters, keyset: &KeysetParameters) -> usize {
    let size = GlweDimension(is.glwe_dimension).to_glwe_size();
    let degree = PolynomialSize(is.polynomial_size);
    let count = max_bootstraps(is);
    let accumulators = 8 * count * size.0 * degree.0 + CACHE_LINE_BYTES;
    // Once as they are, once switched.
    let inputs = 2 * 8 * count * (keyset.dimension(is.input_key) + 1);
    let results = 8 * count * (keyset.dimension(is.output_key) + 1);
    let stack = stack_bytes(size, degree, count, Fft::new(degree).as_view());
    accumulators + inputs + results + stack
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation_keys::tests::{parameters, prepared, words};

    /// tfhe's single bootstrap is the reference.
    fn by_tfhe(key: &PreparedBootstrapKey, input: &[u64], table: &[u64]) -> Vec<u64> {
        let PreparedBootstrapKey { key, fft } = key;
        let (size, degree) = (key.glwe_size(), key.polynomial_size());
        let modulus = CiphertextModulus::new_native();
        let mut accumulator = vec![0; (size.0 - 1) * degree.0];
        accumulator.extend_from_slice(table);
        let mut output = vec![0u64; key.output_lwe_dimension().0 + 1];
        let mut stack = ComputationBuffers::new();
        let needed = programmable_bootstrap_lwe_ciphertext_mem_optimized_requirement::<u64>(
            size,
            degree,
            fft.as_view(),
        );
        stack.resize(needed.unaligned_bytes_required());
        programmable_bootstrap_lwe_ciphertext_mem_optimized(
            &LweCiphertext::from_container(input, modulus),
            &mut LweCiphertext::from_container(output.as_mut_slice(), modulus),
            &GlweCiphertext::from_container(accumulator.as_slice(), degree, modulus),
            key,
            fft.as_view(),
            stack.stack(),
        );
        output
    }

    #[test]
    fn a_batch_gives_what_single_bootstraps_give_bit_for_bit() {
        let mut scratch = Scratch::default();
        for (glwe_dimension, level_count) in [(1, 1), (1, 3), (2, 2), (5, 1)] {
            let parameters = parameters(glwe_dimension, level_count);
            let prepared = prepared(&parameters);
            let (n, degree) = (7, 64);
            for count in 0..=MAX_BATCH {
                let mut inputs = words(count * (n + 1), count as u64);
                // An element that does not turn, and a ciphertext that is trivial.
                if let Some(first) = inputs.first_mut() {
                    *first = 0;
                }
                if count > 2 {
                    inputs[n + 1..2 * n + 1].fill(0);
                }
                let tables = words(count * degree, 77);
                let tables: Vec<_> = tables.chunks_exact(degree).collect();
                let found = prepared.bootstrap(0, &inputs, &tables, &mut scratch);
                assert_eq!(found.len(), count);
                for ((input, table), found) in inputs.chunks_exact(n + 1).zip(tables).zip(found) {
                    assert_eq!(found, by_tfhe(&prepared.bootstrap_keys[0], input, table));
                }
            }
        }
    }

    #[test]
    fn large_accumulators_are_turned_one_by_one() {
        let of = |glwe_dimension, polynomial_size| {
            let mut is = parameters(glwe_dimension, 1).bootstrap_keys.remove(0);
            is.polynomial_size = polynomial_size;
            max_bootstraps(&is)
        };
        assert_eq!((of(1, 2048), of(1, 4096), of(1, 16384), of(1, 1 << 16)), (8, 4, 1, 1));
        assert_eq!(of(5, 64), MAX_BATCH);
    }
}
