//! Waiting for a service that is away.

use std::fmt::Display;
use std::time::Duration;

use crate::events::{Event, Events};

const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(10);

/// Waits longer each time, and says why.
pub(super) struct Backoff<'a> {
    events: &'a Events,
    next: Duration,
    waiting: bool,
}

impl<'a> Backoff<'a> {
    pub(super) fn new(events: &'a Events) -> Self {
        Self { events, next: FIRST, waiting: false }
    }

    pub(super) async fn wait(&mut self, reason: &(dyn Display + Sync)) {
        self.waiting = true;
        self.events.tell(Event::Waiting { reason: reason.to_string(), again_in: self.next });
        tokio::time::sleep(self.next).await;
        self.next = (2 * self.next).min(LONGEST);
    }

    /// It succeeded.
    pub(super) fn over(&mut self) {
        if std::mem::take(&mut self.waiting) {
            self.events.tell(Event::GoesOn);
        }
    }
}
