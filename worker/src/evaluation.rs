//! Step 5: the rows of a job through its model.

use std::sync::Arc;
use std::time::Instant;

use cipherscore_common::broker::Broker;
use cipherscore_common::message::{ErrorCode, Payload, StoredPayload};
use cipherscore_common::{BlobKind, BlobName, BlobReader, Digest, Store, StoreError};
use cipherscore_engine::evaluator::{Evaluation, EvaluationError, PreparedKey};
use tracing::debug;

use crate::compute::compute;
use crate::failure::Failure;
use crate::shared::Shared;
use crate::slots::{Pool, Slot};
use crate::stop::Stop;
use crate::validate::ValidJob;

/// A job at work.
#[derive(Clone, Copy)]
pub(crate) struct Work<'a> {
    pub(crate) job: &'a ValidJob,
    /// What ends it early.
    pub(crate) stop: &'a Stop,
    /// Says on which threads it is computed, at each step anew.
    pub(crate) slot: &'a Slot,
}

/// Evaluates a job: in one go when its rows are here, chunk by chunk when they are in the store.
pub(crate) async fn evaluate<B: Broker, S: Store>(
    shared: &Shared<B, S>,
    work: Work<'_>,
    key: Option<Arc<PreparedKey>>,
) -> Result<Vec<u8>, Failure> {
    let Work { job, stop, slot } = work;
    let started = Instant::now();
    let outputs = match &job.payload {
        Payload::Inline(bytes) => {
            let (evaluator, rows) = (job.form.evaluator.clone(), job.rows);
            let pool = shared.pools.of(slot);
            let stop = stepping(pool, stop);
            // The bytes stay with the job; a megabyte is copied in less than a millisecond.
            let bytes = bytes.clone();
            compute(pool, move || {
                let mut evaluation = evaluator.begin(key, rows)?;
                evaluation.push(&bytes, &stop)?;
                evaluation.finish(&stop)
            })
            .await?
        }
        Payload::Stored(stored) => evaluate_stored(shared, work, stored, key).await?,
    };
    if outputs.is_ok() {
        shared.metrics.evaluated(job, started.elapsed());
        debug!(rows = job.rows, seconds = started.elapsed().as_secs_f64(), "evaluated");
    }
    outputs.map_err(|error| match error {
        EvaluationError::Stopped => stop.failure(),
        error => classify(error, ErrorCode::WrongShape),
    })
}

/// Asked between the steps of an evaluation: whether to end, and by that a sign of life.
fn stepping(pool: &Pool, stop: &Stop) -> impl Fn() -> bool + Send + Sync + use<> {
    let (stop, progress) = (stop.clone(), pool.progress.clone());
    move || {
        progress.step();
        stop.is_asked()
    }
}

type Outputs = Result<Vec<u8>, EvaluationError>;

async fn evaluate_stored<B: Broker, S: Store>(
    shared: &Shared<B, S>,
    work: Work<'_>,
    stored: &StoredPayload,
    key: Option<Arc<PreparedKey>>,
) -> Result<Outputs, Failure> {
    let Work { job, stop, slot } = work;
    let name = BlobName { tenant: job.tenant.clone(), kind: BlobKind::Job, id: stored.sha256 };
    let mut reader =
        BlobReader::open(&shared.store, &name).await.map_err(|error| missing(shared, &error))?;
    let info = reader.info();
    if (info.bytes, info.sha256) != (stored.bytes, stored.sha256) {
        let reason = format!("{name} is another blob there, of digest {}", info.sha256);
        return Err(Failure::refused(ErrorCode::WrongDigest, reason));
    }
    let (evaluator, rows) = (job.form.evaluator.clone(), job.rows);
    let pool = shared.pools.of(slot);
    let begun = compute(pool, move || evaluator.begin(key, rows));
    // The next chunk is on its way while the present one is evaluated, and no further one.
    let (begun, mut next) = tokio::join!(begun, reader.next_chunk());
    let mut evaluation = match begun? {
        Ok(evaluation) => evaluation,
        Err(error) => return Ok(Err(error)),
    };
    for (index, digest) in stored.chunks.iter().enumerate() {
        let Some(chunk) = next.map_err(|error| missing(shared, &error))? else { break };
        let pushed = push(shared, work, evaluation, (chunk, *digest));
        let pushed = tokio::join!(pushed, reader.next_chunk());
        next = pushed.1;
        evaluation = match pushed.0? {
            Ok(evaluation) => evaluation,
            Err(Some(error)) => return Ok(Err(error)),
            Err(None) => {
                let reason = format!("chunk {index} of {name} does not have its digest");
                return Err(Failure::refused(ErrorCode::WrongDigest, reason));
            }
        };
    }
    let pool = shared.pools.of(slot);
    let asked = stepping(pool, stop);
    compute(pool, move || evaluation.finish(&asked)).await
}

/// Why a chunk was not evaluated; none when it does not have its digest.
type Refused = Option<EvaluationError>;

/// Evaluates a chunk, unless it is not the one that was published.
async fn push<B: Broker, S: Store>(
    shared: &Shared<B, S>,
    work: Work<'_>,
    mut evaluation: Box<dyn Evaluation>,
    (chunk, digest): (Vec<u8>, Digest),
) -> Result<Result<Box<dyn Evaluation>, Refused>, Failure> {
    let pool = shared.pools.of(work.slot);
    let asked = stepping(pool, work.stop);
    compute(pool, move || {
        // Before a byte of it is used: the digest of the whole comes with the last chunk only.
        if Digest::of(&chunk) != digest {
            return Err(None);
        }
        evaluation.push(&chunk, &asked).map_err(Some)?;
        Ok(evaluation)
    })
    .await
}

/// What it means that a part of the job cannot be read.
fn missing<B: Broker, S: Store>(shared: &Shared<B, S>, error: &StoreError) -> Failure {
    let code = match error {
        StoreError::UnknownVersion { .. } => ErrorCode::UnsupportedVersion,
        StoreError::TooLarge { .. } => ErrorCode::TooLarge,
        // Its tenant can put anything under the name.
        StoreError::NotFound { .. }
        | StoreError::Damaged { .. }
        | StoreError::Empty { .. }
        | StoreError::TooMany { .. }
        | StoreError::InvalidPresence
        | StoreError::Unexpected { .. } => ErrorCode::BlobMissing,
        StoreError::Unavailable { .. } | StoreError::Full { .. } | StoreError::Refused { .. } => {
            return shared.store_failure(error);
        }
    };
    Failure::refused(code, error.to_string())
}

/// What an error of the engine is to the producer. `bytes` is the code for wrong bytes: a key's
/// or a job's.
pub(crate) fn classify(error: EvaluationError, bytes: ErrorCode) -> Failure {
    let code = match &error {
        EvaluationError::Shape(_) => bytes,
        EvaluationError::NotConformant(_) => ErrorCode::NotConformant,
        EvaluationError::KeyRequired => ErrorCode::KeyMissing,
        EvaluationError::OtherOwner { .. } | EvaluationError::OtherClientKey => {
            ErrorCode::WrongOwner
        }
        EvaluationError::Stopped => return Failure::Abandoned,
    };
    Failure::refused(code, error.to_string())
}
