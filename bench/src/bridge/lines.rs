//! A flood of lines through `cipherscore bridge`, and the same rows by `cipherscore score`, in turn.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use anyhow::ensure;

use super::Amount;
use super::example::{Answered, KnownEvents, numbers};
use super::setting::{BridgeSetting, Ran};
use crate::table::{Table, Target};

const NAME: &str = "flood of lines";
/// What a bridge is to do of the rows that `score` does in a second.
const TARGET: f64 = 0.5;

pub(super) fn measure(
    setting: &BridgeSetting,
    known: &KnownEvents,
    amount: &Amount,
    table: &mut Table,
) -> anyhow::Result<()> {
    let events = amount.events;
    let [lines, scores, rows, scored] =
        ["events.jsonl", "scores.jsonl", "rows.csv", "scores.csv"].map(|name| setting.path(name));
    let mut file = BufWriter::new(File::create(&lines)?);
    (0..events).try_for_each(|number| writeln!(file, "{}", known.event(number)))?;
    file.into_inner()?.sync_all()?;
    std::fs::write(&rows, known.csv(events))?;
    let watch = setting.watch(None);
    let (mut rates, mut of_bridge): ([Vec<f64>; 3], [Vec<f64>; 3]) = Default::default();
    for repetition in 1..=amount.repetitions {
        eprintln!("{NAME}: {events} events, repetition {repetition}");
        let before = setting.worker_seconds();
        let bridge = setting.bridge_lines(&lines, &scores)?;
        let after = setting.worker_seconds();
        require_scores(&scores, known, events)?;
        let score = setting.score(&rows, &scored)?;
        require_csv(&scored, known, events)?;
        let rate = |ran: &Ran| events as f64 / ran.seconds;
        let values = [rate(&bridge), rate(&score), rate(&bridge) / rate(&score)];
        rates.iter_mut().zip(values).for_each(|(rates, value)| rates.push(value));
        let micros = |seconds: f64| 1e6 * seconds / events as f64;
        let values =
            [micros(bridge.processor_seconds), micros(after - before), bridge.peak_bytes / 1e6];
        of_bridge.iter_mut().zip(values).for_each(|(all, value)| all.push(value));
    }
    // The bridge and `score` themselves are among the others: they are gone when it is looked.
    let others = watch.others();
    let name = |what: &str| format!("{NAME}, {events} events: {what}");
    let [bridge, score, ratio] = rates;
    table.add(name("bridge, from lines to lines"), "rows/s", bridge, None, others);
    table.add(name("score, from CSV to CSV"), "rows/s", score, None, others);
    let target = Some(Target::AtLeast(TARGET));
    table.add(name("bridge against score"), "times", ratio, target, others);
    let [bridge, worker, peak] = of_bridge;
    table.add(name("processor time of the bridge, an event"), "us", bridge, None, others);
    table.add(name("processor time of the worker, an event"), "us", worker, None, others);
    table.add(name("peak memory of the bridge"), "MB", peak, None, others);
    Ok(())
}

fn require_scores(path: &Path, known: &KnownEvents, events: usize) -> anyhow::Result<()> {
    let mut answered = Answered::none_of(events);
    for line in BufReader::new(File::open(path)?).lines() {
        answered.add(known.answered(line?.as_bytes())?)?;
    }
    answered.require_all()
}

fn require_csv(path: &Path, known: &KnownEvents, events: usize) -> anyhow::Result<()> {
    let mut rows = 0;
    for line in BufReader::new(File::open(path)?).lines().skip(1) {
        known.require(rows, &numbers(&line?)?)?;
        rows += 1;
    }
    ensure!(rows == events, "{rows} scores of {events} rows");
    Ok(())
}
