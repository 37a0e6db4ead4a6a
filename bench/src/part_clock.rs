//! How long the parts of something take.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Time of each part of one evaluation.
pub(crate) struct PartClock<P> {
    times: HashMap<P, Duration>,
    part: Option<P>,
    since: Instant,
}

impl<P: Eq + Hash> PartClock<P> {
    pub(crate) fn new() -> Self {
        Self { times: HashMap::new(), part: None, since: Instant::now() }
    }

    /// The part before ends here, and this one begins.
    pub(crate) fn begin(&mut self, part: P) {
        self.end();
        self.part = Some(part);
    }

    /// The last part ends here.
    pub(crate) fn finish(mut self) -> HashMap<P, Duration> {
        self.end();
        self.times
    }

    fn end(&mut self) {
        let now = Instant::now();
        if let Some(part) = self.part.take() {
            *self.times.entry(part).or_default() += now - self.since;
        }
        self.since = now;
    }
}
