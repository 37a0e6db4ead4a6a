//! Rows that are counted before they are answered.

use cipherscore_engine::rows::client::{MAX_ANSWERED_ROWS, ReplyCounts};

/// Most rows that are counted ahead.
pub(super) const MAX_BLOCK_ROWS: u64 = 1024;

/// Rows that this process has counted ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ahead {
    /// Which process: a forked one has a copy of this, and the rows are its parent's.
    pub(super) process: u32,
    pub(super) left: u64,
    /// Rows of this process.
    pub(super) used: u64,
}

impl Default for Ahead {
    fn default() -> Self {
        Self { process: std::process::id(), left: 0, used: 0 }
    }
}

impl Ahead {
    /// The same, unless it is another process's: then nothing is counted ahead.
    pub(super) fn of_this_process(self) -> Self {
        match self.process == std::process::id() {
            true => self,
            false => Self::default(),
        }
    }

    /// What is left when counts have become others, and the counts to be stored, if they must be.
    pub(super) fn after(
        self,
        before: ReplyCounts,
        counts: ReplyCounts,
    ) -> (Self, Option<ReplyCounts>) {
        let rows = counts.answered_rows.saturating_sub(before.answered_rows);
        let used = self.used.saturating_add(rows);
        if counts.bad == before.bad && rows <= self.left {
            return (Self { left: self.left - rows, used, ..self }, None);
        }
        let mut left = self.left.saturating_sub(rows);
        if rows > self.left {
            // As many as were used, so that a short process leaves few behind when it is killed.
            let ahead = used.min(MAX_BLOCK_ROWS);
            left = ahead.min(MAX_ANSWERED_ROWS.saturating_sub(counts.answered_rows));
        }
        let answered_rows = counts.answered_rows.saturating_add(left);
        (Self { left, used, ..self }, Some(ReplyCounts { answered_rows, ..counts }))
    }
}
