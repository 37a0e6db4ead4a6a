//! Copies between memory references: Concrete's for one dimension, MLIR's for any, and the C
//! library's, which LLVM calls where source and target are contiguous.
// The C side decides how many arguments there are.
#![allow(clippy::too_many_arguments)]

use super::super::memory::{Copy, Words, fill_bytes};
use super::{not_traceable, step};
use crate::recorder::RecordError;
use crate::recorder::limits::MAX_RANK;

#[rustfmt::skip]
pub(super) extern "C" fn copy_one_rank(
    _: *mut u64, from: *mut u64, from_offset: usize, from_size: usize, from_stride: usize,
    _: *mut u64, to: *mut u64, to_offset: usize, to_size: usize, to_stride: usize,
) {
    step(|_| {
        if from_size != to_size {
            return not_traceable("it copies between buffers of two sizes");
        }
        // Words of equal stride are copied as one block, whatever the stride, as Concrete does.
        let one_block = from_stride == to_stride;
        Copy {
            from: from.wrapping_add(from_offset).cast(),
            from_stride: if one_block { 1 } else { from_stride },
            to: to.wrapping_add(to_offset).cast(),
            to_stride: if one_block { 1 } else { to_stride },
            count: from_size,
            bytes: 8,
        }
        .run()
    });
}

/// `memcpy` and `memmove`.
pub(super) extern "C" fn copy_block(to: *mut u8, from: *const u8, bytes: usize) -> *mut u8 {
    step(|_| Copy { from, from_stride: 1, to, to_stride: 1, count: bytes, bytes: 1 }.run());
    to
}

/// `memset`, which uses the last byte of its second argument.
pub(super) extern "C" fn fill_block(to: *mut u8, value: u32, bytes: usize) -> *mut u8 {
    step(|_| fill_bytes(to, value.to_le_bytes()[0], bytes));
    to
}

/// A memory reference of MLIR whose rank is known at run time only.
struct Tensor {
    start: *mut u8,
    sizes: Vec<usize>,
    strides: Vec<usize>,
}

impl Tensor {
    /// Reads the rank, and the address of the words: allocated, aligned, offset, sizes, strides.
    fn read(reference: *mut u64, bytes: usize) -> Result<Self, RecordError> {
        let (rank, words) = Words::new(reference, 0, 2, 1)?.read(|words| (words[0], words[1]));
        if rank > MAX_RANK {
            return not_traceable(&format!("it copies a tensor of rank {rank}"));
        }
        let words = Words::new(words as *mut u64, 0, 3 + 2 * rank, 1)?;
        let words = words.read(|words| {
            words.iter().map(|&word| usize::try_from(word)).collect::<Result<Vec<_>, _>>()
        });
        let Ok(words) = words else { return not_traceable("it copies a tensor beyond memory") };
        let (sizes, strides) = words[3..].split_at((words.len() - 3) / 2);
        let start = (words[1] as *mut u8).wrapping_add(words[2].wrapping_mul(bytes));
        Ok(Self { start, sizes: sizes.into(), strides: strides.into() })
    }

    /// Address of the row at `index`, and the distance of its elements.
    fn row(&self, index: &[usize], bytes: usize) -> (*mut u8, usize) {
        let products = index.iter().zip(&self.strides).map(|(i, stride)| i.wrapping_mul(*stride));
        let distance = products.fold(0, usize::wrapping_add).wrapping_mul(bytes);
        (self.start.wrapping_add(distance), self.strides.last().copied().unwrap_or(1))
    }
}

pub(super) extern "C" fn copy_any_rank(bytes: usize, from: *mut u64, to: *mut u64) {
    step(|_| {
        let (from, to) = (Tensor::read(from, bytes)?, Tensor::read(to, bytes)?);
        if from.sizes != to.sizes {
            return not_traceable("it copies between tensors of two shapes");
        }
        if from.sizes.contains(&0) {
            return Ok(());
        }
        let count = from.sizes.last().copied().unwrap_or(1);
        let mut index = vec![0; from.sizes.len().saturating_sub(1)];
        loop {
            let (from_start, from_stride) = from.row(&index, bytes);
            let (to_start, to_stride) = to.row(&index, bytes);
            let row = Copy { from: from_start, from_stride, to: to_start, to_stride, count, bytes };
            row.run()?;
            // The next row, the last dimension running fastest.
            let more = |axis: &usize| index[*axis] + 1 < from.sizes[*axis];
            let Some(axis) = (0..index.len()).rev().find(more) else { return Ok(()) };
            index[axis] += 1;
            index[axis + 1..].fill(0);
        }
    });
}
