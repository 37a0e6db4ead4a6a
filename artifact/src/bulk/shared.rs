//! What the forms of a compiled model have in common: its features, columns and scores.

use cipherscore_engine::bulk::client_model::{BulkClientModel, BulkRowError, Inputs};
use thiserror::Error;

use crate::matrix::Matrix;
use crate::model::{EncryptionError, EngineError, Features, InputFeature, Interface};

/// A file that is not the key that it should be.
#[derive(Debug, Error)]
#[error("{0}; take the keys that were made for this client.zip, or make them")]
struct WrongKey(#[source] EngineError);

/// What a model takes and gives. Each form adds its keys.
pub(super) fn interface(model: &BulkClientModel) -> Interface {
    // A linear model multiplies; a predicate holds or not, whatever the value.
    let takes_all = matches!(model.inputs, Inputs::Predicates(_));
    let feature = |feature| InputFeature {
        name: model.inputs.feature_name(feature).to_owned(),
        may_be_missing: takes_all,
        may_be_infinite: takes_all,
    };
    Interface {
        class_name: model.class_name.clone(),
        features: Features::named((0..model.inputs.features()).map(feature).collect()),
        score_kind: model.scores.kind,
        scores: model.scores.len(),
        outputs: model.scores.outputs.len(),
        needs_key: false,
        key_steps: 0,
        rows_of_file: None,
    }
}

/// Whether rows become columns.
pub(super) fn check(
    model: &BulkClientModel,
    rows: &Matrix<f64>,
    first_row: u64,
) -> Result<(), EncryptionError> {
    let rows: Vec<_> = rows.rows().collect();
    let first_row = usize::try_from(first_row).unwrap_or(usize::MAX);
    let encoded = model.inputs.encode(&rows, first_row);
    encoded.map(drop).map_err(refused_row)
}

/// A client key that is not one of the model.
pub(super) fn wrong_key(error: impl Into<EngineError>) -> EngineError {
    WrongKey(error.into()).into()
}

/// A row that does not become columns.
pub(super) fn refused_row(error: BulkRowError) -> EncryptionError {
    match error {
        BulkRowError::OutOfRange { .. } => EncryptionError::OutOfRange(error.into()),
        _ => EncryptionError::Engine(error.into()),
    }
}

/// A length that memory has no room for is more than any limit.
pub(super) fn bytes(length: Option<usize>) -> u64 {
    length.map_or(u64::MAX, |length| length as u64)
}
