//! How many rows a job has, and what follows from it.

use std::num::NonZeroU32;

use cipherscore_common::message::MAX_INLINE_BYTES;

use super::record::Header;
use crate::client::ClientOptions;
use crate::model::{ClientModel, JOB_INPUT_BYTES};
use crate::settings::ProducerSection;

/// Rows of jobs in flight that are kept to be encrypted again, in bytes. One job has its rows
/// whatever they take.
const MAX_ROW_BYTES: u64 = 256 << 20;

/// What models take for the room of a message is that.
const _: () = assert!(JOB_INPUT_BYTES == MAX_INLINE_BYTES);

/// Rows of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowsPerJob {
    /// What the user asked for: an earlier run must have had the same.
    Given(NonZeroU32),
    /// What the model suggests: an earlier run's number is as good.
    Suggested(NonZeroU32),
}

impl RowsPerJob {
    pub(super) fn get(self) -> u32 {
        match self {
            Self::Given(rows) | Self::Suggested(rows) => rows.get(),
        }
    }

    pub(super) fn is_given(self) -> bool {
        matches!(self, Self::Given(_))
    }
}

/// Jobs that may be in flight, which is fewer than were asked for where rows are long.
pub(super) fn in_flight(settings: &ProducerSection, model: &dyn ClientModel, rows: u32) -> usize {
    let row = (model.interface().features.count() * size_of::<f64>()) as u64;
    let most = MAX_ROW_BYTES / row.saturating_mul(rows.into()).max(1);
    let most = usize::try_from(most.max(1)).unwrap_or(usize::MAX);
    most.min(settings.in_flight.get().into())
}

/// The client's options, with a bound on outputs: what a job can have, and no more.
pub(super) fn client_options(
    settings: &ProducerSection,
    model: &dyn ClientModel,
    header: &Header,
) -> ClientOptions {
    let outputs = model.max_output_bytes(header.rows_per_job);
    let options = settings.client_options();
    ClientOptions { max_reply_bytes: outputs.min(options.max_reply_bytes), ..options }
}
