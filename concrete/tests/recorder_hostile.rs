//! Records hostile circuits: each ends in the refusal that names what it did.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
// A test that cannot go on fails.
#![allow(clippy::unwrap_used)]

mod recorder_support;

use std::time::{Duration, Instant};

use cipherscore_concrete::recorder::{RecordError, record};
use recorder_support::{CIRCUIT, compile, record_source, recorder, signature};

fn refusal(name: &str) -> RecordError {
    match record_source(name) {
        Err(error) => error,
        Ok(circuit) => panic!("{name} was recorded: {circuit:?}"),
    }
}

#[test]
fn system_calls_kill() {
    for name in [
        "socket",
        "open_file",
        "fork",
        "thread",
        "exec",
        "kill_all",
        "old_system_call",
        "write_elsewhere",
        "executable_memory",
        "change_own_code",
    ] {
        assert_eq!(refusal(name), RecordError::ForbiddenSystemCall, "{name}");
    }
}

#[test]
fn crashes_are_named() {
    const SIGILL: i32 = 4;
    const SIGSEGV: i32 = 11;
    for name in ["wild_pointer", "wild_argument", "write_code", "endless_recursion"] {
        assert_eq!(refusal(name), RecordError::Crashed(SIGSEGV), "{name}");
    }
    let error = refusal("illegal_instruction");
    assert_eq!(error, RecordError::Crashed(SIGILL));
    assert!(error.to_string().contains("compiled for a processor"), "{error}");
}

#[test]
fn an_endless_loop_is_killed() {
    let mut command = recorder();
    command.wall_clock_limit = Duration::from_millis(300);
    let outcome = record(&command, &compile("endless_loop"), CIRCUIT, &signature());
    assert_eq!(outcome, Err(RecordError::TimedOut));
}

#[test]
fn memory_is_bounded() {
    let error = refusal("endless_malloc");
    assert!(matches!(error, RecordError::TooMuchMemory(_)), "{error}");
    // With no address space left the recorder may not even be able to say so.
    let error = refusal("endless_mmap");
    assert!(matches!(error, RecordError::TooMuchMemory(_) | RecordError::Crashed(6)), "{error}");
}

#[test]
fn the_tape_is_bounded() {
    let error = refusal("endless_tables");
    assert!(matches!(error, RecordError::TooLarge(_)), "{error}");
}

#[test]
fn answers_are_bounded() {
    let start = Instant::now();
    for name in ["flood", "huge_answer", "quiet_exit", "failing_exit"] {
        let error = refusal(name);
        assert!(matches!(error, RecordError::Protocol(_)), "{name}: {error}");
    }
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn texts_of_the_child_are_safe_to_print() {
    let error = refusal("forged_refusal");
    assert_eq!(error, RecordError::UnknownImport("\\u{1b}[2J".into()));
}

#[test]
fn imports_are_refused_by_name_before_anything_runs() {
    assert_eq!(refusal("unknown_import"), RecordError::UnknownImport("system".into()));
    assert_eq!(refusal("unused_import"), RecordError::UnknownImport("system".into()));
    assert_eq!(refusal("dataflow"), RecordError::Dataflow("_dfr_create_async_task".into()));
}

#[test]
fn code_outside_of_the_entry_is_refused() {
    let error = refusal("constructor");
    assert!(matches!(error, RecordError::UnsupportedObject(_)), "{error}");
    assert!(error.to_string().contains("DT_INIT_ARRAY"), "{error}");
    let error = refusal("thread_local");
    assert!(error.to_string().contains("thread-local"), "{error}");
    let error = refusal("data_relocation");
    assert_eq!(error, RecordError::UnsupportedRelocation("a relocation of type 1".into()));
}

#[test]
fn what_is_no_ciphertext_is_not_traceable() {
    for (name, reason) in [
        ("mixture", "that is none"),
        ("own_sum", "that is none"),
        ("uninitialised", "uninitialised memory as a ciphertext"),
        ("no_result", "not of the shape"),
        ("wrong_size", "different sizes"),
        ("wrong_key", "keyswitch key 0 is not the one of the specs"),
        ("wild_copy", "from or to a buffer without a valid address"),
        ("huge_fill", "fills 1099511627776 bytes at once"),
        ("wild_free", "frees memory that it did not allocate"),
    ] {
        let error = refusal(name);
        assert!(matches!(error, RecordError::NotTraceable(_)), "{name}: {error}");
        assert!(error.to_string().contains(reason), "{name}: {error}");
    }
}
