//! Marks on jobs, and who works: small, short-lived, beside the blobs.

use std::future::Future;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::{EvaluationKeyId, JobId, Tenant};

/// How long a job stays marked as done: longer than a broker takes to deliver it again.
pub const DONE_LEASE: Duration = Duration::from_secs(60 * 60);
/// How long a job stays marked as cancelled: as long as one may wait in a queue.
pub const CANCEL_LEASE: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How long it is remembered how often a job was begun alone: longer than the broker takes to
/// deliver it again and again.
pub const ALONE_LEASE: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a worker that says nothing more is still listed.
pub const PRESENCE_LEASE: Duration = Duration::from_secs(30);

/// How long it is remembered what was released under a key, after the last time: longer than keys
/// are used.
pub const RELEASED_LEASE: Duration = Duration::from_secs(400 * 24 * 60 * 60);

/// Longest name of a worker, in characters.
pub const MAX_WORKER_LENGTH: usize = 128;
/// Largest description of a worker, in bytes of JSON: some nine hundred models.
pub const MAX_PRESENCE_BYTES: usize = 64 << 10;
/// Most workers that a list holds; of more, those that announced themselves last.
pub const MAX_LISTED_WORKERS: usize = 1000;
/// Longest version of a program, in characters.
const MAX_VERSION_LENGTH: usize = 64;

/// What is marked on a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Marks {
    /// Its reply is at the broker.
    pub done: bool,
    /// Somebody does not want it any more.
    pub cancelled: bool,
}

/// A worker, as it describes itself to `cipherscore status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Presence {
    /// Which worker: 1 to [`MAX_WORKER_LENGTH`] characters of `a-z`, `A-Z`, `0-9`, `-`, `.`, `_`.
    pub worker: String,
    /// Version of its program.
    pub version: String,
    /// When it started, in milliseconds since 1970.
    pub started_ms: u64,
    /// Its models.
    pub models: Vec<crate::ModelId>,
    /// Jobs that it evaluates at a time.
    pub slots: usize,
    /// Jobs that it has now.
    pub jobs: usize,
    /// Jobs that it has answered.
    pub answered: u64,
    /// Memory of the evaluation keys that it holds prepared, in bytes.
    pub key_cache_bytes: u64,
    /// What it did; nothing of an older worker, which does not say.
    #[serde(default)]
    pub activity: Activity,
}

/// What a worker did, as it announced it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Activity {
    /// When it announced this, in milliseconds since 1970 by its clock.
    pub announced_ms: u64,
    /// Slots that are taken.
    pub busy: usize,
    /// Jobs that it answered with an error code.
    pub failed: u64,
    /// Rows that it evaluated.
    pub rows: u64,
    /// The longest time that a job had waited since it was published, of those that began since the
    /// announcement before; none where none began.
    pub longest_wait_ms: Option<u64>,
    /// Deliveries that it has taken and not settled.
    pub unacknowledged: u64,
    /// For how long it has had the oldest of them; none where there are none.
    pub oldest_unacknowledged_ms: Option<u64>,
}

impl Presence {
    /// As it is stored. Nothing is stored that would not be read back.
    pub(super) fn to_json(&self) -> Result<Vec<u8>, StoreError> {
        check_worker_name(&self.worker)?;
        let json = serde_json::to_vec(self).expect("a struct of strings and numbers");
        match Self::parse(&self.worker, &json) {
            Some(_) => Ok(json),
            None => Err(StoreError::InvalidPresence),
        }
    }

    /// Reads what is stored under a worker's name. Whoever can write to the store may have written
    /// anything, and one line of a list is not worth an error.
    pub(super) fn parse(worker: &str, json: &[u8]) -> Option<Self> {
        if json.len() > MAX_PRESENCE_BYTES {
            return None;
        }
        let presence: Self = serde_json::from_slice(json).ok()?;
        let printable = presence.version.chars().all(|character| !character.is_control());
        let bounded = presence.version.chars().count() <= MAX_VERSION_LENGTH;
        (presence.worker == worker && printable && bounded).then_some(presence)
    }
}

/// A name that leaves no way out of a name in the store, nor out of a line on a terminal.
pub(super) fn check_worker_name(name: &str) -> Result<(), StoreError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    match (1..=MAX_WORKER_LENGTH).contains(&name.len()) && name.bytes().all(allowed) {
        true => Ok(()),
        false => Err(StoreError::InvalidPresence),
    }
}

/// Keeps marks and presences. Cheap to share: every method takes `&self`.
pub trait MarkStore: Send + Sync {
    /// What is marked on a job.
    fn marks(
        &self,
        tenant: &Tenant,
        job: JobId,
    ) -> impl Future<Output = Result<Marks, StoreError>> + Send;

    /// Marks a job as done, for [`DONE_LEASE`].
    fn mark_done(
        &self,
        tenant: &Tenant,
        job: JobId,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Marks a job as cancelled, for [`CANCEL_LEASE`].
    fn mark_cancelled(
        &self,
        tenant: &Tenant,
        job: JobId,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Which of these jobs are cancelled, in their order.
    fn cancelled(
        &self,
        jobs: &[(Tenant, JobId)],
    ) -> impl Future<Output = Result<Vec<bool>, StoreError>> + Send;

    /// Adds to what a job that came back is blamed with, since it is begun once more, alone;
    /// returns all of it. Forgotten after [`ALONE_LEASE`].
    fn blame(
        &self,
        tenant: &Tenant,
        job: JobId,
        more: u32,
    ) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Takes back some of it: the worker did not die of the job. Less than nothing is nothing, as
    /// where the store has forgotten it.
    fn forgive(
        &self,
        tenant: &Tenant,
        job: JobId,
        less: u32,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Counts coefficients of hidden replies that were computed under an evaluation key, repeated
    /// ones included; returns how many there were in all. What replies say about a hidden model
    /// beyond its scores grows with them.
    fn count_released(
        &self,
        tenant: &Tenant,
        key: EvaluationKeyId,
        coefficients: u64,
    ) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// How many coefficients were released under an evaluation key.
    fn released(
        &self,
        tenant: &Tenant,
        key: EvaluationKeyId,
    ) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Lists this worker for [`PRESENCE_LEASE`].
    fn announce(&self, presence: &Presence) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Takes this worker off the list, if it is on it.
    fn leave(&self, worker: &str) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// The workers that are listed, by name; at most [`MAX_LISTED_WORKERS`].
    fn workers(&self) -> impl Future<Output = Result<Vec<Presence>, StoreError>> + Send;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_worker_says_nothing_of_what_it_did() {
        let old = r#"{"worker":"w","version":"0.1.0","started_ms":1,"models":[],"slots":2,
            "jobs":1,"answered":3,"key_cache_bytes":4}"#;
        let presence = Presence::parse("w", old.as_bytes()).unwrap();
        assert_eq!((presence.answered, presence.activity), (3, Activity::default()));
    }
}
