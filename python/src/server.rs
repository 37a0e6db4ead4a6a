//! Evaluation in this process.

use std::collections::HashMap;
use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cipherscore_artifact::content::{Content, owner_of_evaluation_key};
use cipherscore_artifact::files::{FilesError, JobRows, form_of_rows_file};
use cipherscore_artifact::key_file::evaluation_key_of;
use cipherscore_artifact::server::{Form, Forms, ServerZip, open_server};
use cipherscore_common::{EvaluationKeyId, FormName};
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

/// A prepared key and what it was made of.
type LastKey = (EvaluationKeyId, Arc<PreparedKey>);

struct Shared {
    forms: Forms,
    /// The last key of each form, as calls come with the same one.
    prepared: Mutex<HashMap<Option<FormName>, LastKey>>,
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
            let forms = forms.map_err(Failure::as_class(Class::Artifact))?;
            Ok(Self { shared: Arc::new(Shared { forms, prepared: Mutex::default() }) })
        })
    }

    /// Digest of the original `server.zip`.
    #[getter]
    fn model_id(&self) -> String {
        self.shared.forms.preferred.evaluator.requirements().model_id.to_string()
    }

    #[getter]
    fn needs_key(&self) -> bool {
        self.shared.forms.preferred.evaluator.requirements().needs_key
    }

    /// Bootstraps of a row of a circuit; 0 of any other kind of model.
    #[getter]
    fn bootstraps(&self) -> usize {
        self.shared.forms.preferred.facts.cost.unwrap_or_default().bootstraps
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
        let name = match values {
            [only] => form_of_rows_file(only),
            _ => None,
        };
        let form = self.forms.get(name).ok_or_else(|| {
            let message = format!("the model has no form `{}`", name.map_or("", FormName::as_str));
            Failure::new(Class::Rows, message)
        })?;
        let (evaluator, files) = (&form.evaluator, form.files.found_in(values));
        let JobRows { rows: count, owner, body } = files.read(values).map_err(unreadable)?;
        let rows = Failure::as_class(Class::Rows);
        let (key, stopped) = (self.prepare(form, key)?, || stop.load(Ordering::Relaxed));
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
    fn prepare(&self, form: &Form, key: &[u8]) -> Result<Option<Arc<PreparedKey>>, Failure> {
        if !form.evaluator.requirements().needs_key {
            return Ok(None);
        }
        Content::EvaluationKey.require(key).map_err(Failure::as_class(Class::Keys))?;
        let owner = owner_of_evaluation_key(key);
        let key = evaluation_key_of(key, form.name).map_err(Failure::as_class(Class::Keys))?;
        let id = EvaluationKeyId::of(key);
        // Who comes with the same key meanwhile waits for it.
        let mut prepared = self.prepared.lock();
        if let Some((_, key)) = prepared.get(&form.name).filter(|(known, _)| *known == id) {
            return Ok(Some(Arc::clone(key)));
        }
        // Two prepared keys at a time may be more than memory has room for.
        prepared.remove(&form.name);
        let key = form.evaluator.prepare(key.to_vec());
        let key = Arc::new(key.map_err(Failure::as_class(Class::Keys))?.with_owner(owner));
        prepared.insert(form.name, (id, Arc::clone(&key)));
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
