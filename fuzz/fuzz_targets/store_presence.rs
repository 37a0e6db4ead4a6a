#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| cipherscore_common::fuzzing::presence(bytes));
