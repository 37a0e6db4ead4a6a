//! Attacks on the sandbox by somebody who means it: every system call by every way in, forged
//! answers, a corrupted recorder. Each ends in a clear error, in time, and leaves nothing behind.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
// A test that cannot go on fails.
#![allow(clippy::unwrap_used)]

mod recorder_support;

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use cipherscore_concrete::recorder::{RecordError, RecorderCommand, record};
use cipherscore_engine::circuit::{Affine, Circuit};
use recorder_support::{CIRCUIT, compile, recorder, signature};

const SIGILL: i32 = 4;
const SIGTRAP: i32 = 5;
const SIGBUS: i32 = 7;
const SIGFPE: i32 = 8;
const SIGSEGV: i32 = 11;

/// What `ordered.c` can do.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    SystemCall,
    OldSystemCall,
    VirtualSystemCall,
    Breakpoint,
    Division,
    Halt,
    SingleStep,
    Unaligned,
    ThreadBase,
    OtherBase,
    Clock,
}

/// Records `ordered.c` with an order written into it.
fn order(way: Way, number: i64, arguments: [i64; 6]) -> Result<Circuit, RecordError> {
    static OBJECT: LazyLock<(Vec<u8>, usize)> = LazyLock::new(|| {
        let object = compile("ordered");
        let mark = object.windows(16).position(|bytes| bytes == b"order by the tes").unwrap();
        (object, mark + 16)
    });
    let (mut object, mut at) = OBJECT.clone();
    for word in [way as i64, number].into_iter().chain(arguments) {
        object[at..at + 8].copy_from_slice(&word.to_le_bytes());
        at += 8;
    }
    record(&recorder(), &object, CIRCUIT, &signature())
}

fn system_call(number: i64, arguments: [i64; 6]) -> Result<Circuit, RecordError> {
    order(Way::SystemCall, number, arguments)
}

/// One that may run for a while only.
fn record_briefly(name: &str) -> Result<Circuit, RecordError> {
    let command = RecorderCommand { wall_clock_limit: Duration::from_millis(700), ..recorder() };
    record(&command, &compile(name), CIRCUIT, &signature())
}

const WRITE: i64 = 1;
const MMAP: i64 = 9;
const MPROTECT: i64 = 10;
const MUNMAP: i64 = 11;
const BRK: i64 = 12;
const RT_SIGPROCMASK: i64 = 14;
const MREMAP: i64 = 25;
const MADVISE: i64 = 28;
const GETPID: i64 = 39;
const EXIT: i64 = 60;
const GETTID: i64 = 186;
const EXIT_GROUP: i64 = 231;
const TGKILL: i64 = 234;

/// The calls that recording itself needs, some of them with certain arguments only.
const ALLOWED: [i64; 7] = [MUNMAP, BRK, RT_SIGPROCMASK, GETPID, EXIT, GETTID, EXIT_GROUP];

/// First number that no system call has, nor will have soon.
const NUMBERS: i64 = 600;

/// uretprobe and uprobe, by which code that is being traced calls the kernel. Linux shows them to no
/// filter. Whoever is not traced is ended as by an illegal instruction, or told of an error.
const TRACE_POINTS: [i64; 2] = [335, 336];

#[test]
fn every_other_system_call_kills() {
    // Zeros are arguments that none of the calls with conditions is allowed with, but
    // mprotect, which then does nothing of use.
    for number in (0..NUMBERS).chain([1 << 20, i32::MAX.into(), u32::MAX.into(), -1]) {
        if !ALLOWED.contains(&number) && number != MPROTECT {
            let outcome = system_call(number, [0; 6]);
            let harmless = match &outcome {
                Err(RecordError::Crashed(SIGILL)) | Ok(_) => TRACE_POINTS.contains(&number),
                other => *other == Err(RecordError::ForbiddenSystemCall),
            };
            assert!(harmless, "system call {number}: {outcome:?}");
        }
    }
}

#[test]
fn allowed_system_calls_get_nowhere() {
    let honest = order(Way::Clock, 0, [0; 6]).unwrap();
    for number in [BRK, RT_SIGPROCMASK, GETPID, GETTID, MUNMAP, MPROTECT] {
        assert_eq!(system_call(number, [0; 6]), Ok(honest.clone()), "system call {number}");
    }
    for number in [EXIT, EXIT_GROUP] {
        let outcome = system_call(number, [0; 6]);
        assert!(matches!(outcome, Err(RecordError::Protocol(_))), "{number}: {outcome:?}");
    }
}

#[test]
fn allowed_system_calls_kill_with_other_arguments() {
    const PAGE: i64 = 4096;
    let parent = i64::from(std::process::id());
    let (private, shared, fixed) = (0x22, 0x21, 0x32);
    let (locked, huge, populated, low) = (0x2022, 0x40022, 0x8022, 0x62);
    for (number, arguments) in [
        // Other descriptors than the answer's.
        (WRITE, [0, 0, 0, 0, 0, 0]),
        (WRITE, [2, 0, 0, 0, 0, 0]),
        (WRITE, [-1, 0, 0, 0, 0, 0]),
        // Executable memory, with and without a bit that a careless comparison would trip over.
        (MMAP, [0, PAGE, 4, private, -1, 0]),
        (MMAP, [0, PAGE, 5, private, -1, 0]),
        (MMAP, [0, PAGE, 7 | 1 << 40, private, -1, 0]),
        (MPROTECT, [PAGE, PAGE, 4, 0, 0, 0]),
        (MPROTECT, [PAGE, PAGE, 7, 0, 0, 0]),
        (MPROTECT, [PAGE, PAGE, 5 | 1 << 40, 0, 0, 0]),
        // Memory of a descriptor, be it the answer's, and of neither kind.
        (MMAP, [0, PAGE, 1, 0x02, 1, 0]),
        (MMAP, [0, PAGE, 3, 0x02, 0, 0]),
        (MMAP, [0, PAGE, 3, 0x20, -1, 0]),
        (MMAP, [0, PAGE, 3, 0, -1, 0]),
        // Memory that is shared, at a chosen place, or not of ordinary pages.
        (MMAP, [0, PAGE, 3, shared, -1, 0]),
        (MMAP, [PAGE * 16, PAGE, 3, fixed, -1, 0]),
        (MMAP, [0, PAGE, 3, locked, -1, 0]),
        (MMAP, [0, 1 << 21, 3, huge, -1, 0]),
        (MMAP, [0, PAGE, 3, populated, -1, 0]),
        (MMAP, [0, PAGE, 3, low, -1, 0]),
        // Moving code to where 32-bit code could run.
        (MREMAP, [PAGE, PAGE, PAGE, 3, PAGE * 16, 0]),
        (MREMAP, [PAGE, PAGE, PAGE, 5, 0, 0]),
        (MREMAP, [PAGE, PAGE, PAGE, 0, 0, 0]),
        // Advice that takes pages from the machine, shares them, or keeps them from children.
        (MADVISE, [0, PAGE, 100, 0, 0, 0]),
        (MADVISE, [0, PAGE, 101, 0, 0, 0]),
        (MADVISE, [0, PAGE, 12, 0, 0, 0]),
        (MADVISE, [0, PAGE, 14, 0, 0, 0]),
        // Signals: to the importer, to all, to nobody.
        (TGKILL, [parent, parent, 6, 0, 0, 0]),
        (TGKILL, [parent, parent, 9, 0, 0, 0]),
        (TGKILL, [-1, -1, 6, 0, 0, 0]),
        (TGKILL, [0, 0, 19, 0, 0, 0]),
    ] {
        let outcome = system_call(number, arguments);
        let place = format!("system call {number} of {arguments:?}");
        assert_eq!(outcome, Err(RecordError::ForbiddenSystemCall), "{place}");
    }
}

/// Through other doors of the kernel: x32, whose numbers have a bit of their own; the 32-bit
/// interface, if the kernel has it; and the page of virtual system calls.
#[test]
fn other_ways_into_the_kernel_kill() {
    const X32: i64 = 1 << 30;
    let forbidden = |outcome| outcome == Err(RecordError::ForbiddenSystemCall);
    let allowed = ALLOWED.into_iter().chain([WRITE, MMAP, MPROTECT, MREMAP, MADVISE, TGKILL]);
    let notorious = [2, 41, 42, 56, 57, 58, 59, 62, 101, 157, 257, 310, 311, 319, 323, 425];
    for number in allowed.chain(notorious).chain(512..548) {
        assert!(forbidden(system_call(number | X32, [1, 0, 0, 0, 0, 0])), "x32 {number}");
    }
    let killed = |outcome| {
        matches!(outcome, Err(RecordError::ForbiddenSystemCall | RecordError::Crashed(SIGSEGV)))
    };
    // exit, fork, write, open, execve, getpid, ptrace, kill, brk, mmap, clone, mprotect, socketcall
    for number in [1, 2, 4, 5, 11, 20, 26, 37, 45, 90, 102, 120, 125, 192, 252, 359, 0, -1] {
        assert!(killed(order(Way::OldSystemCall, number, [1, 0, 0, 0, 0, 0])), "32-bit {number}");
    }
    for number in 0..3 {
        assert!(killed(order(Way::VirtualSystemCall, number, [0; 6])), "virtual {number}");
    }
}

#[test]
fn signals_of_the_processor_are_named() {
    for (way, signal) in [
        (Way::Breakpoint, SIGTRAP),
        (Way::SingleStep, SIGTRAP),
        (Way::Division, SIGFPE),
        (Way::Halt, SIGSEGV),
        (Way::Unaligned, SIGBUS),
    ] {
        assert_eq!(order(way, 1, [0; 6]), Err(RecordError::Crashed(signal)), "{way:?}");
    }
}

/// A moved thread base takes the recorder its state; no more than a crash comes of it. Reading the
/// clock changes nothing.
#[test]
fn registers_of_the_thread_are_its_own() {
    let outcome = order(Way::ThreadBase, 0, [0; 6]);
    assert!(outcome.is_err(), "{outcome:?}");
    for way in [Way::OtherBase, Way::Clock] {
        let outcome = order(way, 0, [0; 6]);
        // A kernel without these instructions calls them illegal.
        assert!(matches!(outcome, Ok(_) | Err(RecordError::Crashed(_))), "{way:?}: {outcome:?}");
    }
}

/// A forged answer is data like any other: it is what the model owner could have sent as a circuit.
#[test]
fn forged_answers_are_data() {
    let forged = |name| record(&recorder(), &compile(name), CIRCUIT, &signature());
    let seven = Affine { constant: 7, terms: vec![] };
    let circuit = forged("forged_circuit").unwrap();
    assert_eq!(circuit, Circuit { outputs: vec![vec![seven]], ..Circuit::default() });
    circuit.validate(Arc::new(signature())).unwrap();

    let circuit = forged("forged_root").unwrap();
    circuit.validate(Arc::new(signature())).unwrap_err();

    for name in ["two_answers", "forged_tables"] {
        let outcome = forged(name);
        assert!(matches!(outcome, Err(RecordError::Protocol(_))), "{name}: {outcome:?}");
    }
}

#[test]
fn who_stays_is_killed_in_time() {
    for name in ["answer_and_stay", "half_an_answer"] {
        let object = compile(name);
        let start = Instant::now();
        let command =
            RecorderCommand { wall_clock_limit: Duration::from_millis(700), ..recorder() };
        let outcome = record(&command, &object, CIRCUIT, &signature());
        assert_eq!(outcome, Err(RecordError::TimedOut), "{name}");
        assert!(start.elapsed() < Duration::from_secs(10), "{name}: {:?}", start.elapsed());
    }
}

/// A recorder whose memory was overwritten may crash, hang or talk nonsense, and no more.
#[test]
fn a_corrupted_recorder_harms_nobody() {
    for name in ["broken_heap", "broken_stack", "broken_recording", "call_recorder"] {
        match record_briefly(name) {
            Err(RecordError::Io(what) | RecordError::Sandbox(what)) => panic!("{name}: {what}"),
            Ok(circuit) => drop(circuit.validate(Arc::new(signature()))),
            Err(_) => {}
        }
    }
}
