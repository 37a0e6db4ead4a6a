//! One line, read from left to right.

use cipherscore_engine::parameters::Encoding;

use super::super::error::{LowerMlirError, quoted};
use super::super::limits::{MAX_CLEAR_BITS, MAX_ELEMENTS, MAX_RANK, MAX_WIDTH};
use super::super::tensor::{Element, Type};

/// What is left of a line.
pub(super) struct Line<'a> {
    /// Which line of the text, from 1.
    pub(super) number: usize,
    rest: &'a str,
}

impl<'a> Line<'a> {
    pub(super) fn new(number: usize, text: &'a str) -> Self {
        Self { number, rest: text.trim() }
    }

    /// What should be here is not.
    pub(super) fn syntax(&self, expected: impl Into<String>) -> LowerMlirError {
        let found = match self.rest.is_empty() {
            true => "the end of the line".into(),
            false => quoted(self.rest),
        };
        LowerMlirError::Syntax { line: self.number, expected: expected.into(), found }
    }

    fn too_large(&self, what: &'static str, limit: usize) -> LowerMlirError {
        LowerMlirError::too_large(what, limit).in_line(self.number)
    }

    /// Goes on after `token`, if that is next. Spaces before it mean nothing.
    pub(super) fn eat(&mut self, token: &str) -> bool {
        match self.rest.trim_start().strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    pub(super) fn expect(&mut self, token: &str) -> Result<(), LowerMlirError> {
        match self.eat(token) {
            true => Ok(()),
            false => Err(self.syntax(format!("`{token}`"))),
        }
    }

    pub(super) fn end(&mut self) -> Result<(), LowerMlirError> {
        match self.rest.trim().is_empty() {
            true => Ok(()),
            false => Err(self.syntax("the end of the line")),
        }
    }

    pub(super) fn starts_with(&self, token: &str) -> bool {
        self.rest.trim_start().starts_with(token)
    }

    /// All characters of a kind that follow; at least one.
    fn take(
        &mut self,
        what: &str,
        is_part: impl Fn(char) -> bool,
    ) -> Result<&'a str, LowerMlirError> {
        let rest = self.rest.trim_start();
        let length = rest.find(|c: char| !is_part(c)).unwrap_or(rest.len());
        if length == 0 {
            return Err(self.syntax(what));
        }
        let (taken, rest) = rest.split_at(length);
        self.rest = rest;
        Ok(taken)
    }

    /// The name of a value, `%` included.
    pub(super) fn name(&mut self) -> Result<&'a str, LowerMlirError> {
        let rest = self.rest.trim_start();
        let is_part = |c: char| c.is_ascii_alphanumeric() || "_-.$".contains(c);
        let name = rest.strip_prefix('%').unwrap_or("");
        let length = name.find(|c: char| !is_part(c)).unwrap_or(name.len());
        if length == 0 {
            return Err(self.syntax("a name such as `%0`"));
        }
        let (name, rest) = rest.split_at(1 + length);
        self.rest = rest;
        Ok(name)
    }

    /// An identifier, with dots.
    pub(super) fn word(&mut self) -> Result<&'a str, LowerMlirError> {
        self.take("a word", |c| c.is_ascii_alphanumeric() || "_.$".contains(c))
    }

    /// What is between two quotes, without escapes.
    pub(super) fn string(&mut self) -> Result<&'a str, LowerMlirError> {
        self.expect("\"")?;
        let Some((string, rest)) = self.rest.split_once('"') else {
            return Err(self.syntax("a closing quote"));
        };
        self.rest = rest;
        Ok(string)
    }

    pub(super) fn integer(&mut self) -> Result<i64, LowerMlirError> {
        let start = self.rest;
        let digits = self.take("an integer", |c| c.is_ascii_digit() || c == '-')?;
        digits.parse().map_err(|_| {
            self.rest = start;
            self.syntax("an integer of 64 bits")
        })
    }

    pub(super) fn size(&mut self) -> Result<usize, LowerMlirError> {
        let start = self.rest;
        let value = self.integer()?;
        usize::try_from(value).map_err(|_| {
            self.rest = start;
            self.syntax("an integer that is not negative")
        })
    }

    /// Items between brackets, none included.
    pub(super) fn list<T>(
        &mut self,
        (open, close): (&str, &str),
        mut item: impl FnMut(&mut Self) -> Result<T, LowerMlirError>,
    ) -> Result<Vec<T>, LowerMlirError> {
        self.expect(open)?;
        let mut items = Vec::new();
        if self.eat(close) {
            return Ok(items);
        }
        loop {
            items.push(item(self)?);
            if self.eat(close) {
                return Ok(items);
            }
            self.expect(",")?;
        }
    }

    /// `[1, 2]`, one number for each dimension at most.
    pub(super) fn sizes(&mut self) -> Result<Vec<usize>, LowerMlirError> {
        let sizes = self.list(("[", "]"), Self::size)?;
        match sizes.len() <= MAX_RANK {
            true => Ok(sizes),
            false => Err(self.too_large("numbers in a list of dimensions", MAX_RANK)),
        }
    }

    /// A type, within the bounds.
    pub(super) fn ty(&mut self) -> Result<Type, LowerMlirError> {
        if !self.eat("tensor<") {
            let element = self.element()?;
            return Ok(Type { shape: Vec::new(), is_tensor: false, element });
        }
        let mut shape = Vec::new();
        while self.rest.starts_with(|c: char| c.is_ascii_digit()) {
            if shape.len() == MAX_RANK {
                return Err(self.too_large("dimensions of a tensor", MAX_RANK));
            }
            let size = self.size()?;
            if size == 0 {
                return Err(self.syntax("a dimension of at least 1"));
            }
            shape.push(size);
            self.expect("x")?;
        }
        let elements = shape.iter().try_fold(1usize, |all, &size| all.checked_mul(size));
        if elements.is_none_or(|elements| elements > MAX_ELEMENTS) {
            return Err(self.too_large("elements of a tensor", MAX_ELEMENTS));
        }
        let element = self.element()?;
        self.expect(">")?;
        Ok(Type { shape, is_tensor: true, element })
    }

    fn element(&mut self) -> Result<Element, LowerMlirError> {
        let start = self.rest;
        if self.eat("index") {
            return Ok(Element::Index);
        }
        let signed = match self.rest.trim_start() {
            rest if rest.starts_with("!FHE.eint<") => Some(false),
            rest if rest.starts_with("!FHE.esint<") => Some(true),
            _ => None,
        };
        let (element, limit) = match signed {
            Some(signed) => {
                self.expect(if signed { "!FHE.esint<" } else { "!FHE.eint<" })?;
                let width = u32::try_from(self.size()?).unwrap_or(u32::MAX);
                self.expect(">")?;
                ((Element::Encrypted(Encoding { width, signed }), width), MAX_WIDTH)
            }
            None if self.eat("i") => {
                let bits = u32::try_from(self.size()?).unwrap_or(u32::MAX);
                ((Element::Integer { bits }, bits), MAX_CLEAR_BITS)
            }
            None => return Err(self.syntax("a type such as `tensor<2x!FHE.eint<3>>`")),
        };
        let (element, bits) = element;
        if !(1..=limit).contains(&bits) {
            self.rest = start;
            return Err(self.syntax(format!("a type of 1 to {limit} bits")));
        }
        Ok(element)
    }
}
