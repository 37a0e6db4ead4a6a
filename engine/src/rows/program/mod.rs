//! What a worker evaluates: ensembles as lists of leaves with the conditions on their paths.
//!
//! This is the secret of a model's owner. Nothing of it leaves the worker but sums of leaves that
//! rows reach.

mod format;
mod interpret;
mod validate;

use serde::{Deserialize, Serialize};

pub use format::{MAX_ROW_PROGRAM_BYTES, ROW_PROGRAM_FORMAT_VERSION, RowProgramFormatError};
pub use interpret::RowInterpretError;
pub use validate::{InvalidRowProgram, LeafFault, MAX_EDGES, MAX_LEAF, ValidRowProgram};

/// A condition on a path: holds where the bit of the column is as wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PathEdge {
    /// j: position of a column, from 0.
    pub column: u32,
    /// The bit b_j with which the condition holds. The *mismatch* of the edge, which is 0 then and 1
    /// otherwise, is `1 - b_j` where it is true and `b_j` where it is false.
    pub wanted: bool,
}

/// A leaf, reached by the rows for which every condition on its path holds.
///
/// A leaf of padding has the path of a real leaf and, as one more edge, the negation of one of its
/// conditions: no row reaches it, and bits that are none tell it from the others no better than they
/// tell real leaves from each other. It is the one leaf whose path has a column twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathLeaf {
    /// What it adds to the sum of its region, in steps of the region's scale. Of a leaf of padding,
    /// any value: nobody ever sees it.
    pub value: i64,
    /// Its conditions, in any order. A column is there once, except for padding.
    pub path: Vec<PathEdge>,
}

/// A tree: every row reaches exactly one of its leaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathTree {
    /// All leaves, padding included. A tree that is padding itself has the shape of a real one.
    pub leaves: Vec<PathLeaf>,
}

/// An ensemble that adds up to one integer: a raw output, or a class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnsembleRegion {
    /// Added to the leaves that a row reaches, one of each tree. The sum is from 0 to t2 - 1 for
    /// every row.
    pub offset: i64,
    /// T trees, T as [`OutputRegion::trees`](super::parameters::OutputRegion::trees) says; all their
    /// leaves are as many as its outputs.
    pub trees: Vec<PathTree>,
}

/// All that a worker knows of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowProgram {
    /// m: columns of an upload. Every edge has one of them.
    pub columns: u32,
    /// One for each raw output, in their order.
    pub regions: Vec<EnsembleRegion>,
}

impl RowProgram {
    /// Edges of the longest path. A weight of a tag is at most R, so t1 must be above R times this.
    pub fn longest_path(&self) -> usize {
        self.leaves().map(|leaf| leaf.path.len()).max().unwrap_or(0)
    }

    /// Edges of all paths.
    pub fn edges(&self) -> usize {
        self.leaves().map(|leaf| leaf.path.len()).sum()
    }

    /// All leaves, region by region and tree by tree.
    pub fn leaves(&self) -> impl Iterator<Item = &PathLeaf> {
        self.regions.iter().flat_map(|region| &region.trees).flat_map(|tree| &tree.leaves)
    }
}
