//! How many rows a job has, and what follows from it.

use std::num::NonZeroU32;

use cipherscore_common::message::MAX_INLINE_BYTES;
use cipherscore_concrete::batch::max_row_bytes;
use cipherscore_concrete::client::ClientArtifact;
use cipherscore_engine::parameters::{Compression, Gate};

use super::needs_key;
use super::record::Header;
use crate::client::ClientOptions;
use crate::settings::ProducerSection;

/// Most rows of a job, unless told otherwise.
const MAX_ROWS: usize = 1000;
/// Bootstraps of a job: some seconds of one thread.
const JOB_BOOTSTRAPS: usize = 500;
/// Rows of a job of which only is known that it needs bootstraps.
const UNKNOWN_ROWS: usize = 4;
/// Outputs of a job, in bytes.
const OUTPUT_BYTES: usize = 16 << 20;
/// What Cap'n Proto adds to a value, about, in bytes.
const STRUCTURE_BYTES: usize = 512;

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

/// Rows that make a job of some seconds, whose payload fits a message. `bootstraps_per_row` is
/// known to who has the circuit.
pub fn default_rows_per_job(
    artifact: &ClientArtifact,
    bootstraps_per_row: Option<usize>,
) -> NonZeroU32 {
    let rows = match bootstraps_per_row {
        Some(0) => MAX_ROWS,
        Some(bootstraps) => JOB_BOOTSTRAPS / bootstraps,
        None if needs_key(artifact) => UNKNOWN_ROWS,
        None => MAX_ROWS,
    };
    let rows = rows
        .min(MAX_INLINE_BYTES / value_bytes(artifact.input(), Compression::Seed))
        .min(OUTPUT_BYTES / value_bytes(artifact.output(), Compression::None));
    u32::try_from(rows).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN)
}

fn value_bytes(gate: &Gate, compression: Compression) -> usize {
    8 * gate.len() * gate.words_per_ciphertext(compression) + STRUCTURE_BYTES
}

/// The client's options, with a bound on outputs: what a job can have, and no more.
pub(super) fn client_options(
    settings: &ProducerSection,
    artifact: &ClientArtifact,
    header: &Header,
) -> ClientOptions {
    let row = max_row_bytes(std::slice::from_ref(artifact.output())) as u64;
    let outputs = row.saturating_mul(header.rows_per_job.into());
    let options = settings.client_options();
    ClientOptions { max_reply_bytes: outputs.min(options.max_reply_bytes), ..options }
}
