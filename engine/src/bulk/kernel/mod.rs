//! The arithmetic of a tape's steps, once for every kind of processor.
//!
//! All kernels give the same words. Values are canonical residues; columns are residues in
//! Montgomery form with R = 2^52, so that a product of a value and a column is one Montgomery
//! product and a value again. Products of a component are summed before they are reduced.

#[cfg(target_arch = "x86_64")]
mod avx512;
mod montgomery;
mod portable;
pub mod reference;
#[cfg(test)]
mod tests;

use super::parameters::PRIMES;
use super::tape::{Columns, Tape};

/// Points that a kernel holds of each component.
pub(super) const STEP_POINTS: usize = VECTORS * LANES;
/// Words of a vector.
const LANES: usize = 8;
/// Vectors that are worked on at a time, to hide the time that a product takes and to share the
/// work of finding out what is to be done.
const VECTORS: usize = 4;

/// [`STEP_POINTS`] points of one component.
#[derive(Debug, Clone, Copy, Default)]
#[repr(align(64))]
pub(super) struct Points([[u64; LANES]; VECTORS]);

/// What evaluates tapes on this processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernel(Arithmetic);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arithmetic {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Available),
}

impl Kernel {
    /// The fastest on this processor.
    pub fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(available) = avx512::Available::detect() {
            return Self(Arithmetic::Avx512(available));
        }
        Self::portable()
    }

    /// The one for every processor.
    pub fn portable() -> Self {
        Self(Arithmetic::Portable)
    }

    /// All that this processor has.
    pub fn available() -> Vec<Self> {
        let mut kernels = vec![Self::portable()];
        kernels.extend((Self::best() != Self::portable()).then(Self::best));
        kernels
    }

    /// For people: `portable` or `avx512-ifma`.
    pub fn name(self) -> &'static str {
        match self.0 {
            Arithmetic::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Arithmetic::Avx512(_) => "avx512-ifma",
        }
    }

    /// Evaluates a block modulo a prime; lengths are as [`Tape::evaluate`] checks them.
    pub(super) fn run(
        self,
        tape: &Tape,
        prime: u64,
        columns: Columns<'_>,
        scratch: &mut [Points],
        out: &mut [u64],
    ) {
        match self.0 {
            Arithmetic::Portable => portable::run(tape, prime, columns, scratch, out),
            #[cfg(target_arch = "x86_64")]
            Arithmetic::Avx512(available) => available.run(tape, prime, columns, scratch, out),
        }
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
