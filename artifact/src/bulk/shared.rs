//! What the forms of a compiled model have in common: its features, columns and scores.

use std::sync::Arc;

use cipherscore_engine::bulk::client_model::{BulkClientModel, BulkRowError, Inputs, Missing};
use thiserror::Error;

use crate::matrix::Matrix;
use crate::model::{
    Admitted, Categories, EncryptionError, EngineError, Features, InputFeature, Interface,
    RefusedRow,
};

/// A file that is not the key that it should be.
#[derive(Debug, Error)]
#[error("{0}; take the keys that were made for this client.zip, or make them")]
struct WrongKey(#[source] EngineError);

/// What a model takes and gives. Each form adds its keys.
pub(super) fn interface(model: &BulkClientModel) -> Interface {
    // A linear model multiplies; a predicate holds or not, whatever the value.
    let takes_all = matches!(model.inputs, Inputs::Predicates(_));
    let may_be_missing = match model.reading.missing {
        Missing::OfInputs => takes_all,
        Missing::Refused => false,
        Missing::Zero => true,
    };
    let categories = |feature| {
        let lists = &model.reading.categories;
        let of_feature = lists.iter().find(|list| list.feature as usize == feature)?;
        let (names, unseen) = (of_feature.names.clone(), of_feature.unseen);
        Some(Arc::new(Categories { names, unseen }))
    };
    let feature = |feature| InputFeature {
        refused_alone: true,
        categories: categories(feature),
        ..InputFeature::number(model.inputs.feature_name(feature), may_be_missing, takes_all)
    };
    let features = Features::named((0..model.inputs.features()).map(feature).collect());
    Interface {
        class_name: model.class_name.clone(),
        features: features.with_missing(model.reading.missing_texts.clone()),
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
    let encoded = model.encode(&rows, first_row);
    encoded.map(drop).map_err(refused_row)
}

/// Rows with others in place of those that the model cannot take.
pub(super) fn admit(model: &BulkClientModel, rows: Matrix<f64>, first_row: u64) -> Admitted {
    let numbered = |(index, values): (usize, &[f64])| {
        let row = first_row + index as u64;
        let refusal = model.refusal(values, usize::try_from(row).unwrap_or(usize::MAX))?;
        Some((index, RefusedRow { row, reason: refusal.to_string() }))
    };
    let found: Vec<_> = rows.rows().enumerate().filter_map(numbered).collect();
    if found.is_empty() {
        return Admitted { rows, refused: Vec::new() };
    }
    let (width, stand_in) = (rows.width(), model.any_row());
    let mut values = rows.values().to_vec();
    for (index, _) in &found {
        values[index * width..(index + 1) * width].copy_from_slice(&stand_in);
    }
    let refused = found.into_iter().map(|(_, refused)| refused).collect();
    Admitted { rows: Matrix::new(width, values), refused }
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
