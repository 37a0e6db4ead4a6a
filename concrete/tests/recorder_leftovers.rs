//! Counts what attacks leave behind in the importer: processes, descriptors, threads, files.
//!
//! One test in a process of its own, so that nothing else is counted.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
// A test that cannot go on fails.
#![allow(clippy::unwrap_used)]

mod recorder_support;

use std::fs;
use std::time::{Duration, Instant};

use cipherscore_concrete::recorder::{RecorderCommand, record};
use recorder_support::{CIRCUIT, compile, recorder, signature};

/// How long threads that read and write pipes may take to see that their child is dead.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Belongings {
    /// Living or dead.
    children: usize,
    descriptors: usize,
    threads: usize,
    /// Names in the folder for temporary files that this process may have made.
    files: usize,
}

fn count(folder: &str) -> usize {
    fs::read_dir(folder).unwrap().count()
}

fn belongings(temporary: &str) -> Belongings {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let children = tasks.map(|task| {
        let children = fs::read_to_string(task.unwrap().path().join("children"));
        children.unwrap_or_default().split_whitespace().count()
    });
    Belongings {
        children: children.sum(),
        descriptors: count("/proc/self/fd"),
        threads: count("/proc/self/task"),
        files: count(temporary),
    }
}

#[test]
fn attacks_leave_nothing_behind() {
    let names = [
        "linear",
        "fork",
        "thread",
        "exec",
        "kill_all",
        "open_file",
        "endless_loop",
        "endless_recursion",
        "flood",
        "huge_answer",
        "quiet_exit",
        "failing_exit",
        "two_answers",
        "forged_tables",
        "answer_and_stay",
        "half_an_answer",
        "broken_heap",
        "broken_stack",
        "broken_recording",
        "call_recorder",
    ];
    let temporary = tempfile::tempdir().unwrap();
    let objects = names.map(|name| (name, compile(name)));
    let before = belongings(temporary.path().to_str().unwrap());
    let command = |wall_clock_limit| RecorderCommand {
        // Starts where a file that it left would be seen.
        program: "/usr/bin/env".into(),
        arguments: vec![
            "--chdir".into(),
            temporary.path().into(),
            recorder().program.into_os_string(),
        ],
        wall_clock_limit,
    };
    for (name, object) in &objects {
        let (start, succeeds) = (Instant::now(), *name == "linear");
        let command = command(Duration::from_secs(if succeeds { 60 } else { 2 }));
        let outcome = record(&command, object, CIRCUIT, &signature());
        assert_eq!(succeeds, outcome.is_ok(), "{name}: {outcome:?}");
        assert!(start.elapsed() < Duration::from_secs(20), "{name}: {:?}", start.elapsed());
    }
    let start = Instant::now();
    while belongings(temporary.path().to_str().unwrap()) != before {
        let after = belongings(temporary.path().to_str().unwrap());
        assert!(start.elapsed() < PATIENCE, "{after:?} instead of {before:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
