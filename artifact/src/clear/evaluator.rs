//! Sums in the clear behind the engine's evaluation trait.

use std::num::NonZeroU32;
use std::sync::Arc;

use cipherscore_engine::evaluator::{
    Evaluation, EvaluationError, Evaluator, JobFootprint, PreparedKey, Requirements, Stop,
};
use cipherscore_ids::{KeysetId, ModelId};

use super::model::ServerFile;
use super::{NOTICE, UNIT};

/// Bytes of a number.
const WORD_BYTES: usize = 8;

/// A model whose rows anybody can read.
pub(super) struct ClearEvaluator {
    model_id: ModelId,
    file: ServerFile,
}

impl ClearEvaluator {
    pub(super) fn new(model_id: ModelId, file: ServerFile) -> Self {
        Self { model_id, file }
    }

    fn row_bytes(&self) -> usize {
        WORD_BYTES * self.file.weights.len()
    }

    /// The score of a row, in units.
    fn evaluate(&self, row: &[u8], number: u32) -> Result<i64, EvaluationError> {
        let (words, _) = row.as_chunks();
        let products = words.iter().zip(&self.file.weights);
        let sum = products.fold(self.file.intercept, |sum, (word, weight)| {
            weight.mul_add(f64::from_le_bytes(*word), sum)
        });
        let units = (sum * UNIT).round();
        match units.abs() < i64::MAX as f64 {
            #[allow(clippy::cast_possible_truncation, reason = "compared in the line before")]
            true => Ok(units as i64),
            // Nothing compares with NaN.
            false => {
                Err(EvaluationError::Shape(format!("row {number}: its score is {sum}, too much")))
            }
        }
    }
}

impl Evaluator for ClearEvaluator {
    fn requirements(&self) -> Requirements {
        Requirements {
            model_id: self.model_id,
            keyset_id: KeysetId::of(NOTICE),
            needs_key: false,
            max_key_bytes: 0,
            prepared_key_bytes: 0,
            is_quick: true,
        }
    }

    /// A row that arrives, and outputs, of which a growing buffer holds twice as many.
    fn footprint(&self, rows: u32) -> JobFootprint {
        let outputs = (rows as usize).saturating_mul(2 * WORD_BYTES);
        let waiting = 2 * (NOTICE.len() + self.row_bytes());
        let input = u64::from(rows).saturating_mul(self.row_bytes() as u64);
        JobFootprint {
            memory_bytes: outputs.saturating_add(waiting + NOTICE.len()),
            max_input_bytes: input.saturating_add(NOTICE.len() as u64),
            planned: None,
        }
    }

    fn prepare(&self, _serialised: Vec<u8>) -> Result<PreparedKey, EvaluationError> {
        let reason = "the clear engine has no keys: it encrypts nothing";
        Err(EvaluationError::NotConformant(reason.into()))
    }

    fn start(
        self: Arc<Self>,
        _key: Option<&PreparedKey>,
        rows: NonZeroU32,
    ) -> Result<Box<dyn Evaluation>, EvaluationError> {
        Ok(Box::new(ClearEvaluation {
            evaluator: self,
            rows: rows.get(),
            done: 0,
            is_noticed: false,
            waiting: Vec::new(),
            outputs: NOTICE.to_vec(),
        }))
    }
}

/// One job.
struct ClearEvaluation {
    evaluator: Arc<ClearEvaluator>,
    /// Rows that were announced.
    rows: u32,
    /// Rows that are evaluated.
    done: u32,
    /// Whether the notice was there.
    is_noticed: bool,
    /// What has arrived of the notice, or of the next row.
    waiting: Vec<u8>,
    outputs: Vec<u8>,
}

impl Evaluation for ClearEvaluation {
    fn push(&mut self, mut chunk: &[u8], stop: Stop<'_>) -> Result<(), EvaluationError> {
        if stop() {
            return Err(EvaluationError::Stopped);
        }
        while !chunk.is_empty() {
            if self.is_noticed && self.done == self.rows {
                let reason = format!("there is more than the {} rows announced", self.rows);
                return Err(EvaluationError::Shape(reason));
            }
            let wanted = if self.is_noticed { self.evaluator.row_bytes() } else { NOTICE.len() };
            let (taken, rest) = chunk.split_at(chunk.len().min(wanted - self.waiting.len()));
            self.waiting.extend_from_slice(taken);
            chunk = rest;
            if self.waiting.len() == wanted {
                self.take_waiting()?;
                self.waiting.clear();
            }
        }
        Ok(())
    }

    fn finish(self: Box<Self>, stop: Stop<'_>) -> Result<Vec<u8>, EvaluationError> {
        match self.done == self.rows && self.waiting.is_empty() {
            _ if stop() => Err(EvaluationError::Stopped),
            true => Ok(self.outputs),
            false => {
                let reason = format!("{} rows, where {} were announced", self.done, self.rows);
                Err(EvaluationError::Shape(reason))
            }
        }
    }
}

impl ClearEvaluation {
    fn take_waiting(&mut self) -> Result<(), EvaluationError> {
        if self.is_noticed {
            let score = self.evaluator.evaluate(&self.waiting, self.done + 1)?;
            self.outputs.extend(score.to_le_bytes());
            self.done += 1;
            return Ok(());
        }
        self.is_noticed = self.waiting == NOTICE;
        match self.is_noticed {
            true => Ok(()),
            false => Err(EvaluationError::Shape(
                "rows of the clear engine begin with a notice that they are not encrypted".into(),
            )),
        }
    }
}
