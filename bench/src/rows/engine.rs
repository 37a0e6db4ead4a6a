//! One row after the other on one thread, and where the time goes.

use std::collections::HashMap;
use std::time::Instant;

use cipherscore_engine::evaluator::Evaluator;
use cipherscore_engine::rows::client::ReplyCounts;
use cipherscore_engine::rows::evaluate::RowPart;
use cipherscore_engine::rows::kernel::Kernel;

use super::shapes::Subject;
use super::{Amount, ONE_ROW};
use crate::machine::Watch;
use crate::part_clock::PartClock;
use crate::table::{Table, Target, median};

/// Parts, in the order in which a row meets them first.
const PARTS: [(RowPart, &str); 7] = [
    (RowPart::Unpack, "unpack"),
    (RowPart::Weights, "weights"),
    (RowPart::Expand, "trace and expansion"),
    (RowPart::Transforms, "transforms of weights"),
    (RowPart::Products, "products"),
    (RowPart::Sanitise, "encryptions of zero"),
    (RowPart::Switch, "flood and words"),
];

/// Medians of rows, in milliseconds; best kernel, portable kernel and data owner in turn. Every row is
/// checked.
pub(super) fn measure(subject: &Subject, amount: &Amount, table: &mut Table) -> anyhow::Result<()> {
    let kernels = [Kernel::best(), Kernel::portable()];
    let evaluators = [subject.evaluator(kernels[0])?, subject.evaluator(kernels[1])?];
    let key = evaluators[0].prepare(subject.key.clone())?;
    let watch = Watch::start(Vec::new());
    let mut times: [Vec<f64>; 2] = Default::default();
    let mut parts: HashMap<RowPart, Vec<f64>> = HashMap::new();
    let [mut encryption, mut decryption] = [Vec::new(), Vec::new()];
    let mut sizes = (0, 0);
    for repetition in 0..amount.repetitions {
        let mut rows: [Vec<f64>; 2] = Default::default();
        let mut parts_of_rows: HashMap<RowPart, Vec<f64>> = HashMap::new();
        let [mut encrypt, mut decrypt] = [Vec::new(), Vec::new()];
        for seed in 0..amount.rows {
            let row = subject.row((repetition * amount.rows + seed) as u64);
            let started = Instant::now();
            let upload = subject.client.encrypt(&[&row], &ReplyCounts::default())?;
            encrypt.push(milliseconds(started));
            for (which, evaluator) in evaluators.iter().enumerate() {
                let mut clock = PartClock::new();
                let part = &mut |part| clock.begin(part);
                let started = Instant::now();
                let reply = evaluator.evaluate_watched(&key, ONE_ROW, &upload.bytes, part)?;
                rows[which].push(milliseconds(started));
                if which == 0 {
                    for (part, time) in clock.finish() {
                        parts_of_rows.entry(part).or_default().push(1e3 * time.as_secs_f64());
                    }
                }
                let started = Instant::now();
                subject.require_exact(&row, &upload, &reply)?;
                decrypt.push(milliseconds(started));
                sizes = (upload.bytes.len(), reply.len());
            }
        }
        times.iter_mut().zip(rows).for_each(|(times, rows)| times.push(median(&rows)));
        for (part, rows) in parts_of_rows {
            parts.entry(part).or_default().push(median(&rows));
        }
        encryption.push(median(&encrypt));
        decryption.push(median(&decrypt));
    }
    let others = watch.others();
    let name = |what: &str| format!("{}: {what}", subject.shape.name);
    let planned = subject.planned_milliseconds();
    let shares = times[0].iter().map(|time| 100.0 * planned / time).collect();
    table.add(name("planned time, of the measured"), "%", shares, None, others);
    for ((times, kernel), target) in
        times.into_iter().zip(kernels).zip([subject.shape.target, None])
    {
        let what = format!("one row, one thread, {}", kernel.name());
        table.add(name(&what), "ms", times, target.map(Target::AtMost), others);
    }
    for (part, what) in PARTS {
        let values = parts.remove(&part).unwrap_or_default();
        table.add(name(what), "ms", values, None, others);
    }
    table.add(name("data owner, encryption"), "ms", encryption, None, others);
    table.add(name("data owner, decryption"), "ms", decryption, None, others);
    for (what, bytes) in [("upload", sizes.0), ("reply", sizes.1)] {
        table.add(name(what), "bytes", vec![bytes as f64], None, others);
    }
    Ok(())
}

/// Since then.
pub(super) fn milliseconds(since: Instant) -> f64 {
    1e3 * since.elapsed().as_secs_f64()
}
