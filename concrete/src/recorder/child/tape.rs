//! What the circuit's code did, as a graph of values.
//!
//! A linear operation appends one node, however long the sum it belongs to; sums are written out
//! over roots only where a keyswitch, a bootstrap or an output needs them. All arithmetic is modulo
//! 2^64, as on the torus.

use std::collections::BTreeMap;

use cipherscore_engine::circuit::{
    Affine, Circuit, MAX_ROOTS, MAX_TABLE_WORDS, MAX_TABLES, MAX_TERMS, Root, Term,
};

use crate::recorder::RecordError;
use crate::recorder::limits::MAX_LINEAR_OPERATIONS;

/// A ciphertext that the code holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value {
    /// The trivial encryption of zero, under any key.
    Zero,
    /// A node of the tape.
    Node(u32),
}

#[derive(Debug, Clone, Copy)]
enum Operation {
    /// A root of the circuit.
    Root(u32),
    /// Sum of two nodes.
    Sum(u32, u32),
    /// A node times an integer.
    Product(u32, u64),
    /// A node, or zero, plus a plaintext.
    Shift(Option<u32>, u64),
}

#[derive(Debug, Clone, Copy)]
struct Node {
    operation: Operation,
    /// Words of the ciphertext: LWE dimension plus one.
    words: u32,
}

/// The recording.
#[derive(Debug, Default)]
pub(super) struct Tape {
    nodes: Vec<Node>,
    roots: Vec<Root>,
    /// Index by content: circuits use a few tables many times.
    tables: BTreeMap<Vec<u64>, u32>,
    table_words: usize,
    terms: usize,
}

fn too_large<T>(what: &str, limit: usize) -> Result<T, RecordError> {
    Err(RecordError::TooLarge(format!("more than {limit} {what}")))
}

impl Tape {
    /// Words of a node's ciphertext; none if there is no such node.
    pub(super) fn words(&self, node: u32) -> Option<usize> {
        self.nodes.get(node as usize).map(|node| node.words as usize)
    }

    pub(super) fn input(
        &mut self,
        argument: u32,
        index: u32,
        words: usize,
    ) -> Result<Value, RecordError> {
        self.root(Root::Input { argument, index }, words)
    }

    pub(super) fn sum(&mut self, a: Value, b: Value) -> Result<Value, RecordError> {
        match (a, b) {
            (Value::Zero, other) | (other, Value::Zero) => Ok(other),
            (Value::Node(a), Value::Node(b)) => self.node(Operation::Sum(a, b), self.size(a)),
        }
    }

    pub(super) fn product(&mut self, a: Value, factor: u64) -> Result<Value, RecordError> {
        match (a, factor) {
            (Value::Zero, _) | (_, 0) => Ok(Value::Zero),
            (Value::Node(_), 1) => Ok(a),
            (Value::Node(a), factor) => self.node(Operation::Product(a, factor), self.size(a)),
        }
    }

    /// Adds a plaintext to a ciphertext of `words` words.
    pub(super) fn shift(
        &mut self,
        a: Value,
        plaintext: u64,
        words: usize,
    ) -> Result<Value, RecordError> {
        match (a, plaintext) {
            (a, 0) => Ok(a),
            (Value::Zero, plaintext) => self.node(Operation::Shift(None, plaintext), words),
            (Value::Node(a), plaintext) => self.node(Operation::Shift(Some(a), plaintext), words),
        }
    }

    pub(super) fn keyswitch(
        &mut self,
        input: Value,
        key: u32,
        words: usize,
    ) -> Result<Value, RecordError> {
        let input = self.affine(input)?;
        self.root(Root::Keyswitch { input, key }, words)
    }

    pub(super) fn bootstrap(
        &mut self,
        input: Value,
        table: &[u64],
        key: u32,
        words: usize,
    ) -> Result<Value, RecordError> {
        let input = self.affine(input)?;
        let table = self.table(table)?;
        self.root(Root::Bootstrap { input, table, key }, words)
    }

    /// The circuit that computes `outputs`.
    pub(super) fn finish(mut self, outputs: &[Vec<Value>]) -> Result<Circuit, RecordError> {
        let mut affines = Vec::with_capacity(outputs.len());
        for output in outputs {
            let output = output.iter().map(|&value| self.affine(value));
            affines.push(output.collect::<Result<Vec<_>, _>>()?);
        }
        let mut tables = vec![Vec::new(); self.tables.len()];
        for (table, index) in self.tables {
            tables[index as usize] = table;
        }
        Ok(Circuit { roots: self.roots, tables, outputs: affines })
    }

    /// Writes a value out over roots.
    ///
    /// Nodes are visited from the last to the first, each once with the sum of the weights of all
    /// its uses, so that shared parts of a sum cost no more than their own size.
    fn affine(&mut self, value: Value) -> Result<Affine, RecordError> {
        let mut affine = Affine::default();
        let mut weights = BTreeMap::new();
        if let Value::Node(node) = value {
            weights.insert(node, 1u64);
        }
        while let Some((node, weight)) = weights.pop_last() {
            let mut add = |node, weight: u64| {
                let sum: &mut u64 = weights.entry(node).or_default();
                *sum = sum.wrapping_add(weight);
            };
            match self.nodes[node as usize].operation {
                Operation::Sum(a, b) => {
                    add(a, weight);
                    add(b, weight);
                }
                Operation::Product(a, factor) => add(a, weight.wrapping_mul(factor)),
                Operation::Shift(a, plaintext) => {
                    let constant = weight.wrapping_mul(plaintext);
                    affine.constant = affine.constant.wrapping_add(constant);
                    a.into_iter().for_each(|a| add(a, weight));
                }
                Operation::Root(_) if weight == 0 => {}
                Operation::Root(root) => {
                    affine.terms.push(Term { root, coefficient: weight.cast_signed() });
                }
            }
        }
        // Roots and their nodes are numbered in the same order.
        affine.terms.reverse();
        self.terms += affine.terms.len();
        match self.terms {
            terms if terms > MAX_TERMS => too_large("terms of sums", MAX_TERMS),
            _ => Ok(affine),
        }
    }

    fn table(&mut self, table: &[u64]) -> Result<u32, RecordError> {
        if let Some(&index) = self.tables.get(table) {
            return Ok(index);
        }
        self.table_words += table.len();
        if self.tables.len() >= MAX_TABLES {
            return too_large("tables", MAX_TABLES);
        }
        if self.table_words > MAX_TABLE_WORDS {
            return too_large("words of tables", MAX_TABLE_WORDS);
        }
        let index = number(self.tables.len())?;
        self.tables.insert(table.into(), index);
        Ok(index)
    }

    fn root(&mut self, root: Root, words: usize) -> Result<Value, RecordError> {
        if self.roots.len() >= MAX_ROOTS {
            return too_large("inputs, keyswitches and bootstraps", MAX_ROOTS);
        }
        let index = number(self.roots.len())?;
        self.roots.push(root);
        self.node(Operation::Root(index), words)
    }

    fn node(&mut self, operation: Operation, words: usize) -> Result<Value, RecordError> {
        if self.nodes.len() >= MAX_LINEAR_OPERATIONS + MAX_ROOTS {
            return too_large("operations on ciphertexts", MAX_LINEAR_OPERATIONS);
        }
        let index = number(self.nodes.len())?;
        self.nodes.push(Node { operation, words: number(words)? });
        Ok(Value::Node(index))
    }

    fn size(&self, node: u32) -> usize {
        self.nodes[node as usize].words as usize
    }
}

fn number(value: usize) -> Result<u32, RecordError> {
    u32::try_from(value).or_else(|_| too_large("values", u32::MAX as usize))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(affine: &Affine) -> Vec<(u32, i64)> {
        affine.terms.iter().map(|term| (term.root, term.coefficient)).collect()
    }

    #[test]
    fn sums_are_written_out_over_roots() {
        let mut tape = Tape::default();
        let x = tape.input(0, 0, 5).unwrap();
        let y = tape.input(0, 1, 5).unwrap();
        let sum = tape.sum(y, x).unwrap();
        let triple = tape.product(sum, 3).unwrap();
        let shifted = tape.shift(triple, 10, 5).unwrap();
        let negated = tape.product(shifted, u64::MAX).unwrap();
        let without_x = tape.product(x, 3).unwrap();
        let cancelled = tape.sum(negated, without_x).unwrap();
        assert_eq!(tape.words(0), Some(5));

        let circuit = tape.finish(&[vec![negated, cancelled, Value::Zero]]).unwrap();
        let [negated, cancelled, zero] = &circuit.outputs[0][..] else { panic!() };
        assert_eq!(negated.constant, 10u64.wrapping_neg());
        assert_eq!(terms(negated), [(0, -3), (1, -3)]);
        assert_eq!(terms(cancelled), [(1, -3)]);
        assert_eq!(*zero, Affine::default());
    }

    #[test]
    fn a_doubled_sum_costs_no_more_than_its_nodes() {
        let mut tape = Tape::default();
        let mut value = tape.input(0, 0, 5).unwrap();
        for _ in 0..63 {
            value = tape.sum(value, value).unwrap();
        }
        let circuit = tape.finish(&[vec![value]]).unwrap();
        assert_eq!(terms(&circuit.outputs[0][0]), [(0, i64::MIN)]);
    }

    #[test]
    fn equal_tables_are_stored_once() {
        let mut tape = Tape::default();
        let x = tape.input(0, 0, 5).unwrap();
        for table in [[1, 2], [3, 4], [1, 2]] {
            tape.bootstrap(x, &table, 0, 5).unwrap();
        }
        let zero = tape.bootstrap(Value::Zero, &[3, 4], 0, 5).unwrap();
        let circuit = tape.finish(&[vec![zero]]).unwrap();
        assert_eq!(circuit.tables, [[1, 2], [3, 4]]);
        let Root::Bootstrap { input, table: 1, .. } = &circuit.roots[4] else { panic!() };
        assert_eq!(*input, Affine::default());
    }
}
