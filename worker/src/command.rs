//! The command line of a worker, which `cipherscore-worker` and `cipherscore worker` share.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use cipherscore_common::broker::amqp::{AmqpBroker, AmqpConfig};
use cipherscore_common::config::{self, LogFormat};
use cipherscore_common::{RedisConfig, RedisStore, telemetry};
use cipherscore_concrete::recorder::RecorderCommand;
use clap::{Args, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use crate::config::WorkerConfig;
use crate::health;
use crate::worker::Worker;

/// What traces of a worker are called.
const SERVICE: &str = "cipherscore-worker";
/// How long the end of the connections may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// What a worker can be told.
#[derive(Subcommand)]
pub enum WorkerCommand {
    /// Take jobs until SIGTERM or Ctrl-C; running jobs are finished first, a second signal stops
    /// at once.
    Start(WorkerOptions),
    /// Read the configuration, open the models, ask broker and store, and end.
    Check(WorkerOptions),
    /// Ask a running worker on this machine whether it is ready. Ends with 0 if it is.
    Health(WorkerOptions),
}

/// Where the configuration comes from.
#[derive(Args)]
pub struct WorkerOptions {
    /// Configuration file; `config/worker.toml` of the sources explains every key.
    #[arg(long, value_name = "FILE", env = "CIPHERSCORE_WORKER_CONFIG")]
    config: Option<PathBuf>,

    /// Folder with models: server.zip files, raw or imported.
    #[arg(long, value_name = "DIR")]
    models: Option<PathBuf>,

    /// RabbitMQ, as amqp://USER:PASSWORD@HOST:PORT/VHOST. Other users of this machine can read
    /// command lines; a password belongs into CIPHERSCORE_BROKER_URL or into a file.
    #[arg(long, value_name = "URL", env = "CIPHERSCORE_BROKER_URL", hide_env_values = true)]
    broker: Option<String>,

    /// File with the URL of RabbitMQ, used when there is no --broker.
    #[arg(long, value_name = "FILE", env = "CIPHERSCORE_BROKER_URL_FILE")]
    broker_url_file: Option<PathBuf>,

    /// Redis, as redis://USER:PASSWORD@HOST:PORT/NUMBER. A password belongs into
    /// CIPHERSCORE_REDIS_URL or into a file.
    #[arg(long, value_name = "URL", env = "CIPHERSCORE_REDIS_URL", hide_env_values = true)]
    redis: Option<String>,

    /// File with the URL of Redis, used when there is no --redis.
    #[arg(long, value_name = "FILE", env = "CIPHERSCORE_REDIS_URL_FILE")]
    redis_url_file: Option<PathBuf>,

    /// How log lines are written: human or json.
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<LogFormat>,

    /// What is logged: off, error, warn, info, debug, trace, or directives such as
    /// info,cipherscore_worker=debug.
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,

    /// Any key of the file, as worker.slots=4. Comes after CIPHERSCORE_WORKER__SLOTS=4 in the
    /// environment, which comes after the file. URLs do not belong here: others can read them.
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_and_value)]
    set: Vec<(String, String)>,
}

fn key_and_value(text: &str) -> Result<(String, String), &'static str> {
    let (key, value) = text.split_once('=').ok_or("give it as KEY=VALUE")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

impl WorkerOptions {
    fn load(&self, threads: Option<NonZeroUsize>) -> anyhow::Result<WorkerConfig> {
        let flags: Vec<_> =
            self.set.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
        let mut config: WorkerConfig = config::load(self.config.as_deref(), &flags)?;
        if let Some(folder) = &self.models {
            config.models.folder = Some(folder.clone());
        }
        config.log.format = self.log_format.unwrap_or(config.log.format);
        if let Some(level) = &self.log_level {
            config.log.level.clone_from(level);
        }
        config.worker.threads = threads.or(config.worker.threads);
        config.broker.name(self.broker.as_deref(), self.broker_url_file.as_deref());
        config.store.name(self.redis.as_deref(), self.redis_url_file.as_deref());
        Ok(config)
    }
}

/// Does it. `threads` win over the configuration, `json` is for the report of a check, and
/// `recorder` is how this program is started to import raw zips.
pub fn run(
    command: WorkerCommand,
    threads: Option<NonZeroUsize>,
    json: bool,
    recorder: RecorderCommand,
) -> anyhow::Result<ExitCode> {
    match command {
        WorkerCommand::Start(options) => {
            in_runtime(start(options.load(threads)?, recorder, |_| Ok(())))
        }
        WorkerCommand::Check(options) => in_runtime(check(options.load(threads)?, json, recorder)),
        WorkerCommand::Health(options) => ask(&options.load(threads)?),
    }
}

/// As [`WorkerCommand::Start`], with a worker that `prepare` changes before it begins: models that
/// are in no file are added there.
pub fn start_with(
    options: &WorkerOptions,
    recorder: RecorderCommand,
    prepare: impl FnOnce(&mut Worker<AmqpBroker, RedisStore>) -> anyhow::Result<()>,
) -> anyhow::Result<ExitCode> {
    in_runtime(start(options.load(None)?, recorder, prepare))
}

fn in_runtime(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(work);
    // Evaluations that nobody waits for any more must not hold up the end.
    runtime.shutdown_background();
    telemetry::stop();
    result.map(|()| ExitCode::SUCCESS)
}

async fn open(
    config: WorkerConfig,
    recorder: RecorderCommand,
) -> anyhow::Result<(Worker<AmqpBroker, RedisStore>, AmqpBroker)> {
    telemetry::start(SERVICE, config.log.format, &config.log.level)?;
    let broker = AmqpConfig::from_settings(&config.broker)?.with_name("cipherscore worker");
    let broker = AmqpBroker::new(broker.with_confirm_timeout(config.worker.confirm_timeout))?;
    let store = RedisStore::new(&RedisConfig::from_settings(&config.store)?)?;
    Ok((Worker::open(config, broker.clone(), store, recorder).await?, broker))
}

async fn start(
    config: WorkerConfig,
    recorder: RecorderCommand,
    prepare: impl FnOnce(&mut Worker<AmqpBroker, RedisStore>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let (mut worker, broker) = open(config, recorder).await?;
    prepare(&mut worker)?;
    let (name, models) = (worker.name().to_owned(), worker.models());
    info!(name, version = env!("CARGO_PKG_VERSION"), models = models.len(), "starting");
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut asked = async || {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    };
    let mut handle = worker.start().await?;
    tokio::select! {
        in_order = handle.ended() => {
            ensure!(in_order, "the worker gave up; the last error in its log says why");
            return Ok(());
        }
        signal = asked() => info!(signal, "stopping: nothing new is begun"),
    }
    handle.drain();
    tokio::select! {
        _ = handle.ended() => {}
        signal = asked() => {
            warn!(signal, "stopping at once: the broker gives the running jobs to other workers");
            handle.abort();
        }
    }
    broker.close(CLOSE_TIMEOUT).await;
    info!("stopped");
    Ok(())
}

async fn check(config: WorkerConfig, json: bool, recorder: RecorderCommand) -> anyhow::Result<()> {
    let (worker, broker) = open(config, recorder).await?;
    worker.check().await?;
    if json {
        println!("{}", serde_json::json!({ "models": worker.models() }));
    } else {
        for id in worker.models() {
            match worker.forms(id).as_str() {
                "" => println!("model {id}"),
                forms => println!("model {id}: {forms}"),
            }
        }
        println!("configuration, models, broker and store are usable");
    }
    broker.close(CLOSE_TIMEOUT).await;
    Ok(())
}

fn ask(config: &WorkerConfig) -> anyhow::Result<ExitCode> {
    let address = config.health.listen.context("health.listen is \"\": nobody answers")?;
    let readiness = health::ask(address).with_context(|| format!("no answer from {address}"))?;
    println!("{}", serde_json::to_string(&readiness)?);
    ensure!(readiness.ready, "the worker is not ready");
    Ok(ExitCode::SUCCESS)
}
