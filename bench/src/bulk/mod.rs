//! What the bulk engine does in a second: engine and data owner alone, each on one thread, and a
//! file of rows from end to end through RabbitMQ, Redis and a worker process.

mod client;
mod comparison;
mod end_to_end;
mod engine;
mod exact;
mod one_row;
mod rows;
mod scoring;
mod setting;
mod subjects;
mod trained;

pub(crate) use self::rows::{Training, example, example_path};

use std::time::{Duration, Instant};

use serde::Serialize;

use self::comparison::Comparison;
use self::subjects::Subject;
use crate::machine::Machine;
use crate::options::Options;
use crate::table::Table;

/// How much is measured.
struct Amount {
    repetitions: usize,
    /// Each measurement of a rate goes on for so long.
    least: Duration,
    scored_rows: usize,
    one_row_jobs: usize,
    random_rows: usize,
}

const FULL: Amount = Amount {
    repetitions: 5,
    least: Duration::from_millis(400),
    scored_rows: 200_000,
    one_row_jobs: 20,
    random_rows: 1_000_000,
};

const QUICK: Amount = Amount {
    repetitions: 1,
    least: Duration::from_millis(20),
    scored_rows: 20_000,
    one_row_jobs: 5,
    random_rows: 20_000,
};

/// What is printed.
#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    table: Table,
    models: Vec<String>,
    comparisons: Vec<Comparison>,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let machine = Machine::here();
    let amount = if options.quick { QUICK } else { FULL };
    let mut table = Table::new(machine, amount.repetitions);
    eprintln!("compiling models");
    let subjects = subjects::all()?;
    let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
    let mut comparisons = Vec::new();
    for subject in &subjects {
        eprintln!("engine: {}", subject.name);
        let rate = one_thread.install(|| engine::measure(subject, &amount, &mut table))?;
        comparisons.extend(Comparison::of(subject, rate));
    }
    for subject in &subjects {
        eprintln!("data owner: {}", subject.name);
        one_thread.install(|| client::measure(subject, &amount, &mut table))?;
    }
    let hidden = &subjects[0];
    eprintln!("{} random rows", amount.random_rows);
    exact::measure(hidden, &amount, &mut table)?;
    end_to_end::measure(hidden, &amount, &mut table)?;
    let models = subjects.iter().map(Subject::describe).collect();
    let report = Report { table, models, comparisons };
    match options.json {
        true => println!("{}", serde_json::to_string_pretty(&report)?),
        false => print!("{}", report.markdown()),
    }
    Ok(())
}

impl Report {
    fn markdown(&self) -> String {
        let models: String = self.models.iter().map(|model| format!("* {model}\n")).collect();
        let comparisons = comparison::markdown(&self.comparisons);
        format!("{models}\n{}\n{comparisons}", self.table.markdown())
    }
}

/// How many rows a second, when `step` takes so many and is repeated for a while.
fn rows_per_second(
    rows: usize,
    least: Duration,
    mut step: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<f64> {
    let started = Instant::now();
    let mut steps = 0;
    while steps == 0 || started.elapsed() < least {
        step()?;
        steps += 1;
    }
    Ok((steps * rows) as f64 / started.elapsed().as_secs_f64())
}
