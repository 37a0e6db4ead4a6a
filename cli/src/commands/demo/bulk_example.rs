//! A model as XGBoost saved it, inside this program, and what our compiler makes of it.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use cipherscore_common::ModelId;
use cipherscore_compiler::{CompileOptions, Compiled, WantedForms, compile, read as read_model};
use cipherscore_producer::client_zip::open_client;
use cipherscore_producer::matrix::Matrix;
use cipherscore_producer::model::{ClientModel, Features};

use super::examples::{read, read_labels, write_model};
use crate::commands::compile::input_features;
use crate::progress;

const FOLDER: &str = "breast_cancer_xgboost";
/// What is scored.
pub(super) const SUBJECT: &str = "breast cancer again: 50 trees that XGBoost saved, in bulk";
/// The classes, in the order of the scores.
pub(super) const CLASSES: [&str; 2] = ["malignant", "benign"];
/// Steepest slope of the logistic function, which makes a probability of a raw output.
const LOGISTIC_SLOPE: f64 = 0.25;
/// XGBoost adds leaves in float32, and predicts a probability in it.
const SINGLE_PRECISION: f64 = 1e-6;

macro_rules! file {
    ($name:literal) => {
        include_str!(concat!("../../../../examples/breast_cancer_xgboost/", $name))
    };
}
const MODEL_JSON: &str = file!("model.json");
const TRAINING_CSV: &str = file!("training.csv");
const ROWS_CSV: &str = file!("rows.csv");
const LABELS_CSV: &str = file!("labels.csv");
const CLEAR_CSV: &str = file!("clear.csv");

/// The model, compiled.
pub(super) struct BulkExample {
    pub(super) compiled: Compiled,
    pub(super) compile_seconds: f64,
    pub(super) model_id: ModelId,
}

impl BulkExample {
    /// With the compiler's defaults: thresholds among decoys, the model hidden.
    pub(super) fn compile(json: bool) -> anyhow::Result<Self> {
        let spinner = progress::spinner(json, "compiling the model of XGBoost");
        let started = Instant::now();
        let model = read_model(MODEL_JSON.as_bytes(), None).context(FOLDER)?;
        let training = read(TRAINING_CSV, &input_features(&model))?;
        let calibration = Some(training.rows().map(<[f64]>::to_vec).collect());
        let forms = WantedForms::Both;
        let options = CompileOptions { calibration, forms, ..CompileOptions::default() };
        let compiled = compile(&model, &options)?;
        let compile_seconds = started.elapsed().as_secs_f64();
        spinner.finish_and_clear();
        let model_id = compiled.model_id;
        Ok(Self { compiled, compile_seconds, model_id })
    }

    pub(super) fn client(&self) -> anyhow::Result<Arc<dyn ClientModel>> {
        open_client(&self.compiled.client_zip).context(FOLDER)
    }

    /// How far a score may be from XGBoost's: what rounding makes of the raw output, as the
    /// compiler's report says, through the logistic function.
    pub(super) fn bound(&self) -> f64 {
        let raw_error = self.compiled.report.raw_error.iter().fold(0.0, |a: f64, b| a.max(*b));
        LOGISTIC_SLOPE * raw_error + SINGLE_PRECISION
    }

    /// Puts the model where a worker finds it.
    pub(super) fn write_to(&self, models: &Path) -> anyhow::Result<()> {
        write_model(models, FOLDER, &self.compiled.server_zip)
    }
}

/// Rows that the model was not trained on.
pub(super) fn rows(features: &Features) -> anyhow::Result<Matrix<f64>> {
    read(ROWS_CSV, features)
}

/// What XGBoost itself predicts for them.
pub(super) fn clear() -> anyhow::Result<Matrix<f64>> {
    read(CLEAR_CSV, &Features::unnamed(CLASSES.len()))
}

/// The largest between a row's scores and XGBoost's own.
pub(super) fn difference(scores: &[f64], clear: &[f64]) -> f64 {
    let pairs = scores.iter().zip(clear);
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

/// What they really are.
pub(super) fn labels() -> anyhow::Result<Vec<&'static str>> {
    read_labels(LABELS_CSV, &CLASSES)
}
