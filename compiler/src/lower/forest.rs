//! Trees as what they compute: conditions on one feature merged as sets of atoms, unreachable
//! leaves dropped, equal subtrees shared.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::LowerError;
use super::atoms::{AtomSet, Atoms};
use super::walk::{Growth, Walk, parts};
use crate::trained::{Ensemble, TreeNode};

/// Position of a shape in a [`Forest`].
pub(crate) type ShapeId = usize;

/// A function of a row's atoms.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Shape {
    /// A constant, by its bits; never the negative zero.
    Leaf(u64),
    /// What the piece gives that holds the feature's atom. No child splits on the same feature
    /// at once. Pieces are disjoint; they hold all atoms that get here past the splits above.
    Split {
        /// Which feature.
        feature: usize,
        /// At least two, with different children.
        pieces: Vec<(AtomSet, ShapeId)>,
    },
}

/// A tree's part of one raw output.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Root {
    /// Which output.
    pub(crate) output: usize,
    /// What is added.
    pub(crate) shape: ShapeId,
    /// Smallest and largest leaf.
    pub(crate) range: (f64, f64),
}

/// All trees.
#[derive(Debug)]
pub(crate) struct Forest {
    /// Feature by feature.
    pub(crate) atoms: Vec<Atoms>,
    /// Children before what uses them.
    pub(crate) shapes: Vec<Shape>,
    /// For each shape the features that it depends on.
    pub(crate) uses: Vec<BTreeSet<usize>>,
    /// In the order of trees and outputs.
    pub(crate) roots: Vec<Root>,
    index: HashMap<Shape, ShapeId>,
}

impl Forest {
    /// Reads the trees of a valid model.
    pub(crate) fn of(ensemble: &Ensemble, features: usize) -> Result<Self, LowerError> {
        let atoms = atoms(ensemble, features);
        let mut forest = Self {
            atoms: Vec::new(),
            shapes: Vec::new(),
            uses: Vec::new(),
            roots: Vec::new(),
            index: HashMap::new(),
        };
        for (tree, output) in parts(ensemble) {
            let shape = Walk::new(&atoms, tree, output, &mut forest).root()?;
            let range = forest.range(shape);
            forest.roots.push(Root { output: output as usize, shape, range });
        }
        Ok(Self { atoms, ..forest })
    }

    fn intern(&mut self, shape: Shape) -> ShapeId {
        if let Some(&known) = self.index.get(&shape) {
            return known;
        }
        let mut uses = BTreeSet::new();
        if let Shape::Split { feature, pieces } = &shape {
            uses.insert(*feature);
            pieces.iter().for_each(|(_, child)| uses.extend(&self.uses[*child]));
        }
        let id = self.shapes.len();
        self.index.insert(shape.clone(), id);
        self.shapes.push(shape);
        self.uses.push(uses);
        id
    }

    /// Smallest and largest leaf below a shape; all of them are reachable.
    fn range(&self, root: ShapeId) -> (f64, f64) {
        let leaves = self.below([root]).into_iter().filter_map(|shape| self.leaf(shape));
        leaves.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(value), high.max(value))
        })
    }

    /// The constant that a shape is, if it is one.
    pub(crate) fn leaf(&self, shape: ShapeId) -> Option<f64> {
        match self.shapes[shape] {
            Shape::Leaf(bits) => Some(f64::from_bits(bits)),
            Shape::Split { .. } => None,
        }
    }

    /// Some shapes and all that they are made of.
    pub(crate) fn below(&self, roots: impl IntoIterator<Item = ShapeId>) -> BTreeSet<ShapeId> {
        let mut seen: BTreeSet<_> = roots.into_iter().collect();
        let mut waiting: Vec<_> = seen.iter().copied().collect();
        while let Some(shape) = waiting.pop() {
            if let Shape::Split { pieces, .. } = &self.shapes[shape] {
                let children = pieces.iter().map(|(_, child)| *child);
                waiting.extend(children.filter(|&child| seen.insert(child)));
            }
        }
        seen
    }

    /// Shapes of which some output is made.
    pub(crate) fn reachable(&self) -> BTreeSet<ShapeId> {
        self.below(self.roots.iter().map(|root| root.shape))
    }

    /// Whether the feature of a split is looked at again below, or was above: then its indicator
    /// waits for where it is not, so that the degree counts distinct features.
    pub(crate) fn is_deferred(&self, feature: usize, pieces: &[(AtomSet, ShapeId)]) -> bool {
        let again = pieces.iter().any(|(_, child)| self.uses[*child].contains(&feature));
        let all = pieces.iter().fold(AtomSet::of([]), |all, (set, _)| all.union(set));
        again || all != AtomSet::all(self.atoms[feature].len())
    }
}

impl Growth for Forest {
    fn leaf(&mut self, value: f64) -> ShapeId {
        self.intern(Shape::Leaf(value.to_bits()))
    }

    /// One of two shapes by a feature's atoms. A child that splits on the same feature gives its
    /// own pieces, pieces with one child become one.
    fn split(&mut self, feature: usize, _set: &AtomSet, sides: [(AtomSet, ShapeId); 2]) -> ShapeId {
        let mut by_child: BTreeMap<ShapeId, AtomSet> = BTreeMap::new();
        let mut add = |child, set: &AtomSet| {
            let piece = by_child.entry(child).or_insert_with(|| AtomSet::of([]));
            *piece = piece.union(set);
        };
        for (set, child) in &sides {
            match &self.shapes[*child] {
                Shape::Split { feature: same, pieces } if *same == feature => {
                    pieces.iter().for_each(|(piece, child)| add(*child, piece));
                }
                _ => add(*child, set),
            }
        }
        let mut pieces: Vec<_> = by_child.into_iter().map(|(child, set)| (set, child)).collect();
        pieces.sort();
        match pieces.as_slice() {
            [(_, child)] => *child,
            _ => self.intern(Shape::Split { feature, pieces }),
        }
    }
}

/// Cuts of each feature.
fn atoms(ensemble: &Ensemble, features: usize) -> Vec<Atoms> {
    let mut sets = vec![Vec::new(); features];
    for node in ensemble.trees.iter().flat_map(|tree| &tree.nodes) {
        if let TreeNode::Split { feature, values, .. } = node {
            sets[*feature as usize].push(values);
        }
    }
    sets.into_iter().map(|sets| Atoms::of(sets.into_iter())).collect()
}
