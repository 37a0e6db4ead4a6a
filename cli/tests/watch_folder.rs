//! `evaluate --watch-folder`: call after call by one process, through files.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use cipherscore_testbed::Process;
use serde_json::Value;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(180);
const PROGRAM: &str = env!("CARGO_BIN_EXE_cipherscore");

fn case(file: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/concrete");
    folder.join("decision_tree_classifier").join(file)
}

fn words(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn run(arguments: &[&str]) {
    let output = Command::new(PROGRAM).args(arguments).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{arguments:?}: {said}");
}

/// Keys and encrypted rows of a tree, and a folder for calls.
struct Fixture {
    folder: TempDir,
    rows: Vec<PathBuf>,
}

impl Fixture {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let path = |name: &str| words(&folder.path().join(name));
        let (client, keys, rows) = (words(&case("client.zip")), path("keys"), path("rows"));
        run(&["keygen", "--client", &client, "--keys", &keys]);
        let input = words(&case("rows.csv"));
        fs::create_dir(&rows).unwrap();
        let common = ["encrypt", "--client", &client, "--keys", &keys, "--input", &input];
        run(&[&common[..], &["--output", &rows]].concat());
        fs::create_dir(folder.path().join("calls")).unwrap();
        let mut found: Vec<_> =
            fs::read_dir(rows).unwrap().map(|entry| entry.unwrap().path()).collect();
        found.sort();
        Self { folder, rows: found }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn call(&self, name: &str) -> PathBuf {
        self.path("calls").join(name)
    }

    fn start(&self) -> Process {
        let [server, key] = [case("server.mlir.zip"), self.path("keys/evaluation.key")];
        let arguments = [
            "--json",
            "evaluate",
            "--server",
            &words(&server),
            "--evaluation-key",
            &words(&key),
            "--watch-folder",
            &words(&self.path("calls")),
        ];
        Process::start(Path::new(PROGRAM), &arguments, &[]).unwrap()
    }

    /// Puts a call there, whole.
    fn put(&self, name: &str, content: &[u8]) {
        fs::write(self.call("part"), content).unwrap();
        fs::rename(self.call("part"), self.call(name)).unwrap();
    }

    fn integers(&self, outputs: &[PathBuf]) -> Vec<Vec<i64>> {
        let (scores, client) = (self.path("integers.csv"), case("client.zip"));
        let words: Vec<_> = outputs.iter().map(|path| words(path)).collect();
        let mut arguments = vec!["decrypt", "--integers", "--client", client.to_str().unwrap()];
        let (keys, to) = (self.path("keys"), scores.to_str().unwrap());
        arguments.extend(["--keys", keys.to_str().unwrap(), "--output", to, "--input"]);
        arguments.extend(words.iter().map(String::as_str));
        run(&arguments);
        let text = fs::read_to_string(scores).unwrap();
        let line = |line: &str| line.split(',').map(|cell| cell.parse().unwrap()).collect();
        text.lines().skip(1).map(line).collect()
    }
}

fn wait_for(process: &mut Process, what: &str, mut is_so: impl FnMut(&str) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so(&process.printed()) {
        assert!(!process.has_ended() && Instant::now() < deadline, "{what}: {}", process.printed());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether a process ends in time, by itself.
fn ends(process: &mut Process, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    while !process.has_ended() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    process.has_ended()
}

fn events(printed: &str) -> Vec<Value> {
    printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn expected() -> Vec<Vec<i64>> {
    let expected: Value =
        serde_json::from_slice(&fs::read(case("expected.json")).unwrap()).unwrap();
    serde_json::from_value(expected["outputs"].clone()).unwrap()
}

#[test]
fn calls_are_evaluated_one_after_the_other_and_what_fails_says_why() {
    let fixture = Fixture::new();
    let expected = expected();
    // There before the process is.
    fixture.put("row-0.in", &fs::read(&fixture.rows[0]).unwrap());
    fs::write(fixture.call("notes.txt"), "not a call").unwrap();
    let mut process = fixture.start();
    wait_for(&mut process, "the first call", |_| fixture.call("row-0.out").exists());
    fixture.put("wrong.in", b"no row");
    wait_for(&mut process, "an error", |_| fixture.call("wrong.error").exists());
    for (number, row) in fixture.rows.iter().enumerate().skip(1) {
        fixture.put(&format!("row-{number}.in"), &fs::read(row).unwrap());
    }
    let names = |end: &'static str| (0..fixture.rows.len()).map(move |n| format!("row-{n}.{end}"));
    wait_for(&mut process, "all calls", |_| names("out").all(|name| fixture.call(&name).exists()));
    // Outputs come first; then inputs go.
    wait_for(&mut process, "the end", |_| !names("in").any(|name| fixture.call(&name).exists()));
    assert!(!fixture.call("wrong.in").exists());
    let outputs: Vec<_> = names("out").map(|name| fixture.call(&name)).collect();
    assert_eq!(fixture.integers(&outputs), expected);

    let mut second = fixture.start();
    assert!(ends(&mut second, PATIENCE), "{}", second.printed());
    assert_eq!(second.exit_code(), Some(1));
    assert!(second.printed().contains("another process watches"), "{}", second.printed());

    assert!(process.end(PATIENCE).unwrap());
    assert_eq!(process.exit_code(), Some(0));
    let events = events(&process.printed());
    let kinds: Vec<_> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!((kinds[0], kinds[kinds.len() - 1]), ("ready", "stopped"));
    let of = |kind: &str| kinds.iter().filter(|found| **found == kind).count();
    assert_eq!((of("evaluated"), of("failed"), of("ready")), (expected.len(), 1, 1));
    let last = &events[events.len() - 1];
    assert_eq!((last["evaluated"].as_u64(), last["failed"].as_u64()), (Some(3), Some(1)));
    let reason = fs::read_to_string(fixture.call("wrong.error")).unwrap();
    assert!(reason.contains("wrong.in"), "{reason}");
    let failed = events.iter().find(|event| event["event"] == "failed").unwrap();
    assert_eq!(failed["reason"], reason.as_str());
}

/// The call that it is at is not lost, and no half of its output is there.
#[test]
fn a_process_that_is_ended_leaves_its_call_to_the_next_one() {
    let fixture = Fixture::new();
    let mut process = fixture.start();
    wait_for(&mut process, "to be ready", |printed| printed.contains("ready"));
    let row = fs::read(&fixture.rows[0]).unwrap();
    let put = |call: usize| fixture.put(&format!("{call:03}.in"), &row);
    put(0);
    wait_for(&mut process, "a call", |_| fixture.call("000.out").exists());
    // It finds the signal as soon as it finds the calls.
    process.signal("STOP").unwrap();
    (1..12).for_each(put);
    process.signal("TERM").unwrap();
    process.signal("CONT").unwrap();
    assert!(ends(&mut process, Duration::from_secs(5)), "{}", process.printed());
    assert_eq!(process.exit_code(), Some(0));
    let count = |ending: &str| {
        let entries = fs::read_dir(fixture.path("calls")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(ending)).count()
    };
    // The call that it was at is still taken.
    let (inputs, outputs) = (count(".in") + count(".taken"), count(".out"));
    assert!(inputs > 0 && inputs + outputs == 12, "{inputs} and {outputs}");
    assert_eq!(count(".error"), 0);
    // Nothing but these, and the lock: no half of a file.
    assert_eq!(fs::read_dir(fixture.path("calls")).unwrap().count(), 13);
    let left = format!("{:03}.out", 11);
    let mut process = fixture.start();
    wait_for(&mut process, "the rest", |_| fixture.call(&left).exists());
    assert!(process.end(PATIENCE).unwrap());
}

/// A later call is neither removed with an earlier one nor answered by its outcome, and nothing
/// outside of the folder is read or written through a link.
#[test]
fn a_name_is_used_again_and_no_link_is_followed() {
    let fixture = Fixture::new();
    let row = |number: usize| fs::read(&fixture.rows[number]).unwrap();
    let outside = fixture.path("outside");
    fs::write(&outside, "outside").unwrap();
    symlink(&outside, fixture.call("again.out")).unwrap();
    fs::write(fixture.call("again.error"), "of an earlier call").unwrap();
    fixture.put("again.in", &row(0));
    let mut process = fixture.start();
    let is_answered = |_: &str| {
        fs::symlink_metadata(fixture.call("again.out")).is_ok_and(|metadata| metadata.is_file())
    };
    wait_for(&mut process, "the first call", is_answered);
    // At once, whether or not the first call's input is removed by now.
    fixture.put("again.in", &row(1));
    let is_evaluated =
        |printed: &str| printed.matches(r#""evaluated","call":"again""#).count() == 2;
    wait_for(&mut process, "the second call", is_evaluated);
    assert!(process.end(PATIENCE).unwrap());
    assert_eq!(process.exit_code(), Some(0));
    assert_eq!(fixture.integers(&[fixture.call("again.out")]), expected()[1..2]);
    assert_eq!(fs::read_to_string(outside).unwrap(), "outside");
    // The outputs and the lock.
    assert_eq!(fs::read_dir(fixture.path("calls")).unwrap().count(), 2);

    fs::remove_file(fixture.call(".lock")).unwrap();
    symlink(fixture.path("made"), fixture.call(".lock")).unwrap();
    let mut process = fixture.start();
    assert!(ends(&mut process, PATIENCE), "{}", process.printed());
    assert_eq!(process.exit_code(), Some(1), "{}", process.printed());
    assert!(!fixture.path("made").exists());
}

#[test]
fn what_was_taken_is_evaluated_first_and_what_is_no_file_is_passed_over() {
    let fixture = Fixture::new();
    let row = |number: usize| fs::read(&fixture.rows[number]).unwrap();
    // As a process leaves them that is killed: before the output is there, and right after.
    fixture.put("left.taken", &row(2));
    fixture.put("answered.taken", &row(1));
    fixture.put("answered.out", b"its output");
    fs::create_dir(fixture.call("folder.in")).unwrap();
    symlink(&fixture.rows[0], fixture.call("link.in")).unwrap();
    fs::write(fixture.path("calls").join(OsStr::from_bytes(b"\xff.in")), row(0)).unwrap();
    let pipe = Command::new("mkfifo").arg(fixture.call("pipe.in")).status().unwrap();
    assert!(pipe.success());
    // Its outcome of an earlier call cannot be removed.
    fixture.put("blocked.in", &row(0));
    fs::create_dir(fixture.call("blocked.out")).unwrap();
    fixture.put("whole.in", &row(0));
    let mut process = fixture.start();
    wait_for(&mut process, "calls", |printed| {
        printed.matches(r#""evaluated","call""#).count() == 2
    });
    // It goes on, and takes the call as soon as it can.
    fs::remove_dir(fixture.call("blocked.out")).unwrap();
    wait_for(&mut process, "the rest", |_| fixture.call("blocked.out").exists());
    assert!(process.end(PATIENCE).unwrap());
    assert_eq!(process.exit_code(), Some(0));

    let events = events(&process.printed());
    let of = |kind: &str, field: &str| -> Vec<String> {
        let events = events.iter().filter(|event| event["event"] == kind);
        events.map(|event| event[field].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(of("evaluated", "call"), ["left", "whole", "blocked"]);
    let mut passed_over = of("passed_over", "file");
    passed_over.sort();
    let names = ["blocked.in", "folder.in", "link.in", "pipe.in", "\u{fffd}.in"];
    assert_eq!(passed_over, names);
    let outputs = ["left.out", "whole.out"].map(|name| fixture.call(name));
    let expected = expected();
    assert_eq!(fixture.integers(&outputs), [&expected[2][..], &expected[0][..]]);
    assert_eq!(fs::read(fixture.call("answered.out")).unwrap(), b"its output");
    for name in ["left.taken", "answered.taken", "blocked.taken", "whole.in", "blocked.in"] {
        assert!(!fixture.call(name).exists(), "{name}");
    }
}
