//! Checks a program, so that tags and values of every row are what its parameters promise.

use std::collections::HashMap;

use thiserror::Error;

use super::super::parameters::{InvalidRowParameters, RowParameters};
use super::{EnsembleRegion, PathLeaf, PathTree, RowProgram};

/// Largest magnitude of a leaf and of what is added to a region, so that no sum overflows.
pub const MAX_LEAF: i64 = 1 << 44;
/// Edges of all paths of a program.
pub const MAX_EDGES: usize = 1 << 23;

/// Why a program must not be evaluated.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidRowProgram {
    /// Parameters that nothing should be evaluated with.
    #[error(transparent)]
    Parameters(#[from] InvalidRowParameters),
    /// Another number of columns, regions, trees or leaves than the parameters say.
    #[error("{what}: the program has {found}, where the parameters say {expected}")]
    Counts {
        /// Of what.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many there should be.
        expected: usize,
    },
    /// Above [`MAX_EDGES`].
    #[error("paths have {0} edges together, above the limit of {MAX_EDGES}")]
    Edges(usize),
    /// A path is too long for the modulus of tags.
    #[error("a path of {longest} edges with {factors} factors does not fit tag modulus {modulus}")]
    Path {
        /// Edges of the longest path.
        longest: usize,
        /// R.
        factors: u32,
        /// t1.
        modulus: u32,
    },
    /// Sums of a region do not fit the modulus of values.
    #[error("sums of region {region} are from {low} to {high}, not from 0 to {modulus} - 1")]
    Sums {
        /// Its position.
        region: usize,
        /// Least sum.
        low: i64,
        /// Largest sum.
        high: i64,
        /// t2.
        modulus: u64,
    },
    /// A leaf is wrong.
    #[error("region {region}, tree {tree}, leaf {leaf}: {fault}")]
    Leaf {
        /// Position of its region.
        region: usize,
        /// Position of its tree.
        tree: usize,
        /// Its position.
        leaf: usize,
        /// What is wrong.
        fault: LeafFault,
    },
    /// A tree without a leaf that a row could reach.
    #[error("region {region}, tree {tree}: every leaf is padding")]
    NoLeaf {
        /// Position of its region.
        region: usize,
        /// Its position.
        tree: usize,
    },
}

/// What is wrong with a leaf.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LeafFault {
    /// The upload has no such column.
    #[error("there is no column {0}")]
    NoColumn(u32),
    /// The same edge twice, or two columns both ways.
    #[error("column {0} is there twice; only padding has one column both ways")]
    Repeated(u32),
    /// Above [`MAX_LEAF`] in magnitude.
    #[error("{0} is out of bounds")]
    OutOfBounds(i64),
}

/// A program that was checked against its parameters. Only this can be evaluated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidRowProgram {
    program: RowProgram,
}

impl ValidRowProgram {
    /// The program.
    pub fn program(&self) -> &RowProgram {
        &self.program
    }

    /// The program, to be evaluated.
    pub fn into_program(self) -> RowProgram {
        self.program
    }
}

/// What a tree adds at least and at most, over the leaves that a row can reach.
type Range = (i64, i64);

impl RowProgram {
    /// Checks counts, columns, paths and sums against valid parameters.
    ///
    /// Where the leaves of each tree cover every vector of bits, which is the compiler's to see to, the
    /// tag of a leaf is 0 if and only if the row reaches it: the mismatches of a path add up to at most
    /// `R` times its length, which is below t1.
    pub fn validate(
        self,
        parameters: &RowParameters,
    ) -> Result<ValidRowProgram, InvalidRowProgram> {
        self.check_counts(parameters)?;
        let edges = self.edges();
        if edges > MAX_EDGES {
            return Err(InvalidRowProgram::Edges(edges));
        }
        let (longest, factors) = (self.longest_path(), parameters.tag_factors);
        let modulus = parameters.tag_modulus;
        if longest as u64 * u64::from(factors) >= u64::from(modulus) {
            return Err(InvalidRowProgram::Path { longest, factors, modulus });
        }
        for (region, definition) in self.regions.iter().enumerate() {
            self.check_region(region, definition, parameters.value_modulus)?;
        }
        Ok(ValidRowProgram { program: self })
    }

    fn check_counts(&self, parameters: &RowParameters) -> Result<(), InvalidRowProgram> {
        let equal = |what, found: usize, expected: u32| match found == expected as usize {
            true => Ok(()),
            false => Err(InvalidRowProgram::Counts { what, found, expected: expected as usize }),
        };
        equal("columns", self.columns as usize, parameters.columns)?;
        let regions = u32::try_from(parameters.regions.len()).unwrap_or(u32::MAX);
        equal("raw outputs", self.regions.len(), regions)?;
        for (region, public) in self.regions.iter().zip(&parameters.regions) {
            equal("trees of a raw output", region.trees.len(), public.trees)?;
            let leaves = region.trees.iter().map(|tree| tree.leaves.len()).sum();
            equal("leaves of a raw output", leaves, public.outputs)?;
        }
        Ok(())
    }

    fn check_region(
        &self,
        region: usize,
        definition: &EnsembleRegion,
        modulus: u64,
    ) -> Result<(), InvalidRowProgram> {
        let (mut low, mut high) = (definition.offset, definition.offset);
        if low.unsigned_abs() > MAX_LEAF.unsigned_abs() {
            return Err(InvalidRowProgram::Sums { region, low, high, modulus });
        }
        for (position, tree) in definition.trees.iter().enumerate() {
            let fault =
                |(leaf, fault)| InvalidRowProgram::Leaf { region, tree: position, leaf, fault };
            let range = self.check_tree(tree).map_err(fault)?;
            let (least, most) =
                range.ok_or(InvalidRowProgram::NoLeaf { region, tree: position })?;
            // At most 2^17 leaves of 2^44.
            (low, high) = (low + least, high + most);
        }
        let fits = low >= 0 && u64::try_from(high).is_ok_and(|high| high < modulus);
        if fits { Ok(()) } else { Err(InvalidRowProgram::Sums { region, low, high, modulus }) }
    }

    fn check_tree(&self, tree: &PathTree) -> Result<Option<Range>, (usize, LeafFault)> {
        let mut range: Option<Range> = None;
        for (position, leaf) in tree.leaves.iter().enumerate() {
            let is_padding = self.check_leaf(leaf).map_err(|fault| (position, fault))?;
            if !is_padding {
                let (low, high) = range.unwrap_or((leaf.value, leaf.value));
                range = Some((low.min(leaf.value), high.max(leaf.value)));
            }
        }
        Ok(range)
    }

    /// Whether a leaf is padding: one of its columns is there both ways.
    fn check_leaf(&self, leaf: &PathLeaf) -> Result<bool, LeafFault> {
        if leaf.value.unsigned_abs() > MAX_LEAF.unsigned_abs() {
            return Err(LeafFault::OutOfBounds(leaf.value));
        }
        let mut is_padding = false;
        let mut wanted = HashMap::with_capacity(leaf.path.len());
        for edge in &leaf.path {
            if edge.column >= self.columns {
                return Err(LeafFault::NoColumn(edge.column));
            }
            match wanted.insert(edge.column, edge.wanted) {
                None => {}
                Some(before) if before != edge.wanted && !is_padding => is_padding = true,
                Some(_) => return Err(LeafFault::Repeated(edge.column)),
            }
        }
        Ok(is_padding)
    }
}

#[cfg(test)]
mod tests {
    use super::super::PathEdge;
    use super::*;
    use crate::rows::tests::models;

    fn edge(column: u32, wanted: bool) -> PathEdge {
        PathEdge { column, wanted }
    }

    fn leaf(value: i64, path: &[PathEdge]) -> PathLeaf {
        PathLeaf { value, path: path.to_vec() }
    }

    /// `b0 ? 10 : (b1 ? 20 : 0)`, with a leaf of padding.
    fn program() -> RowProgram {
        let leaves = vec![
            leaf(10, &[edge(0, true)]),
            leaf(20, &[edge(0, false), edge(1, true)]),
            leaf(0, &[edge(0, false), edge(1, false)]),
            leaf(-7, &[edge(0, true), edge(0, false)]),
        ];
        let region = EnsembleRegion { offset: 5, trees: vec![PathTree { leaves }] };
        RowProgram { columns: 2, regions: vec![region] }
    }

    fn parameters() -> RowParameters {
        let regions = vec![crate::rows::parameters::OutputRegion { outputs: 4, trees: 1 }];
        RowParameters {
            columns: 2,
            regions,
            tag_modulus: 7,
            tag_factors: 3,
            value_modulus: 29,
            ..models::parameters()
        }
    }

    fn refused(change: impl FnOnce(&mut RowProgram)) -> InvalidRowProgram {
        let mut changed = program();
        change(&mut changed);
        changed.validate(&parameters()).unwrap_err()
    }

    fn fault(change: impl FnOnce(&mut PathLeaf)) -> LeafFault {
        match refused(|program| change(&mut program.regions[0].trees[0].leaves[1])) {
            InvalidRowProgram::Leaf { region: 0, tree: 0, leaf: 1, fault } => fault,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn a_program_of_its_parameters_is_valid() {
        let valid = program().validate(&parameters()).unwrap();
        assert_eq!(valid.program(), &program());
    }

    #[test]
    fn counts_are_those_of_the_parameters() {
        for (what, change) in [
            ("columns", (|p| p.columns = 3) as fn(&mut RowProgram)),
            ("raw outputs", |p| p.regions.push(EnsembleRegion { offset: 0, trees: vec![] })),
            ("trees of a raw output", |p| p.regions[0].trees.clear()),
            ("leaves of a raw output", |p| drop(p.regions[0].trees[0].leaves.pop())),
        ] {
            let refused = refused(change);
            assert!(matches!(refused, InvalidRowProgram::Counts { what: of, .. } if of == what));
        }
    }

    #[test]
    fn every_fault_of_a_leaf_is_refused() {
        assert_eq!(fault(|leaf| leaf.path[1].column = 2), LeafFault::NoColumn(2));
        assert_eq!(fault(|leaf| leaf.path[1] = leaf.path[0]), LeafFault::Repeated(0));
        let both_ways = [edge(0, true), edge(0, false), edge(1, true), edge(1, false)];
        let twice = |leaf: &mut PathLeaf| {
            leaf.path = both_ways[..3].iter().chain(&both_ways[3..]).copied().collect()
        };
        let mut wide = parameters();
        wide.tag_factors = 1;
        let mut changed = program();
        twice(&mut changed.regions[0].trees[0].leaves[1]);
        let error = changed.validate(&wide).unwrap_err();
        assert!(error.to_string().contains("column 1 is there twice"), "{error}");
        assert_eq!(fault(|leaf| leaf.value = i64::MIN), LeafFault::OutOfBounds(i64::MIN));
    }

    #[test]
    fn paths_and_sums_fit_their_moduli() {
        let long = refused(|p| p.regions[0].trees[0].leaves[3].path.push(edge(1, true)));
        assert_eq!(long, InvalidRowProgram::Path { longest: 3, factors: 3, modulus: 7 });
        // 5 + 20 is below 29; padding does not count.
        refused(|p| p.regions[0].offset = 9);
        refused(|p| p.regions[0].offset = -1);
        refused(|p| p.regions[0].offset = i64::MAX);
        let mut padding = program();
        padding.regions[0].trees[0].leaves[3].value = 1000;
        padding.validate(&parameters()).unwrap();
        let none = refused(|p| {
            for leaf in &mut p.regions[0].trees[0].leaves {
                leaf.path = vec![edge(0, true), edge(0, false)];
            }
        });
        assert_eq!(none, InvalidRowProgram::NoLeaf { region: 0, tree: 0 });
    }
}
