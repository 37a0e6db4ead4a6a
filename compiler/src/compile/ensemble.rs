//! Ensembles: thresholds as they are offered, leaves at the scale of a plan.

use cipherscore_engine::artifact::Kind;
use cipherscore_engine::bulk::client_model::{Inputs, MAX_CUTS, MAX_RANGES, Predicates};
use cipherscore_engine::bulk::parameters::Packing;
use cipherscore_engine::bulk::plan::{Goal, Rounded, plan};
use cipherscore_engine::bulk::program::MAX_COLUMNS;
use cipherscore_engine::model::ScoreKind;

use super::{CompileError, CompileOptions, Parts};
use crate::bins::{self, Bins, Calibration};
use crate::lower::{Column, Lowered, Rounding};
use crate::report::ensemble_secrets;
use crate::trained::{Ensemble, TrainedModel};

/// Leaves are integers far below 64 bits at any scale.
const MAX_SCALE: f64 = (1u64 << 44) as f64;

pub(super) fn compile(
    model: &TrainedModel,
    ensemble: &Ensemble,
    options: &CompileOptions,
) -> Result<Parts, CompileError> {
    let lowered = lower(model, ensemble, options)?;
    let predicates = lowered.predicates(&model.features);
    check_sizes(&predicates)?;
    let inputs = Inputs::Predicates(predicates);
    let units = units(&lowered.spans(), model.score_kind);
    let rounding = |scale: f64| {
        let scale = scale.min(MAX_SCALE);
        lowered.round(&units.iter().map(|unit| scale / unit).collect::<Vec<_>>())
    };
    let goal = Goal {
        packing: Packing::Slots,
        hide: options.hide,
        log2_failure: options.log2_p_fail,
        max_error: options.max_error,
    };
    let (plan, rounded) = plan(&goal, &mut |scale| {
        let rounding = rounding(scale);
        Ok(Rounded {
            program: lowered.program(&rounding).validate()?,
            ranges: rounding.outputs.iter().map(|output| output.range).collect(),
            max_error: relative_error(&rounding, &units),
        })
    })?;
    let Rounding { outputs, .. } = rounding(plan.scale);
    let data_owner_learns = ensemble_secrets(options.bins, options.hide);
    let (kind, bins, program) = (Kind::Ensemble, Some(options.bins), rounded.program);
    Ok(Parts { kind, bins, plan, program, inputs, outputs, data_owner_learns })
}

/// Refuses what [`Predicates::validate`] would, and says what to do about it.
fn check_sizes(predicates: &Predicates) -> Result<(), CompileError> {
    let cuts = predicates.features.iter().map(|feature| feature.cuts.len()).max().unwrap_or(0);
    let ranges = predicates.columns.iter().map(|column| column.atoms.len()).sum();
    for (found, what, limit) in [
        (predicates.columns.len(), "columns", MAX_COLUMNS),
        (cuts, "thresholds of one feature", MAX_CUTS),
        (ranges, "ranges of categories", MAX_RANGES),
    ] {
        if found > limit {
            return Err(CompileError::TooManyPredicates { found, what, limit });
        }
    }
    Ok(())
}

/// What errors are relative to: of each prediction what it can be, of probabilities, which depend
/// on differences of raw outputs, what any of these can be.
fn units(spans: &[f64], kind: ScoreKind) -> Vec<f64> {
    let largest = spans.iter().copied().fold(0.0, f64::max);
    let unit = |&span: &f64| match kind {
        ScoreKind::Predictions if span > 0.0 => span,
        _ if largest > 0.0 => largest,
        _ => 1.0,
    };
    spans.iter().map(unit).collect()
}

fn relative_error(rounding: &Rounding, units: &[f64]) -> f64 {
    let errors = rounding.outputs.iter().zip(units).map(|(output, unit)| output.error / unit);
    errors.fold(0.0, f64::max)
}

/// Merges or moves thresholds, lowers, and adds columns that no tree needs.
fn lower(
    model: &TrainedModel,
    ensemble: &Ensemble,
    options: &CompileOptions,
) -> Result<Lowered, CompileError> {
    let features = &model.features;
    let calibration = options.calibration.as_deref().filter(|rows| !rows.is_empty());
    let calibration = calibration.map(|rows| Calibration::of(rows, features));
    let mut ensemble = ensemble.clone();
    if let Some(bins) = options.max_bins {
        bins::merge(&mut ensemble, features, bins, calibration.as_ref());
    }
    let needed = |what| calibration.as_ref().ok_or(CompileError::CalibrationNeeded(what));
    let none = |_: &[Column]| Vec::new();
    let lowered = match options.bins {
        Bins::Used => Lowered::of(&ensemble, features.len(), none)?,
        Bins::Padded => {
            let calibration = needed("padded bins")?;
            let pad = |real: &[Column]| bins::pad(&ensemble, features, real, calibration);
            Lowered::of(&ensemble, features.len(), pad)?
        }
        Bins::Full => {
            let grids = bins::snap(&mut ensemble, features, needed("full bins")?);
            Lowered::of(&ensemble, features.len(), |real| bins::grid(&grids, real))?
        }
    };
    Ok(lowered)
}
