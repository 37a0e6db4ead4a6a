//! Keyswitches, several by one key.
//!
//! With the digits `d_ij` of the mask words `a_i` and the key's rows `k_ij`, which encrypt the
//! scaled bits of the input key, the result is `(0, b) - sum d_ij k_ij`, modulo 2^64. The order of
//! a sum modulo 2^64 does not matter, so it is the one that is best for caches: the key goes by in
//! blocks, each of which serves all ciphertexts of the group.

use pulp::{Arch, Simd, WithSimd};
use tfhe::core_crypto::commons::math::decomposition::SignedDecomposer;

use super::{MAX_GROUP, PreparedKeys, Scratch};
use crate::parameters::{KeysetParameters, KeyswitchKeyParameters};

/// Bytes of the key that stay in a core's own cache while they serve a group.
const BLOCK_BYTES: usize = 256 << 10;
/// Rows that are added at a time, so that the sum is read and written once for all of them.
const STRIDE: usize = 4;

impl PreparedKeys {
    /// Switches ciphertexts, one after the other in `inputs`, to another secret key.
    ///
    /// # Panics
    ///
    /// If there is no such key, or the length is not one of its parameters.
    pub fn keyswitch(&self, key: usize, inputs: &[u64], scratch: &mut Scratch) -> Vec<Vec<u64>> {
        let key = &self.keyswitch_keys[key];
        let (size, levels) = (key.output_lwe_size().0, key.decomposition_level_count());
        let input_words = key.input_key_lwe_dimension().0 + 1;
        assert_eq!(inputs.len() % input_words, 0, "whole ciphertexts");
        let decomposer = SignedDecomposer::new(key.decomposition_base_log(), levels);

        let (mut results, digits) = (Vec::new(), &mut scratch.digits);
        digits.clear();
        for input in inputs.chunks_exact(input_words) {
            let (body, mask) = input.split_last().expect("a ciphertext has a body");
            // From the last level to the first, in which order the key has its rows.
            digits.extend(
                mask.iter().flat_map(|&word| decomposer.decompose(word).map(|digit| digit.value())),
            );
            let mut words = vec![0u64; size];
            words[size - 1] = *body;
            results.push(words);
        }

        let arch = Arch::new();
        let key_rows = (input_words - 1) * levels.0;
        let block_rows = (BLOCK_BYTES / (8 * size)).next_multiple_of(STRIDE);
        for (block, rows) in key.as_ref().chunks(block_rows * size).enumerate() {
            for (sum, digits) in results.iter_mut().zip(digits.chunks_exact(key_rows)) {
                let digits = &digits[block * block_rows..][..rows.len() / size];
                arch.dispatch(SubtractProducts { sum, rows, digits });
            }
        }
        results
    }
}

/// `sum -= digit * row` for each row.
struct SubtractProducts<'a> {
    sum: &'a mut [u64],
    rows: &'a [u64],
    digits: &'a [u64],
}

impl WithSimd for SubtractProducts<'_> {
    type Output = ();

    /// Compiled for each kind of processor; the compiler makes vectors of the loops.
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { sum, rows, digits } = self;
        let size = sum.len();
        let (strides, rest) = digits.as_chunks::<STRIDE>();
        let (stride_rows, rest_rows) = rows.split_at(strides.len() * STRIDE * size);
        for (digits, rows) in strides.iter().zip(stride_rows.chunks_exact(STRIDE * size)) {
            subtract_stride(sum, rows, digits);
        }
        for (digit, row) in rest.iter().zip(rest_rows.chunks_exact(size)) {
            for (sum, word) in sum.iter_mut().zip(row) {
                *sum = sum.wrapping_sub(word.wrapping_mul(*digit));
            }
        }
    }
}

#[inline(always)]
fn subtract_stride(sum: &mut [u64], rows: &[u64], digits: &[u64; STRIDE]) {
    let (first, rows) = rows.split_at(sum.len());
    let (second, rows) = rows.split_at(sum.len());
    let (third, fourth) = rows.split_at(sum.len());
    let words = first.iter().zip(second).zip(third).zip(fourth);
    for (sum, (((a, b), c), d)) in sum.iter_mut().zip(words) {
        let ab = a.wrapping_mul(digits[0]).wrapping_add(b.wrapping_mul(digits[1]));
        let cd = c.wrapping_mul(digits[2]).wrapping_add(d.wrapping_mul(digits[3]));
        *sum = sum.wrapping_sub(ab.wrapping_add(cd));
    }
}

/// Bytes of the largest group by a key: its inputs, digits and results.
pub(crate) fn keyswitch_bytes(is: &KeyswitchKeyParameters, keyset: &KeysetParameters) -> usize {
    let (input, output) = (keyset.dimension(is.input_key), keyset.dimension(is.output_key));
    8 * MAX_GROUP * (input + 1 + input * is.level_count + output + 1)
}

#[cfg(test)]
mod tests {
    use tfhe::core_crypto::prelude::*;

    use super::*;
    use crate::evaluation_keys::tests::{parameters, seeded, words};

    /// tfhe's keyswitch is the reference.
    fn by_tfhe(key: &LweKeyswitchKeyOwned<u64>, input: &[u64]) -> Vec<u64> {
        let modulus = CiphertextModulus::new_native();
        let mut output = vec![0u64; key.output_lwe_size().0];
        let mut result = LweCiphertext::from_container(output.as_mut_slice(), modulus);
        keyswitch_lwe_ciphertext(key, &LweCiphertext::from_container(input, modulus), &mut result);
        output
    }

    #[test]
    fn a_group_gives_what_tfhe_gives_bit_for_bit() {
        let mut scratch = Scratch::default();
        // Fewer rows than a block, several blocks, and numbers of rows that four does not divide.
        for (big, small, level_count) in [(64, 7, 1), (320, 7, 2), (65, 599, 3), (130, 63, 5)] {
            let mut parameters = parameters(1, level_count);
            parameters.bootstrap_keys.clear();
            parameters.secret_keys[0].lwe_dimension = big;
            parameters.secret_keys[1].lwe_dimension = small;
            let prepared = PreparedKeys::new(&parameters, seeded(&parameters)).unwrap();
            for count in 0..=MAX_GROUP {
                let mut inputs = words(count * (big + 1), count as u64);
                // Words that round, and carry, in every way.
                for (word, bits) in inputs.iter_mut().zip(0..64) {
                    *word = 1 << bits;
                }
                for (word, bits) in inputs.iter_mut().rev().zip(0..64) {
                    *word = u64::MAX << bits;
                }
                let found = prepared.keyswitch(0, &inputs, &mut scratch);
                assert_eq!(found.len(), count);
                for (input, found) in inputs.chunks_exact(big + 1).zip(found) {
                    assert_eq!(found, by_tfhe(&prepared.keyswitch_keys[0], input));
                }
            }
        }
    }
}
