//! The annotated file, and what is refused.

use std::collections::BTreeSet;
use std::path::Path;

use cipherscore_common::config::load;

use super::*;

fn annotated() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/bridge.toml")
}

fn load_text(text: &str) -> Result<BridgeSettings, String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bridge.toml");
    std::fs::write(&file, text).unwrap();
    load(Some(&file), &[]).map_err(|error| error.to_string())
}

#[test]
fn the_annotated_file_says_the_defaults() {
    let settings: BridgeSettings = load(Some(&annotated()), &[]).unwrap();
    assert_eq!(format!("{settings:?}"), format!("{:?}", BridgeSettings::default()));
}

/// The keys of a section, as the error about an unknown one lists them.
fn known_keys(head: &str) -> BTreeSet<String> {
    let error = load_text(&format!("{head}\nsurely-unknown = 1")).unwrap_err();
    let (_, known) = error.split_once("known here are ").unwrap();
    let known = known.split("; ").next().unwrap();
    known.split(", ").map(str::to_owned).collect()
}

/// Keys without a default are there as comments, which parse when the sign is taken off.
#[test]
fn the_annotated_file_explains_exactly_the_keys_that_there_are() {
    let text = std::fs::read_to_string(annotated()).unwrap();
    let (mut head, mut explained, mut all) = (String::new(), BTreeSet::new(), String::new());
    for line in text.lines() {
        let bare = line.strip_prefix("# ").unwrap_or(line);
        let key = bare.split(" = ").next().unwrap_or_default();
        let is_key = key != bare && key.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        if bare.starts_with('[') && bare.ends_with(']') {
            head = bare.to_owned();
        } else if is_key {
            assert!(explained.insert(format!("{head} {key}")), "{key} is explained twice");
        } else {
            continue;
        }
        all.push_str(bare);
        all.push('\n');
    }
    let all = load_text(&all).unwrap();
    assert_eq!(all.models.len(), 1);
    // The others are explained in producer.toml, which is tested there.
    let own = ["bridge", "source", "http", "sink", "dead_letters", "owner", "events", "scores"];
    let heads = own.into_iter().chain(["health", "log", "[models]"]);
    let known = heads.flat_map(|section| {
        let head = format!("[{section}]");
        let keys = known_keys(&head).into_iter();
        keys.map(move |key| format!("{head} {key}"))
    });
    assert_eq!(explained, known.collect());
}

#[test]
fn no_more_is_prefetched_than_memory_holds() {
    let prefetch = |text: &str| load_text(text).unwrap().source_prefetch();
    assert_eq!(prefetch(""), 4096);
    assert_eq!(prefetch("[source]\nprefetch = 7"), 7);
    assert_eq!(prefetch("[bridge]\nmemory = '1MiB'\nmax_event_size = '512KiB'"), 2);
    assert_eq!(prefetch("[bridge]\nmemory = '1TiB'"), 10_000);
}

#[test]
fn values_of_the_wrong_form_are_refused() {
    for wrong in [
        "[source]\nkind = 'stdin'",
        "[source]\nprefetch = 0",
        "[source]\nkind = 'answer'",
        "[sink]\nkind = 'http'",
        "[http]\ntokens = ['secret']",
        "[http]\nwait = 30",
        "[bridge]\nwindow = 0",
        "[bridge]\nmemory = 'much'",
        "[scores]\nformat = 'cloud'",
        "[events]\nformat = 'csv'",
        "[[models]]\nname = 'a'",
        "[[models]]\nname = 'a'\nartifact = 'b'\nkeys = 'c'\nform = 'both'",
    ] {
        assert!(load_text(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn other_ends_are_as_the_source_wants_them() {
    let ends = |text: &str| {
        let settings = load_text(text).unwrap();
        (settings.sink_kind(), settings.dead_letters_kind())
    };
    assert_eq!(ends(""), (EndKind::Lines, EndKind::Lines));
    assert_eq!(ends("[source]\nkind = 'http'"), (EndKind::Answer, EndKind::Answer));
    let both = "[source]\nkind = 'http'\n[sink]\nkind = 'amqp'";
    assert_eq!(ends(both), (EndKind::Amqp, EndKind::Answer));
}
