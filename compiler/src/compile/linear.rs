//! Linear models: ranges of the features, and as many steps as the error asks for.

use cipherscore_engine::artifact::Kind;
use cipherscore_engine::bulk::client_model::Inputs;
use cipherscore_engine::bulk::parameters::Packing;
use cipherscore_engine::bulk::plan::{Goal, Plan, Rounded, plan};

use super::forms::{BulkForm, WantedForms};
use super::notes::{Remark, RemarkKind};
use super::{CompileError, CompileOptions, Parts};
use crate::linear::{LinearError, Ranged, RoundedLinear};
use crate::ranges::{Outlier, RANGE_MARGIN, Ranges, calibrated, named};
use crate::report::linear_secrets;
use crate::trained::{Linear, TrainedModel};

/// Times the width of the calibration rows that a range is wide at least.
const LEAST_ROOM: f64 = 1.0 + 2.0 * RANGE_MARGIN;
/// The same, where some more bits of a ciphertext do it.
const ENOUGH_ROOM: f64 = 8.0;
/// How much finer than asked for a model is rounded before bits are spent on room.
const FINER: f64 = 4.0;

pub(super) fn compile(
    model: &TrainedModel,
    linear: &Linear,
    options: &CompileOptions,
) -> Result<Parts, CompileError> {
    if options.forms == WantedForms::Rows {
        return Err(CompileError::LinearRows);
    }
    let features = &model.features;
    let ranges = match (&options.ranges, &options.calibration) {
        (Some(ranges), _) => named(ranges, features, linear)?,
        (None, Some(rows)) => calibrated(rows, features, linear)?,
        (None, None) => return Err(CompileError::CalibrationNeeded("ranges of a linear model")),
    };
    let attempt = |room: f64, error: f64| Attempt::of(model, linear, options, &ranges, room, error);
    let least = attempt(LEAST_ROOM, options.max_error)?;
    let parameters = |attempt: &Attempt<'_>| {
        let plan = &attempt.plan;
        (plan.parameters.ring_dimension, plan.parameters.primes, plan.reply_primes)
    };
    // Bits are cheap: as wide as the same ring and primes allow, and some room in any case.
    let rooms = [1024.0, 512.0, 256.0, 128.0, 64.0, 32.0, 16.0, ENOUGH_ROOM];
    let wider = rooms.into_iter().filter(|_| !ranges.are_given).find_map(|room| {
        let wider = attempt(room, options.max_error / FINER).ok()?;
        (room == ENOUGH_ROOM || parameters(&wider) == parameters(&least)).then_some(wider)
    });
    let Attempt { plan, rounded, ranged } = wider.unwrap_or(least);
    let RoundedLinear { inputs, outputs, .. } = ranged.round(plan.scale);
    if rounded.program.degree() == 0 {
        // An error that is allowed to be as large as the outputs leaves nothing of them.
        return Err(CompileError::NothingLeft(options.max_error));
    }
    let notes = notes(&ranges, &ranged);
    Ok(Parts {
        kind: Kind::Linear,
        bins: None,
        relative_error: plan.max_error,
        bulk: Some(BulkForm { plan, program: rounded.program }),
        rows: None,
        left_out: None,
        inputs: Inputs::Linear(inputs),
        outputs,
        data_owner_learns: linear_secrets(features.len()),
        notes,
    })
}

/// A linear model, planned in ranges of some room.
struct Attempt<'a> {
    plan: Plan,
    rounded: Rounded,
    ranged: Ranged<'a>,
}

impl<'a> Attempt<'a> {
    fn of(
        model: &'a TrainedModel,
        linear: &'a Linear,
        options: &CompileOptions,
        ranges: &Ranges,
        room: f64,
        max_error: f64,
    ) -> Result<Self, CompileError> {
        let core = ranges.core.clone();
        let ranged =
            Ranged { linear, features: &model.features, core, ranges: ranges.widened(room) };
        ranged.check().map_err(|error| match error {
            LinearError::Constant(error) => CompileError::Lower(error),
            LinearError::Range(error) => CompileError::Range(error),
        })?;
        let spans = ranged.spans();
        let relative_error = |rounded: &RoundedLinear| {
            let errors = rounded.outputs.iter().zip(&spans).filter(|(_, span)| **span > 0.0);
            errors.map(|(output, span)| output.error / span).fold(0.0, f64::max)
        };
        let goal = Goal {
            packing: Packing::Coefficients,
            hide: false,
            log2_failure: options.log2_p_fail,
            max_error,
        };
        let (plan, rounded) = plan(&goal, &mut |steps| {
            let rounded = ranged.round(steps);
            Ok(Rounded {
                program: rounded.program.clone().validate()?,
                ranges: rounded.outputs.iter().map(|output| output.range).collect(),
                max_error: relative_error(&rounded),
            })
        })?;
        Ok(Self { plan, rounded, ranged })
    }
}

/// What there is to say of the ranges.
fn notes(ranges: &Ranges, ranged: &Ranged<'_>) -> Vec<Remark> {
    const NAMED: usize = 5;
    let mut notes = Vec::new();
    if !ranges.are_given {
        let room = ranged.least_factor();
        let text = format!("{room:.1} times those of the calibration rows, or wider");
        notes.push(Remark { kind: RemarkKind::Ranges, text });
    }
    for outlier in ranges.outliers.iter().take(NAMED) {
        let Outlier { row, feature, value, others: (low, high) } = outlier;
        let text = format!(
            "calibration row {}, column {feature:?}: {value} is far from all others, which are from {low} \
             to {high}, and did not decide about the range",
            row + 1
        );
        notes.push(Remark { kind: RemarkKind::Warning, text });
    }
    if let Some(more @ 1..) = ranges.outliers.len().checked_sub(NAMED) {
        let text = format!("{more} more calibration values are as far from all others");
        notes.push(Remark { kind: RemarkKind::Warning, text });
    }
    notes
}
