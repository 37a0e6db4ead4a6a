//! All tests of the worker's ways.
//!
//! One program: each one would compile what it tests again, for its own use of it.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod clear;
mod config;
mod exposition;
mod forms;
mod in_process;
mod outcomes;
mod overlap;
mod quick;
mod services;
mod support;
mod unconfirmed;
mod watched;
