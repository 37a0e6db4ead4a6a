//! Ensembles: thresholds as they are offered, leaves at the scale of a plan.

use cipherscore_engine::artifact::Kind;
use cipherscore_engine::bulk::client_model::{Inputs, MAX_CUTS, MAX_RANGES, Predicates};
use cipherscore_engine::bulk::parameters::Packing;
use cipherscore_engine::bulk::plan::{Goal, PlanError, Rounded, plan, plan_at};
use cipherscore_engine::bulk::program::MAX_COLUMNS;
use cipherscore_engine::model::ScoreKind;
use cipherscore_engine::rows::plan::{
    DEFAULT_HIDE_BITS, RoundedSums, RowGoal, RowLimits, plan_rows, plan_rows_at,
};

use super::forms::{BulkForm, LeftOut, RowForm, RowFormError, WantedForms};
use super::notes::{Remark, RemarkKind};
use super::{CompileError, CompileOptions, Parts};
use crate::bins::{self, Bins, Calibration};
use crate::lower::{Column, LowerError, Lowered, Rounding, Targets};
use crate::report::{ensemble_secrets, row_secrets};
use crate::trained::{Ensemble, TrainedModel, TreeNode};

/// Leaves are integers far below 64 bits at any scale.
const MAX_SCALE: f64 = (1u64 << 44) as f64;

/// How many times the distance of the quartiles of a prediction, over the calibration rows, errors
/// are relative to at most. A target of few large values is far more than that at its largest, and an
/// error relative to its largest value would be most of an ordinary one.
const ORDINARY: f64 = 16.0;
/// Calibration rows from which quartiles say anything.
const MIN_ROWS: usize = 20;

pub(super) fn compile(
    model: &TrainedModel,
    ensemble: &Ensemble,
    options: &CompileOptions,
) -> Result<Parts, CompileError> {
    let ordinary = ordinary_units(model, options);
    let mut compiled = in_units(model, ensemble, options, ordinary.as_deref());
    if compiled.is_err() && ordinary.is_some() {
        // What is too large in these units may fit without them, as it did before.
        compiled = in_units(model, ensemble, options, None);
    }
    let mut parts = compiled?;
    parts.notes.extend(changes(model, ensemble, options));
    parts.notes.extend(coded(model, ensemble));
    Ok(parts)
}

/// Which features are compared as codes of categories that the file does not name.
fn coded(model: &TrainedModel, ensemble: &Ensemble) -> Option<Remark> {
    let is_code = |bound: f64| bound.is_finite() && bound.next_up().fract() * bound.fract() == 0.0;
    let mut coded: Vec<&str> = Vec::new();
    for node in ensemble.trees.iter().flat_map(|tree| &tree.nodes) {
        let TreeNode::Split { feature, values, .. } = node else { continue };
        let feature = &model.features[*feature as usize];
        let codes = values.0.iter().all(|&(low, high)| is_code(low) && is_code(high));
        let known = feature.categories.is_some() || coded.contains(&feature.name.as_str());
        if codes && !values.0.is_empty() && !known {
            coded.push(&feature.name);
        }
    }
    let names: Vec<_> = coded.iter().map(|name| format!("{name:?}")).collect();
    let text = format!(
        "the file has no names for the categories of {}: rows give their codes, as the training frame had \
         them and no other",
        names.join(", ")
    );
    (!names.is_empty()).then_some(Remark { kind: RemarkKind::Codes, text })
}

/// What predictions are like for most calibration rows: for each raw output [`ORDINARY`] times the
/// distance of its quartiles. None where scores are probabilities, which have a largest value anyway.
fn ordinary_units(model: &TrainedModel, options: &CompileOptions) -> Option<Vec<f64>> {
    let rows = options.calibration.as_deref()?;
    if model.score_kind != ScoreKind::Predictions || rows.len() < MIN_ROWS {
        return None;
    }
    let raw: Vec<Vec<f64>> = rows.iter().map(|row| model.raw(row)).collect();
    let unit = |output: usize| {
        let mut values: Vec<f64> = raw.iter().map(|raw| raw[output]).collect();
        values.sort_by(f64::total_cmp);
        let quartile = |part: usize| values[(values.len() - 1) * part / 4];
        ORDINARY * (quartile(3) - quartile(1))
    };
    Some((0..raw[0].len()).map(unit).collect())
}

/// What options changed of the thresholds.
fn changes(model: &TrainedModel, ensemble: &Ensemble, options: &CompileOptions) -> Vec<Remark> {
    let count = |ensemble: &Ensemble| {
        let of_feature = |mut list: Vec<f64>| {
            list.dedup();
            list.len()
        };
        let lists = bins::thresholds(ensemble, model.features.len());
        lists.into_iter().map(of_feature).sum::<usize>()
    };
    let rows = options.calibration.as_deref().filter(|rows| !rows.is_empty());
    let calibration = rows.map(|rows| Calibration::of(rows, &model.features));
    let mut changed = ensemble.clone();
    let mut texts = Vec::new();
    if let Some(bins) = options.max_bins {
        let before = count(&changed);
        bins::merge(&mut changed, &model.features, bins, calibration.as_ref());
        let after = count(&changed);
        texts.push(format!("--max-bins {bins} made {after} of {before} thresholds"));
    }
    if let (Bins::Full, Some(calibration)) = (options.bins, &calibration) {
        let before = count(&changed);
        bins::snap(&mut changed, &model.features, calibration);
        let after = count(&changed);
        texts.push(format!("--bins full moved {before} thresholds to {after} of its grid"));
    }
    texts.into_iter().map(|text| Remark { kind: RemarkKind::Changed, text }).collect()
}

/// As [`compile`]; errors are relative to no more than the units, where there are any.
fn in_units(
    model: &TrainedModel,
    ensemble: &Ensemble,
    options: &CompileOptions,
    ordinary: Option<&[f64]>,
) -> Result<Parts, CompileError> {
    let only = |targets| Candidate::of(model, ensemble, options, targets, ordinary);
    match options.forms {
        WantedForms::Bulk => only(Targets::POLYNOMIALS)?.bulk_alone(None),
        WantedForms::Rows if !options.hide => Err(CompileError::RowsAreHidden),
        WantedForms::Rows => {
            let candidate = only(Targets::paths(&RowLimits::LARGEST))?;
            let rows = candidate.rows(RowLimits::LARGEST, None)?;
            candidate.parts(None, Some(rows), None)
        }
        WantedForms::Both if !options.hide => {
            let left_out = LeftOut::rows(&CompileError::RowsAreHidden);
            only(Targets::POLYNOMIALS)?.bulk_alone(Some(left_out))
        }
        WantedForms::Both => {
            let candidate = match only(Targets::both(&RowLimits::DEFAULT)) {
                Ok(candidate) => candidate,
                // Too many columns may be so for the paths' sake alone.
                Err(
                    refusal @ (CompileError::Lower(LowerError::TooManyLeaves { .. })
                    | CompileError::TooManyPredicates { .. }),
                ) => return only(Targets::POLYNOMIALS)?.bulk_alone(Some(LeftOut::rows(&refusal))),
                Err(refusal) => return Err(refusal),
            };
            match (candidate.bulk(None), candidate.rows(RowLimits::DEFAULT, None)) {
                (Ok(bulk), Ok(rows)) => candidate.both(bulk, rows),
                // The columns of a form that is not there are not offered.
                (Ok(_), Err(refusal)) => {
                    only(Targets::POLYNOMIALS)?.bulk_alone(Some(LeftOut::rows(&refusal)))
                }
                (Err(refusal), Ok(_)) => {
                    let candidate = only(Targets::paths(&RowLimits::DEFAULT))?;
                    let rows = candidate.rows(RowLimits::DEFAULT, None)?;
                    candidate.parts(None, Some(rows), Some(LeftOut::bulk(&refusal)))
                }
                (Err(bulk), Err(rows)) => Err(CompileError::NoForm { bulk, rows }),
            }
        }
    }
}

/// An ensemble whose thresholds are as they are offered, and whose leaves are not rounded yet.
struct Candidate<'a> {
    options: &'a CompileOptions,
    lowered: Lowered,
    predicates: Predicates,
    /// What errors are relative to, of each raw output.
    units: Vec<f64>,
}

impl<'a> Candidate<'a> {
    fn of(
        model: &TrainedModel,
        ensemble: &Ensemble,
        options: &'a CompileOptions,
        targets: Targets,
        ordinary: Option<&[f64]>,
    ) -> Result<Self, CompileError> {
        let lowered = lower(model, ensemble, options, targets)?;
        let predicates = lowered.predicates(&model.features);
        check_sizes(&predicates)?;
        let mut units = units(&lowered.spans(), model.score_kind);
        for (unit, &ordinary) in units.iter_mut().zip(ordinary.into_iter().flatten()) {
            if ordinary > 0.0 {
                *unit = unit.min(ordinary);
            }
        }
        Ok(Self { options, lowered, predicates, units })
    }

    fn rounding(&self, scale: f64) -> Rounding {
        let scale = scale.min(MAX_SCALE);
        self.lowered.round(&self.units.iter().map(|unit| scale / unit).collect::<Vec<_>>())
    }

    /// The bulk form, at a scale or at the one that fits best.
    fn bulk(&self, scale: Option<f64>) -> Result<BulkForm, PlanError> {
        let goal = Goal {
            packing: Packing::Slots,
            hide: self.options.hide,
            log2_failure: self.options.log2_p_fail,
            max_error: self.options.max_error,
        };
        let mut round = |scale: f64| {
            let rounding = self.rounding(scale);
            Ok(Rounded {
                program: self.lowered.program(&rounding).validate()?,
                ranges: rounding.outputs.iter().map(|output| output.range).collect(),
                max_error: relative_error(&rounding, &self.units),
            })
        };
        let (plan, rounded) = match scale {
            Some(scale) => plan_at(&goal, scale, &mut round)?,
            None => plan(&goal, &mut round)?,
        };
        Ok(BulkForm { plan, program: rounded.program })
    }

    /// The row form, at a scale or at the one that fits best.
    fn rows(&self, limits: RowLimits, scale: Option<f64>) -> Result<RowForm, RowFormError> {
        let trees = self.lowered.rows().expect("it was lowered to paths");
        let columns = u32::try_from(self.predicates.columns.len()).unwrap_or(u32::MAX);
        let goal = RowGoal {
            max_error: self.options.max_error,
            log2_failure: self.options.log2_p_fail,
            hide: DEFAULT_HIDE_BITS,
            tag_factors: self.options.tag_factors.get(),
            limits,
        };
        let shape = trees.shape(columns);
        let mut round = |scale: f64| {
            let rounding = self.rounding(scale);
            let ends = rounding.outputs.iter().flat_map(|output| [output.range.0, output.range.1]);
            RoundedSums {
                magnitude: ends.map(i64::unsigned_abs).max().unwrap_or(0),
                max_error: relative_error(&rounding, &self.units),
            }
        };
        let plan = match scale {
            Some(scale) => plan_rows_at(&goal, &shape, scale, &mut round)?,
            None => plan_rows(&goal, &shape, &mut round)?,
        };
        let offset = plan.parameters.value_centre();
        let program = trees.program(&self.rounding(plan.scale), columns, offset);
        let program = program.validate(&plan.parameters)?;
        Ok(RowForm { plan, program })
    }

    /// The bulk form and no other.
    fn bulk_alone(&self, left_out: Option<LeftOut>) -> Result<Parts, CompileError> {
        let bulk = self.bulk(None)?;
        self.parts(Some(bulk), None, left_out)
    }

    /// Both forms at one scale, the coarser of theirs: their integers are the same, and so are the
    /// scores, whichever form a row takes.
    fn both(&self, bulk: BulkForm, rows: RowForm) -> Result<Parts, CompileError> {
        let scale = bulk.plan.scale.min(rows.plan.scale);
        let bulk = if bulk.plan.scale > scale { self.bulk(Some(scale))? } else { bulk };
        let rows = match rows.plan.scale > scale {
            true => self.rows(RowLimits::DEFAULT, Some(scale))?,
            false => rows,
        };
        self.parts(Some(bulk), Some(rows), None)
    }

    fn parts(
        &self,
        bulk: Option<BulkForm>,
        rows: Option<RowForm>,
        left_out: Option<LeftOut>,
    ) -> Result<Parts, CompileError> {
        let of_bulk = bulk.as_ref().map(|bulk| bulk.plan.scale);
        let scale = of_bulk.or(rows.as_ref().map(|rows| rows.plan.scale)).unwrap_or(1.0);
        let rounding = self.rounding(scale);
        if rounding.outputs.iter().all(|output| output.range.0 == output.range.1) {
            // An error that is allowed to be as large as the outputs leaves nothing of them.
            return Err(CompileError::NothingLeft(self.options.max_error));
        }
        let mut data_owner_learns = ensemble_secrets(self.options.bins, self.options.hide);
        if rows.is_some() {
            data_owner_learns.extend(row_secrets());
        }
        Ok(Parts {
            kind: Kind::Ensemble,
            bins: Some(self.options.bins),
            relative_error: relative_error(&rounding, &self.units),
            inputs: Inputs::Predicates(self.predicates.clone()),
            outputs: rounding.outputs,
            bulk,
            rows,
            left_out,
            data_owner_learns,
            notes: Vec::new(),
        })
    }
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
    targets: Targets,
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
        Bins::Used => Lowered::of(&ensemble, features.len(), targets, none)?,
        Bins::Padded => {
            let calibration = needed("padded bins")?;
            let pad = |real: &[Column]| bins::pad(&ensemble, features, real, calibration);
            Lowered::of(&ensemble, features.len(), targets, pad)?
        }
        Bins::Full => {
            let grids = bins::snap(&mut ensemble, features, needed("full bins")?);
            Lowered::of(&ensemble, features.len(), targets, |real| bins::grid(&grids, real))?
        }
    };
    Ok(lowered)
}
