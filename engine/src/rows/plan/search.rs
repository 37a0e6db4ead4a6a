//! Tries every number of columns of a group, three and four primes, finer digits.

use tfhe_ntt::prime::is_prime64;

use super::super::parameters::{
    ExpansionStep, FloodWidth, HIDE_BITS, MAX_DIGITS, MAX_REGIONS, MAX_REPLY_CIPHERTEXTS,
    MAX_ROW_OUTPUTS, MAX_ROW_PLAINTEXT_MODULUS, MIN_LOG2_ROW_FAILURE, RowKeyParameters,
    RowParameters, TAG_MODULI,
};
use super::cost::RowCost;
use super::fit::{NoRoom, fit};
use super::{RoundedSums, RowGoal, RowPlan, RowPlanError, RowShape};
use crate::scales::{self, NoScale, STEPS_PER_BIT, scale};

/// N: smaller rings have no room for a flood after key switches, larger ones cost more for nothing.
pub(super) const RING_DIMENSION: u32 = 8192;
/// Numbers of primes that there are security estimates for, and that have room.
const PRIMES: [u32; 2] = [3, 4];
/// Rounds of an expansion step wherever two rounds are left.
const ROUNDS_OF_STEP: u32 = 2;
/// How much finer than the error asks for a scale may become where that costs nothing.
const MAX_REFINEMENT: i32 = 4 * STEPS_PER_BIT;

/// Rounds an ensemble at a scale.
pub type RoundRow<'a> = dyn FnMut(f64) -> RoundedSums + 'a;

/// Plans an ensemble at the finest scale that costs no more than the coarsest that meets the error.
/// Errors must not grow with the scale.
pub fn plan_rows(
    goal: &RowGoal,
    shape: &RowShape,
    round: &mut RoundRow<'_>,
) -> Result<RowPlan, RowPlanError> {
    check_goal(goal)?;
    check_shape(goal, shape)?;
    let coarsest =
        scales::coarsest::<RowPlanError>(goal.max_error, |scale| Ok(round(scale).max_error));
    let coarsest = coarsest.map_err(|none| match none {
        NoScale::Error(reached) => RowPlanError::Error { asked: goal.max_error, reached },
        NoScale::Rounding(error) => error,
    })?;
    let mut best = at(goal, shape, scale(coarsest), round)?;
    for step in coarsest + 1..=coarsest + MAX_REFINEMENT {
        let Ok(finer) = at(goal, shape, scale(step), round) else { break };
        let (old, new) = (&best.parameters, &finer.parameters);
        let same = old.keys == new.keys
            && (old.group_columns, old.tag_modulus, old.word_bits)
                == (new.group_columns, new.tag_modulus, new.word_bits);
        if !same {
            break;
        }
        // A finer scale is not better for every leaf.
        if finer.max_error <= goal.max_error {
            best = finer;
        }
    }
    Ok(best)
}

/// Plans an ensemble at one scale.
pub fn plan_rows_at(
    goal: &RowGoal,
    shape: &RowShape,
    scale: f64,
    round: &mut RoundRow<'_>,
) -> Result<RowPlan, RowPlanError> {
    check_goal(goal)?;
    check_shape(goal, shape)?;
    at(goal, shape, scale, round)
}

fn check_goal(goal: &RowGoal) -> Result<(), RowPlanError> {
    if !(goal.max_error.is_finite() && goal.max_error > 0.0) {
        return Err(RowPlanError::Goal("the largest error must be above 0"));
    }
    if goal.log2_failure >= 0.0 || goal.log2_failure.is_nan() {
        return Err(RowPlanError::Goal("the failure probability must be below 1"));
    }
    if goal.log2_failure < MIN_LOG2_ROW_FAILURE {
        return Err(RowPlanError::Goal(
            "rows promise no failure probability below 2^-128: a secret may be too heavy",
        ));
    }
    if goal.tag_factors == 0 {
        return Err(RowPlanError::Goal("tags need at least one factor"));
    }
    if !HIDE_BITS.contains(&goal.hide) {
        return Err(RowPlanError::Goal("a flood can hide by 36 to 64 bits"));
    }
    Ok(())
}

fn check_shape(goal: &RowGoal, shape: &RowShape) -> Result<(), RowPlanError> {
    let outputs = shape.regions.iter().map(|region| u64::from(region.outputs)).sum();
    let limits = &goal.limits;
    for (found, what, limit, remedy) in [
        (
            outputs,
            "outputs",
            limits.outputs.min(MAX_ROW_OUTPUTS).into(),
            "fewer leaves or classes have fewer",
        ),
        (
            shape.columns.into(),
            "columns",
            limits.columns.min(RING_DIMENSION).into(),
            "merged thresholds are fewer",
        ),
        (shape.regions.len() as u64, "raw outputs", MAX_REGIONS as u64, "fewer classes have fewer"),
    ] {
        if found > limit {
            return Err(RowPlanError::TooLarge { found, what, limit, remedy });
        }
    }
    Ok(())
}

/// Tag moduli with so many factors, smallest first.
fn tag_moduli(factors: u32, longest: u32) -> Result<impl Iterator<Item = u32>, RowPlanError> {
    let largest = TAG_MODULI[TAG_MODULI.len() - 1];
    let least = u64::from(factors) * u64::from(longest);
    if least >= u64::from(largest) {
        let limit = (largest - 1) / factors;
        return Err(RowPlanError::Path { longest, factors, limit });
    }
    Ok(TAG_MODULI.into_iter().filter(move |&modulus| u64::from(modulus) > least))
}

/// The least prime of which a magnitude is less than half, other than a tag modulus.
fn value_modulus(magnitude: u64, tag_modulus: u32) -> Option<u64> {
    let least = magnitude.checked_mul(2)?.checked_add(1)?.max(3);
    let most = MAX_ROW_PLAINTEXT_MODULUS / u64::from(tag_modulus);
    (least..=most).find(|&t2| is_prime64(t2) && t2 != u64::from(tag_modulus))
}

fn at(
    goal: &RowGoal,
    shape: &RowShape,
    scale: f64,
    round: &mut RoundRow<'_>,
) -> Result<RowPlan, RowPlanError> {
    let RoundedSums { magnitude, max_error } = round(scale);
    let log2_failure = goal.log2_failure;
    let mut moduli = tag_moduli(goal.tag_factors, shape.longest_path)?;
    let least = moduli.next().expect("one is above");
    let mut best = cheapest(goal, shape, magnitude, least)?;
    // More factors where the same keys and places have room for them.
    for tag_modulus in moduli {
        let Some(value_modulus) = value_modulus(magnitude, tag_modulus) else { break };
        let more = RowParameters {
            tag_modulus,
            value_modulus,
            tag_factors: factors(goal, tag_modulus, shape.longest_path),
            ..best.clone()
        };
        let Ok(more) = fit(more, log2_failure) else { break };
        if RowCost::of(&more).microseconds > goal.limits.microseconds() {
            break;
        }
        best = more;
    }
    let cost = RowCost::of(&best);
    Ok(RowPlan { parameters: best, scale, max_error, log2_failure, cost })
}

/// R: as many factors as a modulus has room for, but a power of two where no more are asked for: the
/// number itself would tell the longest path.
fn factors(goal: &RowGoal, tag_modulus: u32, longest_path: u32) -> u32 {
    let most = (tag_modulus - 1) / longest_path.max(1);
    goal.tag_factors.max(1 << most.ilog2())
}

/// The cheapest parameters with one modulus of tags, of those that are fast enough.
fn cheapest(
    goal: &RowGoal,
    shape: &RowShape,
    magnitude: u64,
    tag_modulus: u32,
) -> Result<RowParameters, RowPlanError> {
    let value_bits = (2.0 * magnitude as f64 + 1.0).log2();
    let limit = (MAX_ROW_PLAINTEXT_MODULUS as f64 / f64::from(tag_modulus)).log2();
    let value_modulus = value_modulus(magnitude, tag_modulus)
        .ok_or(RowPlanError::Values { bits: value_bits, limit })?;
    let mut closest = NoRoom { needed: f64::INFINITY, available: 0.0 };
    let mut best: Option<(RowParameters, RowCost)> = None;
    // Of those that take too long.
    let mut fastest: Option<f64> = None;
    for (keys, group_columns) in candidates(shape.columns) {
        let parameters = RowParameters {
            keys,
            tag_modulus,
            value_modulus,
            tag_factors: factors(goal, tag_modulus, shape.longest_path),
            columns: shape.columns,
            group_columns,
            regions: shape.regions.clone(),
            flood: [FloodWidth { factor: 1, bits: 1 }; 2],
            hide: goal.hide,
            word_bits: 0,
        };
        if parameters.layout().reply_ciphertexts() > MAX_REPLY_CIPHERTEXTS {
            continue;
        }
        match fit(parameters, goal.log2_failure) {
            Ok(parameters) => {
                let cost = RowCost::of(&parameters);
                if cost.microseconds > goal.limits.microseconds() {
                    let found = cost.microseconds;
                    fastest = Some(fastest.map_or(found, |fastest| fastest.min(found)));
                } else if best.as_ref().is_none_or(|(_, best)| cost.weight() < best.weight()) {
                    best = Some((parameters, cost));
                }
            }
            Err(no_room) => {
                let missing = |room: &NoRoom| room.needed - room.available;
                if missing(&no_room) < missing(&closest) {
                    closest = no_room;
                }
            }
        }
    }
    let NoRoom { needed, available } = closest;
    let limit = goal.limits.milliseconds;
    match (best, fastest) {
        (Some((parameters, _)), _) => Ok(parameters),
        (None, Some(found)) => Err(RowPlanError::Slow { found: found / 1000.0, limit }),
        (None, None) => Err(RowPlanError::Modulus { value_bits, needed, available }),
    }
}

/// Keys, and columns of a group, that so many columns may have.
fn candidates(columns: u32) -> impl Iterator<Item = (RowKeyParameters, u32)> {
    let fits = move |group: &u32| {
        let groups = columns.div_ceil(*group).next_power_of_two();
        *group <= columns.next_power_of_two() && groups * *group <= RING_DIMENSION
    };
    let groups = (0..=RING_DIMENSION.ilog2()).map(|bits| 1 << bits).filter(fits);
    let with = |group: u32| {
        let rounds = (RING_DIMENSION / group).ilog2();
        let steps = rounds.div_ceil(ROUNDS_OF_STEP);
        // Finer digits in the first rounds, whose noise all later ones double.
        let finer = (2..=MAX_DIGITS).flat_map(move |digits| (1..=steps).map(move |s| (digits, s)));
        let digits = std::iter::once((1, 0)).chain(finer);
        digits.flat_map(move |(digits, finer)| {
            PRIMES.into_iter().map(move |primes| {
                let step = |step: u32| ExpansionStep {
                    rounds: ROUNDS_OF_STEP.min(rounds - step * ROUNDS_OF_STEP),
                    digits: if step < finer { digits } else { 1 },
                };
                let steps = (0..steps).map(step).collect();
                (RowKeyParameters { ring_dimension: RING_DIMENSION, primes, steps }, group)
            })
        })
    };
    groups.flat_map(with)
}

#[cfg(test)]
mod tests {
    use super::super::super::parameters::OutputRegion;
    use super::super::{DEFAULT_HIDE_BITS, RowLimits};
    use super::*;

    const GOAL: RowGoal = RowGoal {
        max_error: 1e-3,
        log2_failure: -128.0,
        hide: DEFAULT_HIDE_BITS,
        tag_factors: 1,
        limits: RowLimits::DEFAULT,
    };

    fn shape(columns: u32, outputs: u32, trees: u32, longest_path: u32) -> RowShape {
        RowShape { columns, regions: vec![OutputRegion { outputs, trees }], longest_path }
    }

    /// Leaves of so many trees between -1/2 and 1/2 of all that the sum can be.
    fn rounded(trees: u32) -> impl FnMut(f64) -> RoundedSums {
        move |scale| {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let magnitude = (scale / 2.0).ceil() as u64 + u64::from(trees) / 2;
            RoundedSums { magnitude, max_error: f64::from(trees) / (2.0 * scale) }
        }
    }

    fn planned(goal: &RowGoal, shape: &RowShape) -> Result<RowPlan, RowPlanError> {
        let trees = shape.regions[0].trees;
        let plan = plan_rows(goal, shape, &mut rounded(trees))?;
        plan.parameters.validate().unwrap();
        let RowParameters { tag_modulus, tag_factors, .. } = plan.parameters;
        assert!(shape.longest_path * tag_factors < tag_modulus);
        assert!(plan.max_error <= goal.max_error);
        Ok(plan)
    }

    /// The models of the requirements, padded.
    #[test]
    fn small_ensembles_are_cheap() {
        let plan = planned(&GOAL, &shape(145, 312, 52, 5)).unwrap();
        let RowCost { microseconds, upload_bytes, reply_bytes, key_bytes, .. } = plan.cost;
        assert_eq!(plan.parameters.keys.primes, 3);
        assert!(microseconds < 6_500.0, "{plan:?}");
        assert!(upload_bytes < 3_000 && reply_bytes < 34_000, "{plan:?}");
        assert!(key_bytes < 7_000_000, "{plan:?}");
        let more = planned(&RowGoal { tag_factors: 12, ..GOAL }, &shape(145, 312, 52, 5)).unwrap();
        assert!(more.parameters.tag_factors >= 12 && more.cost.key_bytes < 10_500_000 + 2_000_000);
        let full = planned(&GOAL, &shape(216, 824, 52, 5)).unwrap();
        assert!(full.cost.microseconds < 11_000.0, "{full:?}");
    }

    #[test]
    fn large_ensembles_take_what_they_need() {
        let limits = RowLimits::LARGEST;
        for (columns, outputs, trees, path) in [(1213, 6648, 104, 7), (1229, 16376, 512, 19)] {
            for max_error in [1e-2, 1e-3] {
                let goal = RowGoal { max_error, limits, ..GOAL };
                let plan = planned(&goal, &shape(columns, outputs, trees, path)).unwrap();
                let bits = (plan.parameters.value_modulus as f64).log2();
                let least = f64::from(trees).log2() - max_error.log2() - 1.0;
                assert!((least..least + 2.0).contains(&bits), "{plan:?}");
            }
        }
        let slow = planned(&GOAL, &shape(1229, 16376, 512, 19)).unwrap_err();
        assert!(matches!(slow, RowPlanError::Slow { .. }), "{slow}");
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let refused = |goal: RowGoal, shape| planned(&goal, &shape).unwrap_err().to_string();
        let large = refused(GOAL, shape(100, 1 << 16, 50, 5));
        assert!(large.contains("65536 outputs of a row, where at most 32768"), "{large}");
        let limits = RowLimits::LARGEST;
        let wider = refused(RowGoal { limits, ..GOAL }, shape(9000, 100, 50, 5));
        assert!(wider.contains("9000 columns of a row, where at most 8192"), "{wider}");
        let wide = refused(GOAL, shape(5000, 100, 50, 5));
        assert!(wide.contains("5000 columns of a row, where at most 4096"), "{wide}");
        let long = refused(GOAL, shape(100, 100, 50, 251));
        assert!(long.contains("251 conditions") && long.contains("at most 250"), "{long}");
        let factors = refused(RowGoal { tag_factors: 100, ..GOAL }, shape(100, 100, 50, 5));
        assert!(factors.contains("100 factors") && factors.contains("at most 2 cond"), "{factors}");
        let fine = refused(RowGoal { max_error: 1e-13, ..GOAL }, shape(100, 100, 50, 5));
        assert!(fine.contains("sums of 4") && fine.contains("about 39.2"), "{fine}");
        let goal = RowGoal { max_error: 1e-10, hide: 64, ..GOAL };
        let hidden = refused(goal, shape(100, 100, 50, 5));
        assert!(hidden.contains("do not fit") && hidden.contains("has 204.0"), "{hidden}");
        for goal in [
            RowGoal { max_error: 0.0, ..GOAL },
            RowGoal { log2_failure: 0.0, ..GOAL },
            RowGoal { log2_failure: -128.5, ..GOAL },
            RowGoal { tag_factors: 0, ..GOAL },
            RowGoal { hide: 35, ..GOAL },
            RowGoal { hide: 65, ..GOAL },
        ] {
            assert!(matches!(planned(&goal, &shape(9, 9, 2, 3)), Err(RowPlanError::Goal(_))));
        }
    }

    /// What is cheapest with its bytes may be too slow where something else is not.
    #[test]
    fn parameters_that_are_fast_enough_are_found() {
        let (mut found, mut refused) = (0, 0);
        for (columns, outputs) in [(145, 312), (216, 824), (600, 3064), (1213, 6648)] {
            let limits = RowLimits::LARGEST;
            let shape = shape(columns, outputs, 52, 5);
            let cheapest = planned(&RowGoal { limits, ..GOAL }, &shape).unwrap().cost;
            let milliseconds = cheapest.microseconds / 1000.0 - 0.001;
            let limits = RowLimits { milliseconds, ..limits };
            match planned(&RowGoal { limits, ..GOAL }, &shape) {
                Ok(plan) => {
                    assert!(plan.cost.microseconds <= limits.microseconds());
                    found += 1;
                }
                Err(RowPlanError::Slow { found, .. }) => {
                    assert!(found > milliseconds);
                    refused += 1;
                }
                Err(other) => panic!("{other}"),
            }
        }
        assert!(found > 0, "{refused}");
    }

    /// R and t1 bound the longest path, to a factor of two.
    #[test]
    fn factors_do_not_tell_the_longest_path() {
        let mut told = std::collections::HashMap::<_, u32>::new();
        for path in 2..=40 {
            let RowParameters { tag_modulus, tag_factors, .. } =
                planned(&GOAL, &shape(145, 312, 52, path)).unwrap().parameters;
            assert!(tag_factors.is_power_of_two());
            *told.entry((tag_modulus, tag_factors)).or_default() += 1;
        }
        assert!(told.len() < 12, "{told:?}");
        let asked = planned(&RowGoal { tag_factors: 5, ..GOAL }, &shape(145, 312, 52, 9)).unwrap();
        assert!(asked.parameters.tag_factors >= 5);
    }

    /// Nothing of a plan depends on more than the shape that everybody sees.
    #[test]
    fn finer_scales_cost_nothing() {
        let shape = shape(145, 312, 52, 5);
        let plan = planned(&GOAL, &shape).unwrap();
        let coarse = plan_rows_at(&GOAL, &shape, plan.scale / 1.1, &mut rounded(52)).unwrap();
        assert_eq!(coarse.cost, plan.cost);
        assert!(plan.parameters.value_modulus > coarse.parameters.value_modulus);
    }
}
