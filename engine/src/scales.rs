//! Scales at which a model's values become integers, and the coarsest that meets an error.

/// Scales are powers of 2^(1/4).
pub(crate) const STEPS_PER_BIT: i32 = 4;
/// Steps that a search takes before it has the scale between two.
pub(crate) const STRIDE: i32 = 2 * STEPS_PER_BIT;
/// Scales from 2^-64 to 2^64.
pub(crate) const MAX_STEP: i32 = 64 * STEPS_PER_BIT;

/// The scale of a step.
pub(crate) fn scale(step: i32) -> f64 {
    (f64::from(step) / f64::from(STEPS_PER_BIT)).exp2()
}

/// The step whose scale is nearest to one.
#[allow(clippy::cast_possible_truncation, reason = "clamped")]
pub(crate) fn step(scale: f64) -> i32 {
    let step = (scale.log2() * f64::from(STEPS_PER_BIT)).round();
    step.clamp(-f64::from(MAX_STEP), f64::from(MAX_STEP)) as i32
}

/// Why there is no scale.
pub(crate) enum NoScale<E> {
    /// The error stays above the one that is asked for: at best it is so large.
    Error(f64),
    /// Values cannot be rounded.
    Rounding(E),
}

/// The step of the coarsest scale that meets an error; `error_at` gives that of a scale.
pub(crate) fn coarsest<E>(
    max_error: f64,
    mut error_at: impl FnMut(f64) -> Result<f64, E>,
) -> Result<i32, NoScale<E>> {
    let mut reached = f64::INFINITY;
    let mut meets = |step: i32| -> Result<bool, NoScale<E>> {
        let error = error_at(scale(step)).map_err(NoScale::Rounding)?;
        reached = reached.min(error);
        Ok(error <= max_error)
    };
    // A value that is rounded at scale 1/e is off by e/2.
    #[allow(clippy::cast_possible_truncation)]
    let start = (-max_error.log2() * f64::from(STEPS_PER_BIT)).round() as i32;
    let start = start.clamp(-MAX_STEP, MAX_STEP);
    let (mut coarse, mut fine) = (start, start);
    if meets(start)? {
        while coarse == fine && fine > -MAX_STEP {
            coarse = (fine - STRIDE).max(-MAX_STEP);
            if meets(coarse)? {
                fine = coarse;
            }
        }
    } else {
        while coarse == fine {
            if coarse == MAX_STEP {
                return Err(NoScale::Error(reached));
            }
            fine = (coarse + STRIDE).min(MAX_STEP);
            if !meets(fine)? {
                coarse = fine;
            }
        }
    }
    while fine - coarse > 1 {
        let middle = i32::midpoint(coarse, fine);
        if meets(middle)? { fine = middle } else { coarse = middle }
    }
    Ok(fine)
}
