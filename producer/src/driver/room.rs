//! How much is encrypted ahead.

use tokio::sync::{Semaphore, SemaphorePermit};

/// Payloads that are in this process at a time, encrypted and not yet at the broker or in the
/// store, in bytes. A larger one is there alone.
const MAX_PAYLOAD_BYTES: u64 = 256 << 20;
/// Unit in which they are counted, in bytes.
const PERMIT_BYTES: u64 = 1 << 10;

/// Room for payloads.
pub(super) struct PayloadRoom(Semaphore);

impl PayloadRoom {
    pub(super) fn new() -> Self {
        Self(Semaphore::new(permits(MAX_PAYLOAD_BYTES) as usize))
    }

    /// Waits for room for so many bytes.
    pub(super) async fn take(&self, bytes: u64) -> Option<SemaphorePermit<'_>> {
        // The semaphore is never closed.
        self.0.acquire_many(permits(bytes.min(MAX_PAYLOAD_BYTES))).await.ok()
    }
}

/// At most those of [`MAX_PAYLOAD_BYTES`], which are few.
fn permits(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX)
}
