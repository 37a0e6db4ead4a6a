//! The extension module `cipherscore._native`: bytes and arrays of numbers in and out, for the Python
//! package around it.
//!
//! * `compile`: trained models to artifacts.
//! * `client`: the data owner's side of an artifact.
//! * `server`: evaluation in this process.
//! * `fleet`: rows through the queue.
//! * `recorder`: the child process in which machine code of a raw `server.zip` is recorded.
//!
//! Whatever takes time runs in a thread of its own (`work`): the interpreter's lock is free, and
//! Ctrl-C ends the call.

mod arrays;
mod client;
mod compile;
mod failure;
mod fleet;
mod options;
mod recorder;
mod server;
mod services;
mod trained;
mod work;

use pyo3::prelude::*;

/// What `cipherscore` is made of; not for use from outside.
#[pymodule]
mod _native {
    #[pymodule_export]
    use crate::client::Client;
    #[pymodule_export]
    use crate::compile::{Compiled, compile_file, compile_linear, compile_trees, file_categories};
    #[pymodule_export]
    use crate::fleet::{Call, EvaluationKey, Fleet};
    #[pymodule_export]
    use crate::recorder::record_and_exit;
    #[pymodule_export]
    use crate::server::{Server, server_model_id};

    /// How far beyond the calibration rows linear models take values, as a part of their width.
    #[pymodule_export]
    const RANGE_MARGIN: f64 = cipherscore_compiler::ranges::RANGE_MARGIN;
}
