//! What an evaluation costs, by what was measured of its parts on one core with AVX-512-IFMA.

use super::super::kernel::Kernel;
use crate::rlwe::kernel::Instructions;

/// Nanoseconds of one product of residues: a multiply-add of one point with its share of reading
/// operands.
const PRODUCT: f64 = 0.8;
/// The portable kernel's products take so many times as long: 14 to 16 in ensembles.
const PORTABLE_PRODUCT: f64 = 16.0;
/// Those of AVX2: the portable ones' take 3.2 to 3.7 times as long in ensembles.
#[cfg(target_arch = "x86_64")]
const AVX2_PRODUCT: f64 = 4.5;
/// Nanoseconds of one word of a column: its mask expanded, its body unpacked and checked.
const WORD: f64 = 2.0;
/// Nanoseconds of hiding one point of an output modulo one prime, for each power of the secret.
const HIDE: f64 = 10.0;

/// Nanoseconds of one point modulo one prime, of a program of so many products of ring elements, with
/// the instructions that were measured with.
pub fn point_nanoseconds(ring_products: u64, columns: u32) -> f64 {
    nanoseconds(ring_products, columns, PRODUCT)
}

/// The same with the instructions that there are.
pub(in crate::bulk) fn point_nanoseconds_on(
    kernel: Kernel,
    ring_products: u64,
    columns: u32,
) -> f64 {
    let times = match kernel.0 {
        Instructions::Portable => PORTABLE_PRODUCT,
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx2(_) => AVX2_PRODUCT,
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx512(_) => 1.0,
    };
    nanoseconds(ring_products, columns, PRODUCT * times)
}

fn nanoseconds(ring_products: u64, columns: u32, product: f64) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "at most a few millions")]
    let products = ring_products as f64;
    products * product + f64::from(columns) * WORD
}

/// Nanoseconds of hiding one point modulo one prime.
pub(in crate::bulk) fn hiding_nanoseconds(outputs: usize, degree: u32) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "at most a few hundreds")]
    let outputs = outputs as f64;
    outputs * f64::from(degree) * HIDE
}
