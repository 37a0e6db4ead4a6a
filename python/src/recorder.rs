//! The recorder of a raw `server.zip`, in a child process of the interpreter.
//!
//! The child is `python -I -S -c ...`, which loads this module from its file and nothing else: no
//! package, no numpy, and so no threads. It becomes the recorder before it has read anything.

use std::ffi::OsString;
use std::path::PathBuf;

use cipherscore_concrete::recorder::{RecorderCommand, child_main};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

/// Locks this process in and records a circuit. Does not return.
///
/// # Errors
/// Another thread runs: what is taken from this process would not be taken from it for certain.
#[pyfunction]
pub(crate) fn record_and_exit() -> PyResult<()> {
    // Elsewhere than on Linux there is nothing to count, and nothing to record.
    if let Ok(threads) = std::fs::read_dir("/proc/self/task")
        && threads.count() != 1
    {
        return Err(PyRuntimeError::new_err("the recorder must be alone in its process"));
    }
    let _ = child_main();
    Err(PyRuntimeError::new_err("circuits are recorded on x86-64 Linux only"))
}

/// Program and arguments of the child, as the package knows them.
pub(crate) fn command(command: Option<Vec<OsString>>) -> Option<RecorderCommand> {
    let mut words = command?.into_iter();
    let program = PathBuf::from(words.next()?);
    Some(RecorderCommand::new(program, words.collect()))
}
