//! For every processor: sums of products in 128 bits.

use super::super::parameters::BLOCK_POINTS;
use super::super::tape::{Base, Columns, Form, Indicator, Product, Step, Tape, Target, Value};
use super::montgomery::{Modulus, RADIX_BITS, TERMS_PER_REDUCTION};
use super::{Points, STEP_POINTS};

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
            let [body, mask] = self.affine(form);
            for component in 0..self.tape.components {
                let words = [body, mask].get(component).copied().unwrap_or(ZERO);
                self.output(position, component).copy_from_slice(&words);
            }
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Affine { form, target } => {
                let [body, mask] = self.affine(form);
                self.write(target.at, &body);
                if target.degree > 0 {
                    self.write(target.at + 1, &mask);
                }
            }
            Step::Indicator { form, target } => {
                let [body, mask] = self.indicator_of(form);
                self.write(target, &body);
                self.write(target + 1, &mask);
            }
            Step::Product(product) => self.product(&product),
            Step::Add { value, output } => {
                for component in 0..=value.degree {
                    let words = self.read(value.at + component);
                    let modulus = self.modulus;
                    let out = self.output(output as usize, component as usize);
                    for (out, word) in out.iter_mut().zip(words) {
                        *out = modulus.canonical(*out + word);
                    }
                }
            }
        }
    }

    /// Body and mask of a form.
    fn affine(&self, form: Form) -> [Words; 2] {
        let mut sums = [[self.modulus.residue(form.constant); STEP_POINTS], ZERO];
        for terms in self.tape.terms(form).chunks(TERMS_PER_REDUCTION) {
            let mut products = sums.map(|words| words.map(|word| u128::from(word) << RADIX_BITS));
            for term in terms {
                let coefficient = self.modulus.residue(term.coefficient);
                let [body, mask] = self.column(term.column);
                for (sums, words) in products.iter_mut().zip([body, mask]) {
                    for (sum, word) in sums.iter_mut().zip(words) {
                        *sum = multiply_add(*sum, coefficient, word);
                    }
                }
            }
            sums = products.map(|words| words.map(|sum| self.modulus.reduce(sum)));
        }
        sums
    }

    /// Body and mask of a form of coefficients 1 and -1, in Montgomery form.
    fn indicator_of(&self, form: Form) -> [Words; 2] {
        let constant = if form.constant == 0 { 0 } else { self.modulus.one() };
        let mut sums = [[constant; STEP_POINTS], ZERO];
        for term in self.tape.terms(form) {
            for (sum, column) in sums.iter_mut().zip(self.column(term.column)) {
                for (sum, word) in sum.iter_mut().zip(column) {
                    let word = if term.coefficient < 0 {
                        (2 * self.modulus.prime).wrapping_sub(word)
                    } else {
                        word
                    };
                    *sum = self.modulus.canonical(sum.wrapping_add(word));
                }
            }
        }
        sums
    }

    fn product(&mut self, product: &Product) {
        let [body, mask] = match product.indicator {
            Indicator::Column(column) => self.column(column),
            Indicator::Memory(at) => [self.read(at), self.read(at + 1)],
        };
        let form = match product.base {
            Base::Form(form) => self.affine(form),
            Base::Zero | Base::Value(_) => [ZERO; 2],
        };
        let mut previous = ZERO;
        for component in 0..=product.degree() {
            let difference = self.difference(product, component);
            let base = match product.base {
                Base::Value(value) => self.component(value, component),
                _ => form.get(component as usize).copied().unwrap_or(ZERO),
            };
            let mut words = base;
            for (point, word) in words.iter_mut().enumerate() {
                let base = u128::from(*word) << RADIX_BITS;
                let sum = multiply_add(base, body[point], difference[point]);
                *word = self.modulus.reduce(multiply_add(sum, mask[point], previous[point]));
            }
            previous = difference;
            self.finish(product.target, component, &words);
        }
    }

    /// A component of `factor - minus`.
    fn difference(&self, product: &Product, component: u32) -> Words {
        let factor = self.component(product.factor, component);
        let Some(minus) = product.minus else {
            return factor;
        };
        let minus = self.component(minus, component);
        std::array::from_fn(|point| {
            let difference = factor[point].wrapping_sub(minus[point]);
            difference.min(difference.wrapping_add(self.modulus.prime))
        })
    }

    fn finish(&mut self, target: Target, component: u32, words: &Words) {
        match target {
            Target::Memory(value) => self.write(value.at + component, words),
            Target::Output(output) => {
                let modulus = self.modulus;
                let out = self.output(output as usize, component as usize);
                for (out, word) in out.iter_mut().zip(words) {
                    *out = modulus.canonical(*out + word);
                }
            }
        }
    }

    fn component(&self, value: Value, component: u32) -> Words {
        if component <= value.degree { self.read(value.at + component) } else { ZERO }
    }

    fn read(&self, at: u32) -> Words {
        let points = self.scratch[at as usize].0.as_flattened();
        std::array::from_fn(|point| points[point])
    }

    fn write(&mut self, at: u32, words: &Words) {
        self.scratch[at as usize].0.as_flattened_mut().copy_from_slice(words);
    }

    /// Body and mask of a column, in Montgomery form.
    fn column(&self, column: u32) -> [Words; 2] {
        let from = BLOCK_POINTS * column as usize + self.from;
        [self.columns.bodies, self.columns.masks].map(|words| {
            let words = &words[from..from + STEP_POINTS];
            std::array::from_fn(|point| words[point])
        })
    }

    fn output(&mut self, output: usize, component: usize) -> &mut [u64] {
        let from = BLOCK_POINTS * (self.tape.components * output + component) + self.from;
        &mut self.out[from..from + STEP_POINTS]
    }
}

/// Without a check for overflow: sums stay below `8 p R`, far below 2^128.
fn multiply_add(sum: u128, left: u64, right: u64) -> u128 {
    sum.wrapping_add(u128::from(left) * u128::from(right))
}
