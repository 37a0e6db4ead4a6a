//! Measures on this machine what the documentation says about speed, and prints one table.

mod bridge;
mod bulk;
mod calls;
mod circuits;
mod concrete_ml;
mod data_owner;
mod machine;
mod models;
mod numbers;
mod options;
mod part_clock;
mod queue;
mod rows;
mod steps;
mod table;
mod workers;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measure on this machine what the documentation says about speed.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// What jobs cost on their way through RabbitMQ, Redis and worker processes, all private to
    /// this command.
    Queue(options::Options),
    /// `cipherscore bridge` from end to end: latencies at a rate, the highest rate, and floods from lines
    /// to lines and from queue to queue.
    Bridge(bridge::Arguments),
    /// What the bulk engine does in a second, alone and from end to end.
    Bulk(options::Options),
    /// What a row costs in the row engine, part by part, and events of one row through the queue.
    Rows(rows::Arguments),
    /// Small calls of `cipherscore evaluate`: a process for each, and one that watches a folder.
    Calls(options::Options),
    /// Where the time of Concrete ML's circuits goes: operations alone, one row, many rows.
    Circuits(circuits::Arguments),
    /// Concrete ML's circuits in our engine, and in Concrete ML's own server.
    ConcreteMl(concrete_ml::Options),
}

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|argument| argument == circuits::RECORDER_COMMAND) {
        return cipherscore_concrete::recorder::child_main();
    }
    let done = match Arguments::parse().command {
        Command::Queue(options) => queue::run(&options),
        Command::Bridge(arguments) => bridge::run(&arguments),
        Command::Bulk(options) => bulk::run(&options),
        Command::Rows(arguments) => rows::run(&arguments),
        Command::Calls(options) => calls::run(&options),
        Command::Circuits(arguments) => circuits::run(&arguments),
        Command::ConcreteMl(options) => concrete_ml::run(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
