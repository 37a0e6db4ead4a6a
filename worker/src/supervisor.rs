//! Keeps a worker consuming: connects, declares, subscribes, hands out slots, and begins again
//! when the broker goes away.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cipherscore_common::ModelId;
use cipherscore_common::broker::{Broker, BrokerError, Delivery, QueuePrefetch, Subscription};
use cipherscore_common::topology::{Declare, Lane, Topology, job_queue};
use cipherscore_common::{EvaluationKeyId, Store};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::models::Models;
use crate::outbox;
use crate::pipeline;
use crate::settle::settle;
use crate::shared::Shared;
use crate::stop::StopReason;
use crate::window::Window;

/// First pause before a new connection.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Longest pause before a new connection; the broker is back no longer than this before us.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How often the supervisor looks whether all is well.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// After what time without a delivery, while messages wait, a subscription counts as dead.
const SILENCE: Duration = Duration::from_secs(60);

/// How a worker consumes.
#[derive(Debug, Clone)]
pub(crate) struct Consumption {
    /// Who makes exchanges and queues.
    pub(crate) declare: Declare,
    /// Deliveries beyond the slots, of models with bootstraps, for each queue.
    pub(crate) window: u16,
    /// Deliveries of linear models, for each queue.
    pub(crate) linear_prefetch: u16,
    /// How long running jobs may take at the end.
    pub(crate) grace_period: Duration,
}

/// Consumes until `drain` is cancelled; then ends what runs, within the grace period.
pub(crate) async fn supervise<B: Broker, S: Store>(
    shared: Arc<Shared<B, S>>,
    consumption: Consumption,
    models_changed: Arc<Notify>,
    drain: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(shared.slots));
    let supervisor =
        Supervisor { shared, consumption, models_changed, drain, slots, jobs: TaskTracker::new() };
    let mut pause = FIRST_PAUSE;
    loop {
        let started = Instant::now();
        let error = match supervisor.consume().await {
            Ok(()) => return,
            Err(error) => error,
        };
        supervisor.shared.services.set_consuming(false);
        if started.elapsed() > LONGEST_PAUSE {
            pause = FIRST_PAUSE;
        }
        warn!(%error, pause = ?pause, "not consuming; trying again");
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
            () = supervisor.drain.cancelled() => return supervisor.finish_jobs().await,
        }
        supervisor.shared.services.tick();
    }
}

struct Supervisor<B, S> {
    shared: Arc<Shared<B, S>>,
    consumption: Consumption,
    models_changed: Arc<Notify>,
    drain: CancellationToken,
    slots: Arc<Semaphore>,
    jobs: TaskTracker,
}

impl<B: Broker, S: Store> Supervisor<B, S> {
    /// One subscription, from its beginning to the end of the worker or of the connection.
    async fn consume(&self) -> Result<(), BrokerError> {
        let mut models = self.shared.models();
        self.declare(&models).await?;
        let queues: Vec<_> = models.ids().flat_map(|id| self.queues(&models, id)).collect();
        let mut subscription = self.shared.broker.subscribe(&queues).await?;
        self.shared.services.set_consuming(true);
        info!(queues = queues.len(), "consuming");
        let mut store_watch = self.shared.services.watch_store();
        let mut look = tokio::time::interval(LOOK_INTERVAL);
        let mut window = Window::default();
        let mut last_delivery = Instant::now();
        loop {
            let begins = !window.is_empty() && !self.shared.services.is_store_away();
            let needed = window.slots_of_next(self.shared.slots, &self.is_here());
            let needed = u32::try_from(needed).unwrap_or(1);
            tokio::select! {
                () = self.drain.cancelled() => {
                    self.end(&mut subscription, window, &models).await;
                    return Ok(());
                }
                slot = self.slots.clone().acquire_many_owned(needed), if begins => {
                    let delivery = window.take(&self.is_here());
                    if let (Ok(slot), Some(delivery)) = (slot, delivery) {
                        self.begin(delivery, slot);
                    }
                }
                delivery = subscription.next() => {
                    last_delivery = Instant::now();
                    window.push(delivery?);
                }
                () = self.models_changed.notified() => {
                    models = self.follow(&mut subscription, &models).await?;
                }
                _ = store_watch.changed() => {}
                _ = look.tick() => {
                    self.shared.services.tick();
                    let idle = window.is_empty() && self.shared.in_flight.len() == 0;
                    if idle && last_delivery.elapsed() > SILENCE {
                        last_delivery = Instant::now();
                        self.require_silence(&models).await?;
                    }
                }
            }
        }
    }

    fn begin(&self, delivery: Delivery, slot: tokio::sync::OwnedSemaphorePermit) {
        let shared = self.shared.clone();
        self.jobs.spawn(async move { pipeline::run(&shared, delivery, slot).await });
    }

    fn is_here(&self) -> impl Fn(&str, EvaluationKeyId) -> bool {
        |tenant, key| self.shared.memory.holds(tenant, key)
    }

    async fn declare(&self, models: &Models) -> Result<(), BrokerError> {
        let (broker, declare) = (&self.shared.broker, self.consumption.declare);
        // What is shared is looked at first: where the operator made it, a worker need not be
        // allowed to make it, which would be to delete it as well.
        let (shared, looks) = (Topology::shared(), declare == Declare::Create);
        let found = broker.declare(&shared, if looks { Declare::Verify } else { declare }).await;
        match found {
            Err(error) if looks && !error.is_temporary() => {
                broker.declare(&shared, Declare::Create).await?;
            }
            found => found?,
        }
        for id in models.ids() {
            broker.declare(&Topology::of_model(id), declare).await?;
        }
        Ok(())
    }

    /// The queues of a model. Jobs of linear models are so short that the way to the broker and
    /// back counts; of the others few are taken, so that other workers get their share.
    fn queues(&self, models: &Models, id: ModelId) -> Vec<QueuePrefetch> {
        let slots = u16::try_from(self.shared.slots).unwrap_or(u16::MAX);
        let linear = models.get(id).is_some_and(|model| model.cost().is_linear());
        let prefetch = match linear {
            true => self.consumption.linear_prefetch,
            false => slots.saturating_add(self.consumption.window),
        };
        let queue = |lane| QueuePrefetch { queue: job_queue(id, lane), prefetch: prefetch.max(1) };
        Lane::ALL.map(queue).into()
    }

    /// Takes from the queues of models that came, and no more from those that went.
    async fn follow(
        &self,
        subscription: &mut B::Subscription,
        before: &Models,
    ) -> Result<Arc<Models>, BrokerError> {
        let models = self.shared.models();
        for id in models.ids().filter(|id| before.get(*id).is_none()) {
            let declare = self.consumption.declare;
            self.shared.broker.declare(&Topology::of_model(id), declare).await?;
            for queue in self.queues(&models, id) {
                subscription.start(&queue).await?;
            }
        }
        for id in before.ids().filter(|id| models.get(*id).is_none()) {
            for lane in Lane::ALL {
                subscription.stop(&job_queue(id, lane)).await?;
            }
        }
        Ok(models)
    }

    /// After a long silence: whether there is indeed nothing to deliver.
    async fn require_silence(&self, models: &Models) -> Result<(), BrokerError> {
        for queue in models.ids().flat_map(|id| Lane::ALL.map(|lane| job_queue(id, lane))) {
            let state = self.shared.broker.queue_state(&queue).await?;
            if state.is_some_and(|state| state.messages > 0) {
                let reason = format!("messages wait in {queue}, and none is delivered");
                return Err(BrokerError::Unavailable { server: "the broker".into(), reason });
            }
        }
        Ok(())
    }

    /// The orderly end: nothing new, what waits goes back, what runs is finished.
    async fn end(&self, subscription: &mut B::Subscription, mut window: Window, models: &Models) {
        self.shared.services.set_consuming(false);
        for queue in models.ids().flat_map(|id| Lane::ALL.map(|lane| job_queue(id, lane))) {
            if let Err(error) = subscription.stop(&queue).await {
                warn!(%error, "the broker was not told to stop");
            }
        }
        for delivery in window.drain() {
            let Delivery { message, returned, settlement, .. } = delivery;
            let disposition = outbox::hand_on(&self.shared, &message, returned).await;
            settle(Some(disposition), vec![settlement]).await;
        }
        self.finish_jobs().await;
    }

    async fn finish_jobs(&self) {
        self.jobs.close();
        let running = self.jobs.len();
        info!(running, grace_period = ?self.consumption.grace_period, "stopping");
        let finished = tokio::time::timeout(self.consumption.grace_period, self.jobs.wait()).await;
        if finished.is_err() {
            let left = self.jobs.len();
            warn!(left, "the grace period is over; the broker gives these jobs to other workers");
            self.shared.in_flight.stop_all(StopReason::Shutdown);
            self.shared.abort.cancel();
        }
    }
}
