//! What tests of several modules share.

pub(super) mod models;
