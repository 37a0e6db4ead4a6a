//! Trees as the row engine takes them: paths of columns, padded so that only classes of sizes show.
//!
//! The number of trees of an output and of all their leaves are brought up to the next class
//! ([`size_class`], [`outputs_class`]). What is added must look like what is there to whoever sends bits, and values that
//! are no bits:
//!
//! * a leaf of padding has the path of a real leaf and the negation of one of its conditions, so that
//!   no bits reach it;
//! * a tree of padding has the shape of a real one and takes a part of its leaves' values.

use cipherscore_engine::rows::parameters::OutputRegion;
use cipherscore_engine::rows::plan::{RowShape, outputs_class, size_class};
use cipherscore_engine::rows::program::{EnsembleRegion, PathEdge, PathLeaf, PathTree, RowProgram};

use super::leaves::Rounding;
use super::paths::Paths;
use crate::stream::Stream;

/// Parts of a tree's values that padding takes are multiples of 1 / `PARTS`, from a quarter to three
/// quarters.
const PARTS: usize = 1 << 10;

/// Trees of each output, padded, whose leaves are not rounded yet.
#[derive(Debug)]
pub(crate) struct RowTrees {
    regions: Vec<Vec<RowTree>>,
}

/// A tree, or a part of one.
#[derive(Debug, Clone)]
struct RowTree {
    /// Its position among the trees' parts.
    root: usize,
    part: Part,
    leaves: Vec<RowLeaf>,
}

/// What of a leaf's integer v is added.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Part {
    /// v.
    Whole,
    /// floor(v f).
    First(f64),
    /// v - floor(v f).
    Rest(f64),
}

#[derive(Debug, Clone)]
struct RowLeaf {
    value: f64,
    path: Vec<PathEdge>,
}

impl Part {
    /// Grows with v, as every part of a tree must: the sum of what parts are at least and at most is
    /// what the tree is.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "below 2^44")]
    fn of(self, value: i64) -> i64 {
        let first = |factor: f64| (value as f64 * factor).floor() as i64;
        match self {
            Self::Whole => value,
            Self::First(factor) => first(factor),
            Self::Rest(factor) => value - first(factor),
        }
    }
}

impl RowTrees {
    /// Of so many outputs; `column` gives the position of each predicate's column. Some tree is more
    /// than one leaf.
    pub(crate) fn of(
        paths: &Paths,
        outputs: usize,
        column: impl Fn(usize) -> u32,
        stream: &mut Stream,
    ) -> Self {
        let mut regions = vec![Vec::new(); outputs];
        for tree in &paths.trees {
            let leaves = tree.leaves.iter().map(|leaf| {
                let edge =
                    |&(predicate, wanted): &_| PathEdge { column: column(predicate), wanted };
                RowLeaf { value: leaf.value, path: leaf.conditions.iter().map(edge).collect() }
            });
            let leaves = leaves.collect();
            regions[tree.output].push(RowTree { root: tree.root, part: Part::Whole, leaves });
        }
        let mut trees = Self { regions };
        trees.pad(stream);
        trees
    }

    fn pad(&mut self, stream: &mut Stream) {
        let longest = self.leaves().map(|leaf| leaf.path.len()).max().unwrap_or(0);
        let any = self.regions.iter().flatten().next().cloned();
        for region in &mut self.regions {
            if let (true, Some(shape)) = (region.is_empty(), &any) {
                // An output that no row changes: a tree that adds nothing.
                region.push(RowTree { part: Part::First(0.0), ..shape.clone() });
            }
            add_trees(region, stream);
            add_leaves(region, longest, stream);
        }
    }

    fn leaves(&self) -> impl Iterator<Item = &RowLeaf> {
        self.regions.iter().flatten().flat_map(|tree| &tree.leaves)
    }

    /// What everybody may know of them, with so many columns.
    pub(crate) fn shape(&self, columns: u32) -> RowShape {
        let region = |trees: &Vec<RowTree>| OutputRegion {
            outputs: to_u32(trees.iter().map(|tree| tree.leaves.len()).sum()),
            trees: to_u32(trees.len()),
        };
        let longest = self.leaves().map(|leaf| leaf.path.len()).max().unwrap_or(0);
        RowShape {
            columns,
            regions: self.regions.iter().map(region).collect(),
            longest_path: to_u32(longest),
        }
    }

    /// The program of the rounded leaves, of so many columns; `offset` is added to every sum.
    pub(crate) fn program(&self, rounding: &Rounding, columns: u32, offset: i64) -> RowProgram {
        let tree = |tree: &RowTree| {
            let leaf = |leaf: &RowLeaf| PathLeaf {
                value: tree.part.of(rounding.leaf(tree.root, leaf.value)),
                path: leaf.path.clone(),
            };
            PathTree { leaves: tree.leaves.iter().map(leaf).collect() }
        };
        let region = |trees: &Vec<RowTree>| EnsembleRegion {
            offset,
            trees: trees.iter().map(tree).collect(),
        };
        RowProgram { columns, regions: self.regions.iter().map(region).collect() }
    }
}

fn to_u32(count: usize) -> u32 {
    u32::try_from(count).expect("fewer leaves than memory")
}

/// Brings a region's trees up to a class: each tree of padding takes a part of another real one.
fn add_trees(region: &mut Vec<RowTree>, stream: &mut Stream) {
    let real = region.len();
    let mut whole: Vec<usize> = (0..real).collect();
    for _ in real..size_class(real) {
        let tree = whole.swap_remove(stream.below(whole.len()));
        let factor = (PARTS / 4 + stream.below(PARTS / 2)) as f64 / PARTS as f64;
        let padding = RowTree { part: Part::First(factor), ..region[tree].clone() };
        region[tree].part = Part::Rest(factor);
        region.push(padding);
    }
}

/// Brings a region's leaves up to a class. Paths that are not the longest become longer, where there
/// are any: the longest decides about the modulus of tags.
fn add_leaves(region: &mut [RowTree], longest: usize, stream: &mut Stream) {
    let mut real: Vec<(usize, usize)> = Vec::new();
    for (tree, described) in region.iter().enumerate() {
        real.extend((0..described.leaves.len()).map(|leaf| (tree, leaf)));
    }
    let shorter = |&(tree, leaf): &(usize, usize)| region[tree].leaves[leaf].path.len() < longest;
    let short: Vec<_> = real.iter().copied().filter(shorter).collect();
    let copied = if short.is_empty() { &real } else { &short };
    for _ in real.len()..outputs_class(real.len()) {
        let (tree, leaf) = copied[stream.below(copied.len())];
        let mut padding = region[tree].leaves[leaf].clone();
        let PathEdge { column, wanted } = padding.path[stream.below(padding.path.len())];
        padding.path.push(PathEdge { column, wanted: !wanted });
        region[tree].leaves.push(padding);
    }
}
