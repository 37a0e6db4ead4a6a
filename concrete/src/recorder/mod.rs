//! Turns the machine code of a Concrete circuit into data, by running it once, locked in.
//!
//! A native `server.zip` holds a shared object whose entry calls a runtime: add ciphertexts, switch
//! keys, bootstrap. The recorder runs that entry in a child process against a runtime that computes
//! nothing and writes down every call. What comes back is an engine [`Circuit`]: data, which is
//! checked like any stranger's bytes and evaluated without the machine code ever again.
//!
//! ```text
//! parent                                   child (one thread, no keys, no data, no environment)
//! record() -- request on stdin ----------> limits, descriptors, read request, close stdin
//!   |                                      check the object, map it (code is never writable)
//!   |                                      seccomp filter
//!   |                                      call the entry -> stubs -> tape
//!   <------- answer on stdout ------------ circuit, or why not
//! ```
//!
//! The child is disposable: hostile machine code may corrupt it at will and write any answer, which
//! is no more than it could have computed honestly. The parent trusts no byte, no length and no
//! exit status of it.

mod error;
#[cfg(all(any(test, fuzzing), target_os = "linux", target_arch = "x86_64"))]
pub mod fuzzing;
mod limits;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod child;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod process;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod protocol;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use cipherscore_engine::circuit::Circuit;
use cipherscore_engine::parameters::Signature;

pub use error::RecordError;
pub use limits::{
    MAX_ADDRESS_SPACE_BYTES, MAX_ANSWER_BYTES, MAX_CIRCUIT_MEMORY_BYTES, MAX_CPU_SECONDS,
    MAX_IMAGE_BYTES, MAX_OBJECT_BYTES, MAX_STACK_BYTES, WALL_CLOCK_LIMIT,
};

/// How to start the recorder: a program that calls [`child_main`] and nothing else.
#[derive(Debug, Clone)]
pub struct RecorderCommand {
    /// Path of the program; it starts with an empty environment.
    pub program: PathBuf,
    /// Its arguments, for a program that has more than one use.
    pub arguments: Vec<OsString>,
    /// Time after which the child is killed.
    pub wall_clock_limit: Duration,
}

impl RecorderCommand {
    /// A command with the default time limit.
    pub fn new(program: impl Into<PathBuf>, arguments: Vec<OsString>) -> Self {
        Self { program: program.into(), arguments, wall_clock_limit: WALL_CLOCK_LIMIT }
    }
}

/// Records what circuit `circuit_name` of a shared object does under `signature`.
///
/// The result is well formed but not checked: call [`Circuit::validate`] on it. Blocks the calling
/// thread, which must live until the call returns: the child dies with the thread that started it.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub fn record(
    command: &RecorderCommand,
    shared_object: &[u8],
    circuit_name: &str,
    signature: &Signature,
) -> Result<Circuit, RecordError> {
    let request = protocol::Request::new(shared_object, circuit_name, signature)?;
    process::run(command, request.to_bytes()?)
}

/// Refuses: a circuit's machine code runs on x86-64 Linux only.
#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
pub fn record(
    _command: &RecorderCommand,
    _shared_object: &[u8],
    _circuit_name: &str,
    _signature: &Signature,
) -> Result<Circuit, RecordError> {
    Err(RecordError::UnsupportedPlatform)
}

/// The child's whole life: reads a request on stdin, writes the answer to stdout.
///
/// Call it first thing in `main`, before any thread exists and before anything secret is loaded.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub fn child_main() -> std::process::ExitCode {
    child::main()
}

/// Fails: there is nothing to record on this platform.
#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
pub fn child_main() -> std::process::ExitCode {
    std::process::ExitCode::FAILURE
}
