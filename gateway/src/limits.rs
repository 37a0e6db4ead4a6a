//! What a tenant may do at a time and in a time, and what all may together.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use cipherscore_common::Tenant;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota as Rate, RateLimiter};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use crate::config::{LimitsSection, TenantLimits};
use crate::problem::{Problem, ProblemCode};

/// How long a transfer waits for its turn.
const TRANSFER_WAIT: Duration = Duration::from_secs(10);
/// In which time the bytes of a quota are counted.
const QUOTA_WINDOW: Duration = Duration::from_secs(60 * 60);

/// The limits of one tenant, and how far they are used.
pub(crate) struct Gate {
    pub(crate) limits: LimitsSection,
    rate: DefaultDirectRateLimiter,
    requests: Arc<Semaphore>,
    transfers: Arc<Semaphore>,
    sent: Mutex<Sent>,
}

/// Bytes that went into the store since a time.
struct Sent {
    since: Instant,
    bytes: u64,
}

impl Gate {
    pub(crate) fn new(limits: LimitsSection) -> Self {
        let rate = Rate::per_second(limits.requests_per_second).allow_burst(limits.burst);
        Self {
            rate: RateLimiter::direct(rate),
            requests: Arc::new(Semaphore::new(count(limits.concurrent_requests))),
            transfers: Arc::new(Semaphore::new(count(limits.concurrent_transfers))),
            sent: Mutex::new(Sent { since: Instant::now(), bytes: 0 }),
            limits,
        }
    }

    /// Lets a request in, or says why not. What it returns is held until it is answered.
    pub(crate) fn enter(&self) -> Result<OwnedSemaphorePermit, Problem> {
        if let Err(not_until) = self.rate.check() {
            let wait = not_until.wait_time_from(DefaultClock::default().now());
            let most = self.limits.requests_per_second;
            let detail = format!("more than {most} requests a second");
            return Err(Problem::new(ProblemCode::RateLimited, detail).after(wait));
        }
        Arc::clone(&self.requests).try_acquire_owned().map_err(|_| {
            let most = self.limits.concurrent_requests;
            Problem::new(ProblemCode::TooMany, format!("more than {most} requests at a time"))
        })
    }

    /// Counts bytes on their way into the store.
    pub(crate) fn send(&self, bytes: u64) -> Result<(), Problem> {
        let most = self.limits.bytes_per_hour.as_u64();
        let mut sent = self.sent.lock();
        if sent.since.elapsed() >= QUOTA_WINDOW {
            *sent = Sent { since: Instant::now(), bytes: 0 };
        }
        let all = sent.bytes.saturating_add(bytes);
        if most > 0 && all > most {
            let left = QUOTA_WINDOW.saturating_sub(sent.since.elapsed());
            let detail = format!("more than {most} bytes in an hour");
            return Err(Problem::new(ProblemCode::Quota, detail).after(left));
        }
        sent.bytes = all;
        Ok(())
    }
}

fn count(limit: NonZeroU32) -> usize {
    usize::try_from(limit.get()).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS)
}

/// The turn of a transfer of bytes. Each holds a chunk or two in memory.
pub(crate) struct Transfer {
    _own: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

/// The limits of all tenants.
pub(crate) struct Limits {
    /// For who has none of its own.
    default: LimitsSection,
    own: BTreeMap<Tenant, TenantLimits>,
    gates: Mutex<HashMap<Tenant, Arc<Gate>>>,
    transfers: Arc<Semaphore>,
    max_transfers: NonZeroU32,
}

impl Limits {
    pub(crate) fn new(
        default: LimitsSection,
        own: BTreeMap<Tenant, TenantLimits>,
        max_transfers: NonZeroU32,
    ) -> Self {
        let transfers = Arc::new(Semaphore::new(count(max_transfers)));
        Self { default, own, gates: Mutex::default(), transfers, max_transfers }
    }

    /// The gate of a tenant, which there is: gates stay.
    pub(crate) fn gate(&self, tenant: &Tenant) -> Arc<Gate> {
        if let Some(gate) = self.gates.lock().get(tenant) {
            return Arc::clone(gate);
        }
        let limits = match self.own.get(tenant) {
            Some(own) => own.over(&self.default),
            None => self.default.clone(),
        };
        let mut gates = self.gates.lock();
        Arc::clone(gates.entry(tenant.clone()).or_insert_with(|| Arc::new(Gate::new(limits))))
    }

    /// Waits for the turn of a transfer, first among the tenant's own.
    pub(crate) async fn transfer(&self, gate: &Gate) -> Result<Transfer, Problem> {
        let own = wait(&gate.transfers).await.ok_or_else(|| {
            let most = gate.limits.concurrent_transfers;
            Problem::new(ProblemCode::TooMany, format!("more than {most} transfers at a time"))
        })?;
        let of_all = wait(&self.transfers).await.ok_or_else(|| {
            let most = self.max_transfers;
            Problem::new(ProblemCode::Busy, format!("{most} transfers are underway"))
        })?;
        Ok(Transfer { _own: own, _of_all: of_all })
    }

    /// Transfers that are underway.
    pub(crate) fn transfers(&self) -> u64 {
        let all = count(self.max_transfers);
        all.saturating_sub(self.transfers.available_permits()) as u64
    }
}

async fn wait(turns: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    timeout(TRANSFER_WAIT, Arc::clone(turns).acquire_owned()).await.ok()?.ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

    use bytesize::ByteSize;

    use super::*;

    fn limits() -> LimitsSection {
        let few = NonZeroU32::MIN.saturating_add(1);
        LimitsSection { burst: few, concurrent_requests: few, ..LimitsSection::default() }
    }

    fn code<T>(result: Result<T, Problem>) -> ProblemCode {
        result.err().unwrap().code().unwrap()
    }

    #[tokio::test]
    async fn requests_are_counted_at_a_time_and_in_a_time() {
        let slow = NonZeroU32::MIN;
        let gate = Gate::new(LimitsSection { requests_per_second: slow, ..limits() });
        let held = [gate.enter().unwrap(), gate.enter().unwrap()];
        assert_eq!(code(gate.enter()), ProblemCode::RateLimited);
        drop(held);
        let burst = NonZeroU32::MIN.saturating_add(99);
        let gate = Gate::new(LimitsSection { burst, ..limits() });
        let held = [gate.enter().unwrap(), gate.enter().unwrap()];
        assert_eq!(code(gate.enter()), ProblemCode::TooMany);
        drop(held);
        assert!(gate.enter().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_are_counted_by_the_hour() {
        let bytes_per_hour = ByteSize::b(100);
        let gate = Gate::new(LimitsSection { bytes_per_hour, ..limits() });
        gate.send(60).unwrap();
        gate.send(40).unwrap();
        assert_eq!(code(gate.send(1)), ProblemCode::Quota);
        tokio::time::advance(QUOTA_WINDOW).await;
        gate.send(100).unwrap();
        Gate::new(limits()).send(u64::MAX).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn transfers_wait_for_their_turn() {
        let two = NonZeroU32::MIN.saturating_add(1);
        let default = LimitsSection { concurrent_transfers: NonZeroU32::MIN, ..limits() };
        let limits = Limits::new(default, BTreeMap::new(), two);
        let gates = ["a", "b", "c"].map(|name| limits.gate(&name.parse().unwrap()));
        let first = limits.transfer(&gates[0]).await.unwrap();
        assert_eq!(code(limits.transfer(&gates[0]).await), ProblemCode::TooMany);
        let second = limits.transfer(&gates[1]).await.unwrap();
        assert_eq!(limits.transfers(), 2);
        assert_eq!(code(limits.transfer(&gates[2]).await), ProblemCode::Busy);
        let third = limits.transfer(&gates[2]);
        let free = async {
            tokio::time::sleep(TRANSFER_WAIT / 2).await;
            drop(first);
        };
        assert!(tokio::join!(third, free).0.is_ok());
        drop(second);
        assert_eq!(limits.transfers(), 0);
    }
}
