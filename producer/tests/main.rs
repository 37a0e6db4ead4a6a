//! All tests of the data owner's side.
//!
//! One program: each one would compile what it tests again, for its own use of it.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod bridge;
mod bulk;
mod client;
mod families;
mod forms;
mod gateway;
mod kinds;
mod masks;
mod resume;
mod score;
mod single_rows;
mod stream;
mod submit;
mod support;
