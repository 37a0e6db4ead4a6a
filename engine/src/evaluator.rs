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
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use cipherscore_ids::{KeysetId, ModelId, OwnerId};
use thiserror::Error;

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
    /// The evaluation key is another data owner's than the rows are, by the owner ids of both.
    #[error(
        "the rows are encrypted under {}, and the evaluation key was made with {}: take the \
         evaluation key that was made with the client key of the rows, or encrypt the rows again \
         under the client key of the evaluation key",
        name(*rows),
        name(*key)
    )]
    OtherOwner {
        /// Who encrypted the rows; none under a client key that has no owner id.
        rows: Option<OwnerId>,
        /// Who made the evaluation key; none where it has no owner id.
        key: Option<OwnerId>,
    },
    /// The evaluation key was made with another client key than the rows say that theirs is.
    #[error(
        "the rows are encrypted under another client key than the evaluation key was made with: take \
         the evaluation key that was made with the client key of the rows"
    )]
    OtherClientKey,
    /// [`Stop`] said so. The only one that is not the bytes' fault.
    #[error("evaluation was stopped")]
    Stopped,
}

/// Refuses rows that say another owner than their evaluation key does: their outputs would decrypt to
/// plausible scores. A client key has an owner id or not, and so has everything that is made with it,
/// so that rows without one do not fit a key that has one.
pub fn require_one_owner(
    rows: Option<OwnerId>,
    key: Option<OwnerId>,
) -> Result<(), EvaluationError> {
    match rows == key {
        true => Ok(()),
        false => Err(EvaluationError::OtherOwner { rows, key }),
    }
}

/// How an owner is called in a sentence.
fn name(owner: Option<OwnerId>) -> String {
    match owner {
        Some(id) => format!("a key of owner {id}"),
        None => "a key of an earlier version, which names no owner".into(),
    }
}

/// What a model needs, whatever the job: constants and limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Requirements {
    /// The model.
    pub model_id: ModelId,
    /// Digest of all that a prepared key depends on beside the key's own bytes: evaluators of
    /// equal ids may share what [`Evaluator::prepare`] made of the same bytes.
    pub keyset_id: KeysetId,
    /// Whether [`Evaluator::begin`] needs a key.
    pub needs_key: bool,
    /// Length of the longest serialised key that can be conformant.
    pub max_key_bytes: usize,
    /// Memory that a prepared key takes, in bytes.
    pub prepared_key_bytes: usize,
    /// Whether a row takes less time than a message to the broker and back, so that many jobs are
    /// worth taking at a time.
    pub is_quick: bool,
}

/// What a job of some number of rows takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobFootprint {
    /// Upper bound of the memory that it takes beside its key, in bytes: what has arrived and
    /// waits, the rows that are evaluated at a time, and the outputs. Saturates.
    pub memory_bytes: usize,
    /// Length of the longest body that it can have. Saturates.
    pub max_input_bytes: u64,
    /// How long evaluation is expected to take on one thread, by what was measured of its parts; none
    /// where nothing is known. A hint about order: nothing ends when it is over.
    pub planned: Option<Duration>,
}

impl JobFootprint {
    /// So many microseconds, of whatever an estimate gives.
    pub fn planned_microseconds(microseconds: f64) -> Option<Duration> {
        Duration::try_from_secs_f64(microseconds * 1e-6).ok()
    }
}

/// An artifact that is ready to be evaluated, for any number of jobs at a time.
pub trait Evaluator: Send + Sync {
    /// Constants and limits.
    fn requirements(&self) -> Requirements;

    /// What a job of so many rows takes.
    fn footprint(&self, rows: u32) -> JobFootprint;

    /// How many coefficients the reply to a job of so many rows has whose noise hides a model. What
    /// they say of it beyond the scores adds up over all replies under one key. 0 where nothing is
    /// hidden.
    fn released_coefficients(&self, _rows: u32) -> u64 {
        0
    }

    /// Memory that it keeps for its next job while none is evaluated, in bytes. What a job keeps so is
    /// a part of what its footprint says.
    fn idle_bytes(&self) -> usize {
        0
    }

    /// Gives that memory back.
    fn release_idle(&self) {}

    /// Checks a serialised evaluation key against the model's parameters, before anything of its
    /// size is allocated, and prepares it. Takes the bytes, to free them on the way.
    fn prepare(&self, serialised: Vec<u8>) -> Result<PreparedKey, EvaluationError>;

    /// Starts a job for [`Evaluator::begin`], which has checked that there are rows, and that there
    /// is a key of this keyset where one is needed, and none elsewhere. Its first error may be
    /// followed by anything.
    fn start(
        self: Arc<Self>,
        key: Option<&PreparedKey>,
        rows: NonZeroU32,
    ) -> Result<Box<dyn Evaluation>, EvaluationError>;

    /// Starts a job of so many rows, at least one. A key that is not needed may be given, but must
    /// fit. An evaluation that has failed gives the same error again.
    fn begin(
        self: Arc<Self>,
        key: Option<Arc<PreparedKey>>,
        rows: u32,
    ) -> Result<Box<dyn Evaluation>, EvaluationError> {
        let Requirements { keyset_id, needs_key, .. } = self.requirements();
        let no_rows = || EvaluationError::Shape("a job of no rows".into());
        let rows = NonZeroU32::new(rows).ok_or_else(no_rows)?;
        match &key {
            Some(key) => key.require_keyset(keyset_id)?,
            None if needs_key => return Err(EvaluationError::KeyRequired),
            None => {}
        }
        let key = key.as_deref().filter(|_| needs_key);
        Ok(Box::new(Latched::new(self.start(key, rows)?)))
    }
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
struct Latched {
    evaluation: Box<dyn Evaluation>,
    failure: Option<EvaluationError>,
}

impl Latched {
    /// Of an evaluation that has not failed.
    fn new(evaluation: Box<dyn Evaluation>) -> Self {
        Self { evaluation, failure: None }
    }
}

impl Evaluation for Latched {
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
            None => self.evaluation.finish(stop),
        }
    }
}

/// An evaluation key as one kind of evaluator prepared it. Only that kind can look inside.
pub struct PreparedKey {
    keyset_id: KeysetId,
    bytes: usize,
    owner: KeyOwner,
    key: Arc<dyn Any + Send + Sync>,
}

/// Whose a key is, as far as its bytes say.
enum KeyOwner {
    /// Of this data owner; none of one that names no owner.
    Named(Option<OwnerId>),
    /// Its evaluator finds out: rows name the client key itself.
    SaidByRows,
}

impl PreparedKey {
    /// Wraps a key of the given memory in bytes, made for [`Requirements::keyset_id`].
    pub fn new<K: Any + Send + Sync>(keyset_id: KeysetId, bytes: usize, key: K) -> Self {
        Self { keyset_id, bytes, owner: KeyOwner::Named(None), key: Arc::new(key) }
    }

    /// Of this data owner, where the key says whose it is.
    pub fn of_owner(self, owner: Option<OwnerId>) -> Self {
        Self { owner: KeyOwner::Named(owner), ..self }
    }

    /// Of the client key that rows name themselves, in what the evaluator reads: it refuses those of
    /// another one.
    pub fn named_by_rows(self) -> Self {
        Self { owner: KeyOwner::SaidByRows, ..self }
    }

    /// Of this data owner, where it is known whose file the key was in.
    pub fn with_owner(self, owner: Option<OwnerId>) -> Self {
        match owner {
            Some(_) => self.of_owner(owner),
            None => self,
        }
    }

    /// Refuses rows that say another owner than the key does: see [`require_one_owner`].
    pub fn require_owner(&self, rows: Option<OwnerId>) -> Result<(), EvaluationError> {
        match self.owner {
            KeyOwner::Named(owner) => require_one_owner(rows, owner),
            KeyOwner::SaidByRows => Ok(()),
        }
    }

    /// Memory that the key takes, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The key, if it is of this kind and was made for this keyset.
    pub fn open<K: Any + Send + Sync>(
        &self,
        keyset_id: KeysetId,
    ) -> Result<Arc<K>, EvaluationError> {
        self.require_keyset(keyset_id)?;
        Arc::clone(&self.key).downcast().map_err(|_| {
            let reason = "the evaluation key was prepared for another kind of model";
            EvaluationError::NotConformant(reason.into())
        })
    }

    fn require_keyset(&self, keyset_id: KeysetId) -> Result<(), EvaluationError> {
        match self.keyset_id == keyset_id {
            true => Ok(()),
            false => {
                let reason = "the evaluation key was prepared for other parameters";
                Err(EvaluationError::NotConformant(reason.into()))
            }
        }
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
        let latched = || Box::new(Latched::new(Box::new(Failing(0))));
        let mut job = latched();
        assert_eq!(job.push(&[], go_on), Ok(()));
        let failure = job.push(&[], go_on);
        assert_eq!(failure, Err(EvaluationError::Shape("the second".into())));
        assert_eq!(job.push(&[], go_on), failure);
        assert_eq!(job.finish(go_on).map(drop), failure);
        assert_eq!(latched().finish(go_on), Ok(vec![1]));
    }

    #[test]
    fn a_prepared_key_opens_only_as_what_it_is() {
        let (id, other) = (KeysetId::of(b"one keyset"), KeysetId::of(b"another"));
        let key = PreparedKey::new(id, 8, 7u64);
        assert_eq!((key.bytes(), key.open::<u64>(id)), (8, Ok(Arc::new(7))));
        assert!(matches!(key.open::<u64>(other), Err(EvaluationError::NotConformant(_))));
        assert!(matches!(key.open::<i64>(id), Err(EvaluationError::NotConformant(_))));
    }

    #[test]
    fn rows_and_key_are_of_one_owner_or_of_none() {
        let [one, other] = [1, 2].map(|byte| OwnerId::from_bytes([byte; 16]));
        let key = |owner| PreparedKey::new(KeysetId::of(b"keyset"), 8, 7u64).of_owner(owner);
        for owner in [one, other, None] {
            assert_eq!(key(owner).require_owner(owner), Ok(()));
        }
        for (rows, of_key) in [(one, other), (one, None), (None, one)] {
            let refused = key(of_key).require_owner(rows).unwrap_err();
            assert_eq!(refused, EvaluationError::OtherOwner { rows, key: of_key });
        }
        for rows in [one, other, None] {
            assert_eq!(key(None).named_by_rows().require_owner(rows), Ok(()));
            let in_file = key(None).named_by_rows().with_owner(one);
            assert_eq!(in_file.require_owner(rows).is_ok(), rows == one);
            assert_eq!(key(one).with_owner(None).require_owner(rows).is_ok(), rows == one);
        }
        let said = key(None).require_owner(one).unwrap_err().to_string();
        assert!(said.contains("owner 01010101010101010101010101010101"), "{said}");
    }
}
