//! Waiting for a service that is away.

use std::fmt::Display;
use std::time::Duration;

use cipherscore_common::Pauses;

use crate::events::{Event, Events};

const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(10);

/// Waits longer each time, and says why.
pub(super) struct Backoff<'a> {
    events: &'a Events,
    pauses: Pauses,
    waiting: bool,
}

impl<'a> Backoff<'a> {
    pub(super) fn new(events: &'a Events) -> Self {
        Self { events, pauses: Pauses::new(FIRST, LONGEST), waiting: false }
    }

    pub(super) async fn wait(&mut self, reason: &(dyn Display + Sync)) {
        self.waiting = true;
        let again_in = self.pauses.take();
        self.events.tell(Event::Waiting { reason: reason.to_string(), again_in });
        tokio::time::sleep(again_in).await;
    }

    /// It succeeded.
    pub(super) fn over(&mut self) {
        if std::mem::take(&mut self.waiting) {
            self.events.tell(Event::GoesOn);
        }
    }
}
