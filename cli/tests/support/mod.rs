//! The program, its workers, a private RabbitMQ and a private Redis. Nothing that is printed may
//! hold a password.

#![allow(dead_code, reason = "each test binary uses a part of this")]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use cipherscore_testbed::{AnyRabbitMq, AnyRedis, Process, RabbitMq, Redis};
use serde_json::Value;
use tempfile::TempDir;

/// How long anything may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);
const PROGRAM: &str = env!("CARGO_BIN_EXE_cipherscore");
/// Variables that a developer may have set.
const FOREIGN: [&str; 5] = [
    "CIPHERSCORE_BROKER_URL_FILE",
    "CIPHERSCORE_REDIS_URL_FILE",
    "CIPHERSCORE_TENANT",
    "CIPHERSCORE_CONFIG",
    "CIPHERSCORE_WORKER_CONFIG",
];

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// An address for a server that is started again and again. No system gives such a port to a
/// connection, and each test binary begins elsewhere.
pub(crate) fn own_address() -> SocketAddr {
    const FIRST: u16 = 20_000;
    const OF_A_PROCESS: u16 = 100;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let place = u16::try_from(std::process::id() % 120).unwrap();
    let own = || NEXT.fetch_add(1, Ordering::Relaxed);
    let addresses = std::iter::repeat_with(own).take_while(|next| *next < OF_A_PROCESS);
    let mut addresses = addresses
        .map(|next| SocketAddr::from(([127, 0, 0, 1], FIRST + place * OF_A_PROCESS + next)));
    addresses.find(|address| TcpListener::bind(address).is_ok()).expect("no port is free")
}

/// A model of `examples`, and keys for it.
pub(crate) struct Example {
    pub(crate) folder: PathBuf,
    pub(crate) keys: PathBuf,
    pub(crate) model: String,
}

impl Example {
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Words that score a file.
    pub(crate) fn score(&self, input: &Path, output: &Path, more: &[&str]) -> Vec<String> {
        let words = [
            "score",
            "--artifact",
            text(&self.folder),
            "--keys",
            text(&self.keys),
            "--input",
            text(input),
            "--output",
            text(output),
        ];
        words.iter().chain(more).map(|word| (*word).to_owned()).collect()
    }

    /// The scores are those of the clear model, which begin again after its last row.
    pub(crate) fn assert_scores(&self, scores: &Path) {
        let (scores, clear) = (numbers(scores), numbers(&self.file("clear.csv")));
        assert!(!scores.is_empty() && scores.len().is_multiple_of(clear.len()));
        for (row, (score, clear)) in scores.iter().zip(clear.iter().cycle()).enumerate() {
            assert_eq!(score.len(), clear.len());
            let same = score.iter().zip(clear).all(|(a, b)| (a - b).abs() <= 1e-12);
            assert!(same, "row {row}: {score:?}, clear {clear:?}");
        }
    }
}

/// The password in a URL.
fn password(url: &str) -> Option<String> {
    let (credentials, _) = url.split_once("://")?.1.rsplit_once('@')?;
    Some(credentials.split_once(':')?.1.to_owned())
}

/// Jobs of a run with a kind of record in its ledger.
pub(crate) fn recorded(output: &Path, record: &str) -> Vec<String> {
    let ledger = format!("{}.ledger/jobs.jsonl", output.display());
    let text = fs::read_to_string(ledger).unwrap_or_default();
    // The last line may be written at this moment.
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let found = lines.filter(|line| line["record"] == record);
    found.map(|line| line["job"].as_str().unwrap().to_owned()).collect()
}

fn numbers(csv: &Path) -> Vec<Vec<f64>> {
    let text = fs::read_to_string(csv).unwrap();
    let line = |line: &str| line.split(',').map(|cell| cell.parse().unwrap()).collect();
    text.lines().skip(1).map(line).collect()
}

/// Both services, and a folder for files.
pub(crate) struct Fixture {
    pub(crate) broker_url: String,
    /// Passwords of the services, which nothing may print.
    secrets: Vec<String>,
    redis_url: String,
    folder: TempDir,
    services: Services,
}

/// What runs as long as the fixture.
enum Services {
    Private(Box<Mutex<(RabbitMq, Redis)>>),
    Any { _broker: AnyRabbitMq, _store: AnyRedis },
}

impl Fixture {
    /// With private services, for tests that hurt them or look at all that is there.
    pub(crate) fn start() -> Self {
        let (rabbitmq, redis) = (RabbitMq::start().unwrap(), Redis::start().unwrap());
        let urls = [rabbitmq.url(), redis.url()];
        Self::of(urls, Services::Private(Box::new(Mutex::new((rabbitmq, redis)))))
    }

    /// With services that run already, where the environment names them.
    pub(crate) fn start_anywhere() -> Self {
        let (broker, store) = (AnyRabbitMq::start().unwrap(), AnyRedis::start().unwrap());
        let urls = [broker.url(), store.url()];
        Self::of(urls, Services::Any { _broker: broker, _store: store })
    }

    fn of([broker_url, redis_url]: [String; 2], services: Services) -> Self {
        let secrets = [&broker_url, &redis_url].into_iter().filter_map(|url| password(url));
        Self {
            secrets: secrets.collect(),
            redis_url,
            broker_url,
            folder: TempDir::new().unwrap(),
            services,
        }
    }

    /// The services, to be killed and started again.
    pub(crate) fn services(&self) -> MutexGuard<'_, (RabbitMq, Redis)> {
        match &self.services {
            Services::Private(services) => services.lock().unwrap(),
            Services::Any { .. } => panic!("a test that hurts its services needs private ones"),
        }
    }

    /// The broker's URL with another password.
    pub(crate) fn wrong_url(&self) -> String {
        self.broker_url.replace(&self.secrets[0], "s3cret-and-wrong")
    }

    pub(crate) fn redis_url(&self) -> &str {
        &self.redis_url
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// An example, with new keys.
    pub(crate) fn example(&self, name: &str) -> Example {
        let folder = examples().join(name);
        let (keys, client) = (self.path(&format!("keys of {name}")), folder.join("client.zip"));
        self.json(0, &["keygen", "--client", text(&client), "--keys", text(&keys)]);
        let inspected = self.json(0, &["inspect", text(&folder.join("server.zip"))]);
        let model = inspected[0]["model_id"].as_str().unwrap().to_owned();
        Example { folder, keys, model }
    }

    pub(crate) fn command<T: AsRef<OsStr>>(&self, words: &[T]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(words).stdin(Stdio::null());
        command.env("CIPHERSCORE_BROKER_URL", &self.broker_url);
        command.env("CIPHERSCORE_REDIS_URL", &self.redis_url);
        for name in FOREIGN {
            command.env_remove(name);
        }
        command
    }

    pub(crate) fn start_command(&self, mut command: Command) -> Running<'_> {
        let folder = TempDir::new_in(self.folder.path()).unwrap();
        let file = |name| File::create(folder.path().join(name)).unwrap();
        let child = command.stdout(file("stdout")).stderr(file("stderr")).spawn().unwrap();
        Running { child, folder, fixture: self }
    }

    pub(crate) fn begin<T: AsRef<OsStr>>(&self, words: &[T]) -> Running<'_> {
        self.start_command(self.command(words))
    }

    pub(crate) fn run<T: AsRef<OsStr>>(&self, words: &[T]) -> Ran {
        self.begin(words).end()
    }

    /// What was refused, with nothing but the reason printed.
    pub(crate) fn refusal<T: AsRef<OsStr>>(&self, words: &[T]) -> String {
        let ran = self.run(words);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{}", ran.stderr);
        assert!(ran.stderr.starts_with("error: "), "{}", ran.stderr);
        ran.stderr
    }

    /// The one document that is printed.
    pub(crate) fn json<T: AsRef<OsStr>>(&self, code: i32, words: &[T]) -> Value {
        let mut command = self.command(words);
        command.arg("--json");
        self.start_command(command).end().json(code)
    }

    /// A worker that takes jobs, with models from a folder.
    pub(crate) fn worker(&self, models: &Path) -> Worker<'_> {
        self.worker_at(&self.broker_url, models, &[])
    }

    /// One that reaches the broker another way, with more settings.
    pub(crate) fn worker_at(&self, broker: &str, models: &Path, settings: &[&str]) -> Worker<'_> {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let health = format!("health.listen={port}");
        let words = ["worker", "start", "--models", text(models), "--set", &health];
        let mut words = [&words[..], &["--set", "models.reload_interval=1s"]].concat();
        words.extend(settings.iter().flat_map(|setting| ["--set", setting]));
        let variables = [
            ("CIPHERSCORE_BROKER_URL", broker),
            ("CIPHERSCORE_REDIS_URL", self.redis_url.as_str()),
        ];
        let process = Process::start(Path::new(PROGRAM), &words, &variables).unwrap();
        let worker = Worker { process, health, fixture: self };
        let is_ready = || self.run(&["worker", "health", "--set", &worker.health]).code == Some(0);
        wait_until("a worker is not ready", is_ready);
        worker
    }

    pub(crate) fn assert_discreet(&self, said: &str) {
        assert!(!said.contains("panicked"), "{said}");
        let secrets = self.secrets.iter().map(String::as_str);
        for secret in secrets.chain(["s3cret-and-wrong"]) {
            assert!(!said.contains(secret), "a password was printed");
        }
    }
}

pub(crate) fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

/// A command that runs. It is killed with this.
pub(crate) struct Running<'a> {
    child: Child,
    folder: TempDir,
    fixture: &'a Fixture,
}

impl Running<'_> {
    pub(crate) fn process_id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn stderr(&self) -> String {
        fs::read_to_string(self.folder.path().join("stderr")).unwrap()
    }

    pub(crate) fn stdout(&self) -> String {
        fs::read_to_string(self.folder.path().join("stdout")).unwrap()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    pub(crate) fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("/bin/sh").args(["-c", &kill]).status().unwrap().success());
    }

    pub(crate) fn end(mut self) -> Ran {
        wait_until("a command does not end", || self.has_ended());
        let (stdout, stderr) = (self.stdout(), self.stderr());
        let ran = Ran { code: self.child.wait().unwrap().code(), stdout, stderr };
        self.fixture.assert_discreet(&ran.stdout);
        self.fixture.assert_discreet(&ran.stderr);
        ran
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a command printed, and how it ended.
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn json(&self, code: i32) -> Value {
        assert_eq!(self.code, Some(code), "{}{}", self.stdout, self.stderr);
        serde_json::from_str(&self.stdout).unwrap()
    }
}

/// A worker in a process of its own.
pub(crate) struct Worker<'a> {
    process: Process,
    pub(crate) health: String,
    fixture: &'a Fixture,
}

impl Worker<'_> {
    pub(crate) fn printed(&self) -> String {
        let printed = self.process.printed();
        self.fixture.assert_discreet(&printed);
        printed
    }

    pub(crate) fn process_id(&self) -> u32 {
        self.process.process_id()
    }

    pub(crate) fn terminate(&self) {
        self.process.signal("TERM").unwrap();
    }

    /// Waits until it has ended in order, and says how long that took.
    pub(crate) fn end(mut self) -> Duration {
        let asked = Instant::now();
        wait_until("a worker does not end", || self.process.has_ended());
        assert_eq!(self.process.exit_code(), Some(0), "{}", self.printed());
        asked.elapsed()
    }
}
