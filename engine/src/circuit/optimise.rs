//! Makes a circuit cheaper without changing what it computes.
//!
//! One forward pass and one sweep back:
//!
//! * **Folding.** A keyswitch or bootstrap of a trivial ciphertext (known phase, zero mask) is
//!   itself trivial: no noise is involved, so the result is a constant known beforehand.
//! * **Hash-consing.** Equal roots are one root. Bootstrapping is deterministic, so the copies
//!   would have been bit-identical ciphertexts: merging them leaves the noise as it was.
//! * **Constants leave keyswitches.** A keyswitch decomposes the mask and copies the body:
//!   `KS(x + c) = KS(x) + c`, bit for bit.
//! * **Constants turn tables.** A bootstrap rounds the body to one of 2N entries, so that a constant
//!   of whole entries and a table turned by as many give the same accumulator, bit for bit.
//! * **Negated tables.** `B(x, -T) = -B(x, T)`: each step of the blind rotation commutes with the
//!   sign, but for the digits of words exactly between two. Value and variance are equal, and the
//!   noise of one was the negated noise of the other before they were merged.
//! * **Dead roots** (and tables) that no output depends on are dropped. A table of zeros gives an
//!   exact trivial zero.

use std::collections::HashMap;

use super::{Affine, Circuit, InvalidCircuit, Root, Term, ValidCircuit};

/// What an original root has become: `constant` plus or minus a root, or nothing but a constant.
#[derive(Clone, Copy)]
struct Image {
    root: Option<u32>,
    negated: bool,
    constant: u64,
}

impl Image {
    fn trivial(constant: u64) -> Self {
        Self { root: None, negated: false, constant }
    }

    fn root(root: u32) -> Self {
        Self { root: Some(root), negated: false, constant: 0 }
    }
}

impl ValidCircuit {
    /// The equivalent circuit with folded, shared and dead roots removed.
    pub fn optimise(&self) -> Result<Self, InvalidCircuit> {
        let merged = Merged::of(self.circuit());
        self.with_circuit(remove_dead(merged))
    }
}

/// The circuit so far, with what tells equal roots.
struct Merged {
    roots: Vec<Root>,
    known: HashMap<Root, u32>,
    /// For a bootstrap of the same terms by the same key that reads the same entries: its root, and
    /// whether it reads them negated.
    known_bootstraps: HashMap<Reading, (u32, bool)>,
}

/// What a bootstrap returns, up to its sign.
#[derive(PartialEq, Eq, Hash)]
struct Reading {
    terms: Vec<Term>,
    key: u32,
    /// The part of the constant that does not turn the table by whole entries.
    remainder: u64,
    class: u32,
    /// By how many entries the class is turned, modulo N.
    turn: usize,
}

impl Merged {
    /// Folds and hash-conses, in evaluation order.
    fn of(circuit: &Circuit) -> Circuit {
        let tables = Tables::of(&circuit.tables);
        let mut merged =
            Self { roots: Vec::new(), known: HashMap::new(), known_bootstraps: HashMap::new() };
        let mut images: Vec<Image> = Vec::with_capacity(circuit.roots.len());
        for root in &circuit.roots {
            images.push(match root {
                Root::Input { .. } => Image::root(merged.share(root.clone())),
                Root::Keyswitch { input, key } => {
                    merged.keyswitch(substitute(input, &images), *key)
                }
                Root::Bootstrap { input, table, key } => {
                    merged.bootstrap(substitute(input, &images), *table, *key, &tables)
                }
            });
        }
        let substitute_all =
            |output: &Vec<Affine>| output.iter().map(|a| substitute(a, &images)).collect();
        let outputs = circuit.outputs.iter().map(substitute_all).collect();
        Circuit { roots: merged.roots, tables: tables.distinct, outputs }
    }

    fn push(&mut self, root: Root) -> u32 {
        self.roots.push(root);
        index_of(self.roots.len() - 1)
    }

    fn share(&mut self, root: Root) -> u32 {
        if let Some(&known) = self.known.get(&root) {
            return known;
        }
        let index = self.push(root.clone());
        self.known.insert(root, index);
        index
    }

    fn keyswitch(&mut self, mut input: Affine, key: u32) -> Image {
        let constant = std::mem::take(&mut input.constant);
        if input.terms.is_empty() {
            return Image::trivial(constant);
        }
        Image { constant, ..Image::root(self.share(Root::Keyswitch { input, key })) }
    }

    fn bootstrap(&mut self, input: Affine, table: u32, key: u32, tables: &Tables) -> Image {
        let Turned { table, class, turn } = tables.images[table as usize];
        let words = &tables.distinct[table as usize];
        if input.terms.is_empty() {
            return Image::trivial(lookup(words, input.constant));
        }
        let Some(class) = class else { return Image::trivial(0) };
        let entry_bits = entry_bits(words.len());
        // At most 2N - 1, and tables have N words in memory.
        let whole = usize::try_from(input.constant >> entry_bits).expect("fits an index");
        let turn = (turn + whole) % (2 * words.len());
        let reading = Reading {
            terms: input.terms.clone(),
            key,
            remainder: input.constant & ((1 << entry_bits) - 1),
            class,
            turn: turn % words.len(),
        };
        let negated = turn >= words.len();
        if let Some(&(root, known)) = self.known_bootstraps.get(&reading) {
            return Image { negated: known != negated, ..Image::root(root) };
        }
        let root = self.push(Root::Bootstrap { input, table, key });
        self.known_bootstraps.insert(reading, (root, negated));
        Image::root(root)
    }
}

/// A table among those that are equal up to a turn.
#[derive(Clone, Copy)]
struct Turned {
    /// Which of the distinct tables.
    table: u32,
    /// None for the table of zeros.
    class: Option<u32>,
    /// The table's entry `i` is the class's entry `i + turn`, modulo 2N.
    turn: usize,
}

/// The tables of a circuit, equal ones merged.
struct Tables {
    distinct: Vec<Vec<u64>>,
    images: Vec<Turned>,
}

impl Tables {
    fn of(tables: &[Vec<u64>]) -> Self {
        let mut known: HashMap<&[u64], Turned> = HashMap::new();
        let mut classes: HashMap<Vec<u64>, u32> = HashMap::new();
        let mut distinct = Vec::new();
        let mut images = Vec::with_capacity(tables.len());
        for table in tables {
            images.push(*known.entry(table).or_insert_with(|| {
                distinct.push(table.clone());
                let index = index_of(distinct.len() - 1);
                if table.iter().all(|&entry| entry == 0) {
                    return Turned { table: index, class: None, turn: 0 };
                }
                let least = least_turn(table);
                let next = index_of(classes.len());
                let class = (0..table.len()).map(|entry| turned(table, least + entry)).collect();
                let class = Some(*classes.entry(class).or_insert(next));
                let turn = (2 * table.len() - least) % (2 * table.len());
                Turned { table: index, class, turn }
            }));
        }
        Self { distinct, images }
    }
}

/// Entry `index` of the table continued to 2N entries, its second half being its first negated,
/// and then repeated.
fn turned(table: &[u64], index: usize) -> u64 {
    let index = index % (2 * table.len());
    match index.checked_sub(table.len()) {
        None => table[index],
        Some(beyond) => table[beyond].wrapping_neg(),
    }
}

/// From which entry on the continued table is least in lexicographic order.
///
/// Two candidates are compared; the one that loses after `same` equal entries is not least, nor are
/// the `same` candidates behind it, so that the time is linear. A table that is not zero has no
/// period below 2N, since half of 2N turns negates it and 2N is a power of two: only one is least.
fn least_turn(table: &[u64]) -> usize {
    let length = 2 * table.len();
    let (mut one, mut other, mut same) = (0, 1, 0);
    while one < length && other < length && same < length {
        let (a, b) = (turned(table, one + same), turned(table, other + same));
        if a == b {
            same += 1;
            continue;
        }
        if a > b {
            one += same + 1;
        } else {
            other += same + 1;
        }
        if one == other {
            other += 1;
        }
        same = 0;
    }
    one.min(other)
}

/// Circuits are validated to have fewer than 2^32 roots and tables.
fn index_of(position: usize) -> u32 {
    u32::try_from(position).expect("validated circuits have fewer than 2^32 roots and tables")
}

/// The affine over the images of its roots.
fn substitute(affine: &Affine, images: &[Image]) -> Affine {
    let mut constant = affine.constant;
    let mut terms: Vec<Term> = Vec::with_capacity(affine.terms.len());
    for term in &affine.terms {
        let image = images[term.root as usize];
        let coefficient = term.coefficient;
        constant = constant.wrapping_add(image.constant.wrapping_mul(coefficient.cast_unsigned()));
        if let Some(root) = image.root {
            let coefficient = if image.negated { coefficient.wrapping_neg() } else { coefficient };
            terms.push(Term { root, coefficient });
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

/// Bits of a phase below one of the 2N entries of a continued table.
fn entry_bits(polynomial_size: usize) -> u32 {
    63 - polynomial_size.ilog2()
}

/// What a bootstrap of a trivial ciphertext of phase `body` returns, exactly: the body is
/// rounded to the 2N-th roots of unity, and the accumulator's polynomial is read at that power
/// of X, modulo X^N + 1.
fn lookup(table: &[u64], body: u64) -> u64 {
    let entry_bits = entry_bits(table.len());
    let rounded = body.wrapping_add(1 << (entry_bits - 1)) >> entry_bits;
    // At most 2N - 1, and tables have N words in memory.
    turned(table, usize::try_from(rounded).expect("fits an index"))
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
