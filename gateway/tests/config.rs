//! The annotated configuration file is what it says: every key, with its default.

use std::collections::BTreeSet;
use std::path::Path;

use cipherscore_common::config::load;
use cipherscore_gateway::config::GatewayConfig;

fn file() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/gateway.toml")
}

#[test]
fn the_file_holds_the_defaults() {
    let from_file: GatewayConfig = load(Some(&file()), &[]).unwrap();
    assert_eq!(format!("{from_file:?}"), format!("{:?}", GatewayConfig::default()));
}

/// Keys without a default are there as comments, which parse when the sign is taken off. Those of tables
/// whose keys are names are indented, and tried below.
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
    load::<GatewayConfig>(Some(&all), &[]).unwrap();

    let tables = ["tenants", "cml.models"];
    let sections = known("").into_iter().filter(|section| !tables.contains(&section.as_str()));
    let known: BTreeSet<_> = sections
        .flat_map(|section| {
            let prefix = format!("{section}.");
            known(&prefix).into_iter().map(move |key| prefix.clone() + &key)
        })
        .filter(|key| !tables.contains(&key.as_str()))
        .collect();
    assert_eq!(explained, known);
    let limits: BTreeSet<_> = self::known("limits.").into_iter().collect();
    assert_eq!(self::known("tenants.bank.").into_iter().collect::<BTreeSet<_>>(), limits);
}

/// The keys of a section, as the error about an unknown one lists them.
fn known(section: &str) -> Vec<String> {
    let key = format!("{section}unknown");
    let error = load::<GatewayConfig>(None, &[(key.as_str(), "1".to_owned())]).unwrap_err();
    let error = error.to_string();
    let (_, known) = error.split_once("known here are ").unwrap();
    known.split(", ").map(str::to_owned).collect()
}

#[test]
fn tenants_and_models_have_names() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gateway.toml");
    let id = "0".repeat(64);
    let text = format!(
        "[tenants.bank]\nrequests_per_second = 5000\n[cml.models]\nbreast-cancer = \"{id}\"\n"
    );
    std::fs::write(&file, text).unwrap();
    let config: GatewayConfig = load(Some(&file), &[]).unwrap();
    let bank = &config.tenants[&"bank".parse().unwrap()];
    assert_eq!(bank.requests_per_second.map(std::num::NonZero::get), Some(5000));
    assert_eq!(config.cml.models["breast-cancer"].to_string(), id);
}
