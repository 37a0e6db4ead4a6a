//! Circuits compared with each other, and evaluated without keys.

use std::collections::HashMap;
use std::time::Duration;

use cipherscore_concrete::recorder::{RecordError, RecorderCommand};
use cipherscore_concrete::server::{ServerArtifact, ServerZipError};
use cipherscore_engine::circuit::{Affine, Circuit, Root, ValidCircuit};
use cipherscore_engine::parameters::Encoding;

/// Opens a zip of machine code; none where it cannot run: Concrete compiles for the processor it
/// runs on.
pub(crate) fn record(zip: &[u8]) -> Option<ServerArtifact> {
    const SIGILL: i32 = 4;
    let recorder = RecorderCommand {
        // A slow machine gets the time that it needs.
        wall_clock_limit: Duration::from_secs(600),
        ..RecorderCommand::new(env!("CARGO_BIN_EXE_cipherscore-recorder"), vec![])
    };
    match ServerArtifact::open(zip, &recorder) {
        Ok(artifact) => Some(artifact),
        Err(ServerZipError::Record(
            RecordError::Crashed(SIGILL) | RecordError::UnsupportedPlatform,
        )) => None,
        Err(error) => panic!("{error}"),
    }
}

/// A sum of numbered values.
type Sum = (u64, Vec<(usize, i64)>);

/// A root, by the numbers of what it is made of.
#[derive(PartialEq, Eq, Hash)]
enum Value {
    Input(u32, u32),
    Keyswitch(Sum, u32),
    Bootstrap(Sum, usize, u32),
}

/// Numbers that are equal for equal values, in several circuits.
#[derive(Default)]
struct Numbers {
    values: HashMap<Value, usize>,
    tables: HashMap<Vec<u64>, usize>,
}

impl Numbers {
    fn outputs(&mut self, circuit: &Circuit) -> Vec<Vec<Sum>> {
        let tables: Vec<_> = circuit
            .tables
            .iter()
            .map(|table| {
                let next = self.tables.len();
                *self.tables.entry(table.clone()).or_insert(next)
            })
            .collect();
        let mut numbers: Vec<usize> = Vec::new();
        for root in &circuit.roots {
            let value = match root {
                Root::Input { argument, index } => Value::Input(*argument, *index),
                Root::Keyswitch { input, key } => Value::Keyswitch(sum(input, &numbers), *key),
                Root::Bootstrap { input, table, key } => {
                    Value::Bootstrap(sum(input, &numbers), tables[*table as usize], *key)
                }
            };
            let next = self.values.len();
            numbers.push(*self.values.entry(value).or_insert(next));
        }
        let output = |output: &Vec<Affine>| output.iter().map(|a| sum(a, &numbers)).collect();
        circuit.outputs.iter().map(output).collect()
    }
}

fn sum(affine: &Affine, numbers: &[usize]) -> Sum {
    let mut terms: HashMap<usize, i64> = HashMap::new();
    for term in &affine.terms {
        let all = terms.entry(numbers[term.root as usize]).or_default();
        *all = all.wrapping_add(term.coefficient);
    }
    let mut terms: Vec<_> = terms.into_iter().filter(|(_, factor)| *factor != 0).collect();
    terms.sort_unstable();
    (affine.constant, terms)
}

/// Whether all outputs are made of equal roots, under equal keys.
pub(crate) fn same_outputs(one: &Circuit, other: &Circuit) -> bool {
    let mut numbers = Numbers::default();
    numbers.outputs(one) == numbers.outputs(other)
}

/// Evaluates a circuit of one input and one output on integers: the same without keys and noise.
pub(crate) fn evaluate_row(circuit: &ValidCircuit, row: &[i64]) -> Vec<i64> {
    evaluate_integers(circuit, &[row])
}

/// Evaluates a circuit of one output on integers.
pub(crate) fn evaluate_integers(circuit: &ValidCircuit, inputs: &[&[i64]]) -> Vec<i64> {
    let signature = circuit.signature();
    let inputs: Vec<Vec<u64>> = inputs
        .iter()
        .zip(&signature.inputs)
        .map(|(input, gate)| {
            let encode = |&value: &i64| value.cast_unsigned() << (63 - gate.encoding.width);
            input.iter().map(encode).collect()
        })
        .collect();
    let outputs = evaluate(circuit.circuit(), &inputs);
    outputs[0].iter().map(|&phase| decode(phase, signature.outputs[0].encoding)).collect()
}

/// The integer nearest to a phase.
fn decode(phase: u64, encoding: Encoding) -> i64 {
    let shift = 63 - encoding.width;
    let rounded = phase.wrapping_add(1 << (shift - 1));
    match encoding.signed {
        true => rounded.cast_signed() >> shift,
        false => (rounded >> shift).cast_signed(),
    }
}

/// Evaluates a circuit on phases instead of ciphertexts.
pub(crate) fn evaluate(circuit: &Circuit, inputs: &[Vec<u64>]) -> Vec<Vec<u64>> {
    let mut phases: Vec<u64> = Vec::new();
    let phase = |affine: &Affine, phases: &[u64]| {
        affine.terms.iter().fold(affine.constant, |sum, term| {
            let term = phases[term.root as usize].wrapping_mul(term.coefficient.cast_unsigned());
            sum.wrapping_add(term)
        })
    };
    for root in &circuit.roots {
        let value = match root {
            Root::Input { argument, index } => inputs[*argument as usize][*index as usize],
            Root::Keyswitch { input, .. } => phase(input, &phases),
            Root::Bootstrap { input, table, .. } => {
                let table = &circuit.tables[*table as usize];
                // The accumulator is a polynomial modulo X^N + 1, rotated by the phase in 2N steps.
                let steps = 64 - (2 * table.len()).ilog2();
                let rotation = phase(input, &phases).wrapping_add(1 << (steps - 1)) >> steps;
                let rotation = usize::try_from(rotation).unwrap();
                match table.get(rotation) {
                    Some(&value) => value,
                    None => table[rotation - table.len()].wrapping_neg(),
                }
            }
        };
        phases.push(value);
    }
    let outputs = circuit.outputs.iter();
    outputs.map(|output| output.iter().map(|affine| phase(affine, &phases)).collect()).collect()
}
