//! Trained models to artifacts.

use cipherscore_compiler::trained::{Body, Ensemble, Linear, Missing, ScoreKind, TrainedModel};
use cipherscore_compiler::{self as compiler, CompileError, Format, read};
use cipherscore_engine::bulk::plan::PlanError;
use numpy::PyReadonlyArray2;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;

use crate::failure::{Class, Failure, causes};
use crate::options::CompileArguments;
use crate::trained::{self, Nodes};
use crate::work;

/// A compiled model.
#[pyclass(frozen, module = "cipherscore._native")]
pub(crate) struct Compiled(compiler::Compiled);

#[pymethods]
impl Compiled {
    #[getter]
    fn client_zip<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.client_zip)
    }

    #[getter]
    fn server_zip<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.server_zip)
    }

    /// `model.json`, which lies beside the zips.
    #[getter]
    fn manifest<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.manifest)
    }

    #[getter]
    fn model_id(&self) -> String {
        self.0.model_id.to_string()
    }

    /// What compiling found out, as JSON.
    #[getter]
    fn report<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.report.to_json())
    }
}

/// Compiles what a library saved. `format` is `onnx`, or none where the bytes show it.
#[pyfunction]
#[pyo3(signature = (model, format, options))]
pub(crate) fn compile_file(
    py: Python<'_>,
    model: PyBackedBytes,
    format: Option<&str>,
    options: CompileArguments<'_>,
) -> PyResult<Compiled> {
    let options = options.options().map_err(|failure| failure.into_exception(py))?;
    let hint = format.filter(|format| *format == "onnx").map(|_| Format::Onnx);
    work::run(py, move |_| {
        let model = read(&model, hint).map_err(Failure::as_class(Class::Unsupported))?;
        compile(&model, &options)
    })
}

/// What a model is, whatever its body.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Described {
    class_name: String,
    features: Vec<String>,
    single_precision: bool,
    link: String,
    link_scale: f64,
    probabilities: bool,
    classes: Vec<String>,
}

impl Described {
    fn model(self, body: Body) -> Result<TrainedModel, Failure> {
        Ok(TrainedModel {
            class_name: self.class_name,
            features: trained::features(self.features, self.single_precision),
            body,
            link: trained::link(&self.link, self.link_scale)?,
            score_kind: match self.probabilities {
                true => ScoreKind::Probabilities,
                false => ScoreKind::Predictions,
            },
            classes: self.classes,
            missing: Missing::OfInputs,
        })
    }
}

/// Compiles trees of scikit-learn.
#[pyfunction]
pub(crate) fn compile_trees(
    py: Python<'_>,
    described: Described,
    base: Vec<f64>,
    trees: Vec<Nodes<'_>>,
    options: CompileArguments<'_>,
) -> PyResult<Compiled> {
    let single = described.single_precision;
    let model = || {
        let trees = trees.iter().map(|tree| tree.tree(single)).collect::<Result<_, _>>()?;
        described.model(Body::Ensemble(Ensemble { base, trees }))
    };
    let model = model().map_err(|failure| failure.into_exception(py))?;
    let options = options.options().map_err(|failure| failure.into_exception(py))?;
    work::run(py, move |_| compile(&model, &options))
}

/// Compiles a linear model of scikit-learn: weights have a line for each raw output.
#[pyfunction]
pub(crate) fn compile_linear(
    py: Python<'_>,
    described: Described,
    intercepts: Vec<f64>,
    weights: PyReadonlyArray2<'_, f64>,
    options: CompileArguments<'_>,
) -> PyResult<Compiled> {
    let weights = weights.as_array().rows().into_iter().map(|row| row.to_vec()).collect();
    let model = described.model(Body::Linear(Linear { intercepts, weights }));
    let model = model.map_err(|failure| failure.into_exception(py))?;
    let options = options.options().map_err(|failure| failure.into_exception(py))?;
    work::run(py, move |_| compile(&model, &options))
}

fn compile(model: &TrainedModel, options: &compiler::CompileOptions) -> Result<Compiled, Failure> {
    let compiled = compiler::compile(model, options);
    compiled.map(Compiled).map_err(|error| {
        let advice = match &error {
            CompileError::CalibrationNeeded(_) | CompileError::Ranges(_) => {
                ". Give rows like those to come: save(calibration=X)"
            }
            CompileError::Plan(PlanError::Refused(_)) => {
                ". Arguments of save() are max_error=, p_fail=, max_bins= (with calibration=) and \
                 hide=False; a model is trained anew with less depth or fewer leaves"
            }
            _ => "",
        };
        // Options of the command line are arguments here.
        let causes =
            causes(&error).replace("--max-bins", "max_bins=").replace(" (--calibration)", "");
        Failure::new(Class::Compile, causes + advice)
    })
}
