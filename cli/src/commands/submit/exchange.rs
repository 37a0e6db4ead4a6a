//! Jobs out, results in. Killed at any point, the same command goes on: see
//! [notes](cipherscore_producer::note).

use std::collections::HashMap;
use std::path::PathBuf;

use anyhow::Context;
use cipherscore_common::broker::Broker;
use cipherscore_common::message::{ErrorCode, Timestamp};
use cipherscore_common::{Blob, Digest, EvaluationKeyId, JobId, Lease, Store};
use cipherscore_engine::parameters::MAX_EVALUATION_KEY_BYTES;
use cipherscore_producer::client::{Answer, Client, JobRequest, Received};
use cipherscore_producer::note::{Note, NoteFile};
use tokio::time::{Instant, timeout_at};

use super::super::{printable, read_bounded};
use super::{Submit, Submitted, names, read_rows, write_results};

/// Room for what Cap'n Proto adds around the keys, in bytes.
const KEY_STRUCTURE_BYTES: usize = 1 << 20;
/// Jobs that are made of the same files, at most.
const MAX_JOBS_OF_FILES: u32 = 3;

/// One run of the command.
pub(super) struct Exchange<'a, B, S> {
    submit: &'a Submit,
    client: Client<B, S>,
    key_lease: Lease,
    key_id: Option<EvaluationKeyId>,
    pending: Vec<Pending<'a>>,
    /// Jobs without an answer, and whose they are.
    waiting: HashMap<JobId, usize>,
}

/// Files of one job.
struct Pending<'a> {
    inputs: &'a [PathBuf],
    outputs: &'a [PathBuf],
    /// None when the job is over.
    note: Option<NoteFile>,
    job: JobId,
    rows: Option<u32>,
    /// Jobs of them so far.
    published: u32,
    worker: Option<String>,
    error: Option<String>,
}

impl<'a, B: Broker, S: Store> Exchange<'a, B, S> {
    pub(super) fn new(submit: &'a Submit, client: Client<B, S>, key_lease: Lease) -> Self {
        let (pending, waiting) = (Vec::new(), HashMap::new());
        Self { submit, client, key_lease, key_id: None, pending, waiting }
    }

    /// Publishes every job, then waits for every reply.
    pub(super) async fn run(mut self, notes: Vec<NoteFile>) -> anyhow::Result<Vec<Submitted>> {
        let deadline = Instant::now() + self.submit.timeout.duration();
        self.send_key().await?;
        for ((inputs, outputs), note) in self.submit.files()?.zip(notes) {
            self.pending.push(Pending {
                inputs,
                outputs,
                note: Some(note),
                job: JobId::random(),
                rows: None,
                published: 0,
                worker: None,
                error: None,
            });
            self.publish(self.pending.len() - 1).await?;
        }
        let mut replies = self.client.replies();
        while !self.waiting.is_empty() {
            let Ok(next) = timeout_at(deadline, replies.next()).await else { break };
            self.receive(next?).await?;
        }
        for index in std::mem::take(&mut self.waiting).into_values() {
            let time = self.submit.timeout;
            let error = format!("no reply within {time}; see `cipherscore status`");
            self.pending[index].end(Some(error))?;
        }
        Ok(self.pending.into_iter().map(Pending::submitted).collect())
    }

    async fn send_key(&mut self) -> anyhow::Result<()> {
        let Some(path) = &self.submit.evaluation_key else { return Ok(()) };
        let bytes = read_bounded(path, MAX_EVALUATION_KEY_BYTES + KEY_STRUCTURE_BYTES)?;
        let blob = Blob::evaluation_key(self.client.tenant(), bytes)?;
        self.client.ensure_key(&blob, self.key_lease).await?;
        self.key_id = Some(EvaluationKeyId::new(blob.name().id));
        Ok(())
    }

    /// The job of an earlier process under its id, or a new one.
    async fn publish(&mut self, index: usize) -> anyhow::Result<()> {
        let pending = &mut self.pending[index];
        let (rows, payload) = read_rows(pending.inputs)?;
        let tenant = self.client.tenant().clone();
        let new = Note {
            job: JobId::random(),
            model_id: self.submit.model,
            key_id: self.key_id,
            payload_sha256: Digest::of(&payload),
            client: self.client.reply_queue().client().to_owned(),
            deadline_ms: Timestamp::now().after(self.submit.timeout.duration()).millis(),
            tenant,
        };
        let new_job = new.job;
        let note = pending.note.as_mut().context("a job that is over")?;
        let note = match pending.published {
            0 => note.settle_on(new)?,
            _ => note.replace(new)?,
        };
        let request = JobRequest {
            id: note.job,
            model_id: note.model_id,
            key_id: note.key_id,
            rows: rows.unwrap_or(1),
            deadline: Some(note.deadline()),
            correlation_id: None,
            payload,
        };
        let (job, again) = (note.job, if note.job == new_job { "" } else { " again" });
        (pending.job, pending.rows) = (job, rows);
        pending.published += 1;
        self.waiting.insert(job, index);
        self.client.submit(request).await?;
        eprintln!("{} is job {job}{again}", names(self.pending[index].inputs));
        Ok(())
    }

    /// Makes results durable; then the note goes, and then the message.
    async fn receive(&mut self, mut received: Received<B, S>) -> anyhow::Result<()> {
        let Some(index) = self.waiting.remove(&received.job) else { return Ok(()) };
        let pending = &mut self.pending[index];
        pending.worker = Some(received.worker.clone());
        let (reason, remedy) = match received.take_answer() {
            Answer::Scored(results) => {
                write_results(pending.outputs, pending.rows, &results)?;
                pending.end(None)?;
                received.ack().await;
                return Ok(());
            }
            Answer::Failed { code, reason } => {
                let passes = match code {
                    ErrorCode::BlobMissing => true,
                    // Only a key that is there can be sent once more.
                    ErrorCode::KeyMissing => self.key_id.is_some(),
                    _ => false,
                };
                (format!("{code}: {reason}"), passes)
            }
            Answer::Lost { reason } => (reason, true),
        };
        match remedy && pending.published < MAX_JOBS_OF_FILES {
            true => {
                eprintln!("published again: {}", printable(&reason));
                self.send_key().await?;
                self.publish(index).await?;
            }
            false => pending.end(Some(reason))?,
        }
        received.ack().await;
        Ok(())
    }
}

impl Pending<'_> {
    /// There are results, or there will be none.
    fn end(&mut self, error: Option<String>) -> anyhow::Result<()> {
        self.error = error;
        Ok(self.note.take().map_or(Ok(()), NoteFile::remove)?)
    }

    fn submitted(self) -> Submitted {
        Submitted {
            inputs: self.inputs.to_vec(),
            job: self.job,
            outputs: if self.error.is_none() { self.outputs.to_vec() } else { Vec::new() },
            worker: self.worker,
            error: self.error,
        }
    }
}
