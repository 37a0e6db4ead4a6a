//! What a worker does beside its jobs, again and again: says that it is there, notices that the
//! store went and came back, hears of cancelled jobs, looks for other models.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cipherscore_common::broker::Broker;
use cipherscore_common::{ErrorClass, PRESENCE_LEASE, Store};
use tokio::sync::Notify;
use tracing::{debug, error, info, warn};

use crate::models::{Loader, Models};
use crate::shared::Shared;
use crate::stop::StopReason;

/// How often a worker says that it is there: often enough to miss one.
const PRESENCE_INTERVAL: Duration = Duration::from_secs(PRESENCE_LEASE.as_secs() / 3);
/// How often a store that is away is asked.
const AWAY_INTERVAL: Duration = Duration::from_secs(1);
/// How often running jobs are looked up among the cancelled ones.
const CANCEL_INTERVAL: Duration = Duration::from_secs(1);

/// Says that the worker is there, and so notices whether the store is.
pub(crate) async fn announce<B: Broker, S: Store>(shared: Arc<Shared<B, S>>) {
    let mut store_watch = shared.services.watch_store();
    loop {
        let mut presence = shared.presence();
        let longest_wait = shared.metrics.take_longest_wait_ms();
        presence.activity.longest_wait_ms = longest_wait;
        let announced = shared.store.announce(&presence).await;
        if announced.is_err() {
            shared.metrics.keep_longest_wait_ms(longest_wait);
        }
        match announced {
            Ok(()) => shared.services.store_is_back(),
            Err(error) if error.class() == ErrorClass::Unavailable => {
                shared.services.store_is_away(&error.to_string());
            }
            // It answers: jobs can be done, though nobody sees this worker.
            Err(error) => {
                warn!(%error, "this worker cannot be listed");
                shared.services.store_is_back();
            }
        }
        let away = shared.services.is_store_away();
        store_watch.mark_unchanged();
        tokio::select! {
            () = tokio::time::sleep(if away { AWAY_INTERVAL } else { PRESENCE_INTERVAL }) => {}
            // Somebody found it away: asked soon, and not at once, again.
            _ = store_watch.changed(), if !away => tokio::time::sleep(AWAY_INTERVAL).await,
        }
    }
}

/// Ends running jobs that nobody wants any more.
pub(crate) async fn hear_of_cancelled<B: Broker, S: Store>(shared: Arc<Shared<B, S>>) {
    loop {
        tokio::time::sleep(CANCEL_INTERVAL).await;
        let running = shared.in_flight.names();
        if running.is_empty() {
            continue;
        }
        match shared.store.cancelled(&running).await {
            Ok(cancelled) => {
                let cancelled = running.iter().zip(cancelled).filter(|(_, is)| *is);
                cancelled.for_each(|(name, _)| shared.in_flight.stop(name, StopReason::Cancelled));
            }
            // The jobs go on: a store that is away shows elsewhere.
            Err(error) => debug!(%error, "cancelled jobs are not known"),
        }
    }
}

/// Reads the folder of models again and again; those from the store stay.
pub(crate) async fn reload<B: Broker, S: Store>(
    shared: Arc<Shared<B, S>>,
    loader: Arc<Loader>,
    folder: PathBuf,
    interval: Duration,
    changed: Arc<Notify>,
) {
    loop {
        tokio::time::sleep(interval).await;
        let (loader, folder, before) = (loader.clone(), folder.clone(), shared.models());
        let read = move || -> anyhow::Result<(Models, bool)> {
            let models = loader.reload(&folder, &before)?;
            let others = !models.ids().eq(before.ids());
            Ok((models, others))
        };
        match tokio::task::spawn_blocking(read).await {
            Ok(Ok((models, others))) => {
                let count = models.ids().count();
                shared.replace_models(models);
                if others {
                    info!(models = count, "the models changed");
                    changed.notify_one();
                }
            }
            Ok(Err(error)) => error!("the models cannot be read: {error:#}"),
            Err(error) => error!(%error, "the models could not be read"),
        }
    }
}
