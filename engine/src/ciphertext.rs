//! Ciphertexts and seeds, as words.

use std::fmt;

use crate::mask;
use crate::parameters::{Compression, Gate};
pub use crate::seed::Seed;

/// Words of a seeded ciphertext: seed (low, high) and body.
pub const SEEDED_WORDS: usize = 3;

/// LWE ciphertexts of one dimension, one after the other, mask before body.
#[derive(Clone, PartialEq, Eq)]
pub struct Ciphertexts {
    lwe_dimension: usize,
    words: Vec<u64>,
}

impl Ciphertexts {
    /// Takes `lwe_dimension + 1` words for each ciphertext.
    ///
    /// # Panics
    ///
    /// If the words are not a whole number of ciphertexts.
    pub fn new(lwe_dimension: usize, words: Vec<u64>) -> Self {
        assert!(words.len().is_multiple_of(lwe_dimension + 1), "not whole ciphertexts");
        Self { lwe_dimension, words }
    }

    /// Expands seeded ciphertexts, [`SEEDED_WORDS`] words each.
    ///
    /// # Panics
    ///
    /// If the words are not a whole number of seeded ciphertexts.
    pub fn decompress(lwe_dimension: usize, seeded: &[u64]) -> Self {
        let (seeded, rest) = seeded.as_chunks::<SEEDED_WORDS>();
        assert!(rest.is_empty(), "not whole seeded ciphertexts");
        let size = lwe_dimension + 1;
        let mut words = vec![0u64; seeded.len() * size];
        for (output, seeded) in words.chunks_exact_mut(size).zip(seeded) {
            expand(seeded, output);
        }
        Self { lwe_dimension, words }
    }

    /// Number of ciphertexts.
    pub fn len(&self) -> usize {
        self.words.len() / (self.lwe_dimension + 1)
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// Dimension of the key that they are under.
    pub fn lwe_dimension(&self) -> usize {
        self.lwe_dimension
    }

    /// One ciphertext.
    pub fn get(&self, index: usize) -> &[u64] {
        let size = self.lwe_dimension + 1;
        &self.words[index * size..(index + 1) * size]
    }

    /// All words.
    pub fn words(&self) -> &[u64] {
        &self.words
    }
}

/// LWE ciphertexts as they travel: whole, or each of them as the seed of its mask and its body.
#[derive(Clone)]
pub struct StoredCiphertexts {
    lwe_dimension: usize,
    compression: Compression,
    words: Vec<u64>,
}

impl StoredCiphertexts {
    /// Takes `lwe_dimension + 1` words for each ciphertext, or [`SEEDED_WORDS`].
    ///
    /// # Panics
    ///
    /// If the words are not a whole number of ciphertexts.
    pub fn new(lwe_dimension: usize, compression: Compression, words: Vec<u64>) -> Self {
        let stored = Self { lwe_dimension, compression, words };
        assert!(stored.words.len().is_multiple_of(stored.words_of_one()), "not whole ciphertexts");
        stored
    }

    fn words_of_one(&self) -> usize {
        self.compression.words_per_ciphertext(self.lwe_dimension)
    }

    /// Number of ciphertexts.
    pub fn len(&self) -> usize {
        self.words.len() / self.words_of_one()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// Dimension of the key that they are under.
    pub fn lwe_dimension(&self) -> usize {
        self.lwe_dimension
    }

    /// One ciphertext, in `buffer` if it has to be expanded.
    pub fn get<'a>(&'a self, index: usize, buffer: &'a mut Vec<u64>) -> &'a [u64] {
        let stored = &self.words[index * self.words_of_one()..][..self.words_of_one()];
        match self.compression {
            Compression::None => stored,
            Compression::Seed => {
                buffer.resize(self.lwe_dimension + 1, 0);
                expand(stored, buffer);
                buffer
            }
        }
    }

    /// All of them, expanded.
    pub fn expand(self) -> Ciphertexts {
        match self.compression {
            Compression::None => Ciphertexts::new(self.lwe_dimension, self.words),
            Compression::Seed => Ciphertexts::decompress(self.lwe_dimension, &self.words),
        }
    }
}

/// Expands one seeded ciphertext.
fn expand(seeded: &[u64], output: &mut [u64]) {
    let (body, mask) = output.split_last_mut().expect("a ciphertext has a body");
    mask::expand(Seed([seeded[0], seeded[1]]), 0, mask);
    *body = seeded[2];
}

impl fmt::Debug for Ciphertexts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ciphertexts({} of LWE dimension {})", self.len(), self.lwe_dimension)
    }
}

impl Gate {
    /// Words in which one of this gate's ciphertexts travels in the given form.
    pub fn words_per_ciphertext(&self, compression: Compression) -> usize {
        compression.words_per_ciphertext(self.lwe_dimension)
    }
}

impl Compression {
    /// Words in which one ciphertext of this LWE dimension travels.
    fn words_per_ciphertext(self, lwe_dimension: usize) -> usize {
        match self {
            // Asked before a stranger's dimension is checked, so that it must not overflow.
            Self::None => lwe_dimension.saturating_add(1),
            Self::Seed => SEEDED_WORDS,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// AES-128 in counter mode, computed with OpenSSL and so independently of tfhe: the key is
    /// the seed (words 1 and 2, little-endian), block i is the encryption of i (little-endian);
    /// the first byte of the stream is skipped, then every 8 bytes are a little-endian word.
    #[test]
    fn the_stream_of_a_seed_starts_at_its_second_byte() {
        let ciphertext = Ciphertexts::decompress(4, &[1, 2, 42]);
        assert_eq!(ciphertext.get(0), EXPECTED_STREAM);
    }

    const EXPECTED_STREAM: &[u64] = &[
        0xd909_5637_0d90_8c0c,
        0xc6d9_604f_0af3_40c4,
        0xe9d1_b1d9_1ebb_e7aa,
        0xe75f_4017_2b90_96fe,
        42,
    ];

    #[test]
    fn seeds_keep_their_words() {
        assert_eq!(Seed::from_u128(u128::from(u64::MAX) << 64 | 7), Seed([7, u64::MAX]));
    }
}
