//! `{axes = [1, 0], keep_dims = true}`

use super::super::error::LowerMlirError;
use super::super::limits::MAX_RANK;
use super::super::tensor::{Element, Type};
use super::dense::Dense;
use super::line::Line;

enum Value {
    Flag(bool),
    Numbers(Vec<i64>),
}

/// Attributes of an operation that nobody has asked for yet.
#[derive(Default)]
pub(super) struct Attributes<'a>(Vec<(&'a str, Value)>);

/// Attributes that one operation may have. None has more than a handful.
const MAX_ATTRIBUTES: usize = 16;

impl<'a> Attributes<'a> {
    /// Reads `<{..}>` and `{..}`, each of which may be missing.
    pub(super) fn read(line: &mut Line<'a>) -> Result<Self, LowerMlirError> {
        let mut attributes = Self::default();
        if line.starts_with("<{") {
            line.expect("<")?;
            attributes.read_list(line)?;
            line.expect(">")?;
        }
        if line.starts_with("{") {
            attributes.read_list(line)?;
        }
        Ok(attributes)
    }

    fn read_list(&mut self, line: &mut Line<'a>) -> Result<(), LowerMlirError> {
        let items = line.list(("{", "}"), |line| {
            let name = line.word()?;
            line.expect("=")?;
            Ok((name, Value::read(line)?))
        })?;
        self.0.extend(items);
        match self.0.len() <= MAX_ATTRIBUTES {
            true => Ok(()),
            false => Err(line.syntax(format!("at most {MAX_ATTRIBUTES} attributes"))),
        }
    }

    fn remove(&mut self, name: &str) -> Option<Value> {
        let position = self.0.iter().position(|(found, _)| *found == name)?;
        Some(self.0.swap_remove(position).1)
    }

    /// A list of numbers; none where it is missing. A number alone is a list of one.
    pub(super) fn numbers(&mut self, name: &str) -> Result<Vec<i64>, String> {
        match self.remove(name) {
            None => Ok(Vec::new()),
            Some(Value::Numbers(numbers)) => Ok(numbers),
            Some(Value::Flag(_)) => Err(format!("has a truth value as `{name}`")),
        }
    }

    /// True or false; false where it is missing.
    pub(super) fn flag(&mut self, name: &str) -> Result<bool, String> {
        match self.remove(name) {
            None => Ok(false),
            Some(Value::Flag(flag)) => Ok(flag),
            Some(Value::Numbers(_)) => Err(format!("has numbers as `{name}`")),
        }
    }

    /// Refuses attributes that nobody asked for: they may change what the operation computes.
    pub(super) fn end(self) -> Result<(), String> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(format!("has an attribute `{name}`, which is not known")),
        }
    }
}

impl Value {
    fn read(line: &mut Line<'_>) -> Result<Self, LowerMlirError> {
        if line.starts_with("[") {
            return Ok(Self::Numbers(line.list(("[", "]"), number)?));
        }
        if line.starts_with("dense<") {
            let dense = Dense::read(line)?;
            line.expect(":")?;
            let ty = line.ty()?;
            return match ty.len() <= MAX_RANK {
                true => Ok(Self::Numbers(dense.elements(&ty, line)?)),
                false => Err(line.syntax(format!("at most {MAX_RANK} numbers"))),
            };
        }
        if line.eat("array<") {
            let Type { element: Element::Integer { .. }, .. } = line.ty()? else {
                return Err(line.syntax("an array of integers"));
            };
            return Ok(Self::Numbers(line.list((":", ">"), Line::integer)?));
        }
        if line.eat("true") {
            return Ok(Self::Flag(true));
        }
        if line.eat("false") {
            return Ok(Self::Flag(false));
        }
        Ok(Self::Numbers(vec![number(line)?]))
    }
}

/// `2` or `2 : i64`
fn number(line: &mut Line<'_>) -> Result<i64, LowerMlirError> {
    let number = line.integer()?;
    if line.eat(":") {
        line.ty()?;
    }
    Ok(number)
}
