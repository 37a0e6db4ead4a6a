//! The child: locks itself in, links the object against the recording runtime, runs it, answers.

mod elf;
mod invoke;
mod link;
mod lock;
mod mapping;
mod memory;
mod pattern;
mod recording;
mod stubs;
mod tape;

use std::io;
use std::process::ExitCode;

use cipherscore_engine::circuit::Circuit;

use super::RecordError;
use super::protocol::{self, Request};

/// Runs the child and ends the process; the type suits a program's `main`.
pub(super) fn main() -> ExitCode {
    // A panic must neither unwind into the circuit's frames nor print: it is an answer as well.
    std::panic::set_hook(Box::new(|panic| {
        finish(Err(RecordError::Internal(panic.to_string())));
    }));
    finish(serve());
}

/// The child's way, step by step. Nothing of the object runs before the last one.
fn serve() -> Result<Circuit, RecordError> {
    lock::limit()?;
    let request = Request::read(&mut io::stdin().lock())?;
    lock::close_stdin();

    let image = elf::Image::load(&request.object)?;
    let program = link::link(image, &request.circuit_name, &stubs::address)?;
    let code = mapping::Code::map(program)?;

    lock::confine()?;
    invoke::record(&request, &code)
}

/// The steps before anything is mapped, and what must hold of a program that may be.
#[cfg(any(test, fuzzing))]
pub(super) fn check_object(object: &[u8], circuit_name: &str) -> Result<(), RecordError> {
    let image = elf::Image::load(object)?;
    let program = link::link(image, circuit_name, &stubs::address)?;
    program.check();
    Ok(())
}

/// Sends the outcome to the parent and ends the process, without running anything else in it.
fn finish(outcome: Result<Circuit, RecordError>) -> ! {
    lock::write_and_exit(&protocol::answer(outcome))
}
