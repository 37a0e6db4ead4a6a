//! What happens while jobs are under way, for whoever watches.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cipherscore_common::JobId;

/// Something that a person may want to know. None holds a value, a key or a password.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// Nothing goes on, for this reason; it is tried again after a while.
    Waiting {
        /// Why.
        reason: String,
        /// After what time.
        again_in: Duration,
    },
    /// It goes on after a [`Event::Waiting`].
    GoesOn,
    /// A reply to a job that is answered already, or that nobody here published.
    ReplyDropped {
        /// Which job.
        job: JobId,
    },
    /// A message in the reply queue that is no reply to what was asked.
    ReplyMalformed {
        /// What is wrong with it.
        reason: String,
    },
    /// The input was read once, and every row of it can be encrypted.
    Checked {
        /// Rows of the input.
        rows: u64,
    },
    /// An earlier run left a ledger, and this one goes on from there.
    Resumed {
        /// Rows that have scores already.
        scored: u64,
        /// Jobs of the earlier run whose replies may come yet.
        unanswered: usize,
    },
    /// The broker has a job.
    Published {
        /// Which job.
        job: JobId,
        /// Its rows.
        rows: u64,
    },
    /// The broker has a job of files.
    Submitted {
        /// The files.
        inputs: Vec<PathBuf>,
        /// Which job.
        job: JobId,
        /// Whether an earlier process published it, and it was so once more.
        again: bool,
    },
    /// Rows are published once more, as a new job.
    PublishedAgain {
        /// What became of the job before.
        reason: String,
    },
    /// Rows have scores, which are safe in the ledger.
    Scored {
        /// How many.
        rows: u64,
    },
    /// Rows will have no scores.
    Failed {
        /// How many.
        rows: u64,
        /// Why.
        reason: String,
    },
}

/// Told of every event, from any thread. Must not block.
#[derive(Clone)]
pub struct Events(Arc<dyn Fn(Event) + Send + Sync>);

impl Events {
    /// To this function.
    pub fn new(tell: impl Fn(Event) + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }

    /// To nobody.
    pub fn ignored() -> Self {
        Self::new(|_| {})
    }

    pub(crate) fn tell(&self, event: Event) {
        (self.0)(event);
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Events")
    }
}
