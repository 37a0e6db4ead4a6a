//! The table of versions in `docs/formats.md` is what the code writes, and what it wrote.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use cipherscore_common::message::ProtocolVersion;
use cipherscore_engine::artifact::{ARTIFACT_FORMAT_VERSION, Archive};
use cipherscore_engine::circuit::CIRCUIT_FORMAT_VERSION;
use serde_json::Value;

const FORMATS: &str = include_str!("../../docs/formats.md");

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn frozen(path: &str) -> Vec<u8> {
    frozen_in("v0", path)
}

fn frozen_in(corpus: &str, path: &str) -> Vec<u8> {
    fs::read(root("testdata/frozen").join(corpus).join(path)).unwrap()
}

/// A line of the table: what begins a file, its version, and the one before it that is read as
/// well; nothing where there is none.
struct Row {
    first_bytes: Option<&'static str>,
    version: Option<u32>,
    older: Option<u32>,
}

fn table() -> BTreeMap<&'static str, Row> {
    let section = FORMATS.split_once("\n## Versions\n").unwrap().1.split_once("\n## ").unwrap().0;
    let rows = section.lines().filter_map(|line| line.strip_prefix("| "));
    let rows = rows.map(|row| row.split(" | ").collect::<Vec<_>>()).skip(1);
    rows.map(|cells| {
        let first_bytes = cells[1].strip_prefix('`').and_then(|cell| cell.split_once('`'));
        let version = cells[2].split(' ').next().unwrap().parse().ok();
        let older = cells[2].split_once("; ").map(|(_, older)| older.strip_suffix(" is read"));
        let older = older.map(|older| older.unwrap().parse().unwrap());
        (cells[0], Row { first_bytes: first_bytes.map(|(bytes, _)| bytes), version, older })
    })
    .collect()
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => sources(&path, found),
            false if path.extension().is_some_and(|end| end == "rs") => found.push(path),
            false => {}
        }
    }
}

/// What is written as `b"CS..."` in the code, up to the first byte that is no character.
fn magics_of_the_code() -> BTreeSet<String> {
    let mut files = Vec::new();
    for entry in fs::read_dir(root("")).unwrap() {
        let source = entry.unwrap().path().join("src");
        if source.is_dir() {
            sources(&source, &mut files);
        }
    }
    let mut magics = BTreeSet::new();
    for file in files {
        let text = fs::read_to_string(file).unwrap();
        for (start, _) in text.match_indices("b\"CS") {
            let rest = &text[start + 2..];
            magics.insert(rest[..rest.find(['"', '\\']).unwrap()].to_owned());
        }
    }
    magics
}

#[test]
fn every_magic_of_the_code_has_a_line() {
    let table = table();
    let documented = table.values().filter_map(|row| row.first_bytes);
    let documented: BTreeSet<_> =
        documented.filter(|bytes| bytes.starts_with("CS")).map(str::to_owned).collect();
    assert_eq!(documented, magics_of_the_code());
}

#[test]
fn versions_are_those_of_the_code() {
    let table = table();
    let version = |what: &str| table[what].version.unwrap();
    assert_eq!(version("`circuit.bin`"), u32::from(CIRCUIT_FORMAT_VERSION));
    assert_eq!(version("`model.json` of a zip"), ARTIFACT_FORMAT_VERSION);
    let newest = ProtocolVersion::default();
    assert_eq!(version("body of a message"), u32::from(newest.number()));
    let older = newest.older().map(|older| u32::from(older.number()));
    assert_eq!(table["body of a message"].older, older);
}

/// Magic and version stand where the table and the sections below it say.
#[test]
fn versions_are_those_of_what_was_written() {
    let table = table();
    let zip =
        |path: &str, name: &str| Archive::read(&frozen(path)).unwrap().get(name).unwrap().to_vec();
    let framed = [
        ("`circuit.bin`", zip("circuit/server.zip", "circuit.bin"), 8),
        ("`program.bin`", zip("ensemble/server.zip", "program.bin"), 8),
        ("evaluation key of the bulk engine", frozen("ensemble/keys/evaluation.key"), 8),
        ("client key of the bulk engine", frozen("ensemble/keys/client.key"), 8),
        ("file of rows", frozen("ensemble/rows.bin"), 7),
        ("file of rows", frozen("linear/results.bin"), 7),
        ("body of a message", frozen("message/job.body"), 0),
        ("body of a message", frozen("message/reply.body"), 0),
    ];
    for (what, bytes, version_at) in framed {
        let row = &table[what];
        assert!(bytes.starts_with(row.first_bytes.unwrap_or_default().as_bytes()), "{what}");
        assert_eq!(Some(bytes[version_at].into()), row.older.or(row.version), "{what}");
    }
    let newer = [
        ("evaluation key of the bulk engine", "ensemble/keys/evaluation.key", 8),
        ("client key of the bulk engine", "ensemble/keys/client.key", 8),
        ("client key of the bulk engine", "linear/keys/client.key", 8),
        ("file of rows", "ensemble/rows.bin", 7),
        ("file of rows", "linear/results.bin", 7),
        ("body of a message", "message/job.body", 0),
        ("body of a message", "message/reply.body", 0),
    ];
    for (what, path, version_at) in newer {
        let (row, bytes) = (&table[what], frozen_in("v1", path));
        assert!(bytes.starts_with(row.first_bytes.unwrap_or_default().as_bytes()), "{what}");
        assert_eq!(Some(bytes[version_at].into()), row.version, "{what}");
        assert!(row.older.is_some(), "{what}");
    }
    let age = &table["client key with a passphrase"];
    assert!(frozen("linear/keys/client.key").starts_with(age.first_bytes.unwrap().as_bytes()));

    let store: BTreeMap<String, Value> = serde_json::from_slice(&frozen("store.json")).unwrap();
    let meta = store.iter().find(|(name, _)| name.ends_with(":meta")).unwrap().1;
    let ledger = String::from_utf8(frozen("score.ledger/jobs.jsonl")).unwrap();
    let documents = [
        ("`model.json` of a zip", zip("circuit/server.zip", "model.json")),
        ("`model.json` of a zip", zip("linear/client.zip", "model.json")),
        ("`model.json` of a zip", frozen("ensemble/model.json")),
        ("meta key of the store", meta["text"].as_str().unwrap().into()),
        ("ledger of `score`", ledger.lines().next().unwrap().into()),
    ];
    for (what, json) in documents {
        let document: Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(
            document["format_version"].as_u64(),
            table[what].version.map(u64::from),
            "{what}"
        );
    }
}
