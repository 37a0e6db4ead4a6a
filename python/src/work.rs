//! Work that takes time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::failure::Failure;

/// How often the interpreter is asked for signals.
const SIGNALS: Duration = Duration::from_millis(50);

/// Runs work in a thread of its own, without the interpreter's lock, and looks for Ctrl-C meanwhile.
/// Work that can stop early looks at the flag; other work ends by itself, and nobody hears of it.
pub(crate) fn run<T: Send + 'static>(
    py: Python<'_>,
    work: impl FnOnce(&AtomicBool) -> Result<T, Failure> + Send + 'static,
) -> PyResult<T> {
    let stop = Arc::new(AtomicBool::new(false));
    let (sender, done) = sync_channel(1);
    let stopped = Arc::clone(&stop);
    let started = thread::Builder::new().name("cipherscore".into()).spawn(move || {
        // After Ctrl-C nobody waits for it.
        drop(sender.send(work(&stopped)));
    });
    started.map_err(|error| PyRuntimeError::new_err(format!("no thread: {error}")))?;
    let mut done = done;
    loop {
        let received;
        // Of a receiver no two threads may hold a reference, so it goes there and back.
        (received, done) = py.detach(move || (done.recv_timeout(SIGNALS), done));
        match received {
            Ok(result) => return result.map_err(|failure| failure.into_exception(py)),
            Err(RecvTimeoutError::Timeout) => {
                py.check_signals().inspect_err(|_| stop.store(true, Ordering::Relaxed))?;
            }
            Err(RecvTimeoutError::Disconnected) => {
                return Err(PyRuntimeError::new_err(
                    "the computation ended unexpectedly; this is an error of cipherscore",
                ));
            }
        }
    }
}
