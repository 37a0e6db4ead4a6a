//! One part to one job, and one reply to the results of a part.

use std::sync::Arc;

use cipherscore_common::broker::Broker;
use cipherscore_common::message::Timestamp;
use cipherscore_common::{Blob, EvaluationKeyId, JobId, Lease, Store};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::Instant;

use super::ledger::Ledger;
use super::record::Record;
use super::{ScoreError, blocking};
use crate::client::{Client, JobRequest, Received};
use crate::key_folder::KeyFolder;
use crate::matrix::Matrix;
use crate::model::{Encryption, EncryptionError};

/// Payloads that are in this process at a time, encrypted and not yet at the broker or in the
/// store, in bytes. A larger one is there alone.
pub(crate) const MAX_PAYLOAD_BYTES: u64 = 256 << 20;
/// Unit in which they are counted, in bytes.
const PERMIT_BYTES: u64 = 1 << 10;

/// Rows of a part. Shared with the task that encrypts them.
pub(super) type Rows = Arc<Matrix<f64>>;

/// What to do about the evaluation key before a job is published. Each names the time at which
/// it was needed: jobs that miss the key at the same time put it back once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyStep {
    /// It is there.
    None,
    /// Put it there unless it is.
    Ensure(Instant),
    /// What is there is something else.
    Replace(Instant),
}

/// A job that is to be made of a part.
pub(super) struct NewJob<B: Broker, S: Store> {
    pub(super) job: JobId,
    pub(super) part: u64,
    pub(super) rows: Rows,
    pub(super) deadline: Option<Timestamp>,
    pub(super) key: KeyStep,
    /// The reply to the job before, which can go when this one is in the ledger.
    pub(super) replaces: Option<Received<B, S>>,
}

/// Everything that steps of a run share.
pub(super) struct Publisher<B, S> {
    pub(super) client: Client<B, S>,
    pub(super) encryption: Arc<dyn Encryption>,
    pub(super) ledger: Arc<Ledger>,
    key: Option<Key>,
    /// Of [`MAX_PAYLOAD_BYTES`], by [`PERMIT_BYTES`].
    payloads: Semaphore,
}

struct Key {
    id: EvaluationKeyId,
    folder: KeyFolder,
    lease: Lease,
    /// When it was put into the store.
    put: Mutex<Option<Instant>>,
}

impl<B: Broker, S: Store> Publisher<B, S> {
    pub(super) fn new(
        client: Client<B, S>,
        encryption: Arc<dyn Encryption>,
        ledger: Arc<Ledger>,
    ) -> Self {
        let payloads = Semaphore::new(payload_permits(MAX_PAYLOAD_BYTES) as usize);
        Self { client, encryption, ledger, key: None, payloads }
    }

    /// Names the key that jobs need, if they need one.
    pub(super) fn with_key(
        self,
        id: Option<EvaluationKeyId>,
        folder: KeyFolder,
        lease: Lease,
    ) -> Self {
        let key = id.map(|id| Key { id, folder, lease, put: Mutex::default() });
        Self { key, ..self }
    }

    /// Sees to the evaluation key, which is read from its folder and not kept.
    pub(super) async fn prepare_key(&self, step: KeyStep) -> Result<(), ScoreError> {
        let (Some(key), KeyStep::Ensure(needed) | KeyStep::Replace(needed)) = (&self.key, step)
        else {
            return Ok(());
        };
        let mut put = key.put.lock().await;
        if put.is_some_and(|put| put > needed) {
            return Ok(());
        }
        let (folder, tenant) = (key.folder.clone(), self.client.tenant().clone());
        let read =
            move || Ok::<_, ScoreError>(Blob::evaluation_key(&tenant, folder.evaluation_key()?)?);
        let blob = blocking(read).await??;
        match step {
            KeyStep::Replace(_) => self.client.replace_key(&blob, key.lease).await?,
            _ => self.client.ensure_key(&blob, key.lease).await.map(|_| ())?,
        }
        *put = Some(Instant::now());
        Ok(())
    }

    /// Encrypts and publishes. Returns when the broker has the job, or false when another job
    /// of the part was answered before, and this one is not published.
    pub(super) async fn publish(&self, new: NewJob<B, S>) -> Result<bool, ScoreError> {
        let NewJob { job, part, rows, deadline, key, replaces } = new;
        let count = u32::try_from(rows.len()).unwrap_or(u32::MAX);
        let payload_bytes = self.encryption.model().payload_bytes(count).min(MAX_PAYLOAD_BYTES);
        let _room = self.payloads.acquire_many(payload_permits(payload_bytes)).await;
        let (encryption, ledger) = (Arc::clone(&self.encryption), Arc::clone(&self.ledger));
        let (deadline_ms, replacing) = (deadline.map(Timestamp::millis), replaces.is_some());
        let encrypt = move || {
            if ledger.is_finished(part) {
                return Ok(None);
            }
            let payload = encryption.encrypt(&rows)?;
            let wanted = ledger.submitting(job, part, deadline_ms)?;
            if replacing {
                // The reply to the job before goes next.
                ledger.sync()?;
            }
            Ok::<_, ScoreError>(wanted.then_some(payload))
        };
        let payload = blocking(encrypt).await??;
        if let Some(received) = replaces {
            received.ack().await;
        }
        let Some(payload) = payload else { return Ok(false) };
        self.prepare_key(key).await?;
        if self.ledger.is_finished(part) {
            return Ok(false);
        }
        let request = JobRequest {
            id: job,
            model_id: self.ledger.header().model_id,
            key_id: self.key.as_ref().map(|key| key.id),
            rows: count,
            deadline,
            correlation_id: None,
            payload,
        };
        let payload = self.client.submit(request).await?.payload;
        let ledger = Arc::clone(&self.ledger);
        blocking(move || ledger.append(&Record::Submitted { job, part, payload })).await??;
        Ok(true)
    }

    /// Decrypts outputs and makes their integers durable; then, and not before, the message goes.
    pub(super) async fn finish(
        &self,
        part: u64,
        outputs: Vec<u8>,
        received: Received<B, S>,
    ) -> Result<Result<(), Unreadable<B, S>>, ScoreError> {
        let (encryption, ledger) = (Arc::clone(&self.encryption), Arc::clone(&self.ledger));
        let job = received.job;
        let decrypt = move || {
            let rows = u32::try_from(ledger.header().part_rows(part)).unwrap_or(u32::MAX);
            match encryption.decrypt(&outputs, rows) {
                Ok(results) => ledger.finish(job, part, &results).map(Ok),
                Err(error) => Ok(Err(error)),
            }
        };
        match blocking(decrypt).await?? {
            Ok(()) => {
                received.ack().await;
                Ok(Ok(()))
            }
            Err(error) => Ok(Err(Unreadable { error, received })),
        }
    }

    /// Notes that a part failed; then the message goes.
    pub(super) async fn fail(
        &self,
        part: u64,
        job: JobId,
        reason: String,
        received: Option<Received<B, S>>,
    ) -> Result<(), ScoreError> {
        let ledger = Arc::clone(&self.ledger);
        blocking(move || ledger.fail(job, part, &reason)).await??;
        if let Some(received) = received {
            received.ack().await;
        }
        Ok(())
    }
}

/// At most those of [`MAX_PAYLOAD_BYTES`], which are few.
pub(crate) fn payload_permits(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX)
}

/// Outputs that are not what the model gives.
pub(super) struct Unreadable<B: Broker, S: Store> {
    pub(super) error: EncryptionError,
    pub(super) received: Received<B, S>,
}
