//! Tests of several modules together, and what they share.

mod distribution;
mod keys;
mod known_answers;
pub(super) mod models;
mod noise;
mod prepared;
mod replies;
pub(super) mod sides;
