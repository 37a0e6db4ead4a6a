//! What the name of a tensor stands for while a graph is read: a formula in the features.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::path::{Operation, Path, Step};
use super::tensor::Tensor;
use crate::trained::{Ensemble, Link, Tree, TreeNode};

/// A tensor of a graph. Its first axis is rows, except in constants.
#[derive(Debug, Clone)]
pub(super) enum Value {
    /// The same for every row.
    Constant(Rc<Tensor>),
    /// Columns that depend on the row.
    Scores(Scores),
    /// The sum of a row's columns.
    RowSum(Scores),
}

/// Columns: a link of raw ones.
#[derive(Debug, Clone)]
pub(super) struct Scores {
    pub(super) raw: Rc<Raw>,
    /// [`Link::Sigmoid`] and [`Link::Logistic`] are written as [`Link::OneVsAll`] until the end.
    pub(super) link: Link,
    /// Names of classes, where a classifier or a `ZipMap` said them.
    pub(super) classes: Rc<Vec<String>>,
    /// Whether a classifier wrote these.
    pub(super) of_classifier: bool,
}

/// Raw columns.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Raw {
    /// Weighted sums of features.
    Columns(Vec<Column>),
    /// Sums of leaves.
    Trees(Ensemble),
}

/// `bias` + the sum of `weight` * feature.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Column {
    pub(super) bias: f64,
    /// In the order of features, none twice.
    pub(super) weights: Vec<(u32, f64)>,
    /// Where only one feature is in it: how it is computed, to the last bit.
    pub(super) path: Option<Path>,
    /// Whether it is held in float32.
    pub(super) single: bool,
}

/// Sigmoid of each column.
pub(super) const SIGMOIDS: Link = Link::OneVsAll { scale: 1.0, normalised: false };

impl Scores {
    /// Columns as they are.
    pub(super) fn raw(raw: Raw) -> Self {
        Scores {
            raw: Rc::new(raw),
            link: Link::Identity,
            classes: Rc::default(),
            of_classifier: false,
        }
    }

    /// What a classifier writes.
    pub(super) fn classified(raw: Raw, link: Link, classes: Vec<String>) -> Self {
        Scores { raw: Rc::new(raw), link, classes: Rc::new(classes), of_classifier: true }
    }

    /// The same with other raw columns.
    pub(super) fn with_raw(&self, raw: Raw) -> Self {
        Scores { raw: Rc::new(raw), ..self.clone() }
    }

    /// Number of columns.
    pub(super) fn width(&self) -> usize {
        if self.link == Link::Complement { 2 } else { self.raw.width() }
    }

    /// The same without [`Link::Complement`], so that raw columns are columns.
    pub(super) fn expanded(&self) -> Self {
        if self.link != Link::Complement {
            return self.clone();
        }
        Scores { link: Link::Identity, ..self.with_raw(self.raw.two_sided(1.0)) }
    }
}

impl Raw {
    /// Number of columns.
    pub(super) fn width(&self) -> usize {
        match self {
            Raw::Columns(columns) => columns.len(),
            Raw::Trees(ensemble) => ensemble.base.len(),
        }
    }

    /// How much there is to copy.
    pub(super) fn size(&self) -> usize {
        match self {
            Raw::Columns(columns) => {
                columns.iter().map(|column| 1 + column.weights.len()).sum::<usize>()
            }
            Raw::Trees(ensemble) => {
                let nodes = ensemble.trees.iter().flat_map(|tree| &tree.nodes);
                let size = |node: &TreeNode| match node {
                    TreeNode::Leaf(values) => 1 + values.len(),
                    TreeNode::Split { values, .. } => 2 + values.0.len(),
                };
                ensemble.base.len() + nodes.map(size).sum::<usize>()
            }
        }
    }

    /// Every column times `factor`.
    pub(super) fn scaled(&self, factor: f64) -> Self {
        match self {
            Raw::Columns(columns) => {
                let step = |column: &Column| column.step(Operation::Multiply, factor);
                Raw::Columns(columns.iter().map(step).collect())
            }
            Raw::Trees(ensemble) => Raw::Trees(mapped(ensemble, |_, value| value * factor)),
        }
    }

    /// Column k plus `terms[k]`, or the only term.
    pub(super) fn plus(&self, terms: &[f64]) -> Self {
        match self {
            Raw::Columns(columns) => {
                let step = |(k, column): (usize, &Column)| {
                    column.step(Operation::Add, terms[k % terms.len()])
                };
                Raw::Columns(columns.iter().enumerate().map(step).collect())
            }
            Raw::Trees(ensemble) => {
                let mut sum = ensemble.clone();
                for (k, base) in sum.base.iter_mut().enumerate() {
                    *base += terms[k % terms.len()];
                }
                Raw::Trees(sum)
            }
        }
    }

    /// Column k times `factors[k]`, or the only factor.
    pub(super) fn times(&self, factors: &[f64]) -> Self {
        let factor = |k: usize| factors[k % factors.len()];
        match self {
            Raw::Columns(columns) => {
                let step =
                    |(k, column): (usize, &Column)| column.step(Operation::Multiply, factor(k));
                Raw::Columns(columns.iter().enumerate().map(step).collect())
            }
            Raw::Trees(ensemble) => {
                Raw::Trees(mapped(ensemble, |output, value| value * factor(output)))
            }
        }
    }

    /// Column by column; `None` for trees and weighted sums, which have no common formula.
    pub(super) fn sum(&self, other: &Raw) -> Option<Self> {
        match (self, other) {
            (Raw::Columns(left), Raw::Columns(right)) => {
                let pairs = left.iter().zip(right);
                let sum = |(left, right): (&Column, &Column)| {
                    Column::combined(&[(1.0, left), (1.0, right)], 0.0, left.single)
                };
                Some(Raw::Columns(pairs.map(sum).collect()))
            }
            (Raw::Trees(left), Raw::Trees(right)) => {
                let base = left.base.iter().zip(&right.base).map(|(left, right)| left + right);
                let trees = left.trees.iter().chain(&right.trees).cloned().collect();
                Some(Raw::Trees(Ensemble { base: base.collect(), trees }))
            }
            _ => None,
        }
    }

    /// Columns side by side; `None` for trees beside weighted sums.
    pub(super) fn concat(parts: &[&Raw]) -> Option<Self> {
        if parts.iter().all(|part| matches!(part, Raw::Columns(_))) {
            let columns = parts.iter().filter_map(|part| match part {
                Raw::Columns(columns) => Some(columns.clone()),
                Raw::Trees(_) => None,
            });
            return Some(Raw::Columns(columns.flatten().collect()));
        }
        let mut all = Ensemble { base: Vec::new(), trees: Vec::new() };
        for part in parts {
            let Raw::Trees(ensemble) = part else { return None };
            let offset = u32::try_from(all.base.len()).ok()?;
            all.base.extend(&ensemble.base);
            all.trees.extend(ensemble.trees.iter().map(|tree| moved(tree, |k| Some(k + offset))));
        }
        Some(Raw::Trees(all))
    }

    /// The columns at `positions`, which are below the width and not repeated.
    pub(super) fn selected(&self, positions: &[usize]) -> Self {
        match self {
            Raw::Columns(columns) => {
                Raw::Columns(positions.iter().map(|&k| columns[k].clone()).collect())
            }
            Raw::Trees(ensemble) => {
                let mut places = vec![None; ensemble.base.len()];
                for (place, &k) in (0..).zip(positions) {
                    places[k] = Some(place);
                }
                let base = positions.iter().map(|&k| ensemble.base[k]).collect();
                let select = |tree| moved(tree, |k| places[k as usize]);
                Raw::Trees(Ensemble { base, trees: ensemble.trees.iter().map(select).collect() })
            }
        }
    }

    /// Two columns of one column x: `total` - x, and x.
    pub(super) fn two_sided(&self, total: f64) -> Self {
        match self {
            Raw::Columns(columns) => {
                let other = |column: &Column| column.step(Operation::SubtractFrom, total);
                Raw::Columns(columns.iter().map(other).chain(columns.iter().cloned()).collect())
            }
            Raw::Trees(ensemble) => {
                let base = ensemble.base.iter().map(|base| total - base);
                let leaf = |values: &[(u32, f64)]| {
                    values.iter().flat_map(|&(_, value)| [(0, -value), (1, value)]).collect()
                };
                let trees = ensemble.trees.iter().map(|tree| with_leaves(tree, leaf)).collect();
                let base = base.chain(ensemble.base.iter().copied()).collect();
                Raw::Trees(Ensemble { base, trees })
            }
        }
    }

    /// Whether column 0 is the negative of column 1, of two.
    pub(super) fn is_antisymmetric(&self) -> bool {
        if self.width() != 2 {
            return false;
        }
        match self {
            Raw::Columns(columns) => {
                let negative = columns[0].step(Operation::Multiply, -1.0);
                negative.bias == columns[1].bias && negative.weights == columns[1].weights
            }
            Raw::Trees(ensemble) => {
                let value = |values: &[(u32, f64)], wanted| {
                    let found = values.iter().find(|&&(output, _)| output == wanted);
                    found.map_or(0.0, |&(_, value)| value)
                };
                let is_odd = |node: &TreeNode| match node {
                    TreeNode::Leaf(values) => value(values, 0) == -value(values, 1),
                    TreeNode::Split { .. } => true,
                };
                ensemble.base[0] == -ensemble.base[1]
                    && ensemble.trees.iter().flat_map(|tree| &tree.nodes).all(is_odd)
            }
        }
    }
}

impl Column {
    /// Feature `feature`, held in float32 or not.
    pub(super) fn feature(feature: u32, single: bool) -> Self {
        let path = Some(Path::new(feature, single));
        Column { bias: 0.0, weights: vec![(feature, 1.0)], path, single }
    }

    /// A weighted sum of columns.
    pub(super) fn combined(terms: &[(f64, &Column)], bias: f64, single: bool) -> Self {
        let mut sum = bias;
        let mut weights = BTreeMap::new();
        for &(factor, column) in terms {
            sum += factor * column.bias;
            for &(feature, weight) in &column.weights {
                *weights.entry(feature).or_insert(0.0) += factor * weight;
            }
        }
        Column { bias: sum, weights: weights.into_iter().collect(), path: None, single }
    }

    /// Goes on by one rounded operation with a constant.
    pub(super) fn step(&self, operation: Operation, operand: f64) -> Self {
        let (factor, term) = match operation {
            Operation::Add => (1.0, operand),
            Operation::Subtract => (1.0, -operand),
            Operation::SubtractFrom => (-1.0, operand),
            Operation::Multiply => (operand, 0.0),
            Operation::Divide => (1.0 / operand, 0.0),
        };
        let step = Step { operation, operand, single: self.single };
        Column {
            bias: self.bias * factor + term,
            weights: self.weights.iter().map(|&(feature, w)| (feature, w * factor)).collect(),
            path: self.path.clone().and_then(|path| path.then(step)),
            single: self.single,
        }
    }

    /// Rounds to float32, or goes on in float64.
    pub(super) fn cast(&self, single: bool) -> Self {
        let path = match (self.single, single) {
            (false, true) => self.path.clone().and_then(Path::round),
            _ => self.path.clone(),
        };
        Column { path, single, ..self.clone() }
    }
}

/// All values of bases and leaves, by output.
fn mapped(ensemble: &Ensemble, map: impl Fn(usize, f64) -> f64) -> Ensemble {
    let leaf = |values: &[(u32, f64)]| {
        values.iter().map(|&(output, value)| (output, map(output as usize, value))).collect()
    };
    Ensemble {
        base: ensemble.base.iter().enumerate().map(|(k, &base)| map(k, base)).collect(),
        trees: ensemble.trees.iter().map(|tree| with_leaves(tree, leaf)).collect(),
    }
}

/// Renumbers outputs; drops those without a place.
fn moved(tree: &Tree, place: impl Fn(u32) -> Option<u32>) -> Tree {
    with_leaves(tree, |values| {
        values.iter().filter_map(|&(k, value)| place(k).map(|k| (k, value))).collect()
    })
}

/// The same splits with other leaves.
fn with_leaves(tree: &Tree, leaf: impl Fn(&[(u32, f64)]) -> Vec<(u32, f64)>) -> Tree {
    let node = |node: &TreeNode| match node {
        TreeNode::Leaf(values) => TreeNode::Leaf(leaf(values)),
        split @ TreeNode::Split { .. } => split.clone(),
    };
    Tree { nodes: tree.nodes.iter().map(node).collect() }
}
