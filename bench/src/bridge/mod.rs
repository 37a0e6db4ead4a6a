//! `cipherscore bridge` from end to end: events at a rate, the highest rate that it keeps up with, and
//! floods from lines to lines and from queue to queue, each against what it is compared with in the
//! same run.
//!
//! RabbitMQ, Redis, a worker process and the bridge are on this machine, and private to this command.
//! One RabbitMQ is the fleet's and the owner's.

mod example;
mod lines;
mod owner;
mod queues;
mod rates;
mod setting;

use std::path::PathBuf;
use std::time::Duration;

use self::example::KnownEvents;
use self::owner::{EVENTS, OwnersClient};
use self::rates::EventLoad;
use self::setting::BridgeSetting;
use crate::machine::Machine;
use crate::options::Options;
use crate::table::Table;
use crate::workers::program;

/// The package of the command line, and its program.
const CLI: &str = "cipherscore";

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    options: Options,
    /// Measure these parts only.
    #[arg(long, value_enum, value_name = "PART,..", value_delimiter = ',')]
    only: Vec<Part>,
    /// Events a second of the part `rate`.
    #[arg(long, value_name = "N", default_value_t = 100)]
    rate: u32,
    /// How long the part `rate` goes on.
    #[arg(long = "for", value_name = "TIME", default_value = "10m")]
    #[arg(value_parser = humantime::parse_duration)]
    time: Duration,
    /// How long each rate of the part `find-rate` goes on.
    #[arg(long, value_name = "TIME", default_value = "20s")]
    #[arg(value_parser = humantime::parse_duration)]
    step: Duration,
    /// Events of each flood.
    #[arg(long, value_name = "N", default_value_t = 200_000)]
    events: usize,
    /// Repetitions of each flood.
    #[arg(long, value_name = "N", default_value_t = 3)]
    repetitions: usize,
    /// The program `cipherscore`; if not given, the one beside this program, brought up to date first.
    #[arg(long, value_name = "FILE")]
    cipherscore: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Latencies at one rate.
    Rate,
    /// The highest rate at which the 99th percentile stays below 200 ms.
    FindRate,
    /// A flood of lines, against `cipherscore score` of the same rows.
    Lines,
    /// A flood from queue to queue, against a loop that publishes what it consumes.
    Queues,
}

/// How much is measured.
struct Amount {
    time: Duration,
    step: Duration,
    events: usize,
    repetitions: usize,
}

impl Amount {
    fn of(arguments: &Arguments) -> Self {
        match arguments.options.quick {
            true => Self {
                time: Duration::from_secs(5),
                step: Duration::from_secs(3),
                events: 5000,
                repetitions: 1,
            },
            false => Self {
                time: arguments.time,
                step: arguments.step,
                events: arguments.events,
                repetitions: arguments.repetitions,
            },
        }
    }
}

#[tokio::main]
pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let (machine, amount) = (Machine::here(), Amount::of(arguments));
    let cli = match &arguments.cipherscore {
        Some(cli) => std::path::absolute(cli)?,
        None => program(CLI, "")?,
    };
    let wants = |part| arguments.only.is_empty() || arguments.only.contains(&part);
    eprintln!("starting RabbitMQ, Redis and a worker");
    let setting = BridgeSetting::start(cli).await?;
    let mut table = Table::new(machine, amount.repetitions);
    if wants(Part::Rate) || wants(Part::FindRate) {
        let owner = OwnersClient::open(&setting.broker_url).await?;
        let mut load = EventLoad::open(&owner, KnownEvents::read()?).await?;
        let mut bridge = setting.start_bridge(&OwnersClient::sections(EVENTS))?;
        bridge.until_ready().await?;
        owner.expect_consumer(EVENTS).await?;
        load.warm_up().await?;
        if wants(Part::Rate) {
            let at = (arguments.rate, amount.time);
            rates::measure(&setting, &bridge, &mut load, at, &mut table).await?;
        }
        if wants(Part::FindRate) {
            let at = (arguments.rate, amount.step);
            rates::find(&setting, &bridge, &mut load, at, &mut table).await?;
        }
        bridge.end()?;
    }
    if wants(Part::Lines) {
        lines::measure(&setting, &KnownEvents::read()?, &amount, &mut table)?;
    }
    if wants(Part::Queues) {
        queues::measure(&setting, &amount, &mut table).await?;
    }
    match arguments.options.json {
        true => println!("{}", serde_json::to_string_pretty(&table)?),
        false => print!("{}", table.markdown()),
    }
    Ok(())
}
