//! A worker in this process: put together, started, stopped.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;

use anyhow::{Context, ensure};
use cipherscore_common::broker::Broker;
use cipherscore_common::topology::{DEAD, Lane, job_queue};
use cipherscore_common::{ModelId, Presence, Store};
use cipherscore_concrete::recorder::RecorderCommand;
use cipherscore_engine::evaluator::Evaluator;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::config::WorkerConfig;
use crate::models::{Loader, Models};
use crate::shared::Shared;
use crate::slots::Pools;
use crate::supervisor::{Consumption, supervise};
use crate::{health, heartbeat};

/// A worker that is put together and has not begun.
pub struct Worker<B, S> {
    config: WorkerConfig,
    shared: Arc<Shared<B, S>>,
    loader: Arc<Loader>,
}

/// A worker that runs. Dropped, it runs on.
pub struct WorkerHandle<B, S> {
    shared: Arc<Shared<B, S>>,
    drain: CancellationToken,
    /// Whether it ended in order.
    ended: JoinHandle<bool>,
    health_address: Option<SocketAddr>,
}

impl<B: Broker, S: Store> WorkerHandle<B, S> {
    /// How it describes itself at this moment.
    pub fn presence(&self) -> Presence {
        self.shared.presence()
    }

    /// Where `/livez` and `/readyz` are, if they are: also which port the system chose for port 0.
    pub fn health_address(&self) -> Option<SocketAddr> {
        self.health_address
    }

    /// How many evaluation keys it has fetched from the store.
    pub fn key_fetches(&self) -> u64 {
        self.shared.key_fetches()
    }

    /// Asks the worker to take nothing new and to finish what it has, within the grace period.
    pub fn drain(&self) {
        self.drain.cancel();
    }

    /// Ends the worker without finishing anything: what it has is left to the broker.
    pub fn abort(&self) {
        self.shared.abort.cancel();
        self.ended.abort();
    }

    /// Waits until the worker has ended, which it does when it was asked to. Says whether it did
    /// so in order: not because the broker refuses it, nor by a panic of its supervisor.
    pub async fn ended(&mut self) -> bool {
        (&mut self.ended).await.unwrap_or_else(|error| !error.is_panic())
    }
}

impl<B: Broker + Clone, S: Store> Worker<B, S> {
    /// Opens the models that the configuration names.
    pub async fn open(
        config: WorkerConfig,
        broker: B,
        store: S,
        recorder: RecorderCommand,
    ) -> anyhow::Result<Self> {
        let pools = Pools::start(config.worker.threads.map_or(0, NonZeroUsize::get))?;
        let threads = NonZeroUsize::new(pools.threads()).context("no threads")?;
        let loader = Arc::new(Loader { recorder, threads });
        let models = load(&config, &loader, &store).await?;
        let shared = Shared::new(&config.worker, broker, store, pools, models);
        Ok(Self { config, shared: Arc::new(shared), loader })
    }

    /// Adds a model that is not in the folder nor in the store.
    pub fn add_model(&mut self, evaluator: Arc<dyn Evaluator>) -> ModelId {
        let mut models = Models::clone(&self.shared.models());
        let id = models.insert(Arc::new(evaluator.into()));
        self.shared.replace_models(models);
        id
    }

    /// The models.
    pub fn models(&self) -> Vec<ModelId> {
        self.shared.models().ids().collect()
    }

    /// The names of a model's forms; nothing of a model of one form without a name.
    pub fn forms(&self, id: ModelId) -> String {
        self.shared.models().get(id).map(ToString::to_string).unwrap_or_default()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Asks both services whether they are there and let us do what we need.
    pub async fn check(&self) -> anyhow::Result<()> {
        let shared = &self.shared;
        require_models(&self.config, &shared.models())?;
        shared.store.workers().await.context("the store")?;
        shared.broker.queue_state(DEAD).await.context("the broker")?;
        for id in self.models() {
            for lane in Lane::ALL {
                shared.broker.queue_state(&job_queue(id, lane)).await.context("the broker")?;
            }
        }
        Ok(())
    }

    /// Starts to take jobs.
    pub async fn start(self) -> anyhow::Result<WorkerHandle<B, S>> {
        let Self { config, shared, loader } = self;
        require_models(&config, &shared.models())?;
        let changed = Arc::new(Notify::new());
        let mut beside = JoinSet::new();
        let mut health_address = None;
        if let Some(address) = config.health.listen {
            let listener = TcpListener::bind(address).await.with_context(|| {
                format!("health.listen: {address} cannot be used; set another, or \"\" for none")
            })?;
            let address = listener.local_addr()?;
            health_address = Some(address);
            info!(%address, "/livez and /readyz");
            let shared = shared.clone();
            beside.spawn(async move {
                if let Err(error) = health::serve(listener, shared).await {
                    error!(%error, "/livez and /readyz ended");
                }
            });
        }
        beside.spawn(heartbeat::announce(shared.clone()));
        beside.spawn(heartbeat::hear_of_cancelled(shared.clone()));
        if let Some(folder) = config.models.folder.clone() {
            let interval = config.models.reload_interval;
            let shared = shared.clone();
            beside.spawn(heartbeat::reload(shared, loader, folder, interval, changed.clone()));
        }
        let section = &config.worker;
        let slots = u16::try_from(shared.slots.all()).unwrap_or(u16::MAX);
        let consumption = Consumption {
            declare: section.topology,
            window: section.window.unwrap_or(slots),
            linear_prefetch: section.linear_prefetch,
            grace_period: section.grace_period,
        };
        let drain = CancellationToken::new();
        let supervised = supervise(shared.clone(), consumption, changed, drain.clone());
        let listed = shared.clone();
        let ended = tokio::spawn(async move {
            let in_order = supervised.await;
            beside.shutdown().await;
            if let Err(error) = listed.store.leave(&listed.name).await {
                warn!(%error, "the worker stays listed for a while");
            }
            in_order
        });
        Ok(WorkerHandle { shared, drain, ended, health_address })
    }
}

/// A folder may be empty for now.
fn require_models(config: &WorkerConfig, models: &Models) -> anyhow::Result<()> {
    ensure!(
        !models.is_empty() || config.models.folder.is_some(),
        "there is no model: name a folder (--models, models.folder) or ids in the store (models.ids)"
    );
    Ok(())
}

async fn load<S: Store>(
    config: &WorkerConfig,
    loader: &Arc<Loader>,
    store: &S,
) -> anyhow::Result<Models> {
    let mut models = Models::default();
    if let Some(folder) = config.models.folder.clone() {
        let loader = loader.clone();
        models = tokio::task::spawn_blocking(move || loader.load(&folder)).await??;
    }
    for id in &config.models.ids {
        models.insert(loader.fetch(store, &config.models.tenant, *id).await?);
    }
    Ok(models)
}
