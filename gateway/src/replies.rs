//! Replies on their way from the queues of the tenants into the store. A reply is settled when it is in
//! the store, and not before.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cipherscore_common::broker::{
    Broker, BrokerError, Delivery, Disposition, QueuePrefetch, Settlement, Subscription,
    declare_shared,
};
use cipherscore_common::message::{Message, Outcome, Payload, Reply};
use cipherscore_common::telemetry::trace;
use cipherscore_common::topology::{Declare, ReplyQueue, Topology};
use cipherscore_common::{
    BlobKind, BlobName, ErrorClass, GatewayStore, JobId, Pauses, StoreError, Tenant,
};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{Instrument as _, debug, info, warn};

use crate::kept::{Kept, correlated};
use crate::order::GATEWAY_CLIENT;
use crate::problem::{Problem, ProblemCode};
use crate::shared::Shared;
use crate::wake::Awaited;

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How long a job waits for the reply queue of its tenant.
const QUEUE_WAIT: Duration = Duration::from_secs(5);

fn queue_of(tenant: &Tenant) -> Option<ReplyQueue> {
    ReplyQueue::new(tenant, GATEWAY_CLIENT).ok()
}

impl<B: Broker, S: GatewayStore> Shared<B, S> {
    /// Takes replies until the gateway stops. Whatever is away is waited for.
    pub(crate) async fn take_replies(self: Arc<Self>) {
        let mut pauses = Pauses::new(FIRST_PAUSE, LONGEST_PAUSE);
        while !self.stop.is_cancelled() {
            let taken = tokio::select! {
                taken = self.take_until_error(&mut pauses) => taken,
                () = self.stop.cancelled() => Ok(()),
            };
            self.condition.is_consuming.store(false, Ordering::Relaxed);
            let Err(error) = taken else { return };
            // The broker may have lost them: they are declared again.
            self.reply_queues.send_replace(BTreeSet::new());
            let again_in = pauses.take();
            warn!(reason = %error, ?again_in, "no replies are taken for now");
            tokio::select! {
                () = sleep(again_in) => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    async fn take_until_error(self: &Arc<Self>, pauses: &mut Pauses) -> Result<(), BrokerError> {
        if self.settings.topology == Declare::Create {
            declare_shared(&self.broker).await?;
        }
        let mut taken_from = BTreeSet::new();
        // What is not kept when the subscription ends comes again in the next one.
        let mut keeping = JoinSet::new();
        let mut subscription = self.broker.subscribe(&[]).await?;
        loop {
            // Before looking, so that no change is missed.
            let changed = self.tokens_changed.notified();
            let mut is_one_missing = false;
            for tenant in self.tenants() {
                if taken_from.contains(&tenant) {
                    continue;
                }
                match self.start(&mut subscription, &tenant).await? {
                    true => _ = taken_from.insert(tenant),
                    false => is_one_missing = true,
                }
            }
            self.condition.is_consuming.store(true, Ordering::Relaxed);
            pauses.reset();
            let mut changed = std::pin::pin!(changed);
            let mut try_again = std::pin::pin!(sleep(LONGEST_PAUSE));
            loop {
                tokio::select! {
                    delivery = subscription.next() => {
                        let (shared, delivery) = (Arc::clone(self), delivery?);
                        // At most as many as the prefetch of each queue.
                        keeping.spawn(async move { shared.keep(delivery).await });
                    }
                    Some(_) = keeping.join_next() => {}
                    () = &mut changed => break,
                    () = &mut try_again, if is_one_missing => break,
                }
            }
        }
    }

    /// Begins to take the replies of a tenant; says no where the broker refuses its queue, on which no other
    /// tenant waits.
    async fn start(
        &self,
        subscription: &mut B::Subscription,
        tenant: &Tenant,
    ) -> Result<bool, BrokerError> {
        let Some(queue) = queue_of(tenant) else { return Ok(true) };
        match self.broker.declare(&Topology::of_client(&queue), self.settings.topology).await {
            Err(error) if !error.is_temporary() => {
                warn!(%tenant, reason = %error, "no replies are taken of this tenant");
                return Ok(false);
            }
            declared => declared?,
        }
        self.reply_queues.send_modify(|there| _ = there.insert(tenant.clone()));
        let prefetch = self.settings.prefetch.max(1);
        subscription.start(&QueuePrefetch { queue: queue.to_string(), prefetch }).await?;
        info!(%tenant, "replies are taken");
        Ok(true)
    }

    /// Until the replies of a tenant have a queue: one that came before would go to nobody.
    pub(crate) async fn wait_for_reply_queue(&self, tenant: &Tenant) -> Result<(), Problem> {
        let mut queues = self.reply_queues.subscribe();
        let there = timeout(QUEUE_WAIT, queues.wait_for(|there| there.contains(tenant))).await;
        match there.is_ok_and(|there| there.is_ok()) {
            true => Ok(()),
            false => {
                let detail = "the replies of this tenant have no queue yet";
                Err(Problem::new(ProblemCode::Unavailable, detail))
            }
        }
    }

    /// Writes a reply to the store, however long that takes, and settles it.
    async fn keep(&self, delivery: Delivery) {
        let Delivery { message, settlement, queue, .. } = delivery;
        let span = trace::receive(&message);
        async {
            let reply = Reply::from_message(&message);
            let tenant = queue.parse::<ReplyQueue>().map(|queue| queue.tenant().clone());
            let (Ok(reply), Ok(tenant)) = (reply, tenant) else {
                warn!(queue, "a reply cannot be read");
                return settle(settlement, Disposition::DeadLetter).await;
            };
            let job = reply.job;
            let client = correlated(message.correlation_id.as_deref()).0.map(str::to_owned);
            let mut pauses = Pauses::new(FIRST_PAUSE, LONGEST_PAUSE);
            while let Err(error) = self.keep_once(&tenant, &reply, &message).await {
                let again_in = pauses.take();
                warn!(%job, reason = %error, ?again_in, "a reply waits for the store");
                sleep(again_in).await;
            }
            settle(settlement, Disposition::Ack).await;
            self.metrics.result_kept(reply.outcome.name());
            debug!(%job, %tenant, outcome = reply.outcome.name(), "result kept");
            self.waiters.wake(&Awaited::Job(tenant.clone(), job));
            if let Some(client) = client {
                self.waiters.wake(&Awaited::Client(tenant, client));
            }
        }
        .instrument(span)
        .await;
    }

    async fn keep_once(
        &self,
        tenant: &Tenant,
        reply: &Reply,
        message: &Message,
    ) -> Result<(), StoreError> {
        let outputs = match &reply.outcome {
            Outcome::Scored(Payload::Stored(stored)) => Some(stored.sha256),
            _ => None,
        };
        if self.store.job_state(tenant, reply.job).await?.settled {
            // Nobody wants it any more.
            if let Some(outputs) = outputs {
                self.remove(tenant, BlobKind::Reply, outputs).await;
            }
            return Ok(());
        }
        let lease = self.result_lease(tenant);
        if let Some(id) = outputs {
            // They stay as long as what names them; where they are gone, whoever asks is told.
            let name = BlobName { tenant: tenant.clone(), kind: BlobKind::Reply, id };
            match self.store.touch(&name, Some(lease)).await {
                Err(error) if error.class() == ErrorClass::Unavailable => {
                    return Err(error);
                }
                _ => {}
            }
        }
        let (client, correlation_id) = correlated(message.correlation_id.as_deref());
        let kept = Kept::new(message.clone(), correlation_id.map(str::to_owned)).to_bytes();
        self.store.keep_result(tenant, reply.job, client, &kept, lease).await.map(drop)
    }
}

async fn settle(settlement: Settlement, disposition: Disposition) {
    // What the broker was not told comes again, and is kept once.
    let _ = settlement.settle(disposition).await;
}

/// A job id that no job has, to ask the store with.
pub(crate) const NO_JOB: JobId = JobId::from_bytes([0; 16]);
