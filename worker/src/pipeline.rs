//! The way of a job through a worker. The first of its seven steps, publishing, is the producer's.
//!
//! 2. **consume**: the [supervisor](crate::supervisor) hands a delivery to [`run`];
//! 3. **validate**: pure, cheapest check first;
//! 4. **fetch the key**, from the cache or the store;
//! 5. **evaluate**;
//! 6. **publish the reply**, until the broker has it for good;
//! 7. **settle**, last: nothing before it tells the broker anything.
//!
//! Every branch is here. What a step does is elsewhere.

use std::time::Instant;

use cipherscore_common::Store;
use cipherscore_common::broker::{Broker, Delivery, Disposition};
use cipherscore_common::message::{ErrorCode, Message, Outcome, Payload, Refusal, Timings};
use cipherscore_common::telemetry::trace;
use tracing::{Instrument, debug, info, info_span, warn};

use crate::evaluation::{Work, evaluate};
use crate::failure::Failure;
use crate::in_flight::Name;
use crate::keys::fetch_key;
use crate::metrics::Step;
use crate::outbox::{self, Sent};
use crate::settle::settle;
use crate::shared::Shared;
use crate::slots::Slot;
use crate::stop::Stop;
use crate::validate::{Address, BLAME, FORGIVEN, ValidJob, address, validate};

/// Most times that a job is put off since the queue of its reply confirms nothing: some quarter of an hour. Then it
/// is a dead letter, as one is whose queue is full.
const MOST_TIMES_PUT_OFF: u32 = 10;

/// Does a job, from its arrival to the word to the broker. The slot is free again as soon as
/// evaluation is over: who waits for a confirm computes nothing. Only a job that runs alone keeps
/// it to the end. Were the next one begun before, and did it kill the worker, this one would have
/// run alone in vain, and be suspected for it.
pub(crate) async fn run<B: Broker, S: Store>(
    shared: &Shared<B, S>,
    delivery: Delivery,
    slot: Slot,
) {
    let Delivery { message, returned, settlement, .. } = delivery;
    // 3.
    let started = Instant::now();
    let valid = validate(&message, returned, &shared.rules, &shared.models());
    shared.metrics.step(Step::Validate, started.elapsed());
    let job = match valid {
        Ok(job) => job,
        Err(failure) => {
            drop(slot);
            let address = address(&message, &shared.rules);
            let times = Timings::default();
            let ending = answer(shared, &message, address.as_ref(), times, Err(failure)).await;
            return shared.timed(Step::Settle, settle(ending, vec![settlement])).await;
        }
    };
    let trace = trace::process(&message, &shared.name);
    let span = info_span!(parent: &trace, "job", id = %job.id, tenant = %job.tenant, trace = job.trace_id());
    let done = async {
        let stop = Stop::new(job.deadline);
        // A second delivery of a job that runs is settled together with the first.
        let Some(running) = shared.in_flight.begin(job.name(), &stop, settlement) else {
            return info!("arrived again while it runs");
        };
        shared.begins(&message, &job);
        // 4. and 5.
        let mut times = Timings::default();
        let work = Work { job: &job, stop: &stop, slot: &slot };
        let outputs = outputs(shared, work, &mut times).await;
        forgive(shared, &job.name()).await;
        let slot = Some(slot).filter(|_| shared.rules.is_suspicious(job.returned));
        fail_point!("after_evaluate");
        // 6. and 7.
        let ending = answer(shared, &message, Some(job.address()), times, outputs).await;
        fail_point!("before_ack");
        shared.timed(Step::Settle, settle(ending, running.end())).await;
        drop(slot);
    };
    done.instrument(span).instrument(trace).await;
}

/// Steps 4 and 5, unless they were done before or nobody wants them any more.
async fn outputs<B: Broker, S: Store>(
    shared: &Shared<B, S>,
    work: Work<'_>,
    times: &mut Timings,
) -> Result<Payload, Failure> {
    let Work { job, stop, slot } = work;
    let marks = shared.timed(Step::Marks, shared.store.marks(&job.tenant, job.id)).await;
    let marks = marks.map_err(|error| shared.store_failure(&error))?;
    if marks.done {
        return Err(Failure::DoneBefore);
    }
    if marks.cancelled {
        return Err(Failure::refused(ErrorCode::Cancelled, "it was cancelled before it began"));
    }
    suspect(shared, job).await?;
    let admitting = slot.wait(shared.memory.admit(job.demand()?, stop));
    let admission = shared.timed(Step::Admit, admitting).await?;
    let started = Instant::now();
    let key = slot.wait(fetch_key(shared, work, &admission)).await?;
    times.key = started.elapsed();
    let started = Instant::now();
    let outputs = evaluate(shared, work, key).instrument(trace::step("evaluate")).await?;
    times.evaluate = started.elapsed();
    count_released(shared, job).await?;
    outbox::payload(shared, &job.tenant, outputs, stop).await
}

/// Blames a job that came back as it is begun, and refuses one that has ended too many workers.
async fn suspect<B: Broker, S: Store>(
    shared: &Shared<B, S>,
    job: &ValidJob,
) -> Result<(), Failure> {
    let count = job.returned;
    if !shared.rules.is_suspicious(count) {
        return Ok(());
    }
    let blame = shared.store.blame(&job.tenant, job.id, BLAME).await;
    let blame = blame.map_err(|error| shared.store_failure(&error))?;
    let before = blame.saturating_sub(BLAME.into());
    match shared.rules.is_poison(count, before) {
        true => {
            let alone = before / u64::from(BLAME);
            let reason = format!(
                "it came back {count} times from workers that did not finish it, {alone} times \
                 from such as did nothing else"
            );
            Err(Failure::Broken(Refusal::new(ErrorCode::Poison, reason)))
        }
        false => {
            shared.in_flight.blame(&job.name());
            Ok(())
        }
    }
}

/// Takes the blame from a job that this worker has survived, if it has any: its evaluation is over,
/// or it comes back for another reason.
pub(crate) async fn forgive<B: Broker, S: Store>(shared: &Shared<B, S>, name: &Name) {
    if shared.in_flight.forgive(name)
        && let Err(error) = shared.store.forgive(&name.0, name.1, FORGIVEN).await
    {
        debug!(%error, "a job stays blamed");
    }
}

/// Counts what the outputs say about a hidden model, before anybody can have them.
async fn count_released<B: Broker, S: Store>(
    shared: &Shared<B, S>,
    job: &ValidJob,
) -> Result<(), Failure> {
    let coefficients = job.form.evaluator.released_coefficients(job.rows);
    let (1.., Some(key)) = (coefficients, job.key_id) else { return Ok(()) };
    let counting = shared.store.count_released(&job.tenant, key, coefficients);
    let counted = shared.timed(Step::Release, counting).await;
    let total = counted.map_err(|error| shared.store_failure(&error))?;
    shared.metrics.released(job, coefficients);
    debug!(%key, total, "coefficients of hidden replies were computed under this key");
    Ok(())
}

/// Step 6: answers, and says what the broker is to be told; nothing, when somebody else shall do
/// the job.
async fn answer<B: Broker, S: Store>(
    shared: &Shared<B, S>,
    message: &Message,
    address: Option<&Address>,
    times: Timings,
    outputs: Result<Payload, Failure>,
) -> Option<Disposition> {
    shared.metrics.ended(address.and_then(Address::model_id), &outputs);
    let failed =
        |refusal: &Refusal| Outcome::Failed { code: refusal.code, reason: refusal.reason.clone() };
    let (outcome, dead) = match outputs {
        Ok(payload) => (Outcome::Scored(payload), None),
        Err(Failure::Refused(refusal)) => (failed(&refusal), None),
        Err(Failure::Broken(refusal)) => (failed(&refusal), Some(refusal)),
        Err(Failure::Forged(refusal)) => {
            return outbox::dead_letter(shared, message, &refusal).await;
        }
        Err(Failure::Later(reason)) => return outbox::put_off(shared, message, &reason).await,
        Err(Failure::DoneBefore) => {
            info!("it was answered before");
            return Some(Disposition::Ack);
        }
        Err(Failure::Abandoned) => return None,
    };
    shared.count(&outcome);
    let sent = match address {
        Some(address) => outbox::reply(shared, address, times, outcome, dead.is_none()).await?,
        None => Sent::Confirmed,
    };
    let unanswerable = match sent {
        Sent::Confirmed => None,
        // Nothing else of the worker waits for it, and nothing is lost: it is evaluated again.
        Sent::Later(refusal) if dead.is_none() && message.attempt() < MOST_TIMES_PUT_OFF => {
            return outbox::put_off(shared, message, &refusal.reason).await;
        }
        Sent::Later(refusal) | Sent::Never(refusal) => Some(refusal),
    };
    match dead.or(unanswerable) {
        Some(refusal) => outbox::dead_letter(shared, message, &refusal).await,
        None => {
            if address.is_none() {
                warn!("a job was dropped without an answer: it says no address");
            }
            Some(Disposition::Ack)
        }
    }
}
