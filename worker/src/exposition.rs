//! What `/metrics` says: what was counted, and what is so at the moment.

use cipherscore_common::Store;
use cipherscore_common::broker::Broker;

use crate::metrics::Moment;
use crate::shared::Shared;

/// Everything, as OpenMetrics text.
pub(crate) fn render<B: Broker, S: Store>(shared: &Shared<B, S>) -> String {
    let memory = shared.memory.usage();
    let unacknowledged = &shared.metrics.unacknowledged;
    shared.metrics.render(&Moment {
        started_seconds: shared.started_ms() / 1000,
        slots: shared.slots.all() as u64,
        slots_busy: shared.slots.busy() as u64,
        is_reserved_slot_busy: shared.slots.is_reserved_busy(),
        jobs: shared.in_flight.len() as u64,
        unacknowledged: unacknowledged.len() as u64,
        oldest_unacknowledged: unacknowledged.oldest().unwrap_or_default(),
        models: shared.models().ids().count() as u64,
        is_consuming: shared.services.is_consuming(),
        does_store_answer: shared.services.does_store_answer(),
        memory_limit_bytes: memory.limit_bytes,
        memory_used_bytes: memory.used_bytes,
        key_bytes: memory.key_bytes,
        keys: memory.keys as u64,
    })
}
