//! `cipherscore-chaos`: load and faults at the same time, for as long as one likes.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::ensure;
use cipherscore_chaos::bridge::{BridgePlan, EventPace, run_with_bridge};
use cipherscore_chaos::load::Pace;
use cipherscore_chaos::owner::Owner;
use cipherscore_chaos::run::{RunPlan, run};
use cipherscore_chaos::schedule::Amounts;
use cipherscore_chaos::worker;
use clap::{Args, Parser, Subcommand};

/// Break workers, broker, store and network under load, and check every reply.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: ChaosCommand,
}

#[derive(Subcommand)]
enum ChaosCommand {
    /// Publish jobs, break things, and print the figures. Ends with 0 if nothing was lost, answered
    /// twice or wrong.
    Run(RunOptions),
    /// Publish events to a bridge, kill it and everything around it, and print the figures. Ends with 0
    /// if every event has its score, or is the dead letter that it must be, and nothing was wrong.
    Bridge(BridgeOptions),
    /// The worker under test, which the run starts.
    Worker(Box<cipherscore_worker::command::WorkerOptions>),
}

#[derive(Args)]
struct RunOptions {
    /// Jobs in all.
    #[arg(long, default_value_t = 2000)]
    jobs: usize,
    /// In which time they are published.
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
    /// Seed of the schedule.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Worker processes.
    #[arg(long, default_value_t = 3)]
    workers: usize,
    /// Jobs that each evaluates at a time.
    #[arg(long, default_value_t = 2)]
    slots: usize,
    /// Jobs of the linear model that each holds at a time; as many as slots unless told otherwise.
    /// What it holds may be evaluated and not settled when it dies, so this bounds extra executions.
    #[arg(long)]
    prefetch: Option<usize>,
    /// Jobs of a hundred that nobody can do.
    #[arg(long, default_value_t = 1.0)]
    poison: f64,
    /// Let half of the jobs be of a model with bootstraps, of a second tenant.
    #[arg(long)]
    trees: bool,
    /// Rehearse: the other jobs are of a model of the clear engine, which encrypts nothing, so that all
    /// time goes into the queue, the store and the worker's own work.
    #[arg(long)]
    clear: bool,
    /// The faults; when none is named, a bit of everything.
    #[command(flatten)]
    faults: Amounts,
}

#[derive(Args)]
struct BridgeOptions {
    /// Events in all.
    #[arg(long, default_value_t = 2000)]
    events: usize,
    /// In which time they are published.
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
    /// Seed of the schedule.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Kills in all: of the bridge, a worker, the fleet's broker, its store and the owner's broker, in
    /// equal parts.
    #[arg(long, default_value_t = 20)]
    kills: usize,
    /// Worker processes.
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// Events of a hundred that have no features, and must be dead letters.
    #[arg(long, default_value_t = 1.0)]
    unreadable: f64,
    /// The program `cipherscore`; if not given, the one beside this program.
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        ChaosCommand::Run(options) => start(&options),
        ChaosCommand::Bridge(options) => start_with_bridge(options),
        ChaosCommand::Worker(options) => worker::run(&options),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(options: &RunOptions) -> anyhow::Result<ExitCode> {
    ensure!(options.jobs >= 100, "at least 100 jobs, so that faults have something to hit");
    ensure!(options.minutes > 0.0, "some minutes");
    let mut owners = vec![match options.clear {
        true => Owner::rehearsing("ann")?,
        false => Owner::open("ann", "breast_cancer_logistic_regression")?,
    }];
    if options.trees {
        owners.push(Owner::open("bob", "iris_decision_tree")?);
    }
    let faults = match options.faults.is_nothing() {
        true => Amounts::for_minutes(options.minutes),
        false => options.faults,
    };
    let plan = RunPlan {
        program: std::env::current_exe()?,
        owners,
        pace: Pace {
            jobs: options.jobs,
            time: Duration::from_secs_f64(60.0 * options.minutes),
            poison_percent: options.poison,
            seed: options.seed,
        },
        workers: options.workers,
        slots: options.slots,
        prefetch: options.prefetch.unwrap_or(options.slots),
        faults,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = runtime.block_on(run(plan))?;
    println!("{report}");
    Ok(judge(&report.violations()))
}

fn start_with_bridge(options: BridgeOptions) -> anyhow::Result<ExitCode> {
    ensure!(options.events >= 100, "at least 100 events, so that kills have something to hit");
    ensure!(options.minutes > 0.0, "some minutes");
    let ours = std::env::current_exe()?;
    let program = options.program.unwrap_or_else(|| ours.with_file_name("cipherscore"));
    let missing = "is missing: cargo build --release -p cipherscore, or name it by --program";
    ensure!(program.is_file(), "{} {missing}", program.display());
    let plan = BridgePlan {
        program,
        pace: EventPace {
            events: options.events,
            time: Duration::from_secs_f64(60.0 * options.minutes),
            unreadable_percent: options.unreadable,
            seed: options.seed,
        },
        workers: options.workers,
        kills: options.kills,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = runtime.block_on(run_with_bridge(plan))?;
    match options.json {
        true => println!("{}", serde_json::to_string_pretty(&report)?),
        false => println!("{report}"),
    }
    Ok(judge(&report.violations()))
}

/// Says what must not be, if anything is.
fn judge(violations: &[String]) -> ExitCode {
    violations.iter().for_each(|violation| eprintln!("violated: {violation}"));
    if violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
