//! The way down a tree, for one output: sides of a split that no row takes are left out, with all
//! that is below them.

use std::collections::{BTreeMap, BTreeSet};

use super::LowerError;
use super::atoms::{AtomSet, Atoms};
use crate::trained::{Ensemble, Tree, TreeNode};

/// Longest path that is followed, conditions that turn out to be none included.
pub(crate) const MAX_DEPTH: usize = 2048;

/// What is made of a tree, from its leaves up. What was made is known by its position.
pub(super) trait Growth {
    /// A leaf; never the negative zero.
    fn leaf(&mut self, value: f64) -> usize;

    /// One of two by a feature: the first where its atom is in the split's set. The sides are the
    /// atoms that get here past the splits above, and both have some.
    fn split(&mut self, feature: usize, set: &AtomSet, sides: [(AtomSet, usize); 2]) -> usize;
}

/// Trees and the outputs that they add to.
pub(super) fn parts(ensemble: &Ensemble) -> impl Iterator<Item = (&Tree, u32)> {
    let of_tree = |tree| outputs(tree).into_iter().map(move |output| (tree, output));
    ensemble.trees.iter().flat_map(of_tree)
}

/// Outputs that a tree adds to.
fn outputs(tree: &Tree) -> BTreeSet<u32> {
    let leaves = tree.nodes.iter().filter_map(|node| match node {
        TreeNode::Leaf(values) => Some(values),
        TreeNode::Split { .. } => None,
    });
    leaves.flatten().map(|&(output, _)| output).collect()
}

/// A way down one tree, for one output.
pub(super) struct Walk<'a, G> {
    /// Of every feature.
    atoms: &'a [Atoms],
    tree: &'a Tree,
    output: u32,
    growth: &'a mut G,
    /// Atoms that get here, of each feature that was looked at.
    allowed: BTreeMap<usize, AtomSet>,
}

impl<'a, G: Growth> Walk<'a, G> {
    pub(super) fn new(atoms: &'a [Atoms], tree: &'a Tree, output: u32, growth: &'a mut G) -> Self {
        Self { atoms, tree, output, growth, allowed: BTreeMap::new() }
    }

    /// What is made of the whole tree.
    pub(super) fn root(mut self) -> Result<usize, LowerError> {
        self.below(0, 0)
    }

    fn below(&mut self, node: u32, depth: usize) -> Result<usize, LowerError> {
        if depth > MAX_DEPTH {
            return Err(LowerError::TooDeep);
        }
        match &self.tree.nodes[node as usize] {
            TreeNode::Leaf(values) => {
                let value = values.iter().find(|(output, _)| *output == self.output);
                // Adding zero makes a negative zero positive.
                Ok(self.growth.leaf(value.map_or(0.0, |(_, value)| *value) + 0.0))
            }
            TreeNode::Split { feature, values, missing_inside, inside, outside } => {
                let feature = *feature as usize;
                let atoms = &self.atoms[feature];
                let set = atoms.set(values, *missing_inside);
                let before = self.allowed.get(&feature).cloned();
                let here = before.clone().unwrap_or_else(|| AtomSet::all(atoms.len()));
                let sides = [(here.intersection(&set), *inside), (here.without(&set), *outside)];
                let made = match sides.each_ref().map(|(side, _)| side.is_empty()) {
                    [true, _] => self.below(*outside, depth + 1)?,
                    [_, true] => self.below(*inside, depth + 1)?,
                    _ => {
                        let [first, second] = sides.map(|(side, child)| {
                            self.allowed.insert(feature, side.clone());
                            self.below(child, depth + 1).map(|made| (side, made))
                        });
                        self.growth.split(feature, &set, [first?, second?])
                    }
                };
                match before {
                    Some(before) => self.allowed.insert(feature, before),
                    None => self.allowed.remove(&feature),
                };
                Ok(made)
            }
        }
    }
}
