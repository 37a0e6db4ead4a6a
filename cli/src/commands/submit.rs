//! `cipherscore submit`

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use cipherscore_common::broker::Broker;
use cipherscore_common::message::Timestamp;
use cipherscore_common::topology::{Lane, ReplyQueue};
use cipherscore_common::{Blob, EvaluationKeyId, JobId, Lease, ModelId, Store};
use cipherscore_concrete::batch::write_batch;
use cipherscore_engine::parameters::MAX_EVALUATION_KEY_BYTES;
use cipherscore_producer::client::{Answer, Client, JobRequest};
use cipherscore_producer::events::{Event, Events};
use cipherscore_producer::files::{Access, write_atomically};
use cipherscore_producer::model::{read_rows_file, write_rows_file};
use cipherscore_producer::score::unique_client;
use clap::Args;
use serde::Serialize;

use super::services::ServiceOptions;
use super::store::wait;
use super::{printable, read_bounded, report, require_folder_of};
use crate::print::say;

/// Largest ciphertext file, in bytes.
const MAX_INPUT_BYTES: usize = 1 << 30;
/// Room for what Cap'n Proto adds around the keys, in bytes.
const KEY_STRUCTURE_BYTES: usize = 1 << 20;

/// Have rows evaluated that another program encrypted, and wait for their results.
///
/// Files of Concrete ML's models are in Concrete's own formats: what the real FHEModelClient
/// serialises goes in, what comes out it can decrypt, and each file is one row. Files of compiled
/// models hold many rows, as `encrypt` wrote them. Each file is one job, whose id goes to standard error when it is
/// published: `cipherscore cancel` takes it. Results that come after the time is over, or after
/// Ctrl-C, are lost with the reply queue, which the broker removes after a week: submit the rows
/// again.
///
/// Exit code: 0 all rows have results, 2 some have none, 1 an error.
#[derive(Args)]
pub(crate) struct Submit {
    /// Model id.
    #[arg(long, value_name = "ID")]
    model: ModelId,

    /// Serialised evaluation keys. Linear models need none.
    #[arg(long, value_name = "FILE")]
    evaluation_key: Option<PathBuf>,

    /// Encrypted rows.
    #[arg(long, value_name = "FILE", num_args = 1.., required = true)]
    input: Vec<PathBuf>,

    /// Where the encrypted results go, in the order of the inputs.
    #[arg(long, value_name = "FILE", num_args = 1.., required = true)]
    output: Vec<PathBuf>,

    /// How long to wait, after which workers leave the jobs alone: a number and d, h, m or s.
    #[arg(long, value_name = "TIME", default_value = "10m")]
    timeout: Lease,

    /// Queue of the model: high before normal.
    #[arg(long, value_name = "LANE")]
    lane: Option<Lane>,

    #[command(flatten)]
    services: ServiceOptions,
}

/// What came of one file.
#[derive(Debug, Clone, Serialize)]
struct Submitted {
    input: PathBuf,
    job: JobId,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    worker: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Submit {
    pub(crate) fn run(self, json: bool) -> anyhow::Result<ExitCode> {
        ensure!(
            self.input.len() == self.output.len(),
            "{} input and {} output files; each input has one output",
            self.input.len(),
            self.output.len()
        );
        for file in &self.input {
            let file_size =
                std::fs::metadata(file).with_context(|| file.display().to_string())?.len();
            ensure!(
                file_size <= MAX_INPUT_BYTES as u64,
                "{}: larger than {MAX_INPUT_BYTES} bytes",
                file.display()
            );
        }
        self.output.iter().try_for_each(|file| require_folder_of(file))?;
        let services = self.services.open()?;
        let store = Arc::new(services.store()?);
        let broker = Arc::new(services.broker.clone());
        let settings = &services.settings.producer;
        let queue = ReplyQueue::new(&settings.tenant, &unique_client(&settings.client))?;
        let mut options = settings.client_options();
        options.lane = self.lane.unwrap_or(options.lane);
        let events = Events::new(|event| {
            if let Event::Waiting { reason, .. } = event {
                eprintln!("waiting: {}", printable(&reason));
            }
        });
        let submitted = wait(async {
            services.require_store(&store).await?;
            let client = Client::open(broker, store, queue, options, events).await?;
            let key = self.send_key(&client, settings.key_lease).await?;
            self.exchange(&client, key).await
        })?;
        let failed = submitted.iter().any(|file| file.error.is_some());
        report(json, &submitted, |submitted| {
            for Submitted { input, job, output, error, .. } in submitted {
                let input = input.display();
                match (output, error) {
                    (Some(output), _) => say!("{input} -> {}  job {job}", output.display()),
                    (None, error) => {
                        let error = printable(error.as_deref().unwrap_or_default());
                        say!("{input} failed  job {job}: {error}");
                    }
                }
            }
        })?;
        Ok(if failed { ExitCode::from(2) } else { ExitCode::SUCCESS })
    }

    async fn send_key<B: Broker, S: Store>(
        &self,
        client: &Client<B, S>,
        lease: Lease,
    ) -> anyhow::Result<Option<EvaluationKeyId>> {
        let Some(path) = &self.evaluation_key else { return Ok(None) };
        let bytes = read_bounded(path, MAX_EVALUATION_KEY_BYTES + KEY_STRUCTURE_BYTES)?;
        let blob = Blob::evaluation_key(client.tenant(), bytes)?;
        client.ensure_key(&blob, lease).await?;
        Ok(Some(EvaluationKeyId::new(blob.name().id)))
    }

    /// Publishes every file, then waits for every reply.
    async fn exchange<B: Broker, S: Store>(
        &self,
        client: &Client<B, S>,
        key_id: Option<EvaluationKeyId>,
    ) -> anyhow::Result<Vec<Submitted>> {
        let deadline = tokio::time::Instant::now() + self.timeout.duration();
        let mut files = Vec::new();
        let mut waiting = HashMap::new();
        for (index, input) in self.input.iter().enumerate() {
            let (rows, payload) = read_rows(input)?;
            let job = JobId::random();
            let request = JobRequest {
                id: job,
                model_id: self.model,
                key_id,
                rows: rows.unwrap_or(1),
                deadline: Some(Timestamp::now().after(self.timeout.duration())),
                correlation_id: None,
                payload,
            };
            client.submit(request).await?;
            eprintln!("{} is job {job}", input.display());
            waiting.insert(job, (index, rows));
            let (input, output, worker, error) = (input.clone(), None, None, None);
            files.push(Submitted { input, job, output, worker, error });
        }
        let mut replies = client.replies();
        while !waiting.is_empty() {
            let next = tokio::time::timeout_at(deadline, replies.next()).await;
            let Ok(next) = next else { break };
            let mut received = next?;
            let Some((index, rows)) = waiting.remove(&received.job) else { continue };
            let file = &mut files[index];
            file.worker = Some(received.worker.clone());
            match received.take_answer() {
                Answer::Scored(outputs) => {
                    write_results(&self.output[index], rows, &outputs)?;
                    file.output = Some(self.output[index].clone());
                }
                Answer::Failed { code, reason } => file.error = Some(format!("{code}: {reason}")),
                Answer::Lost { reason } => file.error = Some(reason),
            }
            received.ack().await;
        }
        for (index, _) in waiting.into_values() {
            let text = format!("no reply within {}; see `cipherscore status`", self.timeout);
            files[index].error = Some(text);
        }
        Ok(files)
    }
}

/// A file as the payload of a job, and how many rows it says that it has: none, where it is the one
/// value of one row, as Concrete's client writes it.
fn read_rows(path: &Path) -> anyhow::Result<(Option<u32>, Vec<u8>)> {
    let file = read_bounded(path, MAX_INPUT_BYTES)?;
    Ok(match read_rows_file(&file) {
        Ok((rows, body)) => (Some(rows), body.to_vec()),
        Err(_) => (None, write_batch([file])),
    })
}

/// Writes results in the form of their rows.
fn write_results(path: &Path, rows: Option<u32>, outputs: &[u8]) -> anyhow::Result<()> {
    let Some(rows) = rows else { return write_value(path, outputs) };
    let file = write_rows_file(usize::try_from(rows)?, outputs)?;
    write_atomically(path, Access::Default, |output| output.write_all(&file))
        .with_context(|| path.display().to_string())
}

/// Writes the one value of the one row of a batch, as Concrete's client reads it.
fn write_value(path: &Path, outputs: &[u8]) -> anyhow::Result<()> {
    let one = outputs.split_first_chunk().map(|(length, rest)| (u32::from_le_bytes(*length), rest));
    let Some((length, value)) = one else { bail!("a result without a value") };
    ensure!(
        value.len() as u64 == u64::from(length),
        "a result of several values, which is not supported: models have one output"
    );
    write_atomically(path, Access::Default, |file| file.write_all(value))
        .with_context(|| path.display().to_string())
}
