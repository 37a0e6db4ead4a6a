//! Looks at the broker for `/metrics`: how full queues are, and whether it takes messages.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cipherscore_common::Store;
use cipherscore_common::broker::{Broker, BrokerError, QueueState};
use cipherscore_common::topology::{Lane, Topology, job_queue};
use tracing::debug;

use crate::metrics::QueueStates;
use crate::shared::Shared;

/// How often it is looked whether the broker takes messages, and whether it is there at all.
const BLOCKED_INTERVAL: Duration = Duration::from_secs(1);
/// How often queues are looked at: as often as metrics are commonly fetched. One question for each
/// queue.
const QUEUES_INTERVAL: Duration = Duration::from_secs(15);

/// Looks until the worker ends.
pub(crate) async fn look<B: Broker, S: Store>(shared: Arc<Shared<B, S>>) {
    tokio::join!(look_whether_blocked(&shared), look_at_queues(&shared));
}

async fn look_whether_blocked<B: Broker, S: Store>(shared: &Shared<B, S>) {
    let mut last = Instant::now();
    loop {
        tokio::time::sleep(BLOCKED_INTERVAL).await;
        let passed = last.elapsed();
        last += passed;
        if shared.broker.is_blocked() {
            shared.metrics.blocked(passed);
        }
    }
}

async fn look_at_queues<B: Broker, S: Store>(shared: &Shared<B, S>) {
    loop {
        // While the worker itself cannot reach the broker, the supervisor tries often enough.
        let mut interval = BLOCKED_INTERVAL;
        let mut states = QueueStates::default();
        if shared.services.is_consuming() {
            interval = QUEUES_INTERVAL;
            match queue_states(shared).await {
                Ok(seen) => states = seen,
                Err(error) => debug!(%error, "how full queues are is not known"),
            }
        }
        shared.metrics.gauges().see_queues(states);
        tokio::time::sleep(interval).await;
    }
}

/// None for a queue that is not there, or that cannot be asked while others can: one without a
/// majority of its nodes hides itself only.
async fn look_at<B: Broker, S: Store>(
    shared: &Shared<B, S>,
    queue: &str,
) -> Result<Option<QueueState>, BrokerError> {
    match shared.broker.queue_state(queue).await {
        Err(error) if shared.services.is_consuming() => {
            debug!(queue, %error, "how full a queue is is not known");
            Ok(None)
        }
        state => state,
    }
}

async fn queue_states<B: Broker, S: Store>(
    shared: &Shared<B, S>,
) -> Result<QueueStates, BrokerError> {
    let mut states = QueueStates::default();
    let models = shared.models();
    for id in models.ids().filter(|id| shared.metrics.models.is_named(*id)) {
        for lane in Lane::ALL {
            if let Some(state) = look_at(shared, &job_queue(id, lane)).await? {
                states.jobs.push((id, lane, state));
            }
        }
    }
    for queue in Topology::shared().queues {
        if let Some(state) = look_at(shared, &queue.name).await? {
            states.shared.push((queue.name, state));
        }
    }
    Ok(states)
}
