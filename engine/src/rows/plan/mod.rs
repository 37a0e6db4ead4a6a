//! The cheapest parameters in which an ensemble's rows fit, and what they cost.
//!
//! Everything is planned from the columns, the sizes of the outputs' classes and the longest path, and for
//! each scale from the largest sum and the largest error. So nothing of the parameters tells how many
//! paths and edges there really are.

mod cost;
mod fit;
mod search;

use thiserror::Error;

use super::parameters::{CANARIES, OutputRegion, RowParameters};

pub use self::cost::{BYTES_PER_MICROSECOND, RowCost};
pub use self::search::{RoundRow, plan_rows, plan_rows_at};

/// Bits by which a flood hides, where nothing else is asked for.
pub const DEFAULT_HIDE_BITS: u32 = 45;

/// What a plan must achieve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowGoal {
    /// Largest difference between a raw output and that of the trained model.
    pub max_error: f64,
    /// log2 of the probability that any output of a row is decrypted wrongly, at most.
    pub log2_failure: f64,
    /// Bits by which the flood hides the model.
    pub hide: u32,
    /// Least R: tags are weighted by factors from 1 to R.
    pub tag_factors: u32,
    /// What is refused.
    pub limits: RowLimits,
}

/// Beyond these a model is not worth a row of its own: many rows at a time cost less.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowLimits {
    /// Outputs of a row, padded.
    pub outputs: u32,
    /// Columns.
    pub columns: u32,
    /// Milliseconds of a row on one thread.
    pub milliseconds: f64,
}

impl RowLimits {
    /// Where nobody has asked for rows in particular.
    pub const DEFAULT: Self = Self { outputs: 1 << 15, columns: 1 << 12, milliseconds: 100.0 };
    /// Of the engine, and of the ring that is planned.
    pub const LARGEST: Self = Self {
        outputs: super::parameters::MAX_ROW_OUTPUTS,
        columns: search::RING_DIMENSION,
        milliseconds: 60_000.0,
    };

    fn microseconds(&self) -> f64 {
        self.milliseconds * 1000.0
    }
}

/// What of an ensemble decides about its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowShape {
    /// m, decoys included.
    pub columns: u32,
    /// Of each raw output, padded.
    pub regions: Vec<OutputRegion>,
    /// Edges of the longest path, padding included.
    pub longest_path: u32,
}

/// An ensemble, rounded at some scale.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RoundedSums {
    /// Largest magnitude of a sum of leaves, of any raw output.
    pub magnitude: u64,
    /// Bound of the difference between a raw output and that of the trained model.
    pub max_error: f64,
}

/// Parameters for an ensemble, and what they cost.
#[derive(Debug, Clone, PartialEq)]
pub struct RowPlan {
    /// All that both sides must agree on.
    pub parameters: RowParameters,
    /// An integer of an output stands for itself divided by this.
    pub scale: f64,
    /// Bound of the difference between a raw output and that of the trained model.
    pub max_error: f64,
    /// log2 of the probability that any output of a row is decrypted wrongly, at most.
    pub log2_failure: f64,
    /// What a row costs.
    pub cost: RowCost,
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum RowPlanError {
    /// A goal that nothing can meet.
    #[error("{0}")]
    Goal(&'static str),
    /// No scale is fine enough.
    #[error("the error stays above {asked}: at best it is {reached}")]
    Error {
        /// The goal.
        asked: f64,
        /// At the finest scale.
        reached: f64,
    },
    /// Above one of [`RowLimits`].
    #[error("{found} {what} of a row, where at most {limit} are worth it; {remedy}")]
    TooLarge {
        /// How many there are.
        found: u64,
        /// Of what.
        what: &'static str,
        /// How many there may be.
        limit: u64,
        /// What would do.
        remedy: &'static str,
    },
    /// A path is longer than any modulus of tags holds.
    #[error(
        "a path of {longest} conditions with tags of {factors} factors, where at most {limit} \
         conditions are possible; trees of less depth have shorter paths"
    )]
    Path {
        /// Conditions of the longest path, padding included.
        longest: u32,
        /// R.
        factors: u32,
        /// Conditions that there may be.
        limit: u32,
    },
    /// Sums are larger than any modulus of values.
    #[error(
        "sums of {bits:.1} bits, where about {limit:.1} are possible; a larger error needs fewer"
    )]
    Values {
        /// log2 of twice the largest magnitude of a sum.
        bits: f64,
        /// log2 of the largest modulus of values.
        limit: f64,
    },
    /// No ring has room for values of so many bits and what hides the model.
    #[error(
        "sums of {value_bits:.1} bits do not fit: noise and what hides it need {needed:.1} bits of a \
         modulus that has {available:.1}; a larger error needs fewer"
    )]
    Modulus {
        /// log2 of t2.
        value_bits: f64,
        /// Bits that the closest parameters need.
        needed: f64,
        /// Bits that they have.
        available: f64,
    },
    /// Above [`RowLimits::milliseconds`].
    #[error(
        "a row would take about {found:.0} ms of one thread, where at most {limit:.0} ms are worth \
         it; many rows at a time cost less"
    )]
    Slow {
        /// Milliseconds of the fastest parameters.
        found: f64,
        /// Milliseconds that there may be.
        limit: f64,
    },
}

/// The next number of the form `m 2^e` with m from 8 to 16: what is brought up to one shows its size
/// to one part in eight. Numbers up to 16 are classes of their own.
pub fn size_class(count: usize) -> usize {
    match count {
        0..=16 => count,
        _ => {
            let unit = 1 << ((count - 1).ilog2() - 3);
            count.next_multiple_of(unit)
        }
    }
}

/// The class of a number of leaves: with the canaries, one of [`size_class`].
pub fn outputs_class(leaves: usize) -> usize {
    size_class(leaves + CANARIES) - CANARIES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_an_eighth_apart() {
        let classes: Vec<_> = (1..40).map(size_class).collect();
        assert_eq!(classes[..16], (1..=16).collect::<Vec<_>>());
        assert_eq!(
            classes[16..],
            [18, 18, 20, 20, 22, 22, 24, 24, 26, 26, 28, 28, 30, 30, 32, 32]
                .into_iter()
                .chain([36, 36, 36, 36, 40, 40, 40])
                .collect::<Vec<_>>()
        );
        for count in (17..100_000).step_by(7) {
            let class = size_class(count);
            assert!(count <= class && class * 8 < count * 9 + 8, "{count} {class}");
            assert_eq!(size_class(class), class);
        }
        assert_eq!(outputs_class(500), 504);
    }
}
