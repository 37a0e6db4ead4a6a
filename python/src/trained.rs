//! Trees of scikit-learn as its objects hold them, to a trained model. No file lies between, so
//! thresholds keep all their bits.

use cipherscore_compiler::trained::{Feature, Link, Tree, TreeNode, ValueSet};
use numpy::{PyReadonlyArray1, PyReadonlyArray2};
use pyo3::prelude::*;

use crate::failure::{Class, Failure};

/// One tree: for each node its feature, threshold and children, of which a leaf has none (-1), and
/// what a leaf adds to each raw output.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Nodes<'py> {
    feature: PyReadonlyArray1<'py, i64>,
    threshold: PyReadonlyArray1<'py, f64>,
    left: PyReadonlyArray1<'py, i64>,
    right: PyReadonlyArray1<'py, i64>,
    missing_left: PyReadonlyArray1<'py, bool>,
    values: PyReadonlyArray2<'py, f64>,
}

fn refused<T>(message: impl Into<String>) -> Result<T, Failure> {
    Err(Failure::new(Class::Compile, message))
}

impl Nodes<'_> {
    pub(crate) fn tree(&self, single_precision: bool) -> Result<Tree, Failure> {
        let (feature, threshold) = (self.feature.as_array(), self.threshold.as_array());
        let (left, right) = (self.left.as_array(), self.right.as_array());
        let (missing, values) = (self.missing_left.as_array(), self.values.as_array());
        let count = feature.len();
        let lengths = [threshold.len(), left.len(), right.len(), missing.len(), values.nrows()];
        if lengths.iter().any(|&length| length != count) {
            return refused("arrays of a tree differ in length");
        }
        let node = |at: usize| -> Result<TreeNode, Failure> {
            if left[at] < 0 {
                let values = values.row(at);
                let leaf = (0u32..).zip(values.iter().copied());
                return Ok(TreeNode::Leaf(leaf.filter(|(_, value)| *value != 0.0).collect()));
            }
            let index = |number: i64| match u32::try_from(number) {
                Ok(index) => Ok(index),
                Err(_) => refused(format!("node {at} refers to {number}")),
            };
            Ok(TreeNode::Split {
                feature: index(feature[at])?,
                values: at_most(threshold[at], single_precision)?,
                missing_inside: missing[at],
                inside: index(left[at])?,
                outside: index(right[at])?,
            })
        };
        Ok(Tree { nodes: (0..count).map(node).collect::<Result<_, _>>()? })
    }
}

/// What is at most a threshold. A value in single precision is so exactly if it is at most the
/// largest number of single precision that is.
fn at_most(threshold: f64, single_precision: bool) -> Result<ValueSet, Failure> {
    let bound = match single_precision {
        false => threshold.next_up(),
        true => {
            #[allow(clippy::cast_possible_truncation, reason = "corrected below")]
            let rounded = threshold as f32;
            let below = if f64::from(rounded) > threshold { rounded.next_down() } else { rounded };
            f64::from(below.next_up())
        }
    };
    match bound {
        bound if bound.is_nan() => refused("a threshold is not a number"),
        bound if bound.is_infinite() && threshold.is_finite() => {
            refused("a threshold tells infinity apart from the largest number")
        }
        bound => Ok(ValueSet::below(bound)),
    }
}

/// Features of one precision.
pub(crate) fn features(names: Vec<String>, single_precision: bool) -> Vec<Feature> {
    names.into_iter().map(|name| Feature::new(name, single_precision)).collect()
}

/// From raw outputs to scores.
pub(crate) fn link(name: &str, scale: f64) -> Result<Link, Failure> {
    Ok(match name {
        "identity" => Link::Identity,
        "complement" => Link::Complement,
        "sigmoid" => Link::Sigmoid { scale },
        "softmax" => Link::Softmax,
        "one-vs-all" => Link::OneVsAll { scale, normalised: true },
        "exp" => Link::Exp,
        other => return refused(format!("there is no link {other}")),
    })
}
