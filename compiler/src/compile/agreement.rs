//! The compiled model on the calibration rows, in the clear, against the trained model.

use cipherscore_engine::bulk::client_model::{BulkClientModel, EncodedRows};
use cipherscore_engine::bulk::program::ValidProgram;
use cipherscore_engine::model::ScoreKind;
use cipherscore_engine::rows::parameters::RowParameters;
use cipherscore_engine::rows::program::ValidRowProgram;

use crate::report::Agreement;
use crate::trained::TrainedModel;

/// Rows that are compared; the first ones.
const MAX_ROWS: usize = 10_000;

/// The integer ensemble, in one of the forms that have it.
#[derive(Clone, Copy)]
pub(super) enum Evaluated<'a> {
    /// As polynomials.
    Bulk(&'a ValidProgram),
    /// As paths, whose sums are from 0 on.
    Rows(&'a ValidRowProgram, &'a RowParameters),
}

pub(super) fn of(
    model: &TrainedModel,
    client: &BulkClientModel,
    program: Evaluated<'_>,
    rows: &[Vec<f64>],
) -> Agreement {
    let mut agreement =
        Agreement { rows: 0, refused: 0, same_label: None, largest_difference: 0.0 };
    let mut same = 0;
    for row in rows.iter().take(MAX_ROWS) {
        let encoded = client.inputs.encode(std::slice::from_ref(row), 0).ok();
        let Some(integers) = encoded.and_then(|encoded| evaluate(program, &encoded)) else {
            agreement.refused += 1;
            continue;
        };
        let (ours, theirs) = (client.scores.scores(&integers), model.scores(row));
        let differences = ours.iter().zip(&theirs).map(|(ours, theirs)| (ours - theirs).abs());
        agreement.largest_difference = differences.fold(agreement.largest_difference, f64::max);
        agreement.rows += 1;
        same += u32::from(label(&ours) == label(&theirs));
    }
    let has_labels = model.score_kind == ScoreKind::Probabilities;
    agreement.same_label = has_labels.then_some(same);
    agreement
}

fn evaluate(program: Evaluated<'_>, row: &EncodedRows<'_>) -> Option<Vec<i64>> {
    let column = |column: u32| {
        let mut value = [0];
        row.fill(column, 0, &mut value);
        value[0]
    };
    match program {
        Evaluated::Bulk(program) => {
            let columns: Vec<i64> = (0..program.program().columns).map(column).collect();
            program.interpret(&columns).ok()
        }
        Evaluated::Rows(program, parameters) => {
            let bits: Vec<bool> =
                (0..parameters.columns).map(|position| column(position) == 1).collect();
            let sums = program.interpret(&bits).ok()?;
            Some(sums.iter().map(|sum| sum - parameters.value_centre()).collect())
        }
    }
}

/// The first of the largest.
fn label(scores: &[f64]) -> Option<usize> {
    let larger =
        |best: usize, index: usize| if scores[index] > scores[best] { index } else { best };
    (0..scores.len()).reduce(larger)
}
