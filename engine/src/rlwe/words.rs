//! Words of 51 bits, packed without gaps: word `i` is bits `51 i` to `51 i + 50`, little-endian.

use thiserror::Error;

use super::primes::WORD_BITS;

/// Words that take whole bytes: 51 of them.
const GROUP: usize = 8;
/// Bytes of a group.
const GROUP_BYTES: usize = WORD_BITS as usize;
const WORD_MASK: u64 = (1 << WORD_BITS) - 1;

/// Bytes that are not packed words of a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WordsError {
    /// Too few bytes, or too many.
    #[error("{found} bytes of packed words, where {expected} are expected")]
    Length {
        /// How many there are.
        found: usize,
        /// How many there should be.
        expected: usize,
    },
    /// A word that is no residue, or a bit set behind the last word.
    #[error("a packed word is not below its modulus")]
    Range,
}

/// Bytes of `words` packed words.
pub const fn packed_len(words: usize) -> usize {
    words / GROUP * GROUP_BYTES + (words % GROUP * GROUP_BYTES).div_ceil(8)
}

/// Packs `words`, each below 2^51, into as many bytes as [`packed_len`] says.
pub fn pack(words: &[u64], bytes: &mut [u8]) {
    assert_eq!(bytes.len(), packed_len(words.len()), "bytes for the packed words");
    let (groups, rest) = words.as_chunks::<GROUP>();
    let (group_bytes, rest_bytes) = bytes.split_at_mut(groups.len() * GROUP_BYTES);
    for (group, bytes) in groups.iter().zip(group_bytes.as_chunks_mut::<GROUP_BYTES>().0) {
        pack_group(group, bytes);
    }
    if !rest.is_empty() {
        let mut group = [0; GROUP];
        group[..rest.len()].copy_from_slice(rest);
        let mut packed = [0; GROUP_BYTES];
        pack_group(&group, &mut packed);
        rest_bytes.copy_from_slice(&packed[..rest_bytes.len()]);
    }
}

/// Fills `words` with what `bytes` packs; each is then below `modulus`, or it is an error.
pub fn unpack(bytes: &[u8], modulus: u64, words: &mut [u64]) -> Result<(), WordsError> {
    let expected = packed_len(words.len());
    if bytes.len() != expected {
        return Err(WordsError::Length { found: bytes.len(), expected });
    }
    let (groups, rest) = words.as_chunks_mut::<GROUP>();
    let (group_bytes, rest_bytes) = bytes.split_at(groups.len() * GROUP_BYTES);
    // The sign bit of `word - modulus` is clear for words that are not below it.
    let mut wrong = 0;
    for (group, bytes) in groups.iter_mut().zip(group_bytes.as_chunks::<GROUP_BYTES>().0) {
        unpack_group(bytes, group);
        for word in group {
            wrong |= !word.wrapping_sub(modulus);
        }
    }
    if !rest.is_empty() {
        let mut packed = [0; GROUP_BYTES];
        packed[..rest_bytes.len()].copy_from_slice(rest_bytes);
        let mut group = [0; GROUP];
        unpack_group(&packed, &mut group);
        let (own, padding) = group.split_at(rest.len());
        rest.copy_from_slice(own);
        own.iter().for_each(|word| wrong |= !word.wrapping_sub(modulus));
        padding.iter().for_each(|word| wrong |= word.wrapping_neg());
    }
    if wrong >> 63 == 0 { Ok(()) } else { Err(WordsError::Range) }
}

#[inline(always)]
fn pack_group(w: &[u64; GROUP], bytes: &mut [u8; GROUP_BYTES]) {
    let packed = [
        w[0] | w[1] << 51,
        w[1] >> 13 | w[2] << 38,
        w[2] >> 26 | w[3] << 25,
        w[3] >> 39 | w[4] << 12 | w[5] << 63,
        w[5] >> 1 | w[6] << 50,
        w[6] >> 14 | w[7] << 37,
        // The last 64 bits of the group, 40 of which the word before has as well.
        w[6] >> 38 | w[7] << 13,
    ];
    for (at, word) in packed.iter().enumerate() {
        let start = if at == 6 { GROUP_BYTES - 8 } else { 8 * at };
        bytes[start..start + 8].copy_from_slice(&word.to_le_bytes());
    }
}

#[inline(always)]
fn unpack_group(bytes: &[u8; GROUP_BYTES], words: &mut [u64; GROUP]) {
    let load = |start: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[start..start + 8]);
        u64::from_le_bytes(word)
    };
    // Byte and bit of 51 i; the last load is one byte earlier, to end with the group.
    *words = [
        load(0) & WORD_MASK,
        load(6) >> 3 & WORD_MASK,
        load(12) >> 6 & WORD_MASK,
        load(19) >> 1 & WORD_MASK,
        load(25) >> 4 & WORD_MASK,
        load(31) >> 7 & WORD_MASK,
        load(38) >> 2 & WORD_MASK,
        load(43) >> 13,
    ];
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rlwe::primes::PRIMES;

    /// Words of all sizes, most of them with high bits set.
    fn words(count: usize, modulus: u64) -> Vec<u64> {
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state >> 13
        };
        let mut words: Vec<u64> = (0..count).map(|_| next() % modulus).collect();
        words.iter_mut().step_by(5).for_each(|word| *word = modulus - 1);
        words
    }

    /// Bit by bit.
    fn reference(words: &[u64]) -> Vec<u8> {
        let mut bytes = vec![0; (51 * words.len()).div_ceil(8)];
        for at in 0..51 * words.len() {
            bytes[at / 8] |= u8::from(words[at / 51] >> (at % 51) & 1 == 1) << (at % 8);
        }
        bytes
    }

    #[test]
    fn words_are_packed_without_gaps() {
        assert_eq!(packed_len(256), 1632);
        for count in (0..40).chain([255, 256, 2048]) {
            let words = words(count, PRIMES[1]);
            let mut bytes = vec![0; packed_len(count)];
            pack(&words, &mut bytes);
            assert_eq!(bytes, reference(&words), "{count} words");
            let mut unpacked = vec![0; count];
            assert_eq!(unpack(&bytes, PRIMES[1], &mut unpacked), Ok(()));
            assert_eq!(unpacked, words);
        }
    }

    #[test]
    fn other_lengths_are_refused() {
        for (found, count) in [(0, 1), (6, 1), (8, 1), (50, 8), (52, 8), (1631, 256), (1, 0)] {
            let expected = packed_len(count);
            assert_eq!(
                unpack(&vec![0; found], PRIMES[0], &mut vec![0; count]),
                Err(WordsError::Length { found, expected })
            );
        }
    }

    #[test]
    fn words_that_are_no_residues_are_refused() {
        for count in [1, 7, 8, 9, 256] {
            for at in [0, count / 2, count - 1] {
                for (word, result) in [
                    (PRIMES[3] - 1, Ok(())),
                    (PRIMES[3], Err(WordsError::Range)),
                    ((1 << 51) - 1, Err(WordsError::Range)),
                ] {
                    let mut words = vec![0; count];
                    words[at] = word;
                    let mut bytes = vec![0; packed_len(count)];
                    pack(&words, &mut bytes);
                    assert_eq!(unpack(&bytes, PRIMES[3], &mut words), result, "{count} {at}");
                }
            }
        }
    }

    #[test]
    fn bits_behind_the_last_word_are_refused() {
        for count in [1, 2, 7, 15] {
            let mut bytes = vec![0; packed_len(count)];
            *bytes.last_mut().unwrap() = 0x80;
            assert_eq!(
                unpack(&bytes, PRIMES[0], &mut vec![0; count]),
                Err(WordsError::Range),
                "{count} words"
            );
        }
    }
}
