//! Searches scales: coarsest first to find parameters, then finest within these.

use super::super::noise::Moments;
use super::super::parameters::Packing;
use super::super::program::InvalidProgram;
use super::fit::{Demand, Fit, MIN_LOG2_FAILURE, Shortfall};
use super::{Goal, Plan, PlanError, PlanRefusal, Remedy, Rounded};
use crate::rlwe::primes::WORD_BITS;
use crate::scales::{self, MAX_STEP, NoScale, STEPS_PER_BIT, STRIDE, scale};

/// How much finer than the error asks for a scale may become: at 2^8, errors no longer matter.
const MAX_REFINEMENT: i32 = 8 * STEPS_PER_BIT;
/// Failure probabilities that a refusal tries.
const TRIED_FAILURES: [f64; 2] = [-64.0, -40.0];
/// Bits by which a refusal tries to be coarser.
const TRIED_BITS: i32 = 12;

/// Rounds a model at a scale.
pub type Round<'a> = dyn FnMut(f64) -> Result<Rounded, InvalidProgram> + 'a;

/// Plans a model; `round` rounds its values at a scale, and errors must not grow with it. Gives the
/// model as it was rounded at the scale of the plan.
pub fn plan(goal: &Goal, round: &mut Round<'_>) -> Result<(Plan, Rounded), PlanError> {
    check(goal)?;
    let coarsest = coarsest(goal, round)?;
    let candidate = Candidate::new(goal, coarsest, round)?;
    let fit = match candidate.demand.least(goal) {
        Ok(fit) => fit,
        Err(shortfall) => return Err(refuse(goal, &candidate, shortfall, round).into()),
    };
    let (candidate, fit) = finest(goal, candidate, fit, round);
    Ok((candidate.plan(goal, &fit), candidate.rounded))
}

/// Plans a model at one of the scales that [`plan`] finds, or a coarser one of its.
pub fn plan_at(
    goal: &Goal,
    scale: f64,
    round: &mut Round<'_>,
) -> Result<(Plan, Rounded), PlanError> {
    check(goal)?;
    let candidate = Candidate::new(goal, scales::step(scale), round)?;
    match candidate.demand.least(goal) {
        Ok(fit) => Ok((candidate.plan(goal, &fit), candidate.rounded)),
        Err(shortfall) => Err(refuse(goal, &candidate, shortfall, round).into()),
    }
}

fn check(goal: &Goal) -> Result<(), PlanError> {
    if goal.packing == Packing::Coefficients && goal.hide {
        return Err(PlanError::Goal("a linear model cannot be hidden: a few rows give it away"));
    }
    if !(goal.max_error.is_finite() && goal.max_error > 0.0) {
        return Err(PlanError::Goal("the largest error must be above 0"));
    }
    if !(MIN_LOG2_FAILURE..0.0).contains(&goal.log2_failure) {
        return Err(PlanError::Goal("the failure probability must be from 2^-1024 to 1"));
    }
    Ok(())
}

/// A model at a scale, and what it asks of parameters.
struct Candidate {
    step: i32,
    rounded: Rounded,
    demand: Demand,
}

impl Candidate {
    fn new(goal: &Goal, step: i32, round: &mut Round<'_>) -> Result<Self, PlanError> {
        let rounded = round(scale(step))?;
        let (program, ranges) = (&rounded.program, &rounded.ranges);
        let outputs = program.program().outputs.len();
        if ranges.len() != outputs {
            return Err(PlanError::Goal("every output needs a range"));
        }
        if goal.packing == Packing::Coefficients && program.degree() > 1 {
            return Err(PlanError::Goal("rows in coefficients cannot be multiplied"));
        }
        let magnitude = ranges.iter().flat_map(|&(low, high)| [low, high]);
        let magnitude = magnitude.map(i64::unsigned_abs).max().unwrap_or(0);
        let (moments, degree) = (Moments::new(program)?, program.degree());
        let demand = Demand { moments, magnitude, outputs, degree };
        Ok(Self { step, rounded, demand })
    }

    fn plan(&self, goal: &Goal, fit: &Fit) -> Plan {
        let (program, parameters) = (&self.rounded.program, fit.parameters);
        let degree = program.degree();
        let noise_bits = (1..=degree).map(|degree| {
            let variance = self.demand.moments.variance_of_degree(&parameters, degree);
            variance.max(1.0).log2() / 2.0
        });
        let bytes = |elements: u32, primes| {
            f64::from(elements) * f64::from(primes) * f64::from(WORD_BITS) / 8.0
        };
        // Validated to be small.
        let outputs = u32::try_from(self.demand.outputs).unwrap_or(u32::MAX);
        let components = outputs.saturating_mul(degree + 1);
        Plan {
            parameters,
            hide: goal.hide,
            reply_primes: fit.reply_primes,
            scale: scale(self.step),
            max_error: self.rounded.max_error,
            degree,
            noise_bits: noise_bits.collect(),
            log2_sigma_phase: fit.log2_sigma_phase,
            log2_failure: fit.log2_failure,
            upload_bytes_per_row: bytes(program.program().columns, parameters.primes),
            reply_bytes_per_row: bytes(components, fit.reply_primes),
            ring_products: program.ring_products(),
        }
    }
}

/// The coarsest scale that meets the error.
fn coarsest(goal: &Goal, round: &mut Round<'_>) -> Result<i32, PlanError> {
    let error_at = |scale: f64| round(scale).map(|rounded| rounded.max_error);
    scales::coarsest(goal.max_error, error_at).map_err(|none| match none {
        NoScale::Error(reached) => PlanError::Error { asked: goal.max_error, reached },
        NoScale::Rounding(invalid) => invalid.into(),
    })
}

/// The finest scale that the parameters of a fit allow.
fn finest(goal: &Goal, from: Candidate, fit: Fit, round: &mut Round<'_>) -> (Candidate, Fit) {
    let same = |step: i32, round: &mut Round<'_>| {
        let finer = Candidate::new(goal, step, round).ok()?;
        let found = finer.demand.least(goal).ok()?;
        let same = found.parameters == fit.parameters && found.reply_primes == fit.reply_primes;
        same.then_some((finer, found))
    };
    let (mut best, mut beyond) = ((from, fit), None);
    let limit = (best.0.step + MAX_REFINEMENT).min(MAX_STEP);
    loop {
        let step = match beyond {
            None => (best.0.step + STRIDE).min(limit),
            Some(beyond) => i32::midpoint(best.0.step, beyond),
        };
        if step == best.0.step {
            return best;
        }
        match same(step, round) {
            Some(finer) => best = finer,
            None => beyond = Some(step),
        }
    }
}

/// Tries what would fit.
fn refuse(
    goal: &Goal,
    found: &Candidate,
    shortfall: Shortfall,
    round: &mut Round<'_>,
) -> PlanRefusal {
    let demand = &found.demand;
    let mut remedies = Vec::new();
    let coarser = (1..=TRIED_BITS).find_map(|bits| {
        let step = found.step.checked_sub(bits * STEPS_PER_BIT)?;
        let candidate = Candidate::new(goal, step, round).ok()?;
        candidate.demand.least(goal).ok().map(|_| candidate.rounded.max_error)
    });
    remedies.extend(coarser.map(Remedy::MaxError));
    let failures = TRIED_FAILURES.into_iter().filter(|&failure| failure > goal.log2_failure);
    let failure = |&log2_failure: &f64| demand.least(&Goal { log2_failure, ..*goal }).is_ok();
    remedies.extend({ failures }.find(failure).map(Remedy::Failure));
    if goal.hide && demand.least(&Goal { hide: false, ..*goal }).is_ok() {
        remedies.push(Remedy::NoHide);
    }
    remedies.extend(demand.feasible_degree(goal).map(Remedy::Degree));
    let bits = match shortfall {
        Shortfall::Magnitude => None,
        Shortfall::Modulus { needed, available } => Some((needed, available)),
    };
    PlanRefusal { degree: demand.degree, bits, remedies }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation)]
mod tests {
    use super::super::super::program::{ColumnSum, Node, Output, Program};
    use super::super::super::tests::samples::{Numbers, affine, full_trees};
    use super::*;

    const GOAL: Goal =
        Goal { packing: Packing::Slots, hide: false, log2_failure: -128.0, max_error: 0.01 };

    fn rescaled(affine: &mut ColumnSum, factor: f64) {
        let rounded = |value: i64| (value as f64 * factor).round() as i64;
        affine.constant = rounded(affine.constant);
        affine.terms.iter_mut().for_each(|term| term.1 = rounded(term.1));
        affine.terms.retain(|term| term.1 != 0);
    }

    /// Full trees whose leaves are between -1 and 1.
    fn trees(trees: usize, depth: u32) -> impl FnMut(f64) -> Result<Rounded, InvalidProgram> {
        let mut program = full_trees(&mut Numbers(7), trees, depth, 600);
        for node in &mut program.nodes {
            if let Node::Affine(leaves) = node {
                rescaled(leaves, 1e6 / 127.0);
            }
        }
        let count = i64::try_from(trees).unwrap();
        move |scale| {
            let mut program = program.clone();
            for node in &mut program.nodes {
                if let Node::Affine(leaves) = node {
                    rescaled(leaves, scale * 1e-6);
                }
            }
            let bound = count * (scale.ceil() as i64 + 1);
            let max_error = trees as f64 / scale;
            Ok(Rounded { program: program.validate()?, ranges: vec![(-bound, bound)], max_error })
        }
    }

    #[test]
    fn parameters_grow_with_depth() {
        let mut found = Vec::new();
        for depth in 1..=6 {
            let (plan, rounded) = plan(&GOAL, &mut trees(100, depth)).unwrap();
            assert_eq!(plan.degree, depth);
            assert!(plan.max_error <= 0.01 && rounded.max_error == plan.max_error);
            assert!(plan.log2_failure <= -128.0);
            assert!(plan.reply_primes <= plan.parameters.primes);
            assert_eq!(plan.noise_bits.len(), depth as usize);
            let json = serde_json::to_string(&plan).unwrap();
            assert_eq!(serde_json::from_str::<Plan>(&json).unwrap(), plan);
            found.push((plan.parameters.ring_dimension, plan.parameters.primes));
        }
        assert!(found.is_sorted_by_key(|&(dimension, primes)| (primes, dimension)), "{found:?}");
        assert_eq!(found[0], (2048, 1));
    }

    #[test]
    fn hiding_costs_the_flood() {
        let (open, _) = plan(&GOAL, &mut trees(50, 4)).unwrap();
        let (hidden, _) = plan(&Goal { hide: true, ..GOAL }, &mut trees(50, 4)).unwrap();
        assert!(hidden.parameters.primes > open.parameters.primes);
        assert!(hidden.log2_failure <= -128.0);
    }

    #[test]
    fn scales_are_as_fine_as_parameters_allow() {
        let (found, _) = plan(&GOAL, &mut trees(10, 2)).unwrap();
        let finer = Goal { max_error: found.max_error, ..GOAL };
        let (again, _) = plan(&finer, &mut trees(10, 2)).unwrap();
        assert_eq!(again.parameters, found.parameters);
        assert!(found.max_error < 0.01);
    }

    #[test]
    fn what_does_not_fit_is_refused_with_what_would() {
        let goal = Goal { hide: true, max_error: 1e-6, ..GOAL };
        let PlanError::Refused(refusal) = plan(&goal, &mut trees(20, 9)).unwrap_err() else {
            panic!("not a refusal");
        };
        assert_eq!(refusal.degree, 9);
        let (needed, available) = refusal.bits.unwrap();
        assert!(needed > available && available > 407.0);
        assert!(refusal.remedies.iter().any(|remedy| matches!(remedy, Remedy::Degree(_))));
        assert!(refusal.to_string().contains("it would fit with"), "{refusal}");
    }

    #[test]
    fn linear_models_need_one_prime() {
        let mut round = |scale: f64| {
            let terms: Vec<_> = (0..30).map(|i| (i, (scale * 30.0) as i64 + 1)).collect();
            let nodes = vec![Node::Affine(affine(5, &terms))];
            let outputs = vec![Output { constant: 0, roots: vec![0] }];
            let program = Program { columns: 30, nodes, outputs }.validate()?;
            let bound = (scale * 1e6) as i64;
            Ok(Rounded { program, ranges: vec![(-bound, bound)], max_error: 1.0 / scale })
        };
        let goal = Goal { packing: Packing::Coefficients, ..GOAL };
        let (plan, _) = plan(&goal, &mut round).unwrap();
        assert_eq!((plan.parameters.ring_dimension, plan.parameters.primes), (2048, 1));
        assert!(plan.parameters.plaintext_modulus.is_power_of_two());
        assert_eq!(plan.reply_primes, 1);
    }

    #[test]
    fn goals_are_checked() {
        let refused = |goal| matches!(plan(&goal, &mut trees(1, 1)), Err(PlanError::Goal(_)));
        assert!(refused(Goal { packing: Packing::Coefficients, hide: true, ..GOAL }));
        assert!(refused(Goal { packing: Packing::Coefficients, max_error: 0.0, ..GOAL }));
        assert!(refused(Goal { log2_failure: 0.0, ..GOAL }));
        let mut stuck = |_| Ok(Rounded { max_error: 1.0, ..trees(1, 1)(1.0)? });
        assert!(matches!(plan(&GOAL, &mut stuck), Err(PlanError::Error { .. })));
    }
}
