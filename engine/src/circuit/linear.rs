//! Evaluates a circuit without keyswitches and bootstraps: no keys, and no other thread.
//!
//! A row of a linear model takes less time than it takes to hand it to a pool.

use super::execute::{add_multiple, check_inputs};
use super::{Affine, EvaluateError, Root, ValidCircuit};
use crate::ciphertext::Ciphertexts;

/// Evaluates a linear `circuit` on one row, on this thread.
///
/// The same as [`evaluate`](super::evaluate) of such a circuit, bit for bit.
pub fn evaluate_linear(
    circuit: &ValidCircuit,
    inputs: &[Ciphertexts],
) -> Result<Vec<Ciphertexts>, EvaluateError> {
    check_inputs(circuit, inputs)?;
    let roots = &circuit.circuit().roots;
    let gates = &circuit.signature().outputs;
    let mut outputs = Vec::with_capacity(gates.len());
    for (affines, gate) in circuit.circuit().outputs.iter().zip(gates) {
        let size = gate.lwe_dimension + 1;
        let mut words = vec![0u64; affines.len() * size];
        for (sum, affine) in words.chunks_exact_mut(size).zip(affines) {
            add_affine(sum, affine, roots, inputs)?;
        }
        outputs.push(Ciphertexts::new(gate.lwe_dimension, words));
    }
    Ok(outputs)
}

fn add_affine(
    sum: &mut [u64],
    affine: &Affine,
    roots: &[Root],
    inputs: &[Ciphertexts],
) -> Result<(), EvaluateError> {
    let body = sum.len() - 1;
    sum[body] = affine.constant;
    for term in &affine.terms {
        let Root::Input { argument, index } = &roots[term.root as usize] else {
            return Err(EvaluateError::NotLinear);
        };
        let input = inputs[*argument as usize].get(*index as usize);
        add_multiple(sum, input, term.coefficient);
    }
    Ok(())
}
