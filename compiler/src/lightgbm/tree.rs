//! Trees of LightGBM.

use super::split::{Decision, categories};
use super::text::Section;
use crate::preorder::{FileNode, FileSplit, collect};
use crate::reader::ReadError;
use crate::trained::{Tree, ValueSet};

/// What is read of a tree: one entry for each split, and one for each leaf.
struct Nodes {
    features: Vec<u32>,
    thresholds: Vec<f64>,
    decisions: Vec<i8>,
    /// Splits as they are, leaves as their complement.
    left: Vec<i64>,
    right: Vec<i64>,
    leaves: Vec<f64>,
    /// Where the words of each categorical split begin; last the number of words.
    boundaries: Vec<usize>,
    words: Vec<u32>,
}

/// A tree whose leaves add to one output, after multiplication by a factor.
pub(super) fn convert(section: &Section<'_>, output: u32, factor: f64) -> Result<Tree, ReadError> {
    if section.get("is_linear").is_some_and(|is_linear| is_linear.trim() != "0") {
        return Err(ReadError::unsupported(
            "is_linear",
            "a linear model in each leaf (train with linear_tree=false)",
        ));
    }
    let nodes = nodes(section)?;
    let splits = nodes.left.len();
    let root = if splits == 0 { nodes.position(!0)? } else { 0 };
    collect(root, splits + nodes.leaves.len(), |node| {
        if let Some(leaf) = node.checked_sub(splits) {
            return Ok(FileNode::Leaf(vec![(output, factor * nodes.leaves[leaf])]));
        }
        nodes.split(node).map_err(|error| error.within(&format!("split {node}")))
    })
}

fn nodes(section: &Section<'_>) -> Result<Nodes, ReadError> {
    let leaf_count: usize = section.number("num_leaves")?;
    let Some(splits) = leaf_count.checked_sub(1) else {
        return Err(ReadError::malformed("num_leaves", "there are none"));
    };
    let leaves = section.numbers("leaf_value", leaf_count)?;
    if splits == 0 {
        let (features, thresholds, decisions) = (Vec::new(), Vec::new(), Vec::new());
        let (left, right, boundaries, words) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        return Ok(Nodes {
            features,
            thresholds,
            decisions,
            left,
            right,
            leaves,
            boundaries,
            words,
        });
    }
    let categorical: usize = section.number("num_cat")?;
    let (boundaries, words) = if categorical == 0 {
        (Vec::new(), Vec::new())
    } else {
        let boundaries: Vec<usize> =
            section.numbers("cat_boundaries", categorical.saturating_add(1))?;
        let words = boundaries.last().copied().unwrap_or_default();
        (boundaries, section.numbers("cat_threshold", words)?)
    };
    let thresholds = section.numbers("threshold", splits)?;
    let decisions = section.numbers("decision_type", splits)?;
    check_shares(&boundaries, &thresholds, &decisions)?;
    Ok(Nodes {
        features: section.numbers("split_feature", splits)?,
        thresholds,
        decisions,
        left: section.numbers("left_child", splits)?,
        right: section.numbers("right_child", splits)?,
        leaves,
        boundaries,
        words,
    })
}

/// Checks that no two splits share words, so that sets take no more memory than the file.
fn check_shares(
    boundaries: &[usize],
    thresholds: &[f64],
    decisions: &[i8],
) -> Result<(), ReadError> {
    let mut positions: Vec<u64> = thresholds
        .iter()
        .zip(decisions)
        .filter(|&(_, &decision)| Decision::of(decision).is_ok_and(|it| it.is_categorical))
        .map(|(threshold, _)| threshold.to_bits())
        .collect();
    positions.sort_unstable();
    if !boundaries.is_sorted() || !positions.is_sorted_by(|a, b| a < b) {
        return Err(ReadError::malformed(
            "cat_boundaries",
            "splits do not each have their own words",
        ));
    }
    Ok(())
}

impl Nodes {
    /// Position of a child among all nodes: first the splits, then the leaves.
    fn position(&self, child: i64) -> Result<usize, ReadError> {
        let splits = self.left.len();
        let position = if child < 0 {
            usize::try_from(!child).ok().and_then(|leaf| splits.checked_add(leaf))
        } else {
            usize::try_from(child).ok().filter(|&split| split < splits)
        };
        position.ok_or_else(|| ReadError::malformed("", format!("there is no child {child}")))
    }

    fn split(&self, split: usize) -> Result<FileNode, ReadError> {
        let decision = Decision::of(self.decisions[split])?;
        let threshold = self.thresholds[split];
        let (values, missing_is_left) = if decision.is_categorical {
            (self.categories(threshold)?, false)
        } else {
            decision.numeric(threshold)?
        };
        Ok(FileNode::Split(FileSplit {
            feature: self.features[split],
            values,
            inside_is_left: true,
            missing_is_left,
            left: self.position(self.left[split])?,
            right: self.position(self.right[split])?,
        }))
    }

    /// The threshold of a categorical split is the position of its words.
    fn categories(&self, threshold: f64) -> Result<ValueSet, ReadError> {
        // Saturates; a number that is no position is caught by the comparison.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let position = threshold as usize;
        #[expect(clippy::cast_precision_loss)]
        let is_position = position as f64 == threshold;
        let words = self.boundaries.get(position..).and_then(|rest| match rest {
            [start, end, ..] if is_position => self.words.get(*start..*end),
            _ => None,
        });
        words
            .map(categories)
            .ok_or_else(|| ReadError::malformed("cat_threshold", "has nothing for the split"))
    }
}
