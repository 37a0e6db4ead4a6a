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
/// Where a bridge listens, in the document.
const DEFAULT_ADDRESS: &str = "127.0.0.1:8486";
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
/// these addresses.
fn write_program(programs: &Path, real: &OsStr, worker: SocketAddr, bridge: SocketAddr) {
    fs::create_dir(programs).unwrap();
    let wrapper = format!(
        "#!/bin/sh\ncase $1 in\n\
         worker) export CIPHERSCORE_HEALTH__LISTEN={worker} ;;\n\
         bridge) export CIPHERSCORE_HEALTH__LISTEN={bridge} ;;\nesac\n\
         exec '{}' \"$@\"\n",
        real.display()
    );
    let program = programs.join("cipherscore");
    fs::write(&program, wrapper).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
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
    let [worker, bridge] = [own_address(), own_address()];
    let commands = commands();
    assert_eq!(commands.matches(DEFAULT_ADDRESS).count(), 2, "{commands}");
    let commands = commands.replace(DEFAULT_ADDRESS, &bridge.to_string());
    let programs = fixture.path("programs");
    write_program(&programs, usual.get_program(), worker, bridge);
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
    let logs = ["stderr", "worker.log", "bridge.log"].map(log).join("\n");
    fixture.assert_discreet(&format!("{stdout}{logs}"));
    assert_eq!(code, Some(0), "{stdout}\n{logs}");

    let clear = fs::read_to_string(example.join("clear.csv")).unwrap();
    let clear: Vec<_> = clear.lines().skip(1).collect();
    let mut ids = BTreeSet::new();
    for line in log("scores.jsonl").lines() {
        let score: Value = serde_json::from_str(line).unwrap();
        let id: usize = score["event"]["id"].as_str().unwrap().parse().unwrap();
        let expected: Vec<f64> =
            clear[id - 1].split(',').map(|cell| cell.parse().unwrap()).collect();
        let found: Vec<f64> = serde_json::from_value(score["probabilities"].clone()).unwrap();
        // Leaf values are rounded by the compiler.
        assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= 1e-3), "{id}: {found:?}");
        let label = if found[0] >= found[1] { "malignant" } else { "benign" };
        assert_eq!(score["label"], label);
        ids.insert(id);
    }
    assert_eq!(ids, (1..=clear.len()).collect());
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
