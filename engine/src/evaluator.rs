//! What a worker knows of every kind of artifact: one trait, bytes to bytes.
//!
//! A job is rows of ciphertexts. [`Evaluator::prepare`] turns an evaluation key into one that may
//! be kept for other jobs, [`Evaluator::begin`] starts a job, [`Evaluation::push`] takes its bytes
//! while they arrive, [`Evaluation::finish`] gives those of the outputs. How rows are written is
//! the implementation's, and the same in both directions.
//!
//! Everything computes on the calling thread and the current rayon pool. What a job and a key may
//! take is known beforehand, so that a worker can refuse one before anything of its size is
//! allocated.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use cipherscore_ids::{KeysetId, ModelId};
use thiserror::Error;

use crate::circuit::EvaluateError;

/// Looked at between steps, from any thread; true ends the evaluation. This is how deadlines and
/// cancellation reach it, since there is no clock here.
pub type Stop<'a> = &'a (dyn Fn() -> bool + Sync);

/// Why there is no result. Each is final for its job: the same bytes fail again.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EvaluationError {
    /// The job's bytes are not so many rows of the model's inputs: wrong number of rows, missing
    /// or trailing bytes, ciphertexts of another shape, encoding or key.
    #[error("{0}")]
    Shape(String),
    /// The evaluation key is not one of the model's parameters.
    #[error("{0}")]
    NotConformant(String),
    /// There is no evaluation key, and the model needs one.
    #[error("this model cannot be evaluated without an evaluation key")]
    KeyRequired,
    /// [`Stop`] said so. The only one that is not the bytes' fault.
    #[error("evaluation was stopped")]
    Stopped,
}

impl From<EvaluateError> for EvaluationError {
    fn from(error: EvaluateError) -> Self {
        match error {
            EvaluateError::Cancelled => Self::Stopped,
            EvaluateError::NotLinear => Self::KeyRequired,
            EvaluateError::Keys => Self::NotConformant(error.to_string()),
            EvaluateError::Input { .. } => Self::Shape(error.to_string()),
        }
    }
}

/// An artifact that is ready to be evaluated, for any number of jobs at a time.
pub trait Evaluator: Send + Sync {
    /// The model.
    fn model_id(&self) -> ModelId;

    /// Whether [`Evaluator::begin`] needs a key.
    fn needs_key(&self) -> bool;

    /// Digest of all that a prepared key depends on beside the key's own bytes: evaluators of
    /// equal ids may share what [`Evaluator::prepare`] made of the same bytes.
    fn keyset_id(&self) -> KeysetId;

    /// Length of the longest serialised key that can be conformant.
    fn max_key_bytes(&self) -> usize;

    /// Memory that a prepared key takes, in bytes.
    fn prepared_key_bytes(&self) -> usize;

    /// Upper bound of the memory that a job of so many rows takes beside its key, in bytes: what
    /// has arrived and waits, the rows that are evaluated at a time, and the outputs. Saturates.
    fn memory_bytes(&self, rows: u32) -> usize;

    /// Length of the longest body that a job of so many rows can have.
    fn max_input_bytes(&self, rows: u32) -> u64;

    /// How many coefficients the reply to a job of so many rows has whose noise hides a model. What
    /// they say of it beyond the scores adds up over all replies under one key. 0 where nothing is
    /// hidden.
    fn released_coefficients(&self, rows: u32) -> u64;

    /// Whether a row takes less time than a message to the broker and back, so that many jobs are
    /// worth taking at a time.
    fn is_quick(&self) -> bool;

    /// Checks a serialised evaluation key against the model's parameters, before anything of its
    /// size is allocated, and prepares it. Takes the bytes, to free them on the way.
    fn prepare(&self, serialised: Vec<u8>) -> Result<PreparedKey, EvaluationError>;

    /// Starts a job of so many rows, at least one. A key that is not needed may be given, but must
    /// fit.
    fn begin(
        self: Arc<Self>,
        key: Option<Arc<PreparedKey>>,
        rows: u32,
    ) -> Result<Box<dyn Evaluation>, EvaluationError>;
}

/// A job that is being evaluated. One that has failed gives the same error again.
pub trait Evaluation: Send {
    /// Takes the next bytes of the job, split anywhere, and evaluates rows as they become
    /// complete. What cannot belong to the job is refused as soon as it is seen.
    fn push(&mut self, chunk: &[u8], stop: Stop<'_>) -> Result<(), EvaluationError>;

    /// Evaluates the remaining rows; the outputs of all, in their order.
    fn finish(self: Box<Self>, stop: Stop<'_>) -> Result<Vec<u8>, EvaluationError>;
}

/// Makes an evaluation's first error its last word: something of the job would be missing after it,
/// so that there is nothing to go on with.
#[derive(Debug)]
pub struct Latched<E> {
    evaluation: E,
    failure: Option<EvaluationError>,
}

impl<E> Latched<E> {
    /// Of an evaluation that has not failed.
    pub fn new(evaluation: E) -> Self {
        Self { evaluation, failure: None }
    }
}

impl<E: Evaluation> Evaluation for Latched<E> {
    fn push(&mut self, chunk: &[u8], stop: Stop<'_>) -> Result<(), EvaluationError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let pushed = self.evaluation.push(chunk, stop);
        pushed.inspect_err(|failure| self.failure = Some(failure.clone()))
    }

    fn finish(self: Box<Self>, stop: Stop<'_>) -> Result<Vec<u8>, EvaluationError> {
        match self.failure {
            Some(failure) => Err(failure),
            None => Box::new(self.evaluation).finish(stop),
        }
    }
}

/// An evaluation key as one kind of evaluator prepared it. Only that kind can look inside.
pub struct PreparedKey {
    keyset_id: KeysetId,
    bytes: usize,
    key: Box<dyn Any + Send + Sync>,
}

impl PreparedKey {
    /// Wraps a key of the given memory in bytes, made for [`Evaluator::keyset_id`].
    pub fn new<K: Any + Send + Sync>(keyset_id: KeysetId, bytes: usize, key: K) -> Self {
        Self { keyset_id, bytes, key: Box::new(key) }
    }

    /// Memory that the key takes, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The key, if it is of this kind and was made for this keyset.
    pub fn open<K: Any>(&self, keyset_id: KeysetId) -> Result<&K, EvaluationError> {
        let refused = |reason: &str| EvaluationError::NotConformant(reason.into());
        if self.keyset_id != keyset_id {
            return Err(refused("the evaluation key was prepared for other parameters"));
        }
        let key = self.key.downcast_ref();
        key.ok_or_else(|| refused("the evaluation key was prepared for another kind of model"))
    }
}

impl fmt::Debug for PreparedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PreparedKey({} bytes)", self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails at the second push, and at no other.
    struct Failing(u32);

    impl Evaluation for Failing {
        fn push(&mut self, _: &[u8], _: Stop<'_>) -> Result<(), EvaluationError> {
            self.0 += 1;
            match self.0 {
                2 => Err(EvaluationError::Shape("the second".into())),
                _ => Ok(()),
            }
        }

        fn finish(self: Box<Self>, _: Stop<'_>) -> Result<Vec<u8>, EvaluationError> {
            Ok(vec![1])
        }
    }

    #[test]
    fn a_failure_is_final() {
        let go_on: Stop<'_> = &|| false;
        let mut job = Box::new(Latched::new(Failing(0)));
        assert_eq!(job.push(&[], go_on), Ok(()));
        let failure = job.push(&[], go_on);
        assert_eq!(failure, Err(EvaluationError::Shape("the second".into())));
        assert_eq!(job.push(&[], go_on), failure);
        assert_eq!(job.finish(go_on).map(drop), failure);
        assert_eq!(Box::new(Latched::new(Failing(0))).finish(go_on), Ok(vec![1]));
    }

    #[test]
    fn a_prepared_key_opens_only_as_what_it_is() {
        let (id, other) = (KeysetId::of(b"one keyset"), KeysetId::of(b"another"));
        let key = PreparedKey::new(id, 8, 7u64);
        assert_eq!((key.bytes(), key.open::<u64>(id)), (8, Ok(&7)));
        assert!(matches!(key.open::<u64>(other), Err(EvaluationError::NotConformant(_))));
        assert!(matches!(key.open::<i64>(id), Err(EvaluationError::NotConformant(_))));
    }
}
