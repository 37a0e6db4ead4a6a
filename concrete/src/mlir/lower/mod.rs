//! From operations on tensors to a circuit on words.
//!
//! A ciphertext is a word of the torus and knows no width. An integer under a type of width `w` is
//! `integer << (63 - w)`, signed or not: a bit of padding, the integer, room for noise. Everything
//! wraps modulo 2^64; nothing is masked or rounded here.

mod linear;
mod placed;
mod tables;

use std::rc::Rc;

use cipherscore_engine::circuit::Circuit;
use cipherscore_engine::parameters::Signature;

use super::affine::{Affine, Budget};
use super::emit::Emitter;
use super::error::LowerMlirError;
use super::graph::{Graph, Partitions};
use super::keys::Assignment;
use super::operation::{Function, Kind, Operation, ValueId};
use super::tensor::{Clear, Type};
use crate::noise::Ledger;

/// Elements of a value, row-major.
type Elements = Rc<Vec<Affine>>;

/// Lowers a canonical function under its keys.
pub(super) fn lower(
    function: &Function,
    graph: &Graph,
    partitions: &Partitions,
    assignment: &Assignment,
    signature: &Signature,
    budget: Budget,
) -> Result<(Circuit, Ledger), LowerMlirError> {
    let emitter = Emitter::new(signature, graph, partitions, assignment);
    let elements = vec![None; function.types.len()];
    let mut lowering = Lowering { function, emitter, budget, elements };
    let last_uses = last_uses(function);
    for argument in 0..function.arguments {
        lowering.elements[argument] = Some(Rc::new(lowering.emitter.input(argument)?));
    }
    for (index, operation) in function.operations.iter().enumerate() {
        let result = lowering.operation(index, operation);
        let result = result.map_err(|error| error.in_line(operation.line))?;
        lowering.elements[operation.result] = Some(Rc::new(result));
        for &operand in &operation.operands {
            if last_uses[operand] == Some(index) {
                lowering.elements[operand] = None;
            }
        }
    }
    for &value in &function.returns {
        let elements = lowering.elements(value);
        lowering.emitter.output(&elements, lowering.width(value))?;
    }
    Ok(lowering.emitter.finish())
}

/// For each value, the last operation that reads it; none where it is returned or not read.
fn last_uses(function: &Function) -> Vec<Option<usize>> {
    let mut last = vec![None; function.types.len()];
    for (index, operation) in function.operations.iter().enumerate() {
        operation.operands.iter().for_each(|&operand| last[operand] = Some(index));
    }
    function.returns.iter().for_each(|&value| last[value] = None);
    last
}

/// An integer of so many bits as a word.
fn encode(integer: i64, width: u32) -> u64 {
    integer.cast_unsigned() << (63 - width)
}

struct Lowering<'a> {
    function: &'a Function,
    emitter: Emitter<'a>,
    budget: Budget,
    /// Of each value that is defined and still read.
    elements: Vec<Option<Elements>>,
}

impl<'a> Lowering<'a> {
    /// Elements of the result of an operation.
    fn operation(
        &mut self,
        index: usize,
        operation: &Operation,
    ) -> Result<Vec<Affine>, LowerMlirError> {
        let Operation { kind, operands, result, .. } = operation;
        let operands = operands.as_slice();
        let width = self.width(*result);
        match (kind, operands) {
            (Kind::Add, &[left, right]) => self.combine(left, right, *result, 1),
            (Kind::Subtract, &[left, right]) => self.combine(left, right, *result, -1),
            (Kind::Negate, &[value]) => {
                self.each(value, |budget, element| budget.scale(element, -1))
            }
            (Kind::AddClear(clear), &[value]) => {
                self.with_clear(value, clear, *result, |_, element, integer| {
                    Ok(element.plus(encode(integer, width)))
                })
            }
            (Kind::SubtractClear(clear), &[value]) => {
                self.with_clear(value, clear, *result, |_, element, integer| {
                    Ok(element.plus(encode(integer, width).wrapping_neg()))
                })
            }
            (Kind::SubtractFromClear(clear), &[value]) => {
                self.with_clear(value, clear, *result, |budget, element, integer| {
                    Ok(budget.scale(element, -1)?.plus(encode(integer, width)))
                })
            }
            (Kind::MultiplyClear(clear), &[value]) => {
                self.with_clear(value, clear, *result, Budget::scale)
            }
            (Kind::MatmulClear { matrix, is_left }, &[value]) => {
                self.matmul_clear(value, matrix, *is_left)
            }
            (Kind::DotClear(clear), &[value]) => self.matmul_clear(value, clear, false),
            (Kind::Sum { axes, .. }, &[value]) => self.sum(value, axes),
            (Kind::Convolution { weights, bias, windows, groups }, &[value]) => {
                let filters =
                    linear::Filters { weights, bias: bias.as_deref(), windows, groups: *groups };
                self.convolution(value, *result, &filters)
            }
            (Kind::Zero, _) => Ok(vec![Affine::default(); self.ty(*result).len()]),
            (Kind::Reinterpret | Kind::Sign | Kind::Reshape, &[value]) => {
                Ok(self.elements(value).to_vec())
            }
            _ => match self.placed(kind, operands, *result) {
                Some(elements) => Ok(elements),
                None => self.with_tables(index, operation),
            },
        }
    }

    fn ty(&self, value: ValueId) -> &'a Type {
        &self.function.types[value]
    }

    fn shape(&self, value: ValueId) -> &'a [usize] {
        &self.function.types[value].shape
    }

    /// Bits of an encrypted value.
    fn width(&self, value: ValueId) -> u32 {
        self.ty(value).encoding().map_or(0, |encoding| encoding.width)
    }

    /// Values are defined before they are read, and dropped after.
    fn elements(&self, value: ValueId) -> Elements {
        self.elements[value].clone().expect("defined and still read")
    }

    fn each(
        &mut self,
        value: ValueId,
        mut apply: impl FnMut(&mut Budget, &Affine) -> Result<Affine, LowerMlirError>,
    ) -> Result<Vec<Affine>, LowerMlirError> {
        let elements = self.elements(value);
        elements.iter().map(|element| apply(&mut self.budget, element)).collect()
    }

    fn with_clear(
        &mut self,
        value: ValueId,
        clear: &Clear,
        result: ValueId,
        apply: impl Fn(&mut Budget, &Affine, i64) -> Result<Affine, LowerMlirError>,
    ) -> Result<Vec<Affine>, LowerMlirError> {
        let (elements, shape) = (self.elements(value), self.shape(result));
        let of_value = linear::broadcast_places(self.shape(value), shape);
        let of_clear = linear::broadcast_places(clear.shape(), shape);
        let both = of_value.into_iter().zip(of_clear);
        both.map(|(at, clear_at)| apply(&mut self.budget, &elements[at], clear.values[clear_at]))
            .collect()
    }
}
