//! Evaluates a circuit without keyswitches and bootstraps: no keys, and no other thread.
//!
//! A row of a linear model takes less time than it takes to hand it to a pool. Most of it is the
//! expansion of masks, so each input is expanded once, into a buffer that stays in the cache, and
//! added to every output that has it.

use super::execute::{add_multiple, check_inputs};
use super::{Affine, EvaluateError, Root, Term, ValidCircuit};
use crate::ciphertext::{Ciphertexts, StoredCiphertexts};

/// Evaluates a linear `circuit` on one row, on this thread.
///
/// The same as [`evaluate`](super::evaluate) of such a circuit, bit for bit.
pub fn evaluate_linear(
    circuit: &ValidCircuit,
    inputs: &[StoredCiphertexts],
) -> Result<Vec<Ciphertexts>, EvaluateError> {
    check_inputs(circuit, inputs.iter().map(|input| (input.len(), input.lwe_dimension())))?;
    let gates = &circuit.signature().outputs;
    let mut sums = Vec::new();
    for (affines, gate) in circuit.circuit().outputs.iter().zip(gates) {
        sums.extend(affines.iter().map(|affine| Sum::new(affine, gate.lwe_dimension)));
    }
    let mut buffer = Vec::new();
    for (index, root) in (0..).zip(&circuit.circuit().roots) {
        let mut of_root = sums.iter_mut().filter_map(|sum| sum.next(index)).peekable();
        if of_root.peek().is_none() {
            continue;
        }
        let &Root::Input { argument, index } = root else {
            return Err(EvaluateError::NotLinear);
        };
        let input = inputs[argument as usize].get(index as usize, &mut buffer);
        of_root.for_each(|(words, coefficient)| add_multiple(words, input, coefficient));
    }
    let mut sums = sums.into_iter();
    let outputs = circuit.circuit().outputs.iter().zip(gates);
    let outputs = outputs.map(|(affines, gate)| {
        let words = sums.by_ref().take(affines.len()).flat_map(|sum| sum.words).collect();
        Ciphertexts::new(gate.lwe_dimension, words)
    });
    Ok(outputs.collect())
}

/// An output that is being summed up, in the order of its terms.
struct Sum<'a> {
    words: Vec<u64>,
    terms: std::iter::Peekable<std::slice::Iter<'a, Term>>,
}

impl<'a> Sum<'a> {
    fn new(affine: &'a Affine, lwe_dimension: usize) -> Self {
        let mut words = vec![0; lwe_dimension];
        words.push(affine.constant);
        Self { words, terms: affine.terms.iter().peekable() }
    }

    /// With which coefficient the root comes next, if it does.
    fn next(&mut self, root: u32) -> Option<(&mut [u64], i64)> {
        let term = self.terms.next_if(|term| term.root == root)?;
        Some((&mut self.words, term.coefficient))
    }
}
