#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| cipherscore_concrete::recorder::fuzzing::answer(bytes));
