//! `cipherscore`: encrypted scoring, command by command.

mod commands;
mod dumps;
mod exit;
mod passphrase;
mod print;
mod progress;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::exit::{Exit, UsageError};

/// Score rows with models that never see them.
///
/// A model owner compiles a trained model into client.zip and server.zip: with `compile`, for scoring
/// in bulk, or with Concrete ML. A data owner makes keys from client.zip, encrypts rows, and decrypts
/// scores; whoever holds server.zip evaluates the model on ciphertexts, with the data owner's
/// evaluation key, without seeing a value: on one machine (`evaluate`), or in a fleet of workers
/// behind a queue (`score`). The fastest way to see all of it: `cipherscore demo`.
#[derive(Parser)]
#[command(version, max_term_width = 100, after_help = exit::HELP)]
struct Arguments {
    #[command(subcommand)]
    command: Command,

    /// Threads to compute on; all processors by default.
    #[arg(long, global = true, value_name = "N", env = "CIPHERSCORE_THREADS")]
    threads: Option<std::num::NonZeroUsize>,

    /// Print results on standard output as JSON, and no progress bar.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    Demo(commands::demo::Demo),
    Compile(commands::compile::Compile),
    Import(commands::import::Import),
    Inspect(commands::inspect::Inspect),
    Keygen(commands::keygen::Keygen),
    Score(commands::score::Score),
    Submit(commands::submit::Submit),
    Bridge(commands::bridge::Bridge),
    Cancel(commands::cancel::Cancel),
    Worker(commands::worker::Worker),
    Gateway(commands::gateway::Gateway),
    Status(commands::status::Status),
    Dlq(commands::dlq::Dlq),
    Keys(commands::keys::Keys),
    Models(commands::models::Models),
    Predict(commands::predict::Predict),
    Encrypt(commands::encrypt::Encrypt),
    Evaluate(commands::evaluate::Evaluate),
    Decrypt(commands::decrypt::Decrypt),
}

fn main() -> ExitCode {
    // Before anything else is set up: the child that runs a stranger's machine code must hold
    // nothing. It is started by this program only, so it is no subcommand that anybody sees.
    if std::env::args_os().nth(1).is_some_and(|argument| argument == commands::RECORDER_COMMAND) {
        return cipherscore_concrete::recorder::child_main();
    }
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version come this way too. A reader that went away has seen enough.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Done }.into();
        }
    };
    let result = run(arguments);
    cipherscore_common::telemetry::stop();
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {}", commands::printable(&causes(&error)));
            match error.is::<UsageError>() {
                true => Exit::Usage,
                false => Exit::Error,
            }
            .into()
        }
    }
}

/// The error and what led to it. An error that repeats its cause, as many do to be complete by
/// themselves, says it once.
fn causes(error: &anyhow::Error) -> String {
    let mut said: Vec<String> = Vec::new();
    for cause in error.chain().map(ToString::to_string) {
        if said.last().is_none_or(|last| !last.ends_with(&cause)) {
            said.push(cause);
        }
    }
    said.join(": ")
}

fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    if let Some(threads) = arguments.threads {
        rayon::ThreadPoolBuilder::new().num_threads(threads.get()).build_global()?;
    }
    // A worker has no keys to keep, and whoever runs it may want to look into it.
    if !matches!(arguments.command, Command::Worker(_)) {
        dumps::forbid();
    }
    let json = arguments.json;
    match arguments.command {
        Command::Compile(command) => return command.run(json),
        Command::Import(command) => command.run(json),
        Command::Inspect(command) => command.run(json),
        Command::Keygen(command) => command.run(json),
        Command::Encrypt(command) => command.run(json),
        Command::Evaluate(command) => command.run(json),
        Command::Decrypt(command) => command.run(json),
        Command::Predict(command) => return command.run(json),
        Command::Keys(command) => command.run(json),
        Command::Models(command) => command.run(json),
        Command::Demo(command) => return command.run(json),
        Command::Worker(command) => return command.run(arguments.threads, json),
        Command::Gateway(command) => return command.run(json),
        Command::Score(command) => return command.run(json),
        Command::Submit(command) => return command.run(json),
        Command::Bridge(command) => return command.run(json),
        Command::Cancel(command) => command.run(json),
        Command::Dlq(command) => command.run(json),
        Command::Status(command) => command.run(json),
    }?;
    Ok(Exit::Done.into())
}
