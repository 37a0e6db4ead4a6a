//! The acts with models that Concrete ML compiled.

use anyhow::ensure;
use cipherscore_common::broker::Broker;
use cipherscore_common::{ModelId, Store};
use cipherscore_producer::client::Client;
use cipherscore_producer::matrix::Matrix;
use serde::Serialize;

use super::examples::Example;
use super::jobs::{Keys, Received, make_keys, publish, receive};
use super::printer::{Printer, brief, scores_text};
use crate::commands::size;
use crate::progress;

/// Rows of a job: one job shows how rows travel together, many show how jobs do.
const ROWS_PER_JOB: usize = 10;
/// Rows that are printed.
const SHOWN_ROWS: usize = 5;
/// Scores that differ by less are equal: the last place of a floating-point number.
const SAME: f64 = 1e-12;

/// What was done with one model.
#[derive(Serialize)]
pub(super) struct Act {
    model: String,
    model_id: ModelId,
    pub(super) rows: usize,
    jobs: usize,
    client_key_seconds: f64,
    evaluation_key_bytes: usize,
    evaluation_key_stored_seconds: f64,
    clear_row_bytes: usize,
    encrypted_row_bytes: usize,
    reply_row_bytes: usize,
    encrypt_seconds_per_row: f64,
    bootstraps_per_row: usize,
    key_seconds: f64,
    evaluate_seconds_per_job: f64,
    round_trip_seconds: f64,
    workers: Vec<String>,
    pub(super) equal_rows: usize,
    right_labels: usize,
}

/// One model, from keys to scores.
pub(super) async fn act<B: Broker, S: Store>(
    client: &Client<B, S>,
    example: &Example,
    title: &str,
    print: &Printer,
) -> anyhow::Result<Act> {
    let (client_model, server) = (example.client()?, example.server()?);
    let bootstraps_per_row = server.circuit.optimise()?.circuit().cost().bootstraps;
    let model_id = example.model_id()?;
    let model = client_model.interface().class_name.clone();
    let features = client_model.interface().features.count();
    let rows = example.rows(&client_model.interface().features)?;
    print.title(title);
    print.fact("model", format!("{model}, {bootstraps_per_row} bootstraps a row, id {model_id}"));
    let keys = make_keys(client, client_model, print.json).await?;
    print.fact("keys", keys_text(&keys));

    let sent = publish(client, &keys, &rows, ROWS_PER_JOB, model_id).await?;
    let clear_row_bytes = 8 * features;
    let encrypted_row_bytes = sent.bytes / rows.len();
    print.fact(
        "published",
        format!(
            "{} jobs, {} rows; a row of {clear_row_bytes} B becomes {} of ciphertext in {:.2} ms",
            sent.jobs.len(),
            rows.len(),
            size(encrypted_row_bytes),
            1e3 * sent.encrypt_seconds / rows.len() as f64
        ),
    );

    let bar = progress::bar(print.json, rows.len() as u64, "rows");
    let received = receive(client, &*keys.encryption, &sent, bar).await?;
    let job_seconds = received.evaluate.as_secs_f64() / sent.jobs.len() as f64;
    let reply_row_bytes = received.bytes / rows.len();
    print.fact("evaluated", evaluated_text(&keys, &received, job_seconds));
    print.fact("answered", answered_text(&received, reply_row_bytes));

    let verdict = compare(example, &received.scores, print)?;
    Ok(Act {
        model,
        model_id,
        rows: rows.len(),
        jobs: sent.jobs.len(),
        client_key_seconds: keys.make_seconds,
        evaluation_key_bytes: keys.evaluation_key_bytes,
        evaluation_key_stored_seconds: keys.store_seconds,
        clear_row_bytes,
        encrypted_row_bytes,
        reply_row_bytes,
        encrypt_seconds_per_row: sent.encrypt_seconds / rows.len() as f64,
        bootstraps_per_row,
        key_seconds: received.key.as_secs_f64(),
        evaluate_seconds_per_job: job_seconds,
        round_trip_seconds: received.round_trip_seconds,
        workers: received.workers,
        equal_rows: verdict.equal,
        right_labels: verdict.right,
    })
}

fn keys_text(keys: &Keys) -> String {
    match keys.key_id {
        Some(_) => format!(
            "made in {:.2} s; evaluation key of {} stored in {:.2} s",
            keys.make_seconds,
            size(keys.evaluation_key_bytes),
            keys.store_seconds
        ),
        None => "made; a linear model needs no evaluation key".into(),
    }
}

fn evaluated_text(keys: &Keys, received: &Received, job_seconds: f64) -> String {
    let (job, workers) = (brief(job_seconds), received.workers.join(" and "));
    let key = match keys.key_id {
        Some(_) => {
            let seconds = brief(received.key.as_secs_f64());
            format!("; evaluation key fetched and prepared in {seconds}")
        }
        None => String::new(),
    };
    format!("{job} a job of {ROWS_PER_JOB} rows, by {workers}{key}")
}

fn answered_text(received: &Received, row_bytes: usize) -> String {
    format!(
        "{} of ciphertext a row; all rows in {:.2} s",
        size(row_bytes),
        received.round_trip_seconds
    )
}

struct Verdict {
    equal: usize,
    right: usize,
}

/// Encrypted predictions beside clear ones.
fn compare(example: &Example, scores: &[Vec<f64>], print: &Printer) -> anyhow::Result<Verdict> {
    let (clear, labels): (Matrix<f64>, _) = (example.clear()?, example.labels()?);
    ensure!(scores.len() == clear.len() && clear.len() == labels.len(), "not a score for each row");
    let class = |scores: &[f64]| example.classes[most_probable(scores)];
    let same = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() <= SAME);
    let clear: Vec<_> = clear.rows().collect();
    let width = scores_text(clear[0]).len();
    print.line(&format!(
        "  row  {:width$}  {:width$}  {:12} really",
        "encrypted", "clear", "predicted"
    ));
    for (row, score) in scores.iter().enumerate().take(SHOWN_ROWS) {
        let (score_text, clear_text) = (scores_text(score), scores_text(clear[row]));
        let (predicted, really) = (class(score), labels[row]);
        print
            .line(&format!("  {:3}  {score_text}  {clear_text}  {predicted:12} {really}", row + 1));
    }
    let rows = scores.iter().zip(&clear);
    let equal = rows.filter(|(score, clear)| same(score, clear)).count();
    let predictions = scores.iter().zip(labels);
    let right = predictions.filter(|(score, label)| class(score) == *label).count();
    print.line(&format!(
        "  {equal} of {} rows equal the clear prediction; {right} are what they really are",
        scores.len()
    ));
    Ok(Verdict { equal, right })
}

/// Position of the largest score.
pub(super) fn most_probable(scores: &[f64]) -> usize {
    (0..scores.len()).max_by(|a, b| scores[*a].total_cmp(&scores[*b])).unwrap_or_default()
}
