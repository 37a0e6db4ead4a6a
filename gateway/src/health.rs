//! `/livez`, `/readyz` and `/metrics`, for whoever runs the gateway.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cipherscore_common::broker::Broker;
use cipherscore_common::health::{Condition, Health};
use cipherscore_common::{GatewayStore, Tenant};
use serde::Serialize;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::metrics::GatewayMoment;
use crate::replies::NO_JOB;
use crate::shared::Shared;

/// How often the store is asked.
const ASKED_EVERY: Duration = Duration::from_secs(2);

/// What `/readyz` says.
#[derive(Debug, Serialize)]
struct GatewayReadiness {
    /// Whether both of it is so.
    ready: bool,
    /// Replies are being taken.
    consuming: bool,
    /// The store answers.
    store: bool,
}

/// A gateway, as whoever runs it sees it.
pub(crate) struct GatewayHealth<B, S>(pub(crate) Arc<Shared<B, S>>);

impl<B: Broker, S: GatewayStore> Health for GatewayHealth<B, S> {
    /// What cannot go on ends the process; this is answered by its runtime.
    fn liveness(&self) -> Condition {
        Condition::new(true, &serde_json::json!({ "alive": true }))
    }

    fn readiness(&self) -> Condition {
        let condition = &self.0.condition;
        let consuming = condition.is_consuming.load(Ordering::Relaxed);
        let store = condition.does_store_answer.load(Ordering::Relaxed);
        let ready = condition.is_ready() && !self.0.stop.is_cancelled();
        Condition::new(ready, &GatewayReadiness { ready, consuming, store })
    }

    fn metrics(&self) -> String {
        let condition = &self.0.condition;
        self.0.metrics.render(GatewayMoment {
            transfers: self.0.limits.transfers(),
            waiting: self.0.waiters.len(),
            is_consuming: condition.is_consuming.load(Ordering::Relaxed),
            does_store_answer: condition.does_store_answer.load(Ordering::Relaxed),
        })
    }
}

impl<B: Broker, S: GatewayStore> Shared<B, S> {
    /// Asks the store until the gateway stops.
    pub(crate) async fn watch_store(self: Arc<Self>) {
        while !self.stop.is_cancelled() {
            let answer = self.store.job_state(&Tenant::default(), NO_JOB).await;
            let before = &self.condition.does_store_answer;
            match (before.swap(answer.is_ok(), Ordering::Relaxed), answer) {
                (true, Err(error)) => warn!(reason = %error, "the store does not answer"),
                (false, Ok(_)) => info!("the store answers"),
                _ => {}
            }
            tokio::select! {
                () = sleep(ASKED_EVERY) => {}
                () = self.stop.cancelled() => {}
            }
        }
    }
}
