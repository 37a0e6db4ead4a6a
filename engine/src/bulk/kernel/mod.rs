//! The arithmetic of a tape's steps, once for every kind of processor.
//!
//! All kernels give the same words. Values are canonical residues; columns are residues in
//! Montgomery form with R = 2^52, so that a product of a value and a column is one Montgomery
//! product and a value again. Products of a component are summed before they are reduced.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod montgomery;
mod portable;
#[cfg(test)]
mod tests;

use super::points::{LANES, Points, STEP_POINTS, VECTORS};
use super::tape::{Columns, Tape, TapeScratch};
use crate::rlwe::kernel::Instructions;
pub use crate::rlwe::kernel::Kernel;
use crate::rlwe::primes::{BLOCK_POINTS, PRIMES};

impl Kernel {
    /// Evaluates a block modulo a prime; lengths are as [`Tape::evaluate`] checks them.
    fn run(
        self,
        tape: &Tape,
        prime: u64,
        columns: Columns<'_>,
        scratch: &mut [Points],
        out: &mut [u64],
    ) {
        match self.0 {
            Instructions::Portable => portable::run(tape, prime, columns, scratch, out),
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2(available) => available.run(tape, prime, columns, scratch, out),
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512(available) => available.run(tape, prime, columns, scratch, out),
        }
    }
}

impl Tape {
    /// Evaluates one block modulo [`PRIMES`]`[prime]`.
    ///
    /// * `columns`: canonical residues, which are ciphertexts in Montgomery form with R = 2^52;
    ///   point i of column j is at `256 j + i`. Fastest when they start at a multiple of 64 bytes.
    /// * `out`: canonical residues, plain; point i of component c of output o is at
    ///   `256 (components o + c) + i`.
    ///
    /// # Panics
    ///
    /// When a slice has another length, or there is no such prime. When words are not below the
    /// prime, it may panic or give words without meaning.
    pub fn evaluate(
        &self,
        kernel: Kernel,
        prime: usize,
        columns: Columns<'_>,
        scratch: &mut TapeScratch,
        out: &mut [u64],
    ) {
        assert_eq!(columns.bodies.len(), self.columns * BLOCK_POINTS, "length of the bodies");
        assert_eq!(columns.masks.len(), self.columns * BLOCK_POINTS, "length of the masks");
        let expected = self.outputs.len() * self.components * BLOCK_POINTS;
        assert_eq!(out.len(), expected, "length of the outputs");
        if scratch.0.len() < self.scratch {
            scratch.0.resize(self.scratch, Points::default());
        }
        kernel.run(self, PRIMES[prime], columns, &mut scratch.0, out);
    }
}

/// Every kernel counts on this: sums of eight residues fit, and products of two stay below p R.
const _: () = {
    let mut index = 0;
    while index < PRIMES.len() {
        assert!(PRIMES[index] >> 50 == 1);
        index += 1;
    }
};
