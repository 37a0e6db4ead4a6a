//! The act with one event at a time: the same model as in bulk, in its form for single rows.

use std::sync::Arc;

use anyhow::Context;
use cipherscore_artifact::model::{FormChoice, model_in_form};
use cipherscore_common::broker::Broker;
use cipherscore_common::{FormName, Store};
use cipherscore_producer::client::Client;
use indicatif::ProgressBar;
use serde::Serialize;

use super::beside::OneRow;
use super::bulk_example::{self, BulkExample};
use super::jobs::{make_keys, publish, receive};
use super::printer::{Printer, brief, whole};
use crate::commands::size;

/// What is scored.
pub(super) const SUBJECT: &str = "the same 50 trees, one event at a time";
/// Rows, each of which is sent when the score of the one before is there.
const EVENTS: usize = 40;

/// What was done with the model.
#[derive(Serialize)]
pub(super) struct Act {
    pub(super) rows: usize,
    evaluation_key_bytes: usize,
    upload_bytes: usize,
    reply_bytes: usize,
    /// Of the first row, for which the worker fetches and prepares the key.
    first_seconds: f64,
    /// From a row in the clear to its score; the first row is not among them.
    median_seconds: f64,
    largest_seconds: f64,
    median_evaluate_seconds: f64,
    bound: f64,
    largest_difference: f64,
    pub(super) rows_within_bound: usize,
}

/// One row after the other.
pub(super) async fn act<B: Broker, S: Store>(
    client: &Client<B, S>,
    example: &BulkExample,
    circuit: &OneRow,
    title: &str,
    print: &Printer,
) -> anyhow::Result<Act> {
    let model = model_in_form(example.client()?, FormChoice::Only(FormName::Rows), 1)?.it;
    let test_rows = bulk_example::rows(&model.interface().features)?;
    let clear = bulk_example::clear()?;
    print.title(title);
    let keys = make_keys(client, Arc::clone(&model), print.json).await?;
    print.fact("keys", keys.text());

    let (mut whole_way, mut evaluations) = (Vec::new(), Vec::new());
    let (mut largest_difference, mut rows_within_bound) = (0.0_f64, 0);
    let (mut upload_bytes, mut reply_bytes, mut worker) = (0, 0, String::new());
    for (number, clear) in (0..EVENTS).zip(clear.rows()) {
        let row = test_rows.part(number, 1);
        let sent = publish(client, &keys, &row, 1, example.model_id).await?;
        let bar = ProgressBar::hidden();
        let received = receive(client, &*keys.encryption, &sent, bar).await?;
        whole_way.push(received.round_trip_seconds);
        evaluations.push(received.evaluate.as_secs_f64());
        (upload_bytes, reply_bytes) = (sent.bytes, received.bytes);
        worker = received.workers.into_iter().next().context("a row without a reply")?;
        let difference = bulk_example::difference(&received.scores[0], clear);
        largest_difference = largest_difference.max(difference);
        rows_within_bound += usize::from(difference <= example.bound());
    }
    let rows = whole_way.len();
    let first_seconds = whole_way.remove(0);
    let act = Act {
        rows,
        evaluation_key_bytes: keys.evaluation_key_bytes,
        upload_bytes,
        reply_bytes,
        first_seconds,
        median_seconds: median(&mut whole_way),
        largest_seconds: whole_way.last().copied().unwrap_or(0.0),
        median_evaluate_seconds: median(&mut evaluations[1..]),
        bound: example.bound(),
        largest_difference,
        rows_within_bound,
    };
    act.print(circuit, &worker, print);
    Ok(act)
}

/// Sorts what there is.
fn median(numbers: &mut [f64]) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(0.0)
}

impl Act {
    fn print(&self, circuit: &OneRow, worker: &str, print: &Printer) {
        let (up, down) = (size(self.upload_bytes), size(self.reply_bytes));
        print.fact("a row", format!("{up} to the worker, {down} back"));
        let evaluated = brief(self.median_evaluate_seconds);
        print.fact("evaluated", format!("in {evaluated} of one thread, by {worker}"));
        print.fact(
            "scored",
            format!(
                "in {} from row to score, at most {}, one after the other; the first, for which the \
                 worker fetched the key, in {}",
                brief(self.median_seconds),
                brief(self.largest_seconds),
                brief(self.first_seconds)
            ),
        );
        let times = whole(circuit.whole_seconds / self.median_seconds);
        let circuit = brief(circuit.whole_seconds);
        print.fact(
            "beside it",
            format!("Concrete ML's circuit took {circuit}: {times} times as long"),
        );
        print.line(&format!(
            "  {} of {} rows agree with XGBoost's scores to {:.1e} (largest difference {:.1e})",
            self.rows_within_bound, self.rows, self.bound, self.largest_difference
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut []), 0.0);
    }
}
