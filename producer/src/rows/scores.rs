//! Scores, a line for each row.

use std::fmt::Display;
use std::fmt::Write as _;
use std::io::Write;

use cipherscore_engine::model::ScoreKind;
use thiserror::Error;

use crate::model::{ClientModel, EncryptionError};

/// What a line of output holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScoreColumns {
    /// `predict_proba`, `predict` or the outputs of a torch module: `proba_0,..`, `prediction` or
    /// `prediction_0,..`, `score` or `score_0,..`.
    Scores,
    /// Integers as decrypted, before dequantisation: `output_0,..`.
    Integers,
}

/// Why scores cannot be written.
#[derive(Debug, Error)]
pub enum WriteScoresError {
    /// The file.
    #[error(transparent)]
    Csv(#[from] csv::Error),
    /// The file.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The integers.
    #[error(transparent)]
    Model(#[from] EncryptionError),
}

/// Writes a line for each row.
pub struct ScoreWriter<'a, W: Write> {
    model: &'a dyn ClientModel,
    columns: ScoreColumns,
    writer: csv::Writer<W>,
    /// A field, in one buffer for all of them.
    field: String,
}

impl<'a, W: Write> ScoreWriter<'a, W> {
    /// Writes the header.
    pub fn new(output: W, model: &'a dyn ClientModel, columns: ScoreColumns) -> csv::Result<Self> {
        let mut writer = csv::Writer::from_writer(output);
        let interface = model.interface();
        let numbered =
            |prefix: &str, count| (0..count).map(|i| format!("{prefix}_{i}")).collect::<Vec<_>>();
        writer.write_record(match (columns, interface.score_kind, interface.scores) {
            (ScoreColumns::Integers, ..) => numbered("output", interface.outputs),
            (ScoreColumns::Scores, ScoreKind::Probabilities, scores) => numbered("proba", scores),
            (ScoreColumns::Scores, ScoreKind::Predictions, 1) => vec!["prediction".into()],
            (ScoreColumns::Scores, ScoreKind::Predictions, scores) => {
                numbered("prediction", scores)
            }
            (ScoreColumns::Scores, ScoreKind::Outputs, 1) => vec!["score".into()],
            (ScoreColumns::Scores, ScoreKind::Outputs, scores) => numbered("score", scores),
        })?;
        Ok(Self { model, columns, writer, field: String::new() })
    }

    /// Writes the line of one row's decrypted integers. Floats are printed in the shortest form
    /// that reads back as the same.
    pub fn write(&mut self, integers: &[i64]) -> Result<(), WriteScoresError> {
        match self.columns {
            ScoreColumns::Integers => self.write_numbers(integers),
            ScoreColumns::Scores => self.write_numbers(&self.model.scores(integers)?),
        }
    }

    fn write_numbers<T: Display>(&mut self, numbers: &[T]) -> Result<(), WriteScoresError> {
        for number in numbers {
            self.field.clear();
            write!(self.field, "{number}").expect("memory takes every character");
            self.writer.write_field(&self.field)?;
        }
        Ok(self.writer.write_record(None::<&[u8]>)?)
    }

    /// Writes the line of a row without scores: every field is empty.
    pub fn write_empty(&mut self) -> Result<(), WriteScoresError> {
        let interface = self.model.interface();
        let fields = match self.columns {
            ScoreColumns::Integers => interface.outputs,
            ScoreColumns::Scores => interface.scores,
        };
        Ok(self.writer.write_record(std::iter::repeat_n("", fields))?)
    }

    /// Writes what is buffered.
    pub fn finish(mut self) -> Result<(), WriteScoresError> {
        Ok(self.writer.flush()?)
    }
}
