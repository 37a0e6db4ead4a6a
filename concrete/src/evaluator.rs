//! TFHE circuits behind the engine's evaluation trait. Jobs and results are [batches](batch).
//!
//! Rows that have arrived are evaluated together, in parallel: as many as there are threads for a
//! circuit with bootstraps, which fills all threads with one row too, [`LINEAR_BATCH_ROWS`] of a
//! linear one, which takes less time for a row than it takes to hand it out. A single linear row
//! stays on the calling thread.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::Arc;

use cipherscore_engine::artifact::{Digest, ModelId};
use cipherscore_engine::circuit::{
    Cost, EvaluateError, Footprint, InvalidCircuit, ValidCircuit, evaluate, evaluate_linear,
};
use cipherscore_engine::evaluation_keys::PreparedKeys;
use cipherscore_engine::evaluator::{Evaluation, EvaluationError, Evaluator, PreparedKey, Stop};
use cipherscore_engine::parameters::{Compression, Signature};
use rayon::prelude::*;

use crate::batch::{self, BatchError, BatchReader, Row};
use crate::keys::{max_evaluation_key_bytes, read_evaluation_keys};
use crate::server::ServerArtifact;
use crate::values::{read_value, write_value};

/// Rows of a linear circuit that are evaluated together.
pub const LINEAR_BATCH_ROWS: usize = 1024;
/// Bytes of serialised rows that wait to be evaluated together. A row more may be arriving.
/// Seeded rows of a linear circuit take about a kilobyte, uncompressed ones hundreds.
pub const MAX_WAITING_BYTES: usize = 16 << 20;

/// A model's circuit, optimised and ready to be evaluated.
#[derive(Debug)]
pub struct CircuitEvaluator {
    model_id: ModelId,
    keyset_id: Digest,
    circuit: ValidCircuit,
    cost: Cost,
    footprint: Footprint,
    threads: usize,
}

impl CircuitEvaluator {
    /// Optimises the circuit. It is to be evaluated on the rayon pool that is current here, or on
    /// one of [`CircuitEvaluator::with_threads`].
    pub fn new(artifact: ServerArtifact) -> Result<Self, InvalidCircuit> {
        let circuit = artifact.circuit.optimise()?;
        Ok(Self {
            model_id: artifact.model_id,
            keyset_id: circuit.signature().keyset.id(),
            cost: circuit.circuit().cost(),
            footprint: circuit.footprint(),
            circuit,
            threads: rayon::current_num_threads(),
        })
    }

    /// Sets the threads of the rayon pool that evaluates, on which memory depends.
    pub fn with_threads(self, threads: NonZeroUsize) -> Self {
        Self { threads: threads.get(), ..self }
    }

    /// Operations of one row.
    pub fn cost(&self) -> Cost {
        self.cost
    }

    fn signature(&self) -> &Signature {
        self.circuit.signature()
    }

    /// Rows that are evaluated together, at most.
    fn batch_rows(&self) -> usize {
        if self.cost.is_linear() { LINEAR_BATCH_ROWS } else { self.threads }
    }

    /// Decodes one row, evaluates it, and writes its outputs.
    fn evaluate_row(
        &self,
        keys: Option<&PreparedKeys>,
        row: Row,
        stop: Stop<'_>,
    ) -> Result<Vec<u8>, EvaluationError> {
        if stop() {
            return Err(EvaluationError::Stopped);
        }
        let mut inputs = Vec::with_capacity(row.len());
        for (index, (gate, value)) in self.signature().inputs.iter().zip(row).enumerate() {
            let input = read_value(gate, &value);
            let shape = |error| EvaluationError::Shape(format!("value {index}: {error}"));
            inputs.push(input.map_err(shape)?);
        }
        let outputs = match keys {
            None => evaluate_linear(&self.circuit, &inputs),
            Some(keys) => evaluate(&self.circuit, keys, &inputs, &|_| match stop() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }),
        };
        drop(inputs);
        let outputs = outputs.map_err(classify)?;
        let gates = &self.signature().outputs;
        let mut written = Vec::with_capacity(batch::max_row_bytes(gates));
        for (gate, output) in gates.iter().zip(outputs) {
            let value = write_value(gate, Compression::None, output.words());
            batch::append_value(&mut written, &value);
        }
        Ok(written)
    }
}

fn classify(error: EvaluateError) -> EvaluationError {
    match error {
        EvaluateError::Cancelled => EvaluationError::Stopped,
        EvaluateError::NotLinear => EvaluationError::KeyRequired,
        EvaluateError::Keys => EvaluationError::NotConformant(error.to_string()),
        EvaluateError::Input { .. } => EvaluationError::Shape(error.to_string()),
    }
}

impl Evaluator for CircuitEvaluator {
    fn model_id(&self) -> ModelId {
        self.model_id
    }

    fn needs_key(&self) -> bool {
        !self.cost.is_linear()
    }

    fn keyset_id(&self) -> Digest {
        self.keyset_id
    }

    fn max_key_bytes(&self) -> usize {
        max_evaluation_key_bytes(&self.signature().keyset)
    }

    fn prepared_key_bytes(&self) -> usize {
        self.signature().keyset.prepared_bytes()
    }

    /// The sum of
    /// * rows that wait: at most [`MAX_WAITING_BYTES`] and one row;
    /// * rows that are evaluated: as many as there are threads, each by the circuit's
    ///   [`Footprint`]. Threads move between rows, so that each row may have had all of them;
    /// * four times the outputs of these rows, for the steps of their serialisation;
    /// * serialised outputs of all rows, twice: they are put together at the end.
    fn memory_bytes(&self, rows: u32) -> usize {
        let rows = rows as usize;
        let input = batch::max_row_bytes(&self.signature().inputs);
        let output = batch::max_row_bytes(&self.signature().outputs);
        let waiting = rows.saturating_mul(input).min(MAX_WAITING_BYTES.saturating_add(input));
        // A linear row never leaves its thread.
        let threads = if self.cost.is_linear() { 1 } else { self.threads };
        let row = self.footprint.bytes(threads).saturating_add(4 * output);
        let evaluated = rows.min(self.threads).saturating_mul(row);
        let outputs = rows.saturating_mul(output).saturating_mul(2);
        waiting.saturating_add(evaluated).saturating_add(outputs)
    }

    fn max_input_bytes(&self, rows: u32) -> u64 {
        let row = batch::max_row_bytes(&self.signature().inputs) as u64;
        u64::from(rows).saturating_mul(row)
    }

    /// The model is hidden by bootstraps, or not at all.
    fn released_coefficients(&self, _: u32) -> u64 {
        0
    }

    fn is_quick(&self) -> bool {
        self.cost.is_linear()
    }

    fn prepare(&self, serialised: Vec<u8>) -> Result<PreparedKey, EvaluationError> {
        let (found, limit) = (serialised.len(), self.max_key_bytes());
        if found > limit {
            return Err(EvaluationError::NotConformant(format!(
                "an evaluation key of {found} bytes, where at most {limit} are possible"
            )));
        }
        let not_conformant =
            |error: &dyn ToString| EvaluationError::NotConformant(error.to_string());
        let keyset = &self.signature().keyset;
        let keys = read_evaluation_keys(&serialised, keyset).map_err(|e| not_conformant(&e))?;
        drop(serialised);
        let keys = PreparedKeys::new(keyset, keys).map_err(|e| not_conformant(&e))?;
        Ok(PreparedKey::new(self.keyset_id, keys.bytes(), keys))
    }

    fn begin(
        self: Arc<Self>,
        key: Option<Arc<PreparedKey>>,
        rows: u32,
    ) -> Result<Box<dyn Evaluation>, EvaluationError> {
        if rows == 0 {
            return Err(EvaluationError::Shape("a job of no rows".into()));
        }
        match &key {
            Some(key) => {
                let _: &PreparedKeys = key.open(self.keyset_id)?;
            }
            None if self.needs_key() => return Err(EvaluationError::KeyRequired),
            None => {}
        }
        Ok(Box::new(CircuitEvaluation {
            reader: BatchReader::new(&self.signature().inputs, rows),
            key: key.filter(|_| self.needs_key()),
            evaluator: self,
            waiting: Vec::new(),
            waiting_bytes: 0,
            outputs: Vec::new(),
            failure: None,
        }))
    }
}

/// One job.
struct CircuitEvaluation {
    evaluator: Arc<CircuitEvaluator>,
    /// None for a linear circuit.
    key: Option<Arc<PreparedKey>>,
    reader: BatchReader,
    /// Rows that are complete and not evaluated.
    waiting: Vec<Row>,
    waiting_bytes: usize,
    /// Serialised outputs of each row that is evaluated.
    outputs: Vec<Vec<u8>>,
    failure: Option<EvaluationError>,
}

impl Evaluation for CircuitEvaluation {
    fn push(&mut self, chunk: &[u8], stop: Stop<'_>) -> Result<(), EvaluationError> {
        self.unless_failed(|job| job.take(chunk, stop))
    }

    fn finish(mut self: Box<Self>, stop: Stop<'_>) -> Result<Vec<u8>, EvaluationError> {
        self.unless_failed(|job| {
            job.reader.finish().map_err(shape)?;
            job.evaluate_waiting(stop)
        })?;
        // Most jobs are one row, which need not be copied.
        Ok(match self.outputs.len() {
            1 => self.outputs.swap_remove(0),
            _ => self.outputs.concat(),
        })
    }
}

impl CircuitEvaluation {
    /// Rows would be missing after a failure, so that there is nothing to go on with.
    fn unless_failed(
        &mut self,
        step: impl FnOnce(&mut Self) -> Result<(), EvaluationError>,
    ) -> Result<(), EvaluationError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        step(self).inspect_err(|failure| self.failure = Some(failure.clone()))
    }

    fn take(&mut self, mut chunk: &[u8], stop: Stop<'_>) -> Result<(), EvaluationError> {
        if stop() {
            return Err(EvaluationError::Stopped);
        }
        while let Some(row) = self.reader.next_row(&mut chunk).map_err(shape)? {
            self.waiting_bytes += row.iter().map(Vec::len).sum::<usize>();
            self.waiting.push(row);
            if self.waiting.len() >= self.evaluator.batch_rows()
                || self.waiting_bytes >= MAX_WAITING_BYTES
            {
                self.evaluate_waiting(stop)?;
            }
        }
        Ok(())
    }

    fn evaluate_waiting(&mut self, stop: Stop<'_>) -> Result<(), EvaluationError> {
        let evaluator = &self.evaluator;
        let keys = self.key.as_ref().map(|key| key.open(evaluator.keyset_id)).transpose()?;
        let waiting = std::mem::take(&mut self.waiting);
        self.waiting_bytes = 0;
        let first = self.outputs.len() + 1;
        let evaluate = |(index, row)| {
            let output = evaluator.evaluate_row(keys, row, stop);
            output.map_err(|error| of_row(first + index, error))
        };
        // Handing one row to the pool and back takes longer than a linear row.
        if waiting.len() <= 1 {
            for row in waiting.into_iter().enumerate() {
                self.outputs.push(evaluate(row)?);
            }
        } else {
            let rows = waiting.into_par_iter().enumerate().map(evaluate);
            self.outputs.append(&mut rows.collect::<Result<_, _>>()?);
        }
        Ok(())
    }
}

fn shape(error: BatchError) -> EvaluationError {
    EvaluationError::Shape(error.to_string())
}

fn of_row(row: usize, error: EvaluationError) -> EvaluationError {
    match error {
        EvaluationError::Shape(reason) => EvaluationError::Shape(format!("row {row}, {reason}")),
        other => other,
    }
}
