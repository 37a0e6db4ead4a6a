//! `dense<..>`: the elements of a constant tensor.
//!
//! Nested lists, one element for all, or `"0x.."`: elements little-endian, of whole bytes each, of
//! which the low bits count and are extended by their sign.

use super::super::error::LowerMlirError;
use super::super::limits::{MAX_ELEMENTS, MAX_RANK};
use super::super::tensor::{Element, Type};
use super::line::Line;

/// Elements as they are written, before the type is known that follows them.
pub(super) enum Dense<'a> {
    /// Hexadecimal digits, two a byte.
    Bytes(&'a str),
    /// One element for all.
    Splat(i64),
    /// Elements, and the shape that the nesting of lists gives them.
    Lists(Vec<i64>, Vec<usize>),
}

impl<'a> Dense<'a> {
    /// Reads `dense<..>`.
    pub(super) fn read(line: &mut Line<'a>) -> Result<Self, LowerMlirError> {
        line.expect("dense<")?;
        let dense = if line.starts_with("\"") {
            let text = line.string()?;
            Self::Bytes(text.strip_prefix("0x").ok_or_else(|| line.syntax("`\"0x`"))?)
        } else if line.starts_with("[") {
            nested(line)?
        } else {
            Self::Splat(line.integer()?)
        };
        line.expect(">")?;
        Ok(dense)
    }

    /// The elements of a tensor of this type.
    pub(super) fn elements(self, ty: &Type, line: &Line<'_>) -> Result<Vec<i64>, LowerMlirError> {
        let bits = match ty.element {
            Element::Integer { bits: 1 } => {
                return Err(line.syntax("a constant of more than one bit"));
            }
            Element::Integer { bits } => bits,
            Element::Index => 64,
            Element::Encrypted(_) => return Err(line.syntax("a constant of a clear type")),
        };
        let mut elements = match self {
            Self::Splat(element) => vec![element],
            Self::Lists(elements, shape) if shape == ty.shape => elements,
            Self::Lists(_, shape) => {
                return Err(line.syntax(format!("a type of shape {shape:?}, that of its elements")));
            }
            Self::Bytes(digits) => bytes(digits, bits, ty.len(), line)?,
        };
        let fits = |&element: &i64| sign_extended(element.cast_unsigned(), bits) == element;
        if !elements.iter().all(fits) {
            return Err(line.syntax(format!("elements of {bits} bits")));
        }
        if elements.len() == 1 {
            elements.resize(ty.len(), elements[0]);
        }
        Ok(elements)
    }
}

/// `[[1, 2], [3, 4]]`, without recursion: each list has as many items as the first of its depth.
fn nested<'a>(line: &mut Line<'a>) -> Result<Dense<'a>, LowerMlirError> {
    let too_large = |what, limit, line: &Line<'_>| {
        Err(LowerMlirError::too_large(what, limit).in_line(line.number))
    };
    let mut elements = Vec::new();
    // Sizes of lists by depth, once the first is closed; items so far of the lists that are open.
    let mut shape: Vec<Option<usize>> = Vec::new();
    let mut open: Vec<usize> = Vec::new();
    loop {
        while line.eat("[") {
            if open.len() == MAX_RANK {
                return too_large("lists in each other", MAX_RANK, line);
            }
            open.push(0);
            if open.len() > shape.len() {
                // A number where there were lists before, or lists where there were numbers.
                if !elements.is_empty() {
                    return Err(line.syntax("lists of equal depth"));
                }
                shape.push(None);
            }
        }
        if open.len() != shape.len() {
            return Err(line.syntax("lists of equal depth"));
        }
        if elements.len() == MAX_ELEMENTS {
            return too_large("elements of a constant", MAX_ELEMENTS, line);
        }
        elements.push(line.integer()?);
        // Closes all lists that end here.
        loop {
            let Some(items) = open.last_mut() else {
                let shape = shape.into_iter().map(Option::unwrap_or_default).collect();
                return Ok(Dense::Lists(elements, shape));
            };
            *items += 1;
            if line.eat(",") {
                break;
            }
            line.expect("]")?;
            let (items, depth) = (*items, open.len() - 1);
            if *shape[depth].get_or_insert(items) != items {
                return Err(line.syntax("lists of equal length"));
            }
            open.pop();
        }
    }
}

/// Elements in hexadecimal digits; one element alone stands for all.
fn bytes(
    digits: &str,
    bits: u32,
    count: usize,
    line: &Line<'_>,
) -> Result<Vec<i64>, LowerMlirError> {
    let digits_each = 2 * bits.div_ceil(8) as usize;
    let found = digits.len() / digits_each;
    if !digits.len().is_multiple_of(digits_each) || (found != count && found != 1) {
        return Err(line.syntax(format!("{count} elements of {} bytes", digits_each / 2)));
    }
    let digit = |byte: u8| match char::from(byte).to_digit(16) {
        Some(digit) => Ok(u64::from(digit)),
        None => Err(line.syntax("hexadecimal digits")),
    };
    let element = |element: &[u8]| {
        let mut value = 0;
        for (position, byte) in element.chunks_exact(2).enumerate() {
            value |= (16 * digit(byte[0])? + digit(byte[1])?) << (8 * position);
        }
        Ok(sign_extended(value, bits))
    };
    digits.as_bytes().chunks_exact(digits_each).map(element).collect()
}

/// The low bits of a word, as a signed integer.
fn sign_extended(word: u64, bits: u32) -> i64 {
    let unused = 64 - bits;
    (word << unused).cast_signed() >> unused
}
