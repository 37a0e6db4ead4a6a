//! Services, a worker and a bridge, each a process of its own, and a folder with the model.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use cipherscore_testbed::{Process, RabbitMq, Redis};
use tempfile::TempDir;

use crate::bulk::example_path;
use crate::machine::{Watch, peak_memory, processor_seconds};
use crate::steps::ask;

const WORKER_THREADS: usize = 2;
/// How long worker or bridge may take to begin, and the bridge to end.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a flood may take.
const FLOOD_PATIENCE: Duration = Duration::from_secs(1800);
/// How often is looked at a process.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// What a bridge is measured in.
pub(super) struct BridgeSetting {
    rabbitmq: RabbitMq,
    redis: Redis,
    cli: PathBuf,
    pub(super) broker_url: String,
    store_url: String,
    worker: Process,
    folder: TempDir,
}

/// A running bridge of queues.
pub(super) struct BridgeProcess {
    process: Process,
    /// Where it tells how it is.
    pub(super) address: SocketAddr,
}

/// What a program did that ran to its end.
pub(super) struct Ran {
    pub(super) seconds: f64,
    pub(super) processor_seconds: f64,
    pub(super) peak_bytes: f64,
}

impl BridgeSetting {
    /// With the example in both forms, its keys, and a worker that has it.
    pub(super) async fn start(cli: PathBuf) -> anyhow::Result<Self> {
        let (rabbitmq, redis) = (RabbitMq::start()?, Redis::start()?);
        let folder = tempfile::Builder::new().prefix("cipherscore-bench-").tempdir()?;
        let path = |name: &str| -> anyhow::Result<String> {
            let path = folder.path().join(name);
            Ok(path.to_str().context("the folder for temporary files is not UTF-8")?.to_owned())
        };
        let of_example = |name: &str| -> anyhow::Result<String> {
            Ok(example_path(name).to_str().context("the sources are not in UTF-8")?.to_owned())
        };
        let (artifact, keys, models) = (path("artifact")?, path("keys")?, path("models")?);
        let (trained, training) = (of_example("model.json")?, of_example("training.csv")?);
        let compile = ["compile", &trained, "-o", &artifact, "--calibration", &training];
        run_to_end(&cli, &compile, &[])?;
        let client = format!("{artifact}/client.zip");
        run_to_end(&cli, &["keygen", "--client", &client, "--keys", &keys], &[])?;
        std::fs::create_dir(&models)?;
        std::fs::copy(
            folder.path().join("artifact/server.zip"),
            folder.path().join("models/server.zip"),
        )?;
        let (broker_url, store_url) = (rabbitmq.url(), redis.url());
        let address = free_address()?;
        let (threads, listen) =
            (format!("worker.threads={WORKER_THREADS}"), format!("health.listen={address}"));
        let arguments =
            ["worker", "start", "--models", &models, "--set", &threads, "--set", &listen];
        let variables =
            [("CIPHERSCORE_BROKER__URL", &*broker_url), ("CIPHERSCORE_STORE__URL", &store_url)];
        let mut worker = Process::start(&cli, &arguments, &variables)?;
        until_ready(&mut worker, address).await?;
        Ok(Self { rabbitmq, redis, cli, broker_url, store_url, worker, folder })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn variables(&self) -> [(&str, &str); 2] {
        [("CIPHERSCORE_BROKER_URL", &self.broker_url), ("CIPHERSCORE_REDIS_URL", &self.store_url)]
    }

    /// Writes a configuration with these sections and the model.
    fn configure(&self, sections: &str, listen: &str) -> anyhow::Result<PathBuf> {
        let [artifact, keys] = ["artifact", "keys"].map(|name| self.path(name));
        let text = format!(
            "{sections}\n[health]\nlisten = '{listen}'\n[[models]]\nname = 'biopsy'\n\
             artifact = '{}'\nkeys = '{}'\n",
            artifact.display(),
            keys.display()
        );
        let path = self.path("bridge.toml");
        std::fs::write(&path, text)?;
        Ok(path)
    }

    /// Starts a bridge with these sections.
    pub(super) fn start_bridge(&self, sections: &str) -> anyhow::Result<BridgeProcess> {
        let address = free_address()?;
        let config = self.configure(sections, &address.to_string())?;
        let arguments = ["bridge", "--config", text(&config)?];
        let owner = [("CIPHERSCORE_OWNER__URL", self.broker_url.as_str())];
        let variables: Vec<_> = self.variables().into_iter().chain(owner).collect();
        let process = Process::start(&self.cli, &arguments, &variables)?;
        Ok(BridgeProcess { process, address })
    }

    /// A bridge from a file of lines to another one, to its end.
    pub(super) fn bridge_lines(&self, events: &Path, scores: &Path) -> anyhow::Result<Ran> {
        let dead = self.path("dead.jsonl");
        let sections = format!("[dead_letters]\nfile = '{}'", dead.display());
        let config = self.configure(&sections, "")?;
        let script = "exec \"$0\" bridge --config \"$1\" < \"$2\" > \"$3\"";
        let words = [text(&self.cli)?, text(&config)?, text(events)?, text(scores)?];
        let arguments: Vec<_> = ["-c", script].into_iter().chain(words).collect();
        run_to_end(Path::new("/bin/sh"), &arguments, &self.variables())
    }

    /// `score` of a file, to its end.
    pub(super) fn score(&self, rows: &Path, scores: &Path) -> anyhow::Result<Ran> {
        let [artifact, keys] = ["artifact", "keys"].map(|name| self.path(name));
        let paths = [&artifact, &keys, rows, scores];
        let mut arguments = vec!["score"];
        for (option, path) in ["--artifact", "--keys", "--input", "--output"].iter().zip(paths) {
            arguments.extend([option, text(path)?]);
        }
        run_to_end(&self.cli, &arguments, &self.variables())
    }

    /// Processor time of bridge, worker and broker so far, in seconds.
    pub(super) fn used(&self, bridge: &BridgeProcess) -> [f64; 3] {
        let bridge = processor_seconds(bridge.process.process_id());
        [bridge, self.worker_seconds(), self.broker_seconds()]
    }

    /// Processor time of the worker so far, in seconds.
    pub(super) fn worker_seconds(&self) -> f64 {
        processor_seconds(self.worker.process_id())
    }

    /// The same of the broker.
    pub(super) fn broker_seconds(&self) -> f64 {
        self.rabbitmq.process_id().map_or(0.0, processor_seconds)
    }

    /// With a bridge among what is ours, if one runs.
    pub(super) fn watch(&self, bridge: Option<&BridgeProcess>) -> Watch {
        let services = [self.rabbitmq.process_id(), self.redis.process_id()];
        let bridge = bridge.map(|bridge| bridge.process.process_id());
        let ours = services.into_iter().chain([bridge]).flatten();
        Watch::start(ours.chain([self.worker.process_id()]).collect())
    }
}

impl BridgeProcess {
    /// Waits until it waits for nothing.
    pub(super) async fn until_ready(&mut self) -> anyhow::Result<()> {
        until_ready(&mut self.process, self.address).await
    }

    /// Fails when it has ended, with what it said.
    pub(super) fn require(&mut self) -> anyhow::Result<()> {
        ensure!(!self.process.has_ended(), "the bridge ended:\n{}", self.process.printed());
        Ok(())
    }

    /// Ends it in order.
    pub(super) fn end(mut self) -> anyhow::Result<()> {
        self.process.end(PATIENCE)?;
        let code = self.process.exit_code();
        ensure!(code == Some(0), "the bridge ended with {code:?}:\n{}", self.process.printed());
        Ok(())
    }
}

fn run_to_end(
    program: &Path,
    arguments: &[&str],
    variables: &[(&str, &str)],
) -> anyhow::Result<Ran> {
    let started = Instant::now();
    let mut process = Process::start(program, arguments, variables)?;
    let (mut peak_bytes, mut used) = (0.0, 0.0);
    while !process.has_ended() {
        ensure!(started.elapsed() < FLOOD_PATIENCE, "{arguments:?} does not end");
        // Nothing to be read any more where it has ended meanwhile.
        let id = process.process_id();
        peak_bytes = peak_memory(id).unwrap_or(peak_bytes);
        used = processor_seconds(id).max(used);
        std::thread::sleep(LOOK_INTERVAL);
    }
    let seconds = started.elapsed().as_secs_f64();
    let code = process.exit_code();
    ensure!(code == Some(0), "{arguments:?} ended with {code:?}:\n{}", process.printed());
    Ok(Ran { seconds, processor_seconds: used, peak_bytes })
}

async fn until_ready(process: &mut Process, address: SocketAddr) -> anyhow::Result<()> {
    let started = Instant::now();
    while !ask(address, "/readyz").is_ok_and(|answer| answer.starts_with("HTTP/1.0 200")) {
        ensure!(!process.has_ended(), "it ended:\n{}", process.printed());
        ensure!(started.elapsed() < PATIENCE, "it does not begin:\n{}", process.printed());
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    Ok(())
}

/// Free at this moment.
fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("a path that is not UTF-8")
}
