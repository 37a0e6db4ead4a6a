//! Which crate may be built from which: one table, from the bottom up.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::Value;

/// A crate of this workspace.
struct Layer {
    name: &'static str,
    /// Crates of this workspace that it may name as dependencies. Each is above it in the table.
    uses: &'static [&'static str],
    /// Crates that it must not be built from, however far down.
    free_of: &'static [&'static str],
}

/// What mathematics does without: network and async runtime.
const NETWORK: &[&str] = &["tokio", "lapin", "redis", "socket2"];
/// What a leaf does without, since everything is built from it.
const LEAF: &[&str] = &["tfhe", "tokio", "lapin", "redis", "socket2"];
/// Lattice arithmetic.
const LATTICES: &[&str] = &["tfhe"];
/// Places where tests end the process.
const FAIL_POINTS: &[&str] = &["fail"];
/// Besides, what is shipped neither starts nor installs servers.
const SHIPPED: &[&str] = &["fail", "cipherscore-testbed"];

/// The extension module of the Python package, which nothing may depend on.
const PYTHON_MODULE: &str = "cipherscore-python";

/// The door of artifacts and their engines.
const ARTIFACT: &str = "cipherscore-artifact";
/// The feature of [`ARTIFACT`] that brings an engine that encrypts nothing.
const CLEAR: &str = "clear";
/// What is released, and so built without [`CLEAR`].
const RELEASED: &[&str] = &["cipherscore", "cipherscore-worker", PYTHON_MODULE];

/// A new crate gets a line below all that it uses.
const LAYERS: &[Layer] = &[
    // What an id is, and nothing of what has one.
    Layer { name: "cipherscore-ids", uses: &[], free_of: LEAF },
    // Mathematics, bytes to bytes.
    Layer { name: "cipherscore-engine", uses: &["cipherscore-ids"], free_of: NETWORK },
    Layer { name: "cipherscore-compiler", uses: &["cipherscore-engine"], free_of: NETWORK },
    Layer {
        name: "cipherscore-concrete",
        uses: &["cipherscore-engine", "cipherscore-ids"],
        free_of: NETWORK,
    },
    // The one door of artifacts, whatever their engine.
    Layer {
        name: ARTIFACT,
        uses: &["cipherscore-concrete", "cipherscore-engine", "cipherscore-ids"],
        free_of: NETWORK,
    },
    // What two processes agree on: it builds without any mathematics.
    Layer { name: "cipherscore-common", uses: &["cipherscore-ids"], free_of: LATTICES },
    // Starts servers, for tests.
    Layer { name: "cipherscore-testbed", uses: &[], free_of: LATTICES },
    Layer {
        name: "cipherscore-producer",
        uses: &[
            "cipherscore-artifact",
            "cipherscore-common",
            "cipherscore-concrete",
            "cipherscore-engine",
            "cipherscore-ids",
        ],
        free_of: SHIPPED,
    },
    // Knows no secrets and no trained models.
    Layer {
        name: "cipherscore-worker",
        uses: &[
            "cipherscore-artifact",
            "cipherscore-common",
            "cipherscore-concrete",
            "cipherscore-engine",
            "cipherscore-ids",
        ],
        free_of: SHIPPED,
    },
    // Sees ciphertexts only: it builds without any mathematics.
    Layer {
        name: "cipherscore-gateway",
        uses: &["cipherscore-common"],
        free_of: &["fail", "cipherscore-testbed", "tfhe"],
    },
    Layer {
        name: "cipherscore",
        uses: &[
            "cipherscore-artifact",
            "cipherscore-common",
            "cipherscore-compiler",
            "cipherscore-concrete",
            "cipherscore-engine",
            "cipherscore-gateway",
            "cipherscore-producer",
            "cipherscore-worker",
        ],
        free_of: SHIPPED,
    },
    // What is loaded into an interpreter: no worker, no command line.
    Layer {
        name: PYTHON_MODULE,
        uses: &[
            "cipherscore-artifact",
            "cipherscore-common",
            "cipherscore-compiler",
            "cipherscore-concrete",
            "cipherscore-engine",
            "cipherscore-producer",
        ],
        free_of: SHIPPED,
    },
    // What checks and measures the rest.
    Layer {
        name: "cipherscore-fuzz-checks",
        uses: &[
            "cipherscore-common",
            "cipherscore-compiler",
            "cipherscore-concrete",
            "cipherscore-engine",
        ],
        free_of: FAIL_POINTS,
    },
    Layer {
        name: "cipherscore-bench",
        uses: &[
            "cipherscore-artifact",
            "cipherscore-common",
            "cipherscore-compiler",
            "cipherscore-concrete",
            "cipherscore-engine",
            "cipherscore-producer",
            "cipherscore-testbed",
        ],
        free_of: FAIL_POINTS,
    },
    Layer {
        name: "cipherscore-chaos",
        uses: &[
            "cipherscore-artifact",
            "cipherscore-common",
            "cipherscore-concrete",
            "cipherscore-engine",
            "cipherscore-producer",
            "cipherscore-testbed",
            "cipherscore-worker",
        ],
        free_of: &[],
    },
    Layer { name: "xtask", uses: &["cipherscore-testbed"], free_of: LATTICES },
];

/// Checks the workspace against the table, and prints it.
pub(crate) fn check(root: &Path) -> anyhow::Result<()> {
    let found = direct_dependencies(root)?;
    let listed: BTreeSet<_> = LAYERS.iter().map(|layer| layer.name).collect();
    for name in found.keys() {
        ensure!(listed.contains(name.as_str()), "{name} has no line in xtask/src/layers.rs");
    }
    for Layer { name, uses, free_of } in LAYERS {
        let direct = found.get(*name).with_context(|| format!("there is no crate {name}"))?;
        for used in direct.iter().filter(|used| listed.contains(used.as_str())) {
            ensure!(
                uses.contains(&used.as_str()),
                "{name} must not depend on {used}; what it may is in xtask/src/layers.rs"
            );
        }
        let all = tree(root, &["--edges", "normal", "--package", name])?;
        ensure!(all.contains(*name), "cargo tree does not show {name}");
        for forbidden in *free_of {
            ensure!(!all.contains(*forbidden), "{name} must not be built from {forbidden}");
        }
    }
    for package in RELEASED {
        let features = features(root, package, ARTIFACT)?;
        ensure!(!features.contains(CLEAR), "{package} must not have {ARTIFACT} with {CLEAR}");
    }
    let dependants = tree(root, &["--workspace", "--edges", "all", "--invert", PYTHON_MODULE])?;
    ensure!(dependants.len() == 1, "nothing may depend on {PYTHON_MODULE}: {dependants:?}");
    print!("{}", table());
    Ok(())
}

/// The layers, a line for each.
fn table() -> String {
    let short = |name: &str| name.trim_start_matches("cipherscore-").to_owned();
    let list = |names: &[&str]| match names {
        [] => "nothing of ours".to_owned(),
        _ => names.iter().map(|name| short(name)).collect::<Vec<_>>().join(", "),
    };
    let line = |layer: &Layer| {
        let without = match layer.free_of {
            [] => String::new(),
            names => format!("; without {}", list(names)),
        };
        format!("{:14}{}{without}\n", short(layer.name), list(layer.uses))
    };
    LAYERS.iter().map(line).collect()
}

/// The crates of the workspace, and what each names as dependencies; not those of its tests.
fn direct_dependencies(root: &Path) -> anyhow::Result<BTreeMap<String, BTreeSet<String>>> {
    let arguments = ["metadata", "--format-version", "1", "--no-deps", "--locked"];
    let output = Command::new(env!("CARGO")).current_dir(root).args(arguments).output()?;
    ensure!(output.status.success(), "cargo metadata: {}", said(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().context("cargo metadata: no packages")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let dependencies = |package: &Value| {
        let all = package["dependencies"].as_array().into_iter().flatten();
        all.filter(|one| one["kind"] != "dev").map(|one| text(&one["name"])).collect()
    };
    Ok(packages.iter().map(|package| (text(&package["name"]), dependencies(package))).collect())
}

/// Features with which a package is built from one of its dependencies.
fn features(root: &Path, package: &str, dependency: &str) -> anyhow::Result<BTreeSet<String>> {
    let format = ["--format", "{p}\t{f}", "--edges", "normal", "--package", package];
    let lines = tree_lines(root, &format)?;
    let is_it = |line: &&String| line.split(' ').next() == Some(dependency);
    let line = lines.iter().find(is_it);
    let line = line.with_context(|| format!("cargo tree shows no {dependency} of {package}"))?;
    let features = line.split('\t').nth(1).unwrap_or_default();
    Ok(features.split([',', ' ']).map(str::to_owned).collect())
}

/// Names that `cargo tree` prints, with the package that was asked for.
fn tree(root: &Path, arguments: &[&str]) -> anyhow::Result<BTreeSet<String>> {
    let lines = tree_lines(root, arguments)?;
    Ok(lines.iter().filter_map(|line| line.split(' ').next().map(str::to_owned)).collect())
}

/// What `cargo tree` prints, without indentation.
fn tree_lines(root: &Path, arguments: &[&str]) -> anyhow::Result<Vec<String>> {
    let output = Command::new(env!("CARGO"))
        .current_dir(root)
        .args(["tree", "--locked", "--prefix", "none"])
        .args(arguments)
        .output()?;
    ensure!(output.status.success(), "cargo tree: {}", said(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect())
}

fn said(stderr: &[u8]) -> String {
    String::from_utf8_lossy(stderr).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_use_only_what_is_below_them() {
        let mut below = BTreeSet::new();
        for layer in LAYERS {
            for used in layer.uses {
                assert!(below.contains(used), "{} uses {used}", layer.name);
            }
            assert!(below.insert(layer.name), "{} is there twice", layer.name);
        }
    }

    #[test]
    fn the_table_says_what_is_used_and_what_is_not() {
        let table = table();
        assert_eq!(table.lines().count(), LAYERS.len());
        let compiler = "compiler      engine; without tokio, lapin, redis, socket2";
        assert!(table.lines().any(|line| line == compiler), "{table}");
    }
}
