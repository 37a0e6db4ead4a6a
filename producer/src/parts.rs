//! What making jobs of parts of rows has in common, whether rows are in a file or in memory.

use std::fmt::Display;
use std::time::Duration;

use cipherscore_common::broker::{BrokerError, QueueState};
use cipherscore_common::message::ErrorCode;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::JoinError;
use tokio::time::Instant;

use crate::evaluation_keys::KeyStep;

/// Jobs that are made of one part, at most.
pub(crate) const MAX_JOBS_OF_PART: u32 = 3;
/// After what silence the queue is looked at.
pub(crate) const SILENCE: Duration = Duration::from_secs(10);
/// How long after its deadline a reply may still come.
const REPLY_GRACE: Duration = Duration::from_secs(30);
/// Payloads that are in this process at a time, encrypted and not yet at the broker or in the
/// store, in bytes. A larger one is there alone.
const MAX_PAYLOAD_BYTES: u64 = 256 << 20;
/// Unit in which they are counted, in bytes.
const PERMIT_BYTES: u64 = 1 << 10;

/// What a new job may be tried with, after one that ended so.
pub(crate) fn remedy(code: ErrorCode, published: Instant) -> Option<KeyStep> {
    match code {
        ErrorCode::BlobMissing | ErrorCode::DeadlineExceeded => Some(KeyStep::Once),
        ErrorCode::KeyMissing => Some(KeyStep::Ensure(published)),
        // Of the payload or of the key: the code does not tell.
        ErrorCode::WrongDigest => Some(KeyStep::Replace(published)),
        _ => None,
    }
}

/// When a reply to a job with so much time is not waited for any more, by a clock that nobody sets:
/// were it the time of day, a jump of it would have every job published again. Never, where that is
/// beyond what the clock can say.
pub(crate) fn due_in(time: Duration) -> Option<Instant> {
    Instant::now().checked_add(time.saturating_add(REPLY_GRACE))
}

/// Why nobody answers jobs of a model, if its queue shows it.
pub(crate) fn reason_of_silence(
    model: impl Display,
    state: Result<Option<QueueState>, BrokerError>,
) -> Option<String> {
    match state {
        Ok(Some(QueueState { consumers: 0, messages })) => {
            Some(format!("no worker takes jobs of {model}, and {messages} wait"))
        }
        Ok(None) => Some(format!("the queue of {model} is gone")),
        // Workers are at work, or it is known already that the broker is away.
        Ok(Some(_)) | Err(_) => None,
    }
}

/// Room for payloads.
pub(crate) struct PayloadRoom(Semaphore);

impl PayloadRoom {
    pub(crate) fn new() -> Self {
        Self(Semaphore::new(permits(MAX_PAYLOAD_BYTES) as usize))
    }

    /// Waits for room for so many bytes.
    pub(crate) async fn take(&self, bytes: u64) -> Option<SemaphorePermit<'_>> {
        // The semaphore is never closed.
        self.0.acquire_many(permits(bytes.min(MAX_PAYLOAD_BYTES))).await.ok()
    }
}

/// At most those of [`MAX_PAYLOAD_BYTES`], which are few.
fn permits(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX)
}

/// Runs what computes, or waits for a disk, beside the async runtime.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    tokio::task::spawn_blocking(work).await
}
