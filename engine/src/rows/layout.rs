//! Where columns are in an upload, and outputs in a reply. Both sides derive it from the parameters,
//! and trust no place that a file names: columns at one place would share a coefficient of the mask.

use super::parameters::{CANARIES, RowParameters};

/// Places of some valid parameters.
///
/// Column j is in group `bitrev(j div c)` at place `l = j mod c`, and so in coefficient
/// `(group + G l) S` of an upload. Groups are counted in bit-reversed order, so that those that are not
/// used are whole subtrees of the expansion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowLayout {
    dimension: usize,
    columns: usize,
    group_columns: usize,
    groups: usize,
    outputs: usize,
}

impl RowLayout {
    pub(super) fn new(parameters: &RowParameters) -> Self {
        let regions = parameters.regions.iter().map(|region| region.outputs as usize);
        Self {
            dimension: parameters.keys.dimension(),
            columns: parameters.columns as usize,
            group_columns: parameters.group_columns as usize,
            groups: parameters.columns.div_ceil(parameters.group_columns).next_power_of_two()
                as usize,
            outputs: regions.sum::<usize>() + CANARIES,
        }
    }

    /// m.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// c.
    pub fn group_columns(&self) -> usize {
        self.group_columns
    }

    /// G, a power of two.
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// Groups that have columns.
    pub fn used_groups(&self) -> usize {
        self.columns.div_ceil(self.group_columns)
    }

    /// S: columns are at multiples of it.
    pub fn stride(&self) -> usize {
        self.dimension / (self.groups * self.group_columns)
    }

    /// Rounds of the trace, log2 S: they double what is at multiples of S, and make everything else
    /// zero.
    pub fn trace_rounds(&self) -> u32 {
        self.stride().ilog2()
    }

    /// Group of a column, and place within it.
    pub fn place(&self, column: usize) -> (usize, usize) {
        (self.group_at(column / self.group_columns), column % self.group_columns)
    }

    /// The rank of a group: its columns are those from `rank c` on. Ranks are bit-reversed groups, and the
    /// other way round.
    pub fn rank_of(&self, group: usize) -> usize {
        self.group_at(group)
    }

    /// The group that has the columns from `rank c` on.
    pub fn group_at(&self, rank: usize) -> usize {
        match self.groups.ilog2() {
            0 => 0,
            bits => rank.reverse_bits() >> (usize::BITS - bits),
        }
    }

    /// Coefficient of a column in an upload.
    pub fn coefficient(&self, column: usize) -> usize {
        let (group, place) = self.place(column);
        (group + self.groups * place) * self.stride()
    }

    /// Coefficients between two columns of a group: N / c.
    pub fn outputs_per_reply(&self) -> usize {
        self.dimension / self.group_columns
    }

    /// L: outputs of a row, canaries included, which are the last.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Ciphertexts of the reply to a row. Output s is coefficient `s mod (N / c)` of ciphertext
    /// `s div (N / c)`.
    pub fn reply_ciphertexts(&self) -> usize {
        self.outputs.div_ceil(self.outputs_per_reply())
    }

    /// Outputs of each ciphertext of the reply to a row.
    pub fn outputs_of(&self, ciphertext: usize) -> std::ops::Range<usize> {
        let first = ciphertext * self.outputs_per_reply();
        first..self.outputs.min(first + self.outputs_per_reply())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::rows::tests::models::parameters;

    #[test]
    fn no_two_columns_share_a_coefficient() {
        for group_columns in [1, 2, 8, 64] {
            for columns in [1, 2, 3, 63, 64, 65, 128] {
                let layout = RowParameters { columns, group_columns, ..parameters() }.layout();
                let places: HashSet<_> =
                    (0..layout.columns()).map(|j| layout.coefficient(j)).collect();
                assert_eq!(places.len(), columns as usize);
                assert!(places.iter().all(|at| at % layout.stride() == 0 && *at < 8192));
                let groups: HashSet<_> = (0..layout.columns()).map(|j| layout.place(j).0).collect();
                assert_eq!(groups.len(), layout.used_groups());
                for rank in 0..layout.groups() {
                    assert_eq!(layout.rank_of(layout.group_at(rank)), rank);
                }
            }
        }
    }

    #[test]
    fn outputs_fill_ciphertexts_one_after_the_other() {
        let mut parameters = RowParameters { group_columns: 64, ..parameters() };
        for (outputs, expected) in [(120, &[(0, 128)][..]), (121, &[(0, 128), (128, 129)])] {
            parameters.regions[0].outputs = outputs;
            parameters.regions.truncate(1);
            let layout = parameters.layout();
            let found = (0..layout.reply_ciphertexts()).map(|reply| layout.outputs_of(reply));
            let found = found.map(|range| (range.start, range.end));
            assert_eq!(found.collect::<Vec<_>>(), expected);
        }
    }
}
