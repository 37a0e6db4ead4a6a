//! A gateway from its configuration to its end.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use cipherscore_common::broker::Broker;
use cipherscore_common::{Digest, GatewayStore, StoreError, health};
use parking_lot::RwLock;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::config::GatewayConfig;
use crate::health::GatewayHealth;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::replies::NO_JOB;
use crate::routes::router;
use crate::server::serve;
use crate::shared::{GatewayCondition, Shared};
use crate::tls::Certificate;
use crate::tokens::{self, Tokens};
use crate::wake::Waiters;

/// How often the file of tokens is looked at.
const TOKENS_READ_EVERY: Duration = Duration::from_secs(2);

/// A gateway that is ready to begin.
pub struct Gateway<B, S> {
    pub(crate) shared: Arc<Shared<B, S>>,
    config: GatewayConfig,
    certificate: Option<Arc<Certificate>>,
}

/// A gateway that runs.
pub struct GatewayHandle {
    /// Where it listens.
    pub address: SocketAddr,
    /// Where `/readyz` is.
    pub health: Option<SocketAddr>,
    stop: CancellationToken,
    tasks: TaskTracker,
    grace_period: Duration,
}

impl<B: Broker, S: GatewayStore> Gateway<B, S> {
    /// Reads tokens and certificate. Connects to nothing yet.
    pub fn open(config: GatewayConfig, broker: B, store: S) -> anyhow::Result<Self> {
        let certificate = Certificate::open(&config.tls)?;
        let listen = config.gateway.listen;
        ensure!(
            certificate.is_some() || config.tls.off || listen.ip().is_loopback(),
            "without a certificate, tokens would go over the network in clear: set \
             tls.certificate_file and tls.key_file, or tls.off where something else before the \
             gateway speaks TLS"
        );
        let file = config.gateway.tokens_file.as_deref();
        let has_models = !config.cml.models.is_empty();
        ensure!(
            file.is_some() || has_models,
            "gateway.tokens_file is not set: nobody could ask anything. Make one with \
             `cipherscore gateway token new`"
        );
        let lines = file.map(tokens::read).transpose()?.unwrap_or_default();
        let own = config.tenants.clone();
        let limits = Limits::new(config.limits.clone(), own, config.gateway.max_transfers);
        let shared = Shared {
            broker,
            store,
            settings: config.gateway.clone(),
            cml: config.cml.clone(),
            limits,
            tokens: RwLock::new(Arc::new(Tokens::of(lines))),
            tokens_changed: Notify::new(),
            reply_queues: watch::Sender::default(),
            waiters: Waiters::default(),
            metrics: Metrics::default(),
            condition: GatewayCondition::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        Ok(Self { shared: Arc::new(shared), config, certificate })
    }

    /// Asks broker and store once, whose addresses may be wrong.
    pub async fn check(&self) -> anyhow::Result<()> {
        self.shared.broker.queue_state("cs.unrouted").await.context("broker")?;
        let tenant = self.shared.settings.model_tenant.clone();
        let asked: Result<_, StoreError> = self.shared.store.job_state(&tenant, NO_JOB).await;
        asked.map(drop).context("store")
    }

    /// Begins to take replies, and to answer.
    pub async fn start(self) -> anyhow::Result<GatewayHandle> {
        let Self { shared, config, certificate } = self;
        let listen = config.gateway.listen;
        let listener = TcpListener::bind(listen).await;
        let listener = listener.with_context(|| format!("gateway.listen, {listen}"))?;
        let address = listener.local_addr()?;
        let health = match config.health.listen {
            None => None,
            Some(listen) => {
                let bound = TcpListener::bind(listen).await;
                let bound = bound.with_context(|| format!("health.listen, {listen}"))?;
                let address = bound.local_addr()?;
                tokio::spawn(health::serve(bound, Arc::new(GatewayHealth(Arc::clone(&shared)))));
                Some(address)
            }
        };
        let acceptor = certificate.as_ref().map(Certificate::acceptor).transpose()?;
        if let Some(certificate) = certificate {
            let (stop, watch) = (shared.stop.clone(), certificate.watch());
            tokio::spawn(async move { stop.run_until_cancelled(watch).await });
        }
        if let Some(file) = config.gateway.tokens_file {
            let (stop, watch) = (shared.stop.clone(), Arc::clone(&shared).watch_tokens(file));
            tokio::spawn(async move { stop.run_until_cancelled(watch).await });
        }
        tokio::spawn(Arc::clone(&shared).watch_store());
        let tasks = shared.tasks.clone();
        tasks.spawn(Arc::clone(&shared).take_replies());
        let (stop, grace_period) = (shared.stop.clone(), shared.settings.grace_period);
        let is_tls = acceptor.is_some();
        info!(%address, tls = is_tls, "listening");
        let router = router(&shared);
        tasks.spawn(serve(listener, acceptor, router, shared));
        Ok(GatewayHandle { address, health, stop, tasks, grace_period })
    }
}

impl<B: Broker, S: GatewayStore> Shared<B, S> {
    /// Reads the file of tokens again when it changes. What cannot be read leaves the old ones.
    async fn watch_tokens(self: Arc<Self>, file: PathBuf) {
        let digest = |text: std::io::Result<Vec<u8>>| text.ok().map(|text| Digest::of(&text));
        let mut before = digest(std::fs::read(&file));
        loop {
            sleep(TOKENS_READ_EVERY).await;
            let now = digest(tokio::fs::read(&file).await);
            if now == before {
                continue;
            }
            before = now;
            match tokens::read(&file) {
                Ok(lines) => {
                    info!(tokens = lines.len(), "the tokens were read again");
                    *self.tokens.write() = Arc::new(Tokens::of(lines));
                    self.tokens_changed.notify_waiters();
                }
                Err(error) => {
                    warn!(reason = format!("{error:#}"), "the old tokens stay valid");
                }
            }
        }
    }
}

impl GatewayHandle {
    /// Accepts nothing new, answers whoever waits, and ends within the grace period. Says whether all
    /// requests were answered.
    pub async fn stop(self) -> bool {
        self.stop.cancel();
        self.tasks.close();
        timeout(self.grace_period, self.tasks.wait()).await.is_ok()
    }
}
