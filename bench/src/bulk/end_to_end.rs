//! A file of rows through RabbitMQ, Redis and a worker, by the programs that people run.

use super::setting::Setting;
use super::subjects::Subject;
use super::{Amount, one_row};
use crate::machine::peak_memory;
use crate::table::{Table, Target};
use crate::workers::{WORKER, program};

/// The package of the command line, and its program.
const CLI: &str = "cipherscore";
/// Written scores and the clear ones are rounded: the clear ones to single precision.
const ROUNDING: f64 = 1e-6;

#[tokio::main]
pub(super) async fn measure(
    subject: &Subject,
    amount: &Amount,
    table: &mut Table,
) -> anyhow::Result<()> {
    let (worker, cli) = (program(WORKER, "")?, program(CLI, "")?);
    eprintln!("starting RabbitMQ and Redis");
    let setting = Setting::new(subject, worker).await?;
    setting.write(subject, amount.scored_rows)?;
    eprintln!("end to end: {} rows", amount.scored_rows);
    let watch = setting.watch();
    let mut values: [Vec<f64>; 6] = Default::default();
    for _ in 0..amount.repetitions {
        let before = setting.traffic()?;
        let scored = setting.score(&cli)?;
        let after = setting.traffic()?;
        let rows = amount.scored_rows as f64;
        values[0].push(rows / scored.seconds);
        values[1].push(peak_memory(setting.worker.id())? / 1e6);
        values[2].push(scored.peak_bytes / 1e6);
        values[3].push((after[0] - before[0]) / rows);
        values[4].push((after[1] - before[1]) / rows);
        values[5].push(setting.largest_difference(amount.scored_rows)?);
    }
    let others = watch.others();
    let [rate, worker, producer, written, read, difference] = values;
    let name = |what: &str| format!("{}, end to end: {what}", subject.name);
    table.add(name("rate"), "rows/s", rate, Some(Target::AtLeast(30_000.0)), others);
    let memory = Some(Target::AtMost(1024.0 * 1.048_576));
    table.add(name("peak memory of the worker"), "MB", worker, memory, others);
    table.add(name("peak memory of the producer"), "MB", producer, memory, others);
    table.add(name("written to the store"), "B/row", written, None, others);
    table.add(name("read from the store"), "B/row", read, None, others);
    let bound = 1e6 * score_bound(subject);
    let difference = difference.into_iter().map(|value| 1e6 * value).collect();
    let bound = Some(Target::AtMost(bound));
    table.add(name("largest difference of a score"), "millionths", difference, bound, others);
    one_row::measure(subject, &setting, amount, table).await?;
    setting.worker.end()
}

/// Rounding moves the raw output; a sigmoid is a quarter as steep at most.
fn score_bound(subject: &Subject) -> f64 {
    subject.compiled.report.raw_error[0] / 4.0 + ROUNDING
}
