//! Worker processes: the real program, so that memory and processor time are a worker's own.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use cipherscore_concrete::recorder::RecorderCommand;
use cipherscore_testbed::Process;
use serde::Deserialize;
use tempfile::TempDir;

/// The worker's package, and its program.
pub(crate) const WORKER: &str = "cipherscore-worker";
/// How long an idle worker may take to end.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// How workers are started: which program, and where their services are.
pub(crate) struct Starter {
    program: PathBuf,
    pub(crate) broker_url: String,
    pub(crate) store_url: String,
}

/// A running worker. It ends when this is dropped, or when this process dies.
pub(crate) struct WorkerProcess {
    process: Process,
    /// With its models.
    _folder: TempDir,
}

/// What a worker logs about a key that was not in its cache.
#[derive(Debug, Deserialize)]
pub(crate) struct KeyFetched {
    pub(crate) serialised_bytes: u64,
    pub(crate) prepared_bytes: u64,
    pub(crate) fetch_seconds: f64,
    pub(crate) prepare_seconds: f64,
}

/// A package's program of the same name, beside ours. Under cargo it is brought up to date first,
/// so that nobody measures the program of yesterday.
/// `features` are those that it has beside its defaults.
pub(crate) fn program(package: &str, features: &str) -> anyhow::Result<PathBuf> {
    let ours = std::env::current_exe()?;
    let folder = ours.parent().context("this program is in no folder")?;
    let program = folder.join(package);
    if let Some(cargo) = std::env::var_os("CARGO") {
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--locked", "--package", package, "--bin", package]);
        build.args(["--features", features]);
        if folder.file_name() == Some(OsStr::new("release")) {
            build.arg("--release");
        }
        build.arg("--target-dir").args(folder.parent());
        eprintln!("building {package}, if it is not up to date");
        ensure!(build.status()?.success(), "{package} could not be built");
    }
    ensure!(
        program.is_file(),
        "{} is missing: cargo build --release -p {package} --features '{features}'",
        program.display()
    );
    Ok(program)
}

/// How the program is started to import a raw zip.
pub(crate) fn recorder(program: &Path) -> RecorderCommand {
    RecorderCommand::new(program, vec!["record-circuit".into()])
}

impl Starter {
    pub(crate) fn new(program: PathBuf, broker_url: String, store_url: String) -> Self {
        Self { program, broker_url, store_url }
    }

    /// Starts a worker that computes on so many threads, with its defaults in all else. Its log
    /// lines go to a file, as under a service manager.
    pub(crate) fn start(&self, server_zip: &[u8], threads: usize) -> anyhow::Result<WorkerProcess> {
        self.start_watched(server_zip, threads, "")
    }

    /// The same, which answers questions at an address, such as `/metrics`.
    pub(crate) fn start_watched(
        &self,
        server_zip: &[u8],
        threads: usize,
        address: &str,
    ) -> anyhow::Result<WorkerProcess> {
        let folder = tempfile::Builder::new().prefix("cipherscore-bench-").tempdir()?;
        let zips = folder.path().join("models");
        std::fs::create_dir(&zips)?;
        std::fs::write(zips.join("server.zip"), server_zip)?;
        let threads = format!("worker.threads={threads}");
        let listen = format!("health.listen={address}");
        let zips = zips.to_str().context("the folder for temporary files is not UTF-8")?;
        let mut arguments = vec!["start", "--models", zips];
        for value in [threads.as_str(), &listen, "log.format=json"] {
            arguments.extend(["--set", value]);
        }
        let variables = [
            ("CIPHERSCORE_BROKER__URL", self.broker_url.as_str()),
            ("CIPHERSCORE_STORE__URL", self.store_url.as_str()),
        ];
        let process = Process::start(&self.program, &arguments, &variables)?;
        Ok(WorkerProcess { process, _folder: folder })
    }
}

impl WorkerProcess {
    pub(crate) fn id(&self) -> u32 {
        self.process.process_id()
    }

    /// Fails when it has ended, with what it said.
    pub(crate) fn require(&mut self) -> anyhow::Result<()> {
        ensure!(!self.process.has_ended(), "a worker ended:\n{}", self.process.printed());
        Ok(())
    }

    /// What it logged about its first key.
    pub(crate) fn key_fetched(&self) -> anyhow::Result<KeyFetched> {
        let log = self.process.printed();
        let lines = log.lines().filter_map(|line| serde_json::from_str(line).ok());
        lines.into_iter().next().with_context(|| format!("no key in the log:\n{log}"))
    }

    /// Ends it in order.
    pub(crate) fn end(mut self) -> anyhow::Result<()> {
        self.process.end(END_TIMEOUT)?;
        Ok(())
    }
}
