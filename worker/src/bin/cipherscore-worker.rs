//! `cipherscore-worker`: takes encrypted jobs from the queue, evaluates them, and answers.

use std::process::ExitCode;

use cipherscore_concrete::recorder::{RecorderCommand, child_main};
use cipherscore_worker::command::{self, WorkerCommand};
use clap::Parser;

/// First argument that makes this program the recorder of a circuit.
const RECORDER_COMMAND: &str = "record-circuit";

/// Take encrypted jobs from the queue, evaluate them without seeing a value, and answer.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: WorkerCommand,
}

/// Exit code of a command line that is none: `EX_USAGE` of sysexits.h.
const USAGE: u8 = 64;

fn main() -> ExitCode {
    // Before anything else is set up: the child that runs a stranger's machine code must hold
    // nothing.
    if std::env::args_os().nth(1).is_some_and(|argument| argument == RECORDER_COMMAND) {
        return child_main();
    }
    let command = match Arguments::try_parse() {
        Ok(arguments) => arguments.command,
        Err(error) => {
            // Help and version come this way too. A reader that went away has seen enough.
            let _ = error.print();
            return if error.use_stderr() { USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    match run(command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: WorkerCommand) -> anyhow::Result<ExitCode> {
    let recorder = RecorderCommand::new(std::env::current_exe()?, vec![RECORDER_COMMAND.into()]);
    command::run(command, None, false, recorder)
}
