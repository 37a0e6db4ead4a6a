//! Memory of requests that are not answered: whoever comes when it is full is told to come later.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::answers::Problem;
use crate::bridge::settings::HttpSection;

/// What an event takes beside its own bytes: its names, and its score.
const EVENT_BYTES: usize = 1 << 10;
/// How often the bytes of a body are there: as they came, cut into events, and what scores repeat of
/// them.
const COPIES: usize = 3;
/// Unit in which memory is counted, in bytes.
const ROOM_BYTES: usize = 1 << 10;

/// Memory of a request.
pub(super) struct Room {
    _permit: OwnedSemaphorePermit,
}

/// Memory of all requests.
pub(super) struct Memory {
    free: Arc<Semaphore>,
    max_body: usize,
}

impl Memory {
    pub(super) fn new(section: &HttpSection) -> Result<Self, String> {
        let max_body = section.max_body_bytes();
        let all = section.memory.as_u64() / ROOM_BYTES as u64;
        let all = usize::try_from(all).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        let largest = permits(max_body, section.max_events.get()) as usize;
        if all < largest {
            let needed = largest.saturating_mul(ROOM_BYTES);
            return Err(format!(
                "http.memory must have room for a request of http.max_body and http.max_events: \
                 {needed} bytes"
            ));
        }
        Ok(Self { free: Arc::new(Semaphore::new(all)), max_body })
    }

    /// For a body of so many bytes; none where nobody knows before it is here.
    pub(super) fn for_body(&self, bytes: Option<u64>) -> Result<OwnedSemaphorePermit, Problem> {
        let bytes =
            bytes.map_or(self.max_body, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        match bytes > self.max_body {
            true => Err(Problem::large_body(self.max_body)),
            false => self.take(permits(bytes, 0)),
        }
    }

    /// For a body of so many bytes with so many events, until they are answered.
    pub(super) fn for_events(
        &self,
        mut permit: OwnedSemaphorePermit,
        bytes: usize,
        events: usize,
    ) -> Result<Room, Problem> {
        let (has, needs) = (permit.num_permits(), permits(bytes, events) as usize);
        match u32::try_from(needs.saturating_sub(has)) {
            Ok(0) => drop(permit.split(has - needs)),
            Ok(more) => permit.merge(self.take(more)?),
            Err(_) => return Err(Problem::busy()),
        }
        Ok(Room { _permit: permit })
    }

    fn take(&self, permits: u32) -> Result<OwnedSemaphorePermit, Problem> {
        let taken = Arc::clone(&self.free).try_acquire_many_owned(permits);
        taken.map_err(|_| Problem::busy())
    }
}

fn permits(bytes: usize, events: usize) -> u32 {
    let bytes = bytes.saturating_mul(COPIES).saturating_add(events.saturating_mul(EVENT_BYTES));
    u32::try_from(bytes.div_ceil(ROOM_BYTES).max(1)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use bytesize::ByteSize;

    use super::*;

    fn section() -> HttpSection {
        let max_events = std::num::NonZeroUsize::MIN.saturating_add(9);
        let (max_body, memory) = (ByteSize::kib(10), ByteSize::kib(40));
        HttpSection { max_body, max_events, memory, ..HttpSection::default() }
    }

    #[test]
    fn who_comes_when_it_is_full_is_told_to_come_later() {
        let memory = Memory::new(&section()).unwrap();
        assert!(memory.for_body(Some(10_241)).is_err_and(|problem| problem.status() == 413));
        // Its length is not known before.
        let first = memory.for_body(None).unwrap();
        assert_eq!(memory.free.available_permits(), 10);
        assert!(memory.for_body(None).is_err_and(|problem| problem.status() == 503));
        let first = memory.for_events(first, 1024, 2).unwrap();
        assert_eq!(memory.free.available_permits(), 35);
        let second = memory.for_body(Some(10)).unwrap();
        assert!(memory.for_events(second, 10, 100).is_err_and(|problem| problem.status() == 503));
        drop(first);
        assert_eq!(memory.free.available_permits(), 40);
    }

    #[test]
    fn memory_holds_the_largest_request() {
        let small = HttpSection { memory: ByteSize::kib(39), ..section() };
        assert!(Memory::new(&small).is_err_and(|error| error.contains("40960 bytes")));
        assert!(Memory::new(&HttpSection::default()).is_ok());
    }
}
