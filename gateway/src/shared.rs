//! What all parts of a gateway share.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cipherscore_common::broker::Broker;
use cipherscore_common::{BlobKind, BlobName, Digest, GatewayStore, Lease, StoreError, Tenant};
use parking_lot::RwLock;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use crate::config::{CmlSection, GatewaySection};
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::receive::Pace;
use crate::tokens::Tokens;
use crate::wake::Waiters;

/// Longest that a request waits for a result.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(60);

/// What all parts of a gateway share.
pub(crate) struct Shared<B, S> {
    pub(crate) broker: B,
    pub(crate) store: S,
    pub(crate) settings: GatewaySection,
    pub(crate) cml: CmlSection,
    pub(crate) limits: Limits,
    pub(crate) tokens: RwLock<Arc<Tokens>>,
    /// Told when the tokens are others.
    pub(crate) tokens_changed: Notify,
    /// Tenants whose reply queue is there, and bound.
    pub(crate) reply_queues: watch::Sender<BTreeSet<Tenant>>,
    pub(crate) waiters: Waiters,
    pub(crate) metrics: Metrics,
    pub(crate) condition: GatewayCondition,
    /// Whatever must be done even if nobody waits for it any more.
    pub(crate) tasks: TaskTracker,
    /// Nothing new is begun, and nobody is kept waiting.
    pub(crate) stop: CancellationToken,
}

/// How broker and store were found.
#[derive(Default)]
pub(crate) struct GatewayCondition {
    /// Replies are being taken.
    pub(crate) is_consuming: AtomicBool,
    /// The store answered when it was asked last.
    pub(crate) does_store_answer: AtomicBool,
}

impl GatewayCondition {
    pub(crate) fn is_ready(&self) -> bool {
        self.is_consuming.load(Ordering::Relaxed) && self.does_store_answer.load(Ordering::Relaxed)
    }
}

impl<B: Broker, S: GatewayStore> Shared<B, S> {
    pub(crate) fn pace(&self) -> Pace {
        Pace::of(&self.settings)
    }

    /// Everybody whose replies are taken: who has a token, and Concrete ML's clients.
    pub(crate) fn tenants(&self) -> BTreeSet<Tenant> {
        let tokens = Arc::clone(&self.tokens.read());
        let mut tenants: BTreeSet<_> = tokens.tenants().cloned().collect();
        if !self.cml.models.is_empty() {
            tenants.insert(self.cml.tenant.clone());
        }
        tenants
    }

    /// How long results of a tenant stay, and what is noted of its jobs.
    pub(crate) fn result_lease(&self, tenant: &Tenant) -> Lease {
        let is_anonymous = *tenant == self.cml.tenant && !self.cml.models.is_empty();
        if is_anonymous { self.cml.lease } else { self.settings.result_lease }
    }

    /// Takes a payload out of the store, if it is there. What stays goes with its lease.
    pub(crate) async fn remove(&self, tenant: &Tenant, kind: BlobKind, id: Digest) {
        let name = BlobName { tenant: tenant.clone(), kind, id };
        let removed: Result<(), StoreError> = self.store.remove(&name).await;
        if let Err(error) = removed {
            debug!(%name, reason = %error, "not removed");
        }
    }
}
