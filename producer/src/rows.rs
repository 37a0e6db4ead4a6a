//! Rows of features in, scores out, as CSV with a header.

use std::io::{Read, Write};

use cipherscore_concrete::client::ClientArtifact;
use cipherscore_engine::model::{ModelError, ScoreKind};
use thiserror::Error;

/// How much of a stranger's text an error repeats, in characters.
const MAX_SHOWN: usize = 64;

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
    /// A line without anything, where it could be meant as a row without a value.
    #[error("line {0} is empty: a row of one feature needs its value")]
    Empty(u64),
    /// Something else than a finite number.
    #[error("line {line}, column {column}: {text:?} is not a finite number")]
    NotANumber {
        /// Line of the file, from 1.
        line: u64,
        /// Name of the column.
        column: String,
        /// What is there.
        text: String,
    },
}

/// Reads rows of finite numbers, one after the other.
pub struct RowReader<R> {
    reader: csv::Reader<R>,
    header: csv::StringRecord,
    /// Line after the last record, from 1.
    next_line: u64,
}

impl<R: Read> RowReader<R> {
    /// Reads the header, which must have a column for each feature.
    pub fn new(input: R, features: usize) -> Result<Self, RowError> {
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(input);
        let header = reader.headers()?.clone();
        match header.len() == features {
            true => Ok(Self { next_line: reader.position().line(), reader, header }),
            false => Err(RowError::Columns { found: header.len(), expected: features }),
        }
    }

    /// At most `count` further rows; fewer at the end of the file.
    pub fn take(&mut self, count: usize) -> Result<Vec<Vec<f64>>, RowError> {
        let mut rows = Vec::new();
        let mut record = csv::StringRecord::new();
        while rows.len() < count && self.reader.read_record(&mut record)? {
            // Lines without text are skipped on the way here. With one feature they may be rows.
            let next_line = self.reader.position().line();
            if self.header.len() == 1 && next_line > self.next_line + 1 {
                return Err(RowError::Empty(self.next_line));
            }
            self.next_line = next_line;
            rows.push(self.numbers(&record)?);
        }
        Ok(rows)
    }

    fn numbers(&self, record: &csv::StringRecord) -> Result<Vec<f64>, RowError> {
        let number = |(index, text): (usize, &str)| match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(number),
            _ => Err(RowError::NotANumber {
                line: record.position().map_or(0, csv::Position::line),
                column: shorten(self.header.get(index).unwrap_or_default()),
                text: shorten(text),
            }),
        };
        record.iter().enumerate().map(number).collect()
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(MAX_SHOWN).collect()
}

/// What a line of output holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Columns {
    /// `predict_proba` or `predict`: `proba_0,..`, `prediction`, or `prediction_0,..`.
    Scores,
    /// Integers as decrypted, before dequantisation: `output_0,..`.
    Integers,
}

/// Why scores cannot be written.
#[derive(Debug, Error)]
pub enum ScoreError {
    /// The file.
    #[error(transparent)]
    Csv(#[from] csv::Error),
    /// The file.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The integers.
    #[error(transparent)]
    Model(#[from] ModelError),
}

/// Writes a line for each row.
pub struct ScoreWriter<'a, W: Write> {
    artifact: &'a ClientArtifact,
    columns: Columns,
    writer: csv::Writer<W>,
}

impl<'a, W: Write> ScoreWriter<'a, W> {
    /// Writes the header.
    pub fn new(output: W, artifact: &'a ClientArtifact, columns: Columns) -> csv::Result<Self> {
        let mut writer = csv::Writer::from_writer(output);
        let (kind, scores) = artifact.scores();
        let numbered =
            |prefix: &str, count| (0..count).map(|i| format!("{prefix}_{i}")).collect::<Vec<_>>();
        writer.write_record(match (columns, kind, scores) {
            (Columns::Integers, ..) => numbered("output", artifact.output().len()),
            (Columns::Scores, ScoreKind::Probabilities, _) => numbered("proba", scores),
            (Columns::Scores, ScoreKind::Predictions, 1) => vec!["prediction".into()],
            (Columns::Scores, ScoreKind::Predictions, _) => numbered("prediction", scores),
        })?;
        Ok(Self { artifact, columns, writer })
    }

    /// Writes the line of one row's decrypted integers. Floats are printed in the shortest form
    /// that reads back as the same.
    pub fn write(&mut self, integers: &[i64]) -> Result<(), ScoreError> {
        match self.columns {
            Columns::Integers => self.writer.write_record(integers.iter().map(i64::to_string))?,
            Columns::Scores => {
                let shape = &self.artifact.output().shape;
                let scores = self.artifact.model().scores(integers, shape)?;
                self.writer.write_record(scores.iter().map(f64::to_string))?;
            }
        }
        Ok(())
    }

    /// Writes the line of a row without scores: every field is empty.
    pub fn write_empty(&mut self) -> Result<(), ScoreError> {
        let fields = match self.columns {
            Columns::Integers => self.artifact.output().len(),
            Columns::Scores => self.artifact.scores().1,
        };
        Ok(self.writer.write_record(std::iter::repeat_n("", fields))?)
    }

    /// Writes what is buffered.
    pub fn finish(mut self) -> Result<(), ScoreError> {
        Ok(self.writer.flush()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str) -> Result<Vec<Vec<f64>>, RowError> {
        RowReader::new(text.as_bytes(), 2)?.take(usize::MAX)
    }

    #[test]
    fn numbers_are_read_as_written() {
        assert_eq!(rows("a,b\n1, -2.5e3\n0.1,7\n").unwrap(), [[1.0, -2500.0], [0.1, 7.0]]);
        assert!(rows("a,b\n").unwrap().is_empty());
    }

    #[test]
    fn an_empty_line_is_not_lost_where_it_may_be_a_row() {
        let read = |text: &str| RowReader::new(text.as_bytes(), 1)?.take(usize::MAX);
        assert_eq!(read("a\n1\n2\n").unwrap(), [[1.0], [2.0]]);
        assert_eq!(read("a\n1\n\n").unwrap(), [[1.0]]);
        let refused = read("a\n1\n\n3\n").unwrap_err().to_string();
        assert_eq!(refused, "line 3 is empty: a row of one feature needs its value");
    }

    #[test]
    fn errors_name_the_place() {
        let message = |text| rows(text).unwrap_err().to_string();
        assert_eq!(message("a,b,c\n"), "the header has 3 columns, where the model has 2 features");
        assert_eq!(message("a,b\n1,2\n3,x\n"), "line 3, column b: \"x\" is not a finite number");
        assert!(message("a,b\n1,\n").contains("column b: \"\""));
        assert!(message("a,b\n1,NaN\n").contains("\"NaN\" is not a finite"));
        assert!(message("a,b\n1\n").contains("line: 2"));
    }
}
