//! `cipherscore bridge`

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use age::secrecy::SecretString;
use anyhow::{Context, ensure};
use cipherscore_common::config::{LogFormat, load};
use cipherscore_common::{health, telemetry};
use cipherscore_producer::bridge::settings::{BridgeSettings, EndKind, SourceKind};
use cipherscore_producer::bridge::{BridgeReport, BridgeState, Passphrase, open_ends, run};
use cipherscore_producer::fleet::FleetAccess;
use cipherscore_producer::stream::Stream;
use clap::Args;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

use super::fleet::GatewayOptions;
use super::services::BrokerUrl;
use super::store::StoreUrl;
use crate::exit::Exit;
use crate::passphrase::PassphraseSource;
use crate::print::say;

/// What its traces are called.
const SERVICE: &str = "cipherscore-bridge";
/// How long the end of the connections may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Score events as they come: from a queue, lines of standard input, or whoever asks over HTTP, to a queue,
/// standard output, or whoever asked.
///
/// Runs inside the data owner's walls. Events are clear, and so are scores; broker, store and workers of
/// the fleet see ciphertexts only. An event is settled at its source when its score is safe at the sink,
/// and not before: killed and started again, it scores what was not settled. Scores of one event have
/// one key. Events that cannot be scored go to the dead letters, with a reason.
///
/// Everything is in the configuration, but for the fleet's broker and store, or its gateway, which may be
/// named here:
/// config/bridge.toml of the sources explains every key, and
/// docs/pipelines.md leads through the first one. SIGTERM and Ctrl-C: nothing new is taken, what is
/// underway is finished within bridge.grace_period, a second signal stops at once.
///
/// Exit code: 0 stopped in order, or all lines scored; 2 some lines are dead letters; 1 an error; 130
/// interrupted before the last line.
#[derive(Args)]
pub(crate) struct Bridge {
    /// Configuration file.
    #[arg(long, value_name = "FILE", env = "CIPHERSCORE_BRIDGE_CONFIG")]
    config: PathBuf,

    // All of the fleet.
    #[command(flatten)]
    broker: BrokerUrl,

    #[command(flatten)]
    store: StoreUrl,

    #[command(flatten)]
    gateway: GatewayOptions,

    /// How log lines are written to standard error: human or json.
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<LogFormat>,

    /// What is logged: off, error, warn, info, debug, trace, or directives such as
    /// info,cipherscore_producer=debug.
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,

    #[command(flatten)]
    passphrase: PassphraseSource,
}

/// How it was asked to end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// Once, or not at all.
    InOrder,
    /// A second time.
    AtOnce,
}

impl Bridge {
    pub(crate) fn run(self, json: bool) -> anyhow::Result<ExitCode> {
        let mut settings: BridgeSettings = load(Some(&self.config), &[])?;
        self.broker.name(&mut settings.broker);
        self.store.name(&mut settings.store);
        let direct = self.broker.is_named() || self.store.is_named();
        let BridgeSettings { gateway, broker, store, .. } = &mut settings;
        self.gateway.name(direct, gateway, [broker, store])?;
        settings.log.format = self.log_format.unwrap_or(settings.log.format);
        settings.log.level = self.log_level.clone().unwrap_or(settings.log.level);
        let has_lines = settings.sink_kind() == EndKind::Lines;
        ensure!(!(json && has_lines), "--json prints on standard output, where the scores go");
        telemetry::start(SERVICE, settings.log.format, &settings.log.level)?;
        let is_of_lines = settings.source.kind == SourceKind::Lines;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let bridged = runtime.block_on(bridge(settings, self.passphrase()));
        // What nobody waits for any more must not hold up the end: a line of input may never come.
        runtime.shutdown_background();
        telemetry::stop();
        let (report, ended) = bridged?;
        match json {
            true => say!("{}", serde_json::to_string_pretty(&report)?),
            false => print(&report),
        }
        Ok(exit(&report, ended, is_of_lines).into())
    }

    /// It is asked once.
    fn passphrase(&self) -> Passphrase {
        let (source, asked) = (self.passphrase.clone(), OnceLock::<Option<SecretString>>::new());
        Arc::new(move || {
            if let Some(known) = asked.get() {
                return Ok(known.clone());
            }
            let given = source.existing()?;
            Ok(asked.get_or_init(|| given).clone())
        })
    }
}

async fn bridge(
    settings: BridgeSettings,
    passphrase: Passphrase,
) -> anyhow::Result<(BridgeReport, Ended)> {
    let state = Arc::new(BridgeState::default());
    let mut producer = settings.producer.clone();
    let opened = FleetAccess::open(settings.fleet(), &mut producer, "cipherscore bridge").await?;
    let listener = match settings.health.listen {
        None => None,
        Some(address) => {
            let bound = TcpListener::bind(address).await;
            Some(bound.with_context(|| format!("health.listen, {address}"))?)
        }
    };
    if let Some(listener) = listener {
        let address = listener.local_addr()?;
        info!(%address, "health");
        tokio::spawn(health::serve(listener, Arc::clone(&state)));
    }
    let FleetAccess { broker, store } = opened;
    let fleet = Stream::open(Arc::clone(&broker), store, producer, state.events()).await?;
    let ends = open_ends(&settings, &state).await?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let asked_twice = async {
        let mut stop = Some(stop);
        loop {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            info!(signal = name, "stopping");
            match stop.take() {
                Some(stop) => _ = stop.send(()),
                None => return,
            }
        }
    };
    let until_stopped = async { _ = stopped.await };
    let counted = Arc::clone(&state);
    let ended = tokio::select! {
        report = run(fleet, ends, settings, passphrase, state, until_stopped) => {
            (report?, Ended::InOrder)
        }
        () = asked_twice => {
            let counts = counted.counts();
            (BridgeReport { counts, is_complete: false }, Ended::AtOnce)
        }
    };
    broker.close(CLOSE_TIMEOUT).await;
    Ok(ended)
}

fn print(report: &BridgeReport) {
    let counts = &report.counts;
    eprintln!(
        "{} events scored, {} dead letters, {} came again, {} left to their source",
        counts.scored,
        counts.dead_lettered,
        counts.duplicates,
        counts.underway()
    );
}

/// Lines cannot be left to anybody: who reads the scores must know that there should be more.
fn exit(report: &BridgeReport, ended: Ended, is_of_lines: bool) -> Exit {
    match report.is_complete {
        true if report.counts.dead_lettered > 0 => Exit::SomeRowsFailed,
        true => Exit::Done,
        false if is_of_lines || ended == Ended::AtOnce => Exit::Interrupted,
        false => Exit::Done,
    }
}
