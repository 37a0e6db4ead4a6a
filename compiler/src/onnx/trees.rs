//! `TreeEnsembleClassifier` and `TreeEnsembleRegressor`, versions 1 to 4 of `ai.onnx.ml`.
//!
//! Where the specification is silent this is what onnxruntime computes; where the two contradict
//! each other the model is refused.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::forest::{Branch, Forest, ForestNode, Rule};
use super::node::{Attributes, Node};
use super::path::Comparison;
use super::value::{Column, Raw, SIGMOIDS, Scores};
use crate::reader::ReadError;
use crate::trained::{Ensemble, Link, Tree, TreeNode};

/// Most targets or classes of an operator.
pub(super) const MAX_OUTPUTS: usize = 4096;

/// What a regressor predicts.
///
/// # Errors
/// What contradicts itself, and what is not supported.
pub(super) fn regressor(node: &Node, columns: &[Column]) -> Result<Scores, ReadError> {
    let mut attributes = node.attributes()?;
    let outputs = output_count(node, attributes.integer("n_targets", 1))?;
    let weights = Weights::read(node, &mut attributes, "target")?;
    let aggregate = attributes.text("aggregate_function", "SUM")?;
    let transform = attributes.text("post_transform", "NONE")?;
    let base = attributes.either("base_values")?;
    let mut trees = trees(node, attributes, columns, weights, outputs)?;
    aggregated(node, &aggregate, &mut trees)?;
    let base = match base.len() {
        0 => vec![0.0; outputs],
        length if length == outputs => base,
        length => return Err(node.malformed(format!("{length} base values, {outputs} targets"))),
    };
    let link = regression_link(node, &transform, outputs)?;
    Ok(Scores { link, ..Scores::raw(Raw::Trees(Ensemble { base, trees })) })
}

/// Probabilities or scores of a classifier.
///
/// # Errors
/// What contradicts itself, and what is not supported.
pub(super) fn classifier(node: &Node, columns: &[Column]) -> Result<Scores, ReadError> {
    let mut attributes = node.attributes()?;
    let classes = attributes.classes("classlabels_strings", "classlabels_int64s")?;
    let outputs = output_count(node, i64::try_from(classes.len()).unwrap_or(i64::MAX))?;
    let weights = Weights::read(node, &mut attributes, "class")?;
    let transform = attributes.text("post_transform", "NONE")?;
    let base = attributes.either("base_values")?;
    let written: BTreeSet<i64> = weights.outputs.iter().copied().collect();
    let all_positive = weights.values.iter().all(|&weight| weight >= 0.0);
    let trees = trees(node, attributes, columns, weights, outputs)?;
    match outputs {
        1 => Err(node.unsupported("a classifier of one class")),
        2 if written.len() == 1 => {
            if written.contains(&1) {
                return Err(node.unsupported("two classes with weights of the second alone"));
            }
            let base = match base[..] {
                [] => 0.0,
                [base] => base,
                _ => return Err(node.unsupported("two base values with weights of one class")),
            };
            let trees = trees.into_iter().map(first_output).collect();
            let raw = Raw::Trees(Ensemble { base: vec![base], trees });
            binary(node, raw, &transform, all_positive, classes)
        }
        _ => {
            let base = match base.len() {
                0 => vec![0.0; outputs],
                length if length == outputs && outputs > 2 => base,
                length => {
                    let what = format!("{length} base values with weights of {outputs} classes");
                    return Err(node.unsupported(what));
                }
            };
            let link = link_of_several(node, &transform)?;
            Ok(Scores::classified(Raw::Trees(Ensemble { base, trees }), link, classes))
        }
    }
}

/// Two classes of which the file has one score s, that of the second.
pub(super) fn binary(
    node: &Node,
    raw: Raw,
    transform: &str,
    all_positive: bool,
    classes: Vec<String>,
) -> Result<Scores, ReadError> {
    match transform {
        // s is a probability exactly if no weight is negative.
        "NONE" if all_positive => Ok(Scores::classified(raw, Link::Complement, classes)),
        "NONE" => Ok(Scores::classified(raw.two_sided(0.0), Link::Identity, classes)),
        "LOGISTIC" => Ok(Scores::classified(raw.two_sided(0.0), SIGMOIDS, classes)),
        other => Err(node.unsupported(format!("post_transform {other} of one score"))),
    }
}

/// The link of two or more scores.
pub(super) fn link_of_several(node: &Node, transform: &str) -> Result<Link, ReadError> {
    match transform {
        "NONE" => Ok(Link::Identity),
        "LOGISTIC" => Ok(SIGMOIDS),
        "SOFTMAX" => Ok(Link::Softmax),
        other => Err(node.unsupported(format!("post_transform {other}"))),
    }
}

/// The link of a regressor. The specification transforms a single target, runtimes do not.
pub(super) fn regression_link(
    node: &Node,
    transform: &str,
    outputs: usize,
) -> Result<Link, ReadError> {
    match (transform, outputs) {
        ("NONE", _) => Ok(Link::Identity),
        (other, 1) => Err(node.unsupported(format!("post_transform {other} of one target"))),
        (other, _) => link_of_several(node, other),
    }
}

/// Number of outputs, within bounds.
pub(super) fn output_count(node: &Node, count: i64) -> Result<usize, ReadError> {
    match usize::try_from(count) {
        Ok(count) if (1..=MAX_OUTPUTS).contains(&count) => Ok(count),
        _ => Err(node.malformed(format!("{count} targets or classes of 1 to {MAX_OUTPUTS}"))),
    }
}

/// Folds an average into the leaves.
pub(super) fn aggregated(
    node: &Node,
    aggregate: &str,
    trees: &mut [Tree],
) -> Result<(), ReadError> {
    // Fewer than 2^53.
    #[expect(clippy::cast_precision_loss)]
    let count = trees.len() as f64;
    match aggregate {
        "SUM" => {}
        "AVERAGE" => {
            for node in trees.iter_mut().flat_map(|tree| &mut tree.nodes) {
                if let TreeNode::Leaf(values) = node {
                    values.iter_mut().for_each(|(_, value)| *value /= count);
                }
            }
        }
        other => return Err(node.unsupported(format!("aggregate_function {other}"))),
    }
    Ok(())
}

/// By tree and node, what a leaf adds to each output.
type LeafWeights = HashMap<(i64, i64), BTreeMap<u32, f64>>;

/// Weights of leaves, one entry for each leaf and output.
struct Weights {
    trees: Vec<i64>,
    nodes: Vec<i64>,
    outputs: Vec<i64>,
    values: Vec<f64>,
}

impl Weights {
    fn read(node: &Node, attributes: &mut Attributes<'_>, kind: &str) -> Result<Self, ReadError> {
        let weights = Weights {
            trees: attributes.integers(&format!("{kind}_treeids")),
            nodes: attributes.integers(&format!("{kind}_nodeids")),
            outputs: attributes.integers(&format!("{kind}_ids")),
            values: attributes.either(&format!("{kind}_weights"))?,
        };
        let lengths = [weights.trees.len(), weights.nodes.len(), weights.outputs.len()];
        if lengths != [weights.values.len(); 3] {
            return Err(node.malformed(format!("attributes {kind}_* differ in length")));
        }
        Ok(weights)
    }

    /// By leaf. What comes twice is added up, as runtimes do.
    fn of_leaves(&self, node: &Node, outputs: usize) -> Result<LeafWeights, ReadError> {
        let mut leaves = LeafWeights::new();
        for (entry, &value) in self.values.iter().enumerate() {
            let output = match u32::try_from(self.outputs[entry]) {
                Ok(output) if (output as usize) < outputs => output,
                _ => return Err(node.malformed(format!("weight {entry} is of no output"))),
            };
            let leaf = leaves.entry((self.trees[entry], self.nodes[entry])).or_default();
            *leaf.entry(output).or_default() += value;
        }
        Ok(leaves)
    }
}

/// The table of nodes, one entry of each list for each node.
struct Table {
    ids: Vec<(i64, i64)>,
    columns: Vec<i64>,
    modes: Vec<String>,
    values: Vec<f64>,
    when_true: Vec<i64>,
    when_false: Vec<i64>,
    missing: Vec<i64>,
}

impl Table {
    fn read(node: &Node, attributes: &mut Attributes<'_>) -> Result<Self, ReadError> {
        let trees = attributes.integers("nodes_treeids");
        let nodes = attributes.integers("nodes_nodeids");
        let mut table = Table {
            ids: trees.iter().copied().zip(nodes.iter().copied()).collect(),
            columns: attributes.integers("nodes_featureids"),
            modes: attributes.texts("nodes_modes")?,
            values: attributes.either("nodes_values")?,
            when_true: attributes.integers("nodes_truenodeids"),
            when_false: attributes.integers("nodes_falsenodeids"),
            missing: attributes.integers("nodes_missing_value_tracks_true"),
        };
        let count = trees.len();
        if table.missing.is_empty() {
            table.missing = vec![0; count];
        }
        let lengths = [nodes.len(), table.columns.len(), table.modes.len(), table.values.len()];
        let more = [table.when_true.len(), table.when_false.len(), table.missing.len()];
        if count == 0 || lengths != [count; 4] || more != [count; 3] {
            return Err(node.malformed("attributes nodes_* are empty or differ in length"));
        }
        Ok(table)
    }

    fn branch(
        &self,
        node: &Node,
        entry: usize,
        positions: &HashMap<(i64, i64), usize>,
    ) -> Result<Branch, ReadError> {
        let comparison = match self.modes[entry].as_str() {
            "BRANCH_LEQ" => Comparison::LessOrEqual,
            "BRANCH_LT" => Comparison::Less,
            "BRANCH_GTE" => Comparison::GreaterOrEqual,
            "BRANCH_GT" => Comparison::Greater,
            "BRANCH_EQ" => Comparison::Equal,
            "BRANCH_NEQ" => Comparison::NotEqual,
            other => return Err(node.unsupported(format!("node mode {other:?}"))),
        };
        let child = |id: i64| {
            let reason = || node.malformed(format!("node entry {entry} leads to no node {id}"));
            positions.get(&(self.ids[entry].0, id)).copied().ok_or_else(reason)
        };
        Ok(Branch {
            column: self.columns[entry],
            rule: Rule::Compare(comparison, self.values[entry]),
            missing_holds: self.missing[entry] != 0,
            when_true: child(self.when_true[entry])?,
            when_false: child(self.when_false[entry])?,
        })
    }
}

/// Trees in the order in which their first nodes, the roots, come.
fn trees(
    node: &Node,
    mut attributes: Attributes<'_>,
    columns: &[Column],
    weights: Weights,
    outputs: usize,
) -> Result<Vec<Tree>, ReadError> {
    let table = Table::read(node, &mut attributes)?;
    let mut leaves = weights.of_leaves(node, outputs)?;
    let mut positions = HashMap::with_capacity(table.ids.len());
    let mut roots = Vec::new();
    let mut seen = BTreeSet::new();
    for (position, &id) in table.ids.iter().enumerate() {
        if positions.insert(id, position).is_some() {
            return Err(node.malformed(format!("node {} of tree {} comes twice", id.1, id.0)));
        }
        if seen.insert(id.0) {
            roots.push(position);
        }
    }
    let mut nodes = Vec::with_capacity(table.ids.len());
    for (entry, id) in table.ids.iter().enumerate() {
        // Weights of branches count for nothing, as in runtimes.
        let values = leaves.remove(id);
        nodes.push(match table.modes[entry].as_str() {
            "LEAF" => ForestNode::Leaf(values.unwrap_or_default().into_iter().collect()),
            _ => ForestNode::Branch(table.branch(node, entry, &positions)?),
        });
    }
    if let Some((tree, leaf)) = leaves.keys().min() {
        return Err(node.malformed(format!("weights of node {leaf} of tree {tree}, not there")));
    }
    Forest { place: &node.place, columns, nodes }.trees(&roots)
}

/// Writes to output 0 what is all of one output.
fn first_output(mut tree: Tree) -> Tree {
    for node in &mut tree.nodes {
        if let TreeNode::Leaf(values) = node {
            values.iter_mut().for_each(|(output, _)| *output = 0);
        }
    }
    tree
}
