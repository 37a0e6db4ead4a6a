//! `cargo xtask fuzz`: runs the targets of `fuzz/` one after the other, each from seeds made of the
//! test data, from the inputs that are kept, and from what earlier runs found out.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};

/// How long each target runs, in seconds, unless the command line says it.
const DEFAULT_SECONDS: u64 = 60;
/// Longest input, in bytes.
const MAX_INPUT_BYTES: usize = 1 << 16;
/// An input that takes longer is a finding, in seconds. The instrumented code is several times
/// slower than the real one.
const TIMEOUT_SECONDS: u64 = 10;
/// Memory beyond which a run is a finding, in MiB.
const MAX_MEMORY_MIB: usize = 2048;
/// A single allocation beyond which a run is a finding, in MiB. Only the address sanitizer sees it.
const MAX_ALLOCATION_MIB: usize = 256;

struct Order {
    targets: Vec<String>,
    seconds: u64,
}

/// Runs one target, or all of them.
pub(crate) fn fuzz(root: &Path, arguments: &[String]) -> anyhow::Result<()> {
    let folder = root.join("fuzz");
    let Order { targets, seconds } = parse(&folder, arguments)?;
    let toolchain = Toolchain::find()?;
    let seeds = Command::new(env!("CARGO"))
        .current_dir(root)
        .args(["run", "--release", "--locked", "--package", "cipherscore-fuzz-checks"])
        .args(["--bin", "seeds", "--", "fuzz/seeds"])
        .status()?;
    ensure!(seeds.success(), "the seeds cannot be made");
    for target in &targets {
        let [grown, seeds, kept] =
            ["grown", "seeds", "corpus"].map(|of| folder.join(of).join(target));
        fs::create_dir_all(&grown).with_context(|| grown.display().to_string())?;
        let status = toolchain
            .command()
            .current_dir(root)
            .args(["run", "--fuzz-dir", "fuzz", "--sanitizer", toolchain.sanitizer(), target])
            // New inputs go to the first folder; the others are read.
            .args([&grown, &seeds, &kept].into_iter().filter(|folder| folder.exists()))
            .arg("--")
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-max_len={MAX_INPUT_BYTES}"))
            .arg(format!("-timeout={TIMEOUT_SECONDS}"))
            .arg("-report_slow_units=1")
            .arg(format!("-rss_limit_mb={MAX_MEMORY_MIB}"))
            .arg(format!("-malloc_limit_mb={MAX_ALLOCATION_MIB}"))
            .status()
            .context("cargo fuzz")?;
        ensure!(
            status.success(),
            "{target} found something: fuzz/artifacts/{target}/ has the input. Mend it, and keep the \
             smallest input (cargo fuzz tmin) in fuzz/corpus/{target}/"
        );
    }
    Ok(())
}

fn parse(folder: &Path, arguments: &[String]) -> anyhow::Result<Order> {
    let mut order = Order { targets: Vec::new(), seconds: DEFAULT_SECONDS };
    let mut known = Vec::new();
    for file in fs::read_dir(folder.join("fuzz_targets"))? {
        let path = file?.path();
        known.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
    }
    known.sort();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if argument == "--seconds" {
            let seconds = rest.next().context("--seconds needs a number")?;
            order.seconds = seconds.parse().context("--seconds needs a number")?;
        } else if known.contains(argument) {
            order.targets.push(argument.clone());
        } else {
            bail!("there is no target {argument}; there are {}", known.join(", "));
        }
    }
    if order.targets.is_empty() {
        order.targets = known;
    }
    Ok(order)
}

/// Coverage needs compiler flags that are stable, sanitizers some that are not.
enum Toolchain {
    /// A nightly compiler: with the address sanitizer.
    Nightly,
    /// Any compiler: without.
    Stable,
}

impl Toolchain {
    fn find() -> anyhow::Result<Self> {
        let answers = |arguments: &[&str]| {
            let silent = Command::new("cargo").args(arguments).stderr(Stdio::null()).output();
            silent.is_ok_and(|output| output.status.success())
        };
        ensure!(
            answers(&["fuzz", "--version"]),
            "cargo-fuzz is not installed: cargo install cargo-fuzz --locked"
        );
        Ok(if answers(&["+nightly", "--version"]) { Self::Nightly } else { Self::Stable })
    }

    /// `cargo fuzz`; of the compiler that the path names, not of the one that runs this program.
    fn command(&self) -> Command {
        let mut command = Command::new("cargo");
        command.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO");
        match self {
            Self::Nightly => command.args(["+nightly", "fuzz"]),
            Self::Stable => command.env("RUSTC_BOOTSTRAP", "1").arg("fuzz"),
        };
        command
    }

    /// What `cargo fuzz run` is told of sanitizers.
    fn sanitizer(&self) -> &'static str {
        match self {
            Self::Nightly => "address",
            Self::Stable => "none",
        }
    }
}
