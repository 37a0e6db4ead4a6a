//! Lengths and order of uploads and replies.
//!
//! An upload has, for each ring batch, a mask seed and then, block by block, the packed words of
//! each column, prime by prime: a worker evaluates a block as soon as it is there. A reply has, for
//! each ring batch and output, the packed words of components 0 to D, prime by prime.
//!
//! With rows in slots all N points are there. With rows in coefficients the words of other rows
//! are left out: in columns, and in component 0 of a reply.

use super::parameters::{Packing, Parameters};
use crate::rlwe::mask::SEED_BYTES;
use crate::rlwe::primes::BLOCK_POINTS;
use crate::rlwe::words::packed_len;

/// Rows of each ring batch: N in all but the last.
pub fn ring_batch_rows(parameters: &Parameters, rows: usize) -> impl Iterator<Item = usize> {
    let dimension = parameters.dimension();
    (0..rows).step_by(dimension).map(move |first| dimension.min(rows - first))
}

/// Words of a column modulo one prime, of a ring batch of `rows` rows.
pub fn column_words(parameters: &Parameters, rows: usize) -> usize {
    match parameters.packing {
        Packing::Slots => parameters.dimension(),
        Packing::Coefficients => rows,
    }
}

/// Words of component `component` of an output modulo one prime, of a ring batch of `rows` rows.
pub fn component_words(parameters: &Parameters, rows: usize, component: usize) -> usize {
    match component {
        0 => column_words(parameters, rows),
        _ => parameters.dimension(),
    }
}

/// Words of each block of a column, of a ring batch of `rows` rows.
pub fn block_words(parameters: &Parameters, rows: usize) -> impl Iterator<Item = usize> {
    let words = column_words(parameters, rows);
    (0..words).step_by(BLOCK_POINTS).map(move |first| BLOCK_POINTS.min(words - first))
}

/// Bytes of a ring batch of `rows` rows in an upload; `None` where memory has no such length.
pub fn ring_batch_len(parameters: &Parameters, rows: usize, columns: u32) -> Option<usize> {
    let words = column_words(parameters, rows);
    // Whole blocks are whole bytes, so that a column is as long as if it were packed at once.
    let each = (parameters.primes as usize).checked_mul(packed_len(words))?;
    each.checked_mul(columns as usize)?.checked_add(SEED_BYTES)
}

/// Bytes of an upload; `None` where memory has no such length.
pub fn upload_len(parameters: &Parameters, rows: usize, columns: u32) -> Option<usize> {
    ring_batches_len(parameters, rows, |rows| ring_batch_len(parameters, rows, columns))
}

/// Bytes of an output of a ring batch of `rows` rows in a reply modulo `primes` primes.
pub fn output_len(parameters: &Parameters, rows: usize, degree: u32, primes: u32) -> Option<usize> {
    let first = packed_len(component_words(parameters, rows, 0));
    let others = packed_len(parameters.dimension()).checked_mul(degree as usize)?;
    others.checked_add(first)?.checked_mul(primes as usize)
}

/// Bytes of a reply modulo `primes` primes; `None` where memory has no such length.
pub fn reply_len(
    parameters: &Parameters,
    rows: usize,
    outputs: usize,
    degree: u32,
    primes: u32,
) -> Option<usize> {
    ring_batches_len(parameters, rows, |rows| {
        output_len(parameters, rows, degree, primes)?.checked_mul(outputs)
    })
}

fn ring_batches_len(
    parameters: &Parameters,
    rows: usize,
    len: impl Fn(usize) -> Option<usize>,
) -> Option<usize> {
    let dimension = parameters.dimension();
    let full = len(dimension)?.checked_mul(rows / dimension)?;
    match rows % dimension {
        0 => Some(full),
        rest => full.checked_add(len(rest)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(packing: Packing) -> Parameters {
        let plaintext_modulus = if packing == Packing::Slots { 40961 } else { 1 << 30 };
        Parameters { packing, ring_dimension: 4096, primes: 2, plaintext_modulus }
    }

    #[test]
    fn slots_are_always_all_there() {
        let parameters = parameters(Packing::Slots);
        let ring_batch = 16 + 16 * 2 * 3 * 1632;
        assert_eq!(upload_len(&parameters, 0, 3), Some(0));
        assert_eq!(upload_len(&parameters, 1, 3), Some(ring_batch));
        assert_eq!(upload_len(&parameters, 4096, 3), Some(ring_batch));
        assert_eq!(upload_len(&parameters, 4097, 3), Some(2 * ring_batch));
        assert_eq!(reply_len(&parameters, 4097, 5, 4, 1), Some(2 * 5 * 5 * 16 * 1632));
        assert_eq!(ring_batch_rows(&parameters, 8193).collect::<Vec<_>>(), [4096, 4096, 1]);
    }

    #[test]
    fn coefficients_without_rows_are_left_out() {
        let parameters = parameters(Packing::Coefficients);
        assert_eq!(upload_len(&parameters, 257, 3), Some(16 + 2 * 3 * (1632 + 7)));
        let full = 16 + 16 * 2 * 3 * 1632;
        assert_eq!(upload_len(&parameters, 4097, 3), Some(full + 16 + 2 * 3 * 7));
        assert_eq!(block_words(&parameters, 513).collect::<Vec<_>>(), [256, 256, 1]);
        assert_eq!(reply_len(&parameters, 1, 5, 1, 2), Some(5 * 2 * (7 + 16 * 1632)));
    }

    #[test]
    fn lengths_that_overflow_are_none() {
        let parameters = parameters(Packing::Slots);
        assert_eq!(upload_len(&parameters, usize::MAX, u32::MAX), None);
        assert_eq!(reply_len(&parameters, usize::MAX, usize::MAX, u32::MAX, 8), None);
    }
}
