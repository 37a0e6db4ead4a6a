//! Linear models: ranges of the features, and as many steps as the error asks for.

use cipherscore_engine::artifact::Kind;
use cipherscore_engine::bulk::client_model::Inputs;
use cipherscore_engine::bulk::parameters::Packing;
use cipherscore_engine::bulk::plan::{Goal, Rounded, plan};

use super::forms::{BulkForm, WantedForms};
use super::{CompileError, CompileOptions, Parts};
use crate::linear::{LinearError, Ranged, RoundedLinear};
use crate::lower::LowerError;
use crate::ranges::{calibrated, named};
use crate::report::linear_secrets;
use crate::trained::{Linear, TrainedModel};

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
    let ranged = Ranged { linear, features, ranges };
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
        max_error: options.max_error,
    };
    let (plan, rounded) = plan(&goal, &mut |steps| {
        let rounded = ranged.round(steps);
        Ok(Rounded {
            program: rounded.program.clone().validate()?,
            ranges: rounded.outputs.iter().map(|output| output.range).collect(),
            max_error: relative_error(&rounded),
        })
    })?;
    let RoundedLinear { inputs, outputs, .. } = ranged.round(plan.scale);
    if rounded.program.degree() == 0 {
        // An error that is allowed to be as large as the outputs leaves nothing of them.
        return Err(LowerError::Constant.into());
    }
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
    })
}
