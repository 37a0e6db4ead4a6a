//! The framing of rows: their values, one after the other, as jobs and their results carry them.
//!
//! A row is its values in the order of the circuit's inputs (in a result: outputs). A value is its
//! length in bytes as `u32`, little-endian, then Concrete's serialised `Value`. There is no header
//! and nothing after the last row; how many rows there are is said elsewhere.

use cipherscore_engine::parameters::Gate;
use thiserror::Error;

use crate::values::max_value_bytes;

/// Bytes of a length.
const PREFIX_BYTES: usize = size_of::<u32>();

/// The serialised values of one row, in the order of the gates.
pub type Row = Vec<Vec<u8>>;

/// Bytes that are not so many framed rows. Rows are counted from 1, values from 0.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum FramingError {
    /// Bytes after the last row.
    #[error("there is more than the {rows} rows that were announced")]
    TooLong {
        /// Rows that were announced.
        rows: u32,
    },
    /// An end before the last row is complete.
    #[error("{found} complete rows, where {rows} were announced")]
    TooShort {
        /// Rows that are complete.
        found: u32,
        /// Rows that were announced.
        rows: u32,
    },
    /// An end before a value is complete.
    #[error("value {value} is not complete")]
    ValueTooShort {
        /// The value.
        value: usize,
    },
    /// A length that no value of its gate has.
    #[error("row {row}, value {value}: {found} bytes, where at most {limit} are possible")]
    ValueTooLong {
        /// The row.
        row: u32,
        /// The value.
        value: usize,
        /// Its length in bytes, as it says.
        found: usize,
        /// The longest that its gate allows.
        limit: usize,
    },
}

/// Length of the longest row of these gates, in bytes.
pub fn max_row_bytes(gates: &[Gate]) -> usize {
    gates.iter().map(|gate| PREFIX_BYTES + max_value_bytes(gate)).sum()
}

/// Appends one value.
///
/// # Panics
///
/// If the value has 2^32 bytes or more. Those of valid gates have less.
pub fn append_value(framed: &mut Vec<u8>, value: &[u8]) {
    let length = u32::try_from(value.len()).expect("values of valid gates are below 2^32 bytes");
    framed.extend_from_slice(&length.to_le_bytes());
    framed.extend_from_slice(value);
}

/// Writes values, row after row, with their framing.
///
/// # Panics
///
/// As [`append_value`].
pub fn frame_values<V: AsRef<[u8]>>(values: impl IntoIterator<Item = V>) -> Vec<u8> {
    let mut framed = Vec::new();
    for value in values {
        append_value(&mut framed, value.as_ref());
    }
    framed
}

/// The values of one framed row, of which the gates are not known.
pub fn split_values(mut framed: &[u8]) -> Result<Vec<&[u8]>, FramingError> {
    let mut values = Vec::new();
    while !framed.is_empty() {
        let value = values.len();
        let split = framed
            .split_first_chunk()
            .and_then(|(prefix, rest)| rest.split_at_checked(u32::from_le_bytes(*prefix) as usize));
        let (found, rest) = split.ok_or(FramingError::ValueTooShort { value })?;
        values.push(found);
        framed = rest;
    }
    Ok(values)
}

/// Reads framed rows that arrive in pieces, split anywhere.
///
/// It holds the row that is not complete yet, and nothing else: at most [`max_row_bytes`].
#[derive(Debug)]
pub struct FramedRowReader {
    /// For each gate, the length of its longest value.
    limits: Vec<usize>,
    rows: u32,
    rows_read: u32,
    row: Row,
    prefix: [u8; PREFIX_BYTES],
    prefix_read: usize,
    /// The value that is arriving; its length is `wanted`, once the prefix is complete.
    value: Vec<u8>,
    wanted: usize,
}

impl FramedRowReader {
    /// Expects so many rows of the gates' values.
    pub fn new(gates: &[Gate], rows: u32) -> Self {
        Self {
            limits: gates.iter().map(max_value_bytes).collect(),
            rows,
            rows_read: 0,
            row: Row::with_capacity(gates.len()),
            prefix: [0; PREFIX_BYTES],
            prefix_read: 0,
            value: Vec::new(),
            wanted: 0,
        }
    }

    /// Takes bytes from the front of `bytes` up to the end of the next row, and returns it; none
    /// when `bytes` ends before.
    pub fn next_row(&mut self, bytes: &mut &[u8]) -> Result<Option<Row>, FramingError> {
        while !bytes.is_empty() {
            if self.rows_read == self.rows {
                return Err(FramingError::TooLong { rows: self.rows });
            }
            if !self.take_value(bytes)? {
                continue;
            }
            self.row.push(std::mem::take(&mut self.value));
            if self.row.len() == self.limits.len() {
                self.rows_read += 1;
                let next = Row::with_capacity(self.limits.len());
                return Ok(Some(std::mem::replace(&mut self.row, next)));
            }
        }
        Ok(None)
    }

    /// Moves bytes into prefix and value; true when the value is complete.
    fn take_value(&mut self, bytes: &mut &[u8]) -> Result<bool, FramingError> {
        if self.prefix_read < PREFIX_BYTES {
            let taken = take(bytes, PREFIX_BYTES - self.prefix_read);
            self.prefix[self.prefix_read..][..taken.len()].copy_from_slice(taken);
            self.prefix_read += taken.len();
            if self.prefix_read < PREFIX_BYTES {
                return Ok(false);
            }
            self.wanted = self.check_length()?;
            self.value.reserve_exact(self.wanted);
        }
        self.value.extend_from_slice(take(bytes, self.wanted - self.value.len()));
        let complete = self.value.len() == self.wanted;
        if complete {
            self.prefix_read = 0;
        }
        Ok(complete)
    }

    /// The length in the prefix, before anything of that size is allocated.
    fn check_length(&self) -> Result<usize, FramingError> {
        let (row, value) = (self.rows_read + 1, self.row.len());
        let (found, limit) = (u32::from_le_bytes(self.prefix) as usize, self.limits[value]);
        match found <= limit {
            true => Ok(found),
            false => Err(FramingError::ValueTooLong { row, value, found, limit }),
        }
    }

    /// Checks that all rows have been read.
    pub fn finish(&self) -> Result<(), FramingError> {
        match self.rows_read == self.rows {
            true => Ok(()),
            false => Err(FramingError::TooShort { found: self.rows_read, rows: self.rows }),
        }
    }
}

/// Cuts at most `count` bytes off the front.
fn take<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, rest) = bytes.split_at(count.min(bytes.len()));
    *bytes = rest;
    taken
}

#[cfg(test)]
mod tests {
    use cipherscore_engine::parameters::{Compression, Encoding};

    use super::*;

    fn gate(ciphertexts: usize) -> Gate {
        Gate {
            shape: vec![ciphertexts],
            key: 0,
            lwe_dimension: 10,
            variance: 0.0,
            encoding: Encoding { width: 4, signed: false },
            compression: Compression::Seed,
        }
    }

    /// Two rows of two values each, as annotated in the description of the format.
    const FRAMED: &[u8] = b"\x02\0\0\0ab\x01\0\0\0c\0\0\0\0\x03\0\0\0def";

    fn rows() -> Vec<Row> {
        let value = |text: &str| text.as_bytes().to_vec();
        vec![vec![value("ab"), value("c")], vec![value(""), value("def")]]
    }

    #[test]
    fn golden_bytes() {
        assert_eq!(frame_values(rows().concat()), FRAMED);
    }

    #[test]
    fn values_are_found_without_their_gates() {
        assert_eq!(split_values(FRAMED).unwrap(), rows().concat());
        for length in 0..FRAMED.len() {
            let found = split_values(&FRAMED[..length]);
            // Where a value ends.
            match [0, 6, 11, 15].iter().position(|&end| end == length) {
                Some(values) => assert_eq!(found.unwrap().len(), values),
                None => assert!(found.is_err(), "{length}"),
            }
        }
    }

    #[test]
    fn rows_are_read_whatever_the_pieces() {
        for size in 1..=FRAMED.len() {
            let mut reader = FramedRowReader::new(&[gate(1), gate(1)], 2);
            let mut found = Vec::new();
            for mut piece in FRAMED.chunks(size) {
                while let Some(row) = reader.next_row(&mut piece).unwrap() {
                    found.push(row);
                }
                assert!(piece.is_empty());
            }
            assert_eq!((found, reader.finish()), (rows(), Ok(())), "pieces of {size}");
        }
    }

    #[test]
    fn every_end_but_the_last_is_too_short() {
        for length in 0..FRAMED.len() {
            let mut reader = FramedRowReader::new(&[gate(1), gate(1)], 2);
            let mut bytes = &FRAMED[..length];
            let mut found = 0;
            while reader.next_row(&mut bytes).unwrap().is_some() {
                found += 1;
            }
            assert_eq!(reader.finish(), Err(FramingError::TooShort { found, rows: 2 }), "{length}");
        }
    }

    #[test]
    fn a_byte_after_the_last_row_is_refused() {
        let mut reader = FramedRowReader::new(&[gate(1), gate(1)], 1);
        let mut bytes = FRAMED;
        assert!(reader.next_row(&mut bytes).unwrap().is_some());
        assert_eq!(reader.finish(), Ok(()));
        assert_eq!(reader.next_row(&mut &bytes[..1]), Err(FramingError::TooLong { rows: 1 }));
    }

    #[test]
    fn a_length_that_the_gate_cannot_have_is_refused_before_its_value() {
        let gates = [gate(3), gate(1)];
        for value in [0, 1] {
            let limit = max_value_bytes(&gates[value]);
            for (found, refused) in [(limit, false), (limit + 1, true), (u32::MAX as usize, true)] {
                let mut reader = FramedRowReader::new(&gates, 7);
                let mut before = &FRAMED[..6 * value];
                assert_eq!(reader.next_row(&mut before), Ok(None));
                let prefix = u32::try_from(found).unwrap().to_le_bytes();
                let error = FramingError::ValueTooLong { row: 1, value, found, limit };
                let expected = if refused { Err(error) } else { Ok(None) };
                assert_eq!(reader.next_row(&mut prefix.as_slice()), expected);
                assert!(reader.value.capacity() <= limit);
            }
        }
    }
}
