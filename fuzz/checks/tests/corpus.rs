//! Feeds every check with its seeds, and with what fuzzing found before.

// A test that cannot go on fails.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use cipherscore_fuzz_checks::{CHECKS, seeds};

/// Targets whose checks are where private parsers are, and whose inputs are replayed there.
const ELSEWHERE: [&str; 4] = ["recorder_answer", "recorder_object", "store_meta", "store_presence"];

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

#[test]
fn kept_inputs_are_survived() {
    for name in names(&folder("corpus")) {
        let Some((_, check)) = CHECKS.iter().find(|(target, _)| *target == name) else {
            assert!(ELSEWHERE.contains(&&*name), "there is no target named {name}");
            continue;
        };
        for file in fs::read_dir(folder("corpus").join(&name)).unwrap() {
            let path = file.unwrap().path();
            println!("{}", path.display());
            check(&fs::read(path).unwrap());
        }
    }
}

#[test]
fn seeds_are_survived_and_no_target_is_without() {
    let seeds = seeds::seeds().unwrap();
    for (target, check) in CHECKS {
        let inputs = seeds.get(target).unwrap_or_else(|| panic!("{target} has no seeds"));
        println!("{target}: {} seeds", inputs.len());
        inputs.iter().for_each(|input| check(input));
    }
    assert!(ELSEWHERE.iter().all(|target| seeds.contains_key(target)));
}

#[test]
fn every_check_has_its_target() {
    let checks = CHECKS.iter().map(|(name, _)| *name).chain(ELSEWHERE);
    let targets = names(&folder("fuzz_targets"));
    assert_eq!(targets, checks.map(str::to_owned).collect());
    let manifest = fs::read_to_string(folder("Cargo.toml")).unwrap();
    for target in &targets {
        assert!(manifest.contains(&format!("name = \"{target}\"")), "{target} is not built");
    }
}
