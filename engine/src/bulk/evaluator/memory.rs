//! What jobs and keys take of a worker's memory, in bytes.

use super::{BulkEvaluator, WAITING_BLOCKS};
use crate::bulk::parameters::Parameters;
use crate::rlwe::primes::BLOCK_POINTS;

const WORD_BYTES: usize = size_of::<u64>();

/// Both polynomials of a public key.
pub(super) fn prepared_key_bytes(parameters: &Parameters) -> usize {
    2 * WORD_BYTES * parameters.primes as usize * parameters.dimension()
}

/// The sum of
/// * blocks that wait, twice, since their buffer grows;
/// * for each thread the columns of one block and prime, and the kernel's memory;
/// * outputs of blocks before they are put together;
/// * outputs of one ring batch, and as much again for what hides them;
/// * the reply.
///
/// Only the last depends on the number of rows. Saturates.
pub(super) fn job_bytes(evaluator: &BulkEvaluator, rows: u32) -> usize {
    let (parameters, columns) = (evaluator.parameters(), evaluator.columns as usize);
    let primes = parameters.primes as usize;
    let waiting = 2 * WAITING_BLOCKS * evaluator.block_len(BLOCK_POINTS);
    let thread = 2 * columns * BLOCK_POINTS * WORD_BYTES + evaluator.tape.scratch_bytes();
    let components = evaluator.outputs * evaluator.components();
    let blocks = WAITING_BLOCKS * primes * components * BLOCK_POINTS * WORD_BYTES;
    let ring_batch = primes * components * parameters.dimension() * WORD_BYTES;
    let reply = evaluator.reply_len(rows).unwrap_or(usize::MAX);
    let fixed = waiting + evaluator.threads * thread + blocks + 2 * ring_batch;
    reply.saturating_add(fixed)
}
