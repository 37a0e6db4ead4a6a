//! Programmable bootstraps, several by one key.
//!
//! A [rotation](super::rotation) goes through the key once: each GGSW ciphertext of it serves the
//! accumulators of the whole group. On what it computes a group has no influence: each result is
//! that of tfhe's single bootstrap, bit for bit.

use aligned_vec::AVec;
use tfhe::core_crypto::algorithms::polynomial_algorithms::polynomial_wrapping_monic_monomial_div;
use tfhe::core_crypto::fft_impl::common::modulus_switch;
use tfhe::core_crypto::prelude::*;

use super::rotation::{self, buffer_bytes, rotate};
use super::{MAX_GROUP, PreparedKeys, Scratch};
use crate::parameters::{BootstrapKeyParameters, KeysetParameters};

/// Bytes of accumulators and their rotations that a group may have, if it is not one bootstrap.
/// Together with one GGSW ciphertext they are to stay in a core's own cache, of which current
/// server processors have 1 or 2 MiB.
const MAX_ACCUMULATOR_BYTES: usize = 512 << 10;

/// Bootstraps by a key that are done together, at most: [`MAX_GROUP`], or fewer of large ones.
pub fn max_bootstraps(is: &BootstrapKeyParameters) -> usize {
    let accumulator = 8 * (is.glwe_dimension + 1) * is.polynomial_size;
    (MAX_ACCUMULATOR_BYTES / (2 * accumulator)).clamp(1, MAX_GROUP)
}

/// Accumulators, switched inputs, and what a rotation needs.
pub(super) struct Buffers {
    accumulators: AVec<u64>,
    switched: Vec<usize>,
    rotation: rotation::Buffers,
}

impl Default for Buffers {
    fn default() -> Self {
        let (switched, rotation) = Default::default();
        Self { accumulators: AVec::new(0), switched, rotation }
    }
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
        let prepared = &self.bootstrap_keys[key];
        let key = &prepared.key;
        let (size, degree) = (key.glwe_size(), key.polynomial_size());
        let input_words = key.input_lwe_dimension().0 + 1;
        assert_eq!(inputs.len(), input_words * tables.len(), "a table for each ciphertext");
        let Buffers { accumulators, switched, rotation } = &mut scratch.bootstraps;

        let log_modulus = degree.to_blind_rotation_input_modulus_log();
        switched.clear();
        switched.extend(inputs.iter().map(|&word| {
            usize::try_from(modulus_switch(word, log_modulus)).expect("below 2N, and tables fit")
        }));

        accumulators.clear();
        accumulators.resize(tables.len() * size.0 * degree.0, 0);
        let mut masks = Vec::with_capacity(tables.len());
        let each = accumulators.chunks_exact_mut(size.0 * degree.0);
        for ((accumulator, table), input) in
            each.zip(tables).zip(switched.chunks_exact(input_words))
        {
            let (body, mask) = input.split_last().expect("a ciphertext has a body");
            // The mask of an accumulator is zero at first.
            polynomial_wrapping_monic_monomial_div(
                &mut Polynomial::from_container(&mut accumulator[(size.0 - 1) * degree.0..]),
                &Polynomial::from_container(*table),
                MonomialDegree(*body),
            );
            masks.push(mask);
        }
        rotate(prepared, accumulators, &masks, rotation);

        let modulus = CiphertextModulus::new_native();
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

/// Bytes of the largest group by a key: its inputs, buffers and results.
pub(crate) fn bootstrap_bytes(is: &BootstrapKeyParameters, keyset: &KeysetParameters) -> usize {
    let size = GlweDimension(is.glwe_dimension).to_glwe_size();
    let degree = PolynomialSize(is.polynomial_size);
    let count = max_bootstraps(is);
    let accumulators = 8 * count * size.0 * degree.0;
    // Once as they are, once switched.
    let inputs = 2 * 8 * count * (keyset.dimension(is.input_key) + 1);
    let results = 8 * count * (keyset.dimension(is.output_key) + 1);
    accumulators + inputs + results + buffer_bytes(size, degree, is.level_count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation_keys::tests::{parameters, seeded, transformed_by_tfhe, words};

    /// tfhe's single bootstrap is the reference.
    fn by_tfhe(key: &FourierLweBootstrapKeyOwned, input: &[u64], table: &[u64]) -> Vec<u64> {
        let fft = Fft::new(key.polynomial_size());
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
    fn a_group_gives_what_single_bootstraps_give_bit_for_bit() {
        let mut scratch = Scratch::default();
        for (glwe_dimension, level_count) in [(1, 1), (1, 3), (2, 2), (5, 1)] {
            let parameters = parameters(glwe_dimension, level_count);
            let keys = seeded(&parameters);
            let key = keys.bootstrap_keys[0].clone();
            let reference = transformed_by_tfhe(key, &parameters.bootstrap_keys[0]);
            let prepared = PreparedKeys::new(&parameters, keys).unwrap();
            let (n, degree) = (7, 64);
            for count in 0..=MAX_GROUP {
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
                    assert_eq!(found, by_tfhe(&reference, input, table));
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
        assert_eq!(of(5, 64), MAX_GROUP);
    }
}
