//! AES-128 in counter mode as a source of 64-bit words, for masks and for noise.
//!
//! Block `i` is the encryption of `i`, 16 bytes, little-endian; it makes two words, little-endian.

use aes::cipher::{BlockCipherEncrypt, KeyInit};
use aes::{Aes128, Block};
use zeroize::Zeroize;

/// Bytes of a key.
pub(crate) const KEY_BYTES: usize = 16;
/// Words of a block.
const BLOCK_WORDS: usize = 2;
/// Blocks encrypted at a time: enough for the processor's pipeline, few enough to stay on the stack.
const BLOCKS: usize = 128;

/// A key, expanded. Wiped when dropped.
pub(crate) struct Keystream(Aes128);

/// Where blocks are encrypted that become secrets. Wiped when dropped.
pub(crate) struct SecretBlocks([Block; BLOCKS]);

impl Default for SecretBlocks {
    fn default() -> Self {
        Self([Block::default(); BLOCKS])
    }
}

impl Drop for SecretBlocks {
    fn drop(&mut self) {
        self.0.iter_mut().for_each(|block| block.as_mut_slice().zeroize());
    }
}

impl Keystream {
    pub(crate) fn new(key: &[u8; KEY_BYTES]) -> Self {
        Self(Aes128::new(key.into()))
    }

    /// Fills `words` with what block `first` and those after it make, which everybody may know.
    pub(crate) fn fill(&self, first: u128, words: &mut [u64]) {
        self.fill_through(first, words, &mut [Block::default(); BLOCKS]);
    }

    /// The same for what nobody may know.
    pub(crate) fn fill_secret(&self, first: u128, words: &mut [u64], blocks: &mut SecretBlocks) {
        self.fill_through(first, words, &mut blocks.0);
    }

    fn fill_through(&self, first: u128, words: &mut [u64], stream: &mut [Block; BLOCKS]) {
        let mut counter = first;
        for words in words.chunks_mut(BLOCK_WORDS * BLOCKS) {
            let blocks = &mut stream[..words.len().div_ceil(BLOCK_WORDS)];
            for block in blocks.iter_mut() {
                *block = counter.to_le_bytes().into();
                counter = counter.wrapping_add(1);
            }
            self.0.encrypt_blocks(blocks);
            let (pairs, last) = words.as_chunks_mut::<BLOCK_WORDS>();
            for (pair, block) in pairs.iter_mut().zip(blocks.iter()) {
                *pair = halves(block);
            }
            if let [last] = last {
                [*last, _] = halves(&blocks[blocks.len() - 1]);
            }
        }
    }
}

#[inline(always)]
fn halves(block: &Block) -> [u64; BLOCK_WORDS] {
    let value = u128::from_le_bytes((*block).into());
    // The halves of a value, not its value.
    #[allow(clippy::cast_possible_truncation)]
    [value as u64, (value >> 64) as u64]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Encryption of the block 0 under the key 0, of NIST's known-answer tests.
    #[test]
    fn stream_is_aes() {
        let mut words = [0; 2];
        Keystream::new(&[0; KEY_BYTES]).fill(0, &mut words);
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(
            bytes,
            [
                0x66, 0xe9, 0x4b, 0xd4, 0xef, 0x8a, 0x2c, 0x3b, 0x88, 0x4c, 0xfa, 0x59, 0xca, 0x34,
                0x2b, 0x2e
            ]
        );
    }

    #[test]
    fn secret_streams_are_the_same() {
        let stream = Keystream::new(&[7; KEY_BYTES]);
        let (mut words, mut secret) = ([0; 777], [0; 777]);
        stream.fill(5, &mut words);
        stream.fill_secret(5, &mut secret, &mut SecretBlocks::default());
        assert_eq!(words, secret);
    }

    #[test]
    fn stream_can_be_entered_anywhere() {
        let stream = Keystream::new(&[7; KEY_BYTES]);
        let first = u128::from(u64::MAX) - 100;
        let mut all = [0; 1001];
        stream.fill(first, &mut all);
        for block in [0, 1, 127, 128, 129, 499] {
            let mut words = [0; 3];
            let end = all.len().min(2 * block + 3);
            let expected = &all[2 * block..end];
            stream.fill(first + block as u128, &mut words[..expected.len()]);
            assert_eq!(words[..expected.len()], *expected, "block {block}");
        }
    }
}
