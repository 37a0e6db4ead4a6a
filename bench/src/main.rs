//! Measures on this machine what the documentation says about speed, and prints one table.

mod data_owner;
mod machine;
mod models;
mod queue;
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
    Queue(queue::Options),
}

fn main() -> ExitCode {
    let Command::Queue(options) = Arguments::parse().command;
    match queue::run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
