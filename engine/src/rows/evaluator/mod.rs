//! The row engine behind the engine's evaluation trait.
//!
//! A job is an upload: a header and rows. Rows are evaluated as they arrive, as many at a time as there
//! are threads; each has randomness of its own.

mod memory;
#[cfg(any(test, feature = "prepared-rows"))]
pub mod prepared;
#[cfg(test)]
mod tests;

use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;

use cipherscore_ids::{KeysetId, ModelId, OwnerId};
use parking_lot::Mutex;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::canary::ExecutionId;
use super::domain::{DIGEST_BYTES, Domain, KEYSET_DOMAIN, ring_bytes};
use super::evaluate::{RowJob, RowMachine, RowPart};
use super::evaluation_key::{RowEvaluationKey, prepared_len, serialised_len};
use super::kernel::Kernel;
use super::parameters::RowParameters;
use super::plan::RowCost;
use super::program::{InvalidRowProgram, RowProgram};
use super::reply::{REPLY_HEADER_BYTES, ReplyHeader, reply_row_len, row_reply_len, seal};
use super::ring::RowRing;
use super::upload::{
    SeedSource, UPLOAD_HEADER_BYTES, UploadError, UploadHeader, row_len, upload_len,
};
use super::workspace::Workspace;
use crate::evaluator::{
    Evaluation, EvaluationError, Evaluator, JobFootprint, PreparedKey, Requirements, Stop,
};
use crate::rlwe::sampling::{Noise, entropy};

/// Microseconds of a row, by estimate, below which the way to the broker and back counts. A row of fifty
/// small trees takes half of it.
const MAX_QUICK_MICROSECONDS: f64 = 10_000.0;

/// The owner in the header that uploads are checked against: whose they are is not compared.
const ANYBODY: OwnerId = OwnerId::from_bytes([0xff; 16]).expect("not zeros");

/// A model of the row engine, ready to be evaluated.
pub struct RowEvaluator {
    model_id: ModelId,
    machine: RowMachine,
    threads: usize,
    /// Of threads that have evaluated rows, at most as many as there are threads.
    workspaces: Mutex<Vec<Workspace>>,
}

impl std::fmt::Debug for RowEvaluator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RowEvaluator({})", self.model_id)
    }
}

impl RowEvaluator {
    /// Checks the parameters, and the program against them; finds the fastest kernel of this processor.
    pub fn new(
        model_id: ModelId,
        parameters: RowParameters,
        program: RowProgram,
    ) -> Result<Self, InvalidRowProgram> {
        parameters.validate()?;
        let program = program.validate(&parameters)?;
        let ring = RowRing::new(&parameters.keys)?;
        Ok(Self {
            model_id,
            machine: RowMachine::new(ring, parameters, program, Kernel::best()),
            threads: rayon::current_num_threads(),
            workspaces: Mutex::new(Vec::new()),
        })
    }

    /// Sets the threads of the rayon pool that evaluates, on which memory depends.
    pub fn with_threads(self, threads: NonZeroUsize) -> Self {
        Self { threads: threads.get(), ..self }
    }

    /// With another kernel; for measurements.
    pub fn with_kernel(mut self, kernel: Kernel) -> Self {
        self.machine.kernel = kernel;
        self
    }

    /// Evaluates a whole upload as a job of `rows` rows would, on the calling thread, and tells where
    /// the time goes from each call on; for measurements.
    pub fn evaluate_watched(
        self: &Arc<Self>,
        key: &PreparedKey,
        rows: NonZeroU32,
        upload: &[u8],
        watch: &mut dyn FnMut(RowPart),
    ) -> Result<Vec<u8>, EvaluationError> {
        let mut job = Arc::clone(self).job(key, rows)?;
        let (header, rows) = upload.split_at_checked(UPLOAD_HEADER_BYTES).unwrap_or_default();
        job.take_header(header)?;
        for (row, bytes) in (0..).zip(rows.chunks_exact(row_len(self.parameters()))) {
            job.digest.update(bytes);
            let words = self.evaluate_row(&job, row, bytes, watch)?;
            job.outputs.extend(words);
            job.done += 1;
        }
        Box::new(job).finish(&|| false)
    }

    fn parameters(&self) -> &RowParameters {
        &self.machine.parameters
    }

    /// Of a row on one thread, as it was planned.
    fn microseconds(&self) -> f64 {
        RowCost::of(self.parameters()).microseconds_on(self.machine.kernel)
    }

    /// Of all that an evaluation key depends on.
    fn keyset_id(&self) -> KeysetId {
        let keys = &self.parameters().keys;
        let steps = keys.steps.iter().flat_map(|step| [step.rounds, step.digits]);
        let steps: Vec<_> = steps.flat_map(u32::to_le_bytes).collect();
        KeysetId::of(&[KEYSET_DOMAIN, &ring_bytes(keys), &steps].concat())
    }

    /// What an upload is checked against; anybody may be its owner, and its seeds may be known.
    fn header(&self, rows: u32, key: &RowEvaluationKey) -> UploadHeader {
        let (model, owner) = (self.model_id, ANYBODY);
        UploadHeader { seeds: SeedSource::Fresh, rows, owner, model, key: key.id() }
    }

    /// A workspace for one row, which is kept for the next.
    fn with_workspace<T>(&self, evaluate: impl FnOnce(&mut Workspace) -> T) -> T {
        let idle = self.workspaces.lock().pop();
        let machine = &self.machine;
        let mut workspace =
            idle.unwrap_or_else(|| Workspace::new(&machine.ring, &machine.parameters));
        let result = evaluate(&mut workspace);
        let mut workspaces = self.workspaces.lock();
        if workspaces.len() < self.threads {
            workspaces.push(workspace);
        }
        result
    }

    fn job(
        self: Arc<Self>,
        key: &PreparedKey,
        rows: NonZeroU32,
    ) -> Result<RowEvaluation, EvaluationError> {
        let rows = rows.get();
        let too_many = || EvaluationError::Shape(format!("{rows} rows are too many"));
        upload_len(self.parameters(), rows).ok_or_else(too_many)?;
        let length = row_reply_len(self.parameters(), rows).ok_or_else(too_many)?;
        let mut outputs = Vec::new();
        // The number of rows is a stranger's.
        outputs.try_reserve_exact(length).map_err(|_| too_many())?;
        // The header is written when the whole upload is known.
        outputs.resize(REPLY_HEADER_BYTES, 0);
        Ok(RowEvaluation {
            key: key.open(self.keyset_id())?,
            evaluator: self,
            rows,
            done: 0,
            execution: ExecutionId(*entropy().expect("the system gives random numbers")),
            digest: Domain::Upload.hasher(),
            has_header: false,
            waiting: Vec::new(),
            outputs,
        })
    }

    /// The words of one row of a reply.
    fn evaluate_row(
        &self,
        job: &RowEvaluation,
        row: u32,
        bytes: &[u8],
        watch: &mut dyn FnMut(RowPart),
    ) -> Result<Vec<u8>, EvaluationError> {
        let noise = Noise::fresh().expect("the system gives random numbers");
        let (key, execution) = (&job.key, job.execution);
        let mut words = Vec::with_capacity(reply_row_len(self.parameters()));
        let row_job = RowJob { key, bytes, execution, row, noise: &noise };
        let evaluated = self.with_workspace(|workspace| {
            self.machine.evaluate(row_job, workspace, watch, &mut words)
        });
        evaluated.map_err(|error| refused(UploadError::Words { row, error }))?;
        Ok(words)
    }
}

impl Evaluator for RowEvaluator {
    fn requirements(&self) -> Requirements {
        let keys = &self.parameters().keys;
        Requirements {
            model_id: self.model_id,
            keyset_id: self.keyset_id(),
            needs_key: true,
            max_key_bytes: serialised_len(keys),
            prepared_key_bytes: prepared_len(keys),
            is_quick: self.microseconds() <= MAX_QUICK_MICROSECONDS,
        }
    }

    fn footprint(&self, rows: u32) -> JobFootprint {
        JobFootprint {
            memory_bytes: memory::job_bytes(&self.machine, self.threads, rows),
            max_input_bytes: upload_len(self.parameters(), rows)
                .map_or(u64::MAX, |bytes| bytes as u64),
            planned: JobFootprint::planned_microseconds(self.microseconds() * f64::from(rows)),
        }
    }

    /// Each output is flooded on its own. Canaries count too: their messages are known, but the noise of
    /// every other output's weights reaches them.
    fn released_coefficients(&self, rows: u32) -> u64 {
        self.machine.layout.outputs() as u64 * u64::from(rows)
    }

    fn idle_bytes(&self) -> usize {
        self.workspaces.lock().len() * memory::workspace_bytes(&self.machine)
    }

    fn release_idle(&self) {
        // Freed without the lock.
        let idle = std::mem::take(&mut *self.workspaces.lock());
        drop(idle);
    }

    fn prepare(&self, serialised: Vec<u8>) -> Result<PreparedKey, EvaluationError> {
        let key = RowEvaluationKey::read(&serialised, &self.machine.ring);
        let key = key.map_err(|error| EvaluationError::NotConformant(error.to_string()))?;
        let bytes = prepared_len(&self.parameters().keys);
        // It has no owner id, but that of its secret, which uploads have too.
        Ok(PreparedKey::new(self.keyset_id(), bytes, key).named_by_rows())
    }

    fn start(
        self: Arc<Self>,
        key: Option<&PreparedKey>,
        rows: NonZeroU32,
    ) -> Result<Box<dyn Evaluation>, EvaluationError> {
        let key = key.ok_or(EvaluationError::KeyRequired)?;
        Ok(Box::new(self.job(key, rows)?))
    }
}

/// What is wrong with a job's bytes.
fn refused(error: UploadError) -> EvaluationError {
    match error {
        UploadError::OtherKey => EvaluationError::OtherClientKey,
        error => EvaluationError::Shape(error.to_string()),
    }
}

/// One job.
struct RowEvaluation {
    evaluator: Arc<RowEvaluator>,
    key: Arc<RowEvaluationKey>,
    rows: u32,
    /// Rows that are evaluated.
    done: u32,
    execution: ExecutionId,
    /// Of what has arrived of the upload.
    digest: Sha256,
    has_header: bool,
    /// What has arrived of the header, or of the next rows.
    waiting: Vec<u8>,
    /// The reply so far.
    outputs: Vec<u8>,
}

impl RowEvaluation {
    /// Rows that are evaluated together.
    fn next_rows(&self) -> usize {
        let left = (self.rows - self.done) as usize;
        left.min(self.evaluator.threads.max(1))
    }

    fn take_header(&mut self, bytes: &[u8]) -> Result<(), EvaluationError> {
        let expected = self.evaluator.header(self.rows, &self.key);
        let header = bytes.first_chunk().ok_or(UploadError::Format);
        header.and_then(|header| expected.check(header)).map_err(refused)?;
        self.digest.update(bytes);
        self.has_header = true;
        Ok(())
    }

    fn evaluate_waiting(&mut self) -> Result<(), EvaluationError> {
        let waiting = std::mem::take(&mut self.waiting);
        self.digest.update(&waiting);
        let rows = waiting.par_chunks(row_len(self.evaluator.parameters())).enumerate();
        let words = rows.map(|(index, bytes)| {
            let row = self.done + u32::try_from(index).expect("a row of the job");
            self.evaluator.evaluate_row(self, row, bytes, &mut |_| {})
        });
        let words = words.collect::<Result<Vec<_>, _>>()?;
        self.done += u32::try_from(words.len()).expect("rows of the job");
        words.iter().for_each(|words| self.outputs.extend_from_slice(words));
        self.waiting = waiting;
        Ok(())
    }
}

impl Evaluation for RowEvaluation {
    fn push(&mut self, mut chunk: &[u8], stop: Stop<'_>) -> Result<(), EvaluationError> {
        while !chunk.is_empty() {
            if stop() {
                return Err(EvaluationError::Stopped);
            }
            let wanted = match self.has_header {
                true => self.next_rows() * row_len(self.evaluator.parameters()),
                false => UPLOAD_HEADER_BYTES,
            };
            if wanted == 0 {
                return Err(EvaluationError::Shape("bytes behind the last row".into()));
            }
            let (taken, rest) = chunk.split_at(chunk.len().min(wanted - self.waiting.len()));
            self.waiting.extend_from_slice(taken);
            chunk = rest;
            if self.waiting.len() == wanted {
                if self.has_header {
                    self.evaluate_waiting()?;
                } else {
                    let header = std::mem::take(&mut self.waiting);
                    self.take_header(&header)?;
                }
                self.waiting.clear();
            }
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>, stop: Stop<'_>) -> Result<Vec<u8>, EvaluationError> {
        if stop() {
            return Err(EvaluationError::Stopped);
        }
        if self.done < self.rows || !self.waiting.is_empty() {
            return Err(EvaluationError::Shape("the upload ends before its rows do".into()));
        }
        let upload: [u8; DIGEST_BYTES] = std::mem::take(&mut self.digest).finalize().into();
        let header = ReplyHeader {
            word_bits: self.evaluator.parameters().word_bits,
            rows: self.rows,
            execution: self.execution,
            upload,
        };
        self.outputs[..REPLY_HEADER_BYTES].copy_from_slice(&header.to_bytes());
        seal(&mut self.outputs);
        Ok(self.outputs)
    }
}
