//! Checks a circuit against a signature, so that evaluation cannot go out of bounds.

use std::sync::Arc;

use thiserror::Error;

use super::{Affine, Circuit, Root};
use crate::parameters::{InvalidParameters, Signature};

/// Roots of one circuit.
pub const MAX_ROOTS: usize = 1 << 21;
/// Tables of one circuit.
pub const MAX_TABLES: usize = 1 << 16;
/// Words of all tables of one circuit.
pub const MAX_TABLE_WORDS: usize = 1 << 23;
/// Terms of all affine combinations of one circuit.
pub const MAX_TERMS: usize = 1 << 23;

/// Why a circuit must not be evaluated.
#[derive(Debug, Error, PartialEq)]
pub enum InvalidCircuit {
    /// The signature itself is refused.
    #[error("invalid parameters: {0}")]
    Parameters(#[from] InvalidParameters),
    /// Above one of the `MAX_` bounds.
    #[error("circuit has {found} {what}, above the limit of {limit}")]
    TooLarge {
        /// What is counted.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many there may be.
        limit: usize,
    },
    /// A root is wrong.
    #[error("root {root}: {reason}")]
    Root {
        /// Its index.
        root: usize,
        /// What is wrong.
        reason: String,
    },
    /// An output is wrong.
    #[error("output {output}: {reason}")]
    Output {
        /// Its index.
        output: usize,
        /// What is wrong.
        reason: String,
    },
}

/// A circuit that fits its signature. Only this can be evaluated.
#[derive(Debug, Clone)]
pub struct ValidCircuit {
    circuit: Circuit,
    signature: Arc<Signature>,
}

impl ValidCircuit {
    /// The circuit.
    pub fn circuit(&self) -> &Circuit {
        &self.circuit
    }

    /// What it was checked against.
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// Same signature, other circuit: for transformations that keep validity, which is checked.
    pub(super) fn with_circuit(&self, circuit: Circuit) -> Result<Self, InvalidCircuit> {
        circuit.validate(Arc::clone(&self.signature))
    }
}

impl Circuit {
    /// Checks order, indices, keys, table lengths and sizes.
    ///
    /// Ciphertexts are tracked by secret key, not by dimension: adding ciphertexts of two keys
    /// of the same dimension is refused as well.
    pub fn validate(self, signature: Arc<Signature>) -> Result<ValidCircuit, InvalidCircuit> {
        signature.validate()?;
        self.check_sizes()?;
        let mut keys = Vec::with_capacity(self.roots.len());
        for (index, root) in self.roots.iter().enumerate() {
            let key = root_key(root, &self, &signature, &keys)
                .map_err(|reason| InvalidCircuit::Root { root: index, reason })?;
            keys.push(key);
        }
        self.check_outputs(&signature, &keys)?;
        Ok(ValidCircuit { circuit: self, signature })
    }

    /// Checks the `MAX_` bounds. A file of a circuit within them claims less than
    /// [`MAX_DECODED_BYTES`](super::MAX_DECODED_BYTES), so what was written can be read back.
    fn check_sizes(&self) -> Result<(), InvalidCircuit> {
        let affines =
            self.roots.iter().filter_map(Root::input).chain(self.outputs.iter().flatten());
        let terms = affines.map(|affine| affine.terms.len()).sum();
        for (what, found, limit) in [
            ("roots", self.roots.len(), MAX_ROOTS),
            ("tables", self.tables.len(), MAX_TABLES),
            ("table words", self.tables.iter().map(Vec::len).sum(), MAX_TABLE_WORDS),
            ("terms", terms, MAX_TERMS),
        ] {
            if found > limit {
                return Err(InvalidCircuit::TooLarge { what, found, limit });
            }
        }
        Ok(())
    }

    fn check_outputs(&self, signature: &Signature, keys: &[usize]) -> Result<(), InvalidCircuit> {
        let wrong = |output, reason| Err(InvalidCircuit::Output { output, reason });
        if self.outputs.len() != signature.outputs.len() {
            return wrong(
                self.outputs.len(),
                format!("{} outputs are specified", signature.outputs.len()),
            );
        }
        for (index, (output, gate)) in self.outputs.iter().zip(&signature.outputs).enumerate() {
            if output.len() != gate.len() {
                return wrong(
                    index,
                    format!("{} ciphertexts where {} are specified", output.len(), gate.len()),
                );
            }
            for affine in output {
                if let Err(reason) = check_affine(affine, gate.key, keys) {
                    return wrong(index, reason);
                }
            }
        }
        Ok(())
    }
}

/// The secret key under which a root is encrypted.
fn root_key(
    root: &Root,
    circuit: &Circuit,
    signature: &Signature,
    keys: &[usize],
) -> Result<usize, String> {
    let keyset = &signature.keyset;
    match root {
        Root::Input { argument, index } => {
            let gate = signature.inputs.get(*argument as usize);
            match gate.filter(|gate| (*index as usize) < gate.len()) {
                Some(gate) => Ok(gate.key),
                None => Err(format!("there is no ciphertext {index} of input {argument}")),
            }
        }
        Root::Keyswitch { input, key } => {
            let key = keyset.keyswitch_keys.get(*key as usize).ok_or("no such keyswitch key")?;
            check_affine(input, key.input_key, keys)?;
            Ok(key.output_key)
        }
        Root::Bootstrap { input, table, key } => {
            let key = keyset.bootstrap_keys.get(*key as usize).ok_or("no such bootstrap key")?;
            check_affine(input, key.input_key, keys)?;
            let table = circuit.tables.get(*table as usize).ok_or("no such table")?;
            if table.len() != key.polynomial_size {
                return Err(format!(
                    "a table of {} words for polynomials of size {}",
                    table.len(),
                    key.polynomial_size
                ));
            }
            Ok(key.output_key)
        }
    }
}

fn check_affine(affine: &Affine, key: usize, keys: &[usize]) -> Result<(), String> {
    for term in &affine.terms {
        match keys.get(term.root as usize) {
            None => return Err(format!("refers to root {}, which is not earlier", term.root)),
            Some(&found) if found != key => {
                return Err(format!("root {} is under key {found}, not {key}", term.root));
            }
            Some(_) if term.coefficient == 0 => {
                return Err(format!("coefficient zero of root {}", term.root));
            }
            Some(_) => {}
        }
    }
    if !affine.terms.is_sorted_by(|a, b| a.root < b.root) {
        return Err("terms are not in increasing order".into());
    }
    Ok(())
}
