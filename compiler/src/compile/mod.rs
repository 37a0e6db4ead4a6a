//! From a trained model to `client.zip` and `server.zip`.

mod agreement;
mod ensemble;
mod forms;
mod linear;
#[cfg(test)]
mod tests;

use std::fmt;
use std::num::NonZeroU32;

use cipherscore_engine::artifact::{Kind, ModelId, NativeManifest};
use cipherscore_engine::bulk::artifact::BulkArtifactError;
use cipherscore_engine::bulk::client_model::{
    BulkClientModel, Inputs, InvalidBulkClientModel, Scores,
};
use cipherscore_engine::bulk::plan::PlanError;
use cipherscore_engine::compiled::{CompiledClientArtifact, CompiledServerArtifact};
use thiserror::Error;

use self::agreement::Evaluated;
use self::forms::{BulkForm, Described, RowForm};
pub use self::forms::{LeftOut, RowFormError, WantedForms};
use crate::bins::Bins;
use crate::invalid::InvalidModel;
use crate::lower::{LowerError, RoundedOutput};
use crate::ranges::{FeatureRange, RangesError};
use crate::report::{CompileReport, FeatureColumns};
use crate::trained::{Body, TrainedModel};

/// How a model is compiled.
#[derive(Debug, Clone, PartialEq)]
pub struct CompileOptions {
    /// Rows like those to come, in the order of the model's features; NaN is missing.
    pub calibration: Option<Vec<Vec<f64>>>,
    /// Ranges of a linear model's features; without them they are taken from the calibration rows.
    pub ranges: Option<Vec<FeatureRange>>,
    /// How an ensemble's thresholds are offered. All but [`Bins::Used`] need calibration rows.
    pub bins: Bins,
    /// Merges the thresholds of each feature to at most so many.
    pub max_bins: Option<usize>,
    /// Largest difference that rounding may make, relative to what a raw output can be.
    pub max_error: f64,
    /// Whether replies hide an ensemble from the data owner. Linear models are never hidden, and the form
    /// for single rows always hides.
    pub hide: bool,
    /// log2 of the probability that any score of a ring batch, or of a row, is wrong.
    pub log2_p_fail: f64,
    /// For how many rows at a time an ensemble is compiled.
    pub forms: WantedForms,
    /// Least R of the row form: tags are weighted by factors from 1 to R, and what bits that are none
    /// tell of the trees' structure takes more rows the larger it is.
    pub tag_factors: NonZeroU32,
}

impl Default for CompileOptions {
    fn default() -> Self {
        Self {
            calibration: None,
            ranges: None,
            bins: Bins::default(),
            max_bins: None,
            max_error: 1e-3,
            hide: true,
            log2_p_fail: -128.0,
            forms: WantedForms::default(),
            tag_factors: NonZeroU32::MIN,
        }
    }
}

/// A compiled model.
#[derive(Clone, PartialEq)]
pub struct Compiled {
    /// For data owners.
    pub client_zip: Vec<u8>,
    /// For workers.
    pub server_zip: Vec<u8>,
    /// `model.json`, which lies beside the zips.
    pub manifest: Vec<u8>,
    /// The model: digest of `server.zip`.
    pub model_id: ModelId,
    /// What was found out.
    pub report: CompileReport,
    /// The form that was wanted and is not there.
    pub left_out: Option<LeftOut>,
}

impl fmt::Debug for Compiled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Compiled({}, {:?})", self.model_id, self.report)
    }
}

/// Why a model cannot be compiled.
#[derive(Debug, Error)]
pub enum CompileError {
    /// It contradicts itself.
    #[error("the trained model is invalid: {0}")]
    Invalid(#[from] InvalidModel),
    /// It cannot be lowered.
    #[error(transparent)]
    Lower(#[from] LowerError),
    /// An option that needs rows, without rows.
    #[error("{0} need calibration rows: give rows like those to come (--calibration)")]
    CalibrationNeeded(&'static str),
    /// A calibration row that is none of the model.
    #[error("calibration row {row} has {found} features, where the model has {expected}")]
    CalibrationRow {
        /// Its position.
        row: usize,
        /// Its features.
        found: usize,
        /// The model's.
        expected: usize,
    },
    /// Ranges of a linear model.
    #[error(transparent)]
    Ranges(#[from] RangesError),
    /// A range of a linear model.
    #[error("{0}")]
    Range(InvalidBulkClientModel),
    /// More predicates than an upload or a feature can have.
    #[error(
        "{found} {what}, where at most {limit} are possible; merged thresholds (--max-bins) are \
         fewer"
    )]
    TooManyPredicates {
        /// How many there are.
        found: usize,
        /// Of what.
        what: &'static str,
        /// How many there may be.
        limit: usize,
    },
    /// What the data owner would get makes no sense, such as a name with control characters.
    #[error(transparent)]
    BulkClientModel(#[from] InvalidBulkClientModel),
    /// No parameters fit.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A linear model for single rows.
    #[error("a linear model has no form for single rows; compile it for bulk")]
    LinearRows,
    /// A row form that does not hide the model.
    #[error(
        "the form for single rows always hides the model from data owners, and this one is not to be \
         hidden (--no-hide)"
    )]
    RowsAreHidden,
    /// No row form, where nothing else is wanted.
    #[error("no form for single rows: {0}")]
    Rows(#[from] RowFormError),
    /// Neither form, where either would do.
    #[error("{bulk}; and no form for single rows: {rows}")]
    NoForm {
        /// Why there is no bulk form.
        bulk: PlanError,
        /// Why there is no row form.
        rows: RowFormError,
    },
    /// The zips.
    #[error(transparent)]
    Artifact(#[from] BulkArtifactError),
}

/// Compiles a model.
pub fn compile(model: &TrainedModel, options: &CompileOptions) -> Result<Compiled, CompileError> {
    model.validate()?;
    for (row, values) in options.calibration.iter().flatten().enumerate() {
        let (found, expected) = (values.len(), model.features.len());
        if found != expected {
            return Err(CompileError::CalibrationRow { row, found, expected });
        }
    }
    let parts = match &model.body {
        Body::Ensemble(ensemble) => ensemble::compile(model, ensemble, options)?,
        Body::Linear(linear) => linear::compile(model, linear, options)?,
    };
    parts.pack(model, options)
}

/// A model in the forms that engines and data owner take.
struct Parts {
    kind: Kind,
    bins: Option<Bins>,
    inputs: Inputs,
    outputs: Vec<RoundedOutput>,
    /// Largest difference that rounding makes, relative to what an output can be.
    relative_error: f64,
    bulk: Option<BulkForm>,
    rows: Option<RowForm>,
    left_out: Option<LeftOut>,
    data_owner_learns: Vec<String>,
}

impl Parts {
    fn pack(
        self,
        model: &TrainedModel,
        options: &CompileOptions,
    ) -> Result<Compiled, CompileError> {
        let client_model = BulkClientModel {
            class_name: model.class_name.clone(),
            inputs: self.inputs.clone(),
            scores: Scores {
                outputs: self.outputs.iter().map(|output| output.scale).collect(),
                link: model.link,
                kind: model.score_kind,
                classes: model.classes.clone(),
            },
        };
        client_model.validate()?;
        let bulk = self.bulk.as_ref().map(|form| (form.specs(options), &form.program));
        let rows = self.rows.as_ref().map(|form| (form.specs(), &form.program));
        let report = self.report(model, options, &client_model);
        let server_zip = CompiledServerArtifact::zip(
            self.kind,
            bulk.as_ref().map(|(specs, program)| (specs, *program)),
            rows.as_ref().map(|(specs, program)| (specs, *program)),
        )?;
        let model_id = ModelId::of(&server_zip);
        let client = CompiledClientArtifact {
            kind: self.kind,
            model_id,
            bulk: bulk.map(|(specs, _)| specs),
            rows: rows.map(|(specs, _)| specs),
            model: client_model,
            report: report.for_data_owner().to_json(),
        };
        let client_zip = client.to_zip()?;
        let zips = [("client.zip", client_zip.as_slice()), ("server.zip", server_zip.as_slice())];
        let manifest = NativeManifest::of(self.kind, Some(model_id), zips).to_json();
        let left_out = self.left_out;
        Ok(Compiled { client_zip, server_zip, manifest, model_id, report, left_out })
    }

    fn report(
        &self,
        model: &TrainedModel,
        options: &CompileOptions,
        client: &BulkClientModel,
    ) -> CompileReport {
        let calibration = options.calibration.as_deref();
        let rows = self.rows.as_ref();
        let program = self.bulk.as_ref().map(|form| Evaluated::Bulk(&form.program));
        let program =
            program.or(rows.map(|form| Evaluated::Rows(&form.program, &form.plan.parameters)));
        let agreement = calibration
            .zip(program)
            .map(|(rows, program)| agreement::of(model, client, program, rows));
        let described = self.described(options);
        CompileReport {
            class_name: model.class_name.clone(),
            kind: self.kind,
            bins: self.bins,
            features: self.feature_columns(),
            columns: u32::try_from(self.inputs.columns()).unwrap_or(u32::MAX),
            outputs: u32::try_from(self.outputs.len()).unwrap_or(u32::MAX),
            degree: described.degree,
            hidden: described.hidden,
            ring_dimension: described.ring_dimension,
            primes: described.primes,
            reply_primes: described.reply_primes,
            plaintext_modulus: described.plaintext_modulus,
            security_bits: described.security_bits,
            log2_p_fail: described.log2_p_fail,
            upload_bytes_per_row: described.upload_bytes_per_row,
            reply_bytes_per_row: described.reply_bytes_per_row,
            microseconds_per_row: described.microseconds_per_row,
            raw_error: self.outputs.iter().map(|output| output.error).collect(),
            relative_error: self.relative_error,
            agreement,
            data_owner_learns: self.data_owner_learns.clone(),
            noise_bits: described.noise_bits,
            rows: rows.map(RowForm::report),
        }
    }

    /// Of the bulk form; where there is none, of the row form.
    fn described(&self, options: &CompileOptions) -> Described {
        match (&self.bulk, &self.rows) {
            (Some(bulk), _) => bulk.described(options),
            (None, Some(rows)) => rows.described(),
            (None, None) => Described::default(),
        }
    }

    fn feature_columns(&self) -> Vec<FeatureColumns> {
        let mut columns = vec![0; self.inputs.features()];
        match &self.inputs {
            Inputs::Predicates(predicates) => {
                predicates.columns.iter().for_each(|column| columns[column.feature as usize] += 1);
            }
            Inputs::Linear(_) => columns.fill(1),
        }
        let columns = columns.into_iter().enumerate().filter(|&(_, columns)| columns > 0);
        let named = |(feature, columns)| FeatureColumns {
            feature: self.inputs.feature_name(feature).to_owned(),
            columns,
        };
        columns.map(named).collect()
    }
}
