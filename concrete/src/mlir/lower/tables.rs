//! Operations that look up tables: plain ones, lowest bits, and products and maxima, which are made
//! of tables.

use cipherscore_engine::parameters::Encoding;

use super::super::affine::Affine;
use super::super::emit::Lookup;
use super::super::error::LowerMlirError;
use super::super::operation::{Kind, Operation, ValueId, Windows};
use super::super::tensor::{Clear, places, strides};
use super::linear::{MatmulPlaces, broadcast_places, four};
use super::{Elements, Lowering, encode};

/// What is added to a signed index before it is looked up, and to a lowest bit: half of the torus'
/// positive half.
const SHIFT: u64 = 1 << 62;

/// A table with its keys, ready to be applied.
#[derive(Clone, Copy)]
struct Ready {
    lookup: Lookup,
    table: u32,
    /// Whether the index is signed.
    is_shifted: bool,
}

/// The two tables of a product, `T(a + b) - T'(a - b)`.
struct Product {
    of_sum: Ready,
    of_difference: Ready,
}

impl<'a> Lowering<'a> {
    pub(super) fn with_tables(
        &mut self,
        index: usize,
        operation: &Operation,
    ) -> Result<Vec<Affine>, LowerMlirError> {
        let &Operation { ref kind, ref operands, result, .. } = operation;
        match (kind, operands.as_slice()) {
            (Kind::Table(table), &[value]) => {
                let rows = vec![0; self.ty(value).len()];
                self.looked_up(index, operation, table, &rows)
            }
            (Kind::MappedTable { tables, map }, _) => {
                let rows = map.values.iter().map(|&row| usize::try_from(row).unwrap_or(0));
                self.looked_up(index, operation, tables, &rows.collect::<Vec<_>>())
            }
            (Kind::MultiTable(tables), &[value]) => {
                let leading = &tables.shape()[..tables.shape().len() - 1];
                let rows = broadcast_places(leading, self.shape(value));
                self.looked_up(index, operation, tables, &rows)
            }
            (Kind::LowestBit, &[value]) => {
                let width = self.width(value);
                let bit = self.bit(index, 0, self.width(result))?;
                let elements = self.elements(value);
                elements.iter().map(|element| self.lowest_bit(&bit, element, width)).collect()
            }
            (Kind::Round, &[value]) => self.rounded(index, value, result),
            (Kind::Multiply, &[left, right]) => {
                let product = self.product(index, left, result)?;
                let (lefts, rights) = (self.elements(left), self.elements(right));
                let of_left = broadcast_places(self.shape(left), self.shape(result));
                let of_right = broadcast_places(self.shape(right), self.shape(result));
                let pairs = of_left.into_iter().zip(of_right);
                pairs.map(|(a, b)| self.multiplied(&product, &lefts[a], &rights[b])).collect()
            }
            (Kind::Dot, &[left, right]) => {
                let (lefts, rights) = (self.elements(left), self.elements(right));
                let product = self.product(index, left, result)?;
                let places = MatmulPlaces::of(self.shape(left), self.shape(right));
                self.products(&product, &places, |(a, b)| (&lefts[a], &rights[b]))
            }
            (Kind::Matmul, &[left, right]) => {
                let (lefts, rights) = (self.elements(left), self.elements(right));
                let product = self.product(index, left, result)?;
                let places = MatmulPlaces::of(self.shape(left), self.shape(right));
                // Concrete takes the right element first.
                self.products(&product, &places, |(a, b)| (&rights[b], &lefts[a]))
            }
            (Kind::Maximum, &[left, right]) => {
                let maximum = self.maximum(index, result)?;
                let (lefts, rights) = (self.elements(left), self.elements(right));
                let of_left = broadcast_places(self.shape(left), self.shape(result));
                let of_right = broadcast_places(self.shape(right), self.shape(result));
                let pairs = of_left.into_iter().zip(of_right);
                pairs.map(|(a, b)| self.larger(&maximum, &lefts[a], &rights[b])).collect()
            }
            (Kind::MaxPool(windows), &[value]) => self.max_pool(index, value, result, windows),
            _ => Err(LowerMlirError::Unsupported {
                line: operation.line,
                operation: operation.name.to_string(),
                reason: "with these operands".into(),
            }),
        }
    }

    /// A table for each element, by its row in a list of tables.
    fn looked_up(
        &mut self,
        index: usize,
        operation: &Operation,
        tables: &Clear,
        rows: &[usize],
    ) -> Result<Vec<Affine>, LowerMlirError> {
        let value = operation.operands[0];
        let width = self.width(operation.result);
        let encoding = self.encoding(value);
        let lookup = self.emitter.lookup(index, 0)?;
        let mut ready: Vec<Option<Ready>> = vec![None; tables.rows()];
        let elements = self.elements(value);
        let mut result = Vec::with_capacity(elements.len());
        for (element, &row) in elements.iter().zip(rows) {
            let table = match ready[row] {
                Some(ready) => ready,
                None => self.ready(lookup, tables.row(row), encoding, width)?,
            };
            ready[row] = Some(table);
            result.push(self.apply(&table, element)?);
        }
        Ok(result)
    }

    fn encoding(&self, value: ValueId) -> Encoding {
        self.ty(value).encoding().expect("values are encrypted")
    }

    fn ready(
        &mut self,
        lookup: Lookup,
        entries: &[i64],
        index: Encoding,
        width: u32,
    ) -> Result<Ready, LowerMlirError> {
        let table = self.emitter.table(&lookup, entries, index, width)?;
        Ok(Ready { lookup, table, is_shifted: index.signed })
    }

    fn apply(&mut self, table: &Ready, index: &Affine) -> Result<Affine, LowerMlirError> {
        match table.is_shifted {
            true => self.emitter.apply(&table.lookup, table.table, &index.plus(SHIFT)),
            false => self.emitter.apply(&table.lookup, table.table, index),
        }
    }

    /// The table of a lowest bit whose result has so many bits.
    fn bit(&mut self, index: usize, table: usize, width: u32) -> Result<Bit, LowerMlirError> {
        let lookup = self.emitter.lookup(index, table)?;
        let half = 1 << (62 - width);
        Ok(Bit { lookup, table: self.emitter.sign_table(&lookup, half)?, half })
    }

    /// The lowest of so many bits: everything above it wraps away, and what is left is positive or
    /// negative.
    fn lowest_bit(
        &mut self,
        bit: &Bit,
        value: &Affine,
        width: u32,
    ) -> Result<Affine, LowerMlirError> {
        let shifted = self.budget.scale(value, 1i64 << width)?.plus(SHIFT);
        Ok(self.emitter.apply(&bit.lookup, bit.table, &shifted)?.plus(bit.half))
    }

    /// Half a step up, then all lowest bits down to the new width, one after the other. The result
    /// keeps its place: only its width says how it is read.
    fn rounded(
        &mut self,
        index: usize,
        value: ValueId,
        result: ValueId,
    ) -> Result<Vec<Affine>, LowerMlirError> {
        let (from, to) = (self.width(value), self.width(result));
        let mut bits = Vec::new();
        for (table, width) in (to + 1..=from).rev().enumerate() {
            bits.push((self.bit(index, table, width)?, width));
        }
        let half = match from > to {
            true => encode(1 << (from - to - 1), from),
            false => 0,
        };
        let elements = self.elements(value);
        let mut rounded = Vec::with_capacity(elements.len());
        for element in elements.iter() {
            let mut rest = element.plus(half);
            for (bit, width) in &bits {
                let lowest = self.lowest_bit(bit, &rest, *width)?;
                rest = self.budget.sum(&[(&rest, 1), (&lowest, -1)])?;
            }
            rounded.push(rest);
        }
        Ok(rounded)
    }

    /// `a b = ((a + b)^2 - (a - b)^2) / 4`: tables of quarter squares, of the operands' width, with
    /// entries of the result's. Differences are always signed.
    fn product(
        &mut self,
        index: usize,
        operand: ValueId,
        result: ValueId,
    ) -> Result<Product, LowerMlirError> {
        let of_sum = self.encoding(operand);
        let of_difference = Encoding { signed: true, ..of_sum };
        let width = self.width(result);
        let (sum, difference) = (self.emitter.lookup(index, 0)?, self.emitter.lookup(index, 1)?);
        Ok(Product {
            of_sum: self.ready(sum, &quarter_squares(of_sum), of_sum, width)?,
            of_difference: self.ready(
                difference,
                &quarter_squares(of_difference),
                of_difference,
                width,
            )?,
        })
    }

    fn multiplied(
        &mut self,
        product: &Product,
        left: &Affine,
        right: &Affine,
    ) -> Result<Affine, LowerMlirError> {
        let sum = self.budget.sum(&[(left, 1), (right, 1)])?;
        let difference = self.budget.sum(&[(left, 1), (right, -1)])?;
        let of_sum = self.apply(&product.of_sum, &sum)?;
        let of_difference = self.apply(&product.of_difference, &difference)?;
        self.budget.sum(&[(&of_sum, 1), (&of_difference, -1)])
    }

    fn products<'e>(
        &mut self,
        product: &Product,
        places: &MatmulPlaces,
        pair: impl Fn((usize, usize)) -> (&'e Affine, &'e Affine),
    ) -> Result<Vec<Affine>, LowerMlirError> {
        let mut sums = Vec::with_capacity(places.left.len());
        for position in 0..places.left.len() {
            let mut products = Vec::new();
            for (left, right) in places.pairs(position).map(&pair) {
                products.push(self.multiplied(product, left, right)?);
            }
            let terms: Vec<_> = products.iter().map(|product| (product, 1)).collect();
            sums.push(self.budget.sum(&terms)?);
        }
        Ok(sums)
    }

    /// The table of `max(x, 0)`, which is looked up by differences.
    fn maximum(&mut self, index: usize, result: ValueId) -> Result<Ready, LowerMlirError> {
        let encoding = Encoding { signed: true, ..self.encoding(result) };
        let half = 1i64 << (encoding.width - 1);
        let entries: Vec<i64> = (0..half).chain((0..half).map(|_| 0)).collect();
        let lookup = self.emitter.lookup(index, 0)?;
        self.ready(lookup, &entries, encoding, encoding.width)
    }

    /// `max(a - b, 0) + b`
    fn larger(
        &mut self,
        maximum: &Ready,
        left: &Affine,
        right: &Affine,
    ) -> Result<Affine, LowerMlirError> {
        let difference = self.budget.sum(&[(left, 1), (right, -1)])?;
        let positive = self.apply(maximum, &difference)?;
        self.budget.sum(&[(&positive, 1), (right, 1)])
    }

    /// The largest of each window and of the least integer there is.
    fn max_pool(
        &mut self,
        index: usize,
        value: ValueId,
        result: ValueId,
        windows: &Windows,
    ) -> Result<Vec<Affine>, LowerMlirError> {
        let maximum = self.maximum(index, result)?;
        let signed = self.encoding(result).signed;
        // -2^(w - 2), as Concrete begins.
        let least = if signed { (SHIFT >> 1).wrapping_neg() } else { 0 };
        let [_, _, down, right] = four(&strides(self.shape(value)));
        let Windows { kernel, strides: step, dilations } = windows;
        let under = places(kernel, &[down * dilations[0], right * dilations[1]], 0);
        let [image, channel, ..] = four(&strides(self.shape(value)));
        let first_strides = [image, channel, down * step[0], right * step[1]];
        let firsts = places(self.shape(result), &first_strides, 0);
        let elements: Elements = self.elements(value);
        let mut largest = Vec::with_capacity(firsts.len());
        for first in firsts {
            let mut so_far = Affine::default().plus(least);
            for at in &under {
                so_far = self.larger(&maximum, &so_far, &elements[first + at])?;
            }
            largest.push(so_far);
        }
        Ok(largest)
    }
}

/// A lowest bit's table with its keys.
struct Bit {
    lookup: Lookup,
    table: u32,
    /// Added to the result: half of what the bit is worth.
    half: u64,
}

/// `i^2 / 4`, rounded down, of all integers of an encoding, in the order of tables.
fn quarter_squares(encoding: Encoding) -> Vec<i64> {
    let size = 1i64 << encoding.width;
    let largest = if encoding.signed { size / 2 } else { size };
    let negative = (1..=size - largest).rev();
    (0..largest).chain(negative).map(|i| i * i / 4).collect()
}
