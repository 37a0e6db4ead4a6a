//! The compiled model on the calibration rows, in the clear, against the trained model.

use cipherscore_engine::bulk::client_model::{BulkClientModel, EncodedRows};
use cipherscore_engine::bulk::program::ValidProgram;
use cipherscore_engine::model::ScoreKind;
use cipherscore_engine::rows::parameters::RowParameters;
use cipherscore_engine::rows::program::ValidRowProgram;

use super::CompileOptions;
use super::notes::{Remark, RemarkKind};
use crate::expected::{Comparison, median, with_bounds};
use crate::report::Agreement;
use crate::trained::TrainedModel;

/// Rows that are compared; the first ones.
const MAX_ROWS: usize = 10_000;
/// Part of the calibration rows that may change class without a warning.
pub const MAX_CHANGED: f64 = 0.005;
/// Difference of a score that is no warning: of a probability, or of what half of all scores are.
pub const MAX_DIFFERENCE: f64 = 0.01;

/// The integer ensemble, in one of the forms that have it.
#[derive(Clone, Copy)]
pub(super) enum Evaluated<'a> {
    /// As polynomials.
    Bulk(&'a ValidProgram),
    /// As paths, whose sums are from 0 on.
    Rows(&'a ValidRowProgram, &'a RowParameters),
}

/// Agreement with the trained model and, where its answers are known, with the library.
pub(super) struct Measured {
    pub(super) agreement: Agreement,
    pub(super) expected: Option<Comparison>,
    /// What there is to warn of.
    pub(super) warnings: Vec<Remark>,
}

/// Compares on calibration rows; raw outputs may be off by `errors`.
pub(super) fn of(
    model: &TrainedModel,
    client: &BulkClientModel,
    program: Evaluated<'_>,
    options: &CompileOptions,
    errors: &[f64],
) -> Option<Measured> {
    let rows = options.calibration.as_deref()?;
    let rows = &rows[..rows.len().min(MAX_ROWS)];
    let raw = |row: &Vec<f64>| {
        let encoded = client.encode(std::slice::from_ref(row), 0).ok()?;
        Some(client.scores.raw(&evaluate(program, &encoded)?))
    };
    let raw: Vec<Option<Vec<f64>>> = rows.iter().map(raw).collect();
    let mut agreement = Agreement::default();
    let (mut same, mut differences, mut usual) = (0, Vec::new(), Vec::new());
    for (row, raw) in rows.iter().zip(&raw) {
        let Some(raw) = raw else {
            agreement.refused += 1;
            continue;
        };
        let (ours, theirs) = (model.link.apply(raw), model.scores(row));
        let off = ours.iter().zip(&theirs).map(|(ours, theirs)| (ours - theirs).abs());
        differences.push(off.fold(0.0, f64::max));
        usual.extend(theirs.iter().map(|score| score.abs()));
        agreement.rows += 1;
        same += u32::from(label(&ours) == label(&theirs));
    }
    agreement.largest_difference = differences.iter().copied().fold(0.0, f64::max);
    agreement.median_difference = Some(median(&mut differences));
    let has_labels = model.score_kind == ScoreKind::Probabilities;
    agreement.same_label = has_labels.then_some(same);
    let unit = if has_labels { 1.0 } else { median(&mut usual) };
    let expected = options.expected.as_ref().map(|expected| {
        let bounded = |raw: &Option<Vec<f64>>| Some(with_bounds(model.link, raw.as_ref()?, errors));
        expected.compare(model.score_kind, raw.iter().map(bounded))
    });
    Some(Measured { warnings: warnings(&agreement, unit), agreement, expected })
}

/// What is below the stated limits.
fn warnings(agreement: &Agreement, unit: f64) -> Vec<Remark> {
    let Agreement { rows, refused, same_label, largest_difference, .. } = *agreement;
    let mut texts = Vec::new();
    if rows == 0 {
        texts.push("no calibration row is one that the compiled model takes".to_owned());
    } else if refused > 0 {
        texts.push(format!(
            "{refused} of {} calibration rows are outside of the ranges, and such rows get no scores",
            rows + refused
        ));
    }
    let changed = same_label.map_or(0, |same| rows - same);
    if f64::from(changed) > MAX_CHANGED * f64::from(rows) {
        texts.push(format!(
            "{changed} of {rows} calibration rows change class, which is more than {} %",
            100.0 * MAX_CHANGED
        ));
    }
    if largest_difference > MAX_DIFFERENCE * unit {
        texts.push(format!(
            "scores of calibration rows differ by up to {largest_difference:.2e}, which is more than {} % \
             of {}: a smaller --max-error is closer",
            100.0 * MAX_DIFFERENCE,
            if same_label.is_some() { "a probability of 1" } else { "what half of all scores are" }
        ));
    }
    let note = |text| Remark { kind: RemarkKind::Warning, text };
    texts.into_iter().map(note).collect()
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
