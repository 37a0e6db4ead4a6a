//! Development tasks; `cargo xtask` lists them.

mod aarch64;
mod fuzz;
mod generate;
mod glossary;
mod layers;
mod links;
mod python;
mod sources;
mod unsafe_code;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, ensure};
use cipherscore_testbed::{RabbitMq, Redis};

const USAGE: &str = "\
usage: cargo xtask TASK

  test [ARGUMENTS]   all tests, on the one optimised profile, and those of the Python package; with
                     ARGUMENTS, which go to cargo test, only what they choose
  python [ARGUMENTS] build the wheel, install it into a private virtual environment (target/python)
                     and run the tests of the Python package; ARGUMENTS go to pytest
  check              which crate is built from which, where unsafe code may be, public names, and
                     where links of the documentation lead
  generate [--check] the Rust code of Concrete's Cap'n Proto schema; with --check, only whether what
                     is there is what would be made. Needs the program capnp
  demo [ARGUMENTS]   `cipherscore demo` through a private RabbitMQ and Redis
  chaos [ARGUMENTS]  break workers, broker, store and network under load, check every reply, and
                     print the figures: --jobs N --minutes M --seed S, --help for all. With --bridge
                     first, the same around a bridge between two brokers: --events N --kills K ..
  fuzz [TARGET] [--seconds N]
                     every fuzz target, or one, for N seconds each (60); needs cargo-fuzz
  aarch64            build the program for 64-bit ARM, run it under emulation and compare its integers
                     with this machine's; as root on x86-64 Debian, in a root of its own in
                     target/aarch64
  services COMMAND   run a command beside a private RabbitMQ and Redis, whose URLs it finds in
                     CIPHERSCORE_BROKER__URL and CIPHERSCORE_STORE__URL (workers), and in
                     CIPHERSCORE_BROKER_URL and CIPHERSCORE_REDIS_URL (the other commands)";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.split_first() {
        Some((task, rest)) if task == "test" => test(rest),
        Some((task, rest)) if task == "python" => python::test(&root(), rest),
        Some((task, [])) if task == "check" => check(),
        Some((task, [])) if task == "aarch64" => aarch64::aarch64(&root()),
        Some((task, rest)) if task == "fuzz" => fuzz::fuzz(&root(), rest),
        Some((task, rest)) if task == "generate" => generate::generate(&root(), rest),
        Some((task, rest)) if task == "chaos" => chaos(rest),
        Some((task, rest)) if task == "demo" => demo(rest),
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
    let (command, arguments) = match arguments.split_first() {
        Some((first, rest)) if first == "--bridge" => {
            // What is killed is the released program.
            run(Command::new(env!("CARGO")).current_dir(root()).args([
                "build",
                "--release",
                "--locked",
                "--package",
                "cipherscore",
            ]))?;
            ("bridge", rest)
        }
        _ => ("run", arguments),
    };
    let status = Command::new(env!("CARGO"))
        .current_dir(root())
        .args(["run", "--release", "--locked", "--package", "cipherscore-chaos", "--", command])
        .args(arguments)
        .status()?;
    ensure!(status.success(), "something was lost, answered twice or wrong, or could not be run");
    Ok(())
}

fn services(program: &str, arguments: &[String]) -> anyhow::Result<()> {
    beside_services(Command::new(program).args(arguments))
}

fn demo(arguments: &[String]) -> anyhow::Result<()> {
    let (redis, rabbitmq) = (Redis::start()?, RabbitMq::start()?);
    run(Command::new(env!("CARGO"))
        .current_dir(root())
        .args(["run", "--release", "--locked", "--package", "cipherscore", "--", "demo"])
        .args(["--broker", &rabbitmq.url(), "--redis", &redis.url()])
        .args(arguments))
}

/// Runs a command with the URLs of a private RabbitMQ and Redis in its environment.
fn beside_services(command: &mut Command) -> anyhow::Result<()> {
    let (redis, rabbitmq) = (Redis::start()?, RabbitMq::start()?);
    run(command.envs([
        ("CIPHERSCORE_BROKER__URL", rabbitmq.url()),
        ("CIPHERSCORE_BROKER_URL", rabbitmq.url()),
        ("CIPHERSCORE_STORE__URL", redis.url()),
        ("CIPHERSCORE_REDIS_URL", redis.url()),
    ]))
}

/// Runs a command that must succeed.
fn run(command: &mut Command) -> anyhow::Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| program.clone())?;
    ensure!(status.success(), "{program} ended with {status}");
    Ok(())
}

fn check() -> anyhow::Result<()> {
    layers::check(&root())?;
    unsafe_code::check(&root())?;
    glossary::check(&root())?;
    links::check(&root())
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
