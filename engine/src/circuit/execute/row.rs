//! One row: its ciphertexts between computation and last use.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::plan::Plan;
use crate::ciphertext::Ciphertexts;
use crate::circuit::{Affine, Root, ValidCircuit};

type Words = Arc<Vec<u64>>;

pub(super) struct Row<'a> {
    circuit: &'a ValidCircuit,
    inputs: Cow<'a, [Ciphertexts]>,
    /// Ciphertext of each root that is computed, from its computation to its last use.
    values: Vec<Mutex<Option<Words>>>,
    /// For each root, how many of those it waits for are not there.
    missing: Vec<AtomicU32>,
    /// For each root, how often it will be read.
    uses_left: Vec<AtomicU32>,
    /// Roots that are not computed.
    left: AtomicUsize,
}

impl<'a> Row<'a> {
    pub(super) fn new(
        circuit: &'a ValidCircuit,
        plan: &Plan,
        inputs: Cow<'a, [Ciphertexts]>,
    ) -> Self {
        Self {
            circuit,
            inputs,
            values: plan.uses.iter().map(|_| Mutex::new(None)).collect(),
            missing: plan.waits_for.iter().map(|waits| waits.unwrap_or(0).into()).collect(),
            uses_left: plan.uses.iter().map(|&uses| uses.into()).collect(),
            left: plan.computed.into(),
        }
    }

    /// Keeps what was computed. Gives each root that has become ready to `ready`, and tells whether
    /// this was the last root of the row.
    pub(super) fn keep(
        &self,
        plan: &Plan,
        root: u32,
        words: Vec<u64>,
        mut ready: impl FnMut(u32),
    ) -> bool {
        if plan.uses[root as usize] > 0 {
            *self.values[root as usize].lock() = Some(Arc::new(words));
        }
        for &dependent in &plan.dependents[root as usize] {
            // AcqRel: whoever computes the dependent sees the values of all that it waits for.
            if self.missing[dependent as usize].fetch_sub(1, Ordering::AcqRel) == 1 {
                ready(dependent);
            }
        }
        self.left.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// The ciphertext of which a root is a keyswitch or bootstrap, appended to others.
    pub(super) fn append_input(&self, root: u32, words: &mut Vec<u64>, lwe_dimension: usize) {
        let affine = self.circuit.circuit().roots[root as usize].input();
        self.append(affine.expect("inputs are not computed"), words, lwe_dimension);
    }

    fn append(&self, affine: &Affine, words: &mut Vec<u64>, lwe_dimension: usize) {
        let start = words.len();
        words.resize(start + lwe_dimension, 0);
        words.push(affine.constant);
        let sum = &mut words[start..];
        for term in &affine.terms {
            match &self.circuit.circuit().roots[term.root as usize] {
                Root::Input { argument, index } => {
                    let input = self.inputs[*argument as usize].get(*index as usize);
                    add_multiple(sum, input, term.coefficient);
                }
                _ => add_multiple(sum, &self.take(term.root as usize), term.coefficient),
            }
        }
    }

    /// A computed root's ciphertext, which is gone after its last use.
    fn take(&self, root: usize) -> Words {
        let mut value = self.values[root].lock();
        let last = self.uses_left[root].fetch_sub(1, Ordering::Relaxed) == 1;
        let words = if last { value.take() } else { value.clone() };
        words.expect("a root is computed before its uses, and kept until the last of them")
    }

    /// The row's outputs, once all roots are computed.
    pub(super) fn outputs(&self) -> Vec<Ciphertexts> {
        let gates = &self.circuit.signature().outputs;
        let outputs = self.circuit.circuit().outputs.iter().zip(gates);
        outputs
            .map(|(affines, gate)| {
                let mut words = Vec::with_capacity(affines.len() * (gate.lwe_dimension + 1));
                for affine in affines {
                    self.append(affine, &mut words, gate.lwe_dimension);
                }
                Ciphertexts::new(gate.lwe_dimension, words)
            })
            .collect()
    }
}

pub(in crate::circuit) fn add_multiple(sum: &mut [u64], words: &[u64], coefficient: i64) {
    for (sum, word) in sum.iter_mut().zip(words) {
        *sum = sum.wrapping_add(word.wrapping_mul(coefficient.cast_unsigned()));
    }
}
