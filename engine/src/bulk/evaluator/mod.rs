//! The bulk engine behind the engine's evaluation trait.
//!
//! A job is an upload: for each ring batch a mask seed and blocks. Blocks are evaluated as they
//! arrive, [`WAITING_BLOCKS`] at a time, on all threads; nothing of an upload is kept longer.

mod blocks;
mod memory;
mod reply;
#[cfg(test)]
mod tests;
mod watch;

use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;

use cipherscore_ids::{KeysetId, ModelId};
use thiserror::Error;

use self::blocks::Sums;
pub use self::watch::BulkPart;
use self::watch::Watch;
use super::artifact::BulkServerArtifact;
use super::kernel::Kernel;
use super::layout::{block_words, reply_len, ring_batch_rows, upload_len};
use super::parameters::{InvalidRingParameters, Packing, Parameters};
use super::plan::{hiding_nanoseconds, point_nanoseconds_on};
use super::program::InvalidProgram;
use super::ring::Ring;
use super::secret::PublicKey;
use super::switch::Switch;
use super::tape::Tape;
use crate::evaluator::{
    Evaluation, EvaluationError, Evaluator, JobFootprint, PreparedKey, Requirements, Stop,
};
use crate::rlwe::mask::{Masks, SEED_BYTES};
use crate::rlwe::primes::BLOCK_POINTS;

/// Blocks of an upload that are evaluated together, and so in memory, at most. With several primes
/// each they keep some threads busy.
pub const WAITING_BLOCKS: usize = 4;

/// Why an artifact cannot be evaluated.
#[derive(Debug, Error)]
pub enum InvalidBulkArtifact {
    /// Its parameters.
    #[error(transparent)]
    Parameters(#[from] InvalidRingParameters),
    /// Its program.
    #[error(transparent)]
    Program(#[from] InvalidProgram),
    /// Its program is not what its specs say.
    #[error("a program of degree {found}, where the specs say {expected}")]
    Degree {
        /// Of the program.
        found: u32,
        /// Of the specs.
        expected: u32,
    },
}

/// A model of the bulk engine, ready to be evaluated.
#[derive(Debug)]
pub struct BulkEvaluator {
    model_id: ModelId,
    ring: Arc<Ring>,
    tape: Tape,
    kernel: Kernel,
    columns: u32,
    outputs: usize,
    degree: u32,
    switch: Switch,
    threads: usize,
    /// Products of ring elements of the program.
    ring_products: u64,
    /// Of a hidden model: base-2 logarithm of the standard deviation of a phase.
    log2_sigma_phase: Option<f64>,
    watch: Watch,
}

impl BulkEvaluator {
    /// Checks the program, and finds the fastest kernel of this processor.
    pub fn new(artifact: BulkServerArtifact) -> Result<Self, InvalidBulkArtifact> {
        let BulkServerArtifact { model_id, specs, program, .. } = artifact;
        let (found, expected) = (program.degree(), specs.degree);
        if found != expected {
            return Err(InvalidBulkArtifact::Degree { found, expected });
        }
        let ring = Ring::new(specs.parameters)?;
        Ok(Self {
            model_id,
            switch: Switch::new(Arc::clone(&ring), specs.reply_primes),
            ring,
            tape: Tape::new(&program)?,
            kernel: Kernel::best(),
            columns: specs.columns,
            outputs: specs.outputs as usize,
            degree: specs.degree,
            threads: rayon::current_num_threads(),
            ring_products: program.ring_products(),
            log2_sigma_phase: specs.hidden.then_some(specs.log2_sigma_phase),
            watch: Watch::default(),
        })
    }

    /// Sets the threads of the rayon pool that evaluates, on which memory depends.
    pub fn with_threads(self, threads: NonZeroUsize) -> Self {
        Self { threads: threads.get(), ..self }
    }

    /// With another kernel; for measurements.
    pub fn with_kernel(self, kernel: Kernel) -> Self {
        Self { kernel, ..self }
    }

    /// Tells where the time goes whenever a part begins; for measurements, on one thread.
    pub fn with_watch(self, watch: impl Fn(BulkPart) + Send + Sync + 'static) -> Self {
        Self { watch: Watch(Some(Box::new(watch))), ..self }
    }

    fn parameters(&self) -> &Parameters {
        self.ring.parameters()
    }

    /// Of the primes, the ring and the modulus, which is all that a public key depends on.
    fn keyset_id(&self) -> KeysetId {
        let Parameters { packing, ring_dimension, primes, plaintext_modulus } = *self.parameters();
        let packing = u64::from(packing == Packing::Slots);
        let words = [packing, ring_dimension.into(), primes.into(), plaintext_modulus];
        KeysetId::of(&words.map(u64::to_le_bytes).concat())
    }

    fn is_hidden(&self) -> bool {
        self.log2_sigma_phase.is_some()
    }

    /// Components of an output.
    fn components(&self) -> usize {
        self.degree as usize + 1
    }

    /// Of a job, as it is planned, on one thread with the instructions that there are. A ring batch takes
    /// the same however many of its rows are used.
    fn microseconds(&self, rows: u32) -> f64 {
        let parameters = self.parameters();
        let points =
            parameters.ring_batches(rows as usize) as f64 * f64::from(parameters.ring_dimension);
        let mut nanoseconds = point_nanoseconds_on(self.kernel, self.ring_products, self.columns);
        if self.is_hidden() {
            nanoseconds += hiding_nanoseconds(self.outputs, self.degree);
        }
        points * f64::from(parameters.primes) * nanoseconds / 1000.0
    }

    fn upload_len(&self, rows: u32) -> Option<usize> {
        upload_len(self.parameters(), rows as usize, self.columns)
    }

    fn reply_len(&self, rows: u32) -> Option<usize> {
        let primes = u32::try_from(self.switch.kept()).ok()?;
        reply_len(self.parameters(), rows as usize, self.outputs, self.degree, primes)
    }
}

impl Evaluator for BulkEvaluator {
    fn requirements(&self) -> Requirements {
        Requirements {
            model_id: self.model_id,
            keyset_id: self.keyset_id(),
            needs_key: self.is_hidden(),
            max_key_bytes: PublicKey::serialised_len(self.parameters()),
            prepared_key_bytes: memory::prepared_key_bytes(self.parameters()),
            is_quick: self.parameters().packing == Packing::Coefficients,
        }
    }

    fn footprint(&self, rows: u32) -> JobFootprint {
        JobFootprint {
            memory_bytes: memory::job_bytes(self, rows),
            max_input_bytes: self.upload_len(rows).map_or(u64::MAX, |bytes| bytes as u64),
            planned: JobFootprint::planned_microseconds(self.microseconds(rows)),
        }
    }

    /// Every coefficient of c_0 is flooded on its own.
    fn released_coefficients(&self, rows: u32) -> u64 {
        if !self.is_hidden() {
            return 0;
        }
        let ring_batches = self.parameters().ring_batches(rows as usize);
        (ring_batches * self.outputs) as u64 * self.ring.dimension() as u64
    }

    fn prepare(&self, serialised: Vec<u8>) -> Result<PreparedKey, EvaluationError> {
        let key = PublicKey::read(&serialised, self.parameters());
        let key = key.map_err(|error| EvaluationError::NotConformant(error.to_string()))?;
        let bytes = memory::prepared_key_bytes(self.parameters());
        let owner = key.owner();
        Ok(PreparedKey::new(self.keyset_id(), bytes, key).of_owner(owner))
    }

    fn start(
        self: Arc<Self>,
        key: Option<&PreparedKey>,
        rows: NonZeroU32,
    ) -> Result<Box<dyn Evaluation>, EvaluationError> {
        let rows = rows.get();
        let too_many = || EvaluationError::Shape(format!("{rows} rows are too many"));
        self.upload_len(rows).ok_or_else(too_many)?;
        let length = self.reply_len(rows).ok_or_else(too_many)?;
        let mut outputs = Vec::new();
        // The number of rows is a stranger's.
        outputs.try_reserve_exact(length).map_err(|_| too_many())?;
        let ring_batches: Vec<_> = ring_batch_rows(self.parameters(), rows as usize).collect();
        Ok(Box::new(BulkEvaluation {
            key: key.map(|key| key.open(self.keyset_id())).transpose()?,
            evaluator: self,
            ring_batches: ring_batches.into_iter(),
            ring_batch: None,
            waiting: Vec::new(),
            outputs,
        }))
    }
}

/// One job.
struct BulkEvaluation {
    evaluator: Arc<BulkEvaluator>,
    /// Of a hidden model.
    key: Option<Arc<PublicKey>>,
    /// Rows of the ring batches that have not begun.
    ring_batches: std::vec::IntoIter<usize>,
    ring_batch: Option<RingBatch>,
    /// What has arrived of the mask seed, or of the next blocks.
    waiting: Vec<u8>,
    /// The reply so far.
    outputs: Vec<u8>,
}

/// A ring batch of which the seed is there, and not all blocks.
struct RingBatch {
    rows: usize,
    masks: Masks,
    /// Words of each block of a column.
    blocks: Vec<usize>,
    /// Blocks that are evaluated.
    done: usize,
    sums: Sums,
}

impl RingBatch {
    /// Words of each of the next blocks.
    fn next(&self) -> &[usize] {
        let rest = &self.blocks[self.done..];
        &rest[..rest.len().min(WAITING_BLOCKS)]
    }
}

impl Evaluation for BulkEvaluation {
    fn push(&mut self, mut chunk: &[u8], stop: Stop<'_>) -> Result<(), EvaluationError> {
        while !chunk.is_empty() {
            if stop() {
                return Err(EvaluationError::Stopped);
            }
            let wanted = match &self.ring_batch {
                Some(ring_batch) => {
                    ring_batch.next().iter().map(|words| self.evaluator.block_len(*words)).sum()
                }
                None if self.ring_batches.len() == 0 => {
                    return Err(EvaluationError::Shape("bytes behind the last row".into()));
                }
                None => SEED_BYTES,
            };
            let (taken, rest) = chunk.split_at(chunk.len().min(wanted - self.waiting.len()));
            self.waiting.extend_from_slice(taken);
            chunk = rest;
            if self.waiting.len() == wanted {
                match self.ring_batch.take() {
                    None => self.begin_ring_batch(),
                    Some(ring_batch) => self.evaluate_waiting(ring_batch)?,
                }
                self.waiting.clear();
            }
        }
        Ok(())
    }

    fn finish(self: Box<Self>, stop: Stop<'_>) -> Result<Vec<u8>, EvaluationError> {
        let complete = self.ring_batch.is_none() && self.ring_batches.len() == 0;
        match complete && self.waiting.is_empty() {
            _ if stop() => Err(EvaluationError::Stopped),
            true => Ok(self.outputs),
            false => Err(EvaluationError::Shape("the upload ends before its rows do".into())),
        }
    }
}

impl BulkEvaluation {
    fn begin_ring_batch(&mut self) {
        let (Some(rows), Some(seed)) = (self.ring_batches.next(), self.waiting.first_chunk())
        else {
            return;
        };
        let evaluator = &self.evaluator;
        self.ring_batch = Some(RingBatch {
            rows,
            masks: Masks::new(seed),
            blocks: block_words(evaluator.parameters(), rows).collect(),
            done: 0,
            sums: Sums::new(evaluator),
        });
    }

    fn evaluate_waiting(&mut self, mut ring_batch: RingBatch) -> Result<(), EvaluationError> {
        let evaluator = &self.evaluator;
        let blocks = ring_batch.next().to_vec();
        evaluator.evaluate_blocks(&mut ring_batch, &blocks, &self.waiting)?;
        ring_batch.done += blocks.len();
        if ring_batch.done < ring_batch.blocks.len() {
            self.ring_batch = Some(ring_batch);
            return Ok(());
        }
        evaluator.close_ring_batch(ring_batch, self.key.as_ref(), &mut self.outputs)
    }
}
