//! Evaluation keys: each is put into the store once, and again when it is gone from there.

use std::collections::HashMap;
use std::sync::Arc;

use cipherscore_common::broker::Broker;
use cipherscore_common::{Blob, EvaluationKeyId, Lease, Store};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::{KeySource, StreamError};
use crate::client::Client;
use crate::score::blocking;

/// What to do about the evaluation key before a job is published. The times are those at which a job
/// was published that missed it: jobs that miss the key at the same time put it back once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Put it there, unless this process has done so.
    Once,
    /// It is gone.
    Ensure(Instant),
    /// What is there is something else.
    Replace(Instant),
}

/// What this process has put into the store.
pub(super) struct Keys<B: Broker, S: Store> {
    client: Client<B, S>,
    lease: Lease,
    put: Mutex<HashMap<EvaluationKeyId, Instant>>,
}

impl<B: Broker, S: Store> Keys<B, S> {
    pub(super) fn new(client: Client<B, S>, lease: Lease) -> Self {
        Self { client, lease, put: Mutex::default() }
    }

    /// Sees to a key. Who comes while it is being put waits, and does not put it again.
    pub(super) async fn prepare(
        &self,
        key: Option<&(EvaluationKeyId, KeySource)>,
        step: Step,
    ) -> Result<(), StreamError> {
        let Some((id, source)) = key else { return Ok(()) };
        let mut put = self.put.lock().await;
        let done = put.get(id).is_some_and(|put| match step {
            Step::Once => true,
            Step::Ensure(missed) | Step::Replace(missed) => *put > missed,
        });
        if done {
            return Ok(());
        }
        let (tenant, source) = (self.client.tenant().clone(), source.clone());
        let read = move || {
            let bytes = match source {
                KeySource::Folder(folder) => folder.evaluation_key()?,
                KeySource::Bytes(bytes) => Arc::unwrap_or_clone(bytes),
            };
            Ok::<_, StreamError>(Blob::evaluation_key(&tenant, bytes)?)
        };
        let blob = blocking(read).await??;
        match step {
            Step::Replace(_) => self.client.replace_key(&blob, self.lease).await?,
            _ => self.client.ensure_key(&blob, self.lease).await.map(drop)?,
        }
        put.insert(*id, Instant::now());
        Ok(())
    }
}
