//! Keeps a worker consuming: connects, declares, subscribes, hands out slots, and begins again
//! when the broker goes away.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cipherscore_common::ModelId;
use cipherscore_common::broker::{
    Broker, BrokerError, Delivery, QueuePrefetch, Subscription, declare_shared,
};
use cipherscore_common::topology::{Declare, Lane, Topology, job_queue};
use cipherscore_common::{EvaluationKeyId, Pauses, Store};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::forms::ModelForms;
use crate::in_flight::Name;
use crate::outbox;
use crate::pipeline;
use crate::settle::settle;
use crate::shared::Shared;
use crate::slots::Slot;
use crate::stop::StopReason;
use crate::window::Window;

/// First pause before a new connection.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Longest pause before a new connection; the broker is back no longer than this before us. Jobs are
/// to flow again within 5 seconds, connecting and subscribing among them.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How often the supervisor looks whether all is well.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long the broker may take to hear that nothing more is taken.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// After how many returns, by the broker's count, a delivery is published anew, with the count in
/// a header: below any limit of deliveries at which the broker throws it out by itself. Jobs that
/// wait beside one that kills workers come near it through no fault of theirs.
const MOST_RETURNS: u32 = 10;
/// How long a broker that has never let this worker consume may refuse it: definitions and users
/// may be imported after its port is open.
const REFUSAL_PATIENCE: Duration = Duration::from_secs(30);
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

/// Consumes until `drain` is cancelled; then ends what runs, within the grace period, and says yes.
/// Says no when the broker refuses a worker that has just begun: nobody waits for it, and somebody
/// has to see that its password or its permissions are wrong. One that has consumed before stays: who
/// changes a password will set it right, and until then the worker has jobs to answer.
pub(crate) async fn supervise<B: Broker, S: Store>(
    shared: Arc<Shared<B, S>>,
    consumption: Consumption,
    models_changed: Arc<Notify>,
    drain: CancellationToken,
) -> bool {
    let jobs = TaskTracker::new();
    let supervisor = Supervisor { shared, consumption, models_changed, drain, jobs };
    let (mut pauses, begun) = (Pauses::new(FIRST_PAUSE, LONGEST_PAUSE), Instant::now());
    let mut has_consumed = false;
    loop {
        let started = Instant::now();
        let error = match supervisor.consume().await {
            Ok(()) => return true,
            Err(error) => error,
        };
        has_consumed |= supervisor.shared.services.is_consuming();
        supervisor.shared.services.set_consuming(false);
        let (shared, blamed) = (supervisor.shared.clone(), supervisor.shared.in_flight.names());
        supervisor.jobs.spawn(async move { forgive(&shared, blamed).await });
        if started.elapsed() > LONGEST_PAUSE {
            pauses.reset();
        }
        let pause = pauses.take();
        if error.is_temporary() {
            warn!(%error, pause = ?pause, "not consuming; trying again");
        } else if has_consumed || begun.elapsed() < REFUSAL_PATIENCE {
            error!(%error, pause = ?pause, "not consuming, and somebody has to mend it; trying again");
        } else {
            error!(%error, "not consuming, and somebody has to mend it; giving up");
            return false;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = supervisor.drain.cancelled() => {
                supervisor.finish_jobs().await;
                return true;
            }
        }
        supervisor.shared.services.tick();
    }
}

struct Supervisor<B, S> {
    shared: Arc<Shared<B, S>>,
    consumption: Consumption,
    models_changed: Arc<Notify>,
    drain: CancellationToken,
    jobs: TaskTracker,
}

impl<B: Broker, S: Store> Supervisor<B, S> {
    /// One subscription, from its beginning to the end of the worker or of the connection.
    async fn consume(&self) -> Result<(), BrokerError> {
        self.declare_shared().await?;
        let mut taken = BTreeSet::new();
        for id in self.shared.models().ids() {
            if self.declare_model(id).await? {
                taken.insert(id);
            }
        }
        let queues: Vec<_> = taken.iter().flat_map(|id| self.queues(*id)).collect();
        let mut subscription = self.shared.broker.subscribe(&queues).await?;
        self.shared.services.set_consuming(true);
        info!(queues = queues.len(), "consuming");
        let mut store_watch = self.shared.services.watch_store();
        let mut look = tokio::time::interval(LOOK_INTERVAL);
        let mut window = Window::default();
        let mut last_delivery = Instant::now();
        loop {
            if !self.shared.services.is_store_away() {
                self.begin_next(&mut window);
            }
            tokio::select! {
                () = self.drain.cancelled() => {
                    self.end(&mut subscription, window, &taken).await;
                    return Ok(());
                }
                () = self.shared.slots.freed() => {}
                delivery = subscription.next(), if window.has_room() => {
                    last_delivery = Instant::now();
                    let delivery = self.shared.metrics.delivered(delivery?);
                    match delivery.returned >= MOST_RETURNS {
                        true => self.hand_on(delivery),
                        false => self.wait(&mut window, delivery),
                    }
                }
                () = self.models_changed.notified() => {
                    self.follow(&mut subscription, &mut taken).await?;
                }
                _ = store_watch.changed() => {}
                _ = look.tick() => {
                    self.shared.services.tick();
                    let idle = window.is_empty() && self.shared.in_flight.len() == 0;
                    if idle && last_delivery.elapsed() > SILENCE {
                        last_delivery = Instant::now();
                        self.require_silence(&taken).await?;
                    }
                }
            }
        }
    }

    /// Lets a delivery wait for a slot.
    fn wait(&self, window: &mut Window, delivery: Delivery) {
        let is_quick = self.shared.models().is_quick(&delivery.message);
        window.push(delivery, is_quick, &self.shared.rules);
    }

    /// Begins what there are slots for.
    fn begin_next(&self, window: &mut Window) {
        while let Some((delivery, slot)) = window.take(&self.shared.slots, &self.is_here()) {
            self.begin(delivery, slot);
        }
    }

    fn begin(&self, delivery: Delivery, slot: Slot) {
        let shared = self.shared.clone();
        self.jobs.spawn(async move { pipeline::run(&shared, delivery, slot).await });
    }

    fn is_here(&self) -> impl Fn(&str, EvaluationKeyId) -> bool {
        |tenant, key| self.shared.memory.holds(tenant, key)
    }

    async fn declare_shared(&self) -> Result<(), BrokerError> {
        let broker = &self.shared.broker;
        match self.consumption.declare {
            Declare::Create => declare_shared(broker).await,
            declare => broker.declare(&Topology::shared(), declare).await,
        }
    }

    /// Whether there are queues of a model. One that the broker refuses is left out, and does not
    /// hold up the others.
    async fn declare_model(&self, id: ModelId) -> Result<bool, BrokerError> {
        // One after the other may take long, and is no standstill.
        self.shared.services.tick();
        let topology = Topology::of_model(id);
        match self.shared.broker.declare(&topology, self.consumption.declare).await {
            Ok(()) => Ok(true),
            Err(error) if error.is_temporary() => Err(error),
            Err(error) => {
                error!(model = %id, %error, "no jobs are taken for this model");
                Ok(false)
            }
        }
    }

    /// The queues of a model. Where jobs are short, the way to the broker and back counts; of the
    /// others few are taken, so that other workers get their share: one for each slot, the reserved one
    /// among them where a row may have it, and those that wait.
    fn queues(&self, id: ModelId) -> [QueuePrefetch; 2] {
        let slots = u16::try_from(self.shared.slots.all()).unwrap_or(u16::MAX);
        let forms = self.shared.models().get(id).cloned();
        let is = |what: fn(&ModelForms) -> bool| forms.as_deref().is_some_and(what);
        let reserved = u16::from(is(ModelForms::have_quick_rows));
        let prefetch = match is(ModelForms::are_quick) {
            true => self.consumption.linear_prefetch,
            false => slots.saturating_add(reserved).saturating_add(self.consumption.window),
        };
        Lane::ALL
            .map(|lane| QueuePrefetch { queue: job_queue(id, lane), prefetch: prefetch.max(1) })
    }

    /// Takes from the queues of models that came, and no more from those that went.
    async fn follow(
        &self,
        subscription: &mut B::Subscription,
        taken: &mut BTreeSet<ModelId>,
    ) -> Result<(), BrokerError> {
        let models = self.shared.models();
        for id in models.ids() {
            if !taken.contains(&id) && self.declare_model(id).await? {
                for queue in self.queues(id) {
                    subscription.start(&queue).await?;
                }
                taken.insert(id);
            }
        }
        for queue in taken.extract_if(.., |id| models.get(*id).is_none()).flat_map(queues_of) {
            self.shared.services.tick();
            subscription.stop(&queue).await?;
        }
        Ok(())
    }

    /// After a long silence: whether there is indeed nothing to deliver.
    async fn require_silence(&self, taken: &BTreeSet<ModelId>) -> Result<(), BrokerError> {
        for queue in taken.iter().copied().flat_map(queues_of) {
            let state = self.shared.broker.queue_state(&queue).await?;
            if state.is_some_and(|state| state.messages > 0) {
                let reason = format!("messages wait in {queue}, and none is delivered");
                return Err(BrokerError::Unavailable { server: "the broker".into(), reason });
            }
        }
        Ok(())
    }

    /// The orderly end: nothing new, what waits is handed on, what runs is finished; all of it
    /// within the grace period.
    async fn end(
        &self,
        subscription: &mut B::Subscription,
        mut window: Window,
        taken: &BTreeSet<ModelId>,
    ) {
        self.shared.services.set_consuming(false);
        window.drain().for_each(|delivery| self.hand_on(delivery));
        let stop = async {
            for queue in taken.iter().copied().flat_map(queues_of) {
                subscription.stop(&queue).await?;
            }
            Ok::<_, BrokerError>(())
        };
        if !matches!(tokio::time::timeout(STOP_TIMEOUT, stop).await, Ok(Ok(()))) {
            warn!("the broker was not told to stop; what it still sends goes back");
        }
        // What was on its way.
        let arrived = async {
            while let Ok(delivery) = subscription.next().await {
                self.hand_on(delivery);
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = arrived => {}
            () = self.finish_jobs() => {}
        }
    }

    fn hand_on(&self, delivery: Delivery) {
        let shared = self.shared.clone();
        self.jobs.spawn(async move {
            let Delivery { message, returned, settlement, .. } = delivery;
            let ending = outbox::hand_on(&shared, &message, returned).await;
            settle(ending, vec![settlement]).await;
        });
    }

    async fn finish_jobs(&self) {
        self.jobs.close();
        let running = self.jobs.len();
        info!(running, grace_period = ?self.consumption.grace_period, "stopping");
        let deadline = tokio::time::sleep(self.consumption.grace_period);
        tokio::pin!(deadline);
        let mut look = tokio::time::interval(LOOK_INTERVAL);
        let finished = loop {
            tokio::select! {
                () = self.jobs.wait() => break true,
                () = &mut deadline => break false,
                _ = look.tick() => self.shared.services.tick(),
            }
        };
        if !finished {
            let left = self.jobs.len();
            warn!(left, "the grace period is over; the broker gives these jobs to other workers");
            let forgiven = forgive(&self.shared, self.shared.in_flight.names());
            // A store that is away does not hold up the end.
            let _ = tokio::time::timeout(LOOK_INTERVAL, forgiven).await;
            self.shared.in_flight.stop_all(StopReason::Shutdown);
            self.shared.abort.cancel();
        }
    }
}

/// What runs while the connection or the worker ends in order comes back, and not because the worker
/// died of it.
async fn forgive<B: Broker, S: Store>(shared: &Shared<B, S>, running: Vec<Name>) {
    for name in running {
        pipeline::forgive(shared, &name).await;
    }
}

/// The queues of a model.
fn queues_of(id: ModelId) -> [String; 2] {
    Lane::ALL.map(|lane| job_queue(id, lane))
}
