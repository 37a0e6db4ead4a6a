//! Why a model cannot be compiled.

use cipherscore_engine::bulk::artifact::BulkArtifactError;
use cipherscore_engine::bulk::client_model::InvalidBulkClientModel;
use cipherscore_engine::bulk::plan::PlanError;
use thiserror::Error;

use super::RowFormError;
use crate::invalid::InvalidModel;
use crate::lower::LowerError;
use crate::ranges::RangesError;

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
    /// A calibration row without a value, of a model whose file does not say where such rows go.
    #[error(
        "calibration row {row}: feature {feature:?} has no value, and the file does not say where rows \
         without one go: skl2onnx does not convert it. Compile the model from Python \
         (FHEModelDev(folder, model)), which reads the model itself; or leave such rows out, and the model \
         will refuse them"
    )]
    MissingInCalibration {
        /// Its number, from 1.
        row: usize,
        /// Name of the feature.
        feature: String,
    },
    /// An error bound that leaves nothing of the outputs.
    #[error(
        "rounding within an error of {0} leaves nothing of the outputs: give a smaller one \
         (--max-error 1e-3)"
    )]
    NothingLeft(f64),
    /// A model that needs no encryption.
    #[error(
        "the model gives every row the same answer, {0:?}: there is nothing to encrypt, and no row has \
         to be sent anywhere. A model of no trees or of one leaf has not learned anything; was it \
         trained on too few rows?"
    )]
    SameAnswer(Vec<f64>),
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
