//! The recorder's state during the one run: tape, heap, and what the keys must look like.

use super::memory::{Heap, Words};
use super::pattern::{self, Content, POISON};
use super::tape::{Tape, Value};
use crate::recorder::RecordError;
use crate::recorder::protocol::{BootstrapLayout, KeyswitchLayout, Request};

/// What the stubs write to.
#[derive(Debug, Default)]
pub(super) struct Recording {
    pub(super) tape: Tape,
    pub(super) heap: Heap,
    keyswitch_keys: Vec<KeyswitchLayout>,
    bootstrap_keys: Vec<BootstrapLayout>,
}

fn not_traceable<T>(why: impl Into<String>) -> Result<T, RecordError> {
    Err(RecordError::NotTraceable(why.into()))
}

impl Recording {
    pub(super) fn new(request: &Request) -> Self {
        Self {
            keyswitch_keys: request.keyswitch_keys.clone(),
            bootstrap_keys: request.bootstrap_keys.clone(),
            ..Self::default()
        }
    }

    /// The value that some words stand for.
    pub(super) fn recognise(&self, words: &[u64]) -> Result<Value, RecordError> {
        match pattern::read(words) {
            Content::Zero => Ok(Value::Zero),
            Content::Value(node) if self.tape.words(node) == Some(words.len()) => {
                Ok(Value::Node(node))
            }
            Content::Uninitialised => not_traceable("it uses uninitialised memory as a ciphertext"),
            Content::Value(_) | Content::Other => {
                not_traceable("it uses something as a ciphertext that is none")
            }
        }
    }

    /// The ciphertext in a buffer.
    pub(super) fn ciphertext(&self, buffer: Words) -> Result<Value, RecordError> {
        buffer.read(|words| self.recognise(words))
    }

    pub(super) fn add(&mut self, out: Words, a: Words, b: Words) -> Result<(), RecordError> {
        same_size(out, a)?;
        same_size(out, b)?;
        let sum = self.tape.sum(self.ciphertext(a)?, self.ciphertext(b)?)?;
        store(out, sum);
        Ok(())
    }

    pub(super) fn add_plaintext(
        &mut self,
        out: Words,
        a: Words,
        plaintext: u64,
    ) -> Result<(), RecordError> {
        same_size(out, a)?;
        let shifted = self.tape.shift(self.ciphertext(a)?, clear(plaintext)?, out.len())?;
        store(out, shifted);
        Ok(())
    }

    pub(super) fn multiply(
        &mut self,
        out: Words,
        a: Words,
        factor: u64,
    ) -> Result<(), RecordError> {
        same_size(out, a)?;
        let product = self.tape.product(self.ciphertext(a)?, clear(factor)?)?;
        store(out, product);
        Ok(())
    }

    pub(super) fn keyswitch(
        &mut self,
        out: Words,
        a: Words,
        used: &KeyswitchLayout,
        key: u32,
    ) -> Result<(), RecordError> {
        if self.keyswitch_keys.get(key as usize) != Some(used) {
            return not_traceable(format!("its keyswitch key {key} is not the one of the specs"));
        }
        sizes(out, used.output_dimension, a, used.input_dimension)?;
        let switched = self.tape.keyswitch(self.ciphertext(a)?, key, out.len())?;
        store(out, switched);
        Ok(())
    }

    pub(super) fn bootstrap(
        &mut self,
        out: Words,
        a: Words,
        table: Words,
        used: &BootstrapLayout,
        key: u32,
    ) -> Result<(), RecordError> {
        if self.bootstrap_keys.get(key as usize) != Some(used) {
            return not_traceable(format!("its bootstrap key {key} is not the one of the specs"));
        }
        sizes(out, used.output_dimension(), a, used.input_dimension)?;
        if table.len() != used.polynomial_size {
            return not_traceable(format!("it bootstraps with a table of {} words", table.len()));
        }
        let input = self.ciphertext(a)?;
        let result = table.read(|table| {
            if table.contains(&POISON) {
                return not_traceable("it uses uninitialised memory as a table");
            }
            self.tape.bootstrap(input, table, key, out.len())
        })?;
        store(out, result);
        Ok(())
    }
}

/// Writes a value to a buffer of its size.
pub(super) fn store(out: Words, value: Value) {
    out.write(|words| match value {
        Value::Zero => words.fill(0),
        Value::Node(node) => pattern::write(node, words),
    });
}

/// An integer in the clear; uninitialised memory is none.
fn clear(value: u64) -> Result<u64, RecordError> {
    match value {
        POISON => not_traceable("it uses uninitialised memory as a constant"),
        value => Ok(value),
    }
}

fn same_size(out: Words, a: Words) -> Result<(), RecordError> {
    if out.len() != a.len() {
        return not_traceable("it combines ciphertexts of different sizes");
    }
    Ok(())
}

fn sizes(out: Words, output: usize, a: Words, input: usize) -> Result<(), RecordError> {
    if out.len() != output + 1 || a.len() != input + 1 {
        return not_traceable("it uses a key on ciphertexts of another size");
    }
    Ok(())
}

/// Expands a table of integers to the body of a bootstrap's accumulator.
///
/// As Concrete's `memref_encode_expand_lut_for_bootstrap`: every entry fills a box of equal size;
/// the first box is centred over zero, so that half of it, negated, closes the table. For signed
/// integers the entries of the two halves change places first.
pub(super) fn expand_table(
    expanded: Words,
    table: Words,
    message_bits: u32,
    signed: bool,
) -> Result<(), RecordError> {
    let shift = 63u32.checked_sub(message_bits);
    let (size, entries) = (expanded.len(), table.len());
    let (Some(shift), true) = (shift, size > 0 && entries > 0 && size.is_multiple_of(2 * entries))
    else {
        return not_traceable(format!("it expands {entries} entries to a table of {size} words"));
    };
    let rotation = if signed { entries / 2 } else { 0 };
    let entries = table.read(|table| {
        let (low, high) = table.split_at(rotation);
        [high, low].concat()
    });
    if entries.contains(&POISON) {
        return not_traceable("it uses uninitialised memory as a table");
    }
    let half_box = size / entries.len() / 2;
    expanded.write(|words| {
        for (index, word) in words.iter_mut().enumerate() {
            let entry = (index + half_box) / (2 * half_box);
            *word = match entries.get(entry) {
                Some(value) => value << shift,
                None => (entries[0] << shift).wrapping_neg(),
            };
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer(words: &mut [u64]) -> Words {
        Words::new(words.as_mut_ptr(), 0, words.len() as u64, 1).unwrap()
    }

    /// Concrete's loops, line by line.
    fn reference(size: usize, table: &[u64], message_bits: u32, signed: bool) -> Vec<u64> {
        let half = table.len() / 2;
        let at = |index: usize| match signed {
            true if index < half => table[index + half],
            true => table[index - half],
            false => table[index],
        };
        let shift = 64 - message_bits - 1;
        let case = size / table.len();
        let mut expanded = vec![0; size];
        for word in &mut expanded[..case / 2] {
            *word = at(0) << shift;
        }
        for word in &mut expanded[(table.len() - 1) * case + case / 2..] {
            *word = (at(0) << shift).wrapping_neg();
        }
        for index in 1..table.len() {
            let start = case * (index - 1) + case / 2;
            expanded[start..start + case].fill(at(index) << shift);
        }
        expanded
    }

    #[test]
    fn tables_expand_as_in_concrete() {
        for (size, entries) in [(2, 1), (16, 1), (16, 2), (32, 4), (512, 8), (1024, 512)] {
            let mut table: Vec<u64> = (0..entries).map(|entry| entry * 7 + 1).collect();
            for signed in [false, true].into_iter().take(if entries == 1 { 1 } else { 2 }) {
                for message_bits in [1, 5, 63] {
                    let mut expanded = vec![0; size];
                    let (out, table) = (buffer(&mut expanded), buffer(&mut table));
                    expand_table(out, table, message_bits, signed).unwrap();
                    let table = table.read(<[u64]>::to_vec);
                    assert_eq!(expanded, reference(size, &table, message_bits, signed));
                }
            }
        }
    }

    #[test]
    fn tables_that_do_not_fill_their_boxes_are_refused() {
        let mut table = [1, 2, 3];
        for (size, message_bits) in [(0, 5), (3, 5), (16, 5), (6, 64), (6, 1000)] {
            let mut expanded = vec![0; size + 1];
            let out = Words::new(expanded.as_mut_ptr(), 0, size as u64, 1).unwrap();
            expand_table(out, buffer(&mut table), message_bits, false).unwrap_err();
        }
        let mut empty = [0; 1];
        let empty = Words::new(empty.as_mut_ptr(), 0, 0, 1).unwrap();
        expand_table(buffer(&mut [0; 8]), empty, 5, false).unwrap_err();
    }
}
