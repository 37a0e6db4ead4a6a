//! The act with a model that cipherscore compiled, and Concrete ML's circuit beside it.

use anyhow::ensure;
use cipherscore_artifact::model::{FormChoice, model_in_form};
use cipherscore_common::broker::Broker;
use cipherscore_common::{FormName, ModelId, Store};
use cipherscore_producer::client::Client;
use cipherscore_producer::matrix::Matrix;
use serde::Serialize;

use super::beside::{CIRCUIT, OneRow};
use super::bulk_example::{self, BulkExample, CLASSES};
use super::circuits::most_probable;
use super::jobs::{Received, Sent, make_keys, publish, receive};
use super::printer::{Printer, brief, grouped, scores_text, whole};
use crate::commands::size;
use crate::progress;

/// Full jobs: enough that the way of one does not show.
const JOBS: usize = 4;
/// Rows that are printed.
const SHOWN_ROWS: usize = 5;

/// What was done with the model.
#[derive(Serialize)]
pub(super) struct Act {
    model: String,
    model_id: ModelId,
    compile_seconds: f64,
    columns: u32,
    ring_dimension: u32,
    primes: u32,
    security_bits: u32,
    hidden: bool,
    pub(super) rows: usize,
    jobs: usize,
    key_made_seconds: f64,
    evaluation_key_bytes: usize,
    upload_bytes_per_row: f64,
    reply_bytes_per_row: f64,
    encrypt_seconds_per_row: f64,
    evaluate_seconds_per_row: f64,
    round_trip_seconds: f64,
    rows_per_second: f64,
    workers: Vec<String>,
    bound: f64,
    largest_difference: f64,
    pub(super) rows_within_bound: usize,
    equal_labels: usize,
    right_labels: usize,
    first_scores: Vec<f64>,
    /// Concrete ML's model of the same constructor and data: other trees, since it trains on
    /// quantised features.
    pub(super) concrete_circuit: OneRow,
}

/// From keys to scores, then one row of Concrete ML's.
pub(super) async fn act<B: Broker, S: Store>(
    client: &Client<B, S>,
    example: &BulkExample,
    title: &str,
    print: &Printer,
) -> anyhow::Result<Act> {
    let report = &example.compiled.report;
    let model = model_in_form(example.client()?, FormChoice::Only(FormName::Bulk), 1)?.it;
    let test_rows = bulk_example::rows(&model.interface().features)?;
    let rows_per_job = model.rows_per_job(None).get() as usize;
    let rows = repeated(&test_rows, JOBS * rows_per_job);
    print.title(title);
    describe(example, print);
    let keys = make_keys(client, model, print.json).await?;
    print.fact("keys", keys.text());

    let sent = publish(client, &keys, &rows, rows_per_job, example.model_id).await?;
    let count = rows.len() as f64;
    print.fact("published", published_text(&sent, &test_rows, &rows));
    let bar = progress::bar(print.json, rows.len() as u64, "rows");
    let received = receive(client, &*keys.encryption, &sent, bar).await?;
    let evaluate_seconds_per_row = received.evaluate.as_secs_f64() / count;
    print.fact(
        "evaluated",
        format!("in {} a row, by {}", brief(evaluate_seconds_per_row), received.workers.join(", ")),
    );
    print.fact("answered", answered_text(&received, rows.len()));
    let verdict = compare(&received.scores, example.bound(), print)?;

    let act = Act {
        model: report.class_name.clone(),
        model_id: example.model_id,
        compile_seconds: example.compile_seconds,
        columns: report.columns,
        ring_dimension: report.ring_dimension,
        primes: report.primes,
        security_bits: report.security_bits,
        hidden: report.hidden,
        rows: rows.len(),
        jobs: sent.jobs.len(),
        key_made_seconds: keys.make_seconds,
        evaluation_key_bytes: keys.evaluation_key_bytes,
        upload_bytes_per_row: sent.bytes as f64 / count,
        reply_bytes_per_row: received.bytes as f64 / count,
        encrypt_seconds_per_row: sent.encrypt_seconds / count,
        evaluate_seconds_per_row,
        round_trip_seconds: received.round_trip_seconds,
        rows_per_second: count / received.round_trip_seconds,
        workers: received.workers,
        bound: example.bound(),
        largest_difference: verdict.largest_difference,
        rows_within_bound: verdict.within,
        equal_labels: verdict.equal_labels,
        right_labels: verdict.right_labels,
        first_scores: received.scores[0].clone(),
        concrete_circuit: CIRCUIT.score(client, rows.part(0, 1).values(), print).await?,
    };
    act.print_beside(print);
    Ok(act)
}

/// So many rows: those that are there, again and again.
fn repeated(rows: &Matrix<f64>, count: usize) -> Matrix<f64> {
    let values = rows.values().iter().copied().cycle().take(count * rows.width());
    Matrix::new(rows.width(), values.collect())
}

fn describe(example: &BulkExample, print: &Printer) {
    let report = &example.compiled.report;
    print.fact("model", format!("{}, id {}", report.class_name, example.model_id));
    let hidden = if report.hidden { "the model is hidden" } else { "the model is not hidden" };
    print.fact(
        "compiled",
        format!(
            "in {}: {} columns, N = {}, {} primes, security {} bits; {hidden}; a row takes {} up, \
             {} down",
            brief(example.compile_seconds),
            report.columns,
            report.ring_dimension,
            report.primes,
            report.security_bits,
            size(whole(report.upload_bytes_per_row)),
            size(whole(report.reply_bytes_per_row))
        ),
    );
}

fn published_text(sent: &Sent, test_rows: &Matrix<f64>, rows: &Matrix<f64>) -> String {
    format!(
        "{} jobs, {} rows: {} rows again and again; a row of {} B becomes {} in {}",
        sent.jobs.len(),
        grouped(rows.len()),
        test_rows.len(),
        8 * rows.width(),
        size(whole(sent.bytes as f64 / rows.len() as f64)),
        brief(sent.encrypt_seconds / rows.len() as f64)
    )
}

fn answered_text(received: &Received, rows: usize) -> String {
    let seconds = received.round_trip_seconds;
    format!(
        "{} a row; all rows encrypted, scored and decrypted in {seconds:.2} s: {} rows a second",
        size(whole(received.bytes as f64 / rows as f64)),
        grouped(whole(rows as f64 / seconds))
    )
}

struct Verdict {
    within: usize,
    largest_difference: f64,
    equal_labels: usize,
    right_labels: usize,
}

/// Encrypted scores beside XGBoost's own, which begin again after the last row.
fn compare(scores: &[Vec<f64>], bound: f64, print: &Printer) -> anyhow::Result<Verdict> {
    let (clear, labels) = (bulk_example::clear()?, bulk_example::labels()?);
    ensure!(clear.len() == labels.len() && !labels.is_empty(), "not a label for each row");
    let clear: Vec<_> = clear.rows().collect();
    let width = scores_text(clear[0]).len();
    print.line(&format!("  row  {:width$}  {:width$}  predicted", "encrypted", "XGBoost"));
    let mut verdict =
        Verdict { within: 0, largest_difference: 0.0, equal_labels: 0, right_labels: 0 };
    for (row, score) in scores.iter().enumerate() {
        let (clear, label) = (clear[row % clear.len()], labels[row % labels.len()]);
        let difference = bulk_example::difference(score, clear);
        let class = most_probable(score);
        verdict.within += usize::from(difference <= bound);
        verdict.largest_difference = verdict.largest_difference.max(difference);
        verdict.equal_labels += usize::from(class == most_probable(clear));
        verdict.right_labels += usize::from(CLASSES[class] == label);
        if row < SHOWN_ROWS {
            let (score, clear) = (scores_text(score), scores_text(clear));
            print.line(&format!("  {:3}  {score}  {clear}  {}", row + 1, CLASSES[class]));
        }
    }
    print.line(&format!(
        "  {} of {} rows agree with XGBoost's scores to {bound:.1e} (largest difference {:.1e}); {} \
         have the same class",
        grouped(verdict.within),
        grouped(scores.len()),
        verdict.largest_difference,
        grouped(verdict.equal_labels)
    ));
    Ok(verdict)
}

impl Act {
    /// Both engines side by side.
    fn print_beside(&self, print: &Printer) {
        let circuit = &self.concrete_circuit;
        let line = |what: &str, bulk: &str, concrete: &str, ratio: &str| {
            let line = format!("  {what:24} {bulk:>14} {concrete:>14} {ratio:>16}");
            print.line(line.trim_end());
        };
        let seconds = |what: &str, bulk: f64, concrete: f64| {
            let ratio = format!("{} times", grouped(two_digits(concrete / bulk)));
            line(what, &brief(bulk), &brief(concrete), &ratio);
        };
        print.line("");
        print.line(&format!(
            "  Beside it one row of Concrete ML's circuit, {} bootstraps, by the same workers:",
            circuit.bootstraps
        ));
        line("", "in bulk", "Concrete ML", "ratio");
        let evaluate = self.evaluate_seconds_per_row;
        seconds("evaluation of a row", evaluate, circuit.evaluate_seconds);
        let whole_way = self.round_trip_seconds / self.rows as f64;
        seconds("whole way of a row", whole_way, circuit.whole_seconds);
        let (upload, reply) = (self.upload_bytes_per_row, self.reply_bytes_per_row);
        line("a row to the worker", &size(whole(upload)), &size(circuit.upload_bytes), "");
        line("its scores back", &size(whole(reply)), &size(circuit.reply_bytes), "");
        let keys = (size(self.evaluation_key_bytes), size(circuit.key_bytes));
        line("evaluation key", &keys.0, &keys.1, "");
        let scores = (scores_text(&self.first_scores), scores_text(&circuit.scores));
        line("scores of the first row", &scores.0, &scores.1, "");
        for note in NOTES {
            print.line(&format!("  {note}"));
        }
    }
}

/// A ratio to the digits that times of single runs have.
fn two_digits(ratio: f64) -> usize {
    let unit = 10_f64.powf((ratio.max(10.0).log10().floor() - 1.0).max(0.0));
    whole((ratio / unit).round() * unit)
}

/// What the comparison is, and what it is not.
const NOTES: [&str; 6] = [
    "Both are XGBClassifier(n_estimators=50, max_depth=4, random_state=0) on the same rows, but not",
    "the same trees: Concrete ML trains on quantised features. The bulk times are those of full jobs,",
    "several at a time and beside the encryption of the next, shared by their rows; a row alone takes",
    "as long as a full job. Concrete ML's circuit is evaluated by cipherscore here, which drops",
    "bootstraps that it does not need; docs/benchmarks.md has the time of Concrete ML's own server.",
    "Keys and their preparation are in neither time.",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_have_two_digits() {
        let ratios = [7.4, 12.6, 1_661_657.0];
        assert_eq!(ratios.map(two_digits), [7, 13, 1_700_000]);
    }
}
