//! The command line of a gateway.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use cipherscore_common::broker::amqp::{AmqpBroker, AmqpConfig};
use cipherscore_common::config::{self, LogFormat};
use cipherscore_common::{RedisConfig, RedisStore, Tenant, telemetry};
use clap::{Args, Subcommand};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use crate::config::GatewayConfig;
use crate::gateway::Gateway;
use crate::tokens::{TokenFile, TokenLine};

/// What traces of a gateway are called.
const SERVICE: &str = "cipherscore-gateway";
/// How long the end of the connections may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// What a gateway can be told.
#[derive(Subcommand)]
pub enum GatewayCommand {
    /// Answer until SIGTERM or Ctrl-C; requests that are underway are answered first, within
    /// gateway.grace_period, a second signal stops at once.
    Start(GatewayOptions),
    /// Read configuration, tokens and certificate, ask broker and store, and end.
    Check(GatewayOptions),
    /// Make, list and revoke the tokens by which data owners are known. A running gateway follows within
    /// seconds.
    Token {
        /// What to do with them.
        #[command(subcommand)]
        command: TokenCommand,
    },
    /// Print the interface as OpenAPI, as the gateway serves it at /openapi.json.
    Openapi,
}

/// Where the configuration comes from.
#[derive(Args)]
pub struct GatewayOptions {
    /// Configuration file; `config/gateway.toml` of the sources explains every key.
    #[arg(long, value_name = "FILE", env = "CIPHERSCORE_GATEWAY_CONFIG")]
    config: Option<PathBuf>,

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
    /// info,cipherscore_gateway=debug.
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,

    /// Any key of the file, as gateway.listen=0.0.0.0:8443. Comes after the environment, which comes
    /// after the file. URLs do not belong here: others can read them.
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_and_value)]
    set: Vec<(String, String)>,
}

/// What can be done with tokens.
#[derive(Subcommand)]
pub enum TokenCommand {
    /// Make a token and print it, once: the file keeps its digest only.
    New {
        /// Whose it is: 1 to 64 characters of a-z, 0-9 and -.
        #[arg(long, value_name = "NAME")]
        tenant: Tenant,
        /// Where they are.
        #[command(flatten)]
        file: TokensFile,
    },
    /// Take tokens out.
    Revoke {
        /// Names of tokens, as `list` prints them.
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        /// Where they are.
        #[command(flatten)]
        file: TokensFile,
    },
    /// Print whose tokens there are, and when they were made.
    List {
        /// Where they are.
        #[command(flatten)]
        file: TokensFile,
    },
}

/// Where the tokens are.
#[derive(Args)]
pub struct TokensFile {
    /// The file that gateway.tokens_file names.
    #[arg(long, value_name = "FILE", env = "CIPHERSCORE_GATEWAY__TOKENS_FILE")]
    tokens: PathBuf,
}

fn key_and_value(text: &str) -> Result<(String, String), &'static str> {
    let (key, value) = text.split_once('=').ok_or("give it as KEY=VALUE")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

impl GatewayOptions {
    fn load(&self) -> anyhow::Result<GatewayConfig> {
        let flags: Vec<_> =
            self.set.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
        let mut config: GatewayConfig = config::load(self.config.as_deref(), &flags)?;
        config.log.format = self.log_format.unwrap_or(config.log.format);
        if let Some(level) = &self.log_level {
            config.log.level.clone_from(level);
        }
        config.broker.name(self.broker.as_deref(), self.broker_url_file.as_deref());
        config.store.name(self.redis.as_deref(), self.redis_url_file.as_deref());
        Ok(config)
    }
}

/// Does it.
pub fn run(command: GatewayCommand, json: bool) -> anyhow::Result<ExitCode> {
    match command {
        GatewayCommand::Start(options) => in_runtime(start(options.load()?)),
        GatewayCommand::Check(options) => in_runtime(check(options.load()?, json)),
        GatewayCommand::Token { command } => token(command, json).map(|()| ExitCode::SUCCESS),
        GatewayCommand::Openapi => {
            print!("{}", crate::routes::description());
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn in_runtime(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(work);
    runtime.shutdown_background();
    telemetry::stop();
    result.map(|()| ExitCode::SUCCESS)
}

fn open(config: GatewayConfig) -> anyhow::Result<(Gateway<AmqpBroker, RedisStore>, AmqpBroker)> {
    telemetry::start(SERVICE, config.log.format, &config.log.level)?;
    let broker = AmqpConfig::from_settings(&config.broker)?.with_name("cipherscore gateway");
    let broker = AmqpBroker::new(broker.with_confirm_timeout(config.gateway.confirm_timeout))?;
    let store = RedisStore::new(&RedisConfig::from_settings(&config.store)?)?;
    Ok((Gateway::open(config, broker.clone(), store)?, broker))
}

async fn start(config: GatewayConfig) -> anyhow::Result<()> {
    let (gateway, broker) = open(config)?;
    info!(version = env!("CARGO_PKG_VERSION"), "starting");
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut asked = async || {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    };
    let handle = gateway.start().await?;
    let signal = asked().await;
    info!(signal, "stopping: nothing new is accepted");
    tokio::select! {
        in_time = handle.stop() => {
            if !in_time {
                warn!("the grace period is over: some requests were not answered");
            }
        }
        signal = asked() => warn!(signal, "stopping at once"),
    }
    broker.close(CLOSE_TIMEOUT).await;
    info!("stopped");
    Ok(())
}

async fn check(config: GatewayConfig, json: bool) -> anyhow::Result<()> {
    let (gateway, broker) = open(config)?;
    gateway.check().await?;
    match json {
        true => println!("{}", json!({ "usable": true })),
        false => println!("configuration, tokens, broker and store are usable"),
    }
    broker.close(CLOSE_TIMEOUT).await;
    Ok(())
}

fn token(command: TokenCommand, json: bool) -> anyhow::Result<()> {
    match command {
        TokenCommand::New { tenant, file } => {
            let (token, line) = TokenFile::new(file.tokens).add(&tenant)?;
            match json {
                true => {
                    println!("{}", json!({ "token": token, "name": line.name, "tenant": tenant }))
                }
                false => {
                    eprintln!("token {} of tenant {tenant}, which is shown this once:", line.name);
                    println!("{token}");
                }
            }
        }
        TokenCommand::Revoke { names, file } => {
            print_tokens(&TokenFile::new(file.tokens).revoke(&names)?, "revoked  ", json)?;
        }
        TokenCommand::List { file } => {
            print_tokens(&TokenFile::new(file.tokens).list()?, "", json)?
        }
    }
    Ok(())
}

fn print_tokens(lines: &[TokenLine], before: &str, json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(lines)?);
        return Ok(());
    }
    for TokenLine { tenant, name, created_ms, .. } in lines {
        println!("{before}{name}  {tenant}  made {created_ms}");
    }
    Ok(())
}
