//! `cipherscore worker`

use std::num::NonZeroUsize;
use std::process::ExitCode;

use cipherscore_worker::command::{WorkerCommand, run};
use clap::Args;

use super::recorder;

/// Take encrypted jobs from the queue, evaluate them without seeing a value, and answer.
///
/// The same as the program `cipherscore-worker`, which is smaller.
#[derive(Args)]
pub(crate) struct Worker {
    #[command(subcommand)]
    command: WorkerCommand,
}

impl Worker {
    pub(crate) fn run(self, threads: Option<NonZeroUsize>, json: bool) -> anyhow::Result<ExitCode> {
        run(self.command, threads, json, recorder()?)
    }
}
