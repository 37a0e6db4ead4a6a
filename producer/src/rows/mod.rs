//! Rows of features in, scores out, as CSV.

mod columns;
mod field;
mod format;
mod scores;

use std::io::Read;
use std::sync::Arc;

use thiserror::Error;

use self::columns::{Column, all_columns, match_columns, other_separator};
pub(crate) use self::field::{BadField, Field};
pub use self::format::{CategoryFields, ExtraColumns, FirstLine, MISSING, MissingMarks, RowFormat};
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
    /// Not CSV.
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
    /// A line of another number of fields than there are columns.
    #[error(
        "line {line} has {found} fields, where there are {expected} columns. A field with a comma is \
         written in double quotes, and comment lines are taken out"
    )]
    Fields {
        /// Line of the file, from 1.
        line: u64,
        /// Fields of the line.
        found: usize,
        /// Columns of the header; features of the model where there is none.
        expected: usize,
    },
    /// A comment where the header should be.
    #[error(
        "the first line, {0:?}, is a comment: take such lines out, for example by grep -v '^#'"
    )]
    Comment(String),
    /// One field where another separator makes several.
    #[error(
        "the fields of a line are separated by {0:?} and not by commas: give --separator {0:?}"
    )]
    Separator(char),
    /// A column without a name, of a file whose features are found by their names.
    #[error(
        "column {0} has no name. Lines that end with a comma have one field more than there are names; \
         pandas writes its index without a name, unless DataFrame.to_csv(index=False). \
         --ignore-extra-columns passes over such columns"
    )]
    NamelessColumn(usize),
    /// Bytes that are no text.
    #[error(
        "line {line}, field {field}: these bytes are no UTF-8. Write the file as UTF-8, for example by \
         iconv -f LATIN1 -t UTF-8"
    )]
    Encoding {
        /// Line of the file, from 1.
        line: u64,
        /// Position of the field, from 1.
        field: usize,
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
    /// A number where the model has names of categories.
    #[error(
        "line {line}, column {column:?}: {text:?} is none of the categories {known}. Rows are given by \
         their names; only if it is the position of one in the model's own list, which another data \
         frame has otherwise, give --category-codes"
    )]
    CategoryCode {
        /// Line of the file, from 1.
        line: u64,
        /// Name of the column.
        column: String,
        /// What is there.
        text: String,
        /// Some of the model's categories.
        known: String,
    },
    /// A category that was not there in training, which the model's library refuses.
    #[error(
        "line {line}, column {column:?}: {text:?} is none of the categories {known}, and the library \
         refuses others"
    )]
    UnseenCategory {
        /// Line of the file, from 1.
        line: u64,
        /// Name of the column.
        column: String,
        /// What is there.
        text: String,
        /// Some of the model's categories.
        known: String,
    },
    /// Something else than a number that the model takes.
    #[error(
        "line {line}, column {column:?}: {text:?} is not a {expected}. What stands for a missing value \
         is named by --missing"
    )]
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

/// Reads rows of numbers, one after the other. An empty field, NaN and [`MISSING`] are a missing value
/// (NaN), where the model takes one; categories are found by their names.
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
        format: impl Into<RowFormat>,
    ) -> Result<Self, RowError> {
        let format = format.into();
        let mut builder = csv::ReaderBuilder::new();
        builder.buffer_capacity(BUFFER_BYTES).flexible(true).delimiter(format.separator);
        builder.has_headers(format.first_line != FirstLine::Row);
        let mut reader = builder.from_reader(input);
        let mut missing = format.missing.clone();
        missing.texts.extend_from_slice(features.missing());
        let missing = Arc::new(missing);
        let columns = match format.first_line {
            FirstLine::Header(extra) => {
                let header = reader.byte_headers()?.clone();
                let mut names = Vec::with_capacity(header.len());
                for (index, field) in header.iter().enumerate() {
                    let encoding = |_| RowError::Encoding { line: 1, field: index + 1 };
                    names.push(std::str::from_utf8(field).map_err(encoding)?);
                }
                match_columns(&names, features, extra, &format, &missing)?
            }
            FirstLine::Row => all_columns(features, &format, &missing),
        };
        let next_line = reader.position().line();
        let record = csv::ByteRecord::new();
        Ok(Self { reader, record, columns, width: features.count(), next_line })
    }

    /// For each feature the name of its column in the file; its own where there is no header.
    pub fn names(&self) -> Vec<String> {
        let mut names = vec![String::new(); self.width];
        for column in &self.columns {
            if let Some((feature, _)) = &column.feature {
                names[*feature].clone_from(&column.name);
            }
        }
        names
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
        let (found, expected) = (self.record.len(), self.columns.len());
        if found != expected {
            let text = String::from_utf8_lossy(self.record.get(0).unwrap_or_default());
            return Err(match other_separator(&text).filter(|_| found == 1) {
                Some(separator) => RowError::Separator(separator),
                None => RowError::Fields { line: self.line(), found, expected },
            });
        }
        let start = values.len();
        values.resize(start + self.width, f64::NAN);
        let row = &mut values[start..];
        for (position, (column, field)) in self.columns.iter().zip(&self.record).enumerate() {
            let Some((feature, kind)) = &column.feature else { continue };
            let encoding = |_| RowError::Encoding { line: self.line(), field: position + 1 };
            let field = std::str::from_utf8(field).map_err(encoding)?;
            let value = kind.value(field);
            row[*feature] = value.map_err(|bad| self.bad_field(column, field, bad))?;
        }
        Ok(())
    }

    fn bad_field(&self, column: &Column, field: &str, bad: BadField) -> RowError {
        let (line, column) = (self.line(), shorten(&column.name));
        let text = shorten(field.trim());
        match bad {
            BadField::Number(expected) => RowError::NotANumber { line, column, text, expected },
            BadField::Code(known) => RowError::CategoryCode { line, column, text, known },
            BadField::Unseen(known) => RowError::UnseenCategory { line, column, text, known },
        }
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
