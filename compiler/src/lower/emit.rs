//! From shapes to the nodes of a program, at a scale of the leaves.
//!
//! The value of a split whose feature is not looked at again is
//!
//! ```text
//! R + 1[x in A] * (L - R)
//! ```
//!
//! Where the feature comes again below, V(shape, P) stands for `shape` where the pending features
//! are in their sets P, and for 0 elsewhere:
//!
//! ```text
//! V(split on f, P) = sum over pieces (A, child) of V(child, P with f in A)
//! V(shape, P and f in A) = 1[x in A] * V(shape, P)          once shape does not depend on f
//! ```
//!
//! so that each feature of a path is multiplied in once, and the degree is the number of distinct
//! features.

use std::collections::{BTreeMap, HashMap};

use cipherscore_engine::bulk::program::{
    ColumnId, ColumnSum, Node, NodeId, Output, Product, Program,
};

use super::atoms::AtomSet;
use super::columns::Indicators;
use super::forest::{Forest, Shape, ShapeId};

/// The sets of features that a row must be in for a value not to be 0.
type Pending = BTreeMap<usize, AtomSet>;

/// A value that is not a node yet, so that sums of sums stay one node.
#[derive(Debug, Clone, Default, PartialEq)]
struct Sum {
    constant: i64,
    terms: BTreeMap<ColumnId, i64>,
    products: Vec<(ColumnSum, NodeId)>,
    choices: Vec<Choice>,
}

/// The node of the case whose indicator is 1. They add up to 1.
#[derive(Debug, Clone, PartialEq)]
struct Choice {
    default: (ColumnSum, NodeId),
    cases: Vec<(ColumnSum, NodeId)>,
}

impl Sum {
    fn of_constant(constant: i64) -> Self {
        Self { constant, ..Self::default() }
    }

    fn as_constant(&self) -> Option<i64> {
        (self.is_affine() && self.terms.is_empty()).then_some(self.constant)
    }

    fn is_affine(&self) -> bool {
        self.products.is_empty() && self.choices.is_empty()
    }

    fn add_affine(&mut self, affine: &ColumnSum, factor: i64) {
        self.constant += affine.constant * factor;
        for &(column, coefficient) in &affine.terms {
            let sum = self.terms.entry(column).or_default();
            *sum += coefficient * factor;
            if *sum == 0 {
                self.terms.remove(&column);
            }
        }
    }

    fn add(&mut self, other: Self) {
        let terms = other.terms.into_iter().collect();
        self.add_affine(&ColumnSum { constant: other.constant, terms }, 1);
        self.products.extend(other.products);
        self.choices.extend(other.choices);
    }

    fn affine(&self) -> ColumnSum {
        let terms = self.terms.iter().map(|(&column, &coefficient)| (column, coefficient));
        ColumnSum { constant: self.constant, terms: terms.collect() }
    }
}

/// Emits the nodes of one program.
pub(crate) struct Emitter<'a> {
    forest: &'a Forest,
    indicators: &'a Indicators,
    nodes: Vec<Node>,
    index: HashMap<Node, NodeId>,
    /// Of the tree at hand.
    known: HashMap<(ShapeId, Pending), Sum>,
}

impl<'a> Emitter<'a> {
    /// The program whose output k is the sum of its trees' leaves, as `round` has rounded them.
    pub(crate) fn program(
        forest: &'a Forest,
        indicators: &'a Indicators,
        columns: u32,
        outputs: usize,
        round: impl Fn(usize, f64) -> i64,
    ) -> Program {
        let mut emitter = Self {
            forest,
            indicators,
            nodes: vec![],
            index: HashMap::new(),
            known: HashMap::new(),
        };
        let mut sums = vec![(Sum::default(), Vec::new()); outputs];
        for (position, root) in forest.roots.iter().enumerate() {
            emitter.known.clear();
            let leaf = |value: f64| round(position, value);
            let sum = emitter.value(root.shape, Pending::new(), &leaf);
            let (affine, roots) = &mut sums[root.output];
            match sum.is_affine() {
                true => affine.add(sum),
                false => roots.push(emitter.node(sum)),
            }
        }
        let outputs = sums.into_iter().map(|(mut affine, mut roots)| {
            let constant = std::mem::take(&mut affine.constant);
            if !affine.terms.is_empty() {
                roots.push(emitter.node(affine));
            }
            Output { constant, roots }
        });
        let outputs = outputs.collect();
        Program { columns, nodes: emitter.nodes, outputs }
    }

    /// V(shape, P).
    fn value(&mut self, shape: ShapeId, pending: Pending, leaf: &dyn Fn(f64) -> i64) -> Sum {
        let key = (shape, pending);
        if let Some(known) = self.known.get(&key) {
            return known.clone();
        }
        let uses = &self.forest.uses[shape];
        let (below, here): (Pending, Pending) =
            key.1.clone().into_iter().partition(|(feature, _)| uses.contains(feature));
        let mut sum = match here.is_empty() {
            true => self.shape(shape, &below, leaf),
            false => self.value(shape, below, leaf),
        };
        for (feature, set) in &here {
            sum = self.product(self.indicators.get(*feature, set), sum);
        }
        self.known.insert(key, sum.clone());
        sum
    }

    /// V(shape, P) where the shape depends on all pending features.
    fn shape(&mut self, shape: ShapeId, pending: &Pending, leaf: &dyn Fn(f64) -> i64) -> Sum {
        let (feature, pieces) = match &self.forest.shapes[shape] {
            Shape::Leaf(bits) => return Sum::of_constant(leaf(f64::from_bits(*bits))),
            Shape::Split { feature, pieces } => (*feature, pieces),
        };
        if !self.forest.is_deferred(feature, pieces) {
            let value = |(set, child): &(AtomSet, ShapeId)| {
                let value = self.value(*child, pending.clone(), leaf);
                (self.indicators.get(feature, set).clone(), value)
            };
            let values = pieces.iter().map(value).collect();
            return self.choice(values);
        }
        let mut sum = Sum::default();
        for (set, child) in pieces {
            let mut pending = pending.clone();
            pending.insert(feature, set.clone());
            sum.add(self.value(*child, pending, leaf));
        }
        sum
    }

    fn product(&mut self, indicator: &ColumnSum, value: Sum) -> Sum {
        let mut product = Sum::default();
        match value.as_constant() {
            Some(constant) => product.add_affine(indicator, constant),
            None => product.products.push((indicator.clone(), self.node(value))),
        }
        product
    }

    /// The value of the one case whose indicator is 1.
    fn choice(&mut self, mut cases: Vec<(ColumnSum, Sum)>) -> Sum {
        let constant = cases.iter().position(|(_, value)| value.as_constant().is_some());
        let (indicator, default) = cases.swap_remove(constant.unwrap_or(cases.len() - 1));
        if let Some(default) = default.as_constant() {
            let mut sum = Sum::of_constant(default);
            for (indicator, value) in cases {
                sum.add_affine(&indicator, -default);
                sum.add(self.product(&indicator, value));
            }
            return sum;
        }
        let default = self.node(default);
        let cases = cases.into_iter().map(|(indicator, value)| (indicator, self.node(value)));
        let choice = Choice { cases: cases.collect(), default: (indicator, default) };
        Sum { choices: vec![choice], ..Sum::default() }
    }

    /// Makes a node of a value. A node has one base: the affine part, or what one choice defaults
    /// to, or both where the latter is affine; other choices are sums of products.
    fn node(&mut self, mut sum: Sum) -> NodeId {
        let affine_node =
            |nodes: &[Node], (_, node): &(ColumnSum, NodeId)| match &nodes[*node as usize] {
                Node::Affine(affine) => Some(affine.clone()),
                Node::Select { .. } => None,
            };
        let mut products = Vec::new();
        let with_base = sum.choices.iter().position(|choice| {
            sum.affine() == ColumnSum::default()
                || affine_node(&self.nodes, &choice.default).is_some()
        });
        let mut base = None;
        if let Some(choice) = with_base.map(|position| sum.choices.remove(position)) {
            let minus = Some(choice.default.1);
            base = minus;
            if let Some(affine) = affine_node(&self.nodes, &choice.default) {
                sum.add_affine(&affine, 1);
                base = None;
            }
            let cases = choice.cases.into_iter().filter(|(_, node)| *node != choice.default.1);
            products.extend(cases.map(|(indicator, factor)| Product { indicator, factor, minus }));
        }
        for choice in std::mem::take(&mut sum.choices) {
            sum.products.extend(choice.cases);
            sum.products.push(choice.default);
        }
        let plain = |(indicator, factor)| Product { indicator, factor, minus: None };
        products.extend(std::mem::take(&mut sum.products).into_iter().map(plain));
        if products.is_empty() {
            return base.unwrap_or_else(|| self.intern(Node::Affine(sum.affine())));
        }
        if sum.affine() != ColumnSum::default() {
            base = Some(self.intern(Node::Affine(sum.affine())));
        }
        self.intern(Node::Select { base, products })
    }

    fn intern(&mut self, node: Node) -> NodeId {
        if let Some(&known) = self.index.get(&node) {
            return known;
        }
        let id = NodeId::try_from(self.nodes.len()).expect("fewer nodes than memory");
        self.index.insert(node.clone(), id);
        self.nodes.push(node);
        id
    }
}
