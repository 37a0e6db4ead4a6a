//! What happens in the clear, at the data owner's: rows to columns of integers before encryption,
//! integers to scores after decryption.
//!
//! * [`Predicates`]: columns of an ensemble, one bit a row;
//! * [`LinearInputs`]: columns of a linear model, one rounded feature each;
//! * [`Scores`]: what decrypted integers mean;
//! * [`Reading`]: what a row's values mean before that, where they are not what they look like.
//!
//! It comes in a `client.zip`, which is the model owner's word: everything has a bound and is
//! checked when it is opened, so that nothing afterwards can fail but a row.

mod linear_inputs;
mod predicates;
mod reading;
mod scores;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::program::{MAX_COLUMNS, MAX_OUTPUTS};

pub use linear_inputs::{LinearFeature, LinearInputs, MAX_STEPS};
pub use predicates::{AtomRange, MAX_CUTS, MAX_RANGES, Predicate, PredicateFeature, Predicates};
pub use reading::{
    CategoryNames, FeatureCategories, MAX_CATEGORIES, MAX_CATEGORY_BYTES, MAX_MARKS, Missing,
    Reading, Unseen,
};
pub use scores::{Link, OutputScale, Scores};

/// Features of a model.
pub const MAX_FEATURES: usize = 1 << 16;
/// Bytes of a name: of a feature, a class or a model's class.
pub const MAX_NAME_BYTES: usize = 1 << 10;

/// A client model that makes no sense, or is above one of the `MAX_` bounds.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct InvalidBulkClientModel(pub String);

pub(super) fn invalid<T>(what: impl Into<String>) -> Result<T, InvalidBulkClientModel> {
    Err(InvalidBulkClientModel(what.into()))
}

/// A name of the file, which goes to terminals and tables.
fn check_name(name: &str) -> Result<(), InvalidBulkClientModel> {
    match name.len() > MAX_NAME_BYTES || name.chars().any(char::is_control) {
        true => invalid(format!("a name above {MAX_NAME_BYTES} bytes or with control characters")),
        false => Ok(()),
    }
}

/// The name of a feature, as the data frame had it: also with tabs and line breaks, which whoever
/// prints it escapes.
fn check_feature_name(name: &str) -> Result<(), InvalidBulkClientModel> {
    let is_odd = |sign: char| sign.is_control() && !matches!(sign, '\t' | '\n' | '\r');
    match name.len() > MAX_NAME_BYTES || name.chars().any(is_odd) {
        true => {
            let start: String = name.chars().take(64).collect();
            invalid(format!(
                "feature {start:?} has a name above {MAX_NAME_BYTES} bytes or with control characters"
            ))
        }
        false => Ok(()),
    }
}

/// A row that the model cannot take.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum BulkRowError {
    /// Too many or too few features.
    #[error("row {row} has {found} features, where the model has {expected}")]
    Features {
        /// Position of the row.
        row: usize,
        /// Features of the row.
        found: usize,
        /// Features of the model.
        expected: usize,
    },
    /// A linear model multiplies it, and cannot multiply nothing.
    #[error("row {row}, column {name:?}: the value is missing, and this model takes none")]
    Missing {
        /// Position of the row.
        row: usize,
        /// Name of the feature.
        name: String,
    },
    /// Beyond the range in which no sum wraps around.
    #[error(
        "row {row}, column {name:?}: {value} is outside of the range from {low} to {high} that the \
         model was compiled for"
    )]
    OutOfRange {
        /// Position of the row.
        row: usize,
        /// Name of the feature.
        name: String,
        /// Its value.
        value: f64,
        /// Smallest that fits.
        low: f64,
        /// Largest that fits.
        high: f64,
    },
}

/// The clear part of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BulkClientModel {
    /// Class of the trained model, such as `XGBClassifier`.
    pub class_name: String,
    /// From rows to columns.
    pub inputs: Inputs,
    /// From decrypted integers to scores.
    pub scores: Scores,
    /// What values of rows mean.
    #[serde(default, skip_serializing_if = "Reading::is_plain")]
    pub reading: Reading,
}

/// From rows to columns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Inputs {
    /// Of an ensemble.
    Predicates(Predicates),
    /// Of a linear model.
    Linear(LinearInputs),
}

impl BulkClientModel {
    /// Checks everything that the file claims.
    pub fn validate(&self) -> Result<(), InvalidBulkClientModel> {
        check_name(&self.class_name)?;
        match &self.inputs {
            Inputs::Predicates(predicates) => predicates.validate()?,
            Inputs::Linear(inputs) => inputs.validate()?,
        }
        self.reading.validate(self.inputs.features())?;
        self.scores.validate()
    }

    /// Encodes rows, once for all columns. `first_row` is what errors call the first of them.
    pub fn encode<R: AsRef<[f64]>>(
        &self,
        rows: &[R],
        first_row: usize,
    ) -> Result<EncodedRows<'_>, BulkRowError> {
        if self.reading.missing == Missing::Refused {
            for (row, values) in rows.iter().enumerate() {
                self.refusal(values.as_ref(), first_row + row).map_or(Ok(()), Err)?;
            }
        }
        if self.reading.keeps_numbers() {
            return self.inputs.encode(rows, first_row);
        }
        let read: Vec<_> = rows.iter().map(|row| self.read(row.as_ref())).collect();
        self.inputs.encode(&read, first_row)
    }

    /// A row as its values are meant.
    fn read<'r>(&self, row: &'r [f64]) -> Cow<'r, [f64]> {
        if self.reading.keeps_numbers() {
            return row.into();
        }
        let single = |feature| self.inputs.is_single_precision(feature);
        let number = |(index, &value): (usize, &f64)| match self.reading.has_categories(index) {
            // A code, which no mark is meant for.
            true => self.reading.code(value),
            false => self.reading.number(value, single(index)),
        };
        row.iter().enumerate().map(number).collect()
    }

    /// Why the model cannot take a row, which errors call `row`; none where it can.
    pub fn refusal(&self, values: &[f64], row: usize) -> Option<BulkRowError> {
        let (found, expected) = (values.len(), self.inputs.features());
        if found != expected {
            return Some(BulkRowError::Features { row, found, expected });
        }
        let values = self.read(values);
        match &self.inputs {
            Inputs::Linear(inputs) => inputs.refusal(&values, row),
            Inputs::Predicates(predicates) if self.reading.missing == Missing::Refused => {
                let missing = values.iter().position(|value| value.is_nan())?;
                let name = predicates.features[missing].name.clone();
                Some(BulkRowError::Missing { row, name })
            }
            Inputs::Predicates(_) => None,
        }
    }

    /// A row that the model takes, whatever it is of.
    ///
    /// A mark of missing values is at most one of the values that are tried.
    pub fn any_row(&self) -> Vec<f64> {
        let marks = self.reading.missing_numbers.len();
        let row = |step: usize| -> Vec<f64> {
            match &self.inputs {
                Inputs::Linear(inputs) => {
                    inputs.features.iter().map(|feature| feature.within(step, marks)).collect()
                }
                Inputs::Predicates(predicates) => vec![step as f64; predicates.features.len()],
            }
        };
        let mut rows = (0..=marks).map(row);
        let taken = rows.find(|row| self.refusal(row, 0).is_none());
        taken.unwrap_or_else(|| row(0))
    }
}

impl Inputs {
    /// Number of features of a row.
    pub fn features(&self) -> usize {
        match self {
            Self::Predicates(predicates) => predicates.features.len(),
            Self::Linear(inputs) => inputs.features.len(),
        }
    }

    /// Name of a feature.
    pub fn feature_name(&self, feature: usize) -> &str {
        match self {
            Self::Predicates(predicates) => &predicates.features[feature].name,
            Self::Linear(inputs) => &inputs.features[feature].name,
        }
    }

    /// Whether values of a feature are compared in float32. Those of a linear model are not compared.
    fn is_single_precision(&self, feature: usize) -> bool {
        match self {
            Self::Predicates(predicates) => predicates.features[feature].single_precision,
            Self::Linear(_) => true,
        }
    }

    /// Number of columns of an upload.
    pub fn columns(&self) -> usize {
        match self {
            Self::Predicates(predicates) => predicates.columns.len(),
            Self::Linear(inputs) => inputs.features.len(),
        }
    }

    /// Encodes rows, once for all columns. `first_row` is what errors call the first of them.
    pub fn encode<R: AsRef<[f64]>>(
        &self,
        rows: &[R],
        first_row: usize,
    ) -> Result<EncodedRows<'_>, BulkRowError> {
        for (row, values) in rows.iter().enumerate() {
            let (found, expected) = (values.as_ref().len(), self.features());
            if found != expected {
                return Err(BulkRowError::Features { row: first_row + row, found, expected });
            }
        }
        let values = match self {
            Self::Predicates(predicates) => Values::Atoms(predicates, predicates.encode(rows)),
            Self::Linear(inputs) => Values::Integers(inputs.encode(rows, first_row)?),
        };
        Ok(EncodedRows { rows: rows.len(), values })
    }
}

/// Rows, as far as they can be encoded before a column is asked for.
#[derive(Debug, Clone)]
pub struct EncodedRows<'a> {
    rows: usize,
    values: Values<'a>,
}

#[derive(Debug, Clone)]
enum Values<'a> {
    /// Feature by feature the atom of each row.
    Atoms(&'a Predicates, Vec<Vec<u16>>),
    /// Feature by feature the integer of each row.
    Integers(Vec<Vec<i64>>),
}

impl EncodedRows<'_> {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// What one column holds for as many rows as there are values, from row `row` on.
    pub fn fill(&self, column: u32, row: usize, values: &mut [i64]) {
        let (column, rows) = (column as usize, row..row + values.len());
        match &self.values {
            Values::Atoms(predicates, atoms) => {
                let feature = predicates.columns[column].feature as usize;
                predicates.fill(column, &atoms[feature][rows], values);
            }
            Values::Integers(integers) => values.copy_from_slice(&integers[column][rows]),
        }
    }
}
