//! Several files in one input.

/// Joins parts, each but the last with its length before it (4 bytes, little-endian).
pub(crate) fn join(parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let Some((last, before)) = parts.split_last() else { return bytes };
    for part in before {
        let length = u32::try_from(part.len()).expect("seeds are small");
        bytes.extend(length.to_le_bytes());
        bytes.extend(*part);
    }
    bytes.extend(*last);
    bytes
}

/// Splits into `N` parts. Any bytes are such an input: a length beyond the end takes what is left.
pub(crate) fn split<const N: usize>(mut bytes: &[u8]) -> [&[u8]; N] {
    let mut parts = [&[][..]; N];
    let (last, before) = parts.split_last_mut().expect("there is at least one part");
    for part in before {
        let (length, rest) = bytes.split_first_chunk::<4>().unwrap_or((&[0; 4], &[]));
        let length = u32::from_le_bytes(*length) as usize;
        (*part, bytes) = rest.split_at(length.min(rest.len()));
    }
    *last = bytes;
    parts
}

/// The first byte, which chooses, and the rest.
pub(crate) fn choice(bytes: &[u8]) -> (u8, &[u8]) {
    bytes.split_first().map_or((0, bytes), |(first, rest)| (*first, rest))
}
