//! The tutorial of docs/pipelines.md, word by word: its commands in one shell, beside private services.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod support;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cipherscore_testbed::{Process, find_or_install};
use serde_json::Value;
use support::{Fixture, examples, own_address, text};

const DOCUMENT: &str = include_str!("../../docs/pipelines.md");
/// Where a bridge says how it is, in the document.
const DEFAULT_ADDRESS: &str = "127.0.0.1:8486";
/// Where it is asked for scores.
const DEFAULT_HTTP_ADDRESS: &str = "127.0.0.1:8487";
/// How long all of the document may take on a busy machine: it compiles a model, and makes keys.
const TUTORIAL_PATIENCE: Duration = Duration::from_secs(600);

/// What is between the fences of shells.
fn commands() -> String {
    let blocks = DOCUMENT.split("\n```sh\n").skip(1);
    blocks.filter_map(|rest| rest.split("\n```").next()).collect::<Vec<_>>().join("\n")
}

fn find(program: &str) -> Option<PathBuf> {
    let path = Path::new("/usr/bin").join(program);
    path.is_file().then_some(path)
}

/// A program `cipherscore` in this folder, which becomes the real one: worker and bridge listen at
/// these addresses, the last of which is that for scores.
fn write_program(programs: &Path, real: &OsStr, addresses: [SocketAddr; 3]) {
    let [worker, bridge, http] = addresses;
    fs::create_dir(programs).unwrap();
    let wrapper = format!(
        "#!/bin/sh\ncase $1 in\n\
         worker) export CIPHERSCORE_HEALTH__LISTEN={worker} ;;\n\
         bridge) export CIPHERSCORE_HEALTH__LISTEN={bridge} CIPHERSCORE_HTTP__LISTEN={http} ;;\n\
         esac\n\
         exec '{}' \"$@\"\n",
        real.display()
    );
    let program = programs.join("cipherscore");
    fs::write(&program, wrapper).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A score of the row of which this is what the library says.
fn assert_score(score: &Value, clear: &str) {
    let expected: Vec<f64> = clear.split(',').map(|cell| cell.parse().unwrap()).collect();
    let found: Vec<f64> = serde_json::from_value(score["probabilities"].clone()).unwrap();
    // Leaf values are rounded by the compiler.
    assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= 1e-3), "{score}");
    let label = if found[0] >= found[1] { "malignant" } else { "benign" };
    assert_eq!(score["label"], label);
}

#[test]
fn the_tutorial_is_what_it_says() {
    for (program, package) in [("amqp-publish", "amqp-tools"), ("curl", "curl")] {
        find_or_install(program, package, || find(program)).unwrap();
    }
    let (fixture, example) = (Fixture::start(), examples().join("breast_cancer_xgboost"));
    let folder = fixture.path("tutorial");
    fs::create_dir(&folder).unwrap();
    let usual = fixture.command::<&str>(&[]);
    // Worker and bridge listen where the machine has room. What runs is the program itself, so that
    // the document's signals reach it.
    let addresses @ [_, bridge, http] = [own_address(), own_address(), own_address()];
    let mut commands = commands();
    for (default, count, own) in [(DEFAULT_ADDRESS, 3, bridge), (DEFAULT_HTTP_ADDRESS, 2, http)] {
        assert_eq!(commands.matches(default).count(), count, "{commands}");
        commands = commands.replace(default, &own.to_string());
    }
    let programs = fixture.path("programs");
    write_program(&programs, usual.get_program(), addresses);
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let foreign = usual.get_envs().filter(|(_, value)| value.is_none());
    let foreign: Vec<_> = foreign.map(|(name, _)| name.to_str().unwrap()).collect();
    // What a user types, in an empty folder. It ends with this test, and so does all that it began.
    let script = format!(
        "set -e\nunset {}\ncd '{}'\n{{\n{commands}\n}} 2> stderr\n",
        foreign.join(" "),
        folder.display()
    );
    let ours =
        usual.get_envs().filter_map(|(name, value)| Some((name.to_str()?, value?.to_str()?)));
    let more = [("PATH", path.as_str()), ("EXAMPLE", text(&example))];
    let variables: Vec<_> = ours.chain(more).collect();
    let mut shell = Process::start(Path::new("/bin/bash"), &["-c", &script], &variables).unwrap();
    let begun = Instant::now();
    while !shell.has_ended() && begun.elapsed() < TUTORIAL_PATIENCE {
        std::thread::sleep(Duration::from_millis(50));
    }
    let log = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default();
    let (code, stdout) = (shell.exit_code(), shell.printed());
    let logs = ["stderr", "worker.log", "bridge.log", "http.log"].map(log).join("\n");
    fixture.assert_discreet(&format!("{stdout}{logs}"));
    assert_eq!(code, Some(0), "{stdout}\n{logs}");

    let clear = fs::read_to_string(example.join("clear.csv")).unwrap();
    let clear: Vec<_> = clear.lines().skip(1).collect();
    let mut ids = BTreeSet::new();
    for line in log("scores.jsonl").lines() {
        let score: Value = serde_json::from_str(line).unwrap();
        let id: usize = score["event"]["id"].as_str().unwrap().parse().unwrap();
        assert_score(&score, clear[id - 1]);
        ids.insert(id);
    }
    assert_eq!(ids, (1..=clear.len()).collect());
    let answers = log("answers.jsonl");
    assert_eq!(answers.lines().count(), clear.len());
    for (answer, clear) in answers.lines().zip(&clear) {
        assert_score(&serde_json::from_str(answer).unwrap(), clear);
    }
    let problem: Value = serde_json::from_str(&log("problem.json")).unwrap();
    assert_eq!((&problem["status"], &problem["code"]), (&422.into(), &"unreadable".into()));
    assert_eq!(log("dead.json"), "{\"id\": \"half\", \"mean_radius\": 17.99}");
    let counted = |outcome: &str, count: usize| {
        format!("cipherscore_bridge_events_total{{outcome=\"{outcome}\"}} {count}")
    };
    for line in [counted("scored", clear.len()), counted("unreadable", 1)] {
        assert!(stdout.contains(&line), "{stdout}");
    }
    assert!(stdout.contains("{\"ready\":true"), "{stdout}");
    assert!(log("bridge.log").contains("events scored, 1 dead letters"), "{}", log("bridge.log"));
}
