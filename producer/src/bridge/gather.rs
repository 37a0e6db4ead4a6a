//! Events of a model, gathered to jobs: few wait for at most `max_wait`, many make jobs as large as
//! the model wants them.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cipherscore_common::Digest;
use parking_lot::{Mutex, RwLock};
use serde_json::{Map, Value};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};
use tracing::Span;

use super::file_marks::FileMarks;
use super::models::Model;
use super::outage::Outage;
use super::record::{Claim, Record};
use super::settings::ModelSection;
use super::turns::Turn;
use super::window::Underway;

/// What is held of an event until its score, or its dead letter, is safe.
pub(super) struct Held {
    pub(super) record: Record,
    pub(super) claim: Box<dyn Claim>,
    /// None of an event without an id.
    pub(super) underway: Option<Underway>,
    pub(super) turn: Option<Turn>,
    pub(super) arrived: Instant,
    /// Of the memory for events.
    pub(super) room: OwnedSemaphorePermit,
    /// All of its way, for traces.
    pub(super) span: Span,
}

/// An event that has a row.
pub(super) struct Gathered {
    pub(super) held: Held,
    pub(super) key: Digest,
    pub(super) id: String,
    pub(super) source: String,
    pub(super) fields: Map<String, Value>,
    pub(super) trace: [Option<String>; 2],
    pub(super) received: SystemTime,
    pub(super) row: Vec<f64>,
    pub(super) model: Arc<Model>,
    /// Since when it waits for others.
    pub(super) since: Instant,
    /// Its wait for others, for traces.
    pub(super) gathering: Span,
}

/// A model, whichever it is at the moment, and the way to its jobs.
pub(super) struct Lane {
    pub(super) section: ModelSection,
    pub(super) model: RwLock<Arc<Model>>,
    /// Of the zips that were looked at last, and found to be those of the model.
    pub(super) marks: Mutex<FileMarks>,
    pub(super) events: UnboundedSender<Gathered>,
    /// Jobs in flight of this model: another one that waits takes none of them.
    pub(super) slots: Arc<Semaphore>,
    /// Events that wait for the fleet.
    pub(super) outage: Outage<Gathered>,
}

/// Events that share a job, or more than one where a form takes fewer.
pub(super) struct Group {
    pub(super) events: Vec<Gathered>,
    /// Its place among the jobs in flight.
    pub(super) slot: JobSlot,
}

/// A place among the jobs of a model that are in flight.
pub(super) struct JobSlot {
    _slot: OwnedSemaphorePermit,
    /// Of a job that is not full: its place among these.
    _small: Option<OwnedSemaphorePermit>,
}

impl JobSlot {
    /// Waits for a place. It is there sooner or later: the semaphore is never closed.
    pub(super) async fn wait(slots: &Arc<Semaphore>) -> Option<Self> {
        let slot = Arc::clone(slots).acquire_owned().await.ok()?;
        Some(Self { _slot: slot, _small: None })
    }
}

/// Of the jobs that may be in flight, so many may be small: a quarter, and at least 2. A job costs the fleet most of
/// what a full one does, so that a flood that began as many small ones would stay behind.
fn small_jobs(in_flight: usize) -> usize {
    (in_flight / 4).max(2)
}

/// Makes groups of what comes. Bounded by the memory that events hold.
pub(super) struct Gathering {
    pub(super) events: UnboundedReceiver<Gathered>,
    pub(super) max_wait: Duration,
    /// Events of a group, at most; none where the model decides.
    pub(super) max_rows: Option<usize>,
    pub(super) slots: Arc<Semaphore>,
    /// Places of jobs that are not full.
    small: Arc<Semaphore>,
    /// The first event of another model than that of the group before.
    next: Option<Gathered>,
}

impl Gathering {
    pub(super) fn new(
        events: UnboundedReceiver<Gathered>,
        max_wait: Duration,
        max_rows: Option<usize>,
        slots: Arc<Semaphore>,
    ) -> Self {
        let small = Arc::new(Semaphore::new(small_jobs(slots.available_permits())));
        Self { events, max_wait, max_rows, slots, small, next: None }
    }

    /// The next group; none when no further event comes. It ends when it is full, or when its first
    /// event has waited for `max_wait` and a small job may be begun: while [`small_jobs`] of them are underway, or
    /// all slots are taken, it grows.
    pub(super) async fn group(&mut self) -> Option<Group> {
        let first = match self.next.take() {
            Some(first) => first,
            None => self.events.recv().await?,
        };
        let model = Arc::clone(&first.model);
        let max_rows = self.max_rows.unwrap_or_else(|| model.max_rows());
        let mut due = std::pin::pin!(sleep_until(first.since + self.max_wait));
        let mut slot = std::pin::pin!(Arc::clone(&self.slots).acquire_owned());
        let mut small = std::pin::pin!(Arc::clone(&self.small).acquire_owned());
        let (mut events, mut is_due, mut is_last) = (vec![first], false, false);
        let mut as_small = None;
        loop {
            let is_full = events.len() >= max_rows || is_last;
            tokio::select! {
                biased;
                event = self.events.recv(), if !is_full => match event {
                    Some(event) if Arc::ptr_eq(&event.model, &model) => events.push(event),
                    event => {
                        self.next = event;
                        is_last = true;
                    }
                },
                () = &mut due, if !is_due && !is_full => is_due = true,
                // The semaphores are never closed.
                permit = &mut small, if is_due && !is_full && as_small.is_none() => {
                    as_small = Some(permit.ok()?);
                }
                slot = &mut slot, if is_full || as_small.is_some() => {
                    let small = as_small.filter(|_| !is_full);
                    let slot = JobSlot { _slot: slot.ok()?, _small: small };
                    return Some(Group { events, slot });
                }
            }
        }
    }
}
