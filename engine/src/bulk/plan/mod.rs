//! The smallest parameters in which a model fits, and how finely its values are rounded there.
//!
//! The compiler rounds a model's values at a *scale*: an integer stands for a value divided by it.
//! The coarsest scale that meets the error decides about ring and primes; then the finest scale
//! that the same parameters allow is taken, which costs nothing.

mod cost;
mod fit;
mod search;

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use self::cost::point_nanoseconds;
pub(super) use self::cost::{hiding_nanoseconds, point_nanoseconds_on};
pub use self::fit::{MAX_PLAINTEXT_BITS, MIN_LOG2_FAILURE};
pub use self::search::{Round, plan, plan_at};
use super::noise::NoiseError;
use super::parameters::{Packing, Parameters};
use super::program::{InvalidProgram, ValidProgram};

/// What a plan must achieve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Goal {
    /// Where rows are.
    pub packing: Packing,
    /// Whether replies hide the model from the data owner.
    pub hide: bool,
    /// log2 of the probability that any value of a ring batch is decrypted wrongly, such as -128.
    pub log2_failure: f64,
    /// Largest difference between a raw output and that of the trained model.
    pub max_error: f64,
}

/// A model, rounded at some scale.
#[derive(Debug, Clone)]
pub struct Rounded {
    /// Its polynomials.
    pub program: ValidProgram,
    /// Least and largest integer of each output, over all rows that there may be.
    pub ranges: Vec<(i64, i64)>,
    /// Bound of the difference between a raw output and that of the trained model.
    pub max_error: f64,
}

/// Parameters for a model, and what they cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Of all ciphertexts.
    pub parameters: Parameters,
    /// Whether replies hide the model.
    pub hide: bool,
    /// Primes that are left in a reply.
    pub reply_primes: u32,
    /// An integer of an output stands for itself divided by this.
    pub scale: f64,
    /// Bound of the difference between a raw output and that of the trained model.
    pub max_error: f64,
    /// Of the program: a reply has one component more for each output.
    pub degree: u32,
    /// log2 of the standard deviation of the phase that the monomials of degree 1, 2, .. have.
    pub noise_bits: Vec<f64>,
    /// log2 of the standard deviation of what a flood hides: the phase of the program's noise and,
    /// if the model is hidden, of the sanitiser's; rounded up to a whole number.
    pub log2_sigma_phase: f64,
    /// log2 of the probability that any value of a ring batch is decrypted wrongly; no less than
    /// [`MIN_LOG2_FAILURE`].
    pub log2_failure: f64,
    /// Of a full ring batch.
    pub upload_bytes_per_row: f64,
    /// Of a full ring batch.
    pub reply_bytes_per_row: f64,
    /// Products of residues for each row and prime.
    pub ring_products: u64,
}

/// Why there is no plan.
#[derive(Debug, Error)]
pub enum PlanError {
    /// The rounded model is no program.
    #[error(transparent)]
    Program(#[from] InvalidProgram),
    /// It is too large to be analysed.
    #[error(transparent)]
    Noise(#[from] NoiseError),
    /// No parameters can do what is asked.
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
    /// The model is too large for every ring.
    #[error(transparent)]
    Refused(#[from] PlanRefusal),
}

/// A model that is too large for every ring, and what would make it fit.
#[derive(Debug, Clone, PartialEq, Error)]
pub struct PlanRefusal {
    /// Of the program.
    pub degree: u32,
    /// Bits of q that it needs, and bits that there are, in the ring that comes closest. Nothing
    /// when outputs are larger than [`MAX_PLAINTEXT_BITS`] in every ring.
    pub bits: Option<(f64, f64)>,
    /// Each alone would do.
    pub remedies: Vec<Remedy>,
}

/// A change to a goal or a model by which it fits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Remedy {
    /// A larger [`Goal::max_error`].
    MaxError(f64),
    /// A larger [`Goal::log2_failure`].
    Failure(f64),
    /// Not [`Goal::hide`].
    NoHide,
    /// Trees of less depth, or fewer thresholds, so that paths have fewer conditions; estimated by
    /// leaving out all products of more columns.
    Degree(u32),
}

impl fmt::Display for PlanRefusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "a model of degree {} does not fit: ", self.degree)?;
        match self.bits {
            None => write!(out, "its outputs have more than {MAX_PLAINTEXT_BITS} bits")?,
            Some((needed, available)) => {
                write!(out, "it needs a modulus of {needed:.1} bits, and has {available:.1}")?;
            }
        }
        for (position, remedy) in self.remedies.iter().enumerate() {
            write!(out, "{} {remedy}", if position == 0 { "; it would fit with" } else { ", or" })?;
        }
        Ok(())
    }
}

impl fmt::Display for Remedy {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MaxError(error) => write!(out, "an error of {error:.2e}"),
            Self::Failure(log2) => write!(out, "a failure probability of 2^{log2}"),
            Self::NoHide => write!(out, "a model that is not hidden"),
            Self::Degree(degree) => {
                write!(out, "about {degree} conditions on a path (less depth, or fewer thresholds)")
            }
        }
    }
}
