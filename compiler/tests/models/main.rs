//! Models that the libraries wrote themselves, read and compared; and damaged ones.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod boosting;
mod compiled;
mod hostile;
#[path = "../random/mod.rs"]
mod random;
mod reference;
