//! Trees as the paths to their leaves, which is what the row engine sums.
//!
//! A condition of a path is a split as it is: a column or its complement. Conditions are not merged,
//! and none is left out because another one implies it: a data owner may send bits that contradict
//! each other, and every vector of bits must reach exactly one leaf of a tree. It does where each
//! split that is left looks at a column that none above it looks at.

use std::collections::{BTreeSet, HashMap};

use super::LowerError;
use super::atoms::{AtomSet, Atoms};
use super::columns::canonical;
use super::walk::{Growth, Walk, parts};
use crate::trained::Ensemble;

/// Whether a feature's atom is in a set, which holds atom 0.
pub(crate) type Predicate = (usize, AtomSet);

/// Position of a predicate in [`Paths::predicates`].
pub(crate) type PredicateId = usize;

/// All trees, each for one output.
#[derive(Debug)]
pub(crate) struct Paths {
    /// What the splits on paths ask.
    pub(crate) predicates: Vec<Predicate>,
    /// Those that are more than one leaf, in the order of trees and outputs.
    pub(crate) trees: Vec<TreePaths>,
}

/// A tree's part of one output.
#[derive(Debug)]
pub(crate) struct TreePaths {
    /// Its position among the trees' parts, constant ones included.
    pub(crate) root: usize,
    /// Which output it adds to.
    pub(crate) output: usize,
    /// At least two.
    pub(crate) leaves: Vec<LeafPath>,
}

/// A leaf and what leads to it.
#[derive(Debug)]
pub(crate) struct LeafPath {
    /// What is added.
    pub(crate) value: f64,
    /// Predicates, no one twice, and what each must be.
    pub(crate) conditions: Vec<(PredicateId, bool)>,
}

impl Paths {
    /// Reads the trees of a valid model, which have at most `limit` leaves: paths take far more memory
    /// than trees.
    pub(crate) fn of(
        ensemble: &Ensemble,
        atoms: &[Atoms],
        limit: usize,
    ) -> Result<Self, LowerError> {
        let mut growing = Growing {
            atoms,
            nodes: Vec::new(),
            index: HashMap::new(),
            predicates: Vec::new(),
            positions: HashMap::new(),
        };
        let (mut trees, mut room) = (Vec::new(), limit);
        for (root, (tree, output)) in parts(ensemble).enumerate() {
            let top = Walk::new(atoms, tree, output, &mut growing).root()?;
            let leaves = growing.leaves(top, room).ok_or(LowerError::TooManyLeaves { limit })?;
            if leaves.len() > 1 {
                room -= leaves.len();
                trees.push(TreePaths { root, output: output as usize, leaves });
            }
        }
        Ok(Self { predicates: growing.predicates, trees })
    }

    /// Sets of each feature that some path asks for.
    pub(crate) fn sets(&self, features: usize) -> Vec<BTreeSet<AtomSet>> {
        let mut sets = vec![BTreeSet::new(); features];
        for (feature, set) in &self.predicates {
            sets[*feature].insert(set.clone());
        }
        sets
    }
}

/// A function of a feature's atoms.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum PathNode {
    /// A constant, by its bits.
    Leaf(u64),
    /// The first where the feature's atom is in the set, which holds atom 0; else the second.
    Split(Predicate, [usize; 2]),
}

/// Nodes of all trees, children before what uses them, none twice.
struct Growing<'a> {
    atoms: &'a [Atoms],
    nodes: Vec<PathNode>,
    index: HashMap<PathNode, usize>,
    /// Of the splits that are on some path.
    predicates: Vec<Predicate>,
    positions: HashMap<Predicate, PredicateId>,
}

impl Growing<'_> {
    fn intern(&mut self, node: PathNode) -> usize {
        if let Some(&known) = self.index.get(&node) {
            return known;
        }
        self.index.insert(node.clone(), self.nodes.len());
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn predicate(&mut self, predicate: &Predicate) -> PredicateId {
        if let Some(&known) = self.positions.get(predicate) {
            return known;
        }
        let position = self.predicates.len();
        self.predicates.push(predicate.clone());
        self.positions.insert(predicate.clone(), position);
        position
    }

    /// Leaves below a node, left to right, unless there are more than `most`.
    fn leaves(&mut self, top: usize, most: usize) -> Option<Vec<LeafPath>> {
        let mut leaves = Vec::new();
        let mut waiting = vec![(top, Vec::new())];
        while let Some((node, conditions)) = waiting.pop() {
            // Each that waits has a leaf at least. A single leaf is a constant, which always fits.
            if leaves.len() + waiting.len() + 1 > most.max(1) {
                return None;
            }
            match self.nodes[node].clone() {
                PathNode::Leaf(bits) => {
                    leaves.push(LeafPath { value: f64::from_bits(bits), conditions });
                }
                PathNode::Split(predicate, [holds, fails]) => {
                    let predicate = self.predicate(&predicate);
                    for (child, wanted) in [(fails, false), (holds, true)] {
                        let mut conditions = conditions.clone();
                        conditions.push((predicate, wanted));
                        waiting.push((child, conditions));
                    }
                }
            }
        }
        Some(leaves)
    }
}

impl Growth for Growing<'_> {
    fn leaf(&mut self, value: f64) -> usize {
        self.intern(PathNode::Leaf(value.to_bits()))
    }

    /// A split whose sides are equal is none. No set is split by twice on a path: the second time
    /// one side is empty.
    fn split(
        &mut self,
        feature: usize,
        set: &AtomSet,
        [(_, inside), (_, outside)]: [(AtomSet, usize); 2],
    ) -> usize {
        if inside == outside {
            return inside;
        }
        let (set, is_complement) = canonical(set, self.atoms[feature].len());
        let children = if is_complement { [outside, inside] } else { [inside, outside] };
        self.intern(PathNode::Split((feature, set), children))
    }
}
