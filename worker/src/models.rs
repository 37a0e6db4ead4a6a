//! The models of a worker: from a folder, and from the store by their ids.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context, ensure};
use cipherscore_common::{BlobName, BlobReader, ModelId, Store, Tenant};
use cipherscore_concrete::artifact::open_evaluator;
use cipherscore_concrete::recorder::RecorderCommand;
use cipherscore_engine::artifact::MAX_ZIP_BYTES;
use cipherscore_engine::evaluator::Evaluator;
use tracing::{error, info};

/// Name of a model's file inside a folder of its own.
const SERVER_ZIP: &str = "server.zip";

/// Models by id.
#[derive(Clone, Default)]
pub(crate) struct Models {
    by_id: BTreeMap<ModelId, Loaded>,
}

#[derive(Clone)]
struct Loaded {
    evaluator: Arc<dyn Evaluator>,
    from: Origin,
}

/// Where a model came from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Origin {
    File(FileState),
    Store,
}

/// What tells one content of a file from another without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct FileState {
    path: PathBuf,
    modified: SystemTime,
    bytes: u64,
}

impl Models {
    pub(crate) fn get(&self, id: ModelId) -> Option<Arc<dyn Evaluator>> {
        self.by_id.get(&id).map(|loaded| loaded.evaluator.clone())
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = ModelId> {
        self.by_id.keys().copied()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Adds a model.
    pub(crate) fn insert(&mut self, evaluator: Arc<dyn Evaluator>) -> anyhow::Result<ModelId> {
        self.add(evaluator, Origin::Store)
    }

    fn add(&mut self, evaluator: Arc<dyn Evaluator>, from: Origin) -> anyhow::Result<ModelId> {
        // The engine's digest and the queue's are different types of the same text.
        let id = evaluator.model_id().to_string().parse()?;
        self.by_id.insert(id, Loaded { evaluator, from });
        Ok(id)
    }

    fn of_path(&self, path: &Path) -> Option<(ModelId, Loaded)> {
        let is_it =
            |loaded: &Loaded| matches!(&loaded.from, Origin::File(file) if file.path == path);
        let found = self.by_id.iter().find(|(_, loaded)| is_it(loaded));
        found.map(|(id, loaded)| (*id, loaded.clone()))
    }

    fn of_file(&self, state: &FileState) -> Option<(ModelId, Loaded)> {
        let is_it = |loaded: &Loaded| matches!(&loaded.from, Origin::File(file) if file == state);
        let found = self.by_id.iter().find(|(_, loaded)| is_it(loaded));
        found.map(|(id, loaded)| (*id, loaded.clone()))
    }
}

/// Opens models. Raw zips are recorded in the locked child process.
pub(crate) struct Loader {
    pub(crate) recorder: RecorderCommand,
    /// Threads of the pool on which models are evaluated.
    pub(crate) threads: NonZeroUsize,
}

impl Loader {
    /// Opens all models of a folder: files that end in `.zip`, and `server.zip` in folders below
    /// it.
    pub(crate) fn load(&self, folder: &Path, models: &mut Models) -> anyhow::Result<()> {
        for path in candidates(folder).with_context(|| folder.display().to_string())? {
            let (id, loaded) = self.file(&path, models)?;
            models.by_id.insert(id, loaded);
        }
        Ok(())
    }

    /// The models of the folder as it is now, with those of the store. A file that cannot be used
    /// is only said: a worker does not stop for it.
    pub(crate) fn reload(&self, folder: &Path, before: &Models) -> anyhow::Result<Models> {
        let mut models = before.clone();
        models.by_id.retain(|_, loaded| loaded.from == Origin::Store);
        for path in candidates(folder).with_context(|| folder.display().to_string())? {
            match self.file(&path, before) {
                Ok((id, loaded)) => {
                    models.by_id.insert(id, loaded);
                }
                // Half written, perhaps: what there was at this place stays until it can be opened.
                Err(error) => {
                    error!("a model cannot be used: {error:#}");
                    models.by_id.extend(before.of_path(&path));
                }
            }
        }
        Ok(models)
    }

    /// Opens a file, unless it is as it was before.
    fn file(&self, path: &Path, before: &Models) -> anyhow::Result<(ModelId, Loaded)> {
        let name = || path.display().to_string();
        let metadata = path.metadata().with_context(name)?;
        let modified = metadata.modified().with_context(name)?;
        let state = FileState { path: path.to_owned(), modified, bytes: metadata.len() };
        if let Some(unchanged) = before.of_file(&state) {
            return Ok(unchanged);
        }
        ensure!(
            state.bytes <= MAX_ZIP_BYTES as u64,
            "{}: larger than {MAX_ZIP_BYTES} bytes",
            name()
        );
        let zip = std::fs::read(path).with_context(name)?;
        let opened = open_evaluator(&zip, Some(&self.recorder), self.threads);
        let evaluator = opened.with_context(name)?.evaluator;
        let mut one = Models::default();
        let id = one.add(evaluator, Origin::File(state))?;
        info!(model = %id, file = name(), "model opened");
        one.by_id.pop_first().context("a model was added")
    }

    /// Fetches a model from the store and opens it. Machine code from the store is not run, not
    /// even in the locked child.
    pub(crate) async fn fetch<S: Store>(
        &self,
        store: &S,
        tenant: &Tenant,
        id: ModelId,
    ) -> anyhow::Result<Arc<dyn Evaluator>> {
        let name = BlobName::model(tenant, id);
        let reader = BlobReader::open(store, &name).await?;
        let zip = reader.read_all(MAX_ZIP_BYTES as u64).await?;
        let threads = self.threads;
        let opened = tokio::task::spawn_blocking(move || open_evaluator(&zip, None, threads));
        let evaluator = opened.await?.with_context(|| name.to_string())?.evaluator;
        let found = evaluator.model_id();
        ensure!(found.to_string() == id.to_string(), "{name} says that it is model {found}");
        info!(model = %id, "model fetched from the store");
        Ok(evaluator)
    }
}

/// Files that may be models, in the order of their names.
fn candidates(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(Some(path.join(SERVER_ZIP)).filter(|zip| zip.is_file()));
        } else if path.extension().is_some_and(|extension| extension == "zip")
            // A folder of Concrete ML's holds the data owner's zip as well.
            && path.file_name().is_none_or(|name| name != "client.zip")
        {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
