//! Evaluation in this process.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cipherscore_artifact::content::Content;
use cipherscore_artifact::files::{FilesError, JobRows};
use cipherscore_artifact::server::{Form, ServerZip, open_server};
use cipherscore_common::EvaluationKeyId;
use cipherscore_engine::evaluator::PreparedKey;
use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;

use crate::failure::{Class, Failure};
use crate::{recorder, work};

/// A model as it is evaluated.
#[pyclass(frozen, module = "cipherscore._native")]
pub(crate) struct Server {
    shared: Arc<Shared>,
}

struct Shared {
    form: Form,
    /// The last key, as calls come with the same one.
    prepared: Mutex<Option<(EvaluationKeyId, Arc<PreparedKey>)>>,
}

#[pymethods]
impl Server {
    #[new]
    #[pyo3(signature = (server_zip, recorder=None))]
    fn new(
        py: Python<'_>,
        server_zip: PyBackedBytes,
        recorder: Option<Vec<OsString>>,
    ) -> PyResult<Self> {
        work::run(py, move |_| {
            let threads = rayon::current_num_threads();
            let threads = NonZeroUsize::new(threads).unwrap_or(NonZeroUsize::MIN);
            let recorder = recorder::command(recorder);
            let forms = open_server(&server_zip, recorder.as_ref(), threads);
            let form = forms.map_err(Failure::as_class(Class::Artifact))?.preferred;
            Ok(Self { shared: Arc::new(Shared { form, prepared: Mutex::default() }) })
        })
    }

    /// Digest of the original `server.zip`.
    #[getter]
    fn model_id(&self) -> String {
        self.shared.form.evaluator.requirements().model_id.to_string()
    }

    #[getter]
    fn needs_key(&self) -> bool {
        self.shared.form.evaluator.requirements().needs_key
    }

    /// Bootstraps of a row of a circuit; 0 of any other kind of model.
    #[getter]
    fn bootstraps(&self) -> usize {
        self.shared.form.facts.cost.unwrap_or_default().bootstraps
    }

    /// Evaluates the values of one row, or rows that were encrypted together.
    fn run<'py>(
        &self,
        py: Python<'py>,
        values: Vec<PyBackedBytes>,
        evaluation_key: PyBackedBytes,
    ) -> PyResult<Vec<Bound<'py, PyBytes>>> {
        let shared = Arc::clone(&self.shared);
        let outputs = work::run(py, move |stop| shared.run(&values, &evaluation_key, stop))?;
        Ok(outputs.iter().map(|output| PyBytes::new(py, output)).collect())
    }
}

impl Shared {
    fn run(
        &self,
        values: &[PyBackedBytes],
        key: &[u8],
        stop: &AtomicBool,
    ) -> Result<Vec<Vec<u8>>, Failure> {
        let (evaluator, files) = (&self.form.evaluator, self.form.files.found_in(values));
        let JobRows { rows: count, owner, body } = files.read(values).map_err(unreadable)?;
        let rows = Failure::as_class(Class::Rows);
        let (key, stopped) = (self.prepare(key)?, || stop.load(Ordering::Relaxed));
        if let Some(key) = &key {
            key.require_owner(owner).map_err(Failure::as_class(Class::Keys))?;
        }
        let mut evaluation = Arc::clone(evaluator).begin(key, count).map_err(&rows)?;
        evaluation.push(&body, &stopped).map_err(&rows)?;
        drop(body);
        let outputs = evaluation.finish(&stopped).map_err(&rows)?;
        files.write(count, owner, &outputs).map_err(Failure::as_class(Class::Rows))
    }

    /// None where the model needs none.
    fn prepare(&self, key: &[u8]) -> Result<Option<Arc<PreparedKey>>, Failure> {
        if !self.form.evaluator.requirements().needs_key {
            return Ok(None);
        }
        let id = EvaluationKeyId::of(key);
        // Who comes with the same key meanwhile waits for it.
        let mut prepared = self.prepared.lock();
        if let Some((_, key)) = prepared.as_ref().filter(|(known, _)| *known == id) {
            return Ok(Some(Arc::clone(key)));
        }
        let other = Failure::as_class(Class::Keys);
        Content::EvaluationKey.require(key).map_err(other)?;
        // Two prepared keys at a time may be more than memory has room for.
        *prepared = None;
        let key = self.form.evaluator.prepare(key.to_vec());
        let key = Arc::new(key.map_err(Failure::as_class(Class::Keys))?);
        *prepared = Some((id, Arc::clone(&key)));
        Ok(Some(key))
    }
}

/// What it means that values are not those of a job.
fn unreadable(error: FilesError) -> Failure {
    match error {
        FilesError::Rows(_) => Failure::new(
            Class::Rows,
            "these are not rows that FHEModelClient.quantize_encrypt_serialize of this package \
             encrypted for a compiled model",
        ),
        other => Failure::of(Class::Rows, &other),
    }
}

/// Which model a `server.zip` is: jobs name it so. Machine code is not looked at.
#[pyfunction]
pub(crate) fn server_model_id(py: Python<'_>, server_zip: PyBackedBytes) -> PyResult<String> {
    work::run(py, move |_| {
        let id = ServerZip::read(&server_zip).and_then(|zip| zip.model_id());
        Ok(id.map_err(Failure::as_class(Class::Artifact))?.to_string())
    })
}
