//! Memory for events that are taken and not settled.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::BridgeError;
use super::models::Model;
use super::settings::{BridgeSettings, ModelSection};

/// What an event takes of `bridge.memory` beside its own bytes and its row: its names, its places in
/// tables.
const EVENT_BYTES: usize = 1 << 10;
/// Unit in which memory is counted, in bytes.
const ROOM_BYTES: usize = 1 << 10;

/// Memory for events that are taken and not settled: none is taken while there may be no room.
pub(super) struct Rooms {
    semaphore: Arc<Semaphore>,
    all: u32,
    largest: u32,
    /// What an event takes beside its own bytes, in bytes.
    beside: usize,
    /// How often its bytes are there: as it came, and where its score repeats some of them.
    copies: usize,
}

impl Rooms {
    pub(super) fn new(
        settings: &BridgeSettings,
        models: &[(ModelSection, Model)],
    ) -> Result<Self, BridgeError> {
        let section = &settings.bridge;
        let features = |(_, model): &(_, Model)| model.client().interface().features.count();
        let widest = models.iter().map(features).max().unwrap_or(0);
        let beside = EVENT_BYTES + widest * size_of::<f64>();
        let copies = if settings.events.fields.is_empty() { 1 } else { 2 };
        let largest = permits(section.max_event_bytes().saturating_mul(copies), beside);
        let all = section.memory.as_u64() / ROOM_BYTES as u64;
        let all = u32::try_from(all).unwrap_or(u32::MAX).min(u32::MAX >> 4);
        if all < largest {
            let wrong =
                "bridge.memory must have room for an event of bridge.max_event_size and its row";
            return Err(BridgeError::Settings(wrong.into()));
        }
        let semaphore = Arc::new(Semaphore::new(all as usize));
        Ok(Self { semaphore, all, largest, beside, copies })
    }

    /// Room for the largest event.
    pub(super) async fn take(&self) -> OwnedSemaphorePermit {
        let taken = Arc::clone(&self.semaphore).acquire_many_owned(self.largest).await;
        taken.expect("it is never closed")
    }

    /// Gives back what an event of so many bytes does not need. A larger one than is allowed, which is
    /// a dead letter, keeps all.
    pub(super) fn give_back(&self, room: &mut OwnedSemaphorePermit, bytes: usize) {
        let needed = permits(bytes.saturating_mul(self.copies), self.beside);
        let spare = self.largest.saturating_sub(needed);
        drop(room.split(spare as usize));
    }

    /// Waits until every event is settled.
    pub(super) async fn all(&self) {
        let all = self.semaphore.acquire_many(self.all).await;
        drop(all);
    }
}

fn permits(bytes: usize, beside: usize) -> u32 {
    u32::try_from(bytes.saturating_add(beside).div_ceil(ROOM_BYTES)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_there_for_what_scores_repeat() {
        let mut settings = BridgeSettings::default();
        let largest = |settings: &_| Rooms::new(settings, &[]).unwrap().largest;
        assert_eq!(largest(&settings), 64 + 1);
        settings.events.fields = [("who".to_owned(), "/account".to_owned())].into();
        assert_eq!(largest(&settings), 2 * 64 + 1);
        assert_eq!(permits(1024, EVENT_BYTES + 8), 3);
    }
}
