//! Operators that choose, join and rename columns.

use super::elementwise::normalised;
use super::node::Node;
use super::tensor::Tensor;
use super::value::{Raw, SIGMOIDS, Scores, Value};
use crate::reader::ReadError;
use crate::trained::Link;

/// Most columns of one tensor.
pub(super) const MAX_COLUMNS: usize = 1 << 16;

/// `Concat` along columns, and `FeatureVectorizer`.
///
/// # Errors
/// Parts of different kinds.
pub(super) fn concat(node: &Node, parts: &[&Scores]) -> Result<Scores, ReadError> {
    let axis = match node.operator.as_str() {
        "Concat" => node.attributes()?.integer("axis", 0),
        _ => 1,
    };
    if axis != 1 && axis != -1 {
        return Err(node.unsupported(format!("axis {axis}")));
    }
    let parts: Vec<Scores> = parts.iter().map(|part| part.expanded()).collect();
    let Some(first) = parts.first() else {
        return Err(node.malformed("nothing to join"));
    };
    let links_fit = parts.iter().all(|part| part.link == first.link);
    // Softmax and normalised sigmoids mix columns, so that joined they would mean something else.
    let each_alone = matches!(first.link, Link::Identity | Link::Exp) || first.link == SIGMOIDS;
    if !links_fit || !(each_alone || parts.len() == 1) {
        return Err(node.unsupported("joining columns of different links"));
    }
    if parts.iter().map(Scores::width).sum::<usize>() > MAX_COLUMNS {
        return Err(node.unsupported(format!("more than {MAX_COLUMNS} columns")));
    }
    let raws: Vec<&Raw> = parts.iter().map(|part| &*part.raw).collect();
    let raw = Raw::concat(&raws);
    let raw = raw.ok_or_else(|| node.unsupported("joining trees and weighted columns"))?;
    // Classes of the parts are not classes of the whole.
    Ok(Scores { classes: std::rc::Rc::default(), ..first.with_raw(raw) })
}

/// `ArrayFeatureExtractor` and `Gather` along columns.
///
/// # Errors
/// Columns that are not there, or twice.
pub(super) fn extract(node: &Node, scores: &Scores, wanted: &Tensor) -> Result<Scores, ReadError> {
    if node.operator == "Gather" && node.attributes()?.integer("axis", 0) != 1 {
        return Err(node.unsupported("an axis other than 1"));
    }
    select(node, scores, wanted.integers(&node.place)?.iter().copied())
}

/// `Slice` along columns, with constants.
///
/// # Errors
/// Other axes and steps.
pub(super) fn slice(
    node: &Node,
    scores: &Scores,
    constants: &[&Tensor],
) -> Result<Scores, ReadError> {
    let mut bounds = Vec::new();
    for constant in constants {
        match constant.integers(&node.place)? {
            [number] => bounds.push(*number),
            _ => return Err(node.unsupported("more than one axis")),
        }
    }
    let width = i64::try_from(scores.width()).unwrap_or(i64::MAX);
    match bounds[..] {
        [start, end, 1] | [start, end, 1, 1] if start >= 0 && end > start => {
            select(node, scores, start..end.min(width))
        }
        _ => Err(node.unsupported(format!("bounds, axis and step {bounds:?}"))),
    }
}

/// `ReduceSum` along columns.
///
/// # Errors
/// Other axes, and sums that lose their axis.
pub(super) fn row_sum(
    node: &Node,
    scores: &Scores,
    axes: Option<&Tensor>,
) -> Result<Value, ReadError> {
    let mut attributes = node.attributes()?;
    let axes = match axes {
        Some(axes) => axes.integers(&node.place)?.to_vec(),
        None => attributes.integers("axes"),
    };
    if axes != [1] || attributes.integer("keepdims", 1) != 1 {
        return Err(node.unsupported("a sum along another axis"));
    }
    Ok(Value::RowSum(scores.clone()))
}

/// `Reshape` that leaves columns as they are.
///
/// # Errors
/// Any other.
pub(super) fn reshape(node: &Node, scores: &Scores, shape: &Tensor) -> Result<Scores, ReadError> {
    let width = i64::try_from(scores.width()).unwrap_or(i64::MAX);
    match *shape.integers(&node.place)? {
        [-1, columns] | [0, columns] if columns == width => Ok(scores.clone()),
        [0, -1] => Ok(scores.clone()),
        [-1] if width == 1 => Ok(scores.clone()),
        ref other => Err(node.unsupported(format!("{width} columns in shape {other:?}"))),
    }
}

/// `Normalizer` of probabilities.
///
/// # Errors
/// Other norms than L1, and what may be negative.
pub(super) fn normalizer(node: &Node, scores: &Scores) -> Result<Scores, ReadError> {
    match node.attributes()?.text("norm", "MAX")?.as_str() {
        "L1" => normalised(node, scores),
        other => Err(node.unsupported(format!("norm {other}"))),
    }
}

/// `ZipMap`: names for columns.
///
/// # Errors
/// Another number of names than columns.
pub(super) fn zip_map(node: &Node, scores: &Scores) -> Result<Scores, ReadError> {
    let mut attributes = node.attributes()?;
    let classes = attributes.classes("classlabels_strings", "classlabels_int64s")?;
    let width = match scores.link {
        Link::Complement => 2,
        _ => scores.width(),
    };
    if classes.len() != width {
        return Err(node.malformed(format!("{} names for {width} columns", classes.len())));
    }
    Ok(Scores { classes: std::rc::Rc::new(classes), of_classifier: true, ..scores.clone() })
}

fn select(
    node: &Node,
    scores: &Scores,
    wanted: impl Iterator<Item = i64>,
) -> Result<Scores, ReadError> {
    let scores = scores.expanded();
    let width = scores.width();
    if matches!(scores.link, Link::Softmax | Link::OneVsAll { normalised: true, .. }) {
        return Err(node.unsupported("choosing from columns that depend on each other"));
    }
    let mut chosen = vec![false; width];
    let mut positions = Vec::new();
    for column in wanted {
        match usize::try_from(column).ok().filter(|&column| column < width) {
            Some(column) if !std::mem::replace(&mut chosen[column], true) => positions.push(column),
            Some(_) => return Err(node.unsupported(format!("column {column} twice"))),
            None => return Err(node.malformed(format!("column {column} of {width}"))),
        }
    }
    let raw = scores.raw.selected(&positions);
    Ok(Scores { classes: std::rc::Rc::default(), ..scores.with_raw(raw) })
}
