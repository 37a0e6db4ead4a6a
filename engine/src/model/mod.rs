//! What happens in the clear, at the data owner's: features to integers before encryption,
//! integers to scores after decryption.

mod post_processing;
mod quantiser;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use post_processing::{InverseLink, PostProcessing};
pub use quantiser::{Quantiser, ZeroPoint};

/// A row or an output that the model cannot take.
#[derive(Debug, Error, PartialEq)]
pub enum ModelError {
    /// Too many or too few features.
    #[error("a row of {found} features, where the model has {expected}")]
    Features {
        /// Features of the row.
        found: usize,
        /// Features of the model.
        expected: usize,
    },
    /// NaN or infinity.
    #[error("feature {feature} is {value}, which cannot be quantised")]
    NotFinite {
        /// Position of the feature.
        feature: usize,
        /// Its value.
        value: f64,
    },
    /// The quantised value is beyond 64 bits.
    #[error("feature {feature} is {value}, far out of the range that the model was trained on")]
    OutOfRange {
        /// Position of the feature.
        feature: usize,
        /// Its value.
        value: f64,
    },
    /// An array of zero points that cannot be broadcast over the outputs.
    #[error("zero points of shape {found:?} do not fit outputs of shape {shape:?}")]
    ZeroPoint {
        /// Shape of the zero points.
        found: Vec<usize>,
        /// Shape of the outputs.
        shape: Vec<usize>,
    },
    /// The output's shape does not fit the model's family.
    #[error("an output of shape {shape:?} does not fit {family}")]
    Shape {
        /// Shape of the integers.
        shape: Vec<usize>,
        /// What was expected.
        family: &'static str,
    },
}

/// What the scores of a row are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScoreKind {
    /// `predict_proba`: one probability for each class.
    Probabilities,
    /// `predict`: one value for each target, or the label of the class.
    Predictions,
    /// What a torch module returns, as it is.
    Outputs,
}

/// The clear part of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// Class of the trained model, such as `XGBClassifier`.
    pub class_name: String,
    /// One quantiser for all features, or one for each.
    pub inputs: Vec<Quantiser>,
    /// Turns output integers into reals.
    pub output: Quantiser,
    /// Turns these reals into scores.
    pub post_processing: PostProcessing,
}

impl Model {
    /// Quantises one row, as Concrete ML's `quantize_input`.
    pub fn quantise(&self, row: &[f64]) -> Result<Vec<i64>, ModelError> {
        if self.inputs.len() != 1 && self.inputs.len() != row.len() {
            return Err(ModelError::Features { found: row.len(), expected: self.inputs.len() });
        }
        let quantisers = self.inputs.iter().cycle();
        row.iter()
            .zip(quantisers)
            .enumerate()
            .map(|(feature, (&value, quantiser))| match quantiser.quantise(value) {
                _ if !value.is_finite() => Err(ModelError::NotFinite { feature, value }),
                Some(integer) => Ok(integer),
                None => Err(ModelError::OutOfRange { feature, value }),
            })
            .collect()
    }

    /// A row in single precision, as the one in double precision that [`Model::quantise`] takes to the
    /// integers which Concrete ML gives 32-bit rows: see [`Quantiser::widen`].
    pub fn widen(&self, row: &[f32]) -> Vec<f64> {
        let quantisers = self.inputs.iter().cycle();
        row.iter().zip(quantisers).map(|(&value, quantiser)| quantiser.widen(value)).collect()
    }

    /// Scores of one row from its output integers, in row-major order of `shape` (which begins
    /// with the number of rows, 1): `predict_proba` of a classifier, `predict` of a regressor and
    /// of nearest neighbours, the outputs of a torch module.
    pub fn scores(&self, integers: &[i64], shape: &[usize]) -> Result<Vec<f64>, ModelError> {
        let outputs = self.post_processing.outputs(shape)?;
        let values = match self.post_processing {
            // Labels of classes, not quantised values.
            PostProcessing::MajorityVote => Quantiser::identity().dequantise(integers, shape)?,
            _ => self.output.dequantise(integers, shape)?,
        };
        Ok(self.post_processing.apply(&values, outputs))
    }

    /// What [`Model::scores`] returns.
    pub fn score_kind(&self) -> ScoreKind {
        self.post_processing.score_kind()
    }
}
