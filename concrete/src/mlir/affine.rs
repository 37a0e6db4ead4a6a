//! Affine combinations on the way: of symbols, which get their keys when they are used.

use std::rc::Rc;

use cipherscore_engine::circuit::Term;

use super::error::LowerMlirError;
use super::graph::NodeId;
use super::limits::{MAX_INTERMEDIATE_TERMS, MAX_MULTIPLICATIONS};

/// Terms of one sum that are collected before those of one symbol are brought together.
const MAX_UNMERGED_TERMS: usize = 1 << 20;

/// A part that is not constant. Many affine combinations share one.
#[derive(Debug, Default)]
pub(super) struct Linear {
    /// By strictly increasing symbol, in the place of roots.
    pub(super) terms: Vec<Term>,
    /// By strictly increasing source: sums of squared factors, where every sum is taken as one of
    /// independent terms. So counts Concrete, and so it is at least what the terms say.
    pub(super) norms: Vec<(NodeId, f64)>,
}

/// `constant + linear`
#[derive(Debug, Clone, Default)]
pub(super) struct Affine {
    /// An encoded plaintext.
    pub(super) constant: u64,
    /// None for a trivial ciphertext.
    pub(super) linear: Option<Rc<Linear>>,
}

impl Affine {
    /// The symbol itself, whose noise is of this source.
    pub(super) fn of_symbol(symbol: u32, source: NodeId) -> Self {
        let terms = vec![Term { root: symbol, coefficient: 1 }];
        Self { constant: 0, linear: Some(Rc::new(Linear { terms, norms: vec![(source, 1.0)] })) }
    }

    /// Plus a constant.
    pub(super) fn plus(&self, constant: u64) -> Self {
        Self { constant: self.constant.wrapping_add(constant), linear: self.linear.clone() }
    }
}

/// Work that a circuit may still ask for.
#[derive(Debug)]
pub(super) struct Budget {
    /// Multiplications so far.
    pub(super) multiplications: usize,
    terms: usize,
}

impl Budget {
    /// After so many multiplications.
    pub(super) fn after(multiplications: usize) -> Self {
        Self { multiplications, terms: 0 }
    }

    fn multiply(&mut self, count: usize) -> Result<(), LowerMlirError> {
        self.multiplications += count;
        match self.multiplications <= MAX_MULTIPLICATIONS {
            true => Ok(()),
            false => Err(LowerMlirError::too_large("multiplications", MAX_MULTIPLICATIONS)),
        }
    }

    fn keep(&mut self, terms: usize) -> Result<(), LowerMlirError> {
        self.terms += terms;
        match self.terms <= MAX_INTERMEDIATE_TERMS {
            true => Ok(()),
            false => Err(LowerMlirError::too_large("terms", MAX_INTERMEDIATE_TERMS)),
        }
    }

    /// `factor * affine`
    pub(super) fn scale(&mut self, affine: &Affine, factor: i64) -> Result<Affine, LowerMlirError> {
        self.sum(&[(affine, factor)])
    }

    /// The sum of multiples, all modulo 2^64.
    pub(super) fn sum(&mut self, multiples: &[(&Affine, i64)]) -> Result<Affine, LowerMlirError> {
        let mut constant = 0u64;
        let mut linear = Vec::with_capacity(multiples.len());
        for &(affine, factor) in multiples.iter().filter(|(_, factor)| *factor != 0) {
            let factor_word = factor.cast_unsigned();
            constant = constant.wrapping_add(affine.constant.wrapping_mul(factor_word));
            linear.extend(affine.linear.as_ref().map(|linear| (linear, factor)));
        }
        let linear = match linear.as_slice() {
            [] => None,
            &[(only, 1)] => Some(Rc::clone(only)),
            several => Some(Rc::new(self.merge(several)?)),
        };
        self.multiply(multiples.len())?;
        Ok(Affine { constant, linear: linear.filter(|linear| !linear.norms.is_empty()) })
    }

    fn merge(&mut self, multiples: &[(&Rc<Linear>, i64)]) -> Result<Linear, LowerMlirError> {
        let length = |(linear, _): &(&Rc<Linear>, i64)| linear.terms.len() + linear.norms.len();
        self.multiply(multiples.iter().map(length).sum())?;
        let mut sum = Linear::default();
        let mut after_merging = 0;
        for (linear, factor) in multiples {
            sum.terms.extend(
                linear.terms.iter().map(|term| Term {
                    coefficient: term.coefficient.wrapping_mul(*factor),
                    ..*term
                }),
            );
            let square = (*factor as f64).powi(2);
            sum.norms.extend(linear.norms.iter().map(|&(source, norm)| (source, square * norm)));
            // There are fewer symbols than there may be terms in a sum.
            if sum.terms.len() > 2 * after_merging + MAX_UNMERGED_TERMS {
                sum.merge();
                after_merging = sum.terms.len();
            }
        }
        sum.merge();
        self.keep(sum.terms.len() + sum.norms.len())?;
        sum.terms.shrink_to_fit();
        sum.norms.shrink_to_fit();
        Ok(sum)
    }
}

impl Linear {
    /// Brings terms of one symbol together, and norms of one source.
    fn merge(&mut self) {
        let Self { terms, norms } = self;
        Term::merge(terms);
        norms.sort_unstable_by_key(|&(source, _)| source);
        norms.dedup_by(|next, kept| {
            let same = next.0 == kept.0;
            if same {
                kept.1 += next.1;
            }
            same
        });
    }
}
