//! Rows of features in, scores out, as CSV.

mod columns;
mod scores;

use std::io::Read;

use thiserror::Error;

use self::columns::{Column, all_columns, match_columns};
pub use self::columns::{ExtraColumns, FirstLine};
pub use self::scores::{ScoreColumns, ScoreWriter, WriteScoresError};
use crate::matrix::Matrix;
use crate::model::Features;

/// How much of a stranger's text an error repeats, in characters.
const MAX_SHOWN: usize = 64;
/// Bytes that are read at a time.
const BUFFER_BYTES: usize = 64 << 10;

/// Why rows cannot be read.
#[derive(Debug, Error)]
pub enum RowError {
    /// Not CSV, or lines of different lengths.
    #[error(transparent)]
    Csv(#[from] csv::Error),
    /// Another number of columns than the model has features.
    #[error("the header has {found} columns, where the model has {expected} features")]
    Columns {
        /// Columns of the file.
        found: usize,
        /// Features of the model.
        expected: usize,
    },
    /// A first line of numbers where the names of columns should be.
    #[error(
        "the first line, {0:?}, holds numbers and no names of columns. If it is a row like the \
         others, give --no-header, which takes columns in the order of the model's features; else \
         name the columns"
    )]
    NoHeader(String),
    /// A first line that counts the columns from 0, which a row may do too.
    #[error(
        "the first line, {0:?}, holds numbers that count the columns from 0. If it is a header, as \
         pandas writes it for columns without names, name the columns first, for example with \
         DataFrame.add_prefix(\"f\"). Only if it is a row like the others, give --no-header, which \
         takes columns in the order of the model's features"
    )]
    ColumnNumbers(String),
    /// A first line that may be a row, with a number or without any text.
    #[error(
        "the first line, {0:?}, holds numbers or missing values among the names of columns. If it \
         is a row like the others, give --no-header, which takes columns in the order of the \
         model's features; else give each column a name that is no number"
    )]
    UnclearHeader(String),
    /// Without a header, another number of columns than the model has features.
    #[error("line {line} has {found} fields, where the model has {expected} features")]
    Fields {
        /// Line of the file, from 1.
        line: u64,
        /// Fields of the line.
        found: usize,
        /// Features of the model.
        expected: usize,
    },
    /// A feature that no column has the name of.
    #[error(
        "the header has no column {name:?}. The model's features are found by their names, and it \
         lacks {missing} of {expected}"
    )]
    NoColumn {
        /// The first such feature.
        name: String,
        /// How many there are.
        missing: usize,
        /// Features of the model.
        expected: usize,
    },
    /// A column that has the name of no feature.
    #[error(
        "column {0:?} is no feature of the model; --ignore-extra-columns passes over such ones"
    )]
    ExtraColumn(String),
    /// A name that two columns have.
    #[error("two columns are named {0:?}")]
    SameName(String),
    /// A line without anything, where it could be meant as a row without a value.
    #[error("line {0} is empty: a row of one feature needs its value")]
    Empty(u64),
    /// Something else than a number that the model takes.
    #[error("line {line}, column {column}: {text:?} is not a {expected}")]
    NotANumber {
        /// Line of the file, from 1.
        line: u64,
        /// Name of the column.
        column: String,
        /// What is there.
        text: String,
        /// What should be there.
        expected: &'static str,
    },
}

/// Reads rows of numbers, one after the other. An empty field, `NA` and `nan` are a missing value
/// (NaN), where the model takes one.
pub struct RowReader<R> {
    reader: csv::Reader<R>,
    record: csv::ByteRecord,
    columns: Vec<Column>,
    /// Features of a row.
    width: usize,
    /// Line after the last record, from 1.
    next_line: u64,
}

impl<R: Read> RowReader<R> {
    /// Reads the header, which must have a column for each feature: of its name where features
    /// have names, else at its position. Without a header, columns are features in their order.
    pub fn new(
        input: R,
        features: &Features,
        first_line: impl Into<FirstLine>,
    ) -> Result<Self, RowError> {
        let first_line = first_line.into();
        let mut builder = csv::ReaderBuilder::new();
        builder.buffer_capacity(BUFFER_BYTES).has_headers(first_line != FirstLine::Row);
        let mut reader = builder.from_reader(input);
        let columns = match first_line {
            FirstLine::Header(extra) => match_columns(&reader.headers()?.clone(), features, extra)?,
            FirstLine::Row => all_columns(features),
        };
        let next_line = reader.position().line();
        let record = csv::ByteRecord::new();
        Ok(Self { reader, record, columns, width: features.count(), next_line })
    }

    /// At most `count` further rows; fewer at the end of the file.
    pub fn take(&mut self, count: usize) -> Result<Matrix<f64>, RowError> {
        let mut values = Vec::new();
        let mut rows = 0;
        while rows < count && self.reader.read_byte_record(&mut self.record)? {
            // Lines without text are skipped on the way here. With one column they may be rows.
            let next_line = self.reader.position().line();
            if self.columns.len() == 1 && next_line > self.next_line + 1 {
                return Err(RowError::Empty(self.next_line));
            }
            self.next_line = next_line;
            self.add_row(&mut values)?;
            rows += 1;
        }
        Ok(Matrix::new(self.width, values))
    }

    /// The record's fields, each where the model has its feature.
    fn add_row(&self, values: &mut Vec<f64>) -> Result<(), RowError> {
        if self.record.len() != self.columns.len() {
            // The lines of a file are of one length: it is that of the first one, which is a row.
            let (found, expected) = (self.record.len(), self.columns.len());
            return Err(RowError::Fields { line: self.line(), found, expected });
        }
        let start = values.len();
        values.resize(start + self.width, f64::NAN);
        let row = &mut values[start..];
        for (column, field) in self.columns.iter().zip(&self.record) {
            let Some(feature) = column.feature else { continue };
            row[feature] = column.number(field).ok_or_else(|| RowError::NotANumber {
                line: self.line(),
                column: shorten(&column.name),
                text: shorten(&String::from_utf8_lossy(field.trim_ascii())),
                expected: column.expected(),
            })?;
        }
        Ok(())
    }

    /// Where the record is.
    fn line(&self) -> u64 {
        self.record.position().map_or(0, csv::Position::line)
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(MAX_SHOWN).collect()
}

#[cfg(test)]
mod tests;
