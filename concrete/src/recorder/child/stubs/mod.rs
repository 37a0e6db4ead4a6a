//! The runtime that the circuit's code is linked against: it computes nothing, it records.
//!
//! Signatures are those of Concrete's `Runtime/wrappers.h`, MLIR's `CRunnerUtils` and LLVM's OpenMP
//! runtime. Nothing here unwinds: a refusal is sent to the parent and ends the process.

mod copy;
mod lwe;
mod parallel;

use std::cell::RefCell;

use super::finish;
use super::recording::Recording;
use crate::recorder::RecordError;

thread_local! {
    /// The one recording of this process. The C interface has no argument to carry it.
    static RECORDING: RefCell<Recording> = RefCell::default();
}

/// Makes `recording` the one that stubs write to.
pub(super) fn install(recording: Recording) {
    RECORDING.set(recording);
}

/// Takes the recording back.
pub(super) fn take() -> Recording {
    RECORDING.take()
}

/// Runs a step of the recording; a refusal ends the process.
fn step<T>(run: impl FnOnce(&mut Recording) -> Result<T, RecordError>) -> T {
    let outcome = RECORDING.with_borrow_mut(run);
    outcome.unwrap_or_else(|error| finish(Err(error)))
}

fn not_traceable<T>(why: &str) -> Result<T, RecordError> {
    Err(RecordError::NotTraceable(why.into()))
}

/// The address of a runtime function.
pub(super) fn address(name: &str) -> Option<usize> {
    let function: *const () = match name {
        "memref_add_lwe_ciphertexts_u64" => lwe::add_lwe_ciphertexts as *const (),
        "memref_add_plaintext_lwe_ciphertext_u64" => lwe::add_plaintext_lwe_ciphertext as *const (),
        "memref_mul_cleartext_lwe_ciphertext_u64" => lwe::mul_cleartext_lwe_ciphertext as *const (),
        "memref_negate_lwe_ciphertext_u64" => lwe::negate_lwe_ciphertext as *const (),
        "memref_keyswitch_lwe_u64" => lwe::keyswitch_lwe as *const (),
        "memref_bootstrap_lwe_u64" => lwe::bootstrap_lwe as *const (),
        "memref_encode_expand_lut_for_bootstrap" => lwe::encode_expand_lut as *const (),
        "memref_copy_one_rank" => copy::copy_one_rank as *const (),
        "memrefCopy" => copy::copy_any_rank as *const (),
        "memcpy" | "memmove" => copy::copy_block as *const (),
        "memset" => copy::fill_block as *const (),
        "concrete_checked_malloc" | "malloc" => allocate as *const (),
        "free" => release as *const (),
        "_dfr_start" | "_dfr_stop" => do_nothing as *const (),
        "__kmpc_barrier" | "__kmpc_for_static_fini" => do_nothing as *const (),
        "__kmpc_global_thread_num" => parallel::first_thread as *const (),
        "__kmpc_for_static_init_8u" => parallel::for_static_init as *const (),
        "__kmpc_fork_call" => parallel::fork_call as *const (),
        _ => return None,
    };
    Some(function as usize)
}

extern "C" fn allocate(size: usize) -> *mut u8 {
    step(|recording| recording.heap.allocate(size))
}

extern "C" fn release(block: *mut u8) {
    step(|recording| recording.heap.release(block));
}

/// Start and end of things that do not exist here: dataflow runtime, barriers, loop schedules.
extern "C" fn do_nothing() {}
