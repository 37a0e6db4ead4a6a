//! The program on bits: the integer ensemble, which decryption must give row by row.

use thiserror::Error;

use super::{EnsembleRegion, PathLeaf, ValidRowProgram};

/// Why a row has no value.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RowInterpretError {
    /// The row has another number of bits than the program has columns.
    #[error("row of {found} bits for a program of {expected} columns")]
    Columns {
        /// What the program reads.
        expected: usize,
        /// What the row has.
        found: usize,
    },
    /// The leaves of a tree do not cover every vector of bits exactly once.
    #[error("a row reaches {found} leaves of tree {tree} of region {region}, not one")]
    Reached {
        /// Position of the region.
        region: usize,
        /// Position of the tree.
        tree: usize,
        /// Leaves that are reached.
        found: usize,
    },
}

impl PathLeaf {
    /// Whether every condition of its path holds.
    pub fn is_reached(&self, bits: &[bool]) -> bool {
        self.path.iter().all(|edge| bits[edge.column as usize] == edge.wanted)
    }
}

impl ValidRowProgram {
    /// Sums of all regions, exact, for the bits of one row.
    pub fn interpret(&self, bits: &[bool]) -> Result<Vec<i64>, RowInterpretError> {
        let program = self.program();
        let (found, expected) = (bits.len(), program.columns as usize);
        if found != expected {
            return Err(RowInterpretError::Columns { expected, found });
        }
        let regions = program.regions.iter().enumerate();
        regions.map(|(region, definition)| sum(region, definition, bits)).collect()
    }
}

fn sum(
    region: usize,
    definition: &EnsembleRegion,
    bits: &[bool],
) -> Result<i64, RowInterpretError> {
    let mut sum = definition.offset;
    for (tree, leaves) in definition.trees.iter().enumerate() {
        let reached: Vec<_> = leaves.leaves.iter().filter(|leaf| leaf.is_reached(bits)).collect();
        match reached.as_slice() {
            [leaf] => sum += leaf.value,
            other => {
                let found = other.len();
                return Err(RowInterpretError::Reached { region, tree, found });
            }
        }
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::super::{PathEdge, PathTree, RowProgram};
    use super::*;
    use crate::rows::parameters::{OutputRegion, RowParameters};
    use crate::rows::tests::models;

    fn tree(leaves: &[(i64, &[(u32, bool)])]) -> ValidRowProgram {
        let edge = |&(column, wanted): &(u32, bool)| PathEdge { column, wanted };
        let leaf = |(value, path): &(i64, &[(u32, bool)])| PathLeaf {
            value: *value,
            path: path.iter().map(edge).collect(),
        };
        let leaves: Vec<_> = leaves.iter().map(leaf).collect();
        let outputs = u32::try_from(leaves.len()).unwrap();
        let parameters = RowParameters {
            columns: 2,
            regions: vec![OutputRegion { outputs, trees: 1 }],
            ..models::parameters()
        };
        let region = EnsembleRegion { offset: 7, trees: vec![PathTree { leaves }] };
        RowProgram { columns: 2, regions: vec![region] }.validate(&parameters).unwrap()
    }

    #[test]
    fn every_vector_of_bits_reaches_one_leaf() {
        let program = tree(&[
            (10, &[(0, true)]),
            (20, &[(0, false), (1, true)]),
            (-3, &[(0, false), (1, false)]),
            (99, &[(0, true), (0, false)]),
        ]);
        for (bits, leaf) in
            [([true, true], 10), ([true, false], 10), ([false, true], 20), ([false, false], -3)]
        {
            assert_eq!(program.interpret(&bits).unwrap(), [7 + leaf]);
        }
        let short = RowInterpretError::Columns { expected: 2, found: 1 };
        assert_eq!(program.interpret(&[true]).unwrap_err(), short);
    }

    #[test]
    fn a_row_that_reaches_none_or_two_leaves_has_no_value() {
        let program = tree(&[(1, &[(0, true)]), (2, &[(1, true)])]);
        let reached = |bits: [bool; 2]| match program.interpret(&bits).unwrap_err() {
            RowInterpretError::Reached { region: 0, tree: 0, found } => found,
            other => panic!("{other}"),
        };
        assert_eq!((reached([true, true]), reached([false, false])), (2, 0));
    }
}
