//! The data owner's part, the same for every kind of model: keys, jobs, replies.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use cipherscore_artifact::key_file::evaluation_key_of;
use cipherscore_common::broker::Broker;
use cipherscore_common::{Blob, EvaluationKeyId, JobId, Lease, ModelId, Store};
use cipherscore_producer::client::{Answer, Client, JobRequest};
use cipherscore_producer::matrix::Matrix;
use cipherscore_producer::model::{ClientModel, Encrypted, Encryption, Receipt};
use indicatif::ProgressBar;

use super::printer::brief;
use crate::commands::{keygen, size};

/// How long a reply may take.
const REPLY_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a store that runs on keeps a key of the demo.
const KEY_LEASE: Lease = Lease::days(1);

/// New keys for a model, the evaluation key in the store.
pub(super) struct Keys {
    pub(super) encryption: Arc<dyn Encryption>,
    pub(super) key_id: Option<EvaluationKeyId>,
    pub(super) evaluation_key_bytes: usize,
    pub(super) make_seconds: f64,
    pub(super) store_seconds: f64,
}

pub(super) async fn make_keys<B: Broker, S: Store>(
    client: &Client<B, S>,
    model: Arc<dyn ClientModel>,
    json: bool,
) -> anyhow::Result<Keys> {
    let started = Instant::now();
    let keys = tokio::task::block_in_place(|| keygen::generate(&*model, json))?;
    let make_seconds = started.elapsed().as_secs_f64();
    let encryption = model.with_key(&keys.client)?;
    let evaluation_key_bytes = keys.evaluation.as_ref().map_or(0, Vec::len);
    let started = Instant::now();
    let mut key_id = None;
    if let Some(evaluation_key) = keys.evaluation
        && encryption.model().interface().needs_key
    {
        let key = evaluation_key_of(&evaluation_key, encryption.model().form())?.to_vec();
        let blob = Blob::evaluation_key(client.tenant(), key)?;
        key_id = Some(EvaluationKeyId::new(blob.name().id));
        client.ensure_key(&blob, KEY_LEASE).await?;
    }
    let store_seconds = started.elapsed().as_secs_f64();
    Ok(Keys { encryption, key_id, evaluation_key_bytes, make_seconds, store_seconds })
}

impl Keys {
    /// What was made, for people.
    pub(super) fn text(&self) -> String {
        match self.key_id {
            Some(_) => format!(
                "made in {}; evaluation key of {} stored in {}",
                brief(self.make_seconds),
                size(self.evaluation_key_bytes),
                brief(self.store_seconds)
            ),
            None => "made; there is no evaluation key".into(),
        }
    }
}

/// A job that is under way.
#[derive(Clone, Copy)]
pub(super) struct SentJob {
    /// Number of its first row.
    first: usize,
    rows: u32,
    receipt: Option<Receipt>,
}

/// Jobs that are under way.
pub(super) struct Sent {
    pub(super) started: Instant,
    pub(super) jobs: HashMap<JobId, SentJob>,
    pub(super) bytes: usize,
    pub(super) encrypt_seconds: f64,
}

/// Encrypts rows and publishes them, so many in a job.
pub(super) async fn publish<B: Broker, S: Store>(
    client: &Client<B, S>,
    keys: &Keys,
    rows: &Matrix<f64>,
    rows_per_job: usize,
    model_id: ModelId,
) -> anyhow::Result<Sent> {
    let (jobs, bytes, encrypt_seconds) = (HashMap::new(), 0, 0.0);
    let mut sent = Sent { started: Instant::now(), jobs, bytes, encrypt_seconds };
    for first in (0..rows.len()).step_by(rows_per_job) {
        let chunk = rows.part(first, rows_per_job);
        let started = Instant::now();
        let encrypted = tokio::task::block_in_place(|| keys.encryption.encrypt(&chunk))?;
        let Encrypted { body: payload, receipt } = encrypted;
        sent.encrypt_seconds += started.elapsed().as_secs_f64();
        sent.bytes += payload.len();
        let (id, rows) = (JobId::random(), u32::try_from(chunk.len())?);
        sent.jobs.insert(id, SentJob { first, rows, receipt });
        let request = JobRequest {
            id,
            model_id,
            form: keys.encryption.model().form(),
            planned: None,
            key_id: keys.key_id,
            owner_id: keys.encryption.owner(),
            rows,
            deadline: None,
            correlation_id: None,
            payload,
        };
        client.submit(request).await?;
    }
    Ok(sent)
}

/// What came back, in the order of the rows.
pub(super) struct Received {
    pub(super) scores: Vec<Vec<f64>>,
    pub(super) bytes: usize,
    pub(super) key: Duration,
    /// Of all jobs together.
    pub(super) evaluate: Duration,
    pub(super) workers: Vec<String>,
    /// From the first row's encryption to the last one's score.
    pub(super) round_trip_seconds: f64,
}

/// Waits for all replies and decrypts them; `bar` goes on by their rows.
pub(super) async fn receive<B: Broker, S: Store>(
    client: &Client<B, S>,
    encryption: &dyn Encryption,
    sent: &Sent,
    bar: ProgressBar,
) -> anyhow::Result<Received> {
    let count: u32 = sent.jobs.values().map(|job| job.rows).sum();
    let (key, evaluate) = (Duration::ZERO, Duration::ZERO);
    let (bytes, workers, round_trip_seconds) = (0, Vec::new(), 0.0);
    let scores = vec![Vec::new(); count as usize];
    let mut received = Received { scores, bytes, key, evaluate, workers, round_trip_seconds };
    let mut replies = client.replies();
    for _ in 0..sent.jobs.len() {
        let next = tokio::time::timeout(REPLY_TIMEOUT, replies.next()).await;
        let mut reply = next.context("no reply came in time")??;
        let SentJob { first, rows, receipt } = sent.jobs[&reply.job];
        let outputs = match reply.take_answer() {
            Answer::Scored(outputs) => outputs,
            other => bail!("a job failed: {other:?}"),
        };
        let integers = tokio::task::block_in_place(|| encryption.decrypt(&outputs, rows, receipt))?;
        for (row, integers) in integers.rows().enumerate() {
            received.scores[first + row] = encryption.model().scores(integers)?;
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
    received.round_trip_seconds = sent.started.elapsed().as_secs_f64();
    Ok(received)
}
