//! What jobs take of a worker's memory, in bytes.

use super::super::evaluate::RowMachine;
use super::super::reply::row_reply_len;
use super::super::upload::row_len;
use super::super::weights::weights_len;
use super::super::workspace::workspace_len;

/// The sum of
/// * rows that wait, twice, since their buffer grows;
/// * for each thread that has a row its workspace and weights, and the row's words;
/// * the reply.
///
/// Workspaces stay when the job is over, for the next, until they are released. Saturates.
pub(super) fn job_bytes(machine: &RowMachine, threads: usize, rows: u32) -> usize {
    let parameters = &machine.parameters;
    let busy = threads.min(rows as usize);
    let waiting = 2 * busy * row_len(parameters);
    let workspace = workspace_bytes(machine);
    let reply = row_reply_len(parameters, rows).unwrap_or(usize::MAX);
    // Words of rows are copied once.
    reply.saturating_mul(2).saturating_add(waiting + busy * workspace)
}

/// Of a thread that evaluates rows, and of what stays of it when it has none.
pub(super) fn workspace_bytes(machine: &RowMachine) -> usize {
    workspace_len(&machine.parameters) + weights_len(&machine.program, &machine.layout)
}
