//! Files that an earlier version wrote, opened as a user opens them: `testdata/frozen`.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cipherscore_common::EvaluationKeyId;
use cipherscore_common::message::Timestamp;
use cipherscore_producer::note::{Note, NoteFile};
use serde_json::Value;
use support::{Fixture, text};
use tempfile::TempDir;

const ENSEMBLE: &str = "231f1bfe0463c6df61c2de9e134a71f074554820b461af9cd3eb420078d427e4";
const ENSEMBLE_KEY: &str = "81a59e20a74cf1e579c336a37ea108035fb969148297778232330fb4ba93c354";
const LINEAR: &str = "702a24989b5bd47cd5f9354a8009abbd5667da41d43e6cbaaa226cdf1f81dfd7";
const SINGLE_ROWS: &str = "5105d8e2e25586a261a207b11a168a9f2d20d31cb3fe46fa903cfac0d595db56";
/// Exponentials differ in the last place between processors.
const RELATIVE_TOLERANCE: f64 = 1e-12;

fn path(name: &str) -> PathBuf {
    path_in("v0", name)
}

fn path_in(corpus: &str, name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/frozen").join(corpus).join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap()
}

/// Runs a command, and gives what it prints.
fn run(words: &[&str]) -> String {
    let program = env!("CARGO_BIN_EXE_cipherscore");
    let output = Command::new(program).args(words).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// Header and numbers of a table.
fn table(csv: &str) -> (String, Vec<Vec<f64>>) {
    let (header, lines) = csv.split_once('\n').unwrap();
    let numbers = |line: &str| line.split(',').map(|cell| cell.parse().unwrap()).collect();
    (header.to_owned(), lines.lines().map(numbers).collect())
}

fn assert_close(found: &str, expected: &str, what: &str) {
    let ((header, found), (expected_header, expected)) = (table(found), table(expected));
    assert_eq!((&header, found.len()), (&expected_header, expected.len()), "{what}");
    for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
        assert!((found - expected).abs() <= RELATIVE_TOLERANCE * expected.abs(), "{what}");
    }
}

/// A model of the folder, whose rows, keys and results are beside it.
struct Frozen {
    /// Where its keys, rows and results are.
    corpus: &'static str,
    name: &'static str,
    kind: &'static str,
    model_id: &'static str,
    rows: &'static [&'static str],
    results: &'static [&'static str],
    has_evaluation_key: bool,
}

const MODELS: [Frozen; 6] = [
    Frozen {
        corpus: "v1",
        name: "ensemble",
        kind: "server of a compiled model, ensemble",
        model_id: ENSEMBLE,
        rows: &["rows.bin"],
        results: &["results.bin"],
        has_evaluation_key: true,
    },
    Frozen {
        corpus: "v1",
        name: "linear",
        kind: "server of a compiled model, linear",
        model_id: LINEAR,
        rows: &["rows.bin"],
        results: &["results.bin"],
        has_evaluation_key: false,
    },
    Frozen {
        corpus: "v0",
        name: "ensemble",
        kind: "server of a compiled model, ensemble",
        model_id: ENSEMBLE,
        rows: &["rows.bin"],
        results: &["results.bin"],
        has_evaluation_key: true,
    },
    Frozen {
        corpus: "v0",
        name: "linear",
        kind: "server of a compiled model, linear",
        model_id: LINEAR,
        rows: &["rows.bin"],
        results: &["results.bin"],
        has_evaluation_key: false,
    },
    Frozen {
        corpus: "v0",
        name: "linear_circuit",
        kind: "server, imported",
        model_id: "2c7fc8cc9b8eba79bcd31a80e0079f42a94057d3d9061e129649bfd3620b272e",
        rows: &["row-0.bin"],
        results: &["result-0.bin"],
        has_evaluation_key: true,
    },
    Frozen {
        corpus: "v0",
        name: "circuit",
        kind: "server, imported",
        model_id: "17be587d0ef1c3ee0771905875971e9f4c8313a69ef51304e923bbccdda8e306",
        // Their evaluation key is too large to be kept.
        rows: &[],
        results: &["result-0.bin", "result-1.bin"],
        has_evaluation_key: false,
    },
];

impl Frozen {
    /// A file of its corpus, or the zips and scores of the first one, whose formats are the same.
    fn file(&self, file: &str) -> String {
        let [own, first] = [self.corpus, "v0"].map(|corpus| path_in(corpus, self.name).join(file));
        let is_shared = file.ends_with(".zip") || file.ends_with(".csv");
        text(if is_shared { &first } else { &own }).to_owned()
    }

    /// Decrypts results with the model's key, which for one of them is behind a passphrase.
    fn decrypt(&self, results: &[String], more: &[&str]) -> String {
        let (client, keys) = (self.file("client.zip"), self.file("keys"));
        let passphrase = self.file("passphrase");
        let mut words = vec!["decrypt", "--client", &client, "--keys", &keys, "--output", "-"];
        if Path::new(&passphrase).exists() {
            words.extend(["--passphrase-file", &passphrase]);
        }
        words.push("--input");
        words.extend(results.iter().map(String::as_str));
        words.extend(more);
        run(&words)
    }

    /// Has the rows evaluated anew, and gives the files of the results.
    fn evaluate(&self, folder: &TempDir) -> Vec<String> {
        let (server, key) = (self.file("server.zip"), self.file("keys/evaluation.key"));
        let rows: Vec<_> = self.rows.iter().map(|name| self.file(name)).collect();
        let results = self.results.iter().map(|name| folder.path().join(name));
        let results: Vec<_> = results.map(|path| text(&path).to_owned()).collect();
        let mut words = vec!["evaluate", "--server", &server, "--input"];
        words.extend(rows.iter().map(String::as_str));
        words.push("--output");
        words.extend(results.iter().map(String::as_str));
        if self.has_evaluation_key {
            words.extend(["--evaluation-key", &key]);
        }
        run(&words);
        results
    }
}

#[test]
fn zips_are_what_they_were() {
    for model in &MODELS {
        let shown = run(&["inspect", &model.file("server.zip"), "--json"]);
        let shown: Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(shown[0]["model_id"], model.model_id, "{shown}");
        assert_eq!(shown[0]["kind"], model.kind, "{shown}");
    }
}

#[test]
fn results_decrypt_to_what_they_did() {
    for model in &MODELS {
        let results: Vec<_> = model.results.iter().map(|name| model.file(name)).collect();
        let integers = model.decrypt(&results, &["--integers"]);
        assert_eq!(
            integers,
            fs::read_to_string(model.file("integers.csv")).unwrap(),
            "{}",
            model.name
        );
        let scores = model.decrypt(&results, &[]);
        let expected = fs::read_to_string(model.file("scores.csv")).unwrap();
        assert_close(&scores, &expected, model.name);
    }
}

#[test]
fn rows_evaluate_to_what_they_did() {
    for model in MODELS.iter().filter(|model| !model.rows.is_empty()) {
        let folder = TempDir::new().unwrap();
        let results = model.evaluate(&folder);
        let integers = model.decrypt(&results, &["--integers"]);
        assert_eq!(
            integers,
            fs::read_to_string(model.file("integers.csv")).unwrap(),
            "{}",
            model.name
        );
    }
}

/// A copy of the keys of the model of both forms: what is decrypted is counted beside them.
fn keys_for_single_rows(folder: &TempDir) -> PathBuf {
    let keys = folder.path().join("keys");
    fs::create_dir(&keys).unwrap();
    for file in ["client.key", "keys.json", "rows.state", "rows.uploads"] {
        fs::copy(single_rows("keys").join(file), keys.join(file)).unwrap();
    }
    keys
}

fn single_rows(file: &str) -> PathBuf {
    path_in("v2", "single_rows").join(file)
}

/// Zips of both forms, keys with a section for each, the log of the keys, and a reply that it knows.
#[test]
fn single_rows_decrypt_to_what_they_did() {
    let folder = TempDir::new().unwrap();
    let keys = keys_for_single_rows(&folder);
    let (client, results) = (single_rows("client.zip"), single_rows("results.bin"));
    let decrypted = |more: &[&str]| {
        let words = ["decrypt", "--client", text(&client), "--keys", text(&keys), "--output", "-"];
        run(&[&words[..], &["--input", text(&results)], more].concat())
    };
    let expected = |name: &str| fs::read_to_string(single_rows(name)).unwrap();
    assert_eq!(decrypted(&["--integers"]), expected("integers.csv"));
    assert_close(&decrypted(&[]), &expected("scores.csv"), "single rows");

    let shown = run(&["inspect", text(&single_rows("server.zip")), "--json"]);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    let forms: Vec<_> = shown.as_array().unwrap().iter().map(|it| &it["model_id"]).collect();
    assert_eq!(forms, [SINGLE_ROWS; 2]);
    // Keys of old encrypt what is new.
    let (rows, output) = (single_rows("rows.csv"), folder.path().join("rows.bin"));
    let words = ["encrypt", "--client", text(&client), "--keys", text(&keys), "--form", "rows"];
    run(&[&words[..], &["--input", text(&rows), "--output", text(&output)]].concat());
    let bytes = |path: &Path| fs::metadata(path).unwrap().len();
    assert_eq!(bytes(&output), bytes(&single_rows("rows.bin")));
}

#[test]
fn values_of_a_function_decrypt_to_what_they_did() {
    let file = |name: &str| text(&path("function").join(name)).to_owned();
    let folder = TempDir::new().unwrap();
    let output = |name: &str| text(&folder.path().join(name)).to_owned();
    let (weights, bias) = (output("weights.csv"), output("bias.csv"));
    run(&[
        "decrypt",
        "--client",
        &file("client.zip"),
        "--keys",
        &file("keys"),
        "--input",
        &file("trained_weights.bin"),
        &file("trained_bias.bin"),
        "--output",
        &weights,
        &bias,
    ]);
    assert_eq!(fs::read_to_string(weights).unwrap(), read("function/trained_weights.csv"));
    assert_eq!(fs::read_to_string(bias).unwrap(), read("function/trained_bias.csv"));
}

#[test]
fn the_note_of_a_submission_is_found() {
    let folder = TempDir::new().unwrap();
    fs::copy(path("submit.job"), folder.path().join("results.bin.job")).unwrap();
    let note = NoteFile::open(&folder.path().join("results.bin")).unwrap();
    let expected = Note {
        job: "01a22bef-a522-72b6-84cd-cf5f579f9b1e".parse().unwrap(),
        model_id: ENSEMBLE.parse().unwrap(),
        key_id: Some(EvaluationKeyId::new(ENSEMBLE_KEY.parse().unwrap())),
        owner_id: None,
        tenant: "default".parse().unwrap(),
        payload_sha256: "f8443aec16b2ce55174cdcf33c958ab4fec009bdf112e2df323eda16cc2afe82"
            .parse()
            .unwrap(),
        client: "producer-35a127254943".to_owned(),
        deadline_ms: 2_111_393_455_394,
    };
    assert_eq!(note.found(Timestamp::from_millis(expected.deadline_ms - 1)), Some(&expected));
}

#[test]
fn the_note_of_a_submission_names_the_owner() {
    let folder = TempDir::new().unwrap();
    fs::copy(path_in("v1", "submit.job"), folder.path().join("results.bin.job")).unwrap();
    let note = NoteFile::open(&folder.path().join("results.bin")).unwrap();
    let expected = Note {
        job: "01a22d03-42e0-7647-ac16-f5b53308afc9".parse().unwrap(),
        model_id: ENSEMBLE.parse().unwrap(),
        key_id: Some(
            "af5f9b272883fd307e4c3eb3ff8a848e0b24fcd08e429bcfa780480a14e5bbc5".parse().unwrap(),
        ),
        owner_id: Some("c646aec53ef11e56f74754594025651b".parse().unwrap()),
        tenant: "default".parse().unwrap(),
        payload_sha256: "916126d264d7552b069527cff05492d13d2604794499fc9183cdb1bde71cf674"
            .parse()
            .unwrap(),
        client: "producer-24f40eb52b3a".to_owned(),
        deadline_ms: 2_111_411_518_176,
    };
    assert_eq!(note.found(Timestamp::from_millis(expected.deadline_ms - 1)), Some(&expected));
}

/// Two parts have results; the third failed, and is published anew.
#[test]
fn a_run_goes_on_from_its_ledger() {
    let fixture = Fixture::start_anywhere();
    let models = fixture.path("models");
    fs::create_dir(&models).unwrap();
    fs::copy(path("ensemble/server.zip"), models.join("ensemble.zip")).unwrap();
    let _worker = fixture.worker(&models);
    let (output, ledger) = (fixture.path("scores.csv"), fixture.path("scores.csv.ledger"));
    fs::create_dir(&ledger).unwrap();
    for file in ["jobs.jsonl", "results.bin"] {
        fs::copy(path("score.ledger").join(file), ledger.join(file)).unwrap();
    }
    let (artifact, keys, rows) =
        (path("ensemble"), path("ensemble/keys"), path("ensemble/rows.csv"));
    let report = fixture.json(
        0,
        &[
            "score",
            "--artifact",
            text(&artifact),
            "--keys",
            text(&keys),
            "--input",
            text(&rows),
            "--output",
            text(&output),
        ],
    );
    assert_eq!(report["rows_scored_before"], 4, "{report}");
    assert_eq!(report["rows_per_job"], 2, "{report}");
    assert_eq!(report["jobs_published"], 1, "{report}");
    assert_eq!(fs::read_to_string(output).unwrap(), read("ensemble/scores.csv"));
    assert!(!ledger.exists());
}
