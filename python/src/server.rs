//! Evaluation in this process.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cipherscore_common::EvaluationKeyId;
use cipherscore_concrete::artifact::{ArtifactKind, Opened, model_id, open_evaluator};
use cipherscore_concrete::framing::{frame_values, split_values};
use cipherscore_engine::artifact::Archive;
use cipherscore_engine::evaluator::{Evaluator, PreparedKey};
use cipherscore_producer::model::{read_rows_file, write_rows_file};
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
    bootstraps: usize,
}

struct Shared {
    evaluator: Arc<dyn Evaluator>,
    kind: ArtifactKind,
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
            let artifact = Failure::as_class(Class::Artifact);
            let kind = ArtifactKind::of(&Archive::read(&server_zip).map_err(artifact)?);
            let threads = rayon::current_num_threads();
            let threads = NonZeroUsize::new(threads).unwrap_or(NonZeroUsize::MIN);
            let recorder = recorder::command(recorder);
            let opened = open_evaluator(&server_zip, recorder.as_ref(), threads);
            let Opened { evaluator, cost } = opened.map_err(Failure::as_class(Class::Artifact))?;
            let shared = Shared { evaluator, kind, prepared: Mutex::default() };
            Ok(Self { shared: Arc::new(shared), bootstraps: cost.bootstraps })
        })
    }

    /// Digest of the original `server.zip`.
    #[getter]
    fn model_id(&self) -> String {
        self.shared.evaluator.model_id().to_string()
    }

    #[getter]
    fn needs_key(&self) -> bool {
        self.shared.evaluator.needs_key()
    }

    /// Bootstraps of a row of a circuit; 0 of any other kind of model.
    #[getter]
    fn bootstraps(&self) -> usize {
        self.bootstraps
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
        let rows = Failure::as_class(Class::Rows);
        let together = match values {
            [file] => read_rows_file(file).ok(),
            _ => None,
        };
        if self.kind == ArtifactKind::Bulk && together.is_none() {
            return Err(Failure::new(
                Class::Rows,
                "these are not rows that FHEModelClient.quantize_encrypt_serialize of this package \
                 encrypted for a compiled model",
            ));
        }
        let (count, payload) = match together {
            Some((count, body)) => (count, body.to_vec()),
            None => (1, frame_values(values)),
        };
        let (key, stopped) = (self.prepare(key)?, || stop.load(Ordering::Relaxed));
        let mut evaluation = Arc::clone(&self.evaluator).begin(key, count).map_err(&rows)?;
        evaluation.push(&payload, &stopped).map_err(&rows)?;
        drop(payload);
        let outputs = evaluation.finish(&stopped).map_err(&rows)?;
        match together {
            Some(_) => {
                let file = write_rows_file(usize::try_from(count).unwrap_or(usize::MAX), &outputs);
                Ok(vec![file.map_err(Failure::as_class(Class::Rows))?])
            }
            None => {
                let values = split_values(&outputs).map_err(Failure::as_class(Class::Rows))?;
                Ok(values.into_iter().map(<[u8]>::to_vec).collect())
            }
        }
    }

    /// None where the model needs none.
    fn prepare(&self, key: &[u8]) -> Result<Option<Arc<PreparedKey>>, Failure> {
        if !self.evaluator.needs_key() {
            return Ok(None);
        }
        let id = EvaluationKeyId::of(key);
        // Who comes with the same key meanwhile waits for it.
        let mut prepared = self.prepared.lock();
        if let Some((_, key)) = prepared.as_ref().filter(|(known, _)| *known == id) {
            return Ok(Some(Arc::clone(key)));
        }
        // Two prepared keys at a time may be more than memory has room for.
        *prepared = None;
        let key = self.evaluator.prepare(key.to_vec());
        let key = Arc::new(key.map_err(Failure::as_class(Class::Keys))?);
        *prepared = Some((id, Arc::clone(&key)));
        Ok(Some(key))
    }
}

/// Which model a `server.zip` is: jobs name it so. Machine code is not looked at.
#[pyfunction]
pub(crate) fn server_model_id(py: Python<'_>, server_zip: PyBackedBytes) -> PyResult<String> {
    work::run(py, move |_| {
        let id = model_id(&server_zip).map_err(Failure::as_class(Class::Artifact))?;
        Ok(id.to_string())
    })
}
