//! The models of a worker: from a folder, and from the store by their ids.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context, ensure};
use cipherscore_artifact::server::open_server;
use cipherscore_common::message::Message;
use cipherscore_common::{BlobName, BlobReader, ModelId, Store, Tenant};
use cipherscore_concrete::recorder::RecorderCommand;
use cipherscore_engine::artifact::MAX_ZIP_BYTES;
use cipherscore_engine::size;
use tracing::{error, info};

use crate::forms::ModelForms;

/// Name of a model's file inside a folder of its own.
const SERVER_ZIP: &str = "server.zip";

/// Models by id.
#[derive(Clone, Default)]
pub(crate) struct Models {
    by_id: BTreeMap<ModelId, Arc<ModelForms>>,
    /// What files of the folder hold. Several may hold the same model.
    files: BTreeMap<PathBuf, (FileState, ModelId)>,
    /// Those that stay whatever is in the folder.
    kept: BTreeSet<ModelId>,
}

/// What tells one content of a file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileState {
    modified: SystemTime,
    bytes: u64,
}

impl Models {
    pub(crate) fn get(&self, id: ModelId) -> Option<&Arc<ModelForms>> {
        self.by_id.get(&id)
    }

    /// Whether a job has its rows in the message, and what evaluates it plans to be done with it soon.
    /// Only for the order: what is not understood here is refused when its turn comes.
    pub(crate) fn is_quick(&self, message: &Message) -> bool {
        let (Some(id), Some(rows), Ok(form)) = (message.model_id(), message.rows(), message.form())
        else {
            return false;
        };
        let form = self.get(id).and_then(|forms| forms.get(form));
        form.is_some_and(|form| form.is_quick(rows)) && message.has_payload()
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = ModelId> {
        self.by_id.keys().copied()
    }

    /// What each form of each model is, for people.
    pub(crate) fn kinds(&self) -> BTreeMap<ModelId, Vec<String>> {
        let of = |forms: &ModelForms| {
            let kinds = forms.iter().map(|form| form.kind.clone());
            kinds.filter(|kind| !kind.is_empty()).collect::<Vec<_>>()
        };
        let all = self.by_id.iter().map(|(&id, forms)| (id, of(forms)));
        all.filter(|(_, kinds)| !kinds.is_empty()).collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Adds a model that is not of the folder.
    pub(crate) fn insert(&mut self, forms: Arc<ModelForms>) -> ModelId {
        let id = forms.model_id();
        self.by_id.insert(id, forms);
        self.kept.insert(id);
        id
    }

    fn insert_file(&mut self, path: PathBuf, file: File) {
        let File { state, id, forms } = file;
        self.by_id.insert(id, forms);
        self.files.insert(path, (state, id));
    }

    /// What a file held, whatever it holds now.
    fn file(&self, path: &Path) -> Option<File> {
        let (state, id) = *self.files.get(path)?;
        Some(File { state, id, forms: Arc::clone(self.get(id)?) })
    }
}

/// A file of the folder, opened.
struct File {
    state: FileState,
    id: ModelId,
    forms: Arc<ModelForms>,
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
    pub(crate) fn load(&self, folder: &Path) -> anyhow::Result<Models> {
        let mut models = Models::default();
        for path in candidates(folder).with_context(|| folder.display().to_string())? {
            let file = self.open(&path, &models)?;
            models.insert_file(path, file);
        }
        Ok(models)
    }

    /// The models of the folder as it is now, with those that are not of it. A file that cannot be
    /// used is only said: a worker does not stop for it.
    pub(crate) fn reload(&self, folder: &Path, before: &Models) -> anyhow::Result<Models> {
        let mut models = before.clone();
        models.by_id.retain(|id, _| before.kept.contains(id));
        models.files.clear();
        for path in candidates(folder).with_context(|| folder.display().to_string())? {
            let file = self.open(&path, before).or_else(|error| {
                error!("a model cannot be used: {error:#}");
                // Half written, perhaps: what there was at this place stays until it can be opened.
                before.file(&path).ok_or(error)
            });
            if let Ok(file) = file {
                models.insert_file(path, file);
            }
        }
        Ok(models)
    }

    /// Opens a file, unless it is as it was before.
    fn open(&self, path: &Path, before: &Models) -> anyhow::Result<File> {
        let name = || path.display().to_string();
        let metadata = path.metadata().with_context(name)?;
        let modified = metadata.modified().with_context(name)?;
        let state = FileState { modified, bytes: metadata.len() };
        if let Some(unchanged) = before.file(path).filter(|file| file.state == state) {
            return Ok(unchanged);
        }
        ensure!(
            state.bytes <= MAX_ZIP_BYTES as u64,
            "{}: larger than {}, which no model needs; is it a server.zip?",
            name(),
            size(MAX_ZIP_BYTES)
        );
        let zip = std::fs::read(path).with_context(name)?;
        let forms = open_server(&zip, Some(&self.recorder), self.threads).with_context(name)?;
        let kind = forms.preferred.facts.kind.clone();
        let forms = ModelForms::from(forms);
        let id = forms.model_id();
        info!(model = %id, kind, %forms, file = name(), "model opened");
        let forms = before.get(id).cloned().unwrap_or_else(|| Arc::new(forms));
        Ok(File { state, id, forms })
    }

    /// Fetches a model from the store and opens it. Machine code from the store is not run, not
    /// even in the locked child.
    pub(crate) async fn fetch<S: Store>(
        &self,
        store: &S,
        tenant: &Tenant,
        id: ModelId,
    ) -> anyhow::Result<Arc<ModelForms>> {
        let name = BlobName::model(tenant, id);
        let reader = BlobReader::open(store, &name).await?;
        let zip = reader.read_all(MAX_ZIP_BYTES as u64).await?;
        let threads = self.threads;
        let forms = tokio::task::spawn_blocking(move || open_server(&zip, None, threads));
        let forms = forms.await?.with_context(|| name.to_string())?;
        let kind = forms.preferred.facts.kind.clone();
        let forms = ModelForms::from(forms);
        let found = forms.model_id();
        ensure!(found == id, "{name} says that it is model {found}");
        info!(model = %id, kind, %forms, "model fetched from the store");
        Ok(Arc::new(forms))
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const EXAMPLE: &str =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/breast_cancer_logistic_regression");

    fn loader() -> Loader {
        Loader { recorder: RecorderCommand::new("", Vec::new()), threads: NonZeroUsize::MIN }
    }

    fn states(models: &Models) -> Vec<FileState> {
        models.files.values().map(|(state, _)| *state).collect()
    }

    #[test]
    fn files_of_one_model_are_opened_once_each_time_they_change() {
        let folder = tempfile::tempdir().unwrap();
        let zip = Path::new(EXAMPLE).join(SERVER_ZIP);
        let [first, second] = ["a.zip", "b.zip"].map(|name| folder.path().join(name));
        for path in [&first, &second] {
            fs::copy(&zip, path).unwrap();
        }
        let loaded = loader().load(folder.path()).unwrap();
        let (ids, at_first) = (Vec::from_iter(loaded.ids()), states(&loaded));
        assert_eq!((ids.len(), at_first.len()), (1, 2));

        let touched = fs::File::open(&second).unwrap();
        touched.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        let reloaded = loader().reload(folder.path(), &loaded).unwrap();
        assert_eq!(states(&reloaded)[0], at_first[0]);
        assert_eq!(states(&reloaded)[1].modified, SystemTime::UNIX_EPOCH);
        let same = Arc::ptr_eq(loaded.get(ids[0]).unwrap(), reloaded.get(ids[0]).unwrap());
        assert!(same, "a job would find another evaluator of the same model");

        // Were a file that is as it was read again, it could not be opened now.
        for path in [&first, &second] {
            let was = path.metadata().unwrap();
            fs::write(path, vec![0; usize::try_from(was.len()).unwrap()]).unwrap();
            fs::File::open(path).unwrap().set_modified(was.modified().unwrap()).unwrap();
        }
        fs::remove_file(&first).unwrap();
        let left = loader().reload(folder.path(), &reloaded).unwrap();
        assert_eq!(Vec::from_iter(left.ids()), ids);
        assert_eq!(states(&left), states(&reloaded)[1..]);
        fs::remove_file(&second).unwrap();
        assert!(loader().reload(folder.path(), &left).unwrap().is_empty());
    }

    #[test]
    fn what_a_file_held_stays_while_it_cannot_be_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.zip");
        fs::copy(Path::new(EXAMPLE).join(SERVER_ZIP), &path).unwrap();
        let loaded = loader().load(folder.path()).unwrap();
        fs::write(&path, b"half of a zip").unwrap();
        let reloaded = loader().reload(folder.path(), &loaded).unwrap();
        assert!(reloaded.ids().eq(loaded.ids()));
        assert!(loader().load(folder.path()).is_err());
    }
}
