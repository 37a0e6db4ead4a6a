//! Blind rotation of several accumulators by one key.
//!
//! `ACC += C_i * (X^{a_i} ACC - ACC)` for each word `a_i` of a mask that was switched to `2N`, with
//! the GGSW ciphertexts `C_i` of the key and `*` the external product (Chillotti, Gama, Georgieva,
//! Izabachène: TFHE, Journal of Cryptology 2020, section 4). The product decomposes the difference
//! into digits, transforms them, multiplies by `C_i` point by point, and transforms back.
//!
//! The transforms are tfhe's. What is around them is written here, so that it is compiled for the
//! vectors of the processor at hand, so that a point of the key that is in a register serves several
//! accumulators, and so that memory is read in the order in which it lies: a key is larger than the
//! caches. Operations on floating-point numbers and their order are those of tfhe's single bootstrap,
//! and so is the result, bit for bit.

use aligned_vec::AVec;
use pulp::{Arch, Simd, WithSimd};
use tfhe::core_crypto::fft_impl::fft64::c64;
use tfhe::core_crypto::fft_impl::fft64::math::polynomial::FourierPolynomialMutView;
use tfhe::core_crypto::prelude::*;

use super::PreparedBootstrapKey;

/// Accumulators that a point of the key serves while it is in a register.
const BUNDLE: usize = 4;
/// Points of each polynomial that are multiplied before the next ones: those of a bundle and of a
/// GGSW ciphertext fit into a core's first cache.
const TILE: usize = 16;

/// What a key says of its accumulators.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    /// Polynomials of an accumulator.
    size: usize,
    /// Their coefficients.
    degree: usize,
    levels: usize,
    base_log: usize,
}

impl Shape {
    pub(super) fn of(key: &FourierLweBootstrapKeyOwned) -> Self {
        Self {
            size: key.glwe_size().0,
            degree: key.polynomial_size().0,
            levels: key.decomposition_level_count().0,
            base_log: key.decomposition_base_log().0,
        }
    }

    /// Of a transformed polynomial.
    fn points(&self) -> usize {
        self.degree / 2
    }

    fn tile(&self) -> usize {
        TILE.min(self.points())
    }

    /// Of a GGSW ciphertext: polynomials of digits that an accumulator has.
    fn rows(&self) -> usize {
        self.levels * self.size
    }

    fn accumulator(&self) -> usize {
        self.size * self.degree
    }

    /// Transformed digits of a bundle, in points.
    fn factors(&self) -> usize {
        BUNDLE * self.rows() * self.points()
    }

    /// Transformed products of a bundle, in points.
    fn sums(&self) -> usize {
        BUNDLE * self.size * self.points()
    }
}

/// Puts the points of a GGSW ciphertext into the order in which a rotation reads them: tile by tile;
/// of each tile, column by column; of each column, row by row. `copy` is of the same length.
pub(super) fn arrange(shape: &Shape, ggsw: &mut [c64], copy: &mut [c64]) {
    let (size, tile, rows) = (shape.size, shape.tile(), shape.rows());
    copy.copy_from_slice(ggsw);
    for (place, points) in ggsw.chunks_exact_mut(tile).enumerate() {
        let (row, rest) = (place % rows, place / rows);
        let (column, index) = (rest % size, rest / size);
        let polynomial = (row * size + column) * shape.points();
        points.copy_from_slice(&copy[polynomial + index * tile..][..tile]);
    }
}

fn stack_bytes(fft: FftView<'_>) -> usize {
    let (forward, backward) = (fft.forward_scratch(), fft.backward_scratch());
    forward.unaligned_bytes_required().max(backward.unaligned_bytes_required())
}

/// Bytes of [`Buffers`], at most.
pub(super) fn buffer_bytes(size: GlweSize, degree: PolynomialSize, levels: usize) -> usize {
    let shape = Shape { size: size.0, degree: degree.0, levels, base_log: 1 };
    let points = shape.factors() + shape.sums() + shape.points();
    let words = shape.accumulator() + shape.degree;
    size_of::<c64>() * points + size_of::<u64>() * words + stack_bytes(Fft::new(degree).as_view())
}

/// Rotates accumulators, which are one after the other, each by its mask: an element of `0..2N` for
/// each GGSW ciphertext of the key.
pub(super) fn rotate(
    PreparedBootstrapKey { key, fft }: &PreparedBootstrapKey,
    accumulators: &mut [u64],
    masks: &[&[usize]],
    buffers: &mut Buffers,
) {
    let (shape, fft) = (Shape::of(key), fft.as_view());
    buffers.prepare(&shape, fft);
    for (index, ggsw) in key.as_view().into_ggsw_iter().enumerate() {
        let bundles = accumulators.chunks_mut(BUNDLE * shape.accumulator());
        for (accumulators, masks) in bundles.zip(masks.chunks(BUNDLE)) {
            let each = accumulators.chunks_exact(shape.accumulator());
            for (slot, (accumulator, mask)) in each.zip(masks).enumerate() {
                buffers.transform(&shape, fft, slot, accumulator, mask[index]);
            }
            buffers.multiply(&shape, masks.len(), ggsw.data());
            buffers.add_back(&shape, fft, accumulators);
        }
    }
}

/// Intermediate values of a bundle.
pub(super) struct Buffers {
    /// Of a difference, what is not decomposed yet.
    rest: AVec<u64>,
    /// Digits of a polynomial.
    digits: AVec<u64>,
    /// The same, transformed.
    points: AVec<c64>,
    /// Of all accumulators: tile by tile; of each tile, row by row; of each row, one after the other.
    factors: AVec<c64>,
    /// Transformed products: of each accumulator, each polynomial.
    sums: AVec<c64>,
    stack: ComputationBuffers,
}

impl Default for Buffers {
    fn default() -> Self {
        Self {
            rest: AVec::new(0),
            digits: AVec::new(0),
            points: AVec::new(0),
            factors: AVec::new(0),
            sums: AVec::new(0),
            stack: ComputationBuffers::default(),
        }
    }
}

impl Buffers {
    fn prepare(&mut self, shape: &Shape, fft: FftView<'_>) {
        self.rest.resize(shape.accumulator(), 0);
        self.digits.resize(shape.degree, 0);
        self.points.resize(shape.points(), c64::default());
        self.factors.resize(shape.factors(), c64::default());
        self.sums.resize(shape.sums(), c64::default());
        self.stack.resize(stack_bytes(fft));
    }

    /// Decomposes and transforms `X^power ACC - ACC`.
    fn transform(
        &mut self,
        shape: &Shape,
        fft: FftView<'_>,
        slot: usize,
        accumulator: &[u64],
        power: usize,
    ) {
        let arch = Arch::new();
        let polynomials = accumulator.chunks_exact(shape.degree);
        for (rest, polynomial) in self.rest.chunks_exact_mut(shape.degree).zip(polynomials) {
            arch.dispatch(RoundDifference { shape, polynomial, power, rest });
        }
        // Level after level, from the last one, in which order the key has its rows.
        let polynomials = (0..shape.rows()).map(|row| (row, row % shape.size * shape.degree));
        for (row, start) in polynomials {
            let (rest, digits) = (&mut self.rest[start..][..shape.degree], &mut self.digits);
            arch.dispatch(TakeDigits { base_log: shape.base_log, rest, digits });
            let data = &mut self.points;
            fft.forward_as_integer(
                FourierPolynomialMutView { data },
                Polynomial::from_container(digits.as_slice()),
                self.stack.stack(),
            );
            for (index, points) in self.points.chunks_exact(shape.tile()).enumerate() {
                let place = ((index * shape.rows() + row) * BUNDLE + slot) * shape.tile();
                self.factors[place..][..points.len()].copy_from_slice(points);
            }
        }
    }

    /// Multiplies the transformed digits of so many accumulators by a GGSW ciphertext.
    fn multiply(&mut self, shape: &Shape, accumulators: usize, ggsw: &[c64]) {
        let Self { factors, sums, .. } = self;
        Arch::new().dispatch(Multiply { shape, accumulators, ggsw, factors, sums });
    }

    /// Transforms products back and adds them to their accumulators.
    fn add_back(&mut self, shape: &Shape, fft: FftView<'_>, accumulators: &mut [u64]) {
        let polynomials = accumulators.chunks_exact_mut(shape.degree);
        for (polynomial, data) in polynomials.zip(self.sums.chunks_exact_mut(shape.points())) {
            fft.add_backward_in_place_as_torus(
                Polynomial::from_container(polynomial),
                FourierPolynomialMutView { data },
                self.stack.stack(),
            );
        }
    }
}

/// `X^power P - P`, of each coefficient the `levels * base_log` bits that are decomposed: rounded, and
/// signed. Half way between two, tfhe rounds by the bit below.
struct RoundDifference<'a> {
    shape: &'a Shape,
    polynomial: &'a [u64],
    /// In `0..2N`.
    power: usize,
    rest: &'a mut [u64],
}

impl WithSimd for RoundDifference<'_> {
    type Output = ();

    /// Compiled for each kind of processor; the compiler makes vectors of the loops.
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { shape, polynomial, power, rest } = self;
        let (degree, bits) = (polynomial.len(), shape.levels * shape.base_log);
        // X^N = -1: what is turned over the end changes its sign.
        let (shift, negated) = (power % degree, power >= degree);
        let (kept, turned) = polynomial.split_at(degree - shift);
        let (first, second) = rest.split_at_mut(shift);
        let (subtracted_first, subtracted_second) = polynomial.split_at(shift);
        round_difference(bits, !negated, turned, subtracted_first, first);
        round_difference(bits, negated, kept, subtracted_second, second);
    }
}

#[inline(always)]
fn round_difference(bits: usize, negate: bool, words: &[u64], minus: &[u64], rest: &mut [u64]) {
    // All ones negate, together with the one that is added.
    let sign = if negate { u64::MAX } else { 0 };
    let (below, mask) = (64 - bits, u64::MAX >> (64 - bits));
    for ((rest, word), minus) in rest.iter_mut().zip(words).zip(minus) {
        let difference = (word ^ sign).wrapping_sub(sign).wrapping_sub(*minus);
        let kept = difference >> (below - 1);
        let rounded = (kept.wrapping_add(1) >> 1) & mask;
        let half = (kept & 1) << (bits - 1);
        let negative = ((rounded.wrapping_sub(1) | half) & rounded) >> (bits - 1);
        *rest = rounded.wrapping_sub(negative << bits);
    }
}

/// Takes the lowest digit, in `-B/2..=B/2`, of each word. Of both ends it is the one that makes the
/// next digit small (Joye: Balanced non-adjacent forms, ASIACRYPT 2021).
struct TakeDigits<'a> {
    base_log: usize,
    rest: &'a mut [u64],
    digits: &'a mut [u64],
}

impl WithSimd for TakeDigits<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { base_log, rest, digits } = self;
        let mask = (1 << base_log) - 1;
        for (rest, digit) in rest.iter_mut().zip(digits) {
            let low = *rest & mask;
            let high = (rest.cast_signed() >> base_log).cast_unsigned();
            let carry = ((low.wrapping_sub(1) | high) & low) >> (base_log - 1);
            *rest = high.wrapping_add(carry);
            *digit = low.wrapping_sub(carry << base_log);
        }
    }
}

/// For each accumulator and each of its polynomials, the sum of transformed digits by the key's
/// column.
struct Multiply<'a> {
    shape: &'a Shape,
    accumulators: usize,
    /// As [`arrange`] puts it.
    ggsw: &'a [c64],
    factors: &'a [c64],
    sums: &'a mut [c64],
}

impl WithSimd for Multiply<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match self.accumulators {
            1 => self.of::<S, 1>(simd),
            2 => self.of::<S, 2>(simd),
            3 => self.of::<S, 3>(simd),
            _ => self.of::<S, BUNDLE>(simd),
        }
    }
}

impl Multiply<'_> {
    #[inline(always)]
    fn of<S: Simd, const COUNT: usize>(self, simd: S) {
        let Self { shape, ggsw, factors, sums, .. } = self;
        let (size, points, tile) = (shape.size, shape.points(), shape.tile());
        let tiles = ggsw.chunks_exact(size * shape.rows() * tile);
        let tiles = tiles.zip(factors.chunks_exact(shape.rows() * BUNDLE * tile));
        for (index, (ggsw, factors)) in tiles.enumerate() {
            let factors = S::as_simd_c64s(factors).0;
            for (column, key) in ggsw.chunks_exact(shape.rows() * tile).enumerate() {
                let key = S::as_simd_c64s(key).0;
                let place = |slot| (slot * size + column) * points + index * tile;
                let vectors = key.len() / shape.rows();
                for vector in 0..vectors {
                    let found = sum_rows::<S, COUNT>(simd, key, factors, vectors, vector);
                    for (slot, found) in found.into_iter().enumerate() {
                        let sums = &mut sums[place(slot)..][..tile];
                        S::as_mut_simd_c64s(sums).0[vector] = found;
                    }
                }
            }
        }
    }
}

/// The sum over the rows of a column, of one of the vectors that a tile has.
#[inline(always)]
fn sum_rows<S: Simd, const COUNT: usize>(
    simd: S,
    key: &[S::c64s],
    factors: &[S::c64s],
    vectors: usize,
    vector: usize,
) -> [S::c64s; COUNT] {
    let mut rows = key.chunks_exact(vectors).zip(factors.chunks_exact(BUNDLE * vectors));
    let mut sums = [simd.splat_c64s(c64::default()); COUNT];
    if let Some((key, factors)) = rows.next() {
        for (slot, sum) in sums.iter_mut().enumerate() {
            *sum = simd.mul_c64s(key[vector], factors[slot * vectors + vector]);
        }
    }
    for (key, factors) in rows {
        for (slot, sum) in sums.iter_mut().enumerate() {
            *sum = simd.mul_add_c64s(key[vector], factors[slot * vectors + vector], *sum);
        }
    }
    sums
}
