//! What a row costs in the row engine: the worker's side part by part, the data owner's, and bytes; and
//! on its way through the queue.
//!
//! Models are random trees of the shapes that libraries train; what a row costs depends on nothing
//! else.

mod engine;
#[cfg(feature = "prepared-rows")]
mod prepared;
mod round_trip;
mod shapes;

use std::num::NonZeroU32;

use self::shapes::{SHAPES, Subject};
use crate::machine::Machine;
use crate::options::Options;
use crate::table::Table;

/// How much is measured.
struct Amount {
    repetitions: usize,
    /// Rows of a repetition, of which the median is taken.
    rows: usize,
    /// Repetitions of each rate of events through the queue.
    round_trips: usize,
    /// Of each of them.
    seconds: u32,
}

const FULL: Amount = Amount { repetitions: 5, rows: 50, round_trips: 3, seconds: 60 };
const QUICK: Amount = Amount { repetitions: 1, rows: 3, round_trips: 1, seconds: 3 };

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    options: Options,
    /// Measure one part only.
    #[arg(long, value_enum)]
    only: Option<Part>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// The engine alone.
    Engine,
    /// Events through RabbitMQ, Redis and a worker process, all private to this command.
    Queue,
}

/// Every upload has one row.
const ONE_ROW: NonZeroU32 = NonZeroU32::MIN;

pub(crate) fn run(Arguments { options, only }: &Arguments) -> anyhow::Result<()> {
    let amount = if options.quick { QUICK } else { FULL };
    let mut table = Table::new(Machine::here(), amount.repetitions);
    let mut models = String::new();
    if *only != Some(Part::Queue) {
        models = engine(&amount, &mut table)?;
    }
    if *only != Some(Part::Engine) {
        round_trip::measure(&amount, &mut table)?;
    }
    match options.json {
        true => println!("{}", serde_json::to_string_pretty(&table)?),
        false => print!("{models}\n{}", table.markdown()),
    }
    Ok(())
}

/// The engine alone; describes the models.
fn engine(amount: &Amount, table: &mut Table) -> anyhow::Result<String> {
    let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
    let mut models = String::new();
    for shape in SHAPES {
        eprintln!("{}", shape.name);
        let subject = Subject::new(shape)?;
        models += &format!("* {}\n", subject.describe());
        one_thread.install(|| engine::measure(&subject, amount, table))?;
        #[cfg(feature = "prepared-rows")]
        one_thread.install(|| prepared::measure(&subject, amount, table))?;
    }
    Ok(models)
}
