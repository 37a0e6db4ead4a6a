//! Concrete ML's circuits in our engine and in Concrete ML's own server, in turn, on the same
//! `server.zip`, evaluation keys and ciphertexts, which the real client makes.
//!
//! The real client decrypts every output of both sides: its integers must be those that the clear
//! model computes, or the command fails.

mod catalogue;
mod measure;
mod ours;
mod peer;
mod report;

use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use cipherscore_concrete::recorder::RecorderCommand;
use clap::Args;

use self::peer::{Peer, Request, Versions};
use self::report::{Report, Result};
use crate::machine::Machine;
use crate::models::sources;
use crate::workers::{program, recorder};

/// Threads of either side.
const THREADS: usize = 2;
/// Rows that are encrypted; rounds take them in turn.
const ROWS: u32 = 64;
/// All rows are evaluated at most so often, together and one at a time.
const TOGETHER_ROUNDS: usize = 3;
/// The command line is started at most so often.
const COMMAND_LINE_ROUNDS: usize = 3;
/// The package of the command line, and its program.
const CLI: &str = "cipherscore";
/// Where trained models are kept, within the workspace.
const WORK: &str = "target/concrete-ml";
/// In place of what a model without bootstraps does not have.
const NONE: &str = "none";

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// A Python 3.11 that has concrete-ml: pip install concrete-ml==1.9.0.
    #[arg(long, value_name = "FILE")]
    python: PathBuf,
    /// Names of the models in bench/concrete_ml/models.json that are measured, instead of those
    /// that are marked there as default.
    #[arg(long, value_name = "NAME,..", value_delimiter = ',')]
    models: Vec<String>,
    /// Measure all models.
    #[arg(long, conflicts_with = "models")]
    all: bool,
    /// How often each side evaluates a row, instead of the model's own number.
    #[arg(long, value_name = "N")]
    rounds: Option<NonZeroUsize>,
    /// Where trained and compiled models are kept, so that the next run does not train them.
    #[arg(long, value_name = "FOLDER")]
    work: Option<PathBuf>,
    /// Train and compile only.
    #[arg(long)]
    train: bool,
    /// Print JSON instead of tables.
    #[arg(long)]
    json: bool,
}

/// What all models have in common.
struct Setting {
    python: PathBuf,
    cli: PathBuf,
    recorder: RecorderCommand,
    work: PathBuf,
    rounds: Option<NonZeroUsize>,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let machine = Machine::here();
    let models = catalogue::select(&options.models, options.all)?;
    let work = options.work.clone().unwrap_or_else(|| sources().join(WORK));
    std::fs::create_dir_all(&work).with_context(|| work.display().to_string())?;
    let mut peer = Peer::start(&options.python)?;
    let versions: Versions = peer.ask(&Request::Versions)?;
    if options.train {
        for model in &models {
            eprintln!("{}", model.name);
            measure::build(model, &work.join(&model.name), &mut peer)?;
        }
        return Ok(());
    }
    drop(peer);
    let cli = program(CLI, "")?;
    let setting = Setting {
        python: options.python.clone(),
        recorder: recorder(&cli),
        cli,
        work,
        rounds: options.rounds,
    };
    let outcomes = models.iter().map(|model| measure::measure(model, &setting));
    let models = outcomes.collect::<anyhow::Result<Vec<_>>>()?;
    let failed = models.iter().filter(|outcome| matches!(outcome.result, Result::Failed(_)));
    let failed = failed.count();
    let report = Report { machine, versions, threads: THREADS, models };
    match options.json {
        true => println!("{}", serde_json::to_string_pretty(&report)?),
        false => print!("{}", report.markdown()),
    }
    ensure!(failed == 0, "{failed} models failed");
    Ok(())
}
