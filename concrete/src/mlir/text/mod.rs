//! `circuit.mlir`, read in one pass: one operation a line, no recursion, names before their use.
//!
//! Only what concrete-python writes for encrypted circuits is read; clear operands must be
//! constants. What is read has types that fit.

mod attributes;
mod build;
mod dense;
mod line;

use std::collections::HashMap;
use std::rc::Rc;

use self::attributes::Attributes;
use self::build::{Fault, Operand, Parts};
use self::dense::Dense;
use self::line::Line;
use super::check;
use super::error::{LowerMlirError, quoted};
use super::limits::{MAX_ALL_ELEMENTS, MAX_OPERATIONS, MAX_TEXT_BYTES};
use super::operation::{Function, Operation, Slice};
use super::tensor::{Clear, Type};

/// Reads the only function of a text.
pub(super) fn read(text: &[u8]) -> Result<Function, LowerMlirError> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(LowerMlirError::too_large("bytes", MAX_TEXT_BYTES));
    }
    let text =
        std::str::from_utf8(text).map_err(|error| LowerMlirError::NotUtf8(error.valid_up_to()))?;
    let mut reader = Reader::default();
    for (number, line) in (1..).zip(text.lines()) {
        reader.line(Line::new(number, line)).map_err(|error| error.in_line(number))?;
    }
    match (reader.has_returned, reader.function) {
        (true, Some(function)) => Ok(function),
        _ => Err(LowerMlirError::Circuit("it has no function that returns".into())),
    }
}

/// What a name stands for.
#[derive(Clone)]
enum Named {
    Encrypted(usize),
    Clear(Rc<Clear>),
}

#[derive(Default)]
struct Reader<'a> {
    function: Option<Function>,
    names: HashMap<&'a str, Named>,
    has_returned: bool,
    operations: usize,
    elements: usize,
}

impl<'a> Reader<'a> {
    fn line(&mut self, mut line: Line<'a>) -> Result<(), LowerMlirError> {
        if line.eat("module") || line.eat("}") || line.end().is_ok() {
            return Ok(());
        }
        if line.eat("func.func") {
            return self.function(line);
        }
        if self.function.is_none() || self.has_returned {
            return Err(line.syntax("one function that ends with `return`"));
        }
        if line.eat("return") || line.eat("func.return") {
            return self.returns(line);
        }
        self.operations += 1;
        if self.operations > MAX_OPERATIONS {
            return Err(LowerMlirError::too_large("operations", MAX_OPERATIONS));
        }
        self.operation(line)
    }

    /// `@name(%arg0: type, ..) -> type {`
    fn function(&mut self, mut line: Line<'a>) -> Result<(), LowerMlirError> {
        if self.function.is_some() {
            return Err(LowerMlirError::Circuit("it has several functions".into()));
        }
        line.expect("@")?;
        let name = if line.starts_with("\"") { line.string()? } else { line.word()? };
        self.function = Some(Function { name: name.into(), ..Function::default() });
        let arguments = line.list(("(", ")"), |line| {
            let name = line.name()?;
            line.expect(":")?;
            Ok((name, line.ty()?))
        })?;
        for (name, ty) in arguments {
            if ty.encoding().is_none() {
                return Err(LowerMlirError::Circuit(format!(
                    "its argument {} is clear: {ty}",
                    quoted(name)
                )));
            }
            self.count_elements(&ty)?;
            let value = self.new_value(ty);
            self.define(&line, name, Named::Encrypted(value))?;
        }
        let function = self.function.as_mut().expect("it was just begun");
        function.arguments = function.types.len();
        Ok(())
    }

    /// `%a, %b : type, type`
    fn returns(&mut self, mut line: Line<'a>) -> Result<(), LowerMlirError> {
        let mut returns = Vec::new();
        loop {
            let name = line.name()?;
            match self.named(&line, name, "")? {
                Named::Encrypted(value) => returns.push(value),
                Named::Clear(_) => {
                    let name = quoted(name);
                    return Err(LowerMlirError::Circuit(format!("it returns the constant {name}")));
                }
            }
            if !line.eat(",") {
                break;
            }
        }
        let function = self.function.as_mut().expect("a line of a function");
        for (position, &value) in returns.iter().enumerate() {
            line.expect(if position == 0 { ":" } else { "," })?;
            let (ty, defined) = (line.ty()?, &function.types[value]);
            if ty != *defined {
                return Err(line.syntax(format!("{defined} as type of what is returned")));
            }
        }
        line.end()?;
        function.returns = returns;
        self.has_returned = true;
        Ok(())
    }

    /// `%result = ..`
    fn operation(&mut self, mut line: Line<'a>) -> Result<(), LowerMlirError> {
        if !line.starts_with("%") {
            let name = if line.starts_with("\"") { line.string()? } else { line.word()? };
            return Err(unsupported(&line, name, "operations without result are not"));
        }
        let result = line.name()?;
        line.expect("=")?;
        if line.eat("arith.constant") {
            let clear = constant(&mut line)?;
            line.end()?;
            self.count_elements(&clear.ty)?;
            return self.define(&line, result, Named::Clear(Rc::new(clear)));
        }
        let (name, parts) = match line.starts_with("\"") {
            true => self.generic(&mut line, result)?,
            false => self.pretty(&mut line, result)?,
        };
        line.end()?;
        self.count_elements(&parts.result)?;
        if parts.result.encoding().is_none() {
            let clear = parts.fold(name).map_err(|fault| fault.of(&line, name))?;
            return self.define(&line, result, Named::Clear(Rc::new(clear)));
        }
        let ty = parts.result.clone();
        let (kind, operands) = parts.build(name).map_err(|fault| fault.of(&line, name))?;
        let function = self.function.as_ref().expect("a line of a function");
        let types: Vec<&Type> = operands.iter().map(|&value| &function.types[value]).collect();
        check::operation(&kind, &types, &ty)
            .map_err(|reason| Fault::Wrong(reason).of(&line, name))?;
        let value = self.new_value(ty);
        self.define(&line, result, Named::Encrypted(value))?;
        let operation =
            Operation { line: line.number, name: name.into(), kind, operands, result: value };
        self.function.as_mut().expect("a line of a function").operations.push(operation);
        Ok(())
    }

    /// `"Dialect.name"(%a, %b) {attributes} : (type, type) -> type`
    fn generic(
        &self,
        line: &mut Line<'a>,
        result: &str,
    ) -> Result<(&'a str, Parts<'a>), LowerMlirError> {
        let name = line.string()?;
        if !build::is_known(name) {
            return Err(unsupported(line, name, "it is not an operation of Concrete ML's models"));
        }
        let operands = line.list(("(", ")"), |line| self.operand(line, result))?;
        let attributes = Attributes::read(line)?;
        line.expect(":")?;
        let types = line.list(("(", ")"), Line::ty)?;
        if types.len() != operands.len() {
            return Err(line.syntax("as many types as operands"));
        }
        for (operand, ty) in operands.iter().zip(&types) {
            self.check_type(line, operand, ty)?;
        }
        line.expect("->")?;
        Ok((name, Parts { operands, attributes, result: line.ty()?, slice: None }))
    }

    /// The operations of `tensor`, which are written in a shorter way.
    fn pretty(
        &self,
        line: &mut Line<'a>,
        result: &str,
    ) -> Result<(&'a str, Parts<'a>), LowerMlirError> {
        let name = line.word()?;
        if !build::is_known(name) {
            return Err(unsupported(line, name, "it is not an operation of Concrete ML's models"));
        }
        let mut operands = vec![self.operand(line, result)?];
        let mut slice = None;
        match name {
            "tensor.from_elements" => {
                while line.eat(",") {
                    operands.push(self.operand(line, result)?);
                }
            }
            "tensor.expand_shape" | "tensor.collapse_shape" => {
                line.list(("[", "]"), Line::sizes)?;
            }
            "tensor.extract" => {
                operands.append(&mut line.list(("[", "]"), |line| self.operand(line, result))?);
            }
            "tensor.insert" => {
                line.expect("into")?;
                operands.push(self.operand(line, result)?);
                operands.append(&mut line.list(("[", "]"), |line| self.operand(line, result))?);
            }
            "tensor.extract_slice" => slice = Some(slice_of(line)?),
            _ => {
                line.expect("into")?;
                operands.push(self.operand(line, result)?);
                slice = Some(slice_of(line)?);
            }
        }
        line.expect(":")?;
        let mut ty = line.ty()?;
        if name != "tensor.from_elements" {
            let typed = &operands[usize::from(name == "tensor.insert")];
            self.check_type(line, typed, &ty)?;
        }
        if name == "tensor.extract" {
            ty = Type { shape: Vec::new(), is_tensor: false, ..ty };
        } else if line.eat("into") || line.eat("to") {
            ty = line.ty()?;
        }
        Ok((name, Parts { operands, attributes: Attributes::default(), result: ty, slice }))
    }

    fn operand(&self, line: &mut Line<'a>, result: &str) -> Result<Operand, LowerMlirError> {
        let name = line.name()?;
        Ok(match self.named(line, name, result)? {
            Named::Encrypted(value) => Operand::Encrypted(value),
            Named::Clear(clear) => Operand::Clear(clear),
        })
    }

    fn named(&self, line: &Line<'_>, name: &str, result: &str) -> Result<Named, LowerMlirError> {
        let fault = match self.names.get(name) {
            Some(named) => return Ok(named.clone()),
            None if name == result => "is used in its own definition",
            None => "is used before it is defined",
        };
        Err(LowerMlirError::Name { line: line.number, name: quoted(name), fault })
    }

    fn define(
        &mut self,
        line: &Line<'_>,
        name: &'a str,
        named: Named,
    ) -> Result<(), LowerMlirError> {
        match self.names.insert(name, named) {
            None => Ok(()),
            Some(_) => Err(LowerMlirError::Name {
                line: line.number,
                name: quoted(name),
                fault: "is defined twice",
            }),
        }
    }

    fn new_value(&mut self, ty: Type) -> usize {
        let types = &mut self.function.as_mut().expect("a line of a function").types;
        types.push(ty);
        types.len() - 1
    }

    fn check_type(
        &self,
        line: &Line<'_>,
        operand: &Operand,
        ty: &Type,
    ) -> Result<(), LowerMlirError> {
        let types = &self.function.as_ref().expect("a line of a function").types;
        let defined = match operand {
            Operand::Encrypted(value) => &types[*value],
            Operand::Clear(clear) => &clear.ty,
        };
        match defined == ty {
            true => Ok(()),
            false => Err(line.syntax(format!("{defined} as type of an operand, and not {ty}"))),
        }
    }

    fn count_elements(&mut self, ty: &Type) -> Result<(), LowerMlirError> {
        self.elements += ty.len();
        match self.elements <= MAX_ALL_ELEMENTS {
            true => Ok(()),
            false => {
                Err(LowerMlirError::too_large("elements of constants and values", MAX_ALL_ELEMENTS))
            }
        }
    }
}

fn unsupported(line: &Line<'_>, name: &str, reason: &str) -> LowerMlirError {
    Fault::Unsupported(reason.into()).of(line, name)
}

/// `5 : i8` or `dense<..> : tensor<..>`
fn constant(line: &mut Line<'_>) -> Result<Clear, LowerMlirError> {
    if line.starts_with("true") || line.starts_with("false") {
        return Err(unsupported(line, "arith.constant", "truth values are not"));
    }
    if line.starts_with("dense<") {
        let dense = Dense::read(line)?;
        line.expect(":")?;
        let ty = line.ty()?;
        return Ok(Clear { values: dense.elements(&ty, line)?, ty });
    }
    let value = line.integer()?;
    line.expect(":")?;
    let ty = line.ty()?;
    match ty.is_tensor {
        true => Err(line.syntax("the type of a single integer")),
        false => Ok(Clear { values: Dense::Splat(value).elements(&ty, line)?, ty }),
    }
}

/// `[offsets] [sizes] [strides]`
fn slice_of(line: &mut Line<'_>) -> Result<Slice, LowerMlirError> {
    Ok(Slice { offsets: line.sizes()?, sizes: line.sizes()?, strides: line.sizes()? })
}
