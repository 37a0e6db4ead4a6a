//! Seeds of rows that have not come yet.

use std::fmt;

use crate::rlwe::mask::SEED_BYTES;
use crate::rlwe::sampling::{EntropyError, entropy};

/// The seed of one row to come, drawn by the running client.
///
/// Its seed may be sent to a worker ahead of the row; it is no secret. But it must meet one body only:
/// two bodies under one mask differ by the difference of two rows. So a ticket lives in memory alone,
/// cannot be copied or written down, is taken by the one encryption it is for, and is gone after a
/// restart. A counter, or a restored snapshot of a process, would use it again.
pub struct RowTicket([u8; SEED_BYTES]);

impl fmt::Debug for RowTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RowTicket")
    }
}

impl RowTicket {
    /// Draws one from the operating system.
    pub fn draw() -> Result<Self, EntropyError> {
        Ok(Self(*entropy()?))
    }

    /// What the worker is to know ahead.
    pub fn seed(&self) -> [u8; SEED_BYTES] {
        self.0
    }
}
