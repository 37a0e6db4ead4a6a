//! A disk without room and a clock that jumps, as a user meets them: the file is named, nothing is
//! lost, and the same command goes on when there is room.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cipherscore_testbed::Clock;
use support::{Example, Fixture, Ran, recorded, text, wait_until};

/// Rows of a job, and jobs of the input.
const ROWS_PER_JOB: usize = 1001;
const JOBS: usize = 4;
/// Room for a file, in bytes: for half of the head of the list of jobs, for half of the results, and
/// for all of the results but not for the scores, which are text.
const ROOM: [(u64, &str); 3] =
    [(200, "jobs.jsonl"), (20_000, "results.bin"), (40_000, "scores.csv")];
const DAY: i64 = 24 * 60 * 60;

#[test]
fn full_disks_and_jumping_clocks() {
    let fixture = Fixture::start();
    let model = fixture.example("breast_cancer_logistic_regression");
    let input = long_input(&fixture, &model);
    a_note_without_room(&fixture, &model);
    scores_without_room(&fixture, &model, &input);
    a_clock_that_jumps(&fixture, &model, &input);
}

/// A command for whose files there is so much room, in bytes each.
fn with_room<T: AsRef<std::ffi::OsStr>>(fixture: &Fixture, words: &[T], bytes: u64) -> Command {
    let inner = fixture.command(words);
    let mut command = Command::new("/bin/sh");
    // A write beyond it fails, as on a full disk; without the trap it would end the process.
    command.args(["-c", "trap '' XFSZ; exec prlimit --fsize=$0 \"$@\"", &bytes.to_string()]);
    command.arg(inner.get_program()).args(inner.get_args());
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

/// What it said when there was no room for a file. Its own output goes through pipes, which have it.
fn refused<T: AsRef<std::ffi::OsStr>>(
    fixture: &Fixture,
    words: &[T],
    bytes: u64,
    file: &str,
) -> String {
    let output = with_room(fixture, words, bytes).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let last = said.trim_end().lines().last().unwrap_or_default();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(last.starts_with("error: ") && last.contains(file), "{file}: {said}");
    assert!(last.contains("File too large"), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    said
}

/// Without room for its note a job is not published, and half a note does not stand in the way.
/// Without room for its results it is answered when there is.
fn a_note_without_room(fixture: &Fixture, model: &Example) {
    let [rows, results] = ["rows.bin", "results.bin"].map(|name| fixture.path(name));
    let (client, input) = (model.file("client.zip"), fixture.path("one.csv"));
    fs::write(&input, head(&model.file("rows.csv"))).unwrap();
    let encrypt = ["encrypt", "--client", text(&client), "--keys", text(&model.keys)];
    let files = ["--input", text(&input), "--output", text(&rows)];
    fixture.json(0, &[&encrypt[..], &files].concat());
    let worker = fixture.worker(&model.folder);
    let words = ["submit", "--model", &model.model, "--input", text(&rows)];
    let words = [&words[..], &["--output", text(&results)]].concat();

    let said = refused(fixture, &words, 100, "results.bin.job");
    assert!(!said.contains(" is job "), "published without a note: {said}");
    let said = refused(fixture, &words, 2000, "results.bin");
    let job = said.split_once(" is job ").unwrap().1.lines().next().unwrap().to_owned();
    assert!(!results.exists(), "half of the results");

    let ran = fixture.run(&words);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stderr.contains(&format!("{job} again")), "{}", ran.stderr);
    let scores = fixture.path("decrypted.csv");
    let decrypt = ["decrypt", "--client", text(&client), "--keys", text(&model.keys)];
    let files = ["--input", text(&results), "--output", text(&scores)];
    fixture.json(0, &[&decrypt[..], &files].concat());
    let numbers = |csv: &str| -> Vec<f64> {
        csv.lines().nth(1).unwrap().split(',').map(|cell| cell.parse().unwrap()).collect()
    };
    let clear = numbers(&head(&model.file("clear.csv")));
    let scores = numbers(&fs::read_to_string(scores).unwrap());
    assert_eq!(scores.len(), clear.len());
    assert!(scores.iter().zip(&clear).all(|(a, b)| (a - b).abs() <= 1e-12), "{scores:?} {clear:?}");
    worker.terminate();
    worker.end();
}

/// A run stops at the first file without room, and goes on from there.
fn scores_without_room(fixture: &Fixture, model: &Example, input: &Path) {
    let output = fixture.path("scores.csv");
    let words = model.score(input, &output, &["--rows-per-job", &ROWS_PER_JOB.to_string()]);
    let finished = || recorded(&output, "finished").len();
    let worker = fixture.worker(&model.folder);
    let mut before = 0;
    for (bytes, file) in ROOM {
        refused(fixture, &words, bytes, file);
        assert!(finished() >= before && !output.exists());
        before = finished();
    }
    assert_eq!(before, JOBS, "what is finished is kept");
    worker.terminate();
    worker.end();
    // All results are there: nobody is needed any more.
    let ran = fixture.run(&words);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_complete(model, &output);
}

/// A clock that is set while jobs wait has none of them published again. While it is so far behind
/// that workers find every job too late, rows fail with that reason, and the next run scores them.
fn a_clock_that_jumps(fixture: &Fixture, model: &Example, input: &Path) {
    let clock = Clock::right().unwrap();
    let output = fixture.path("jumped.csv");
    let words = model.score(input, &output, &["--rows-per-job", &ROWS_PER_JOB.to_string()]);
    let by_clock = || {
        let mut command = fixture.command(&words);
        command.envs(clock.variables());
        fixture.start_command(command)
    };
    let run = by_clock();
    wait_until("jobs are not published", || recorded(&output, "submitted").len() == JOBS);
    for jump in [10 * DAY, -10 * DAY] {
        clock.set(jump).unwrap();
        // It looks for overdue jobs each second.
        std::thread::sleep(std::time::Duration::from_secs(3));
    }
    let worker = fixture.worker(&model.folder);
    let ran = run.end();
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(!ran.stderr.contains("published again"), "{}", ran.stderr);
    assert_complete(model, &output);
    fs::remove_file(&output).unwrap();

    let ran = by_clock().end();
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    let failed = fs::read_to_string(fixture.path("jumped.csv.failed.csv")).unwrap();
    let reasons = failed.lines().skip(1).filter(|line| line.contains("by this worker's clock"));
    assert_eq!(reasons.count(), JOBS * ROWS_PER_JOB, "{}", failed.lines().nth(1).unwrap());
    let Ran { code, stderr, .. } = fixture.run(&words);
    assert_eq!(code, Some(0), "{stderr}");
    assert_complete(model, &output);
    worker.terminate();
    worker.end();
}

/// The header and the first row of a file.
fn head(csv: &Path) -> String {
    let text = fs::read_to_string(csv).unwrap();
    text.lines().take(2).map(|line| format!("{line}\n")).collect()
}

/// The example's rows over and over.
fn long_input(fixture: &Fixture, model: &Example) -> PathBuf {
    let rows = fs::read_to_string(model.file("rows.csv")).unwrap();
    let (header, rows) = rows.split_once('\n').unwrap();
    let path = fixture.path("many.csv");
    let many = rows.lines().cycle().take(JOBS * ROWS_PER_JOB).collect::<Vec<_>>().join("\n");
    fs::write(&path, format!("{header}\n{many}\n")).unwrap();
    path
}

/// As many lines as rows, and on each the score of the clear model.
fn assert_complete(model: &Example, output: &Path) {
    let lines = fs::read_to_string(output).unwrap().lines().count();
    assert_eq!(lines, JOBS * ROWS_PER_JOB + 1);
    model.assert_scores(output);
}
