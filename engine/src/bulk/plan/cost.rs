//! What an evaluation costs, by what was measured of its parts on one core with AVX-512-IFMA.

/// Nanoseconds of one product of residues: a multiply-add of one point with its share of reading
/// operands.
const PRODUCT: f64 = 0.8;
/// Nanoseconds of one word of a column: its mask expanded, its body unpacked and checked.
const WORD: f64 = 2.0;

/// Nanoseconds of one point modulo one prime, of a program of so many products of ring elements.
pub fn point_nanoseconds(ring_products: u64, columns: u32) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "at most a few millions")]
    let products = ring_products as f64;
    products * PRODUCT + f64::from(columns) * WORD
}
