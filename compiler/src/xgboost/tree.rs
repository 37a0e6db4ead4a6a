//! Trees of XGBoost.
//!
//! Values and thresholds are float32. A numeric split sends `x < threshold` left. A categorical
//! split drops the digits behind the point, sends the categories that it lists right, and all
//! others left, negative and unknown ones too.

use super::document;
use crate::preorder::{FileNode, FileSplit, collect};
use crate::reader::ReadError;
use crate::trained::{Tree, ValueSet};

/// From here on XGBoost takes no number for a category: float32 has no odd numbers above.
const CATEGORIES: i64 = 1 << 24;

/// To what a tree adds, and how much of it.
pub(super) struct Share {
    /// The output to which scalar leaves add.
    pub(super) output: u32,
    /// The number of outputs, to all of which vectors add.
    pub(super) outputs: usize,
    /// What DART makes of leaves.
    pub(super) weight: f64,
}

pub(super) fn convert(tree: &document::Tree, share: &Share) -> Result<Tree, ReadError> {
    let nodes = tree.left_children.len();
    let lengths = [
        tree.right_children.len(),
        tree.split_indices.len(),
        tree.split_conditions.len(),
        tree.default_left.len(),
    ];
    let types = tree.split_type.len();
    if lengths.iter().any(|&length| length != nodes) || (types != 0 && types != nodes) {
        return Err(ReadError::malformed("nodes", "arrays of different lengths"));
    }
    check_shares(tree)?;
    collect(0, nodes, |node| {
        describe(tree, node, share).map_err(|error| error.within(&format!("node {node}")))
    })
}

/// Checks that splits share no categories and leaves no vectors, so that they take no more
/// memory than the file.
fn check_shares(tree: &document::Tree) -> Result<(), ReadError> {
    let segments = tree.categories_nodes.len();
    if tree.categories_segments.len() != segments || tree.categories_sizes.len() != segments {
        return Err(ReadError::malformed("categories", "arrays of different lengths"));
    }
    if !tree.categories_nodes.is_sorted_by(|a, b| a < b) {
        return Err(ReadError::malformed("categories_nodes", "is not ascending"));
    }
    let mut end = 0_usize;
    for (&start, &size) in tree.categories_segments.iter().zip(&tree.categories_sizes) {
        if start != end {
            return Err(ReadError::malformed("categories_segments", "is not without gaps"));
        }
        end = end.saturating_add(size);
    }
    if let Some(vectors) = &tree.leaf_weights {
        let leaves = tree.left_children.iter().filter(|&&left| left < 0).count();
        if leaves.checked_mul(tree.tree_param.size_leaf_vector) != Some(vectors.len()) {
            let reason = format!("{} for {leaves} leaves", vectors.len());
            return Err(ReadError::malformed("leaf_weights", reason));
        }
    }
    Ok(())
}

fn describe(tree: &document::Tree, node: usize, share: &Share) -> Result<FileNode, ReadError> {
    let (left, right) = (tree.left_children[node], tree.right_children[node]);
    if left < 0 {
        return leaf(tree, node, right, share).map(FileNode::Leaf);
    }
    let child =
        |child| usize::try_from(child).map_err(|_| ReadError::malformed("", "only one child"));
    let is_categorical = tree.split_type.get(node).is_some_and(|flag| flag.0);
    let values = if is_categorical {
        categories(tree, node)?
    } else {
        let threshold = tree.split_conditions[node].0;
        if !threshold.is_finite() {
            return Err(ReadError::malformed("", format!("threshold {threshold}")));
        }
        ValueSet::below(threshold.into())
    };
    Ok(FileNode::Split(FileSplit {
        feature: tree.split_indices[node],
        values,
        inside_is_left: !is_categorical,
        missing_is_left: tree.default_left[node].0,
        left: child(left)?,
        right: child(right)?,
    }))
}

fn leaf(
    tree: &document::Tree,
    node: usize,
    right: i64,
    share: &Share,
) -> Result<Vec<(u32, f64)>, ReadError> {
    let size = tree.tree_param.size_leaf_vector;
    if size <= 1 {
        return Ok(vec![(share.output, share.weight * f64::from(tree.split_conditions[node].0))]);
    }
    if size != share.outputs {
        let reason = format!("leaves of {size} values for {} outputs", share.outputs);
        return Err(ReadError::malformed("", reason));
    }
    let (vectors, position) = match &tree.leaf_weights {
        Some(vectors) => (vectors, usize::try_from(right).unwrap_or(usize::MAX)),
        None => (&tree.base_weights, node),
    };
    let vector = position
        .checked_mul(size)
        .and_then(|start| vectors.get(start..)?.get(..size))
        .ok_or_else(|| ReadError::malformed("", "the leaf's values are missing"))?;
    Ok((0..).zip(vector.iter().map(|value| share.weight * f64::from(value.0))).collect())
}

fn categories(tree: &document::Tree, node: usize) -> Result<ValueSet, ReadError> {
    let segment = tree.categories_nodes.binary_search(&node).ok().and_then(|position| {
        let start = tree.categories_segments[position];
        tree.categories.get(start..)?.get(..tree.categories_sizes[position])
    });
    let Some(segment) = segment else {
        return Err(ReadError::malformed("", "the split's categories are missing"));
    };
    if let Some(outside) = segment.iter().find(|category| !(0..CATEGORIES).contains(category)) {
        return Err(ReadError::malformed("", format!("category {outside}")));
    }
    // Whole numbers of at most 24 bits: exact.
    #[expect(clippy::cast_precision_loss)]
    let interval = |&category: &i64| (category as f64, (category + 1) as f64);
    Ok(ValueSet::union(segment.iter().map(interval).collect()))
}
