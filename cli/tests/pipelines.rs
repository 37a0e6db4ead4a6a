//! The tutorial of docs/pipelines.md, word by word: its commands in one shell, beside private services.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cipherscore_testbed::find_or_install;
use serde_json::Value;
use support::{Fixture, examples};

const DOCUMENT: &str = include_str!("../../docs/pipelines.md");

/// What is between the fences of shells.
fn commands() -> String {
    let blocks = DOCUMENT.split("\n```sh\n").skip(1);
    blocks.filter_map(|rest| rest.split("\n```").next()).collect::<Vec<_>>().join("\n")
}

fn find(program: &str) -> Option<PathBuf> {
    let path = Path::new("/usr/bin").join(program);
    path.is_file().then_some(path)
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
    let program = Path::new(usual.get_program()).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    // What a user types. With an end for what runs beside, if a command fails.
    let script =
        format!("set -e\ntrap 'kill $(jobs -p) 2> /dev/null || true' EXIT\n{}", commands());
    let mut shell = Command::new("bash");
    shell.args(["-c", &script]).current_dir(&folder).env("PATH", path).env("EXAMPLE", &example);
    shell.envs(usual.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let ran = fixture.start_command(shell).end();
    let log = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default();
    let said = || format!("{}\n{}\n{}", ran.stderr, log("worker.log"), log("bridge.log"));
    assert_eq!(ran.code, Some(0), "{}", said());

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
        assert!(ran.stdout.contains(&line), "{}", ran.stdout);
    }
    assert!(ran.stdout.contains("{\"ready\":true"), "{}", ran.stdout);
    assert!(log("bridge.log").contains("events scored, 1 dead letters"), "{}", log("bridge.log"));
}
