//! Rows that are evaluated before they come: what is left to do when they do.

use std::time::Instant;

use cipherscore_engine::evaluator::Evaluator;
use cipherscore_engine::rows::client::{ReplyCounts, RowTicket};
use cipherscore_engine::rows::kernel::Kernel;

use super::Amount;
use super::engine::milliseconds;
use super::shapes::Subject;
use crate::machine::Watch;
use crate::table::{Table, median};

/// Medians of rows, in microseconds. Every row is checked.
pub(super) fn measure(subject: &Subject, amount: &Amount, table: &mut Table) -> anyhow::Result<()> {
    let evaluator = subject.evaluator(Kernel::best())?;
    let key = evaluator.prepare(subject.key.clone())?;
    let watch = Watch::start(Vec::new());
    let mut times = Vec::new();
    for repetition in 0..amount.repetitions {
        let mut rows = Vec::new();
        for seed in 0..amount.rows {
            let row = subject.row((repetition * amount.rows + seed) as u64);
            let ticket = RowTicket::draw()?;
            let prepared = evaluator.prepare_row(&key, ticket.seed())?;
            let upload = subject.client.encrypt_ahead(ticket, &row, &ReplyCounts::default())?;
            let started = Instant::now();
            let reply = prepared.answer(&upload.bytes)?;
            rows.push(1e3 * milliseconds(started));
            subject.require_exact(&row, &upload, &reply)?;
        }
        times.push(median(&rows));
    }
    let name = format!("{}: one row, prepared", subject.shape.name);
    table.add(name, "us", times, None, watch.others());
    Ok(())
}
