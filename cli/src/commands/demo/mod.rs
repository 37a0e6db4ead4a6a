//! `cipherscore demo`

mod examples;
mod services;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use cipherscore_common::broker::Broker;
use cipherscore_common::topology::ReplyQueue;
use cipherscore_common::{Blob, EvaluationKeyId, JobId, Lease, ModelId, Store, Tenant};
use cipherscore_producer::client::{Answer, Client, ClientOptions, JobRequest};
use cipherscore_producer::events::Events;
use cipherscore_producer::matrix::Matrix;
use cipherscore_producer::model::Encryption;
use clap::Args;
use serde::Serialize;

use self::examples::{EXAMPLES, Example};
use self::services::{Embedded, Private, Services};
use super::{keygen, size};
use crate::print::say;
use crate::progress;

/// Rows of a job: one job shows how rows travel together, many show how jobs do.
const ROWS_PER_JOB: usize = 10;
/// Rows that are printed.
const SHOWN_ROWS: usize = 5;
/// How long a reply may take.
const REPLY_TIMEOUT: Duration = Duration::from_secs(120);
/// Scores that differ by less are equal: the last place of a floating-point number.
const SAME: f64 = 1e-12;

/// See all of it: real models score real rows under encryption, through a message queue.
///
/// The demo plays every part. A data owner makes keys, puts its evaluation key into the store,
/// encrypts rows and publishes jobs; workers evaluate them without seeing a value; the data owner
/// decrypts the replies and compares them with what Concrete ML predicts without encryption.
#[derive(Args)]
pub(crate) struct Demo {
    /// Use a real RabbitMQ and a real Redis, started privately, and two worker processes, instead
    /// of a broker, a store and a worker in this process. As root on Debian or Ubuntu, missing
    /// packages are installed, without starting system services.
    #[arg(long)]
    services: bool,
}

/// What was done with one model.
#[derive(Serialize)]
struct Act {
    model: String,
    model_id: ModelId,
    rows: usize,
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
    equal_rows: usize,
    right_labels: usize,
}

impl Demo {
    pub(crate) fn run(self, json: bool) -> anyhow::Result<()> {
        let models = tempfile::Builder::new().prefix("cipherscore-demo-").tempdir()?;
        for example in &EXAMPLES {
            example.write_to(models.path())?;
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let acts = runtime.block_on(self.play(models.path(), json))?;
        if json {
            say!("{}", serde_json::to_string_pretty(&acts)?);
        }
        Ok(())
    }

    async fn play(&self, models: &Path, json: bool) -> anyhow::Result<Vec<Act>> {
        if self.services {
            let mut services = Private::start(models, json)?;
            let ids: Vec<_> = EXAMPLES.iter().map(Example::model_id).collect::<Result<_, _>>()?;
            services.wait_for_workers(&ids).await?;
            return play(services, json).await;
        }
        play(Embedded::start(models).await?, json).await
    }
}

async fn play<V: Services>(mut services: V, json: bool) -> anyhow::Result<Vec<Act>> {
    let started = Instant::now();
    let print = Printer { json };
    print.line("Encrypted scoring through a message queue. Workers never see a value.");
    print.title("The services");
    services.describe().into_iter().for_each(|(what, text)| print.fact(what, text));

    let queue = ReplyQueue::new(&Tenant::default(), "demo")?;
    let (broker, store) = (Arc::new(services.broker()), Arc::new(services.store()));
    let options = ClientOptions::default();
    let client = Client::open(broker, store, queue, options, Events::ignored()).await?;
    let mut acts = Vec::new();
    for (number, example) in EXAMPLES.iter().enumerate() {
        let title = format!("Model {}: {}", number + 1, example.subject);
        acts.push(act(&client, example, &title, &print).await?);
    }
    services.end().await?;
    let rows: usize = acts.iter().map(|act| act.rows).sum();
    let equal: usize = acts.iter().map(|act| act.equal_rows).sum();
    print.line("");
    print.line(&format!(
        "{equal} of {rows} encrypted predictions equal the clear ones; done in {:.1} s.",
        started.elapsed().as_secs_f64()
    ));
    ensure!(equal == rows, "{} predictions are wrong", rows - equal);
    Ok(acts)
}

/// One model, from keys to scores.
async fn act<B: Broker, S: Store>(
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

    let started = Instant::now();
    let keys = keygen::generate(&*client_model, print.json)?;
    let client_key_seconds = started.elapsed().as_secs_f64();
    let encryption = client_model.with_key(&keys.client)?;
    let evaluation_key_bytes = keys.evaluation.as_ref().map_or(0, Vec::len);
    let started = Instant::now();
    let mut key_id = None;
    if let Some(evaluation_key) = keys.evaluation
        && encryption.model().interface().needs_key
    {
        let blob = Blob::evaluation_key(client.tenant(), evaluation_key)?;
        key_id = Some(EvaluationKeyId::new(blob.name().id));
        client.ensure_key(&blob, Lease::DEFAULT).await?;
    }
    let evaluation_key_stored_seconds = started.elapsed().as_secs_f64();
    print.fact(
        "keys",
        match key_id {
            Some(_) => format!(
                "made in {client_key_seconds:.2} s; evaluation key of {} stored in \
             {evaluation_key_stored_seconds:.2} s",
                size(evaluation_key_bytes)
            ),
            None => "made; a linear model needs no evaluation key".into(),
        },
    );

    let sent = publish(client, &*encryption, &rows, model_id, key_id).await?;
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

    let received = receive(client, &*encryption, &sent, print).await?;
    let (count, seconds) = (rows.len() as f64, received.evaluate.as_secs_f64());
    let job_seconds = seconds / sent.jobs.len() as f64;
    let mut evaluated = format!(
        "{} a job of {ROWS_PER_JOB} rows, by {}",
        brief(job_seconds),
        received.workers.join(" and ")
    );
    if key_id.is_some() {
        let key = brief(received.key.as_secs_f64());
        evaluated += &format!("; evaluation key fetched and prepared in {key}");
    }
    print.fact("evaluated", evaluated);
    let round_trip_seconds = sent.started.elapsed().as_secs_f64();
    let reply_row_bytes = received.bytes / rows.len();
    print.fact(
        "answered",
        format!(
            "{} of ciphertext a row; all rows in {round_trip_seconds:.2} s",
            size(reply_row_bytes)
        ),
    );

    let clear = example.clear()?;
    let labels = example.labels()?;
    let verdict = compare(example, &received.scores, &clear, &labels, print)?;
    Ok(Act {
        model,
        model_id,
        rows: rows.len(),
        jobs: sent.jobs.len(),
        client_key_seconds,
        evaluation_key_bytes,
        evaluation_key_stored_seconds,
        clear_row_bytes,
        encrypted_row_bytes,
        reply_row_bytes,
        encrypt_seconds_per_row: sent.encrypt_seconds / count,
        bootstraps_per_row,
        key_seconds: received.key.as_secs_f64(),
        evaluate_seconds_per_job: job_seconds,
        round_trip_seconds,
        workers: received.workers,
        equal_rows: verdict.equal,
        right_labels: verdict.right,
    })
}

/// Jobs that are under way, each with the number of its first row and how many it has.
struct Sent {
    started: Instant,
    jobs: HashMap<JobId, (usize, u32)>,
    bytes: usize,
    encrypt_seconds: f64,
}

async fn publish<B: Broker, S: Store>(
    client: &Client<B, S>,
    encryption: &dyn Encryption,
    rows: &Matrix<f64>,
    model_id: ModelId,
    key_id: Option<EvaluationKeyId>,
) -> anyhow::Result<Sent> {
    let (jobs, bytes, encrypt_seconds) = (HashMap::new(), 0, 0.0);
    let mut sent = Sent { started: Instant::now(), jobs, bytes, encrypt_seconds };
    for first in (0..rows.len()).step_by(ROWS_PER_JOB) {
        let chunk = rows.part(first, ROWS_PER_JOB);
        let started = Instant::now();
        let payload = tokio::task::block_in_place(|| encryption.encrypt(&chunk))?;
        sent.encrypt_seconds += started.elapsed().as_secs_f64();
        sent.bytes += payload.len();
        let (id, rows) = (JobId::random(), u32::try_from(chunk.len())?);
        sent.jobs.insert(id, (first, rows));
        let (deadline, correlation_id) = (None, None);
        let request = JobRequest { id, model_id, key_id, rows, deadline, correlation_id, payload };
        client.submit(request).await?;
    }
    Ok(sent)
}

/// What came back, in the order of the rows.
struct ReceivedScores {
    scores: Vec<Vec<f64>>,
    bytes: usize,
    key: Duration,
    evaluate: Duration,
    workers: Vec<String>,
}

async fn receive<B: Broker, S: Store>(
    client: &Client<B, S>,
    encryption: &dyn Encryption,
    sent: &Sent,
    print: &Printer,
) -> anyhow::Result<ReceivedScores> {
    let count: u32 = sent.jobs.values().map(|(_, rows)| rows).sum();
    let mut scores = vec![Vec::new(); count as usize];
    let (bytes, workers) = (0, Vec::new());
    let (key, evaluate) = (Duration::ZERO, Duration::ZERO);
    let bar = progress::bar(print.json, u64::from(count), "rows");
    let mut replies = client.replies();
    let mut received = ReceivedScores { scores: Vec::new(), bytes, key, evaluate, workers };
    for _ in 0..sent.jobs.len() {
        let next = tokio::time::timeout(REPLY_TIMEOUT, replies.next()).await;
        let mut reply = next.context("no reply came in time")??;
        let (first, rows) = sent.jobs[&reply.job];
        let outputs = match reply.take_answer() {
            Answer::Scored(outputs) => outputs,
            other => bail!("a job failed: {other:?}"),
        };
        let integers = tokio::task::block_in_place(|| encryption.decrypt(&outputs, rows))?;
        for (row, integers) in integers.rows().enumerate() {
            scores[first + row] = encryption.model().scores(integers)?;
        }
        received.bytes += outputs.len();
        received.key = received.key.max(reply.timings.key);
        received.evaluate += reply.timings.evaluate;
        if !received.workers.contains(&reply.worker) {
            received.workers.push(reply.worker.clone());
        }
        bar.inc(rows.into());
        reply.ack().await;
    }
    bar.finish_and_clear();
    received.workers.sort();
    Ok(ReceivedScores { scores, ..received })
}

struct Verdict {
    equal: usize,
    right: usize,
}

/// Encrypted predictions beside clear ones.
fn compare(
    example: &Example,
    scores: &[Vec<f64>],
    clear: &Matrix<f64>,
    labels: &[&str],
    print: &Printer,
) -> anyhow::Result<Verdict> {
    ensure!(scores.len() == clear.len() && clear.len() == labels.len(), "not a score for each row");
    let class = |scores: &[f64]| {
        let best = (0..scores.len()).max_by(|a, b| scores[*a].total_cmp(&scores[*b]));
        best.map_or("", |best| example.classes[best])
    };
    let text = |scores: &[f64]| {
        scores.iter().map(|score| format!("{score:.4}")).collect::<Vec<_>>().join(" ")
    };
    let same = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() <= SAME);
    let clear: Vec<_> = clear.rows().collect();
    let width = text(clear[0]).len();
    print.line(&format!(
        "  row  {:width$}  {:width$}  {:12} really",
        "encrypted", "clear", "predicted"
    ));
    for (row, score) in scores.iter().enumerate().take(SHOWN_ROWS) {
        let (score_text, clear_text) = (text(score), text(clear[row]));
        let (predicted, really) = (class(score), labels[row]);
        print
            .line(&format!("  {:3}  {score_text}  {clear_text}  {predicted:12} {really}", row + 1));
    }
    let rows = scores.iter().zip(&clear);
    let equal = rows.filter(|(score, clear)| same(score, clear)).count();
    let predictions = scores.iter().zip(labels);
    let right = predictions.filter(|(score, label)| class(score) == **label).count();
    print.line(&format!(
        "  {equal} of {} rows equal the clear prediction; {right} are what they really are",
        scores.len()
    ));
    Ok(Verdict { equal, right })
}

/// Seconds as people read them.
fn brief(seconds: f64) -> String {
    if seconds < 1.0 { format!("{:.1} ms", 1e3 * seconds) } else { format!("{seconds:.2} s") }
}

/// Prints for people; with `--json`, only the report at the end is printed.
struct Printer {
    json: bool,
}

impl Printer {
    fn line(&self, line: &str) {
        if !self.json {
            say!("{line}");
        }
    }

    fn title(&self, title: &str) {
        self.line(&format!("\n{title}"));
    }

    fn fact(&self, what: &str, text: impl AsRef<str>) {
        self.line(&format!("  {what:10} {}", text.as_ref()));
    }
}
