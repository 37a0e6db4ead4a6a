#![no_main]

use std::sync::LazyLock;

use cipherscore_fuzz_checks::{Check, check};

static CHECK: LazyLock<Check> = LazyLock::new(|| check("row_client_zip"));

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| CHECK(bytes));
