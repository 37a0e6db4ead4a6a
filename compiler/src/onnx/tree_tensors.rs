//! `TreeEnsemble`, version 5 of `ai.onnx.ml`: inner nodes and leaves in tables of their own.

use super::forest::{Branch, Forest, ForestNode, Rule};
use super::node::{Attributes, Node};
use super::path::Comparison;
use super::trees::{aggregated, output_count, regression_link};
use super::value::{Column, Raw, Scores};
use crate::reader::ReadError;
use crate::trained::Ensemble;

/// What a `TreeEnsemble` computes.
///
/// # Errors
/// What contradicts itself, and what is not supported.
pub(super) fn ensemble(node: &Node, columns: &[Column]) -> Result<Scores, ReadError> {
    let mut attributes = node.attributes()?;
    let outputs = output_count(node, attributes.integer("n_targets", 1))?;
    let aggregate = match attributes.integer("aggregate_function", 1) {
        0 => "AVERAGE",
        1 => "SUM",
        2 => "MIN",
        3 => "MAX",
        other => return Err(node.malformed(format!("aggregate_function {other}"))),
    };
    let transform = match attributes.integer("post_transform", 0) {
        0 => "NONE",
        1 => "SOFTMAX",
        2 => "LOGISTIC",
        3 => "SOFTMAX_ZERO",
        4 => "PROBIT",
        other => return Err(node.malformed(format!("post_transform {other}"))),
    };
    let roots = attributes.integers("tree_roots");
    let mut nodes = Table::read(node, &mut attributes)?.nodes(node, outputs)?;
    let inner = nodes.inner;
    let roots = roots.iter().map(|&root| match usize::try_from(root) {
        Ok(root) if root < inner => Ok(root),
        _ => Err(node.malformed(format!("root {root} of {inner} nodes"))),
    });
    let roots = roots.collect::<Result<Vec<_>, _>>()?;
    let forest = Forest { place: &node.place, columns, nodes: std::mem::take(&mut nodes.nodes) };
    let mut trees = forest.trees(&roots)?;
    aggregated(node, aggregate, &mut trees)?;
    let link = regression_link(node, transform, outputs)?;
    let raw = Raw::Trees(Ensemble { base: vec![0.0; outputs], trees });
    Ok(Scores { link, ..Scores::raw(raw) })
}

/// All lists of the operator.
struct Table {
    columns: Vec<i64>,
    modes: Vec<i64>,
    splits: Vec<f64>,
    when_true: Vec<i64>,
    when_false: Vec<i64>,
    true_is_leaf: Vec<i64>,
    false_is_leaf: Vec<i64>,
    missing: Vec<i64>,
    members: Vec<Vec<f64>>,
    leaf_outputs: Vec<i64>,
    leaf_weights: Vec<f64>,
}

/// Inner nodes, then one leaf for each way to one.
struct Nodes {
    inner: usize,
    nodes: Vec<ForestNode>,
}

impl Table {
    fn read(node: &Node, attributes: &mut Attributes<'_>) -> Result<Self, ReadError> {
        let mut numbers = |name: &str| match attributes.tensor(name)? {
            Some(tensor) => tensor.numbers(&node.place),
            None => Ok(Vec::new()),
        };
        let splits = numbers("nodes_splits")?;
        let leaf_weights = numbers("leaf_weights")?;
        let members = numbers("membership_values")?;
        let modes = match attributes.tensor("nodes_modes")? {
            Some(modes) => modes.integers(&node.place)?.to_vec(),
            None => Vec::new(),
        };
        let mut table = Table {
            columns: attributes.integers("nodes_featureids"),
            modes,
            splits,
            when_true: attributes.integers("nodes_truenodeids"),
            when_false: attributes.integers("nodes_falsenodeids"),
            true_is_leaf: attributes.integers("nodes_trueleafs"),
            false_is_leaf: attributes.integers("nodes_falseleafs"),
            missing: attributes.integers("nodes_missing_value_tracks_true"),
            members: sets(&members),
            leaf_outputs: attributes.integers("leaf_targetids"),
            leaf_weights,
        };
        let count = table.modes.len();
        if table.missing.is_empty() {
            table.missing = vec![0; count];
        }
        let ways = [table.when_true.len(), table.when_false.len(), table.true_is_leaf.len()];
        let lengths = [table.columns.len(), table.false_is_leaf.len(), table.missing.len()];
        let leaves_fit = table.leaf_outputs.len() == table.leaf_weights.len();
        let splits_fit = table.splits.len() == count;
        if count == 0 || ways != [count; 3] || lengths != [count; 3] || !leaves_fit || !splits_fit {
            return Err(node.malformed("attributes are empty or differ in length"));
        }
        Ok(table)
    }

    fn nodes(self, node: &Node, outputs: usize) -> Result<Nodes, ReadError> {
        let inner = self.modes.len();
        let mut leaves = Vec::new();
        let mut branches = Vec::with_capacity(inner);
        let mut members = self.members.iter();
        for entry in 0..inner {
            let rule = match comparison(self.modes[entry]) {
                Some(comparison) => Rule::Compare(comparison, self.splits[entry]),
                None if self.modes[entry] == 6 => {
                    let missing = || node.malformed("fewer membership_values than nodes ask for");
                    Rule::Member(members.next().ok_or_else(missing)?.clone())
                }
                None => {
                    return Err(node.malformed(format!("node mode {}", self.modes[entry])));
                }
            };
            let mut child = |id: i64, is_leaf: i64| -> Result<usize, ReadError> {
                if is_leaf == 0 {
                    let child = usize::try_from(id).ok().filter(|&child| child < inner);
                    let reason = || node.malformed(format!("entry {entry} leads to no node {id}"));
                    return child.ok_or_else(reason);
                }
                leaves.push(ForestNode::Leaf(vec![self.leaf(node, id, outputs)?]));
                Ok(inner + leaves.len() - 1)
            };
            branches.push(ForestNode::Branch(Branch {
                column: self.columns[entry],
                missing_holds: self.missing[entry] != 0,
                when_true: child(self.when_true[entry], self.true_is_leaf[entry])?,
                when_false: child(self.when_false[entry], self.false_is_leaf[entry])?,
                rule,
            }));
        }
        branches.extend(leaves);
        Ok(Nodes { inner, nodes: branches })
    }

    fn leaf(&self, node: &Node, id: i64, outputs: usize) -> Result<(u32, f64), ReadError> {
        let position = usize::try_from(id).ok().filter(|&at| at < self.leaf_weights.len());
        let Some(position) = position else {
            return Err(node.malformed(format!("there is no leaf {id}")));
        };
        match u32::try_from(self.leaf_outputs[position]) {
            Ok(output) if (output as usize) < outputs => Ok((output, self.leaf_weights[position])),
            _ => Err(node.malformed(format!("leaf {id} is of no target"))),
        }
    }
}

/// Sets end in NaN; the last one need not.
fn sets(members: &[f64]) -> Vec<Vec<f64>> {
    let mut sets: Vec<Vec<f64>> = members.split(|x| x.is_nan()).map(<[f64]>::to_vec).collect();
    if sets.last().is_some_and(Vec::is_empty) {
        sets.pop();
    }
    sets
}

fn comparison(mode: i64) -> Option<Comparison> {
    match mode {
        0 => Some(Comparison::LessOrEqual),
        1 => Some(Comparison::Less),
        2 => Some(Comparison::GreaterOrEqual),
        3 => Some(Comparison::Greater),
        4 => Some(Comparison::Equal),
        5 => Some(Comparison::NotEqual),
        _ => None,
    }
}
