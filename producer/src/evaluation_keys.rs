//! Evaluation keys: each is put into the store once, and again when it is gone from there.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use cipherscore_artifact::key_file::evaluation_key_of;
use cipherscore_common::broker::Broker;
use cipherscore_common::{Blob, EvaluationKeyId, FormName, Lease, OwnerStore, StoreError};
use cipherscore_engine::parameters::MAX_EVALUATION_KEY_BYTES;
use tokio::sync::Mutex;
use tokio::task::JoinError;
use tokio::time::Instant;

use crate::blocking::blocking;
use crate::client::{Client, ClientError};
use crate::files::read_bounded;
use crate::key_folder::{KeyFolder, KeyFolderError};

/// Largest file of another program with a key, in bytes: with room for what Cap'n Proto adds around.
const MAX_FILE_BYTES: usize = MAX_EVALUATION_KEY_BYTES + (1 << 20);

/// Where an evaluation key is until it is in the store. It is read when it is needed, and not kept.
#[derive(Debug, Clone)]
pub enum KeySource {
    /// In a folder: that of a form.
    Folder(KeyFolder, Option<FormName>),
    /// In a file, which `keygen` or another program made: that of a form.
    File(PathBuf, Option<FormName>),
    /// In memory: the one of its form.
    Bytes(Arc<Vec<u8>>),
}

impl KeySource {
    /// Refuses a key that is not the one that jobs name: the file may be another since then.
    fn require(&self, id: EvaluationKeyId, found: EvaluationKeyId) -> Result<(), KeyFolderError> {
        if id == found {
            return Ok(());
        }
        Err(match self {
            Self::Folder(folder, _) => KeyFolderError::Replaced(folder.path().to_owned()),
            Self::File(path, _) => KeyFolderError::Replaced(path.clone()),
            Self::Bytes(_) => KeyFolderError::OtherEvaluationKey { found, expected: id },
        })
    }

    /// The serialised key.
    pub fn read(&self) -> Result<Arc<Vec<u8>>, KeyFolderError> {
        match self {
            Self::Folder(folder, form) => Ok(Arc::new(folder.evaluation_key(*form)?)),
            Self::File(path, form) => {
                let in_file = |source| KeyFolderError::Io { path: path.clone(), source };
                let file = read_bounded(path, MAX_FILE_BYTES).map_err(in_file)?;
                let no_key = |source| KeyFolderError::Section { path: path.clone(), source };
                let key = evaluation_key_of(&file, *form).map_err(no_key)?;
                let section = (key.len() < file.len()).then(|| key.to_vec());
                Ok(Arc::new(section.unwrap_or(file)))
            }
            Self::Bytes(bytes) => Ok(Arc::clone(bytes)),
        }
    }
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

impl<B: Broker, S: OwnerStore> EvaluationKeys<B, S> {
    pub(crate) fn new(client: Client<B, S>, lease: Lease) -> Self {
        Self { client, lease, put: Mutex::default() }
    }

    /// Puts a key that is at hand.
    pub(crate) async fn put(&self, key: &Blob) -> Result<EvaluationKeyId, ClientError> {
        let id = EvaluationKeyId::new(key.name().id);
        let mut put = self.put.lock().await;
        self.client.ensure_key(key, self.lease).await?;
        put.insert(id, Instant::now());
        Ok(id)
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
        let (id, source, tenant) = (*id, source.clone(), self.client.tenant().clone());
        // Many megabytes are read and digested.
        let read = move || {
            let bytes = Arc::unwrap_or_clone(source.read()?);
            let blob = Blob::evaluation_key(&tenant, bytes);
            if let Ok(blob) = &blob {
                source.require(id, EvaluationKeyId::new(blob.name().id))?;
            }
            Ok::<_, KeyFolderError>(blob)
        };
        let blob = blocking(read).await???;
        match step {
            KeyStep::Replace(_) => self.client.replace_key(&blob, self.lease).await?,
            _ => self.client.ensure_key(&blob, self.lease).await.map(drop)?,
        }
        put.insert(id, Instant::now());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_replaced_is_not_the_key_that_jobs_name() {
        let [one, other] = [b"one", b"two"].map(|key| EvaluationKeyId::of(key));
        let source = KeySource::File("evaluation.key".into(), None);
        assert!(source.require(one, one).is_ok());
        let said = source.require(one, other).map_err(|error| error.to_string());
        assert!(said.is_err_and(|said| said.contains("were replaced")));
    }

    #[test]
    fn a_key_in_memory_is_the_one_that_jobs_name() {
        let [one, other] = [b"one", b"two"].map(|key| EvaluationKeyId::of(key));
        let source = KeySource::Bytes(Arc::new(b"one".to_vec()));
        assert!(source.require(one, one).is_ok());
        let said = source.require(other, one).map_err(|error| error.to_string());
        let names = [one, other].map(|id| id.to_string());
        assert!(said.is_err_and(|said| names.iter().all(|name| said.contains(name))));
    }
}
