//! TFHE circuits behind the engine's evaluation trait. Jobs and results are [framed rows](framing).
//!
//! Rows that have arrived are evaluated together: [`MAX_WAITING_ROWS`] of a circuit with
//! bootstraps, of which the executor has as many at work as use the threads well,
//! [`MAX_WAITING_LINEAR_ROWS`] of a linear one, which takes less time for a row than it takes to
//! hand it out. A single linear row stays on the calling thread.

use std::borrow::Cow;
use std::num::{NonZeroU32, NonZeroUsize};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use cipherscore_engine::ciphertext::{Ciphertexts, StoredCiphertexts};
use cipherscore_engine::circuit::{
    Cost, Footprint, InvalidCircuit, Rows, ValidCircuit, evaluate_linear, evaluate_rows,
};
use cipherscore_engine::evaluation_keys::PreparedKeys;
use cipherscore_engine::evaluator::{
    Evaluation, EvaluationError, Evaluator, JobFootprint, PreparedKey, Requirements, Stop,
};
use cipherscore_engine::parameters::{Compression, Signature};
use cipherscore_engine::size;
use cipherscore_ids::{KeysetId, ModelId};
use parking_lot::Mutex;
use rayon::prelude::*;

use crate::framing::{self, FramedRowReader, FramingError, Row};
use crate::keys::{max_evaluation_key_bytes, read_evaluation_keys};
use crate::server::ServerArtifact;
use crate::values::{read_stored_value, write_value};

/// Rows of a circuit with bootstraps that wait to be evaluated together, at most. Fewer of them are
/// at work at a time; between one such lot and the next, threads run out of work.
pub const MAX_WAITING_ROWS: usize = 256;
/// Rows of a linear circuit that are evaluated together.
pub const MAX_WAITING_LINEAR_ROWS: usize = 1024;
/// Bytes of serialised rows that wait to be evaluated together. A row more may be arriving.
/// Seeded rows of a linear circuit take about a kilobyte, uncompressed ones hundreds.
pub const MAX_WAITING_BYTES: usize = 16 << 20;

/// Nanoseconds of a word of a linear row: of its mask, or of a term. Few, as masks are expanded by the
/// processor's own AES; it is for the order of jobs only.
const LINEAR_WORD: f64 = 2.0;

/// A model's circuit, optimised and ready to be evaluated.
#[derive(Debug)]
pub struct CircuitEvaluator {
    model_id: ModelId,
    keyset_id: KeysetId,
    circuit: ValidCircuit,
    cost: Cost,
    footprint: Footprint,
    /// Of a row of a linear circuit.
    linear_words: usize,
    threads: usize,
    rows_at_a_time: usize,
}

impl CircuitEvaluator {
    /// Optimises the circuit. It is to be evaluated on the rayon pool that is current here, or on
    /// one of [`CircuitEvaluator::with_threads`].
    pub fn new(artifact: ServerArtifact) -> Result<Self, InvalidCircuit> {
        let circuit = artifact.circuit.optimise()?;
        let threads = rayon::current_num_threads();
        Ok(Self {
            model_id: artifact.model_id,
            keyset_id: circuit.signature().keyset.id(),
            cost: circuit.circuit().cost(),
            footprint: circuit.footprint(),
            linear_words: linear_words(&circuit),
            rows_at_a_time: circuit.rows_at_a_time(threads),
            circuit,
            threads,
        })
    }

    /// Sets the threads of the rayon pool that evaluates, on which memory depends.
    pub fn with_threads(self, threads: NonZeroUsize) -> Self {
        let threads = threads.get();
        Self { rows_at_a_time: self.circuit.rows_at_a_time(threads), threads, ..self }
    }

    /// Operations of one row.
    pub fn cost(&self) -> Cost {
        self.cost
    }

    fn signature(&self) -> &Signature {
        self.circuit.signature()
    }

    /// The sum of
    /// * rows that wait: at most [`MAX_WAITING_BYTES`] and one row;
    /// * rows at work and the threads that work on them, by the circuit's [`Footprint`]: as many rows
    ///   as [`ValidCircuit::rows_at_a_time`] says, of a linear circuit as many as there are threads;
    /// * four times the outputs of a row for each thread, for the steps of their serialisation;
    /// * serialised outputs of all rows, twice: they are put together at the end.
    fn memory_bytes(&self, rows: u32) -> usize {
        let rows = rows as usize;
        let input = framing::max_row_bytes(&self.signature().inputs);
        let output = framing::max_row_bytes(&self.signature().outputs);
        let waiting = rows.saturating_mul(input).min(MAX_WAITING_BYTES.saturating_add(input));
        // A linear row never leaves its thread.
        let threads = if self.cost.is_linear() { rows.min(self.threads) } else { self.threads };
        let at_work = rows.min(self.rows_at_a_time);
        let evaluated = self.footprint.bytes(at_work, threads);
        let written = rows.min(threads).saturating_mul(4 * output);
        let outputs = rows.saturating_mul(output).saturating_mul(2);
        [waiting, evaluated, written, outputs].into_iter().fold(0, usize::saturating_add)
    }

    /// What a bootstrap takes depends on the processor's caches as much as on the parameters, and is
    /// not known here.
    fn planned(&self, rows: u32) -> Option<Duration> {
        if !self.cost.is_linear() {
            return None;
        }
        let microseconds = self.linear_words as f64 * LINEAR_WORD / 1000.0;
        JobFootprint::planned_microseconds(microseconds * f64::from(rows))
    }

    /// Rows that are evaluated together, at most.
    fn max_waiting_rows(&self) -> usize {
        if self.cost.is_linear() { MAX_WAITING_LINEAR_ROWS } else { MAX_WAITING_ROWS }
    }

    /// Decodes one row.
    fn read_row(
        &self,
        row: &Row,
        stop: Stop<'_>,
    ) -> Result<Vec<StoredCiphertexts>, EvaluationError> {
        if stop() {
            return Err(EvaluationError::Stopped);
        }
        let mut inputs = Vec::with_capacity(row.len());
        for (index, (gate, value)) in self.signature().inputs.iter().zip(row).enumerate() {
            let input = read_stored_value(gate, value);
            let shape = |error| EvaluationError::Shape(format!("value {index}: {error}"));
            inputs.push(input.map_err(shape)?);
        }
        Ok(inputs)
    }

    fn write_row(&self, outputs: Vec<Ciphertexts>) -> Vec<u8> {
        let gates = &self.signature().outputs;
        let mut written = Vec::with_capacity(framing::max_row_bytes(gates));
        for (gate, output) in gates.iter().zip(outputs) {
            let value = write_value(gate, Compression::None, output.words());
            framing::append_value(&mut written, &value);
        }
        written
    }

    /// Decodes one row of a linear circuit, evaluates it, and writes its outputs.
    fn evaluate_linear_row(&self, row: Row, stop: Stop<'_>) -> Result<Vec<u8>, EvaluationError> {
        let inputs = self.read_row(&row, stop)?;
        drop(row);
        let outputs = evaluate_linear(&self.circuit, &inputs).map_err(EvaluationError::from);
        drop(inputs);
        Ok(self.write_row(outputs?))
    }

    fn evaluate_rows(
        &self,
        keys: &PreparedKeys,
        rows: Vec<Row>,
        first: usize,
        stop: Stop<'_>,
    ) -> Result<Vec<Vec<u8>>, EvaluationError> {
        let outputs = rows.iter().map(|_| Vec::new()).collect();
        let rows = rows.into_iter().map(|row| Mutex::new(Some(row))).collect();
        let group = Group { evaluator: self, first, rows, outputs: Mutex::new(outputs), stop };
        evaluate_rows(&self.circuit, keys, &group, &|_| match stop() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        })?;
        Ok(group.outputs.into_inner())
    }
}

/// Words of the masks of a row's inputs, and of the terms of its outputs.
fn linear_words(circuit: &ValidCircuit) -> usize {
    let Signature { inputs, outputs, .. } = circuit.signature();
    let inputs = inputs.iter().map(|gate| gate.len() * (gate.lwe_dimension + 1));
    let outputs = circuit.circuit().outputs.iter().zip(outputs).map(|(affines, gate)| {
        affines.iter().map(|affine| affine.terms.len()).sum::<usize>() * (gate.lwe_dimension + 1)
    });
    inputs.sum::<usize>() + outputs.sum::<usize>()
}

/// Rows that are evaluated together.
struct Group<'a> {
    evaluator: &'a CircuitEvaluator,
    /// Which row of the job the first one is.
    first: usize,
    /// Serialised, until it is decoded.
    rows: Vec<Mutex<Option<Row>>>,
    /// Serialised outputs of each row.
    outputs: Mutex<Vec<Vec<u8>>>,
    stop: Stop<'a>,
}

impl Rows for Group<'_> {
    type Error = EvaluationError;

    fn count(&self) -> usize {
        self.rows.len()
    }

    fn inputs(&self, row: usize) -> Result<Cow<'_, [Ciphertexts]>, EvaluationError> {
        let bytes = self.rows[row].lock().take();
        let inputs = self.evaluator.read_row(&bytes.unwrap_or_default(), self.stop);
        let inputs = inputs.map_err(|error| of_row(self.first + row, error))?;
        Ok(inputs.into_iter().map(StoredCiphertexts::expand).collect::<Vec<_>>().into())
    }

    fn outputs(&self, row: usize, outputs: Vec<Ciphertexts>) {
        let written = self.evaluator.write_row(outputs);
        self.outputs.lock()[row] = written;
    }
}

impl Evaluator for CircuitEvaluator {
    fn requirements(&self) -> Requirements {
        let keyset = &self.signature().keyset;
        Requirements {
            model_id: self.model_id,
            keyset_id: self.keyset_id,
            needs_key: !self.cost.is_linear(),
            max_key_bytes: max_evaluation_key_bytes(keyset),
            prepared_key_bytes: keyset.prepared_bytes(),
            is_quick: self.cost.is_linear(),
        }
    }

    fn footprint(&self, rows: u32) -> JobFootprint {
        let row = framing::max_row_bytes(&self.signature().inputs) as u64;
        JobFootprint {
            memory_bytes: self.memory_bytes(rows),
            max_input_bytes: u64::from(rows).saturating_mul(row),
            planned: self.planned(rows),
        }
    }

    fn prepare(&self, serialised: Vec<u8>) -> Result<PreparedKey, EvaluationError> {
        let keyset = &self.signature().keyset;
        let (found, limit) = (serialised.len(), max_evaluation_key_bytes(keyset));
        if found > limit {
            return Err(EvaluationError::NotConformant(format!(
                "an evaluation key of {}, where those of this model have at most {}: is it one of \
                 another model?",
                size(found),
                size(limit)
            )));
        }
        let not_conformant =
            |error: &dyn ToString| EvaluationError::NotConformant(error.to_string());
        let keys = read_evaluation_keys(&serialised, keyset).map_err(|e| not_conformant(&e))?;
        drop(serialised);
        let keys = PreparedKeys::new(keyset, keys).map_err(|e| not_conformant(&e))?;
        Ok(PreparedKey::new(self.keyset_id, keys.bytes(), keys))
    }

    fn start(
        self: Arc<Self>,
        key: Option<&PreparedKey>,
        rows: NonZeroU32,
    ) -> Result<Box<dyn Evaluation>, EvaluationError> {
        Ok(Box::new(CircuitEvaluation {
            reader: FramedRowReader::new(&self.signature().inputs, rows.get()),
            keys: key.map(|key| key.open(self.keyset_id)).transpose()?,
            evaluator: self,
            waiting: Vec::new(),
            waiting_bytes: 0,
            outputs: Vec::new(),
        }))
    }
}

/// One job.
struct CircuitEvaluation {
    evaluator: Arc<CircuitEvaluator>,
    /// None for a linear circuit.
    keys: Option<Arc<PreparedKeys>>,
    reader: FramedRowReader,
    /// Rows that are complete and not evaluated.
    waiting: Vec<Row>,
    waiting_bytes: usize,
    /// Serialised outputs of each row that is evaluated.
    outputs: Vec<Vec<u8>>,
}

impl Evaluation for CircuitEvaluation {
    fn push(&mut self, mut chunk: &[u8], stop: Stop<'_>) -> Result<(), EvaluationError> {
        if stop() {
            return Err(EvaluationError::Stopped);
        }
        while let Some(row) = self.reader.next_row(&mut chunk).map_err(shape)? {
            self.waiting_bytes += row.iter().map(Vec::len).sum::<usize>();
            self.waiting.push(row);
            if self.waiting.len() >= self.evaluator.max_waiting_rows()
                || self.waiting_bytes >= MAX_WAITING_BYTES
            {
                self.evaluate_waiting(stop)?;
            }
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>, stop: Stop<'_>) -> Result<Vec<u8>, EvaluationError> {
        self.reader.finish().map_err(shape)?;
        self.evaluate_waiting(stop)?;
        // Most jobs are one row, which need not be copied.
        Ok(match self.outputs.len() {
            1 => self.outputs.swap_remove(0),
            _ => self.outputs.concat(),
        })
    }
}

impl CircuitEvaluation {
    fn evaluate_waiting(&mut self, stop: Stop<'_>) -> Result<(), EvaluationError> {
        let evaluator = &self.evaluator;
        let waiting = std::mem::take(&mut self.waiting);
        self.waiting_bytes = 0;
        let first = self.outputs.len() + 1;
        if let Some(keys) = &self.keys {
            self.outputs.append(&mut evaluator.evaluate_rows(keys, waiting, first, stop)?);
            return Ok(());
        }
        let evaluate = |(index, row)| {
            let output = evaluator.evaluate_linear_row(row, stop);
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

fn shape(error: FramingError) -> EvaluationError {
    EvaluationError::Shape(error.to_string())
}

fn of_row(row: usize, error: EvaluationError) -> EvaluationError {
    match error {
        EvaluationError::Shape(reason) => EvaluationError::Shape(format!("row {row}, {reason}")),
        other => other,
    }
}
