//! Why a job has no outputs.

use cipherscore_common::message::{ErrorCode, Refusal};

/// Why a job has no outputs, classified where it happens.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It cannot be done as it is: answered, and done with.
    Refused(Refusal),
    /// It broke the worker, or may have: answered, and kept for people to look at.
    Broken(Refusal),
    /// Its publisher has no right to ask for this: nobody is answered, and it is kept.
    Forged(Refusal),
    /// Not its fault, and later it may succeed: it comes again.
    Later(String),
    /// It was done before: nothing is left to do.
    DoneBefore,
    /// The worker stops: the broker gives it to somebody else.
    Abandoned,
}

impl Failure {
    pub(crate) fn refused(code: ErrorCode, reason: impl Into<String>) -> Self {
        Self::Refused(Refusal::new(code, reason))
    }
}
