//! From a trained model to `client.zip` and `server.zip`.

mod agreement;
mod ensemble;
mod error;
mod forms;
mod linear;
mod notes;
#[cfg(test)]
mod tests;

use std::fmt;
use std::num::NonZeroU32;

use cipherscore_engine::artifact::{Kind, ModelId, NativeManifest};
use cipherscore_engine::bulk::client_model::{
    BulkClientModel, FeatureCategories, Inputs, Missing, Reading, Scores,
};
use cipherscore_engine::compiled::{CompiledClientArtifact, CompiledServerArtifact};

use self::agreement::{Evaluated, Measured};
pub use self::agreement::{MAX_CHANGED, MAX_DIFFERENCE};
pub use self::error::CompileError;
use self::forms::{BulkForm, Described, RowForm};
pub use self::forms::{LeftOut, RowFormError, WantedForms};
pub use self::notes::{Remark, RemarkKind};
use crate::bins::Bins;
use crate::expected::{Comparison, LibraryScores};
use crate::lower::{LowerError, RoundedOutput};
use crate::ranges::FeatureRange;
use crate::report::{CompileReport, FeatureColumns};
use crate::trained::{Body, Feature, TrainedModel};

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
    /// Numbers that stand for a missing value, beside NaN: in the calibration rows, and in rows to
    /// come.
    pub missing_numbers: Vec<f64>,
    /// Texts that stand for a missing value in files of rows to come.
    pub missing_texts: Vec<String>,
    /// What the library answers to the calibration rows.
    pub expected: Option<LibraryScores>,
    /// Largest difference that rounding may make, relative to what a raw output can be; where that is
    /// far more than it is for most calibration rows, to the latter.
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
            missing_numbers: Vec::new(),
            missing_texts: Vec::new(),
            expected: None,
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
    /// What else the model owner should know.
    pub notes: Vec<Remark>,
    /// How the compiled model answers the calibration rows, compared with the library, where that is
    /// known: each within what rounding may do to its score.
    pub expected: Option<Comparison>,
}

impl fmt::Debug for Compiled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Compiled({}, {:?})", self.model_id, self.report)
    }
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
    let options = &with_missing(model, options)?;
    let parts = match &model.body {
        Body::Ensemble(ensemble) => ensemble::compile(model, ensemble, options),
        Body::Linear(linear) => linear::compile(model, linear, options),
    };
    let moves = options.max_bins.is_some() || options.bins == Bins::Full;
    let parts = parts.map_err(|error| match error {
        // It is the model's own, and not made by moving thresholds.
        CompileError::Lower(LowerError::Constant) if !moves => {
            CompileError::SameAnswer(model.scores(&vec![0.0; model.features.len()]))
        }
        error => error,
    });
    parts?.pack(model, options)
}

/// The options with calibration rows whose missing values are NaN, as the model means them.
fn with_missing(
    model: &TrainedModel,
    options: &CompileOptions,
) -> Result<CompileOptions, CompileError> {
    let mut options = options.clone();
    let marks = options.missing_numbers.clone();
    for (row, values) in options.calibration.iter_mut().flatten().enumerate() {
        for (value, feature) in values.iter_mut().zip(&model.features) {
            // Codes of named categories are no numbers that a mark is meant for.
            let is_number = feature.categories.is_none();
            let is_mark = |&mark: &f64| feature.rounded(mark) == feature.rounded(*value);
            if is_number && marks.iter().any(is_mark) {
                *value = f64::NAN;
            }
            if value.is_nan() && model.missing == Missing::Zero {
                *value = 0.0;
            }
            if value.is_nan() && model.missing == Missing::Refused {
                let feature = feature.name.clone();
                return Err(CompileError::MissingInCalibration { row: row + 1, feature });
            }
        }
    }
    Ok(options)
}

/// What rows mean, as far as it is not what they look like.
fn reading(model: &TrainedModel, options: &CompileOptions) -> Reading {
    let list = |(feature, described): (usize, &Feature)| {
        let categories = described.categories.clone()?;
        let feature = u32::try_from(feature).ok()?;
        Some(FeatureCategories { feature, names: categories.names, unseen: categories.unseen })
    };
    Reading {
        missing_numbers: options.missing_numbers.clone(),
        missing_texts: options.missing_texts.clone(),
        categories: model.features.iter().enumerate().filter_map(list).collect(),
        missing: model.missing,
    }
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
    notes: Vec<Remark>,
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
            reading: reading(model, options),
        };
        client_model.validate()?;
        let bulk = self.bulk.as_ref().map(|form| (form.specs(options), &form.program));
        let rows = self.rows.as_ref().map(|form| (form.specs(), &form.program));
        let measured = self.measured(model, options, &client_model);
        let report = self.report(model, options, measured.as_ref());
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
        let (left_out, mut notes) = (self.left_out, self.notes);
        let (warnings, expected) =
            measured.map(|it| (it.warnings, it.expected)).unwrap_or_default();
        notes.extend(warnings);
        Ok(Compiled {
            client_zip,
            server_zip,
            manifest,
            model_id,
            report,
            left_out,
            notes,
            expected,
        })
    }

    /// On the calibration rows, if there are any.
    fn measured(
        &self,
        model: &TrainedModel,
        options: &CompileOptions,
        client: &BulkClientModel,
    ) -> Option<Measured> {
        let rows = self.rows.as_ref();
        let program = self.bulk.as_ref().map(|form| Evaluated::Bulk(&form.program));
        let program =
            program.or(rows.map(|form| Evaluated::Rows(&form.program, &form.plan.parameters)));
        let errors: Vec<f64> = self.outputs.iter().map(|output| output.error).collect();
        agreement::of(model, client, program?, options, &errors)
    }

    fn report(
        &self,
        model: &TrainedModel,
        options: &CompileOptions,
        measured: Option<&Measured>,
    ) -> CompileReport {
        let rows = self.rows.as_ref();
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
            agreement: measured.map(|measured| measured.agreement),
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
