//! How a buffer shows which ciphertext it stands for.
//!
//! Word `i` of the buffer of value `v` is `scramble(v) + i * STEP`. Copies, whoever makes them, keep
//! the pattern; words of two values, words in another order, and sums of words do not have it.

/// An odd constant (2^64 over the golden ratio), so that no two words of a buffer are equal.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
/// Keeps small value ids away from the fixed point of the scrambling, which is zero.
const KEY: u64 = 0x5bd1_e995_97f4_a7c3;
/// Fills memory that the circuit's code has not written yet.
pub(super) const POISON: u64 = 0xfee1_dead_bad0_c0de;

/// What a buffer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// All zero: the trivial encryption of zero.
    Zero,
    /// Perhaps a value, if this id exists.
    Value(u32),
    /// Memory that nobody wrote.
    Uninitialised,
    /// Anything else.
    Other,
}

/// Fills a buffer with the pattern of a value.
pub(super) fn write(value: u32, words: &mut [u64]) {
    let mut word = scramble(value);
    for place in words {
        *place = word;
        word = word.wrapping_add(STEP);
    }
}

/// Recognises the content of a buffer. Looks at every word.
pub(super) fn read(words: &[u64]) -> Content {
    let Some(&first) = words.first() else { return Content::Other };
    if first == 0 && words.iter().all(|&word| word == 0) {
        return Content::Zero;
    }
    let mut expected = first;
    let mut difference = 0;
    for word in words {
        difference |= word ^ expected;
        expected = expected.wrapping_add(STEP);
    }
    match unscramble(first) {
        Some(value) if difference == 0 => Content::Value(value),
        _ if words.contains(&POISON) => Content::Uninitialised,
        _ => Content::Other,
    }
}

/// A bijection of 64-bit words that is far from linear (the finaliser of SplitMix64).
fn scramble(value: u32) -> u64 {
    let mut z = u64::from(value) ^ KEY;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Inverse of [`scramble`]; none for a word that is not its result.
fn unscramble(word: u64) -> Option<u32> {
    let mut z = word ^ (word >> 31) ^ (word >> 62);
    z = z.wrapping_mul(0x3196_42b2_d24d_8ec3);
    z = z ^ (z >> 27) ^ (z >> 54);
    z = z.wrapping_mul(0x96de_1b17_3f11_9089);
    z = z ^ (z >> 30) ^ (z >> 60);
    u32::try_from(z ^ KEY).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer(value: u32) -> Vec<u64> {
        let mut words = vec![POISON; 7];
        write(value, &mut words);
        words
    }

    #[test]
    fn a_written_value_is_read() {
        for value in [0, 1, 2, 1_000_000, u32::MAX] {
            assert_eq!(read(&buffer(value)), Content::Value(value));
        }
        assert_eq!(read(&[0; 7]), Content::Zero);
        assert_eq!(read(&[POISON; 7]), Content::Uninitialised);
        assert_eq!(read(&[]), Content::Other);
    }

    #[test]
    fn mixtures_are_not_values() {
        let (a, b) = (buffer(3), buffer(4));
        let sum: Vec<u64> = a.iter().zip(&b).map(|(a, b)| a.wrapping_add(*b)).collect();
        assert_eq!(read(&sum), Content::Other);
        assert_eq!(read(&[&a[..6], &b[6..]].concat()), Content::Other);
        assert_eq!(read(&[&a[1..], &a[..1]].concat()), Content::Other);
        assert_eq!(read(&[&a[..6], &[POISON]].concat()), Content::Uninitialised);
        assert_eq!(read(&[&[0; 6][..], &[1]].concat()), Content::Other);
        let negated: Vec<u64> = a.iter().map(|word| word.wrapping_neg()).collect();
        assert_eq!(read(&negated), Content::Other);
    }
}
