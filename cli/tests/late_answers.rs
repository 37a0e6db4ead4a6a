//! A broker that answers too late, as a user meets it: every row is scored all the same, and nothing
//! is taken by somebody who does not read it.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod support;

use std::fs;
use std::time::{Duration, Instant};

use cipherscore_testbed::{AmqpMethod, Relay};
use support::{Example, Fixture, text};

/// How long workers and data owners wait for an answer here; their own limits are 10 s and 30 s.
const CONFIRM_TIMEOUT: &str = "2s";
/// For how long the answer is held back.
const HELD: Duration = Duration::from_secs(4);
/// Copies of the example's rows: many more jobs than one consumer takes.
const COPIES: usize = 60;
/// What all of it may take, as asked for a run of 100,000 rows.
const LIMIT: Duration = Duration::from_secs(100);

#[test]
fn all_rows_are_scored_when_consuming_is_confirmed_too_late() {
    let fixture = Fixture::start();
    let linear = fixture.example("breast_cancer_logistic_regression");
    let relay = Relay::start(fixture.services().0.address()).unwrap();
    let relayed = fixture.services().0.url_at(relay.address());
    let rows = fs::read_to_string(linear.file("rows.csv")).unwrap();
    let (header, rows) = rows.split_once('\n').unwrap();
    fs::write(fixture.path("many.csv"), format!("{header}\n{}", rows.repeat(COPIES))).unwrap();

    relay.hold_answer(AmqpMethod::BasicConsume, HELD);
    let limit = format!("worker.confirm_timeout={CONFIRM_TIMEOUT}");
    let worker = fixture.worker_at(&relayed, &linear.folder, &[&limit]);
    assert!(relay.has_held());
    // The broker has answered whom nobody reads any more.
    std::thread::sleep(HELD);
    scores(&fixture, &linear, &fixture.broker_url);
    assert!(worker.printed().contains("no answer within"), "{}", worker.printed());

    relay.hold_answer(AmqpMethod::BasicConsume, HELD);
    scores(&fixture, &linear, &relayed);
    assert!(relay.has_held());
    let status = fixture.run(&["status"]).stdout;
    assert!(status.contains(" unacknowledged"), "{status}");
    worker.terminate();
    worker.end();
}

/// Scores all rows, by way of a broker's address.
fn scores(fixture: &Fixture, linear: &Example, broker: &str) {
    let config = fixture.path("producer.toml");
    fs::write(&config, format!("[producer]\nconfirm_timeout = \"{CONFIRM_TIMEOUT}\"\n")).unwrap();
    let (input, output) = (fixture.path("many.csv"), fixture.path("scores.csv"));
    let more = ["--lane", "high", "--rows-per-job", "10", "--config", text(&config)];
    let mut command = fixture.command(&linear.score(&input, &output, &more));
    command.env("CIPHERSCORE_BROKER_URL", broker);
    let began = Instant::now();
    let ran = fixture.start_command(command).end();
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(began.elapsed() < LIMIT, "{:?}", began.elapsed());
    linear.assert_scores(&output);
    let lines = fs::read_to_string(&output).unwrap().lines().count();
    assert_eq!(lines, fs::read_to_string(&input).unwrap().lines().count());
    fs::remove_file(output).unwrap();
}
