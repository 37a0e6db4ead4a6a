//! The output, and the list of rows that are not in it.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use super::ledger::Ledger;
use super::run::Outcome;
use super::{ScoreError, beside};
use crate::files::{Access, write_atomically};
use crate::model::{ClientModel, RefusedRow};
use crate::rows::{ScoreColumns, ScoreWriter, WriteScoresError};

/// Writes the scores in the order of the input, then the list of failed rows, and removes the
/// ledger when there are none.
pub(super) fn write(
    output: &Path,
    columns: ScoreColumns,
    model: &dyn ClientModel,
    ledger: &Ledger,
    outcome: &Outcome,
    refused: &[RefusedRow],
) -> Result<(), ScoreError> {
    // The ledger's own errors come out from under those of the output.
    let mut unreadable = None;
    let written = write_atomically(output, Access::Default, |file| {
        let mut scores = ScoreWriter::new(file, model, columns)?;
        for part in 0..ledger.header().parts() {
            let first = part * u64::from(ledger.header().rows_per_job) + 1;
            if !outcome.finished.contains(part) {
                for _ in 0..ledger.header().part_rows(part) {
                    scores.write_empty()?;
                }
                continue;
            }
            let results = ledger.results(part).map_err(|error| {
                let text = std::io::Error::other(error.to_string());
                unreadable = Some(error);
                WriteScoresError::Io(text)
            })?;
            for (row, result) in (first..).zip(results.rows()) {
                match refused.binary_search_by_key(&row, |refused| refused.row) {
                    Ok(_) => scores.write_empty()?,
                    Err(_) => scores.write(result)?,
                }
            }
        }
        scores.finish()
    });
    if let Some(error) = unreadable {
        return Err(error.into());
    }
    written.map_err(|source| ScoreError::Output { path: output.to_owned(), source })?;

    let path = beside(output, "failed.csv");
    let listed = match outcome.failed.is_empty() && refused.is_empty() {
        false => list_failed(&path, ledger, outcome, refused),
        true => match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        },
    };
    listed.map_err(|source| ScoreError::Output { path, source })?;
    if outcome.failed.is_empty() {
        ledger.remove()?;
    }
    Ok(())
}

/// Rows that the model does not take have had no job that tells anything of them, and have none.
fn list_failed(
    path: &Path,
    ledger: &Ledger,
    outcome: &Outcome,
    refused: &[RefusedRow],
) -> Result<(), WriteScoresError> {
    write_atomically(path, Access::Default, |file| {
        let mut list = csv::Writer::from_writer(file);
        list.write_record(["row", "job", "reason"])?;
        let mut lines = BTreeMap::new();
        for (part, failure) in &outcome.failed {
            let first = part * u64::from(ledger.header().rows_per_job) + 1;
            for row in first..first + ledger.header().part_rows(*part) {
                lines.insert(row, (failure.job.to_string(), failure.reason.as_str()));
            }
        }
        lines.extend(refused.iter().map(|it| (it.row, (String::new(), it.reason.as_str()))));
        for (row, (job, reason)) in lines {
            list.write_record([&row.to_string(), &job, reason])?;
        }
        Ok(list.flush()?)
    })
}
