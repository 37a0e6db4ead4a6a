//! Expansion of a mask seed into the masks of a ring batch, fast and from anywhere.
//!
//! Each block of points of each column and prime has a range of the seed's stream of its own, so a
//! worker expands the masks of a block when the block arrives, and no two masks share a word. The
//! words of a block are the first words of its range that, cut to 51 bits, are below the prime:
//! uniform modulo the prime. They are the Montgomery form of the mask.

use super::keystream::{KEY_BYTES, Keystream};
use super::primes::{BLOCK_POINTS, WORD_BITS};

/// Bytes of a mask seed.
pub const SEED_BYTES: usize = KEY_BYTES;

/// Where a mask is within a ring batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaskId {
    /// Position of the column in the upload.
    pub column: u32,
    /// Position of the prime in the parameters, at most 7.
    pub prime: u16,
    /// Which [`BLOCK_POINTS`] points, or coefficients.
    pub block: u16,
}

impl MaskId {
    /// First block of the stream: column, prime and block from the most significant bit on, then
    /// 2^64 positions that are this mask's own.
    fn counter(self) -> u128 {
        let id = u64::from(self.column) << 32 | u64::from(self.prime) << 16 | u64::from(self.block);
        u128::from(id) << 64
    }
}

/// The masks of a ring batch.
pub struct Masks(Keystream);

impl Masks {
    /// Those of `seed`.
    pub fn new(seed: &[u8; SEED_BYTES]) -> Self {
        Self(Keystream::new(seed))
    }

    /// Fills `words`, of which there are at most [`BLOCK_POINTS`], with the first words of a mask,
    /// each below `modulus`, which is one of [`PRIMES`](super::primes::PRIMES).
    pub fn expand(&self, id: MaskId, modulus: u64, words: &mut [u64]) {
        debug_assert!(words.len() <= BLOCK_POINTS);
        let first = id.counter();
        self.0.fill(first, words);
        if !cut(words, modulus) {
            self.expand_slowly(first, modulus, words);
        }
    }

    /// As `expand`, for the one block in a million that has a word to reject.
    #[cold]
    fn expand_slowly(&self, first: u128, modulus: u64, words: &mut [u64]) {
        let mut candidates = [0; 2];
        let mut filled = 0;
        for counter in first.. {
            self.0.fill(counter, &mut candidates);
            for mut candidate in candidates {
                if filled < words.len() && cut(std::slice::from_mut(&mut candidate), modulus) {
                    words[filled] = candidate;
                    filled += 1;
                }
            }
            if filled == words.len() {
                return;
            }
        }
    }

    /// All words of a column and prime, which are of whole blocks.
    pub fn expand_all(&self, column: u32, prime: u16, modulus: u64, words: &mut [u64]) {
        for (block, words) in (0..).zip(words.chunks_mut(BLOCK_POINTS)) {
            self.expand(MaskId { column, prime, block }, modulus, words);
        }
    }
}

/// Cuts `words` to 51 bits; whether all of them are below `modulus` then.
fn cut(words: &mut [u64], modulus: u64) -> bool {
    let mut overflow = 0;
    for word in words {
        *word &= (1 << WORD_BITS) - 1;
        // The sign bit of `word - modulus` is clear for words that are not below it.
        overflow |= !word.wrapping_sub(modulus);
    }
    overflow >> 63 == 0
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::rlwe::primes::PRIMES;

    /// The definition.
    fn reference(seed: &[u8; SEED_BYTES], id: MaskId, modulus: u64) -> Vec<u64> {
        let mut stream = vec![0; 4096];
        Keystream::new(seed).fill(id.counter(), &mut stream);
        let words = stream.iter().map(|word| word & ((1 << 51) - 1));
        words.filter(|&word| word < modulus).take(BLOCK_POINTS).collect()
    }

    #[test]
    fn masks_are_as_defined() {
        let seed = [3; SEED_BYTES];
        // The moduli that are no primes make rejections frequent.
        for modulus in [PRIMES[0], PRIMES[7], 1 << 50, (1 << 51) - (1 << 43), 1 << 48] {
            for id in [(0, 0, 0), (5, 1, 3), (u32::MAX, 7, 63)] {
                let id = MaskId { column: id.0, prime: id.1, block: id.2 };
                let expected = reference(&seed, id, modulus);
                for length in [1, 2, 17, 255, 256] {
                    let mut words = vec![0; length];
                    Masks::new(&seed).expand(id, modulus, &mut words);
                    assert_eq!(words, expected[..length], "{modulus:x} {id:?}");
                }
            }
        }
    }

    #[test]
    fn largest_word_below_the_modulus_is_kept() {
        for (word, kept) in
            [(0, true), (PRIMES[0] - 1, true), (PRIMES[0], false), (u64::MAX, false)]
        {
            assert_eq!(cut(&mut [5, word, 5], PRIMES[0]), kept, "{word:x}");
        }
    }

    #[test]
    fn no_word_repeats() {
        let mut seen = HashSet::new();
        for seed in [[0; SEED_BYTES], [1; SEED_BYTES]] {
            let masks = Masks::new(&seed);
            for column in 0..4 {
                for (prime, modulus) in (0..).zip(PRIMES) {
                    let mut words = vec![0; 2048];
                    masks.expand_all(column, prime, modulus, &mut words);
                    words.into_iter().for_each(|word| assert!(seen.insert(word)));
                }
            }
        }
    }
}
