//! What a process that watches a folder prints.

use cipherscore_engine::artifact::ModelId;
use serde::Serialize;

use crate::commands::{printable, report};
use crate::print::say;

/// What happens, a line each.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum Event<'a> {
    /// The key is prepared, and calls are taken.
    Ready { model_id: ModelId, prepare_seconds: f64 },
    /// The outputs of a call are there.
    Evaluated { call: &'a str, rows: usize, seconds: f64 },
    /// Its error is there instead.
    Failed { call: &'a str, reason: String },
    /// A file is no input of a call, or cannot be taken or removed. Said once, while it is there.
    PassedOver { file: &'a str, reason: String },
    /// The process ends.
    Stopped { evaluated: u64, failed: u64 },
}

impl Event<'_> {
    pub(super) fn tell(&self, json: bool) -> anyhow::Result<()> {
        if json {
            say!("{}", serde_json::to_string(self)?);
            return Ok(());
        }
        report(false, self, |event| match event {
            Self::Ready { model_id, prepare_seconds } => {
                say!("model {model_id} is ready, its key prepared in {prepare_seconds:.3} s");
            }
            Self::Evaluated { call, rows, seconds } => {
                say!("{}: {rows} rows evaluated in {seconds:.3} s", line(call));
            }
            Self::Failed { call, reason } => say!("{}: {}", line(call), printable(reason)),
            Self::PassedOver { file, reason } => {
                say!("{} is passed over: {}", line(file), printable(reason));
            }
            Self::Stopped { evaluated, failed } => {
                say!("stopped after {evaluated} calls, and {failed} that failed");
            }
        })
    }
}

/// A stranger's name, which may hold ends of lines, in one line.
fn line(name: &str) -> String {
    printable(name).replace('\n', "\u{fffd}")
}
