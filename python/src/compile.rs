//! Trained models to artifacts.

use cipherscore_compiler::settle::{Unsettled, settle};
use cipherscore_compiler::trained::{
    Body, CategoryNames, Ensemble, Feature, Linear, Missing, NamedCategories, ScoreKind,
    TrainedModel,
};
use cipherscore_compiler::{self as compiler, CompileError, Format, read};
use cipherscore_engine::bulk::client_model::Unseen;
use cipherscore_engine::bulk::plan::PlanError;
use numpy::PyReadonlyArray2;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;

use crate::failure::{Class, Failure, causes};
use crate::options::{CompileArguments, expected};
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

/// How the command line is told what the model itself answers, and how it is here.
const TOLD: &str = "--expected with what the library answers to the calibration rows";
const ASKED: &str = "save(calibration=X), with which the model itself is asked";

/// Compiles what a library saved. `format` is `onnx`, or none where the bytes show it.
#[pyfunction]
#[pyo3(signature = (model, format, options))]
pub(crate) fn compile_file(
    py: Python<'_>,
    model: PyBackedBytes,
    format: Option<&str>,
    options: CompileArguments<'_>,
) -> PyResult<Compiled> {
    let asked = || Ok((options.options()?, options.told()?, options.lines()?));
    let (mut options, told, lines) =
        asked().map_err(|failure: Failure| failure.into_exception(py))?;
    let hint = hint_of(format);
    work::run(py, move |_| {
        let first = read(&model, hint).map_err(Failure::as_class(Class::Unsupported))?;
        options.expected = expected(lines, &first, &options)?;
        let rows = options.calibration.as_ref().map(|rows| as_they_are_meant(rows, &options));
        let read = settle(&model, hint, &told, rows.as_deref(), options.expected.as_ref());
        let read = read.map_err(|error| match error {
            Unsettled::Read(error) => Failure::new(Class::Unsupported, error.to_string()),
            error => Failure::new(Class::Compile, error.to_string().replace(TOLD, ASKED)),
        })?;
        compile(&read.model, &options)
    })
}

fn hint_of(format: Option<&str>) -> Option<Format> {
    format.filter(|format| *format == "onnx").map(|_| Format::Onnx)
}

/// Rows whose missing values are NaN.
fn as_they_are_meant(rows: &[Vec<f64>], options: &compiler::CompileOptions) -> Vec<Vec<f64>> {
    let marks = &options.missing_numbers;
    let value = |&value: &f64| if marks.contains(&value) { f64::NAN } else { value };
    rows.iter().map(|row| row.iter().map(value).collect()).collect()
}

/// Of each feature of a file the texts or the numbers that are its categories, if it has any, and
/// whether the library refuses others.
pub(crate) type FileCategories = Vec<Option<(Option<Vec<String>>, Option<Vec<f64>>, bool)>>;

/// The categories of what a library saved.
#[pyfunction]
pub(crate) fn file_categories(
    py: Python<'_>,
    model: PyBackedBytes,
    format: Option<&str>,
) -> PyResult<FileCategories> {
    let model = read(&model, hint_of(format)).map_err(Failure::as_class(Class::Unsupported));
    let model = model.map_err(|failure| failure.into_exception(py))?;
    let of_feature = |feature: &Feature| {
        let NamedCategories { names, unseen } = feature.categories.as_ref()?;
        let is_refused = *unseen == Unseen::Refused;
        Some(match names.clone() {
            CategoryNames::Texts(texts) => (Some(texts), None, is_refused),
            CategoryNames::Numbers(numbers) => (None, Some(numbers), is_refused),
        })
    };
    Ok(model.features.iter().map(of_feature).collect())
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
    let asked = || Ok((options.options()?, options.lines()?));
    let (mut options, lines) = asked().map_err(|failure: Failure| failure.into_exception(py))?;
    work::run(py, move |_| {
        options.expected = expected(lines, &model, &options)?;
        compile(&model, &options)
    })
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
    let asked = || Ok((options.options()?, options.lines()?));
    let (mut options, lines) = asked().map_err(|failure: Failure| failure.into_exception(py))?;
    work::run(py, move |_| {
        options.expected = expected(lines, &model, &options)?;
        compile(&model, &options)
    })
}

/// Compiles, and refuses what is not what the model itself answers. Thresholds that were moved on
/// purpose answer otherwise.
fn compile(model: &TrainedModel, options: &compiler::CompileOptions) -> Result<Compiled, Failure> {
    let compiled = compiler::compile(model, options);
    let moves = options.max_bins.is_some() || options.bins == compiler::Bins::Full;
    if let Ok(compiled) = &compiled
        && let Some(comparison) = compiled.expected.as_ref().filter(|it| !it.agrees() && !moves)
    {
        return Err(Failure::new(Class::Compile, comparison.to_string()));
    }
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
