//! Outputs that a client knows beforehand.

use super::domain::{DIGEST_BYTES, Domain};
use super::parameters::CANARIES;

/// Names one evaluation of an upload; drawn by the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ExecutionId(pub [u8; 16]);

/// Messages of the canaries of a row, from 0 to t - 1: hashes of the execution, the row and the
/// canary's number, modulo t. They are off from uniform by less than 2^-20, which only matters for
/// how well they find mistakes.
pub(super) fn canaries(execution: ExecutionId, row: u32, t: u64) -> [u64; CANARIES] {
    std::array::from_fn(|index| {
        let index = u32::try_from(index).expect("a few canaries");
        let parts: [&[u8]; 3] = [&execution.0, &row.to_le_bytes(), &index.to_le_bytes()];
        let digest: [u8; DIGEST_BYTES] = Domain::Canary.digest(&parts);
        u64::from_le_bytes(*digest.first_chunk().expect("a digest is longer")) % t
    })
}
