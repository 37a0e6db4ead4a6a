//! A program as a list of steps on reused memory.
//!
//! Steps work on *components*: one ring element of a ciphertext, of which a kernel holds a few
//! points at a time, so that a tree's intermediate values stay in the nearest cache. A value of degree d is d + 1 components in a row.
//!
//! Selections with more than one product become steps that add to each other. Small affine
//! combinations have no memory of their own: they are folded into each other, into the steps that
//! use them, and into the outputs.

mod flatten;

use super::points::{Points, STEP_POINTS};
use crate::rlwe::primes::BLOCK_POINTS;

/// Components that one evaluation may hold at a time: 64 MiB.
pub const MAX_SCRATCH_COMPONENTS: usize = 1 << 18;
/// Terms of an affine combination that is folded into what uses it, whenever it is used.
pub(super) const FOLDED_TERMS: usize = 4;

/// A program, ready to be evaluated.
#[derive(Debug, Clone)]
pub struct Tape {
    pub(super) columns: usize,
    /// Components of each output: one more than the degree.
    pub(super) components: usize,
    /// What of each output is affine. The steps add the rest.
    pub(super) outputs: Vec<Form>,
    /// Of all forms.
    pub(super) terms: Vec<Term>,
    pub(super) steps: Vec<Step>,
    /// Components of memory.
    pub(super) scratch: usize,
}

/// `coefficient * column`; the coefficient is below 2^50 in magnitude.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Term {
    pub(super) column: u32,
    pub(super) coefficient: i64,
}

/// `constant + sum of terms[start..end]`; a column may be there more than once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) constant: i64,
    start: u32,
    end: u32,
}

/// Components `at ..= at + degree` of the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Value {
    pub(super) at: u32,
    pub(super) degree: u32,
}

/// What a product selects by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Indicator {
    Column(u32),
    /// Two components that [`Step::Indicator`] made.
    Memory(u32),
}

/// What a product is added to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Base {
    Zero,
    Value(Value),
    /// Of at most [`FOLDED_TERMS`].
    Form(Form),
}

/// Where a product goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// Written. It is apart from the factors; it may be the base.
    Memory(Value),
    /// Added to this output.
    Output(u32),
}

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Writes a form. Of degree 0 when it has no terms.
    Affine { form: Form, target: Value },
    /// Writes a form of coefficients 1 and -1 in Montgomery form, as columns are: two components.
    Indicator { form: Form, target: u32 },
    /// `target = base + indicator * (factor - minus)`.
    Product(Product),
    /// Adds a value to an output.
    Add { value: Value, output: u32 },
}

/// `target = base + indicator * (factor - minus)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Product {
    pub(super) base: Base,
    pub(super) indicator: Indicator,
    pub(super) factor: Value,
    pub(super) minus: Option<Value>,
    pub(super) target: Target,
}

impl Product {
    /// Largest degree of `factor - minus`.
    pub(super) fn factor_degree(&self) -> u32 {
        self.factor.degree.max(self.minus.map_or(0, |minus| minus.degree))
    }

    /// Degree of what is written or added.
    pub(super) fn degree(&self) -> u32 {
        let base = match self.base {
            Base::Zero => 0,
            Base::Value(value) => value.degree,
            Base::Form(_) => 1,
        };
        match self.target {
            Target::Memory(value) => value.degree,
            Target::Output(_) => base.max(1 + self.factor_degree()),
        }
    }
}

/// Memory of one evaluation at a time, to be reused.
#[derive(Debug, Default)]
pub struct TapeScratch(pub(super) Vec<Points>);

impl Tape {
    /// Terms of a form.
    pub(super) fn terms(&self, form: Form) -> &[Term] {
        &self.terms[form.start as usize..form.end as usize]
    }

    /// Columns that it reads.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Outputs that it gives.
    pub fn outputs(&self) -> usize {
        self.outputs.len()
    }

    /// Components of each output: one more than the degree of the program.
    pub fn components(&self) -> usize {
        self.components
    }

    /// Memory that an evaluation takes, in bytes.
    pub fn scratch_bytes(&self) -> usize {
        self.scratch * size_of::<Points>()
    }
}

/// The ciphertexts of all columns in one block and prime.
#[derive(Debug, Clone, Copy)]
pub struct Columns<'a> {
    /// b of every column, one after the other.
    pub bodies: &'a [u64],
    /// a of every column, one after the other.
    pub masks: &'a [u64],
}

const _: () = assert!(BLOCK_POINTS.is_multiple_of(STEP_POINTS));
