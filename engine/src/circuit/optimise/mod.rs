//! Makes a circuit cheaper without changing what it computes.
//!
//! The rules, and why each keeps values and noise, are in `docs/architecture.md`, under "The
//! optimiser". First come those that hold for all ciphertexts whatever, in one forward pass and one
//! sweep back: folding, hash-consing, constants that leave keyswitches and turn tables, negated
//! tables, dead roots. Then the same again with what the encodings of the inputs tell
//! (`values`): full turns and equal values.
//!
//! The latter exchange ciphertexts for others of the same value. They are only taken when, for every
//! bootstrap that is left and for every output, the noise is at most what it was (`noise`).

mod functions;
mod noise;
mod phases;
mod tables;
mod values;

use std::collections::HashMap;

use self::tables::{Tables, Turned, entry_bits, lookup};
use self::values::Values;
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

    fn plus(self, constant: u64) -> Self {
        Self { constant: self.constant.wrapping_add(constant), ..self }
    }

    fn negated(self) -> Self {
        Self { negated: !self.negated, constant: self.constant.wrapping_neg(), ..self }
    }
}

impl ValidCircuit {
    /// The equivalent circuit with folded, shared and dead roots removed.
    pub fn optimise(&self) -> Result<Self, InvalidCircuit> {
        let tables = Tables::of(&self.circuit().tables);
        let (merged, _) = Merged::of(self.circuit(), &tables, None);
        let shared = self.with_circuit(remove_dead(merged))?;
        match shared.merge_equal_values() {
            Some(merged) => shared.with_circuit(remove_dead(merged)),
            None => Ok(shared),
        }
    }
}

/// The circuit so far, with what tells equal roots.
struct Merged<'a> {
    tables: &'a Tables,
    roots: Vec<Root>,
    /// Which of the original roots is looked at.
    origin: usize,
    known: HashMap<Root, Image>,
    /// For a bootstrap of the same terms by the same key that reads the same entries: what it is,
    /// and whether it reads them negated.
    known_bootstraps: HashMap<Reading, (Image, bool)>,
    values: Option<Values<'a>>,
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

impl<'a> Merged<'a> {
    /// Folds and hash-conses, in evaluation order, and merges equal values when there is something
    /// known about values.
    fn of(
        circuit: &Circuit,
        tables: &'a Tables,
        values: Option<Values<'a>>,
    ) -> (Circuit, Option<Values<'a>>) {
        let (known, known_bootstraps) = (HashMap::new(), HashMap::new());
        let mut merged =
            Self { tables, roots: Vec::new(), origin: 0, known, known_bootstraps, values };
        let mut images: Vec<Image> = Vec::with_capacity(circuit.roots.len());
        for (origin, root) in circuit.roots.iter().enumerate() {
            merged.origin = origin;
            images.push(match root {
                Root::Input { .. } => merged.share(root.clone()),
                Root::Keyswitch { input, key } => {
                    merged.keyswitch(merged.substitute(input, &images), *key)
                }
                Root::Bootstrap { input, table, key } => {
                    merged.bootstrap(merged.substitute(input, &images), *table, *key)
                }
            });
        }
        let substitute_all =
            |output: &Vec<Affine>| output.iter().map(|a| merged.substitute(a, &images)).collect();
        let outputs = circuit.outputs.iter().map(substitute_all).collect();
        (Circuit { roots: merged.roots, tables: tables.distinct.clone(), outputs }, merged.values)
    }

    /// The affine over the images of its roots.
    fn substitute(&self, affine: &Affine, images: &[Image]) -> Affine {
        let mut substituted = substitute(affine, images);
        if let Some(values) = &self.values {
            values.reduce(&mut substituted);
        }
        substituted
    }

    /// The root as the next one, unless it has the value of others.
    fn place(&mut self, root: Root) -> Image {
        let equal = self.values.as_mut().and_then(|values| values.place(&root, self.origin));
        equal.unwrap_or_else(|| {
            self.roots.push(root);
            Image::root(index_of(self.roots.len() - 1))
        })
    }

    fn share(&mut self, root: Root) -> Image {
        if let Some(&known) = self.known.get(&root) {
            return known;
        }
        let image = self.place(root.clone());
        self.known.insert(root, image);
        image
    }

    fn keyswitch(&mut self, mut input: Affine, key: u32) -> Image {
        let constant = std::mem::take(&mut input.constant);
        if input.terms.is_empty() {
            return Image::trivial(constant);
        }
        self.share(Root::Keyswitch { input, key }).plus(constant)
    }

    fn bootstrap(&mut self, input: Affine, table: u32, key: u32) -> Image {
        let Turned { table, class, turn } = self.tables.images[table as usize];
        let words = &self.tables.distinct[table as usize];
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
        if let Some(&(image, known)) = self.known_bootstraps.get(&reading) {
            return if known == negated { image } else { image.negated() };
        }
        let image = self.place(Root::Bootstrap { input, table, key });
        self.known_bootstraps.insert(reading, (image, negated));
        image
    }
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
    Term::merge(&mut terms);
    Affine { constant, terms }
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
