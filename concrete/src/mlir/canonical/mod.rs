//! What Concrete simplifies before it decides on keys. What is cut here joins no blocks and needs
//! no table, so that the same must be cut.
//!
//! Rules, to a fixed point; an operation without uses is dropped at once:
//!
//! * `from_elements` then `extract` is the element;
//! * a slice of the whole is its source, and slices that undo or hide each other vanish;
//! * a product with ones, a sum with zeros and rounding to equal width are the operand;
//! * a product with zeros is a *new* zero, a product of a zero *that same* zero; a matrix product of
//!   either kind, and another sign of a zero, is a new one. One zero more or less changes which
//!   values share a key;
//! * a table behind a table is one table ([`fuse`]).

mod fuse;

use std::rc::Rc;

use super::error::LowerMlirError;
use super::limits::MAX_CANONICAL_PASSES;
use super::operation::{Function, Kind, Operation, Slice, ValueId};

/// Simplifies a function. Tables are composed unless `fuses_tables` is off; `multiplications` are
/// those that are left to the whole lowering.
pub(super) fn canonicalise(
    function: Function,
    fuses_tables: bool,
    multiplications: &mut usize,
) -> Result<Function, LowerMlirError> {
    let mut canonical = Canonical::new(function, fuses_tables);
    for _ in 0..MAX_CANONICAL_PASSES {
        if !canonical.pass(multiplications)? {
            return Ok(canonical.finish());
        }
    }
    Err(LowerMlirError::too_large("passes of simplification", MAX_CANONICAL_PASSES))
}

struct Canonical {
    function: Function,
    /// None where an operation was dropped.
    operations: Vec<Option<Operation>>,
    /// For each value, which operation defines it; none for an argument.
    definitions: Vec<Option<usize>>,
    /// For each value, how many operands and returns are it.
    uses: Vec<usize>,
    /// For each value, which one has taken its place: itself, if none has.
    images: Vec<ValueId>,
    fuses_tables: bool,
}

impl Canonical {
    fn new(mut function: Function, fuses_tables: bool) -> Self {
        let values = function.types.len();
        let operations: Vec<_> = function.operations.drain(..).map(Some).collect();
        let (mut definitions, mut uses) = (vec![None; values], vec![0; values]);
        for (index, operation) in operations.iter().flatten().enumerate() {
            definitions[operation.result] = Some(index);
            operation.operands.iter().for_each(|&operand| uses[operand] += 1);
        }
        function.returns.iter().for_each(|&value| uses[value] += 1);
        let images = (0..values).collect();
        let mut canonical = Self { function, operations, definitions, uses, images, fuses_tables };
        for index in (0..canonical.operations.len()).rev() {
            canonical.drop_unused(index);
        }
        canonical
    }

    fn finish(mut self) -> Function {
        let mut returns = std::mem::take(&mut self.function.returns);
        returns.iter_mut().for_each(|value| *value = self.image(*value));
        let mut operations: Vec<_> = std::mem::take(&mut self.operations);
        for operation in operations.iter_mut().flatten() {
            let operands = &mut operation.operands;
            operands.iter_mut().for_each(|operand| *operand = self.image(*operand));
        }
        let operations = operations.into_iter().flatten().collect();
        Function { operations, returns, ..self.function }
    }

    /// What stands for a value now. Shortens the way there.
    fn image(&mut self, value: ValueId) -> ValueId {
        let mut image = value;
        while self.images[image] != image {
            self.images[image] = self.images[self.images[image]];
            image = self.images[image];
        }
        self.images[value] = image;
        image
    }

    /// Goes through all operations once; whether anything changed.
    fn pass(&mut self, multiplications: &mut usize) -> Result<bool, LowerMlirError> {
        let mut changed = false;
        for index in 0..self.operations.len() {
            while let Some(mut operation) = self.operations[index].take() {
                for operand in &mut operation.operands {
                    *operand = self.image(*operand);
                }
                let rewrite = self.rewrite(&operation, multiplications);
                let line = operation.line;
                self.operations[index] = Some(operation);
                let Some(rewrite) = rewrite.map_err(|error| error.in_line(line))? else { break };
                self.apply(index, rewrite);
                changed = true;
            }
        }
        Ok(changed)
    }

    fn apply(&mut self, index: usize, rewrite: Rewrite) {
        let Some(operation) = &mut self.operations[index] else { return };
        match rewrite {
            Rewrite::Value(value) => {
                let result = operation.result;
                self.uses[value] += std::mem::take(&mut self.uses[result]);
                self.images[result] = value;
                self.drop_unused(index);
            }
            Rewrite::Operation(kind, operands) => {
                operation.kind = kind;
                operands.iter().for_each(|&operand| self.uses[operand] += 1);
                let before = std::mem::replace(&mut operation.operands, operands);
                self.release(before);
            }
        }
    }

    /// Drops an operation without uses, and what only it used.
    fn drop_unused(&mut self, index: usize) {
        let unused = |operation: &mut Operation| self.uses[operation.result] == 0;
        if let Some(operation) = self.operations[index].take_if(unused) {
            self.release(operation.operands);
        }
    }

    fn release(&mut self, mut released: Vec<ValueId>) {
        while let Some(value) = released.pop() {
            let value = self.image(value);
            self.uses[value] -= 1;
            if let (0, Some(index)) = (self.uses[value], self.definitions[value])
                && let Some(operation) = self.operations[index].take()
            {
                released.extend(operation.operands);
            }
        }
    }

    fn definition(&self, value: ValueId) -> Option<&Operation> {
        self.definitions[value].and_then(|index| self.operations[index].as_ref())
    }

    fn is_zero(&self, value: ValueId) -> bool {
        self.definition(value).is_some_and(|operation| operation.kind == Kind::Zero)
    }

    fn shape(&self, value: ValueId) -> &[usize] {
        &self.function.types[value].shape
    }

    /// What takes an operation's place, if anything does.
    fn rewrite(
        &mut self,
        operation: &Operation,
        multiplications: &mut usize,
    ) -> Result<Option<Rewrite>, LowerMlirError> {
        let operands = operation.operands.as_slice();
        let zero = || Some(Rewrite::Operation(Kind::Zero, Vec::new()));
        let keeps_shape = |&value: &ValueId| self.shape(value) == self.shape(operation.result);
        Ok(match (&operation.kind, operands) {
            (Kind::MultiplyClear(clear), _) if clear.is_all(0) => zero(),
            (Kind::MultiplyClear(_), &[value]) if self.is_zero(value) => {
                Some(Rewrite::Value(value))
            }
            (Kind::MultiplyClear(clear), [value]) if clear.is_all(1) && keeps_shape(value) => {
                Some(Rewrite::Value(*value))
            }
            (Kind::AddClear(clear) | Kind::SubtractClear(clear), [value])
                if clear.is_all(0) && keeps_shape(value) =>
            {
                Some(Rewrite::Value(*value))
            }
            (Kind::MatmulClear { matrix, .. }, &[value])
                if matrix.is_all(0) || self.is_zero(value) =>
            {
                zero()
            }
            (Kind::Sign, &[value]) if self.is_zero(value) => zero(),
            (Kind::Round, &[value])
                if self.function.types[value] == self.function.types[operation.result] =>
            {
                Some(Rewrite::Value(value))
            }
            (Kind::Extract(place), &[value]) => self.extracted(place, value).map(Rewrite::Value),
            (Kind::ExtractSlice(slice), &[whole]) => {
                self.extracted_slice(slice, whole, operation.result).map(Rewrite::Value)
            }
            (Kind::InsertSlice(slice), &[part, target]) => self.inserted_slice(slice, part, target),
            (kind, &[value]) if self.fuses_tables && fuse::is_table(kind) => {
                self.fused(kind, value, multiplications)?
            }
            _ => None,
        })
    }

    /// The element that is taken from a list of elements.
    fn extracted(&self, place: &[usize], value: ValueId) -> Option<ValueId> {
        let elements = self.definition(value).filter(|list| list.kind == Kind::FromElements)?;
        let position = place.iter().zip(self.shape(value)).fold(0, |at, (i, size)| at * size + i);
        elements.operands.get(position).map(|&element| self.images[element])
    }

    fn is_whole(slice: &Slice, shape: &[usize]) -> bool {
        slice.offsets.iter().all(|&offset| offset == 0)
            && slice.strides.iter().all(|&stride| stride == 1)
            && slice.sizes == shape
    }

    fn extracted_slice(&self, slice: &Slice, whole: ValueId, result: ValueId) -> Option<ValueId> {
        let shape = self.shape(whole);
        if Self::is_whole(slice, shape) && self.shape(result) == shape {
            return Some(whole);
        }
        let source = self.definition(whole)?;
        match (&source.kind, source.operands.as_slice()) {
            (Kind::InsertSlice(inserted), &[part, _]) => {
                let part = self.images[part];
                let same = inserted == slice && self.shape(part) == self.shape(result);
                same.then_some(part)
            }
            _ => None,
        }
    }

    fn inserted_slice(&self, slice: &Slice, part: ValueId, target: ValueId) -> Option<Rewrite> {
        let shape = self.shape(target);
        if Self::is_whole(slice, shape) && self.shape(part) == shape {
            return Some(Rewrite::Value(part));
        }
        if let Some(Operation { kind: Kind::ExtractSlice(taken), operands, .. }) =
            self.definition(part)
            && taken == slice
            && self.images[operands[0]] == target
        {
            return Some(Rewrite::Value(target));
        }
        let Operation { kind: Kind::InsertSlice(older), operands, .. } = self.definition(target)?
        else {
            return None;
        };
        let same = older == slice && self.shape(operands[0]) == self.shape(part);
        same.then(|| Rewrite::Operation(Kind::InsertSlice(older.clone()), vec![part, operands[1]]))
    }

    /// Two tables, of which the second reads the first, as one.
    fn fused(
        &self,
        kind: &Kind,
        value: ValueId,
        multiplications: &mut usize,
    ) -> Result<Option<Rewrite>, LowerMlirError> {
        let Some(first) = self.definition(value).filter(|first| fuse::is_table(&first.kind)) else {
            return Ok(None);
        };
        let index = &self.function.types[first.operands[0]];
        let entry = &self.function.types[value];
        let (Some(index_encoding), Some(entry_encoding)) = (index.encoding(), entry.encoding())
        else {
            return Ok(None);
        };
        // The first would stay for its other uses: two tables instead of two, unless the one that
        // is saved is the larger.
        if self.uses[value] > 1 && index_encoding.width >= entry_encoding.width {
            return Ok(None);
        }
        let composed = fuse::compose(&first.kind, index, kind, entry_encoding, multiplications)?;
        Ok(composed.map(|kind| Rewrite::Operation(kind, vec![first.operands[0]])))
    }
}

/// What an operation becomes.
enum Rewrite {
    /// A value that is there already.
    Value(ValueId),
    /// Another operation with the same result.
    Operation(Kind, Vec<ValueId>),
}

/// A shared constant of a table.
type Tables = Rc<super::tensor::Clear>;

#[cfg(test)]
mod tests;
