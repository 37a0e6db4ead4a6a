//! Evaluation keys: each is put into the store once, and again when it is gone from there.

use std::collections::HashMap;
use std::sync::Arc;

use cipherscore_common::broker::Broker;
use cipherscore_common::{Blob, EvaluationKeyId, Lease, Store, StoreError};
use tokio::sync::Mutex;
use tokio::task::JoinError;
use tokio::time::Instant;

use crate::client::{Client, ClientError};
use crate::key_folder::{KeyFolder, KeyFolderError};
use crate::parts::blocking;

/// Where an evaluation key is until it is in the store. It is read when it is needed, and not kept.
#[derive(Debug, Clone)]
pub enum KeySource {
    /// In a folder.
    Folder(KeyFolder),
    /// In memory.
    Bytes(Arc<Vec<u8>>),
}

/// What to do about the evaluation key before a job is published. The times are those at which a job
/// was published that missed it: jobs that miss the key at the same time put it back once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyStep {
    /// Put it there, unless this process has done so.
    Once,
    /// It is gone.
    Ensure(Instant),
    /// What is there is something else.
    Replace(Instant),
}

/// What this process has put into the store.
pub(crate) struct EvaluationKeys<B, S> {
    client: Client<B, S>,
    lease: Lease,
    put: Mutex<HashMap<EvaluationKeyId, Instant>>,
}

impl<B: Broker, S: Store> EvaluationKeys<B, S> {
    pub(crate) fn new(client: Client<B, S>, lease: Lease) -> Self {
        Self { client, lease, put: Mutex::default() }
    }

    /// Sees to a key. Who comes while it is being put waits, and does not put it again.
    pub(crate) async fn prepare<E>(
        &self,
        key: Option<&(EvaluationKeyId, KeySource)>,
        step: KeyStep,
    ) -> Result<(), E>
    where
        E: From<ClientError> + From<KeyFolderError> + From<StoreError> + From<JoinError>,
    {
        let Some((id, source)) = key else { return Ok(()) };
        let mut put = self.put.lock().await;
        let done = put.get(id).is_some_and(|put| match step {
            KeyStep::Once => true,
            KeyStep::Ensure(missed) | KeyStep::Replace(missed) => *put > missed,
        });
        if done {
            return Ok(());
        }
        let (source, tenant) = (source.clone(), self.client.tenant().clone());
        // Many megabytes are read and digested.
        let read = move || {
            let bytes = match source {
                KeySource::Folder(folder) => folder.evaluation_key()?,
                KeySource::Bytes(bytes) => Arc::unwrap_or_clone(bytes),
            };
            Ok::<_, KeyFolderError>(Blob::evaluation_key(&tenant, bytes))
        };
        let blob = blocking(read).await???;
        match step {
            KeyStep::Replace(_) => self.client.replace_key(&blob, self.lease).await?,
            _ => self.client.ensure_key(&blob, self.lease).await.map(drop)?,
        }
        put.insert(*id, Instant::now());
        Ok(())
    }
}
