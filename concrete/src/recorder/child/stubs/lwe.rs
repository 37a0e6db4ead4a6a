//! Concrete's `Runtime/wrappers.h`: operations on ciphertexts, and tables.
// The C side decides how many arguments there are.
#![allow(clippy::too_many_arguments)]

use std::ffi::c_void;

use super::super::memory::Words;
use super::super::recording::expand_table;
use super::step;
use crate::recorder::protocol::{BootstrapLayout, KeyswitchLayout};

#[rustfmt::skip]
pub(super) extern "C" fn add_lwe_ciphertexts(
    _: *mut u64, out: *mut u64, out_offset: u64, out_size: u64, out_stride: u64,
    _: *mut u64, a: *mut u64, a_offset: u64, a_size: u64, a_stride: u64,
    _: *mut u64, b: *mut u64, b_offset: u64, b_size: u64, b_stride: u64,
) {
    step(|recording| {
        let out = Words::new(out, out_offset, out_size, out_stride)?;
        let a = Words::new(a, a_offset, a_size, a_stride)?;
        let b = Words::new(b, b_offset, b_size, b_stride)?;
        recording.add(out, a, b)
    });
}

#[rustfmt::skip]
pub(super) extern "C" fn add_plaintext_lwe_ciphertext(
    _: *mut u64, out: *mut u64, out_offset: u64, out_size: u64, out_stride: u64,
    _: *mut u64, a: *mut u64, a_offset: u64, a_size: u64, a_stride: u64,
    plaintext: u64,
) {
    step(|recording| {
        let out = Words::new(out, out_offset, out_size, out_stride)?;
        let a = Words::new(a, a_offset, a_size, a_stride)?;
        recording.add_plaintext(out, a, plaintext)
    });
}

#[rustfmt::skip]
pub(super) extern "C" fn mul_cleartext_lwe_ciphertext(
    _: *mut u64, out: *mut u64, out_offset: u64, out_size: u64, out_stride: u64,
    _: *mut u64, a: *mut u64, a_offset: u64, a_size: u64, a_stride: u64,
    factor: u64,
) {
    step(|recording| {
        let out = Words::new(out, out_offset, out_size, out_stride)?;
        let a = Words::new(a, a_offset, a_size, a_stride)?;
        recording.multiply(out, a, factor)
    });
}

#[rustfmt::skip]
pub(super) extern "C" fn negate_lwe_ciphertext(
    _: *mut u64, out: *mut u64, out_offset: u64, out_size: u64, out_stride: u64,
    _: *mut u64, a: *mut u64, a_offset: u64, a_size: u64, a_stride: u64,
) {
    step(|recording| {
        let out = Words::new(out, out_offset, out_size, out_stride)?;
        let a = Words::new(a, a_offset, a_size, a_stride)?;
        recording.multiply(out, a, u64::MAX)
    });
}

#[rustfmt::skip]
pub(super) extern "C" fn keyswitch_lwe(
    _: *mut u64, out: *mut u64, out_offset: u64, out_size: u64, out_stride: u64,
    _: *mut u64, a: *mut u64, a_offset: u64, a_size: u64, a_stride: u64,
    level_count: u32, base_log: u32, input_dimension: u32, output_dimension: u32,
    key: u32, _context: *mut c_void,
) {
    step(|recording| {
        let out = Words::new(out, out_offset, out_size, out_stride)?;
        let a = Words::new(a, a_offset, a_size, a_stride)?;
        let used = KeyswitchLayout {
            level_count: level_count as usize,
            base_log: base_log as usize,
            input_dimension: input_dimension as usize,
            output_dimension: output_dimension as usize,
        };
        recording.keyswitch(out, a, &used, key)
    });
}

#[rustfmt::skip]
pub(super) extern "C" fn bootstrap_lwe(
    _: *mut u64, out: *mut u64, out_offset: u64, out_size: u64, out_stride: u64,
    _: *mut u64, a: *mut u64, a_offset: u64, a_size: u64, a_stride: u64,
    _: *mut u64, table: *mut u64, table_offset: u64, table_size: u64, table_stride: u64,
    input_dimension: u32, polynomial_size: u32, level_count: u32, base_log: u32,
    glwe_dimension: u32, key: u32, _context: *mut c_void,
) {
    step(|recording| {
        let out = Words::new(out, out_offset, out_size, out_stride)?;
        let a = Words::new(a, a_offset, a_size, a_stride)?;
        let table = Words::new(table, table_offset, table_size, table_stride)?;
        let used = BootstrapLayout {
            level_count: level_count as usize,
            base_log: base_log as usize,
            input_dimension: input_dimension as usize,
            glwe_dimension: glwe_dimension as usize,
            polynomial_size: polynomial_size as usize,
        };
        recording.bootstrap(out, a, table, &used, key)
    });
}

/// The last argument is a C++ `bool`, of which only the lowest byte is defined.
#[rustfmt::skip]
pub(super) extern "C" fn encode_expand_lut(
    _: *mut u64, out: *mut u64, out_offset: u64, out_size: u64, out_stride: u64,
    _: *mut u64, table: *mut u64, table_offset: u64, table_size: u64, table_stride: u64,
    _polynomial_size: u32, message_bits: u32, signed: u8,
) {
    step(|_| {
        let out = Words::new(out, out_offset, out_size, out_stride)?;
        let table = Words::new(table, table_offset, table_size, table_stride)?;
        expand_table(out, table, message_bits, signed != 0)
    });
}
