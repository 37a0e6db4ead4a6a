//! Numbers of some bits, packed without gaps: number `i` is bits `w i` to `w i + w - 1`,
//! little-endian; bits behind the last are 0.

/// Bytes of `count` numbers of `bits` bits.
pub(super) const fn bits_len(count: usize, bits: u32) -> usize {
    (count * bits as usize).div_ceil(8)
}

/// Appends numbers of at most 56 bits.
pub(super) struct BitWriter<'a> {
    bytes: &'a mut Vec<u8>,
    waiting: u64,
    count: u32,
}

impl<'a> BitWriter<'a> {
    /// From a whole byte on.
    pub(super) fn new(bytes: &'a mut Vec<u8>) -> Self {
        Self { bytes, waiting: 0, count: 0 }
    }

    /// Appends the low `bits` bits of a number that has no others.
    pub(super) fn push(&mut self, number: u64, bits: u32) {
        self.waiting |= number << self.count;
        self.count += bits;
        let whole = self.count / 8;
        let bytes = self.waiting.to_le_bytes();
        self.bytes.extend_from_slice(&bytes[..whole as usize]);
        self.waiting = self.waiting.unbounded_shr(8 * whole);
        self.count %= 8;
    }

    /// Fills the last byte.
    pub(super) fn finish(self) {
        if self.count > 0 {
            self.bytes.push(self.waiting.to_le_bytes()[0]);
        }
    }
}

/// Reads what [`BitWriter`] writes, with the number's bits from 1 to 56. None unless the bytes are as
/// many, and bits behind the last number are 0.
pub(super) fn read_bits(bytes: &[u8], count: usize, bits: u32) -> Option<Vec<u64>> {
    if bytes.len() != bits_len(count, bits) {
        return None;
    }
    let mut numbers = Vec::with_capacity(count);
    let (mut waiting, mut held) = (0u64, 0);
    let mut bytes = bytes.iter();
    for _ in 0..count {
        while held < bits {
            waiting |= u64::from(*bytes.next()?) << held;
            held += 8;
        }
        numbers.push(waiting & ((1 << bits) - 1));
        waiting >>= bits;
        held -= bits;
    }
    (waiting == 0).then_some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rlwe::montgomery::tests::random;

    #[test]
    fn numbers_are_packed_without_gaps() {
        for bits in 1..=56 {
            for count in [1, 2, 7, 8, 9, 100] {
                let numbers = &random(100, 1 << bits, 1)[..count];
                let mut bytes = vec![7];
                let mut writer = BitWriter::new(&mut bytes);
                numbers.iter().for_each(|&number| writer.push(number, bits));
                writer.finish();
                assert_eq!(bytes.len(), 1 + bits_len(count, bits));
                let bit = |at: usize| bytes[1 + at / 8] >> (at % 8) & 1;
                for (index, number) in numbers.iter().enumerate() {
                    for at in 0..bits {
                        let place = index * bits as usize + at as usize;
                        assert_eq!(u64::from(bit(place)), number >> at & 1, "{bits} {count}");
                    }
                }
                assert_eq!(read_bits(&bytes[1..], count, bits).as_deref(), Some(numbers));
            }
        }
    }

    #[test]
    fn other_bytes_are_refused() {
        for (bytes, count, bits) in
            [(&[0, 0][..], 1, 8), (&[], 1, 8), (&[8], 1, 3), (&[0, 0, 128], 1, 23)]
        {
            assert_eq!(read_bits(bytes, count, bits), None, "{bytes:?} {count} {bits}");
        }
        assert_eq!(read_bits(&[7], 1, 3), Some(vec![7]));
    }
}
