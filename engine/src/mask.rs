//! Expansion of a seed into masks, fast.
//!
//! The stream is AES-128 in counter mode: the key is the seed, the block of index `i` is the
//! encryption of `i` (16 bytes, little-endian), the first byte of the stream is skipped, and words
//! are little-endian. tfhe expands the same stream byte by byte; for a linear model that is most
//! of the evaluation. All masks of a seeded key are one stream, row after row.

use std::array;

use aes::cipher::{BlockCipherEncrypt, KeyInit};
use aes::{Aes128, Block};

use crate::seed::Seed;

/// Bits of the stream before the mask, in Concrete's generator.
const SKIPPED_BITS: u32 = 8;
/// Blocks of the stream that are made at a time: they stay in a core's first cache.
const BLOCKS: usize = 128;

/// Fills `mask` with the words that `seed` stands for, from word `first` of its stream on.
pub(crate) fn expand(seed: Seed, first: usize, mask: &mut [u64]) {
    let cipher = Aes128::new(&seed.to_bytes().into());
    let (mut block, mut skipped) = ((first / 2) as u128, first % 2);
    let mut rest = mask;
    while !rest.is_empty() {
        // A word ends in the one after it, since a byte is skipped.
        let blocks = (skipped + rest.len() + 1).div_ceil(2).min(BLOCKS);
        let mut stream: [Block; BLOCKS] =
            array::from_fn(|index| (block + index as u128).to_le_bytes().into());
        cipher.encrypt_blocks(&mut stream[..blocks]);
        let mut words = [0; 2 * BLOCKS];
        for (words, block) in words.as_chunks_mut::<2>().0.iter_mut().zip(&stream[..blocks]) {
            let block = u128::from_le_bytes((*block).into());
            *words = [truncate(block), truncate(block >> 64)];
        }
        let count = rest.len().min(2 * blocks - 1 - skipped);
        let (now, later) = rest.split_at_mut(count);
        for (word, pair) in now.iter_mut().zip(words[skipped..].windows(2)) {
            *word = pair[0] >> SKIPPED_BITS | pair[1] << (64 - SKIPPED_BITS);
        }
        rest = later;
        block += ((skipped + count) / 2) as u128;
        skipped = (skipped + count) % 2;
    }
}

#[allow(clippy::cast_possible_truncation, reason = "half of a block")]
fn truncate(block: u128) -> u64 {
    block as u64
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
        for dimension in [1, 2, 15, 16, 17, 254, 255, 256, 257, 1282, 2048, 4096] {
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
