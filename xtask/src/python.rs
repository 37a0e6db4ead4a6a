//! Tests of the Python package: its wheel, in a virtual environment of their own, beside private
//! services and with the worker program.
//!
//! The wheel holds the library that the workspace's build makes. `pip install ./python` would
//! select one package of the workspace, thus other features of its dependencies, and compile
//! many of them once more.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};
use cipherscore_testbed::find_or_install;

/// Oldest CPython that the package supports.
const OLDEST: (u32, u32) = (3, 9);
/// Names an interpreter, instead of the first that is found.
const INTERPRETER_VARIABLE: &str = "CIPHERSCORE_PYTHON";
/// Newest minor version of CPython 3 that is looked for by its own name, such as `python3.14`.
const NEWEST_MINOR: u32 = 14;
/// Prints the version of an interpreter that can make virtual environments with pip in them;
/// Debian has that in a package of its own.
const PROBE: &str = "import ensurepip, sys, venv; print(*sys.version_info[:2])";
/// Of the wheel: CPython 3.9 and everything newer.
const LIBRARY: &str = "_native.abi3.so";
/// A small test program. With one among what is built, features of dependencies are those of
/// `cargo test`, so that nothing is compiled twice.
const A_TEST: &str = "--test=relay";
/// What pytest runs, from the root of the repository, unless arguments name some of it.
const TESTS: &str = "python/tests";
/// Makes a skipped test a failure: see `python/tests/conftest.py`.
const NO_SKIPS: (&str, &str) = ("CIPHERSCORE_TESTS", "complete");
/// On a busy machine threads of a library that wait for each other take longer than one.
const ONE_THREAD: [(&str, &str); 2] = [("OMP_NUM_THREADS", "1"), ("OPENBLAS_NUM_THREADS", "1")];

/// Builds, installs and tests; arguments go to pytest.
pub(crate) fn test(root: &Path, arguments: &[String]) -> anyhow::Result<()> {
    let folder = root.join("target/python");
    let venv = environment(root, &folder.join("venv"))?;
    build(root)?;
    let wheel = wheel(root, &folder, &venv)?;
    let pip = ["-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--force-reinstall"];
    run(python(&venv).args(pip).arg(&wheel))?;
    let chosen = arguments.iter().any(|argument| argument.starts_with(TESTS));
    // Neither in `python/` nor as `python -m pytest`: they would find the package in the source
    // tree, without its library.
    crate::beside_services(
        Command::new(venv.join("bin/pytest"))
            .current_dir(root)
            .args(["-p", "no:cacheprovider"])
            .args(arguments)
            .args((!chosen).then_some(TESTS))
            .env(NO_SKIPS.0, NO_SKIPS.1)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .envs(ONE_THREAD),
    )
}

/// A CPython that is new enough and can make virtual environments.
fn interpreter() -> anyhow::Result<String> {
    if let Ok(named) = std::env::var(INTERPRETER_VARIABLE) {
        ensure!(
            is_new_enough(&named),
            "{INTERPRETER_VARIABLE}={named}: not CPython {}.{} or newer with venv and ensurepip",
            OLDEST.0,
            OLDEST.1
        );
        return Ok(named);
    }
    let names = || {
        let versions = (OLDEST.1..=NEWEST_MINOR).rev().map(|minor| format!("python3.{minor}"));
        std::iter::once("python3".to_owned()).chain(versions)
    };
    let find = || names().find(|name| is_new_enough(name));
    find_or_install("CPython 3.9 or newer with venv and ensurepip", "python3-venv", find)
        .with_context(|| {
            format!(
                "the tests of the Python package need an interpreter; {INTERPRETER_VARIABLE} may \
                 name one"
            )
        })
}

fn is_new_enough(program: &str) -> bool {
    let Ok(output) = Command::new(program).args(["-c", PROBE]).output() else { return false };
    let text = String::from_utf8_lossy(&output.stdout);
    let mut numbers = text.split_whitespace().map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => output.status.success() && (major, minor) >= OLDEST,
        _ => false,
    }
}

/// A virtual environment with what tests need; made again when that or the interpreter changes.
fn environment(root: &Path, venv: &Path) -> anyhow::Result<PathBuf> {
    let interpreter = interpreter()?;
    let requirements = root.join("python/requirements-test.txt");
    let listed = fs::read_to_string(&requirements)?;
    let wanted = format!("{}\n{listed}", output(Command::new(&interpreter).arg("-VV"))?);
    let stamp = venv.join("requirements");
    if fs::read_to_string(&stamp).is_ok_and(|made| made == wanted) {
        return Ok(venv.to_owned());
    }
    println!("making a virtual environment of {interpreter} in {}", venv.display());
    if venv.exists() {
        fs::remove_dir_all(venv)?;
    }
    run(Command::new(&interpreter).args(["-m", "venv"]).arg(venv))?;
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"];
    run(python(venv).args(pip).arg(&requirements))
        .context("installing what the tests of the Python package need, from PyPI")?;
    // Last: an environment that is half made is made again.
    fs::write(stamp, wanted)?;
    Ok(venv.to_owned())
}

/// The library, the worker program, and the one that has the gateway.
fn build(root: &Path) -> anyhow::Result<()> {
    run(Command::new(env!("CARGO")).current_dir(root).args([
        "build",
        "--release",
        "--workspace",
        "--locked",
        "--lib",
        "--bin=cipherscore-worker",
        "--bin=cipherscore",
        A_TEST,
    ]))
}

/// A wheel with maturin's metadata, the package as it is in the repository, and the library.
fn wheel(root: &Path, folder: &Path, venv: &Path) -> anyhow::Result<PathBuf> {
    let stage = folder.join("wheel");
    if stage.exists() {
        fs::remove_dir_all(&stage)?;
    }
    let package = stage.join("content/cipherscore");
    fs::create_dir_all(&package)?;
    run(Command::new(venv.join("bin/maturin"))
        .current_dir(root.join("python"))
        .args(["pep517", "write-dist-info", "--quiet", "--interpreter"])
        .arg(venv.join("bin/python"))
        .arg("--metadata-directory")
        .arg(stage.join("content")))?;
    for entry in fs::read_dir(root.join("python/cipherscore"))? {
        let source = entry?.path();
        let is_ours = ["py", "pyi", "typed"]
            .map(OsStr::new)
            .contains(&source.extension().unwrap_or_default());
        if is_ours {
            fs::copy(&source, package.join(source.file_name().unwrap_or_default()))?;
        }
    }
    let library = root.join("target/release/lib_native.so");
    fs::copy(&library, package.join(LIBRARY)).with_context(|| library.display().to_string())?;
    // Debug lines are nine tenths of it.
    run(Command::new("strip").arg("--strip-debug").arg(package.join(LIBRARY)))?;
    run(python(venv)
        .args(["-m", "wheel", "pack", "--dest-dir"])
        .arg(&stage)
        .arg(stage.join("content")))?;
    let is_wheel = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "whl");
    let made = fs::read_dir(&stage)?.filter_map(|entry| Some(entry.ok()?.path())).find(is_wheel);
    made.with_context(|| format!("no wheel in {}", stage.display()))
}

fn python(venv: &Path) -> Command {
    Command::new(venv.join("bin/python"))
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| program.clone())?;
    ensure!(status.success(), "{program} ended with {status}");
    Ok(())
}

fn output(command: &mut Command) -> anyhow::Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| program.clone())?;
    if !output.status.success() {
        bail!("{program} ended with {}", output.status);
    }
    Ok(String::from_utf8(output.stdout)?)
}
