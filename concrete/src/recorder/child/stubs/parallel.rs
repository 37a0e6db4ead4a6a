//! LLVM's OpenMP runtime, for a team of one thread.
// The C side decides how many arguments there are.
#![allow(clippy::too_many_arguments)]

use std::ffi::c_void;

use super::super::memory::{Copy, Words};
use super::{not_traceable, step};

pub(super) extern "C" fn first_thread(_location: *const c_void) -> i32 {
    0
}

/// Gives the whole loop to the only thread, as LLVM's runtime does for a team of one.
#[rustfmt::skip]
pub(super) extern "C" fn for_static_init(
    _location: *const c_void, _thread: i32, _schedule: i32, last: *mut u8,
    lower: *mut u64, upper: *mut u64, stride: *mut u64, increment: i64, _chunk: i64,
) {
    step(|_| {
        let bound = |place| Ok(Words::single(place, 0)?.read(|words| words[0]));
        let (lower, upper) = (bound(lower)?, bound(upper)?);
        let trips = match increment > 0 {
            true => upper.wrapping_sub(lower).wrapping_add(1),
            false => lower.wrapping_sub(upper).wrapping_add(1).wrapping_neg(),
        };
        Words::single(stride, 0)?.write(|words| words[0] = trips);
        let one = 1i32.to_le_bytes();
        Copy { from: one.as_ptr(), from_stride: 1, to: last, to_stride: 1, count: 1, bytes: 4 }.run()
    });
}

/// An outlined parallel region: thread ids, then its one argument.
type Microtask = extern "C" fn(*const i32, *const i32, *mut c_void);

/// Runs a parallel region on the only thread.
///
/// The real function takes `arguments` pointers after the region; MLIR always packs them in one.
/// On this platform a call of a variadic function passes pointers just as any other call does.
pub(super) extern "C" fn fork_call(
    _location: *const c_void,
    arguments: i32,
    region: Option<Microtask>,
    argument: *mut c_void,
) {
    let thread = 0;
    match region {
        Some(region) if arguments == 1 => region(&thread, &thread, argument),
        _ => step(|_| {
            not_traceable(&format!("it runs a parallel region with {arguments} arguments"))
        }),
    }
}
