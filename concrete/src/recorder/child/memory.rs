//! Memory that the circuit's code shares with the recorder: its heap, and buffers it points to.
//!
//! Unsafe because addresses come from a stranger's code, and nobody can check that it owns them. It
//! could write there itself, so following a wild one gives nothing away: the child, which has
//! nothing to lose, crashes or records nonsense, and the parent refuses either.
#![allow(unsafe_code)]

use std::alloc::{self, Layout};
use std::collections::BTreeMap;
use std::{ptr, slice};

use super::pattern::POISON;
use crate::recorder::RecordError;
use crate::recorder::limits::MAX_CIRCUIT_MEMORY_BYTES;

/// Alignment of C's `malloc` on x86-64, in bytes.
const ALIGNMENT: usize = 16;
/// What a block costs beyond its bytes; bounds the number of tiny blocks.
const BLOCK_OVERHEAD_BYTES: usize = 128;

fn not_traceable<T>(why: impl Into<String>) -> Result<T, RecordError> {
    Err(RecordError::NotTraceable(why.into()))
}

/// The heap of the circuit's code.
#[derive(Debug, Default)]
pub(super) struct Heap {
    blocks: BTreeMap<usize, Layout>,
    live_bytes: usize,
}

impl Heap {
    /// A block of poisoned memory.
    pub(super) fn allocate(&mut self, size: usize) -> Result<*mut u8, RecordError> {
        let too_much = || RecordError::TooMuchMemory(format!("{size} bytes at once"));
        let layout = Layout::from_size_align(size.max(ALIGNMENT), ALIGNMENT);
        let layout = layout.map_err(|_| too_much())?.pad_to_align();
        let cost = layout.size().saturating_add(BLOCK_OVERHEAD_BYTES);
        if cost > MAX_CIRCUIT_MEMORY_BYTES - self.live_bytes {
            return Err(RecordError::TooMuchMemory(format!(
                "{size} bytes more than {}, above the limit of {MAX_CIRCUIT_MEMORY_BYTES}",
                self.live_bytes
            )));
        }
        // SAFETY: the layout has a size.
        let block = unsafe { alloc::alloc(layout) };
        if block.is_null() {
            return Err(too_much());
        }
        // SAFETY: the block is aligned for words, and a whole number of them long.
        unsafe { slice::from_raw_parts_mut(block.cast(), layout.size() / 8) }.fill(POISON);
        self.live_bytes += cost;
        self.blocks.insert(block as usize, layout);
        Ok(block)
    }

    /// Frees a block; null is no block, as in C.
    pub(super) fn release(&mut self, block: *mut u8) -> Result<(), RecordError> {
        if block.is_null() {
            return Ok(());
        }
        let Some(layout) = self.blocks.remove(&(block as usize)) else {
            return not_traceable("it frees memory that it did not allocate");
        };
        self.live_bytes -= layout.size() + BLOCK_OVERHEAD_BYTES;
        // SAFETY: allocated with this layout, and no longer in the list.
        unsafe { alloc::dealloc(block, layout) };
        Ok(())
    }
}

/// A one-dimensional memory reference of MLIR: words at `aligned + offset`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Words {
    start: *mut u64,
    size: usize,
}

impl Words {
    /// Checks what can be checked of a reference: contiguous, aligned, of a possible size.
    pub(super) fn new(
        aligned: *mut u64,
        offset: u64,
        size: u64,
        stride: u64,
    ) -> Result<Self, RecordError> {
        let reference = Self::single(aligned, offset)?;
        if stride != 1 && size > 1 {
            return not_traceable(format!("it uses a ciphertext or table of stride {stride}"));
        }
        match usize::try_from(size) {
            Ok(size) if size <= MAX_CIRCUIT_MEMORY_BYTES / 8 => Ok(Self { size, ..reference }),
            _ => not_traceable(format!("it uses a buffer of {size} words")),
        }
    }

    /// A reference to one word.
    pub(super) fn single(aligned: *mut u64, offset: u64) -> Result<Self, RecordError> {
        let distance = usize::try_from(offset).ok().and_then(|offset| offset.checked_mul(8));
        let start = distance.and_then(|distance| (aligned as usize).checked_add(distance));
        match start {
            Some(start) if !aligned.is_null() && start.is_multiple_of(8) => {
                Ok(Self { start: aligned.with_addr(start), size: 1 })
            }
            _ => not_traceable("it uses a buffer without a valid address"),
        }
    }

    /// How many words there are.
    pub(super) fn len(self) -> usize {
        self.size
    }

    /// The words, for as long as no other call touches the buffer.
    pub(super) fn read<T>(self, look: impl FnOnce(&[u64]) -> T) -> T {
        // SAFETY: aligned, not null, of bounded size. That the circuit's code owns the words is its
        // own promise: see the module's documentation.
        look(unsafe { slice::from_raw_parts(self.start, self.size) })
    }

    /// The words, to be written.
    pub(super) fn write(self, change: impl FnOnce(&mut [u64])) {
        // SAFETY: as in `read`.
        change(unsafe { slice::from_raw_parts_mut(self.start, self.size) });
    }
}

/// A copy of `count` elements of `bytes` bytes each; strides are in elements.
///
/// Addresses are computed modulo 2^64, as machine code would.
#[derive(Debug, Clone, Copy)]
pub(super) struct Copy {
    pub(super) from: *const u8,
    pub(super) from_stride: usize,
    pub(super) to: *mut u8,
    pub(super) to_stride: usize,
    pub(super) count: usize,
    pub(super) bytes: usize,
}

impl Copy {
    pub(super) fn run(self) -> Result<(), RecordError> {
        match self.count.checked_mul(self.bytes) {
            Some(0) => Ok(()),
            Some(total) if total > MAX_CIRCUIT_MEMORY_BYTES => {
                not_traceable(format!("it copies {total} bytes at once"))
            }
            Some(total) if self.from_stride == 1 && self.to_stride == 1 => {
                copy_bytes(self.from, self.to, total)
            }
            Some(_) => (0..self.count).try_for_each(|index| {
                let distance = |stride| index.wrapping_mul(stride).wrapping_mul(self.bytes);
                copy_bytes(
                    self.from.wrapping_add(distance(self.from_stride)),
                    self.to.wrapping_add(distance(self.to_stride)),
                    self.bytes,
                )
            }),
            None => not_traceable("it copies more bytes than there are"),
        }
    }
}

/// Fills bytes with one value.
pub(super) fn fill_bytes(to: *mut u8, value: u8, bytes: usize) -> Result<(), RecordError> {
    match bytes {
        0 => return Ok(()),
        _ if bytes > MAX_CIRCUIT_MEMORY_BYTES => {
            return not_traceable(format!("it fills {bytes} bytes at once"));
        }
        _ if to.is_null() => {
            return not_traceable("it fills a buffer without a valid address");
        }
        _ => {}
    }
    // SAFETY: not null, and bytes need no alignment. That the circuit's code owns the range is its
    // own promise: see the module's documentation.
    unsafe { ptr::write_bytes(to, value, bytes) };
    Ok(())
}

fn copy_bytes(from: *const u8, to: *mut u8, bytes: usize) -> Result<(), RecordError> {
    if from.is_null() || to.is_null() {
        return not_traceable("it copies from or to a buffer without a valid address");
    }
    // SAFETY: neither is null, and bytes need no alignment. That the circuit's code owns both
    // ranges is its own promise: see the module's documentation.
    unsafe { ptr::copy(from, to, bytes) };
    Ok(())
}
