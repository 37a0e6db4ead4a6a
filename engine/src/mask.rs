//! Expansion of a seed into masks, fast.
//!
//! The stream is AES-128 in counter mode: the key is the seed, the block of index `i` is the
//! encryption of `i` (16 bytes, little-endian), the first byte of the stream is skipped, and words
//! are little-endian. tfhe expands the same stream byte by byte; for a linear model that is most
//! of the evaluation. All masks of a seeded key are one stream, row after row.

use aes::cipher::{BlockCipherEncrypt, KeyInit};
use aes::{Aes128, Block};

use crate::ciphertext::Seed;

/// Bytes of the stream before the mask, in Concrete's generator.
const SKIPPED_BYTES: usize = 1;

/// Fills `mask` with the words that `seed` stands for, from word `first` of its stream on.
pub(crate) fn expand(seed: Seed, first: usize, mask: &mut [u64]) {
    const BLOCK_BYTES: usize = size_of::<Block>();
    let start = SKIPPED_BYTES + 8 * first;
    let (first_block, skipped) = (start / BLOCK_BYTES, start % BLOCK_BYTES);
    let blocks = (skipped + 8 * mask.len()).div_ceil(BLOCK_BYTES);
    let mut stream: Vec<Block> =
        (first_block as u128..).take(blocks).map(|index| index.to_le_bytes().into()).collect();
    Aes128::new(&seed.to_bytes().into()).encrypt_blocks(&mut stream);
    let mut bytes = Vec::with_capacity(BLOCK_BYTES * blocks);
    stream.iter().for_each(|block| bytes.extend_from_slice(block));
    let words = bytes[skipped..].as_chunks::<8>().0;
    for (word, bytes) in mask.iter_mut().zip(words) {
        *word = u64::from_le_bytes(*bytes);
    }
}

#[cfg(test)]
mod tests {
    use tfhe::core_crypto::prelude::*;

    use super::*;

    /// The same by tfhe, which is the reference.
    fn expand_by_tfhe(seed: Seed, dimension: usize) -> Vec<u64> {
        let seeded = SeededLweCiphertext::from_scalar(
            0u64,
            LweSize(dimension + 1),
            seed.compression_seed(),
            CiphertextModulus::new_native(),
        );
        let seeded = seeded.decompress_into_lwe_ciphertext();
        seeded.get_mask().as_ref().to_vec()
    }

    #[test]
    fn masks_are_those_of_tfhe() {
        for dimension in [1, 2, 15, 16, 17, 1282, 2048, 4096] {
            for seed in [[0, 0], [1, 2], [u64::MAX, u64::MAX], [0x0123_4567_89ab_cdef, 1 << 63]] {
                let seed = Seed(seed);
                let mut mask = vec![0; dimension];
                expand(seed, 0, &mut mask);
                let expected = expand_by_tfhe(seed, dimension);
                assert_eq!(mask, expected, "{seed:?} {dimension}");
                for first in [0, 1, 2, 3, dimension / 2] {
                    let rest = dimension.saturating_sub(first);
                    expand(seed, first, &mut mask[..rest]);
                    assert_eq!(mask[..rest], expected[dimension - rest..], "from word {first}");
                }
            }
        }
    }
}
