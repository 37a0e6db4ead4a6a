//! A TFHE circuit as data: no code, no keys, no secrets.
//!
//! A circuit is a list of *roots* in an order in which they can be evaluated, and outputs that
//! are affine combinations of roots:
//!
//! ```text
//! root   = Input(argument, index) | Keyswitch(affine, key) | Bootstrap(affine, table, key)
//! affine = constant + sum of coefficient * root          (modulo 2^64)
//! ```
//!
//! Files are strangers' bytes: [`Circuit`] is what was read, [`ValidCircuit`] what was checked
//! against a [`Signature`](crate::parameters::Signature) and may be evaluated.

mod bounded;
mod execute;
mod footprint;
mod format;
mod linear;
mod optimise;
mod validate;

use serde::{Deserialize, Serialize};

pub use execute::{EvaluateError, MAX_ROWS_BYTES, Observer, Rows, Step, evaluate, evaluate_rows};
pub use footprint::Footprint;
pub use format::{
    CIRCUIT_FORMAT_VERSION, CircuitFormatError, MAX_CIRCUIT_BYTES, MAX_DECODED_BYTES,
};
pub use linear::evaluate_linear;
pub use validate::{
    InvalidCircuit, MAX_ROOTS, MAX_TABLE_WORDS, MAX_TABLES, MAX_TERMS, ValidCircuit,
};

use crate::parameters::MAX_KEYS;

/// `coefficient * root`, modulo 2^64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Term {
    /// Index of an earlier root.
    pub root: u32,
    /// Integer factor, never zero.
    pub coefficient: i64,
}

impl Term {
    /// Orders terms by root, adds up those of one root, and leaves out what is zero.
    pub fn merge(terms: &mut Vec<Self>) {
        terms.sort_unstable_by_key(|term| term.root);
        terms.dedup_by(|next, kept| {
            let same = next.root == kept.root;
            if same {
                kept.coefficient = kept.coefficient.wrapping_add(next.coefficient);
            }
            same
        });
        terms.retain(|term| term.coefficient != 0);
    }
}

/// `constant + sum of terms`, modulo 2^64; the constant is an encoded plaintext.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Affine {
    /// Added to the body.
    pub constant: u64,
    /// Terms by strictly increasing root.
    pub terms: Vec<Term>,
}

impl Affine {
    /// The root itself.
    pub fn of_root(root: u32) -> Self {
        Self { constant: 0, terms: vec![Term { root, coefficient: 1 }] }
    }
}

/// A ciphertext that is not an affine combination of others.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Root {
    /// Ciphertext `index` (row-major) of input `argument`.
    Input {
        /// Which input.
        argument: u32,
        /// Which of its ciphertexts.
        index: u32,
    },
    /// The affine under another secret key.
    Keyswitch {
        /// What is switched.
        input: Affine,
        /// Index of the keyswitch key.
        key: u32,
    },
    /// The table's entry at the affine's phase, with fresh noise.
    Bootstrap {
        /// What selects the entry.
        input: Affine,
        /// Index of the table.
        table: u32,
        /// Index of the bootstrap key.
        key: u32,
    },
}

impl Root {
    /// The affine that the root is computed from; none for an input.
    pub fn input(&self) -> Option<&Affine> {
        match self {
            Self::Input { .. } => None,
            Self::Keyswitch { input, .. } | Self::Bootstrap { input, .. } => Some(input),
        }
    }

    /// As [`Root::input`], to be changed.
    fn input_mut(&mut self) -> Option<&mut Affine> {
        match self {
            Self::Input { .. } => None,
            Self::Keyswitch { input, .. } | Self::Bootstrap { input, .. } => Some(input),
        }
    }
}

/// A circuit as read or recorded, not yet checked.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Circuit {
    /// Roots; each refers to earlier ones only.
    #[serde(deserialize_with = "bounded::list::<_, MAX_ROOTS, _>")]
    pub roots: Vec<Root>,
    /// Body of the accumulator of a bootstrap: N words each, expanded over the whole half torus.
    #[serde(deserialize_with = "bounded::list::<_, MAX_TABLES, _>")]
    pub tables: Vec<Vec<u64>>,
    /// For each output, its ciphertexts in row-major order.
    #[serde(deserialize_with = "bounded::list::<_, MAX_KEYS, _>")]
    pub outputs: Vec<Vec<Affine>>,
}

/// Operations of a circuit, which is what its evaluation costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Cost {
    /// Programmable bootstraps: nearly all the time.
    pub bootstraps: usize,
    /// Keyswitches.
    pub keyswitches: usize,
    /// Different tables.
    pub tables: usize,
}

impl Cost {
    /// Whether the outputs are affine combinations of the inputs, which needs no evaluation key.
    pub fn is_linear(&self) -> bool {
        self.bootstraps + self.keyswitches == 0
    }
}

impl Circuit {
    /// Counts operations.
    pub fn cost(&self) -> Cost {
        let count = |wanted: fn(&Root) -> bool| self.roots.iter().filter(|r| wanted(r)).count();
        Cost {
            bootstraps: count(|root| matches!(root, Root::Bootstrap { .. })),
            keyswitches: count(|root| matches!(root, Root::Keyswitch { .. })),
            tables: self.tables.len(),
        }
    }
}
