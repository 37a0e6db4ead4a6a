//! Places a linked program in memory, with code that nobody can write.
//!
//! Unsafe because memory that will be executed has no safe name in Rust.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::io;
use std::ptr;

use super::elf::{Rights, Segment};
use super::link::{Program, Target};
use crate::recorder::RecordError;

/// A program in memory. Stays mapped until the process ends.
#[derive(Debug)]
pub(super) struct Code {
    start: *mut u8,
    entry: usize,
}

impl Code {
    /// Maps a program: patched while it is data, then readable or writable or executable.
    pub(super) fn map(mut program: Program) -> Result<Self, RecordError> {
        let length = program.bytes.len();
        // SAFETY: a fresh private mapping at an address of the kernel's choice.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(RecordError::TooMuchMemory(format!("{length} bytes for its code")));
        }
        let base = start as usize;
        for patch in &program.patches {
            let value = match patch.target {
                Target::Image(address) => base.wrapping_add(address),
                Target::Runtime(address) => address,
            };
            program.bytes[patch.place..patch.place + 8].copy_from_slice(&value.to_le_bytes());
        }
        // SAFETY: the mapping has `length` writable bytes, and is not the vector's memory.
        unsafe { ptr::copy_nonoverlapping(program.bytes.as_ptr(), start.cast(), length) };

        protect(start, 0, length, libc::PROT_NONE)?;
        for Segment { start: from, end, rights } in program.segments {
            let protection = match rights {
                Rights::Read => libc::PROT_READ,
                Rights::Write => libc::PROT_READ | libc::PROT_WRITE,
                Rights::Execute => libc::PROT_READ | libc::PROT_EXEC,
            };
            protect(start, from, end - from, protection)?;
        }
        Ok(Self { start: start.cast(), entry: program.entry })
    }

    /// Calls the circuit's function.
    ///
    /// # Safety
    ///
    /// Runs a stranger's machine code, which may do anything to this process: nothing in it may
    /// be worth protecting, and the process must be confined.
    pub(super) unsafe fn call(&self, arguments: *mut *mut c_void) {
        let address = self.start.wrapping_add(self.entry);
        // SAFETY: the address is inside an executable segment, which was checked at linking; that
        // a function of this type begins there is what the caller risks.
        let entry: extern "C" fn(*mut *mut c_void) = unsafe { std::mem::transmute(address) };
        entry(arguments);
    }
}

fn protect(
    start: *mut c_void,
    from: usize,
    length: usize,
    protection: i32,
) -> Result<(), RecordError> {
    if length == 0 {
        return Ok(());
    }
    // SAFETY: the range is part of our own mapping, in whole pages; no Rust reference points there.
    match unsafe { libc::mprotect(start.wrapping_byte_add(from), length, protection) } {
        0 => Ok(()),
        _ => Err(RecordError::Sandbox(format!("mprotect: {}", io::Error::last_os_error()))),
    }
}
