//! What an earlier run did, as its ledger says.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use cipherscore_common::message::Timestamp;
use cipherscore_common::{Digest, JobId};

use super::ledger_error::{LedgerError, io_error};
use super::record::{Header, Record};
use crate::driver::Failure;
use crate::model::Receipt;

/// Longest line, in bytes; reasons are cut before.
const MAX_LINE_BYTES: u64 = 64 << 10;

/// A job of an earlier run without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unanswered {
    pub(super) job: JobId,
    pub(super) deadline: Option<Timestamp>,
    /// Whether the broker had it for certain.
    pub(super) confirmed: bool,
    pub(super) payload: Option<Digest>,
    pub(super) receipt: Option<Receipt>,
}

/// What an earlier run did.
#[derive(Debug, Default)]
pub(super) struct Past {
    pub(super) finished: Parts,
    /// Parts that are not tried again.
    pub(super) failed: BTreeMap<u64, Failure>,
    pub(super) unanswered: BTreeMap<u64, Vec<Unanswered>>,
}

/// A set of parts, one bit each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Parts(Vec<u64>);

impl Parts {
    pub(super) fn insert(&mut self, part: u64) {
        let (word, bit) = position(part);
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= bit;
    }

    pub(super) fn contains(&self, part: u64) -> bool {
        let (word, bit) = position(part);
        self.0.get(word).is_some_and(|word| word & bit != 0)
    }
}

fn position(part: u64) -> (usize, u64) {
    (usize::try_from(part / 64).unwrap_or(usize::MAX), 1 << (part % 64))
}

/// What is in `jobs.jsonl`.
#[derive(Default)]
pub(super) struct Found {
    /// None in a new file.
    pub(super) header: Option<Header>,
    pub(super) past: Past,
    /// Length of all complete lines, in bytes.
    pub(super) end: u64,
}

impl Found {
    /// Reads all complete lines. One without an end was being written when the process died.
    pub(super) fn read(jobs: &File, path: &Path) -> Result<Self, LedgerError> {
        let mut reader = BufReader::new(jobs);
        let mut found = Self::default();
        let mut text = Vec::new();
        for line in 1.. {
            text.clear();
            let read = reader.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut text);
            let read = read.map_err(|source| io_error(path, source))? as u64;
            let damaged = |reason| LedgerError::Damaged { path: path.to_owned(), line, reason };
            if read == MAX_LINE_BYTES {
                return Err(damaged("too long".into()));
            }
            if text.last() != Some(&b'\n') {
                break;
            }
            match serde_json::from_slice(&text) {
                Ok(record) => found.take(record).map_err(|reason| damaged(reason.into()))?,
                Err(error) => return Err(damaged(error.to_string())),
            }
            found.end += read;
        }
        Ok(found)
    }

    fn take(&mut self, record: Record) -> Result<(), &'static str> {
        let part = match (&record, &self.header) {
            (Record::Header(header), None) if header.rows_per_job > 0 => {
                self.header = Some(header.clone());
                return Ok(());
            }
            (Record::Header(_), _) | (_, None) => return Err("a header in the wrong place"),
            (
                Record::Submitting { part, .. }
                | Record::Submitted { part, .. }
                | Record::Finished { part, .. }
                | Record::Failed { part, .. },
                Some(header),
            ) if *part < header.parts() => *part,
            _ => return Err("a part that the input does not have"),
        };
        self.past.take(part, record);
        Ok(())
    }
}

impl Past {
    fn take(&mut self, part: u64, record: Record) {
        if self.finished.contains(part) || self.failed.contains_key(&part) {
            // A second job of the part, which was on its way when the first one was answered.
            return;
        }
        match record {
            Record::Submitting { job, deadline_ms, receipt, .. } => {
                let deadline = deadline_ms.map(Timestamp::from_millis);
                let job = Unanswered { job, deadline, confirmed: false, payload: None, receipt };
                self.unanswered.entry(part).or_default().push(job);
            }
            Record::Submitted { job, payload, .. } => {
                let mut jobs = self.unanswered.get_mut(&part).into_iter().flatten();
                if let Some(found) = jobs.find(|unanswered| unanswered.job == job) {
                    (found.confirmed, found.payload) = (true, payload);
                }
            }
            Record::Finished { .. } => {
                self.unanswered.remove(&part);
                self.finished.insert(part);
            }
            Record::Failed { job, reason, is_final, .. } => {
                self.unanswered.remove(&part);
                // If not, this run tries it again.
                if is_final {
                    self.failed.insert(part, Failure { job, reason });
                }
            }
            Record::Header(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

    use super::*;

    #[test]
    fn jobs_after_the_end_of_a_part_are_not_waited_for() {
        let (first, second, other) = (JobId::random(), JobId::random(), JobId::random());
        let submitting =
            |job, part| Record::Submitting { job, part, deadline_ms: Some(1), receipt: None };
        let submitted = |job, part| Record::Submitted { job, part, payload: None };
        let mut past = Past::default();
        for (part, record) in [
            (0, submitting(first, 0)),
            (0, submitted(first, 0)),
            (1, submitting(other, 1)),
            (0, Record::Finished { job: first, part: 0 }),
            (0, submitting(second, 0)),
            (0, submitted(second, 0)),
        ] {
            past.take(part, record);
        }
        assert!(past.finished.contains(0) && !past.finished.contains(1));
        assert_eq!(past.unanswered.keys().collect::<Vec<_>>(), [&1]);
    }

    #[test]
    fn a_part_that_failed_may_have_further_jobs() {
        let (first, second) = (JobId::random(), JobId::random());
        let mut past = Past::default();
        past.take(0, Record::Submitting { job: first, part: 0, deadline_ms: None, receipt: None });
        // As ledgers had it before any failure was final.
        let text = format!(r#"{{"record":"failed","job":"{first}","part":0,"reason":"why not"}}"#);
        let failed = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string::<Record>(&failed).unwrap(), text);
        past.take(0, failed);
        past.take(0, Record::Submitting { job: second, part: 0, deadline_ms: None, receipt: None });
        let jobs: Vec<_> = past.unanswered[&0].iter().map(|unanswered| unanswered.job).collect();
        assert_eq!(jobs, [second]);
    }

    #[test]
    fn a_part_that_failed_for_good_has_no_further_jobs() {
        let (first, second) = (JobId::random(), JobId::random());
        let submitting =
            |job| Record::Submitting { job, part: 0, deadline_ms: None, receipt: None };
        let failed = Record::Failed { job: first, part: 0, reason: "bad".into(), is_final: true };
        let text = serde_json::to_string(&failed).unwrap();
        assert!(text.contains(r#""final":true"#), "{text}");
        let mut past = Past::default();
        for record in [submitting(first), serde_json::from_str(&text).unwrap(), submitting(second)]
        {
            past.take(0, record);
        }
        assert_eq!(past.failed[&0], Failure { job: first, reason: "bad".into() });
        assert!(past.unanswered.is_empty() && !past.finished.contains(0));
    }
}
