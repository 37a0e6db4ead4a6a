//! The circuit as it grows: keyswitches, bootstraps and tables under the keys that are assigned.

use std::collections::HashMap;

use cipherscore_engine::circuit::{
    Affine as Combination, Circuit, MAX_ROOTS, MAX_TABLE_WORDS, MAX_TABLES, MAX_TERMS, Root, Term,
};
use cipherscore_engine::parameters::{Encoding, Signature};

use super::affine::Affine;
use super::error::LowerMlirError;
use super::graph::{Graph, NodeId, Partitions, Route};
use super::keys::Assignment;
use crate::noise::{KeyNoise, Ledger};

/// One table of an operation, with its keys.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lookup {
    node: NodeId,
    route: Route,
    keyswitch: usize,
    bootstrap: usize,
    /// Bits of the index; none of a lowest bit.
    width: u32,
}

/// Where the noise of a term comes from.
#[derive(Clone, Copy)]
enum Source {
    Input(f64),
    Table(Lookup),
}

/// What a symbol of an affine combination is.
struct Symbol {
    root: u32,
    /// Of the table; none for an input, which is under its block's key.
    partition: Option<usize>,
}

/// A circuit that is being put together.
pub(super) struct Emitter<'a> {
    signature: &'a Signature,
    graph: &'a Graph,
    partitions: &'a Partitions,
    assignment: &'a Assignment,
    keys: KeyNoise,
    circuit: Circuit,
    symbols: Vec<Symbol>,
    sources: HashMap<NodeId, Source>,
    /// Roots that were converted, by root and keyswitch key.
    converted: HashMap<(u32, usize), u32>,
    tables: HashMap<Vec<u64>, u32>,
    table_words: usize,
    terms: usize,
    ledger: Ledger,
}

impl<'a> Emitter<'a> {
    pub(super) fn new(
        signature: &'a Signature,
        graph: &'a Graph,
        partitions: &'a Partitions,
        assignment: &'a Assignment,
    ) -> Self {
        Self {
            signature,
            graph,
            partitions,
            assignment,
            keys: KeyNoise::of(&signature.keyset),
            circuit: Circuit::default(),
            symbols: Vec::new(),
            sources: HashMap::new(),
            converted: HashMap::new(),
            tables: HashMap::new(),
            table_words: 0,
            terms: 0,
            ledger: Ledger::default(),
        }
    }

    /// The circuit, and the noise that it was compiled for.
    pub(super) fn finish(self) -> (Circuit, Ledger) {
        (self.circuit, self.ledger)
    }

    /// The ciphertexts of an input.
    pub(super) fn input(&mut self, argument: usize) -> Result<Vec<Affine>, LowerMlirError> {
        let gate = &self.signature.inputs[argument];
        let node = self.graph.arguments[argument];
        self.sources.insert(node, Source::Input(gate.variance));
        let ciphertexts = (0..gate.len()).map(|index| {
            let root = Root::Input { argument: index_of(argument), index: index_of(index) };
            let root = self.push(root)?;
            Ok(self.symbol(Symbol { root, partition: None }, node))
        });
        ciphertexts.collect()
    }

    /// The ciphertexts of the next output, of integers of so many bits.
    pub(super) fn output(&mut self, values: &[Affine], width: u32) -> Result<(), LowerMlirError> {
        let node = self.graph.outputs[self.circuit.outputs.len()];
        let partition = self.partitions.blocks[node];
        let mut output = Vec::with_capacity(values.len());
        for value in values {
            self.ledger.record(self.variance(value, partition), width);
            output.push(self.under(value, partition)?);
        }
        self.circuit.outputs.push(output);
        Ok(())
    }

    /// One of the tables of an operation, by number.
    pub(super) fn lookup(
        &mut self,
        operation: usize,
        table: usize,
    ) -> Result<Lookup, LowerMlirError> {
        let node = self.graph.tables[operation][table];
        let route = self.partitions.route(self.graph, node);
        let keyswitch = self.assignment.keyswitch.get(&(route.source, route.table));
        let bootstrap = self.assignment.bootstrap[route.table];
        let (Some(&keyswitch), Some(bootstrap)) = (keyswitch, bootstrap) else {
            return Err(LowerMlirError::Keys { reason: "a table has no keys".into() });
        };
        let width = self.graph.index_width(node);
        let lookup = Lookup { node, route, keyswitch, bootstrap, width };
        self.sources.insert(node, Source::Table(lookup));
        Ok(lookup)
    }

    /// Expands a table over the words of a polynomial: entries of `b = N / 2^w` words each, the
    /// first of which begins half an entry before the first word and so is negated there. Signed
    /// integers come shifted by half of their range, and so does the table.
    pub(super) fn table(
        &mut self,
        lookup: &Lookup,
        entries: &[i64],
        index: Encoding,
        width: u32,
    ) -> Result<u32, LowerMlirError> {
        let size = self.polynomial_size(lookup);
        let entry_words = size / entries.len();
        if entry_words < 2 {
            return Err(LowerMlirError::Keys {
                reason: format!("a table of {} entries for polynomials of {size}", entries.len()),
            });
        }
        let turn = if index.signed { entries.len() / 2 } else { 0 };
        let encode = |entry: i64| entry.cast_unsigned() << (63 - width);
        let word = |place: usize| {
            let entry = (place + entry_words / 2) / entry_words;
            match entry < entries.len() {
                true => encode(entries[(entry + turn) % entries.len()]),
                false => encode(entries[turn]).wrapping_neg(),
            }
        };
        self.intern((0..size).map(word).collect())
    }

    /// The table of a lowest bit, without the half step that is added to its result.
    pub(super) fn sign_table(&mut self, lookup: &Lookup, half: u64) -> Result<u32, LowerMlirError> {
        self.intern(vec![half.wrapping_neg(); self.polynomial_size(lookup)])
    }

    fn polynomial_size(&self, lookup: &Lookup) -> usize {
        self.signature.keyset.bootstrap_keys[lookup.bootstrap].polynomial_size
    }

    fn intern(&mut self, words: Vec<u64>) -> Result<u32, LowerMlirError> {
        if let Some(&table) = self.tables.get(&words) {
            return Ok(table);
        }
        self.table_words += words.len();
        if self.table_words > MAX_TABLE_WORDS {
            return Err(LowerMlirError::too_large("words of tables", MAX_TABLE_WORDS));
        }
        if self.tables.len() == MAX_TABLES {
            return Err(LowerMlirError::too_large("tables", MAX_TABLES));
        }
        let table = index_of(self.tables.len());
        self.circuit.tables.push(words.clone());
        self.tables.insert(words, table);
        Ok(table)
    }

    /// The table's entry at an index.
    pub(super) fn apply(
        &mut self,
        lookup: &Lookup,
        table: u32,
        index: &Affine,
    ) -> Result<Affine, LowerMlirError> {
        let variance = self.variance(index, lookup.route.source)
            + self.keys.keyswitch[lookup.keyswitch]
            + self.keys.modulus_switch[lookup.bootstrap];
        self.ledger.record(variance, lookup.width);
        let input = self.under(index, lookup.route.source)?;
        let small = self.push(Root::Keyswitch { input, key: index_of(lookup.keyswitch) })?;
        let input = Combination::of_root(small);
        let root = Root::Bootstrap { input, table, key: index_of(lookup.bootstrap) };
        let root = self.push(root)?;
        let partition = Some(lookup.route.table);
        Ok(self.symbol(Symbol { root, partition }, lookup.node))
    }

    /// A value under a partition's key: results of tables under other keys are converted.
    fn under(&mut self, value: &Affine, partition: usize) -> Result<Combination, LowerMlirError> {
        let Some(linear) = &value.linear else {
            return Ok(Combination { constant: value.constant, terms: Vec::new() });
        };
        self.count_terms(linear.terms.len())?;
        let mut terms = Vec::with_capacity(linear.terms.len());
        for term in &linear.terms {
            let Symbol { root, partition: from } = self.symbols[term.root as usize];
            let root = match from.map(|from| self.conversion(from, partition)) {
                Some(Some(key)) => self.convert(root, key)?,
                Some(None) | None => root,
            };
            terms.push(Term { root, coefficient: term.coefficient });
        }
        // Converted roots come after those that are not.
        terms.sort_unstable_by_key(|term| term.root);
        Ok(Combination { constant: value.constant, terms })
    }

    /// The key that converts from a table's partition, if keys differ. There is one for each way
    /// that the graph has.
    fn conversion(&self, from: usize, to: usize) -> Option<usize> {
        match self.assignment.secret[from] == self.assignment.secret[to] {
            true => None,
            false => self.assignment.conversion.get(&(from, to)).copied().flatten(),
        }
    }

    fn convert(&mut self, root: u32, key: usize) -> Result<u32, LowerMlirError> {
        if let Some(&converted) = self.converted.get(&(root, key)) {
            return Ok(converted);
        }
        let input = Combination::of_root(root);
        let converted = self.push(Root::Keyswitch { input, key: index_of(key) })?;
        self.converted.insert((root, key), converted);
        Ok(converted)
    }

    /// Of a value under a partition's key, as Concrete counts it.
    fn variance(&self, value: &Affine, partition: usize) -> f64 {
        let norms = value.linear.iter().flat_map(|linear| &linear.norms);
        let variances = norms.map(|&(source, norm)| match self.sources[&source] {
            Source::Input(variance) => norm * variance,
            Source::Table(lookup) => {
                let conversion = self.conversion(lookup.route.table, partition);
                let added = conversion.map_or(0.0, |key| self.keys.keyswitch[key]);
                norm * (self.keys.bootstrap[lookup.bootstrap] + added)
            }
        });
        variances.sum()
    }

    fn symbol(&mut self, symbol: Symbol, source: NodeId) -> Affine {
        self.symbols.push(symbol);
        Affine::of_symbol(index_of(self.symbols.len() - 1), source)
    }

    fn push(&mut self, root: Root) -> Result<u32, LowerMlirError> {
        if self.circuit.roots.len() == MAX_ROOTS {
            return Err(LowerMlirError::too_large("ciphertexts", MAX_ROOTS));
        }
        self.circuit.roots.push(root);
        Ok(index_of(self.circuit.roots.len() - 1))
    }

    fn count_terms(&mut self, terms: usize) -> Result<(), LowerMlirError> {
        self.terms += terms;
        match self.terms <= MAX_TERMS {
            true => Ok(()),
            false => Err(LowerMlirError::too_large("terms of the circuit", MAX_TERMS)),
        }
    }
}

/// Positions are below `MAX_ROOTS`, numbers of keys below `MAX_KEYS`.
fn index_of(position: usize) -> u32 {
    u32::try_from(position).expect("within the bounds of a circuit")
}
