//! Operators that work on each column alone, or on two columns of the same place.

use std::rc::Rc;

use super::node::Node;
use super::path::Operation;
use super::tensor::Tensor;
use super::value::{Column, Raw, SIGMOIDS, Scores, Value};
use crate::reader::ReadError;
use crate::trained::Link;

/// `Add`, `Sub`, `Mul` and `Div`.
///
/// # Errors
/// What has no formula in the features that a trained model can hold.
pub(super) fn arithmetic(node: &Node, left: &Value, right: &Value) -> Result<Scores, ReadError> {
    let operation = match node.operator.as_str() {
        "Add" => Operation::Add,
        "Sub" => Operation::Subtract,
        "Mul" => Operation::Multiply,
        _ => Operation::Divide,
    };
    match (left, right) {
        (Value::Scores(scores), Value::Constant(constant)) => {
            with_constant(node, scores, operation, constant)
        }
        (Value::Constant(constant), Value::Scores(scores)) => match operation {
            Operation::Add | Operation::Multiply => {
                with_constant(node, scores, operation, constant)
            }
            Operation::Subtract => with_constant(node, scores, Operation::SubtractFrom, constant),
            _ => Err(node.unsupported("a quotient by what depends on the row")),
        },
        (Value::Scores(left), Value::Scores(right)) => match operation {
            Operation::Add => sum(node, left, right),
            Operation::Subtract if right.link == Link::Identity => {
                sum(node, left, &right.with_raw(right.raw.scaled(-1.0)))
            }
            _ => Err(node.unsupported("a product or quotient of two that depend on the row")),
        },
        (Value::Scores(scores), Value::RowSum(sum)) if operation == Operation::Divide => {
            if !Rc::ptr_eq(&scores.raw, &sum.raw) || scores.link != sum.link {
                return Err(node.unsupported("a quotient by the sum of other columns"));
            }
            normalised(node, scores)
        }
        _ => Err(node.unsupported("arithmetic of such operands")),
    }
}

/// Columns of the same width, added up.
///
/// # Errors
/// Columns that are linked, and trees plus weighted sums.
pub(super) fn sum(node: &Node, left: &Scores, right: &Scores) -> Result<Scores, ReadError> {
    if left.link != Link::Identity || right.link != Link::Identity {
        return Err(node.unsupported("a sum after a link such as softmax"));
    }
    if left.width() != right.width() {
        return Err(node.unsupported(format!("{} plus {} columns", left.width(), right.width())));
    }
    let raw = left.raw.sum(&right.raw);
    let raw = raw.ok_or_else(|| node.unsupported("a sum of trees and of weighted columns"))?;
    Ok(left.with_raw(raw))
}

/// Divides each row by its sum, or by that of absolute values, which is the same where no score
/// is negative.
///
/// # Errors
/// Scores that may be negative, and one column alone.
pub(super) fn normalised(node: &Node, scores: &Scores) -> Result<Scores, ReadError> {
    match scores.link {
        // Sums to 1 already.
        Link::Softmax => Ok(scores.clone()),
        Link::OneVsAll { scale, .. } if scores.width() > 1 => {
            Ok(Scores { link: Link::OneVsAll { scale, normalised: true }, ..scores.clone() })
        }
        _ => Err(node.unsupported("normalising what is neither sigmoids nor softmax")),
    }
}

/// `Sigmoid`, `Softmax` and `Exp`: the link of a model.
///
/// # Errors
/// A second link, and a softmax along another axis.
pub(super) fn linked(node: &Node, scores: &Scores) -> Result<Scores, ReadError> {
    let link = match node.operator.as_str() {
        "Sigmoid" => SIGMOIDS,
        "Exp" => Link::Exp,
        _ => {
            let axis = node.attributes()?.integer("axis", -1);
            if axis != 1 && axis != -1 {
                return Err(node.unsupported(format!("axis {axis}")));
            }
            Link::Softmax
        }
    };
    let scores = scores.expanded();
    if scores.link != Link::Identity {
        return Err(node.unsupported("a second link"));
    }
    Ok(Scores { link, ..scores })
}

/// `Cast` to float32 or float64.
pub(super) fn cast(scores: &Scores, single: bool) -> Scores {
    match (&*scores.raw, &scores.link) {
        (Raw::Columns(columns), Link::Identity) => {
            let columns = columns.iter().map(|column| column.cast(single)).collect();
            scores.with_raw(Raw::Columns(columns))
        }
        _ => scores.clone(),
    }
}

fn with_constant(
    node: &Node,
    scores: &Scores,
    operation: Operation,
    constant: &Tensor,
) -> Result<Scores, ReadError> {
    let scores = &scores.expanded();
    let operands = broadcast(node, constant, scores.width())?;
    let neutral = match operation {
        Operation::Add | Operation::Subtract => 0.0,
        // The converter for LightGBM multiplies probabilities by 1.
        Operation::Multiply | Operation::Divide => 1.0,
        Operation::SubtractFrom => f64::NAN,
    };
    if operands.iter().all(|&operand| operand == neutral) {
        return Ok(scores.clone());
    }
    let raw = match (operation, &scores.link) {
        (_, Link::Identity) => stepped(&scores.raw, operation, &operands),
        // 1 - sigmoid(x) = sigmoid(-x)
        (Operation::SubtractFrom, &SIGMOIDS) if operands.iter().all(|&c| c == 1.0) => {
            scores.raw.scaled(-1.0)
        }
        // exp(x) * c = exp(x + ln c)
        (Operation::Multiply, Link::Exp) if operands.iter().all(|&c| c > 0.0) => {
            scores.raw.plus(&operands.iter().map(|c| c.ln()).collect::<Vec<_>>())
        }
        (Operation::Divide, Link::Exp) if operands.iter().all(|&c| c > 0.0) => {
            scores.raw.plus(&operands.iter().map(|c| -c.ln()).collect::<Vec<_>>())
        }
        _ => return Err(node.unsupported("such arithmetic after a link")),
    };
    Ok(scores.with_raw(raw))
}

fn stepped(raw: &Raw, operation: Operation, operands: &[f64]) -> Raw {
    let operand = |k: usize| operands[k % operands.len()];
    if let Raw::Columns(columns) = raw {
        let step = |(k, column): (usize, &Column)| column.step(operation, operand(k));
        return Raw::Columns(columns.iter().enumerate().map(step).collect());
    }
    let mapped = |map: fn(&f64) -> f64| operands.iter().map(map).collect::<Vec<_>>();
    match operation {
        Operation::Add => raw.plus(operands),
        Operation::Subtract => raw.plus(&mapped(|c| -c)),
        Operation::SubtractFrom => raw.scaled(-1.0).plus(operands),
        Operation::Multiply => raw.times(operands),
        Operation::Divide => raw.times(&mapped(|c| 1.0 / c)),
    }
}

/// One number, or one for each column.
fn broadcast(node: &Node, constant: &Tensor, width: usize) -> Result<Vec<f64>, ReadError> {
    let along_columns = match constant.shape.as_slice() {
        [] => true,
        [rest @ .., last] => rest.iter().all(|&dim| dim == 1) && (*last == 1 || *last == width),
    };
    if !along_columns {
        let what = format!("a constant of shape {:?} for {width} columns", constant.shape);
        return Err(node.unsupported(what));
    }
    constant.numbers(&node.place)
}
