//! What roots are, without noise, as functions of others.

use std::collections::HashMap;
use std::rc::Rc;

use super::phases::Phases;
use super::tables::{entry_bits, lookup, margins, place, turned};
use super::{Image, index_of};
use crate::circuit::{Affine, Root, Term};
use crate::parameters::Signature;

/// Most phases of a root of which others are functions.
const MAX_PHASES: usize = 1 << 11;
/// Words computed for one circuit, above which nothing is said about its values: 64 MiB, all of
/// them kept twice at most.
const MAX_WORDS: usize = 1 << 23;
/// Roots of one shape that are kept to choose from.
const MAX_CHOICE: usize = 4;

/// A function of a root, by way of lookups.
#[derive(Clone)]
struct Function {
    of: u32,
    /// Word `i` is the phase where the root has the `i`-th of its phases.
    words: Rc<[u64]>,
    /// By increasing reading, each once.
    lookups: Rc<[Lookup]>,
}

/// A bootstrap that takes part in a function.
#[derive(Clone, Copy)]
struct Lookup {
    /// What it reads a table by.
    reading: u32,
    /// Entries from any place that it reads without noise to the nearest entry of other content.
    margin: u32,
}

/// By what a table is read: bootstraps with an equal one go astray by equally many entries.
#[derive(PartialEq, Eq, Hash)]
struct Reading {
    terms: Vec<Term>,
    /// The part of the constant below a whole entry.
    remainder: u64,
    polynomial_size: usize,
}

/// A function without constant and sign: roots under one key that have the same are one root, but
/// for these.
#[derive(PartialEq, Eq, Hash)]
struct Shape {
    key: usize,
    of: u32,
    words: Vec<u64>,
}

/// `constant` plus or minus the shape.
#[derive(Clone, Copy)]
struct Placed {
    constant: u64,
    negated: bool,
}

impl Function {
    fn shape(&self, key: usize) -> (Shape, Placed) {
        let constant = self.words.first().copied().unwrap_or_default();
        let mut words: Vec<u64> =
            self.words.iter().map(|word| word.wrapping_sub(constant)).collect();
        let negated = words.iter().find(|&&word| word != 0).is_some_and(|&word| word > 1 << 63);
        if negated {
            words.iter_mut().for_each(|word| *word = word.wrapping_neg());
        }
        (Shape { key, of: self.of, words }, Placed { constant, negated })
    }

    /// Whether it goes astray only where the other one does: by lookups that the other one has
    /// as well, with no smaller margins.
    fn is_as_reliable_as(&self, other: &Self) -> bool {
        self.lookups.iter().all(|lookup| {
            let found = other.lookups.binary_search_by_key(&lookup.reading, |other| other.reading);
            found.is_ok_and(|found| other.lookups[found].margin <= lookup.margin)
        })
    }
}

/// All lookups of both, with the smaller margins.
fn joined(one: &[Lookup], other: &[Lookup]) -> Rc<[Lookup]> {
    let mut all = [one, other].concat();
    all.sort_unstable_by_key(|lookup| (lookup.reading, lookup.margin));
    all.dedup_by_key(|lookup| lookup.reading);
    all.into()
}

struct Known {
    phases: Phases,
    function: Option<Function>,
}

/// What is known of a root that is not placed yet.
pub(super) struct Studied {
    known: Known,
    shape: Option<(Shape, Placed)>,
    key: usize,
}

/// What is known of the roots so far.
pub(super) struct Functions<'a> {
    signature: &'a Signature,
    tables: &'a [Vec<u64>],
    roots: Vec<Known>,
    shapes: HashMap<Shape, Vec<(u32, Placed)>>,
    /// What a table gives for phases.
    ranges: HashMap<(u32, Phases), Phases>,
    /// Of each table.
    margins: HashMap<u32, Vec<u32>>,
    readings: HashMap<Reading, u32>,
    words: usize,
}

impl<'a> Functions<'a> {
    pub(super) fn new(signature: &'a Signature, tables: &'a [Vec<u64>]) -> Self {
        Self {
            signature,
            tables,
            roots: Vec::new(),
            shapes: HashMap::new(),
            ranges: HashMap::new(),
            margins: HashMap::new(),
            readings: HashMap::new(),
            words: 0,
        }
    }

    /// Whether there was too much to compute.
    pub(super) fn are_exhausted(&self) -> bool {
        self.words > MAX_WORDS
    }

    /// Makes factors as small as they can be for the same phases.
    pub(super) fn reduce(&self, affine: &mut Affine) {
        for term in &mut affine.terms {
            let phases = self.roots[term.root as usize].phases;
            let (coefficient, constant) = phases.reduce(term.coefficient);
            term.coefficient = coefficient;
            affine.constant = affine.constant.wrapping_add(constant);
        }
        affine.terms.retain(|term| term.coefficient != 0);
    }

    /// What is known of a root that is computed from those there are.
    pub(super) fn study(&mut self, root: &Root) -> Studied {
        let Signature { keyset, inputs, .. } = self.signature;
        let (known, key) = match root {
            Root::Input { argument, .. } => {
                let gate = &inputs[*argument as usize];
                (Known { phases: Phases::of_encoding(gate.encoding), function: None }, gate.key)
            }
            Root::Keyswitch { input, key } => {
                (self.affine(input), keyset.keyswitch_keys[*key as usize].output_key)
            }
            Root::Bootstrap { input, table, key } => {
                (self.looked_up(input, *table), keyset.bootstrap_keys[*key as usize].output_key)
            }
        };
        let shape = known.function.as_ref().map(|function| function.shape(key));
        Studied { known, shape, key }
    }

    fn affine(&mut self, affine: &Affine) -> Known {
        if let Some(function) = self.function(affine) {
            return Known { phases: Phases::of_words(&function.words), function: Some(function) };
        }
        let phases = affine.terms.iter().fold(Phases::constant(affine.constant), |sum, term| {
            sum.plus(self.roots[term.root as usize].phases.scaled(term.coefficient))
        });
        Known { phases, function: None }
    }

    /// The function of one root that all terms are functions of.
    fn function(&mut self, affine: &Affine) -> Option<Function> {
        let functions = affine.terms.iter().map(|term| {
            let function = self.roots[term.root as usize].function.as_ref()?;
            Some((term.coefficient.cast_unsigned(), function))
        });
        let functions = functions.collect::<Option<Vec<_>>>()?;
        let ((_, first), others) = functions.split_first()?;
        if others.iter().any(|(_, other)| other.of != first.of) {
            return None;
        }
        let mut words = vec![affine.constant; first.words.len()];
        let mut lookups = first.lookups.clone();
        for (factor, function) in &functions {
            for (sum, word) in words.iter_mut().zip(function.words.iter()) {
                *sum = sum.wrapping_add(word.wrapping_mul(*factor));
            }
        }
        for (_, function) in others {
            lookups = joined(&lookups, &function.lookups);
        }
        self.words += functions.len() * (words.len() + lookups.len());
        Some(Function { of: first.of, words: words.into(), lookups })
    }

    fn looked_up(&mut self, input: &Affine, table: u32) -> Known {
        let words = &self.tables[table as usize];
        let Known { phases, function } = self.affine(input);
        if let Some(function) = function {
            let found: Rc<[u64]> =
                function.words.iter().map(|&phase| lookup(words, phase)).collect();
            let own = self.own_lookup(input, table, &function.words);
            let lookups = joined(&function.lookups, &[own]);
            self.words += found.len() + lookups.len();
            let phases = Phases::of_words(&found);
            return Known {
                phases,
                function: Some(Function { words: found, lookups, ..function }),
            };
        }
        if let Some(&phases) = self.ranges.get(&(table, phases)) {
            return Known { phases, function: None };
        }
        let entries = 2 * words.len();
        let found: Vec<u64> = match phases.words(entries) {
            Some(phases) => phases.map(|phase| lookup(words, phase)).collect(),
            None => (0..entries).map(|entry| turned(words, entry)).collect(),
        };
        self.words += found.len();
        let range = Phases::of_words(&found);
        self.ranges.insert((table, phases), range);
        Known { phases: range, function: None }
    }

    /// The lookup of a bootstrap at these phases.
    fn own_lookup(&mut self, input: &Affine, table: u32, phases: &[u64]) -> Lookup {
        let words = &self.tables[table as usize];
        let margins = self.margins.entry(table).or_insert_with(|| {
            self.words += 2 * words.len();
            margins(words)
        });
        let margin = phases.iter().map(|&phase| margins[place(words, phase)]).min();
        let next = index_of(self.readings.len());
        let reading = Reading {
            terms: input.terms.clone(),
            remainder: input.constant & ((1 << entry_bits(words.len())) - 1),
            polynomial_size: words.len(),
        };
        let reading = *self.readings.entry(reading).or_insert(next);
        Lookup { reading, margin: margin.unwrap_or_default() }
    }

    /// What the root is by others, each of which would do, apart from its noise.
    pub(super) fn equal(&self, studied: &Studied) -> impl Iterator<Item = Image> {
        let only = studied.known.phases.only().map(Image::trivial);
        let alike = studied.shape.as_ref().zip(studied.known.function.as_ref());
        let alike = alike.into_iter().flat_map(|((shape, placed), function)| {
            let alike = self.shapes.get(shape).into_iter().flatten();
            alike.filter_map(|&(root, there)| {
                let other = self.roots[root as usize].function.as_ref()?;
                other.is_as_reliable_as(function).then(|| placed.by(root, there))
            })
        });
        only.into_iter().chain(alike)
    }

    /// Takes the root in as the next one.
    pub(super) fn push(&mut self, studied: Studied, root: u32) {
        let Studied { mut known, mut shape, key } = studied;
        if known.function.is_none()
            && let Some(words) = known.phases.words(MAX_PHASES)
        {
            let words: Rc<[u64]> = words.collect();
            self.words += words.len();
            let function = Function { of: root, words, lookups: Rc::default() };
            shape = Some(function.shape(key));
            known.function = Some(function);
        }
        if let Some((shape, placed)) = shape {
            let alike = self.shapes.entry(shape).or_default();
            if alike.len() < MAX_CHOICE {
                alike.push((root, placed));
            }
        }
        self.roots.push(known);
    }
}

impl Placed {
    /// What is placed here, by a root that is placed there.
    fn by(self, root: u32, there: Self) -> Image {
        let negated = self.negated != there.negated;
        let shift = if negated { there.constant } else { there.constant.wrapping_neg() };
        Image { root: Some(root), negated, constant: self.constant.wrapping_add(shift) }
    }
}
