//! Every exit code that a command can end with, by the program itself.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod support;

use std::process::Command;

use support::{Fixture, examples, recorded, wait_until};

fn code(words: &[&str]) -> Option<i32> {
    let output = Command::new(env!("CARGO_BIN_EXE_cipherscore")).args(words).output().unwrap();
    output.status.code()
}

#[test]
fn done_error_and_usage() {
    for done in [&["--version"][..], &["--help"], &["score", "--help"], &["help", "demo"]] {
        assert_eq!(code(done), Some(0), "{done:?}");
    }
    assert_eq!(code(&["inspect", "/nonexistent/server.zip"]), Some(1));
    for usage in [
        &[][..],
        &["scores"],
        &["score"],
        &["inspect", "--no-such-option", "server.zip"],
        &["demo", "--broker", "amqp://localhost"],
        &["--threads", "0", "inspect", "server.zip"],
        &["keys"],
    ] {
        assert_eq!(code(usage), Some(64), "{usage:?}");
    }
}

/// A run is interrupted before a worker answers; its job is cancelled, so its rows get no scores;
/// asked for again they do.
#[test]
fn interrupted_then_some_rows_without_scores_then_done() {
    let fixture = Fixture::start_anywhere();
    let linear = fixture.example("breast_cancer_logistic_regression");
    // Makes the queue, which stays.
    let worker = fixture.worker(&examples());
    worker.terminate();
    worker.end();
    let (rows, output) = (linear.file("rows.csv"), fixture.path("scores.csv"));
    let score = linear.score(&rows, &output, &[]);
    let run = fixture.begin(&score);
    wait_until("nothing is published", || !recorded(&output, "submitted").is_empty());
    run.signal("INT");
    assert_eq!(run.end().code, Some(130));

    let jobs = recorded(&output, "submitted");
    let cancel = ["cancel".to_owned()].into_iter().chain(jobs).collect::<Vec<_>>();
    assert_eq!(fixture.run(&cancel).code, Some(0));
    let _worker = fixture.worker(&examples());
    assert_eq!(fixture.run(&score).code, Some(2));
    assert_eq!(fixture.run(&score).code, Some(0));
    linear.assert_scores(&output);
}
