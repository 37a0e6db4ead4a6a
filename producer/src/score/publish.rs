//! One part to one job, and one reply to the results of a part.

use std::sync::Arc;

use cipherscore_common::broker::Broker;
use cipherscore_common::message::Timestamp;
use cipherscore_common::{EvaluationKeyId, JobId, Lease, Store};

use super::ScoreError;
use super::ledger::Ledger;
use super::record::Record;
use crate::client::{Client, JobRequest, Received};
use crate::evaluation_keys::{EvaluationKeys, KeySource, KeyStep};
use crate::matrix::Matrix;
use crate::model::{Encryption, EncryptionError};
use crate::parts::{PayloadRoom, blocking};

/// Rows of a part. Shared with the task that encrypts them.
pub(super) type Rows = Arc<Matrix<f64>>;

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
    key: Option<(EvaluationKeyId, KeySource)>,
    keys: EvaluationKeys<B, S>,
    payloads: PayloadRoom,
}

impl<B: Broker, S: Store> Publisher<B, S> {
    pub(super) fn new(
        client: Client<B, S>,
        encryption: Arc<dyn Encryption>,
        ledger: Arc<Ledger>,
        key: Option<(EvaluationKeyId, KeySource)>,
        lease: Lease,
    ) -> Self {
        let keys = EvaluationKeys::new(client.clone(), lease);
        Self { client, encryption, ledger, key, keys, payloads: PayloadRoom::new() }
    }

    /// Sees to the evaluation key, if jobs need one.
    pub(super) async fn prepare_key(&self, step: KeyStep) -> Result<(), ScoreError> {
        self.keys.prepare(self.key.as_ref(), step).await
    }

    /// Encrypts and publishes. Returns when the broker has the job, or false when another job
    /// of the part was answered before, and this one is not published.
    pub(super) async fn publish(&self, new: NewJob<B, S>) -> Result<bool, ScoreError> {
        let NewJob { job, part, rows, deadline, key, replaces } = new;
        let count = u32::try_from(rows.len()).unwrap_or(u32::MAX);
        let _room = self.payloads.take(self.encryption.model().payload_bytes(count)).await;
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
            key_id: self.key.as_ref().map(|(id, _)| *id),
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

/// Outputs that are not what the model gives.
pub(super) struct Unreadable<B: Broker, S: Store> {
    pub(super) error: EncryptionError,
    pub(super) received: Received<B, S>,
}
