//! What a file is scored with: services, a worker, and a folder.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use cipherscore_common::ModelId;
use cipherscore_producer::key_folder::KeyFolder;
use cipherscore_testbed::{Process, RabbitMq, Redis};
use tempfile::TempDir;

use super::rows::example;
use super::subjects::Subject;
use crate::data_owner::DataOwner;
use crate::machine::{Watch, peak_memory};
use crate::workers::{Starter, WorkerProcess};

const WORKER_THREADS: usize = 2;
/// How often we look at the memory of the process that scores.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);
/// How long a file may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// Services, a worker, and a folder with the model, keys and rows.
pub(super) struct Setting {
    rabbitmq: RabbitMq,
    redis: Redis,
    pub(super) starter: Starter,
    pub(super) worker: WorkerProcess,
    pub(super) model_id: ModelId,
    folder: TempDir,
}

/// What came of a file.
pub(super) struct Scored {
    pub(super) seconds: f64,
    pub(super) peak_bytes: f64,
}

impl Setting {
    pub(super) async fn new(subject: &Subject, worker: PathBuf) -> anyhow::Result<Self> {
        let (rabbitmq, redis) = (RabbitMq::start()?, Redis::start()?);
        let starter = Starter::new(worker, rabbitmq.url(), redis.url());
        let owner = DataOwner::new(&starter.broker_url, &starter.store_url).await?;
        let model_id = subject.compiled.model_id;
        let mut workers = [starter.start(&subject.compiled.server_zip, WORKER_THREADS)?];
        owner.expect_workers(model_id, &mut workers).await?;
        let [worker] = workers;
        let folder = tempfile::Builder::new().prefix("cipherscore-bench-").tempdir()?;
        Ok(Self { rabbitmq, redis, starter, worker, model_id, folder })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Model, keys, and rows of the example, again and again.
    pub(super) fn write(&self, subject: &Subject, rows: usize) -> anyhow::Result<()> {
        std::fs::write(self.path("client.zip"), &subject.compiled.client_zip)?;
        KeyFolder::new(self.path("keys")).store(&subject.keys, None)?;
        let csv = String::from_utf8(example("rows.csv")?)?;
        let (header, lines) = csv.split_once('\n').context("rows without a header")?;
        let lines = lines.lines().cycle().take(rows);
        let text: Vec<_> = std::iter::once(header).chain(lines).collect();
        Ok(std::fs::write(self.path("rows.csv"), text.join("\n") + "\n")?)
    }

    /// Scores the file by a process of its own.
    pub(super) fn score(&self, cli: &Path) -> anyhow::Result<Scored> {
        let [keys, rows, scores] = ["keys", "rows.csv", "scores.csv"].map(|name| self.path(name));
        let paths = [self.folder.path(), &keys, &rows, &scores];
        let mut arguments = vec!["score"];
        for (option, path) in ["--artifact", "--keys", "--input", "--output"].iter().zip(paths) {
            arguments.extend([option, path.to_str().context("a path that is not UTF-8")?]);
        }
        let variables = [
            ("CIPHERSCORE_BROKER_URL", self.starter.broker_url.as_str()),
            ("CIPHERSCORE_REDIS_URL", self.starter.store_url.as_str()),
        ];
        let started = Instant::now();
        let mut process = Process::start(cli, &arguments, &variables)?;
        let mut peak_bytes = 0.0;
        while !process.has_ended() {
            ensure!(started.elapsed() < PATIENCE, "the rows are not scored");
            // Nothing to be read any more where it has ended meanwhile.
            peak_bytes = peak_memory(process.process_id()).unwrap_or(peak_bytes);
            std::thread::sleep(LOOK_INTERVAL);
        }
        let seconds = started.elapsed().as_secs_f64();
        let code = process.exit_code();
        ensure!(code == Some(0), "scoring failed: {}", process.printed());
        Ok(Scored { seconds, peak_bytes })
    }

    /// Largest difference of any written score from the clear model's.
    pub(super) fn largest_difference(&self, rows: usize) -> anyhow::Result<f64> {
        let clear = numbers(&String::from_utf8(example("clear.csv")?)?)?;
        let scores = numbers(&std::fs::read_to_string(self.path("scores.csv"))?)?;
        ensure!(scores.len() == rows, "{} scores of {rows} rows", scores.len());
        let pairs = scores.iter().zip(clear.iter().cycle());
        ensure!(pairs.clone().all(|(score, clear)| score.len() == clear.len()), "other scores");
        let pairs = pairs.flat_map(|(score, clear)| score.iter().zip(clear));
        Ok(pairs.map(|(score, clear)| (score - clear).abs()).fold(0.0, f64::max))
    }

    /// Bytes that the store has taken and given so far.
    pub(super) fn traffic(&self) -> anyhow::Result<[f64; 2]> {
        let url = self.redis.url();
        let (_, address) = url.rsplit_once('@').context("a URL without a password")?;
        let mut stream = TcpStream::connect(address)?;
        let password = self.redis.password();
        stream.write_all(format!("AUTH {password}\r\nINFO stats\r\nQUIT\r\n").as_bytes())?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.trim_start_matches(':').parse().ok())
                .with_context(|| format!("the store does not say its {name}"))
        };
        Ok([field("total_net_input_bytes")?, field("total_net_output_bytes")?])
    }

    pub(super) fn watch(&self) -> Watch {
        let services = [self.rabbitmq.process_id(), self.redis.process_id()];
        Watch::start(services.into_iter().flatten().chain([self.worker.id()]).collect())
    }
}

/// The lines of a CSV below its header.
fn numbers(csv: &str) -> anyhow::Result<Vec<Vec<f64>>> {
    let line = |line: &str| Ok(line.split(',').map(str::parse).collect::<Result<_, _>>()?);
    csv.lines().skip(1).map(line).collect()
}
