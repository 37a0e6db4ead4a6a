//! What gateways know of jobs: notes of those that they accepted, and replies until they are settled.

use std::fmt;
use std::future::Future;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

use super::StoreError;
use crate::message::MAX_BODY_BYTES;
use crate::{JobId, Lease, Tenant};

/// How long a job stays known as settled.
pub const SETTLED_LEASE: Duration = Duration::from_secs(60 * 60);
/// Largest note, in bytes.
pub const MAX_NOTE_BYTES: usize = 4096;
/// Largest reply as it is kept, in bytes: its body, and its headers as JSON.
pub const MAX_RESULT_BYTES: usize = MAX_BODY_BYTES + (64 << 10);
/// Most entries of a feed that are read at a time.
pub const MAX_FEED_ENTRIES: usize = 1000;

/// What a note is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NoteName {
    /// A job that was accepted.
    Job(JobId),
    /// An evaluation key, by an id that was drawn for it.
    Key(JobId),
}

/// Where in the feed of a client a result stands. Later ones are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FeedEntry {
    /// Milliseconds since 1970, by the store's clock.
    pub(super) millis: u64,
    /// Among those of one millisecond.
    pub(super) number: u64,
}

/// Text that is no entry of a feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("an entry of a feed is two numbers with a hyphen between them")]
pub struct InvalidFeedEntry;

impl fmt::Display for FeedEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.millis, self.number)
    }
}

impl FromStr for FeedEntry {
    type Err = InvalidFeedEntry;

    fn from_str(text: &str) -> Result<Self, InvalidFeedEntry> {
        let number = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
            true => text.parse().map_err(|_| InvalidFeedEntry),
            false => Err(InvalidFeedEntry),
        };
        let (millis, rest) = text.split_once('-').ok_or(InvalidFeedEntry)?;
        Ok(Self { millis: number(millis)?, number: number(rest)? })
    }
}

/// What gateways know of a job.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JobState {
    /// Whoever wanted the result has it.
    pub settled: bool,
    /// What was noted when it was accepted.
    pub note: Option<Vec<u8>>,
    /// Whether its reply is here.
    pub ended: bool,
}

/// Keeps what gateways know of jobs. Cheap to share: every method takes `&self`. What notes and results
/// say is the gateways' own; to a store they are bytes.
pub trait ResultStore: Send + Sync {
    /// What is known of a job.
    fn job_state(
        &self,
        tenant: &Tenant,
        job: JobId,
    ) -> impl Future<Output = Result<JobState, StoreError>> + Send;

    /// Makes a note unless there is one; returns the one that is there then.
    fn note(
        &self,
        tenant: &Tenant,
        name: NoteName,
        note: &[u8],
        lease: Lease,
    ) -> impl Future<Output = Result<Vec<u8>, StoreError>> + Send;

    /// Makes a note in the place of the one that is there.
    fn note_again(
        &self,
        tenant: &Tenant,
        name: NoteName,
        note: &[u8],
        lease: Lease,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Reads a note.
    fn noted(
        &self,
        tenant: &Tenant,
        name: NoteName,
    ) -> impl Future<Output = Result<Option<Vec<u8>>, StoreError>> + Send;

    /// Takes a note out.
    fn forget_note(
        &self,
        tenant: &Tenant,
        name: NoteName,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Keeps the reply of a job, unless there is one; says whether it is the first one. Where it has a
    /// client, its place in that client's feed comes after.
    fn keep_result(
        &self,
        tenant: &Tenant,
        job: JobId,
        client: Option<&str>,
        result: &[u8],
        lease: Lease,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// The reply of a job.
    fn result(
        &self,
        tenant: &Tenant,
        job: JobId,
    ) -> impl Future<Output = Result<Option<Vec<u8>>, StoreError>> + Send;

    /// Forgets note and result of a job, and knows it as settled for [`SETTLED_LEASE`].
    fn settle(
        &self,
        tenant: &Tenant,
        job: JobId,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// The first entries of a client's feed, in their order, after one of them or all; at most `most`, and
    /// [`MAX_FEED_ENTRIES`]. A job may have several, and one whose result is gone.
    fn feed(
        &self,
        tenant: &Tenant,
        client: &str,
        after: Option<FeedEntry>,
        most: usize,
    ) -> impl Future<Output = Result<Vec<(FeedEntry, JobId)>, StoreError>> + Send;

    /// Takes entries out of a feed.
    fn drop_entries(
        &self,
        tenant: &Tenant,
        client: &str,
        entries: &[FeedEntry],
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_one_form() {
        for text in ["0-0", "1790000000000-17"] {
            assert_eq!(text.parse::<FeedEntry>().unwrap().to_string(), text);
        }
        for wrong in ["", "1", "-", "1-", "-1", "+1-0", "1-2-3", "(1-0", "18446744073709551616-0"] {
            assert_eq!(wrong.parse::<FeedEntry>(), Err(InvalidFeedEntry), "{wrong}");
        }
        assert!("2-0".parse::<FeedEntry>().unwrap() > "1-9".parse().unwrap());
    }
}
