//! Makes a circuit cheaper without changing what it computes.
//!
//! Three rules in one forward pass and one sweep back:
//!
//! * **Folding.** A keyswitch or bootstrap of a trivial ciphertext (known phase, zero mask) is
//!   itself trivial: no noise is involved, so the result is a constant known beforehand.
//! * **Hash-consing.** Equal roots are one root. Bootstrapping is deterministic, so the copies
//!   would have been bit-identical ciphertexts: merging them leaves the noise as it was.
//! * **Dead roots** (and tables) that no output depends on are dropped.

use std::collections::HashMap;

use super::{Affine, Circuit, InvalidCircuit, Root, Term, ValidCircuit};

/// What an original root has become.
#[derive(Clone, Copy)]
enum Image {
    Root(u32),
    Trivial(u64),
}

impl ValidCircuit {
    /// The equivalent circuit with folded, shared and dead roots removed.
    pub fn optimise(&self) -> Result<Self, InvalidCircuit> {
        let merged = merge(self.circuit(), |key| {
            self.signature().keyset.bootstrap_keys[key as usize].polynomial_size
        });
        self.with_circuit(remove_dead(merged))
    }
}

/// Folds and hash-conses, in evaluation order.
fn merge(circuit: &Circuit, polynomial_size: impl Fn(u32) -> usize) -> Circuit {
    let (tables, table_images) = merge_tables(&circuit.tables);
    let mut roots = Vec::new();
    let mut known: HashMap<Root, u32> = HashMap::new();
    let mut images: Vec<Image> = Vec::with_capacity(circuit.roots.len());
    for root in &circuit.roots {
        let root = match root {
            Root::Input { .. } => root.clone(),
            Root::Keyswitch { input, key } => {
                let input = substitute(input, &images);
                if input.terms.is_empty() {
                    images.push(Image::Trivial(input.constant));
                    continue;
                }
                Root::Keyswitch { input, key: *key }
            }
            Root::Bootstrap { input, table, key } => {
                let (input, table) = (substitute(input, &images), table_images[*table as usize]);
                if input.terms.is_empty() {
                    let entry =
                        lookup(&tables[table as usize], input.constant, polynomial_size(*key));
                    images.push(Image::Trivial(entry));
                    continue;
                }
                Root::Bootstrap { input, table, key: *key }
            }
        };
        let index = *known.entry(root).or_insert_with_key(|root| {
            roots.push(root.clone());
            index_of(roots.len() - 1)
        });
        images.push(Image::Root(index));
    }
    let substitute_all =
        |output: &Vec<Affine>| output.iter().map(|a| substitute(a, &images)).collect();
    Circuit { roots, tables, outputs: circuit.outputs.iter().map(substitute_all).collect() }
}

/// Circuits are validated to have fewer than 2^32 roots and tables.
fn index_of(position: usize) -> u32 {
    u32::try_from(position).expect("validated circuits have fewer than 2^32 roots and tables")
}

fn merge_tables(tables: &[Vec<u64>]) -> (Vec<Vec<u64>>, Vec<u32>) {
    let mut known: HashMap<&[u64], u32> = HashMap::new();
    let mut merged = Vec::new();
    let images = tables
        .iter()
        .map(|table| {
            *known.entry(table).or_insert_with(|| {
                merged.push(table.clone());
                index_of(merged.len() - 1)
            })
        })
        .collect();
    (merged, images)
}

/// The affine over the images of its roots.
fn substitute(affine: &Affine, images: &[Image]) -> Affine {
    let mut constant = affine.constant;
    let mut terms: Vec<Term> = Vec::with_capacity(affine.terms.len());
    for term in &affine.terms {
        match images[term.root as usize] {
            Image::Root(root) => terms.push(Term { root, ..*term }),
            Image::Trivial(value) => {
                constant =
                    constant.wrapping_add(value.wrapping_mul(term.coefficient.cast_unsigned()));
            }
        }
    }
    terms.sort_unstable_by_key(|term| term.root);
    terms.dedup_by(|next, kept| {
        let same = next.root == kept.root;
        if same {
            kept.coefficient = kept.coefficient.wrapping_add(next.coefficient);
        }
        same
    });
    terms.retain(|term| term.coefficient != 0);
    Affine { constant, terms }
}

/// What a bootstrap of a trivial ciphertext of phase `body` returns, exactly: the body is
/// rounded to the 2N-th roots of unity, and the accumulator's polynomial is read at that power
/// of X, modulo X^N + 1.
pub(super) fn lookup(table: &[u64], body: u64, polynomial_size: usize) -> u64 {
    let log_modulus = polynomial_size.ilog2() + 1;
    let rounded = body.wrapping_add(1 << (63 - log_modulus)) >> (64 - log_modulus);
    // At most 2N - 1, and tables have N words in memory.
    let degree = usize::try_from(rounded).expect("fits an index");
    match degree.checked_sub(polynomial_size) {
        None => table[degree],
        Some(beyond) => table[beyond].wrapping_neg(),
    }
}

fn remove_dead(circuit: Circuit) -> Circuit {
    let mut live = vec![false; circuit.roots.len()];
    let mark = |affine: &Affine, live: &mut Vec<bool>| {
        for term in &affine.terms {
            live[term.root as usize] = true;
        }
    };
    circuit.outputs.iter().flatten().for_each(|affine| mark(affine, &mut live));
    for (index, root) in circuit.roots.iter().enumerate().rev() {
        if let (true, Some(input)) = (live[index], root.input()) {
            mark(input, &mut live);
        }
    }

    let mut tables = Vec::new();
    let mut table_images = HashMap::new();
    let mut roots = Vec::new();
    let mut images = vec![0; live.len()];
    let rename = |affine: &mut Affine, images: &[u32]| {
        affine.terms.iter_mut().for_each(|term| term.root = images[term.root as usize]);
    };
    for (index, mut root) in circuit.roots.into_iter().enumerate().filter(|(index, _)| live[*index])
    {
        if let Some(input) = root.input_mut() {
            rename(input, &images);
        }
        if let Root::Bootstrap { table, .. } = &mut root {
            *table = *table_images.entry(*table).or_insert_with(|| {
                tables.push(circuit.tables[*table as usize].clone());
                index_of(tables.len() - 1)
            });
        }
        images[index] = index_of(roots.len());
        roots.push(root);
    }
    let mut outputs = circuit.outputs;
    outputs.iter_mut().flatten().for_each(|affine| rename(affine, &images));
    Circuit { roots, tables, outputs }
}
