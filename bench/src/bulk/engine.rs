//! Uploads to replies on one thread, and where the time goes.

use std::num::NonZeroUsize;
use std::sync::Arc;

use cipherscore_engine::bulk::evaluator::BulkPart;
use cipherscore_engine::bulk::kernel::Kernel;
use cipherscore_engine::evaluator::PreparedKey;
use parking_lot::Mutex;

use super::scoring::evaluate;
use super::subjects::Subject;
use super::{Amount, rows_per_second};
use crate::machine::Watch;
use crate::numbers::Numbers;
use crate::part_clock::PartClock;
use crate::table::{Table, Target, median};

/// Rows of an upload: full ring batches, and at least so many.
const UPLOAD_ROWS: usize = 8192;

/// Parts, in the order in which a block meets them.
const PARTS: [(BulkPart, &str); 5] = [
    (BulkPart::Unpack, "unpacking"),
    (BulkPart::Masks, "masks"),
    (BulkPart::Kernel, "kernel"),
    (BulkPart::Sanitise, "sanitising"),
    (BulkPart::Switch, "switching and packing"),
];

/// Median of rows a second of the best kernel. Best kernel, portable kernel and parts in turn.
pub(super) fn measure(
    subject: &Subject,
    amount: &Amount,
    table: &mut Table,
) -> anyhow::Result<f64> {
    let rows = UPLOAD_ROWS.next_multiple_of(subject.dimension());
    let upload = subject.encryption.encrypt(&subject.rows(rows, &mut Numbers::new(2)))?.body;
    let best = subject.evaluator(Kernel::best(), NonZeroUsize::MIN)?;
    let portable = subject.evaluator(Kernel::portable(), NonZeroUsize::MIN)?;
    let key = subject.prepared(&best)?;
    let watch = Watch::start(Vec::new());
    let mut rates: [Vec<f64>; 2] = Default::default();
    let mut parts: [Vec<f64>; PARTS.len()] = Default::default();
    evaluate(&best, key.as_ref(), rows, &upload)?;
    for _ in 0..amount.repetitions {
        for (rates, evaluator) in rates.iter_mut().zip([&best, &portable]) {
            rates.push(rows_per_second(rows, amount.least, || {
                evaluate(evaluator, key.as_ref(), rows, &upload).map(drop)
            })?);
        }
        for (parts, ns) in parts.iter_mut().zip(split(subject, key.as_ref(), rows, &upload)?) {
            parts.push(ns);
        }
    }
    let others = watch.others();
    let name = |what: &str| format!("{}: {what}", subject.name);
    let whole: Vec<_> = rates[0].iter().map(|rate| 1e9 / rate).collect();
    let sums = (0..amount.repetitions).map(|at| parts.iter().map(|part| part[at]).sum::<f64>());
    let shares = sums.zip(&whole).map(|(sum, whole)| 100.0 * sum / whole).collect();
    let rate = median(&rates[0]);
    let kernels = [Kernel::best(), Kernel::portable()];
    for ((rates, kernel), target) in rates.into_iter().zip(kernels).zip([subject.target, None]) {
        let what = format!("engine, one thread, {}", kernel.name());
        table.add(name(&what), "rows/s", rates, target.map(Target::AtLeast), others);
    }
    table.add(name("whole"), "ns/row", whole, None, others);
    for ((_, part), values) in PARTS.iter().zip(parts).filter(|(_, values)| median(values) > 0.0) {
        table.add(name(part), "ns/row", values, None, others);
    }
    table.add(name("parts together, of the whole"), "%", shares, None, others);
    Ok(rate)
}

/// Nanoseconds a row of each of [`PARTS`], in one evaluation.
fn split(
    subject: &Subject,
    key: Option<&Arc<PreparedKey>>,
    rows: usize,
    upload: &[u8],
) -> anyhow::Result<[f64; PARTS.len()]> {
    let clock = Arc::new(Mutex::new(PartClock::new()));
    let watch = Arc::clone(&clock);
    let evaluator = subject.watched(move |part| watch.lock().begin(part))?;
    evaluate(&evaluator, key, rows, upload)?;
    let times = std::mem::replace(&mut *clock.lock(), PartClock::new()).finish();
    let ns = |part| 1e9 * times.get(&part).copied().unwrap_or_default().as_secs_f64();
    Ok(PARTS.map(|(part, _)| ns(part) / rows as f64))
}
