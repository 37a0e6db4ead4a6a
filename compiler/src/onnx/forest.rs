//! Node tables of tree operators to trees.

use super::path::Comparison;
use super::value::Column;
use crate::reader::ReadError;
use crate::trained::{Tree, TreeNode, ValueSet};

/// All nodes of an operator, whatever tree they belong to.
pub(super) struct Forest<'c> {
    /// Of the operator, for errors.
    pub(super) place: &'c str,
    /// What the operator compares.
    pub(super) columns: &'c [Column],
    pub(super) nodes: Vec<ForestNode>,
}

/// A node; positions are those of [`Forest::nodes`].
pub(super) enum ForestNode {
    Leaf(Vec<(u32, f64)>),
    Branch(Branch),
}

/// A comparison and where it leads.
pub(super) struct Branch {
    pub(super) column: i64,
    pub(super) rule: Rule,
    /// Whether NaN goes the way of rows for which the rule holds, whatever the rule says.
    pub(super) missing_holds: bool,
    pub(super) when_true: usize,
    pub(super) when_false: usize,
}

/// What a branch asks.
pub(super) enum Rule {
    Compare(Comparison, f64),
    Member(Vec<f64>),
}

impl Forest<'_> {
    /// The trees below `roots`. Nodes keep the order of the file where children come after their
    /// parents there; what no root reaches is left out.
    ///
    /// # Errors
    /// A node with two ways to it, which is also what a cycle has.
    pub(super) fn trees(mut self, roots: &[usize]) -> Result<Vec<Tree>, ReadError> {
        let mut reached = vec![false; self.nodes.len()];
        roots.iter().map(|&root| self.tree(root, &mut reached)).collect()
    }

    fn tree(&mut self, root: usize, reached: &mut [bool]) -> Result<Tree, ReadError> {
        let mut order = self.reachable(root, reached)?;
        let mut sorted = order.clone();
        sorted.sort_unstable();
        let child_before = |&parent: &usize| {
            self.children(parent).is_some_and(|children| children.iter().any(|&c| c < parent))
        };
        if !sorted.iter().any(child_before) {
            order = sorted;
        }
        let mut places = std::collections::HashMap::with_capacity(order.len());
        for (place, &position) in (0u32..).zip(&order) {
            places.insert(position, place);
        }
        let nodes = order.iter().map(|&position| {
            let leaf = ForestNode::Leaf(Vec::new());
            match std::mem::replace(&mut self.nodes[position], leaf) {
                ForestNode::Leaf(values) => Ok(TreeNode::Leaf(values)),
                ForestNode::Branch(branch) => {
                    let children = [places[&branch.when_true], places[&branch.when_false]];
                    self.split(position, &branch, children)
                }
            }
        });
        Ok(Tree { nodes: nodes.collect::<Result<_, _>>()? })
    }

    /// Positions of all nodes below `root`, parents before their children.
    fn reachable(&self, root: usize, reached: &mut [bool]) -> Result<Vec<usize>, ReadError> {
        let mut order = Vec::new();
        let mut open = vec![root];
        while let Some(position) = open.pop() {
            match reached.get_mut(position) {
                Some(reached) if !*reached => *reached = true,
                Some(_) => return Err(self.malformed(position, "two ways lead to it")),
                None => return Err(self.malformed(position, "there is no such node")),
            }
            order.push(position);
            if let Some([when_true, when_false]) = self.children(position) {
                open.extend([when_false, when_true]);
            }
        }
        Ok(order)
    }

    fn children(&self, position: usize) -> Option<[usize; 2]> {
        match &self.nodes[position] {
            ForestNode::Leaf(_) => None,
            ForestNode::Branch(branch) => Some([branch.when_true, branch.when_false]),
        }
    }

    fn split(
        &self,
        position: usize,
        branch: &Branch,
        [inside, outside]: [u32; 2],
    ) -> Result<TreeNode, ReadError> {
        let column = usize::try_from(branch.column).ok().and_then(|at| self.columns.get(at));
        let Some(column) = column else {
            let reason = format!("compares column {} of {}", branch.column, self.columns.len());
            return Err(self.malformed(position, reason));
        };
        let Some(path) = &column.path else {
            let what = format!("comparing column {}, which mixes features,", branch.column);
            return Err(ReadError::unsupported(self.at(position), what));
        };
        let set = match &branch.rule {
            Rule::Compare(comparison, threshold) => path.set(*comparison, *threshold),
            Rule::Member(members) => path.members(members),
        };
        let values: ValueSet = set.map_err(|_| {
            let what = "telling infinity apart from the largest number";
            ReadError::unsupported(self.at(position), what)
        })?;
        // NaN differs from everything, so `!=` holds for it in any case.
        let differs = matches!(branch.rule, Rule::Compare(Comparison::NotEqual, _));
        let missing_inside = branch.missing_holds || differs;
        Ok(TreeNode::Split { feature: path.feature, values, missing_inside, inside, outside })
    }

    fn at(&self, position: usize) -> String {
        format!("{}, entry {position} of nodes", self.place)
    }

    fn malformed(&self, position: usize, reason: impl Into<String>) -> ReadError {
        ReadError::malformed(self.at(position), reason)
    }
}
