//! From a trained model to `client.zip` and `server.zip`.

mod agreement;
mod ensemble;
mod linear;
#[cfg(test)]
mod tests;

use std::fmt;

use cipherscore_engine::artifact::{Kind, ModelId, NativeManifest};
use cipherscore_engine::bulk::artifact::{
    BulkArtifactError, BulkClientArtifact, BulkServerArtifact, BulkSpecs,
};
use cipherscore_engine::bulk::client_model::{
    BulkClientModel, Inputs, InvalidBulkClientModel, Scores,
};
use cipherscore_engine::bulk::plan::{Plan, PlanError};
use cipherscore_engine::bulk::program::ValidProgram;
use thiserror::Error;

use crate::bins::Bins;
use crate::invalid::InvalidModel;
use crate::lower::{LowerError, RoundedOutput};
use crate::ranges::{FeatureRange, RangesError};
use crate::report::{CompileReport, FeatureColumns, NS_PER_PRODUCT, NS_PER_WORD};
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
    /// Whether replies hide an ensemble from the data owner. Linear models are never hidden.
    pub hide: bool,
    /// log2 of the probability that any score of a ring batch is wrong.
    pub log2_p_fail: f64,
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

/// A model in the form that engine and data owner take.
struct Parts {
    kind: Kind,
    bins: Option<Bins>,
    plan: Plan,
    program: ValidProgram,
    inputs: Inputs,
    outputs: Vec<RoundedOutput>,
    data_owner_learns: Vec<String>,
}

impl Parts {
    fn pack(
        self,
        model: &TrainedModel,
        options: &CompileOptions,
    ) -> Result<Compiled, CompileError> {
        if self.program.degree() == 0 {
            // An error that is allowed to be as large as the outputs leaves nothing of them.
            return Err(LowerError::Constant.into());
        }
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
        let (specs, report) = (self.specs(options), self.report(model, options, &client_model));
        let server_zip = BulkServerArtifact::zip(self.kind, &specs, &self.program)?;
        let model_id = ModelId::of(&server_zip);
        let client = BulkClientArtifact {
            kind: self.kind,
            model_id,
            specs,
            model: client_model,
            report: report.for_data_owner().to_json(),
        };
        let client_zip = client.to_zip()?;
        let zips = [("client.zip", client_zip.as_slice()), ("server.zip", server_zip.as_slice())];
        let manifest = NativeManifest::of(self.kind, Some(model_id), zips).to_json();
        Ok(Compiled { client_zip, server_zip, manifest, model_id, report })
    }

    fn specs(&self, options: &CompileOptions) -> BulkSpecs {
        let (program, plan) = (self.program.program(), &self.plan);
        BulkSpecs {
            parameters: plan.parameters,
            columns: program.columns,
            outputs: u32::try_from(program.outputs.len()).expect("checked by the program"),
            degree: plan.degree,
            hidden: plan.hide,
            reply_primes: plan.reply_primes,
            log2_sigma_phase: plan.log2_sigma_phase,
            // The exact one depends on the leaves, which a hidden model does not tell.
            log2_p_fail: if plan.hide { options.log2_p_fail } else { plan.log2_failure },
            security_bits: plan.parameters.security_bits(),
        }
    }

    fn report(
        &self,
        model: &TrainedModel,
        options: &CompileOptions,
        client: &BulkClientModel,
    ) -> CompileReport {
        let (specs, plan) = (self.specs(options), &self.plan);
        let calibration = options.calibration.as_deref();
        let primes = f64::from(plan.parameters.primes);
        #[allow(clippy::cast_precision_loss, reason = "at most a few millions")]
        let products = plan.ring_products as f64;
        let ns = products * NS_PER_PRODUCT + f64::from(specs.columns) * NS_PER_WORD;
        CompileReport {
            class_name: model.class_name.clone(),
            kind: self.kind,
            bins: self.bins,
            features: self.feature_columns(),
            columns: specs.columns,
            outputs: specs.outputs,
            degree: specs.degree,
            hidden: specs.hidden,
            ring_dimension: plan.parameters.ring_dimension,
            primes: plan.parameters.primes,
            reply_primes: plan.reply_primes,
            plaintext_modulus: plan.parameters.plaintext_modulus,
            security_bits: specs.security_bits,
            log2_p_fail: specs.log2_p_fail,
            upload_bytes_per_row: plan.upload_bytes_per_row,
            reply_bytes_per_row: plan.reply_bytes_per_row,
            microseconds_per_row: ns * primes / 1000.0,
            raw_error: self.outputs.iter().map(|output| output.error).collect(),
            relative_error: plan.max_error,
            agreement: calibration.map(|rows| agreement::of(model, client, &self.program, rows)),
            data_owner_learns: self.data_owner_learns.clone(),
            noise_bits: plan.noise_bits.clone(),
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
