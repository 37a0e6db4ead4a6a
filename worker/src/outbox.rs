//! Step 6: what leaves the worker, until the broker has it for good.

use std::time::Duration;

use cipherscore_common::broker::{Broker, BrokerError, Disposition};
use cipherscore_common::message::ErrorCode;
use cipherscore_common::message::{
    ADDED_PREFIX, HeaderValue, MAX_INLINE_BYTES, Message, Outcome, Payload, Refusal, Timings,
    headers,
};
use cipherscore_common::topology::{DEAD, REPLIES, RETRY, RETRY_STEP_HEADER, RetryStep};
use cipherscore_common::{Blob, BlobKind, ErrorClass, Pauses, Store, Tenant};
use tracing::{info, warn};

use crate::failure::Failure;
use crate::metrics::Step;
use crate::shared::Shared;
use crate::stop::Stop;
use crate::validate::Address;

/// First pause before something is sent again.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Longest pause before something is sent again.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How often something is sent to a queue that is full: some seconds. A tenant may bound its own
/// reply queue, and must not hold up a worker by it.
const MOST_TIMES_FULL: u32 = 4;
/// How often something is sent to a queue that confirms nothing while the broker is there: for so many times the
/// broker's `confirm_timeout`. A quorum queue without a leader takes no message and refuses none.
const MOST_TIMES_UNCONFIRMED: u32 = 2;
/// Longest value of a header that is sent on, in bytes.
const MAX_HEADER_BYTES: usize = 512;
/// Most headers that this worker does not know and sends on.
const MAX_ADDED_HEADERS: usize = 16;
/// Headers of a job that are sent on.
const SENT_ON: [&str; 16] = [
    headers::MODEL_ID,
    headers::KEY_ID,
    headers::TENANT,
    headers::ROWS,
    headers::FORM,
    headers::PLANNED,
    headers::DEADLINE,
    headers::DEADLINE_CLASS,
    headers::MANIFEST_ID,
    headers::ATTEMPT,
    headers::LANE,
    headers::TRACE_PARENT,
    headers::TRACE_STATE,
    headers::PUBLISHED,
    headers::PUBLISHED_BY,
    headers::RETURNED,
];

/// The outputs, as the reply carries them: in the message, or in the store when they are large.
pub(crate) async fn payload<B: Broker, S: Store>(
    shared: &Shared<B, S>,
    tenant: &Tenant,
    outputs: Vec<u8>,
    stop: &Stop,
) -> Result<Payload, Failure> {
    if outputs.len() <= MAX_INLINE_BYTES {
        return Ok(Payload::Inline(outputs));
    }
    let broken = |reason: String| Failure::Broken(Refusal::new(ErrorCode::Internal, reason));
    let made = Blob::payload(tenant, BlobKind::Reply, outputs);
    let (blob, stored) = made.map_err(|error| broken(error.to_string()))?;
    let mut pauses = Pauses::new(FIRST_PAUSE, LONGEST_PAUSE);
    // What is computed is not thrown away because the store is away.
    while let Err(error) = shared.store.put(&blob, Some(shared.reply_lease), &|| ()).await {
        if error.class() != ErrorClass::Unavailable {
            return Err(broken(error.to_string()));
        }
        warn!(%error, "the outputs cannot be stored yet");
        shared.services.store_is_away(&error.to_string());
        tokio::select! {
            () = tokio::time::sleep(pauses.take()) => {}
            () = stop.asked() => return Err(stop.failure()),
        }
    }
    Ok(Payload::Stored(stored))
}

/// What became of a reply.
pub(crate) enum Sent {
    /// The broker has it.
    Confirmed,
    /// Its queue confirms nothing for now, for this reason.
    Later(Refusal),
    /// There is no way to send it.
    Never(Refusal),
}

/// Publishes a reply, and marks its job as done if it is. `None`: the worker stopped before the broker had
/// it.
pub(crate) async fn reply<B: Broker, S: Store>(
    shared: &Shared<B, S>,
    address: &Address,
    times: Timings,
    outcome: Outcome,
    done: bool,
) -> Option<Sent> {
    let reply = address.reply(&shared.name, times, outcome);
    info!(outcome = reply.outcome.name(), evaluate = ?times.evaluate, key = ?times.key, "answered");
    let message = address.message(&reply);
    match shared.timed(Step::Reply, publish(shared, &message)).await? {
        Ok(()) => {}
        Err(error) => {
            let refusal = Refusal::new(ErrorCode::Internal, error.to_string());
            return Some(match error {
                BrokerError::Unconfirmed { .. } => Sent::Later(refusal),
                _ => Sent::Never(refusal),
            });
        }
    }
    fail_point!("after_reply_confirm");
    // Without the mark a second delivery is evaluated again, and its reply dropped by the client.
    // What goes to the dead letters has none, so that it can be tried again on purpose.
    if done {
        let marking = shared.store.mark_done(address.tenant(), address.job);
        if let Err(error) = shared.timed(Step::MarkDone, marking).await {
            warn!(%error, "the job could not be marked as done");
        }
    }
    Some(Sent::Confirmed)
}

/// Keeps a job for people to look at, with the reason.
pub(crate) async fn dead_letter<B: Broker, S: Store>(
    shared: &Shared<B, S>,
    message: &Message,
    refusal: &Refusal,
) -> Option<Disposition> {
    warn!(code = %refusal.code, reason = refusal.reason, "the job goes to the dead-letter queue");
    let mut dead = sent_on(shared, message, DEAD);
    dead.set(headers::DEAD_CODE, refusal.code.as_str());
    dead.set(headers::DEAD_REASON, refusal.reason.as_str());
    match publish(shared, &dead).await? {
        Ok(()) => Some(Disposition::Ack),
        // The broker can do it as well, though without our reason.
        Err(_) => Some(Disposition::DeadLetter),
    }
}

/// Lets a job come again later.
pub(crate) async fn put_off<B: Broker, S: Store>(
    shared: &Shared<B, S>,
    message: &Message,
    reason: &str,
) -> Option<Disposition> {
    let attempt = message.attempt();
    let step = RetryStep::after(attempt);
    warn!(reason, attempt, comes_again_in = step.name(), "the job is put off");
    let mut again = sent_on(shared, message, RETRY);
    again.set(headers::ATTEMPT, attempt.saturating_add(1));
    again.set(RETRY_STEP_HEADER, step.name());
    match publish(shared, &again).await? {
        Ok(()) => Some(Disposition::Ack),
        Err(error) => {
            warn!(%error, "the job cannot be put off, and goes back");
            Some(Disposition::Requeue)
        }
    }
}

/// Gives a job that was not begun to another worker. The broker would count it as one that came
/// back, and after a few orderly stops of workers it would look like one that kills them; so it is
/// published again, with its count as it was.
pub(crate) async fn hand_on<B: Broker, S: Store>(
    shared: &Shared<B, S>,
    message: &Message,
    returned: u32,
) -> Option<Disposition> {
    let mut again = sent_on(shared, message, RETRY);
    again.set(headers::RETURNED, message.returned_before().saturating_add(returned));
    again.set(RETRY_STEP_HEADER, RetryStep::after(0).name());
    // Given back while the broker takes no messages, it would come at once, and count again.
    match publish(shared, &again).await? {
        Ok(()) => Some(Disposition::Ack),
        Err(_) => Some(Disposition::Requeue),
    }
}

/// A message that a worker sends on for its publisher, whom it names: the broker knows the worker
/// only. One that a worker sent on before names its publisher already; whatever else is in that
/// header is the publisher's own claim, and does not stay.
fn sent_on<B: Broker, S: Store>(
    shared: &Shared<B, S>,
    message: &Message,
    exchange: &str,
) -> Message {
    let mut copy = message.clone();
    copy.exchange = exchange.to_owned();
    // Whatever else a stranger put in could make the message too large to be sent.
    let mut added = 0;
    copy.headers.retain(|name, value| {
        let short = match value {
            HeaderValue::Text(text) => text.len() <= MAX_HEADER_BYTES,
            HeaderValue::Integer(_) => true,
        };
        // What a later producer says means the same at the next worker, which may know it.
        let is_added = short && name.starts_with(ADDED_PREFIX);
        added += usize::from(is_added);
        let is_sent_on = short && SENT_ON.contains(&name.as_str());
        is_sent_on || (is_added && added <= MAX_ADDED_HEADERS)
    });
    let user = copy.user_id.take();
    let by_worker = user.as_ref().is_some_and(|user| shared.rules.is_worker(user));
    if !by_worker {
        copy.headers.remove(headers::PUBLISHED_BY);
        if let Some(user) = user {
            copy.set(headers::PUBLISHED_BY, user);
        }
    }
    copy
}

/// Publishes until the broker has it, also while it refuses us: who has changed a password or a
/// permission will set it right, and until then no job is thrown away. `None`: the worker stopped
/// first. An error: nothing takes this message, or a reply's queue does not take it for now.
async fn publish<B: Broker, S: Store>(
    shared: &Shared<B, S>,
    message: &Message,
) -> Option<Result<(), BrokerError>> {
    let mut pauses = Pauses::new(FIRST_PAUSE, LONGEST_PAUSE);
    let queue = &message.routing_key;
    let (mut times_full, mut times_unconfirmed) = (0, 0);
    loop {
        // Another job has just been patient with it. Without patience a job that cannot be put off
        // would come again at once, so this is for replies only.
        let is_reply = message.exchange == REPLIES;
        let refused = is_reply && shared.full_queues.knows(queue);
        let error = match shared.broker.publish(message).await {
            Ok(()) => {
                if refused || times_full > 0 || times_unconfirmed > 0 {
                    shared.full_queues.takes(queue);
                }
                return Some(Ok(()));
            }
            Err(error @ BrokerError::Unroutable { .. }) => return Some(Err(error)),
            Err(error) => error,
        };
        let patience_is_over = match error {
            BrokerError::Full { .. } => refused || times_full == MOST_TIMES_FULL,
            // Of a connection that was lost as well; a broker that is away then says so the next time.
            BrokerError::Unconfirmed { .. } => {
                is_reply && (refused || times_unconfirmed == MOST_TIMES_UNCONFIRMED)
            }
            _ => false,
        };
        if patience_is_over {
            shared.full_queues.refuses(queue);
            return Some(Err(error));
        }
        let in_a_row = |times, is_one_more| if is_one_more { times + 1 } else { 0 };
        times_full = in_a_row(times_full, matches!(error, BrokerError::Full { .. }));
        times_unconfirmed =
            in_a_row(times_unconfirmed, matches!(error, BrokerError::Unconfirmed { .. }));
        warn!(%error, "published again soon");
        if !shared.pause(pauses.take()).await {
            return None;
        }
    }
}
