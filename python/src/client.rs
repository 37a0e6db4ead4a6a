//! The data owner's side of an artifact.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use age::secrecy::SecretString;
use cipherscore_artifact::content::Content;
use cipherscore_artifact::key_file::evaluation_keys_of;
use cipherscore_common::{EvaluationKeyId, FormName};
use cipherscore_engine::evaluator::Stop;
use cipherscore_engine::model::ScoreKind;
use cipherscore_producer::client_zip::open_client;
use cipherscore_producer::evaluation_keys::KeySource;
use cipherscore_producer::key_folder::{KeyFolder, KeyFolderError};
use cipherscore_producer::matrix::Matrix;
use cipherscore_producer::model::{
    CategoryNames, ClientModel, Encryption, EncryptionError, FormChoice, InputFeature, Interface,
    Unseen, encryption_in_form, read_rows_file, write_rows_file,
};
use numpy::{PyArray2, PyReadonlyArray2};
use parking_lot::{Mutex, MutexGuard};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;
use rayon::prelude::*;

use crate::arrays::AnyRows;
use crate::compile::FileCategories;
use crate::failure::{Class, Failure};
use crate::{arrays, work};

/// A `client.zip`, and its keys as soon as there are any.
#[pyclass(frozen, module = "cipherscore._native")]
pub(crate) struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    model: Arc<dyn ClientModel>,
    /// None: keys stay in memory.
    folder: Option<KeyFolder>,
    passphrase: Option<SecretString>,
    keys: Mutex<Option<Keys>>,
}

/// A data owner's keys.
#[derive(Clone)]
pub(crate) struct Keys {
    pub(crate) encryption: Arc<dyn Encryption>,
    /// Keys by their forms; none for a compiled model that needs none. Concrete's linear models have one
    /// without keys in it, which their own server wants to see.
    evaluation: Vec<(Option<FormName>, EvaluationKeyId, KeySource)>,
    /// The file of all of them.
    file: Option<KeyFile>,
}

/// Where a file of evaluation keys is.
#[derive(Clone)]
enum KeyFile {
    Folder(KeyFolder),
    Bytes(Arc<Vec<u8>>),
}

impl Keys {
    /// The evaluation key of a form, by which jobs name it.
    pub(crate) fn evaluation(
        &self,
        form: Option<FormName>,
    ) -> Option<(EvaluationKeyId, KeySource)> {
        // A file without sections is of its model's only form.
        let is_its = |name: &Option<FormName>| *name == form || name.is_none();
        let found = self.evaluation.iter().find(|(name, ..)| is_its(name));
        found.map(|(_, id, source)| (*id, source.clone()))
    }
}

#[pymethods]
impl Client {
    #[new]
    #[pyo3(signature = (client_zip, key_dir=None, passphrase=None))]
    fn new(
        py: Python<'_>,
        client_zip: PyBackedBytes,
        key_dir: Option<PathBuf>,
        passphrase: Option<String>,
    ) -> PyResult<Self> {
        work::run(py, move |_| {
            let model = open_client(&client_zip).map_err(Failure::as_class(Class::Artifact))?;
            let shared = Shared {
                model,
                folder: key_dir.map(KeyFolder::new),
                passphrase: passphrase.map(SecretString::from),
                keys: Mutex::default(),
            };
            Ok(Self { shared: Arc::new(shared) })
        })
    }

    /// Class of the trained model.
    #[getter]
    fn class_name(&self) -> String {
        self.interface().class_name.clone()
    }

    /// Which model jobs name, where the `client.zip` says it.
    #[getter]
    fn model_id(&self) -> Option<String> {
        self.shared.model.model_id().map(|id| id.to_string())
    }

    /// Names of the features, in their order.
    #[getter]
    fn feature_names(&self) -> Vec<String> {
        self.interface().features.iter().map(|feature| feature.name.clone()).collect()
    }

    /// Of each feature the texts or the numbers that are its categories, if it has any, and whether
    /// others are refused.
    #[getter]
    fn categories(&self) -> FileCategories {
        let of_feature = |feature: &InputFeature| {
            let categories = feature.categories.as_ref()?;
            let is_refused = categories.unseen == Unseen::Refused;
            Some(match categories.names.clone() {
                CategoryNames::Texts(texts) => (Some(texts), None, is_refused),
                CategoryNames::Numbers(numbers) => (None, Some(numbers), is_refused),
            })
        };
        self.interface().features.iter().map(of_feature).collect()
    }

    /// Whether columns are found by their names.
    #[getter]
    fn features_are_named(&self) -> bool {
        self.interface().features.are_named()
    }

    /// Dimensions of a row.
    #[getter]
    fn row_shape(&self) -> Vec<usize> {
        self.shared.model.row_shape()
    }

    /// `probabilities`, `predictions` or `outputs`.
    #[getter]
    fn score_kind(&self) -> &'static str {
        match self.interface().score_kind {
            ScoreKind::Probabilities => "probabilities",
            ScoreKind::Predictions => "predictions",
            ScoreKind::Outputs => "outputs",
        }
    }

    #[getter]
    fn needs_key(&self) -> bool {
        self.interface().needs_key
    }

    /// Rows that make a good job.
    #[getter]
    fn rows_per_job(&self) -> u32 {
        self.shared.model.rows_per_job(None).get()
    }

    /// Makes keys, unless there are some; `force` replaces them.
    fn generate_keys(&self, py: Python<'_>, force: bool) -> PyResult<()> {
        let shared = Arc::clone(&self.shared);
        work::run(py, move |_| shared.generate(force).map(drop))
    }

    /// The serialised evaluation key; none where the model needs none. Makes keys if there are none.
    fn evaluation_key<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let shared = Arc::clone(&self.shared);
        let key = work::run(py, move |_| match shared.keys()?.file {
            None => Ok(None),
            Some(KeyFile::Bytes(bytes)) => Ok(Some(bytes)),
            Some(KeyFile::Folder(folder)) => Ok(Some(Arc::new(folder.evaluation_key_file()?))),
        })?;
        Ok(key.map(|key| PyBytes::new(py, &key)))
    }

    /// Encrypts rows: one of a circuit as Concrete serialises it, many as our file of rows.
    fn encrypt<'py>(
        &self,
        py: Python<'py>,
        rows: AnyRows<'_>,
        form: &str,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let form = parse_form(form).map_err(|failure| failure.into_exception(py))?;
        let rows = rows.of(&*self.shared.model).map_err(|failure| failure.into_exception(py))?;
        let shared = Arc::clone(&self.shared);
        let encrypted = work::run(py, move |stop| {
            let encryption = in_form(shared.keys()?.encryption, form, rows.len())?;
            let file = encrypt(&*encryption, &rows, &|| stop.load(Ordering::Relaxed));
            file.map_err(|error| Failure::of(class_of(&error), &error))
        })?;
        Ok(PyBytes::new(py, &encrypted))
    }

    /// Integers of what `encrypt` was evaluated to: a line for each row.
    fn decrypt<'py>(
        &self,
        py: Python<'py>,
        outputs: PyBackedBytes,
    ) -> PyResult<Bound<'py, PyArray2<i64>>> {
        let shared = Arc::clone(&self.shared);
        let integers = work::run(py, move |_| {
            Content::Ciphertexts.require(&outputs).map_err(Failure::as_class(Class::Rows))?;
            let encryption = shared.keys()?.encryption;
            let integers = match read_rows_file(&outputs) {
                // Several rows of a circuit, whose own files hold one.
                Ok(file) if encryption.model().interface().rows_of_file.is_some() => {
                    let owner = encryption.require_owner(file.owner);
                    owner.and_then(|()| encryption.decrypt(file.body, file.rows, None))
                }
                _ => encryption.decrypt_file(&outputs),
            };
            integers.map_err(|error| Failure::of(class_of(&error), &error))
        })?;
        arrays::array(py, &integers)
    }

    /// Scores of integers: a line for each row.
    fn scores<'py>(
        &self,
        py: Python<'py>,
        integers: PyReadonlyArray2<'_, i64>,
    ) -> PyResult<Bound<'py, PyArray2<f64>>> {
        let values: Vec<i64> = integers.as_array().iter().copied().collect();
        let shared = Arc::clone(&self.shared);
        let scores = work::run(py, move |_| {
            let outputs = shared.model.interface().outputs;
            if values.is_empty() || !values.len().is_multiple_of(outputs) {
                let message = format!("integers of this model are rows of {outputs}");
                return Err(Failure::new(Class::Rows, message));
            }
            let scores = scores(&*shared.model, &Matrix::new(outputs, values));
            scores.map_err(Failure::as_class(Class::Rows))
        })?;
        arrays::array(py, &scores)
    }

    /// Whether a `server.zip` has the keys and encodings of this `client.zip`.
    fn fits(&self, py: Python<'_>, server_zip: PyBackedBytes) -> PyResult<bool> {
        let shared = Arc::clone(&self.shared);
        work::run(py, move |_| {
            shared.model.fits(&server_zip).map_err(Failure::as_class(Class::Artifact))
        })
    }
}

impl Client {
    fn interface(&self) -> &Interface {
        self.shared.model.interface()
    }

    pub(crate) fn model(&self) -> &dyn ClientModel {
        &*self.shared.model
    }

    /// Keys, which are made if there are none. Takes time.
    pub(crate) fn keys(&self) -> impl FnOnce() -> Result<Keys, Failure> + Send + 'static {
        let shared = Arc::clone(&self.shared);
        move || shared.keys()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Option<Keys>> {
        self.keys.lock()
    }

    fn keys(&self) -> Result<Keys, Failure> {
        self.generate(false)
    }

    /// The keys that are there, or new ones.
    fn generate(&self, force: bool) -> Result<Keys, Failure> {
        let mut keys = self.lock();
        if let (Some(keys), false) = (&*keys, force) {
            return Ok(keys.clone());
        }
        let new = match &self.folder {
            Some(folder) => self.in_folder(folder, force)?,
            None => self.in_memory()?,
        };
        Ok(keys.insert(new).clone())
    }

    fn in_folder(&self, folder: &KeyFolder, force: bool) -> Result<Keys, Failure> {
        if force || matches!(folder.digests(None), Err(KeyFolderError::Missing(_))) {
            if !force {
                folder.require_vacant()?;
            }
            let new = self.model.make_keys(&|| ()).map_err(Failure::as_class(Class::Keys))?;
            folder.store(&new, self.passphrase.clone())?;
        }
        let model = Arc::clone(&self.model);
        let encryption = folder.encryption(model, || Ok(self.passphrase.clone()))?;
        let mut evaluation = Vec::new();
        for it in in_each_form(&encryption) {
            let model = it.model();
            let form = model.form();
            match folder.digests(form)?.0 {
                Some(id) => evaluation.push((form, id, KeySource::Folder(folder.clone(), form))),
                // Says so.
                None if model.interface().needs_key => drop(folder.evaluation_key(form)?),
                None => {}
            }
        }
        let file = (!evaluation.is_empty()).then(|| KeyFile::Folder(folder.clone()));
        Ok(Keys { encryption, evaluation, file })
    }

    fn in_memory(&self) -> Result<Keys, Failure> {
        let failed = Failure::as_class(Class::Keys);
        let new = self.model.make_keys(&|| ()).map_err(&failed)?;
        let encryption = Arc::clone(&self.model).with_key(&new.client).map_err(&failed)?;
        let file = new.evaluation.map(Arc::new);
        let keys = file.as_deref().map(|file| evaluation_keys_of(file)).transpose();
        let keys = keys.map_err(Failure::as_class(Class::Keys))?.unwrap_or_default();
        let evaluation = keys.into_iter().map(|(form, key)| {
            let id = EvaluationKeyId::of(key);
            let bytes = match (&file, form) {
                (Some(file), None) => Arc::clone(file),
                _ => Arc::new(key.to_vec()),
            };
            (form, id, KeySource::Bytes(bytes))
        });
        let evaluation = evaluation.collect();
        Ok(Keys { encryption, evaluation, file: file.map(KeyFile::Bytes) })
    }
}

/// What encrypts in each of the forms that its keys are for.
fn in_each_form(encryption: &Arc<dyn Encryption>) -> Vec<Arc<dyn Encryption>> {
    match encryption.forms() {
        forms if forms.is_empty() => vec![Arc::clone(encryption)],
        forms => forms,
    }
}

/// `auto`, `rows` or `bulk`.
pub(crate) fn parse_form(form: &str) -> Result<FormChoice, Failure> {
    let wrong = |_| Failure::new(Class::Rows, "form is one of \"auto\", \"rows\" and \"bulk\"");
    form.parse().map_err(wrong)
}

/// What encrypts so many rows.
pub(crate) fn in_form(
    encryption: Arc<dyn Encryption>,
    form: FormChoice,
    rows: usize,
) -> Result<Arc<dyn Encryption>, Failure> {
    let chosen = encryption_in_form(encryption, form, rows as u64);
    Ok(chosen.map_err(Failure::as_class(Class::Artifact))?.it)
}

/// What an error of encryption or decryption is about.
pub(crate) fn class_of(error: &EncryptionError) -> Class {
    if let Some(finality) = error.finality() {
        return finality.into();
    }
    match error {
        EncryptionError::OtherOwner { .. }
        | EncryptionError::KeyLog(_)
        | EncryptionError::UnknownUpload => Class::Keys,
        EncryptionError::NoForm { .. } | EncryptionError::OneForm(_) => Class::Artifact,
        EncryptionError::OutOfRange(_) => Class::Range,
        _ => Class::Rows,
    }
}

fn encrypt(
    encryption: &dyn Encryption,
    rows: &Matrix<f64>,
    stop: Stop<'_>,
) -> Result<Vec<u8>, EncryptionError> {
    encryption.model().check(rows, 1)?;
    match encryption.model().interface().rows_of_file {
        Some(most) if rows.len() > most => {
            let encrypted = encryption.encrypt_unless(rows, stop)?;
            Ok(write_rows_file(rows.len(), encryption.owner(), &encrypted.body)?)
        }
        _ => encryption.encrypt_file_unless(rows, stop),
    }
}

/// Scores of all rows.
pub(crate) fn scores(
    model: &dyn ClientModel,
    integers: &Matrix<i64>,
) -> Result<Matrix<f64>, EncryptionError> {
    let scores = integers.par_rows().map(|row| model.scores(row));
    let scores: Vec<_> = scores.collect::<Result<_, _>>()?;
    Ok(Matrix::new(model.interface().scores, scores.concat()))
}
