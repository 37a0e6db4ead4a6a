//! Development tasks: `cargo xtask test`, `cargo xtask python`, `cargo xtask check`, `cargo xtask
//! chaos`, `cargo xtask fuzz`, `cargo xtask services`.

mod fuzz;
mod glossary;
mod python;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, bail, ensure};
use cipherscore_testbed::{RabbitMq, Redis};

const USAGE: &str = "\
usage: cargo xtask TASK

  test [ARGUMENTS]   all tests, on the one optimised profile, and those of the Python package; with
                     ARGUMENTS, which go to cargo test, only what they choose
  python [ARGUMENTS] build the wheel, install it into a private virtual environment (target/python)
                     and run the tests of the Python package; ARGUMENTS go to pytest
  check              dependency direction, where unsafe code may be, and public names
  chaos [ARGUMENTS]  break workers, broker, store and network under load, check every reply, and
                     print the figures: --jobs N --minutes M --seed S, --help for all
  fuzz [TARGET] [--seconds N]
                     every fuzz target, or one, for N seconds each (60); needs cargo-fuzz
  services COMMAND   run a command beside a private RabbitMQ and Redis, whose URLs it finds in
                     CIPHERSCORE_BROKER__URL and CIPHERSCORE_STORE__URL (workers), and in
                     CIPHERSCORE_BROKER_URL and CIPHERSCORE_REDIS_URL (the other commands)";

/// The extension module of the Python package, which nothing may depend on.
const PYTHON_MODULE: &str = "cipherscore-python";

/// What a crate must not depend on, directly or not.
const FORBIDDEN: &[(&str, &[&str])] = &[
    // A leaf, which both of the rooms that do not know each other know.
    (
        "cipherscore-ids",
        &[
            "tfhe",
            "tokio",
            "cipherscore-common",
            "cipherscore-engine",
            "cipherscore-compiler",
            "cipherscore-concrete",
            "cipherscore-producer",
            "cipherscore-worker",
            "cipherscore-testbed",
            "cipherscore",
        ],
    ),
    // What two processes agree on: it builds without any mathematics.
    (
        "cipherscore-common",
        &[
            "tfhe",
            "cipherscore-engine",
            "cipherscore-compiler",
            "cipherscore-concrete",
            "cipherscore-producer",
            "cipherscore-worker",
            "cipherscore-testbed",
            "cipherscore",
        ],
    ),
    // Mathematics, bytes to bytes: no network, no async runtime, no other room.
    (
        "cipherscore-engine",
        &[
            "tokio",
            "lapin",
            "redis",
            "socket2",
            "cipherscore-common",
            "cipherscore-compiler",
            "cipherscore-concrete",
            "cipherscore-producer",
            "cipherscore-worker",
            "cipherscore-testbed",
            "cipherscore",
        ],
    ),
    (
        "cipherscore-compiler",
        &[
            "tokio",
            "lapin",
            "redis",
            "socket2",
            "cipherscore-common",
            "cipherscore-concrete",
            "cipherscore-producer",
            "cipherscore-worker",
            "cipherscore-testbed",
            "cipherscore",
        ],
    ),
    (
        "cipherscore-concrete",
        &[
            "tokio",
            "lapin",
            "redis",
            "socket2",
            "cipherscore-common",
            "cipherscore-compiler",
            "cipherscore-producer",
            "cipherscore-worker",
            "cipherscore-testbed",
            "cipherscore",
        ],
    ),
    (
        "cipherscore-producer",
        &["cipherscore-compiler", "cipherscore-worker", "cipherscore-testbed", "cipherscore"],
    ),
    // A worker knows no secrets and no trained models, and holds nothing that starts or installs
    // servers.
    (
        "cipherscore-worker",
        &[
            "cipherscore-compiler",
            "cipherscore-producer",
            "cipherscore-testbed",
            "cipherscore",
            // Places where tests end the process.
            "fail",
        ],
    ),
    ("cipherscore", &["cipherscore-chaos", "fail"]),
    // What is loaded into an interpreter: no worker, no command line, and nothing that starts or
    // installs servers.
    (
        PYTHON_MODULE,
        &[
            "cipherscore-worker",
            "cipherscore-testbed",
            "cipherscore-chaos",
            "cipherscore-bench",
            "cipherscore",
            "fail",
        ],
    ),
    ("cipherscore-testbed", &["tfhe", "cipherscore-common", "cipherscore"]),
];

/// The only folders whose modules may allow unsafe code.
const UNSAFE_ALLOWED: &[&str] = &["concrete/src/recorder/", "engine/src/bulk/kernel/"];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.split_first() {
        Some((task, rest)) if task == "test" => test(rest),
        Some((task, rest)) if task == "python" => python::test(&root(), rest),
        Some((task, [])) if task == "check" => check(),
        Some((task, rest)) if task == "fuzz" => fuzz::fuzz(&root(), rest),
        Some((task, rest)) if task == "chaos" => chaos(rest),
        Some((task, [program, rest @ ..])) if task == "services" => services(program, rest),
        _ => Err(anyhow::anyhow!("{USAGE}")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn test(arguments: &[String]) -> anyhow::Result<()> {
    // One run names all that fails.
    let status = Command::new(env!("CARGO"))
        .current_dir(root())
        .args(["test", "--release", "--workspace", "--locked", "--no-fail-fast"])
        .args(arguments)
        .status()?;
    let python = if arguments.is_empty() { python::test(&root(), &[]) } else { Ok(()) };
    ensure!(status.success(), "tests failed");
    python
}

fn chaos(arguments: &[String]) -> anyhow::Result<()> {
    let status = Command::new(env!("CARGO"))
        .current_dir(root())
        .args(["run", "--release", "--locked", "--package", "cipherscore-chaos", "--", "run"])
        .args(arguments)
        .status()?;
    ensure!(status.success(), "something was lost, answered twice or wrong, or could not be run");
    Ok(())
}

fn services(program: &str, arguments: &[String]) -> anyhow::Result<()> {
    beside_services(Command::new(program).args(arguments))
}

/// Runs a command with the URLs of a private RabbitMQ and Redis in its environment.
fn beside_services(command: &mut Command) -> anyhow::Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let (redis, rabbitmq) = (Redis::start()?, RabbitMq::start()?);
    let status = command
        .envs([
            ("CIPHERSCORE_BROKER__URL", rabbitmq.url()),
            ("CIPHERSCORE_BROKER_URL", rabbitmq.url()),
            ("CIPHERSCORE_STORE__URL", redis.url()),
            ("CIPHERSCORE_REDIS_URL", redis.url()),
        ])
        .status()
        .with_context(|| program.clone())?;
    ensure!(status.success(), "{program} ended with {status}");
    Ok(())
}

fn check() -> anyhow::Result<()> {
    for (package, forbidden) in FORBIDDEN {
        let found = dependencies(package)?;
        ensure!(found.len() > 1, "cargo tree shows no dependencies of {package}");
        for name in *forbidden {
            ensure!(!found.contains(*name), "{package} must not depend on {name}");
        }
    }
    let dependants = tree(&["--workspace", "--edges", "all", "--invert", PYTHON_MODULE])?;
    ensure!(dependants.len() == 1, "nothing may depend on {PYTHON_MODULE}: {dependants:?}");
    let mut sources = Vec::new();
    collect_sources(&root(), &mut sources)?;
    glossary::check(&root(), &sources)?;
    for source in sources {
        let text = std::fs::read_to_string(&source)?;
        let name = source.strip_prefix(root())?.to_string_lossy().into_owned();
        let allows = text.lines().any(|line| line.contains("allow(unsafe_code"));
        if allows && !UNSAFE_ALLOWED.iter().any(|folder| name.starts_with(folder)) {
            bail!("{name} allows unsafe code; only {UNSAFE_ALLOWED:?} may");
        }
    }
    println!("dependency direction, unsafe code and public names: as they should be");
    Ok(())
}

/// Names of all crates that a package is built from.
fn dependencies(package: &str) -> anyhow::Result<BTreeSet<String>> {
    let mut found = tree(&["--edges", "normal", "--package", package])?;
    found.remove(package);
    Ok(found)
}

/// Names that `cargo tree` prints, with the package that was asked for.
fn tree(arguments: &[&str]) -> anyhow::Result<BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .current_dir(root())
        .args(["tree", "--locked", "--prefix", "none"])
        .args(arguments)
        .output()?;
    ensure!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    Ok(text.lines().filter_map(|line| line.split(' ').next().map(str::to_owned)).collect())
}

fn collect_sources(folder: &Path, sources: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let skipped = ["target", ".git", "xtask"];
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default();
        if path.is_dir() && !skipped.iter().any(|skip| name == *skip) {
            collect_sources(&path, sources)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push(path);
        }
    }
    Ok(())
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
