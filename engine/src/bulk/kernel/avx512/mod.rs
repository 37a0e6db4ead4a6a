//! For processors with AVX-512-IFMA: eight products of 52 bits at a time.
//!
//! Steps are methods that only such processors may call; what they are made of is in [`vector`].

#![allow(unsafe_code)]

mod vector;

use std::arch::x86_64::_mm512_add_epi64;

use super::super::tape::{
    Base, Columns, Form, Indicator, Product, Step, Tape, Target, Term, Value,
};
use super::montgomery::{Modulus, TERMS_PER_REDUCTION};
use super::{LANES, Points, STEP_POINTS, VECTORS};
use crate::rlwe::kernel::Avx512;
use crate::rlwe::primes::BLOCK_POINTS;
use vector::{Field, Sum, Vectors, load_all, splat, store_all};

impl Avx512 {
    /// Evaluates a block modulo a prime; lengths are as [`Tape::evaluate`] checks them.
    pub(super) fn run(
        self,
        tape: &Tape,
        prime: u64,
        columns: Columns<'_>,
        scratch: &mut [Points],
        out: &mut [u64],
    ) {
        // SAFETY: `self` exists only where `Avx512::detect` has found AVX-512F and AVX-512-IFMA, which is
        // all that the function asks for.
        unsafe { run(tape, prime, columns, scratch, out) }
    }
}

#[target_feature(enable = "avx512f,avx512ifma")]
fn run(tape: &Tape, prime: u64, columns: Columns<'_>, scratch: &mut [Points], out: &mut [u64]) {
    let field = Field::new(Modulus::new(prime));
    let (bodies, masks) = (columns.bodies.as_chunks().0, columns.masks.as_chunks().0);
    for from in (0..BLOCK_POINTS).step_by(STEP_POINTS) {
        let out = &mut *out.as_chunks_mut().0;
        let mut state =
            State { tape, field, bodies, masks, from: from / LANES, scratch: &mut *scratch, out };
        state.outputs();
        for step in &tape.steps {
            state.step(step);
        }
    }
}

/// One evaluation of [`STEP_POINTS`] points. Columns and outputs are vectors of [`LANES`] words.
struct State<'a> {
    tape: &'a Tape,
    field: Field,
    bodies: &'a [[u64; LANES]],
    masks: &'a [[u64; LANES]],
    /// First vector of the block that is worked on.
    from: usize,
    scratch: &'a mut [Points],
    out: &'a mut [[u64; LANES]],
}

/// Vectors of a block.
const BLOCK_VECTORS: usize = BLOCK_POINTS / LANES;

impl State<'_> {
    /// Starts every output with what of it is affine.
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn outputs(&mut self) {
        for (position, &form) in self.tape.outputs.iter().enumerate() {
            let words = self.affine(form);
            for component in 0..self.tape.components {
                let words = words.get(component).copied().unwrap_or([self.field.zero; VECTORS]);
                store_all(self.output(position, component), &words);
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn step(&mut self, step: &Step) {
        match step {
            Step::Product(product) => self.product(product),
            &Step::Affine { form, target } => {
                let [body, mask] = self.affine(form);
                self.write(target.at, &body);
                if target.degree > 0 {
                    self.write(target.at + 1, &mask);
                }
            }
            &Step::Indicator { form, target } => self.indicator_of(form, target),
            &Step::Add { value, output } => {
                for component in 0..=value.degree {
                    let mut words = self.read(value.at + component);
                    let field = self.field;
                    let out = self.output(output as usize, component as usize);
                    let sums = load_all(out);
                    for vector in 0..VECTORS {
                        let sum = _mm512_add_epi64(words[vector], sums[vector]);
                        words[vector] = field.canonical4(sum);
                    }
                    store_all(out, &words);
                }
            }
        }
    }

    /// Body and mask of a form.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn affine(&self, form: Form) -> [Vectors; 2] {
        let field = &self.field;
        let constant = splat(field.modulus.residue(form.constant));
        let mut sums = [[constant; VECTORS], [field.zero; VECTORS]];
        for terms in self.tape.terms(form).chunks(TERMS_PER_REDUCTION) {
            let products = self.add_terms(sums, terms);
            for side in 0..2 {
                for vector in 0..VECTORS {
                    sums[side][vector] = field.canonical8(field.reduce(products[side][vector]));
                }
            }
        }
        sums
    }

    /// R times `from`, plus terms.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn add_terms(&self, from: [Vectors; 2], terms: &[Term]) -> [[Sum; VECTORS]; 2] {
        let zero = self.field.zero;
        let mut products = [[Sum { low: zero, high: zero }; VECTORS]; 2];
        for side in 0..2 {
            for vector in 0..VECTORS {
                products[side][vector].high = from[side][vector];
            }
        }
        for term in terms {
            let coefficient = splat(self.field.modulus.residue(term.coefficient));
            let columns = self.column(term.column);
            for side in 0..2 {
                for vector in 0..VECTORS {
                    let sum = &mut products[side][vector];
                    *sum = sum.multiply_add(coefficient, columns[side][vector]);
                }
            }
        }
        products
    }

    /// Writes a form of coefficients 1 and -1 in Montgomery form.
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn indicator_of(&mut self, form: Form, target: u32) {
        let field = self.field;
        let constant = if form.constant == 0 { 0 } else { field.modulus.one() };
        let mut sums = [[splat(constant); VECTORS], [field.zero; VECTORS]];
        for term in self.tape.terms(form) {
            let columns = self.column(term.column);
            for side in 0..2 {
                for vector in 0..VECTORS {
                    let (sum, word) = (&mut sums[side][vector], columns[side][vector]);
                    *sum = match term.coefficient {
                        ..0 => field.difference(*sum, word),
                        0.. => field.canonical4(_mm512_add_epi64(*sum, word)),
                    };
                }
            }
        }
        self.write(target, &sums[0]);
        self.write(target + 1, &sums[1]);
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn product(&mut self, product: &Product) {
        let zero = self.field.zero;
        let [body, mask] = match product.indicator {
            Indicator::Column(column) => self.column(column),
            Indicator::Memory(at) => [self.read(at), self.read(at + 1)],
        };
        let factor_degree = product.factor_degree();
        let mut previous = [zero; VECTORS];
        for component in 0..=product.degree() {
            let (mut sums, wide) = self.base(product, component);
            if component > 0 && component <= factor_degree + 1 {
                for vector in 0..VECTORS {
                    sums[vector] = sums[vector].multiply_add(mask[vector], previous[vector]);
                }
            }
            if component <= factor_degree {
                previous = self.factor(product, component);
                for vector in 0..VECTORS {
                    sums[vector] = sums[vector].multiply_add(body[vector], previous[vector]);
                }
            }
            self.finish(product.target, component, &sums, wide);
        }
    }

    /// R times a component of the base, and whether more than that of one residue and of the
    /// products is there to be reduced.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn base(&self, product: &Product, component: u32) -> ([Sum; VECTORS], bool) {
        let zero = self.field.zero;
        let mut sums = [Sum { low: zero, high: zero }; VECTORS];
        match product.base {
            Base::Value(value) if component <= value.degree => {
                let words = self.read(value.at + component);
                for vector in 0..VECTORS {
                    sums[vector].high = words[vector];
                }
                (sums, false)
            }
            Base::Form(form) if component < 2 => {
                let modulus = self.field.modulus;
                if component == 0 {
                    let constant = splat(modulus.residue(form.constant));
                    for sum in &mut sums {
                        sum.high = constant;
                    }
                }
                for term in self.tape.terms(form) {
                    let coefficient = splat(modulus.residue(term.coefficient));
                    let words = self.side(component, term.column);
                    for vector in 0..VECTORS {
                        sums[vector] = sums[vector].multiply_add(coefficient, words[vector]);
                    }
                }
                (sums, true)
            }
            Base::Zero | Base::Value(_) | Base::Form(_) => (sums, false),
        }
    }

    /// A component of `factor - minus`, which has it.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn factor(&self, product: &Product, component: u32) -> Vectors {
        let zero = [self.field.zero; VECTORS];
        let has = |value: Value| component <= value.degree;
        let mut factor = match product.factor {
            value if has(value) => self.read(value.at + component),
            _ => zero,
        };
        if let Some(value) = product.minus.filter(|&minus| has(minus)) {
            let minus = self.read(value.at + component);
            for vector in 0..VECTORS {
                factor[vector] = self.field.difference(factor[vector], minus[vector]);
            }
        }
        factor
    }

    /// Reduces a component, of which at most two products, a base and an output are summed.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn finish(&mut self, target: Target, component: u32, sums: &[Sum; VECTORS], wide: bool) {
        let field = self.field;
        let mut words = [field.zero; VECTORS];
        for vector in 0..VECTORS {
            words[vector] = field.reduce(sums[vector]);
        }
        if let Target::Output(output) = target {
            let out = load_all(self.output(output as usize, component as usize));
            for vector in 0..VECTORS {
                words[vector] = _mm512_add_epi64(words[vector], out[vector]);
            }
        }
        for word in &mut words {
            *word = if wide { field.canonical8(*word) } else { field.canonical4(*word) };
        }
        match target {
            Target::Memory(value) => self.write(value.at + component, &words),
            Target::Output(output) => {
                store_all(self.output(output as usize, component as usize), &words);
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn read(&self, at: u32) -> Vectors {
        load_all(&self.scratch[at as usize].0)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn write(&mut self, at: u32, words: &Vectors) {
        store_all(&mut self.scratch[at as usize].0, words);
    }

    /// Body and mask of a column, in Montgomery form.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn column(&self, column: u32) -> [Vectors; 2] {
        [self.side(0, column), self.side(1, column)]
    }

    /// Body or mask of a column, in Montgomery form.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn side(&self, component: u32, column: u32) -> Vectors {
        let words = if component == 0 { self.bodies } else { self.masks };
        load_all(&words[BLOCK_VECTORS * column as usize + self.from..][..VECTORS])
    }

    #[inline]
    fn output(&mut self, output: usize, component: usize) -> &mut [[u64; LANES]] {
        let vector = BLOCK_VECTORS * (self.tape.components * output + component) + self.from;
        &mut self.out[vector..][..VECTORS]
    }
}
