//! The annotated configuration file is what it says: every key, with its default.

use std::collections::BTreeSet;
use std::path::Path;

use cipherscore_common::config::load;
use cipherscore_worker::config::WorkerConfig;

fn file() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/worker.toml")
}

#[test]
fn the_file_holds_the_defaults() {
    let from_file: WorkerConfig = load(Some(&file()), &[]).unwrap();
    assert_eq!(format!("{from_file:?}"), format!("{:?}", WorkerConfig::default()));
}

/// Keys without a default are there as comments, which parse when the sign is taken off.
#[test]
fn the_file_explains_exactly_the_keys_that_there_are() {
    let text = std::fs::read_to_string(file()).unwrap();
    let mut section = String::new();
    let (mut explained, mut uncommented) = (BTreeSet::new(), String::new());
    for line in text.lines() {
        let bare = line.strip_prefix("# ").unwrap_or(line);
        let key = bare.split(" = ").next().unwrap_or_default();
        let is_key = key != bare && key.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        if line.starts_with('[') {
            section = line.trim_matches(['[', ']']).to_owned();
        } else if is_key {
            assert!(explained.insert(format!("{section}.{key}")), "{key} is explained twice");
        } else {
            continue;
        }
        uncommented.push_str(bare);
        uncommented.push('\n');
    }
    let folder = tempfile::tempdir().unwrap();
    let all = folder.path().join("all.toml");
    std::fs::write(&all, uncommented).unwrap();
    load::<WorkerConfig>(Some(&all), &[]).unwrap();

    let sections = known("");
    let known = sections.iter().flat_map(|section| {
        let prefix = format!("{section}.");
        known(&prefix).into_iter().map(move |key| prefix.clone() + &key)
    });
    assert_eq!(explained, known.collect());
}

/// Those that the chart does not set itself can be given to it, and no others.
#[test]
fn the_helm_chart_knows_exactly_the_keys_that_there_are() {
    let schema = file().with_file_name("../deploy/helm/cipherscore/values.schema.json");
    let schema: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(schema).unwrap()).unwrap();
    let by_the_chart = [
        ("worker", &["threads", "memory", "grace_period"][..]),
        ("models", &["folder"]),
        ("log", &[]),
    ];
    for (section, by_the_chart) in by_the_chart {
        let given = &schema["properties"]["config"]["properties"][section]["properties"];
        let given = given.as_object().unwrap().keys().map(String::as_str);
        let keys: BTreeSet<_> = given.chain(by_the_chart.iter().copied()).collect();
        let known = known(&format!("{section}."));
        assert_eq!(keys, known.iter().map(String::as_str).collect(), "{section}");
    }
}

/// The keys of a section, as the error about an unknown one lists them.
fn known(section: &str) -> Vec<String> {
    let key = format!("{section}unknown");
    let error = load::<WorkerConfig>(None, &[(key.as_str(), "1".to_owned())]).unwrap_err();
    let error = error.to_string();
    let (_, known) = error.split_once("known here are ").unwrap();
    known.split(", ").map(str::to_owned).collect()
}

#[test]
fn flags_may_be_of_every_kind() {
    let flags = [("worker.slots", "4"), ("worker.memory", "1GiB"), ("health.listen", "")];
    let flags = flags.map(|(key, value)| (key, value.to_owned()));
    let config: WorkerConfig = load(None, &flags).unwrap();
    assert_eq!(config.worker.slots.map(std::num::NonZero::get), Some(4));
    assert_eq!((config.worker.memory, config.health.listen), (bytesize::ByteSize::gib(1), None));
}

#[test]
fn unknown_keys_are_errors() {
    let flags = [("worker.sluts", "4".to_owned())];
    let error = load::<WorkerConfig>(None, &flags).unwrap_err().to_string();
    assert!(error.contains("sluts") && error.contains("slots"), "{error}");
    let flags = [("worker.memory", "much".to_owned())];
    let error = load::<WorkerConfig>(None, &flags).unwrap_err().to_string();
    assert!(error.contains("worker.memory"), "{error}");
}
