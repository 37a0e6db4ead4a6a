//! Why a circuit cannot be recorded, in sentences that say what to do.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::limits::MAX_CPU_SECONDS;

/// Why a circuit cannot be recorded.
///
/// The child sends these as well, so all of them are plain data. Names and reasons come from the
/// object or from a child that may be corrupt: they are escaped and shortened when received.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum RecordError {
    /// The machine code is for another kind of machine than this one.
    #[error(
        "Concrete compiles circuits to x86-64 Linux machine code, which this machine cannot run; \
         import the zip on an x86-64 Linux machine, the imported artifact runs anywhere"
    )]
    UnsupportedPlatform,
    /// The signature is refused, so there is nothing to record against.
    #[error("the client specs are refused: {0}")]
    InvalidParameters(String),
    /// Not an ELF shared object of the kind that Concrete writes.
    #[error(
        "sharedlib.so is not a shared object as Concrete writes it for x86-64 Linux: {0}; \
         save the model again with `FHEModelDev.save(via_mlir=False)` on x86-64 Linux"
    )]
    UnsupportedObject(String),
    /// The object calls something that is not part of the supported runtime.
    #[error("the circuit calls `{0}`, which cipherscore does not provide{hint}", hint = hint(.0))]
    UnknownImport(String),
    /// The object has no such circuit.
    #[error("sharedlib.so has no function `{0}`; it belongs to other client specs")]
    MissingEntry(String),
    /// The object wants to be linked in a way that Concrete's objects never need.
    #[error("sharedlib.so cannot be linked: {0}; compile the model again with Concrete")]
    UnsupportedRelocation(String),
    /// The circuit was compiled for Concrete's distributed runtime.
    #[error(
        "the circuit calls `{0}` of Concrete's dataflow runtime, which is not supported; \
         compile the model with `dataflow_parallelize=False`"
    )]
    Dataflow(String),
    /// The code does something to ciphertexts that is not a TFHE operation.
    #[error(
        "the circuit cannot be expressed as TFHE operations: {0}; \
         if Concrete's own server runs this zip, please report it"
    )]
    NotTraceable(String),
    /// The code tried to reach the operating system.
    #[error(
        "the circuit's machine code made a system call, which no circuit needs: \
         the zip is damaged or hostile, do not use it"
    )]
    ForbiddenSystemCall,
    /// The code crashed.
    #[error("the circuit's machine code crashed with {name}: {advice}",
            name = signal_name(*.0), advice = signal_advice(*.0))]
    Crashed(i32),
    /// The code ran too long.
    #[error(
        "the circuit's machine code did not end within its time ({MAX_CPU_SECONDS} s of processor \
         time, or the time limit of the import); the zip is damaged, hostile or far too large"
    )]
    TimedOut,
    /// The code wants more memory than a circuit may use.
    #[error("the circuit needs too much memory: {0}; use a smaller model")]
    TooMuchMemory(String),
    /// Something is above its bound.
    #[error("the circuit is too large: {0}; use a smaller model")]
    TooLarge(String),
    /// The child could not lock itself in, so nothing ran.
    #[error(
        "the recorder's sandbox cannot be set up: {0}; \
         run the import on a Linux kernel with seccomp filters"
    )]
    Sandbox(String),
    /// The recorder could not be started or spoken to.
    #[error("the recorder cannot be run: {0}")]
    Io(String),
    /// The child did not speak the protocol.
    #[error("the recorder gave no valid answer: {0}; the zip may be hostile, do not use it")]
    Protocol(String),
    /// A defect of the recorder itself.
    #[error("the recorder failed, please report it: {0}")]
    Internal(String),
}

/// What a model owner can do about a runtime function that is known but not provided.
fn hint(name: &str) -> &'static str {
    if name.contains("wop_pbs") || name.contains("crt") {
        "; it belongs to tables of 12 bits and more: train with fewer bits (`n_bits`)"
    } else if name.contains("cuda") {
        "; compile the model without `use_gpu`"
    } else if name.contains("batched") {
        "; compile the model without `batch_tfhe_ops`"
    } else if name.starts_with("sim_") {
        "; the zip is a simulation, save the model with `fhe` enabled"
    } else {
        "; the zip is hostile, or newer than this version of cipherscore"
    }
}

const SIGILL: i32 = 4;
const SIGABRT: i32 = 6;
const SIGBUS: i32 = 7;
const SIGFPE: i32 = 8;
const SIGKILL: i32 = 9;
const SIGSEGV: i32 = 11;

fn signal_name(signal: i32) -> String {
    let name = match signal {
        SIGILL => "SIGILL",
        SIGABRT => "SIGABRT",
        SIGBUS => "SIGBUS",
        SIGFPE => "SIGFPE",
        SIGKILL => "SIGKILL",
        SIGSEGV => "SIGSEGV",
        other => return format!("signal {other}"),
    };
    name.into()
}

fn signal_advice(signal: i32) -> &'static str {
    match signal {
        SIGILL => {
            "it was compiled for a processor with instructions that this one lacks; \
             import it on the machine where it was compiled, the artifact then runs anywhere"
        }
        SIGABRT => "the recorder ran out of memory or was corrupted by the circuit's code",
        SIGKILL => "it was killed from outside, most likely because the machine is out of memory",
        _ => "the zip is damaged or hostile, do not use it",
    }
}
