//! For processors with AVX2 and FMA: four products at a time, by [floats](crate::rlwe::avx2).
//!
//! A vector of the engine is two of the processor. As that has few registers, a step is done for one
//! vector after the other.

#![allow(unsafe_code)]

use std::arch::x86_64::{__m256d, __m256i, _mm256_add_epi64, _mm256_set1_pd, _mm256_sub_epi64};

use super::super::tape::{
    Base, Columns, Form, Indicator, Product, Step, Tape, Target, Term, Value,
};
use super::montgomery::{Modulus, TERMS_PER_REDUCTION};
use super::{LANES, Points, STEP_POINTS, VECTORS};
use crate::rlwe::avx2::{self, Field, Sums, TERMS_PER_CARRY, fractions, load, splat, store};
use crate::rlwe::kernel::Avx2;
use crate::rlwe::montgomery::Montgomery;
use crate::rlwe::primes::BLOCK_POINTS;

impl Avx2 {
    /// Evaluates a block modulo a prime; lengths are as [`Tape::evaluate`] checks them.
    pub(super) fn run(
        self,
        tape: &Tape,
        prime: u64,
        columns: Columns<'_>,
        scratch: &mut [Points],
        out: &mut [u64],
    ) {
        // SAFETY: `self` exists only where `Avx2::detect` has found AVX2 and FMA, which is all that the
        // function asks for.
        unsafe { run(tape, prime, columns, scratch, out) }
    }
}

#[target_feature(enable = "avx2,fma")]
fn run(tape: &Tape, prime: u64, columns: Columns<'_>, scratch: &mut [Points], out: &mut [u64]) {
    let (field, modulus) = (Field::new(&Montgomery::new(prime)), Modulus::new(prime));
    let (bodies, masks) = (columns.bodies.as_chunks().0, columns.masks.as_chunks().0);
    for from in (0..BLOCK_POINTS).step_by(STEP_POINTS) {
        let (from, scratch, out) = (from / LANES, &mut *scratch, &mut *out.as_chunks_mut().0);
        let mut state = State { tape, field, modulus, bodies, masks, from, scratch, out };
        state.outputs();
        for step in &tape.steps {
            state.step(step);
        }
    }
}

/// A vector in registers.
type Words = [__m256i; REGISTERS];
/// The same as factors.
type Factors = [__m256d; REGISTERS];
const REGISTERS: usize = LANES / avx2::LANES;

/// Vectors of a block.
const BLOCK_VECTORS: usize = BLOCK_POINTS / LANES;

/// One evaluation of [`STEP_POINTS`] points. Columns and outputs are vectors of [`LANES`] words.
struct State<'a> {
    tape: &'a Tape,
    field: Field,
    modulus: Modulus,
    bodies: &'a [[u64; LANES]],
    masks: &'a [[u64; LANES]],
    /// First vector of the block that is worked on.
    from: usize,
    scratch: &'a mut [Points],
    out: &'a mut [[u64; LANES]],
}

impl State<'_> {
    /// Starts every output with what of it is affine.
    #[target_feature(enable = "avx2,fma")]
    fn outputs(&mut self) {
        for (position, &form) in self.tape.outputs.iter().enumerate() {
            for component in 0..self.tape.components {
                let words = match component {
                    0 | 1 => self.affine(form, component),
                    _ => [zero(); VECTORS],
                };
                for (vector, words) in words.into_iter().enumerate() {
                    store_pair(self.output(position, component, vector), words);
                }
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn step(&mut self, step: &Step) {
        match step {
            Step::Product(product) => {
                for vector in 0..VECTORS {
                    self.product(product, vector);
                }
            }
            &Step::Affine { form, target } => {
                for component in 0..=target.degree {
                    let words = self.affine(form, component as usize);
                    for (vector, words) in words.into_iter().enumerate() {
                        self.write(target.at + component, vector, words);
                    }
                }
            }
            &Step::Indicator { form, target } => {
                for vector in 0..VECTORS {
                    self.indicator_of(form, target, vector);
                }
            }
            &Step::Add { value, output } => {
                for component in 0..=value.degree {
                    for vector in 0..VECTORS {
                        let words = self.read(value.at + component, vector);
                        let field = self.field;
                        let out = self.output(output as usize, component as usize, vector);
                        let sums = load_pair(out);
                        let sums = [field.add(sums[0], words[0]), field.add(sums[1], words[1])];
                        store_pair(out, sums);
                    }
                }
            }
        }
    }

    /// Body (0) or mask (1) of a form.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn affine(&self, form: Form, side: usize) -> [Words; VECTORS] {
        let constant = if side == 0 { self.modulus.residue(form.constant) } else { 0 };
        let mut words = [[splat(constant); REGISTERS]; VECTORS];
        for terms in self.tape.terms(form).chunks(TERMS_PER_REDUCTION) {
            for (vector, words) in words.iter_mut().enumerate() {
                let mut sums = Sums::of(*words);
                self.add_terms(&mut sums, terms, side, vector);
                *words = self.field.reduce(&sums);
            }
        }
        words
    }

    /// Adds at most [`TERMS_PER_REDUCTION`] terms: as coefficients are below 2^50, 3 p R at most in
    /// magnitude. Room for [`TERMS_PER_CARRY`] products is left.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn add_terms(&self, sums: &mut Sums<REGISTERS>, terms: &[Term], side: usize, vector: usize) {
        for terms in terms.chunks(TERMS_PER_CARRY) {
            for term in terms {
                #[allow(clippy::cast_precision_loss, reason = "below 2^50")]
                let coefficient = _mm256_set1_pd(term.coefficient as f64);
                let words = self.side(side, term.column, vector);
                sums.multiply_add([coefficient; REGISTERS], as_fractions(words));
            }
            sums.carry();
        }
    }

    /// Writes a form of coefficients 1 and -1 in Montgomery form.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn indicator_of(&mut self, form: Form, target: u32, vector: usize) {
        let field = self.field;
        let constant = if form.constant == 0 { 0 } else { self.modulus.one() };
        for (side, start) in [splat(constant), splat(0)].into_iter().enumerate() {
            let mut sums = [start; REGISTERS];
            for term in self.tape.terms(form) {
                let words = self.side(side, term.column, vector);
                for (sum, word) in sums.iter_mut().zip(words) {
                    *sum = match term.coefficient {
                        ..0 => field.subtract(*sum, word),
                        0.. => field.add(*sum, word),
                    };
                }
            }
            self.write(if side == 0 { target } else { target + 1 }, vector, sums);
        }
    }

    /// At most two products are added to a base of [`FOLDED_TERMS`](super::super::tape::FOLDED_TERMS)
    /// terms and to an output: more than -2 p R, as a factor is a difference of residues.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn product(&mut self, product: &Product, vector: usize) {
        let [body, mask] = match product.indicator {
            Indicator::Column(column) => {
                [self.side(0, column, vector), self.side(1, column, vector)]
            }
            Indicator::Memory(at) => [self.read(at, vector), self.read(at + 1, vector)],
        };
        let (body, mask) = (as_fractions(body), as_fractions(mask));
        let factor_degree = product.factor_degree();
        let mut previous = None;
        for component in 0..=product.degree() {
            let mut sums = self.base(product, component, vector);
            if let Some(previous) = previous {
                sums.multiply_add(previous, mask);
            }
            previous =
                (component <= factor_degree).then(|| self.factor(product, component, vector));
            if let Some(factor) = previous {
                sums.multiply_add(factor, body);
            }
            let words = self.field.reduce(&sums);
            match product.target {
                Target::Memory(value) => self.write(value.at + component, vector, words),
                Target::Output(output) => {
                    let out = self.output(output as usize, component as usize, vector);
                    store_pair(out, words);
                }
            }
        }
    }

    /// R times a component of the base, and of the output to which the product is added.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn base(&mut self, product: &Product, component: u32, vector: usize) -> Sums<REGISTERS> {
        let mut words = match product.base {
            Base::Value(value) if component <= value.degree => {
                self.read(value.at + component, vector)
            }
            Base::Form(form) if component == 0 => {
                [splat(self.modulus.residue(form.constant)); REGISTERS]
            }
            Base::Zero | Base::Value(_) | Base::Form(_) => zero(),
        };
        if let Target::Output(output) = product.target {
            let out = load_pair(self.output(output as usize, component as usize, vector));
            words = [_mm256_add_epi64(words[0], out[0]), _mm256_add_epi64(words[1], out[1])];
        }
        let mut sums = Sums::of(words);
        if let Base::Form(form) = product.base
            && component < 2
        {
            self.add_terms(&mut sums, self.tape.terms(form), component as usize, vector);
        }
        sums
    }

    /// A component of `factor - minus`, which has it.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn factor(&self, product: &Product, component: u32, vector: usize) -> Factors {
        let has = |value: Value| component <= value.degree;
        let mut factor = match product.factor {
            value if has(value) => self.read(value.at + component, vector),
            _ => zero(),
        };
        if let Some(value) = product.minus.filter(|&minus| has(minus)) {
            let minus = self.read(value.at + component, vector);
            for (factor, minus) in factor.iter_mut().zip(minus) {
                *factor = _mm256_sub_epi64(*factor, minus);
            }
        }
        [self.field.wholes(factor[0]), self.field.wholes(factor[1])]
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn read(&self, at: u32, vector: usize) -> Words {
        load_pair(&self.scratch[at as usize].0[vector])
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn write(&mut self, at: u32, vector: usize, words: Words) {
        store_pair(&mut self.scratch[at as usize].0[vector], words);
    }

    /// Body (0) or mask (1) of a column, in Montgomery form.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn side(&self, side: usize, column: u32, vector: usize) -> Words {
        let words = if side == 0 { self.bodies } else { self.masks };
        load_pair(&words[BLOCK_VECTORS * column as usize + self.from + vector])
    }

    #[inline]
    fn output(&mut self, output: usize, component: usize, vector: usize) -> &mut [u64; LANES] {
        let first = BLOCK_VECTORS * (self.tape.components * output + component);
        &mut self.out[first + self.from + vector]
    }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn zero() -> Words {
    [splat(0); REGISTERS]
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn as_fractions([first, second]: Words) -> Factors {
    [fractions(first), fractions(second)]
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn load_pair(words: &[u64; LANES]) -> Words {
    let words = words.as_chunks().0;
    [load(&words[0]), load(&words[1])]
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn store_pair(words: &mut [u64; LANES], [first, second]: Words) {
    let words = words.as_chunks_mut().0;
    store(&mut words[0], first);
    store(&mut words[1], second);
}
