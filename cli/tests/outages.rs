//! Runs whose broker and store go away, and runs that are killed, as a user meets them: every row
//! is scored in the end, once.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use support::{Example, Fixture, examples, recorded, text, wait_until};

/// Rows of the long input.
const ROWS: usize = 100_000;
/// Finished jobs between two faults.
const STEP: usize = 4;

#[test]
fn a_long_run_is_complete_whatever_goes_away() {
    let fixture = Fixture::start();
    let model = compiled(&fixture);
    let worker = fixture.worker(&model.folder);
    let input = long_input(&fixture, &model);
    let output = fixture.path("scores.csv");
    let words = model.score(&input, &output, &["--in-flight", "2", "--rows-per-job", "2000"]);
    let finished = || recorded(&output, "finished").len();

    let run = fixture.begin(&words);
    wait_until("no job is finished", || finished() >= STEP);
    run.signal("KILL");
    assert_eq!(run.end().code, None);

    let before = finished();
    let mut run = fixture.begin(&words);
    wait_until("the killed run is not gone on with", || finished() >= before + STEP);
    // Rows and outputs that are under way are lost with it, and so is the evaluation key.
    fixture.services().1.restart().unwrap();
    let before = finished();
    wait_until("a run does not survive a store that lost everything", || {
        finished() >= before + STEP
    });
    fixture.services().0.kill();
    wait_until("nobody says that the broker is away", || run.stderr().contains("waiting: "));
    assert!(!run.has_ended() && !output.exists(), "{}", run.stderr());

    // Killed while it waits; begun again when the broker is back.
    run.signal("KILL");
    assert_eq!(run.end().code, None);
    let before = finished();
    fixture.services().0.restart().unwrap();
    let mut run = fixture.begin(&words);
    wait_until("the run is not gone on with after the broker", || finished() >= before + STEP);
    fixture.services().0.kill();
    fixture.services().1.restart().unwrap();
    fixture.services().0.restart().unwrap();
    wait_until("the run does not end", || run.has_ended());
    let ran = run.end();
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stderr.contains("going on: "), "{}", ran.stderr);

    assert_complete(&fixture, &model, &output);
    worker.terminate();
    worker.end();
    a_killed_submission_goes_on(&fixture, &model);
}

/// Killed while its job waits for a worker, and once more: it waits for the same job.
fn a_killed_submission_goes_on(fixture: &Fixture, model: &Example) {
    let [rows, results, note] =
        ["rows.bin", "results.bin", "results.bin.job"].map(|name| fixture.path(name));
    let (client, key) = (model.file("client.zip"), model.keys.join("evaluation.key"));
    let keys = ["--client", text(&client), "--keys", text(&model.keys)];
    let input = model.file("rows.csv");
    let encrypt = ["--input", text(&input), "--output", text(&rows)];
    fixture.json(0, &[&["encrypt"], &keys[..], &encrypt].concat());

    let words = ["submit", "--model", &model.model, "--evaluation-key", text(&key)];
    let words = [&words[..], &["--input", text(&rows), "--output", text(&results)]].concat();
    let job_of = |said: &str| said.split_once(" is job ").unwrap().1.trim().to_owned();
    let submitted = |ending: &str| {
        let run = fixture.begin(&words);
        wait_until("a job is not published", || run.stderr().contains(" is job "));
        assert!(note.exists() && fixture.refusal(&words).contains("is in use"));
        run.signal("KILL");
        let said = run.end().stderr;
        assert!(said.trim_end().ends_with(ending), "{said}");
        job_of(&said)
    };
    let job = submitted("");
    assert_eq!(submitted(" again"), format!("{job} again"));
    let run = fixture.begin(&words);
    let worker = fixture.worker(&model.folder);
    let ran = run.end();
    assert_eq!((ran.code, job_of(&ran.stderr)), (Some(0), format!("{job} again")));
    assert!(!note.exists());

    let [decrypted, alone] = ["decrypted.csv", "alone.csv"].map(|name| fixture.path(name));
    let decrypt = ["--input", text(&results), "--output", text(&decrypted)];
    fixture.json(0, &[&["decrypt"], &keys[..], &decrypt].concat());
    assert_eq!(fs::read(decrypted).unwrap(), fs::read(alone).unwrap());
    worker.terminate();
    worker.end();
}

/// The bulk engine's example, compiled here.
fn compiled(fixture: &Fixture) -> Example {
    let source = examples().join("breast_cancer_xgboost");
    let (folder, keys) = (fixture.path("compiled"), fixture.path("keys"));
    let (model, training) = (source.join("model.json"), source.join("training.csv"));
    let compile = ["compile", text(&model), "--calibration", text(&training)];
    fixture.json(0, &[&compile[..], &["--output", text(&folder)]].concat());
    let client = folder.join("client.zip");
    fixture.json(0, &["keygen", "--client", text(&client), "--keys", text(&keys)]);
    let inspected = fixture.json(0, &["inspect", text(&folder.join("server.zip"))]);
    let model = inspected[0]["model_id"].as_str().unwrap().to_owned();
    fs::copy(source.join("rows.csv"), folder.join("rows.csv")).unwrap();
    Example { folder, keys, model }
}

/// The example's rows over and over.
fn long_input(fixture: &Fixture, model: &Example) -> PathBuf {
    let rows = fs::read_to_string(model.file("rows.csv")).unwrap();
    let (header, rows) = rows.split_once('\n').unwrap();
    let path = fixture.path("many.csv");
    let many = rows.lines().cycle().take(ROWS).collect::<Vec<_>>().join("\n");
    fs::write(&path, format!("{header}\n{many}\n")).unwrap();
    path
}

/// As many lines as rows, and on each the scores that the same row has on this machine alone.
fn assert_complete(fixture: &Fixture, model: &Example, output: &Path) {
    let alone = fixture.path("alone.csv");
    let input = model.file("rows.csv");
    let words = ["predict", "--artifact", text(&model.folder), "--keys", text(&model.keys)];
    let files = ["--input", text(&input), "--output", text(&alone)];
    fixture.json(0, &[&words[..], &files].concat());
    let (alone, scores) = (fs::read_to_string(alone).unwrap(), fs::read_to_string(output).unwrap());
    let (alone, scores): (Vec<_>, Vec<_>) = (alone.lines().collect(), scores.lines().collect());
    assert_eq!((scores.len(), scores[0]), (ROWS + 1, alone[0]));
    for (row, (score, alone)) in scores[1..].iter().zip(alone[1..].iter().cycle()).enumerate() {
        assert_eq!(score, alone, "row {row}");
    }
}
