//! For every processor: sums of products in 128 bits.

use super::super::tape::{Base, Columns, Form, Indicator, Product, Step, Tape, Target};
use super::montgomery::{Modulus, RADIX_BITS, TERMS_PER_REDUCTION};
use super::{Points, STEP_POINTS};
use crate::rlwe::primes::BLOCK_POINTS;

/// Words of [`Points`], one after the other.
type Words = [u64; STEP_POINTS];
const ZERO: Words = [0; STEP_POINTS];

/// Evaluates a block modulo a prime; lengths are as [`Tape::evaluate`] checks them.
pub(super) fn run(
    tape: &Tape,
    prime: u64,
    columns: Columns<'_>,
    scratch: &mut [Points],
    out: &mut [u64],
) {
    let modulus = Modulus::new(prime);
    for from in (0..BLOCK_POINTS).step_by(STEP_POINTS) {
        let mut state = State { tape, modulus, columns, from, scratch, out };
        state.outputs();
        for step in &tape.steps {
            state.step(step);
        }
    }
}

/// One evaluation of [`STEP_POINTS`] points, the first of which is `from`.
struct State<'a> {
    tape: &'a Tape,
    modulus: Modulus,
    columns: Columns<'a>,
    from: usize,
    scratch: &'a mut [Points],
    out: &'a mut [u64],
}

impl State<'_> {
    /// Starts every output with what of it is affine.
    fn outputs(&mut self) {
        for (position, &form) in self.tape.outputs.iter().enumerate() {
            for component in 0..self.tape.components {
                let words = if component < 2 { self.affine(form, component) } else { ZERO };
                self.output(position, component).copy_from_slice(&words);
            }
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Affine { form, target } => {
                for (component, at) in (target.at..=target.at + target.degree).enumerate() {
                    let words = self.affine(form, component);
                    self.write(at, &words);
                }
            }
            Step::Indicator { form, target } => {
                for (side, at) in (target..=target + 1).enumerate() {
                    let words = self.indicator_of(form, side);
                    self.write(at, &words);
                }
            }
            Step::Product(product) => self.product(&product),
            Step::Add { value, output } => {
                for component in 0..=value.degree {
                    let mut words = ZERO;
                    words.copy_from_slice(self.read(value.at + component));
                    self.finish(Target::Output(output), component, &words);
                }
            }
        }
    }

    /// Body (0) or mask (1) of a form.
    fn affine(&self, form: Form, side: usize) -> Words {
        let constant = if side == 0 { self.modulus.residue(form.constant) } else { 0 };
        let mut words = [constant; STEP_POINTS];
        for terms in self.tape.terms(form).chunks(TERMS_PER_REDUCTION) {
            let mut sums = [0; STEP_POINTS];
            for term in terms {
                let coefficient = self.modulus.residue(term.coefficient);
                for (sum, &word) in sums.iter_mut().zip(self.column(term.column, side)) {
                    *sum = multiply_add(*sum, coefficient, word);
                }
            }
            for (word, sum) in words.iter_mut().zip(sums) {
                *word = self.modulus.reduce(sum.wrapping_add(u128::from(*word) << RADIX_BITS));
            }
        }
        words
    }

    /// Body (0) or mask (1) of a form of coefficients 1 and -1, in Montgomery form.
    fn indicator_of(&self, form: Form, side: usize) -> Words {
        let has_constant = side == 0 && form.constant != 0;
        let mut sums = [if has_constant { self.modulus.one() } else { 0 }; STEP_POINTS];
        for term in self.tape.terms(form) {
            for (sum, &word) in sums.iter_mut().zip(self.column(term.column, side)) {
                let opposite = (2 * self.modulus.prime).wrapping_sub(word);
                let word = if term.coefficient < 0 { opposite } else { word };
                *sum = self.modulus.canonical(sum.wrapping_add(word));
            }
        }
        sums
    }

    fn product(&mut self, product: &Product) {
        let mut previous = ZERO;
        for component in 0..=product.degree() {
            let mut words = self.base(product.base, component);
            let difference = self.difference(product, component);
            let [body, mask] = match product.indicator {
                Indicator::Column(column) => [self.column(column, 0), self.column(column, 1)],
                Indicator::Memory(at) => [self.read(at), self.read(at + 1)],
            };
            let factors = body.iter().zip(&difference).zip(mask.iter().zip(&previous));
            for (word, ((&body, &factor), (&mask, &before))) in words.iter_mut().zip(factors) {
                let base = u128::from(*word) << RADIX_BITS;
                let sum = multiply_add(base, body, factor);
                *word = self.modulus.reduce(multiply_add(sum, mask, before));
            }
            previous = difference;
            self.finish(product.target, component, &words);
        }
    }

    /// A component of what is added to.
    fn base(&self, base: Base, component: u32) -> Words {
        match base {
            Base::Form(form) if component < 2 => self.affine(form, component as usize),
            Base::Value(value) => {
                let mut words = ZERO;
                if component <= value.degree {
                    words.copy_from_slice(self.read(value.at + component));
                }
                words
            }
            Base::Zero | Base::Form(_) => ZERO,
        }
    }

    /// A component of `factor - minus`.
    fn difference(&self, product: &Product, component: u32) -> Words {
        let mut words = self.base(Base::Value(product.factor), component);
        if let Some(minus) = product.minus.filter(|minus| component <= minus.degree) {
            for (word, minus) in words.iter_mut().zip(self.read(minus.at + component)) {
                let difference = word.wrapping_sub(*minus);
                *word = difference.min(difference.wrapping_add(self.modulus.prime));
            }
        }
        words
    }

    fn finish(&mut self, target: Target, component: u32, words: &Words) {
        match target {
            Target::Memory(value) => self.write(value.at + component, words),
            Target::Output(output) => {
                let prime = self.modulus.prime;
                let out = self.output(output as usize, component as usize);
                for (out, word) in out.iter_mut().zip(words) {
                    let sum = out.wrapping_add(*word);
                    *out = sum.min(sum.wrapping_sub(prime));
                }
            }
        }
    }

    fn read(&self, at: u32) -> &[u64] {
        self.scratch[at as usize].0.as_flattened()
    }

    fn write(&mut self, at: u32, words: &Words) {
        self.scratch[at as usize].0.as_flattened_mut().copy_from_slice(words);
    }

    /// Body (0) or mask (1) of a column, in Montgomery form.
    fn column(&self, column: u32, side: usize) -> &[u64] {
        let words = if side == 0 { self.columns.bodies } else { self.columns.masks };
        &words[BLOCK_POINTS * column as usize + self.from..][..STEP_POINTS]
    }

    fn output(&mut self, output: usize, component: usize) -> &mut [u64] {
        let from = BLOCK_POINTS * (self.tape.components * output + component) + self.from;
        &mut self.out[from..][..STEP_POINTS]
    }
}

/// Without a check for overflow: sums stay below `8 p R`, far below 2^128.
fn multiply_add(sum: u128, left: u64, right: u64) -> u128 {
    sum.wrapping_add(u128::from(left) * u128::from(right))
}
