//! Marks on jobs, and who works: small keys, named in `docs/formats.md`.

use std::time::Duration;

use redis::{Pipeline, pipe};

use super::RedisStore;
use crate::store::StoreError;
use crate::store::marks::{ALONE_LEASE, CANCEL_LEASE, DONE_LEASE, MarkStore, Marks};
use crate::store::presence::{MAX_LISTED_WORKERS, MAX_PRESENCE_BYTES, PRESENCE_LEASE, Presence};
use crate::store::releases::{RELEASED_LEASE, ReleaseStore};
use crate::store::workers::{PresenceStore, check_worker_name};
use crate::timestamp::Timestamp;
use crate::{EvaluationKeyId, JobId, Tenant};

/// Names of workers, by the time of their last announcement.
const WORKERS: &str = "cs:_workers";
/// How long a name stays among them. Much longer than a presence, so that clocks of workers may
/// differ; bounded, since every start of a container may bring a new name.
const NAME_LEASE: Duration = Duration::from_secs(24 * 60 * 60);
/// Most coefficients that are counted at a time.
const MAX_RELEASED: u64 = 1 << 40;
/// Digits of the largest count.
const MAX_DIGITS: usize = 20;
/// Jobs that are asked for by one round trip.
const MARKS_AT_ONCE: usize = 500;
/// Workers that are described by one round trip: at most a few megabytes.
const WORKERS_AT_ONCE: usize = 50;

fn done_key(tenant: &Tenant, job: JobId) -> String {
    format!("cs:{tenant}:done:{job}")
}

fn cancel_key(tenant: &Tenant, job: JobId) -> String {
    format!("cs:{tenant}:cancel:{job}")
}

fn alone_key(tenant: &Tenant, job: JobId) -> String {
    format!("cs:{tenant}:alone:{job}")
}

fn released_key(tenant: &Tenant, key: EvaluationKeyId) -> String {
    format!("cs:{tenant}:released:{key}")
}

fn worker_key(worker: &str) -> String {
    format!("cs:_worker:{worker}")
}

fn set(key: String, value: impl redis::ToRedisArgs, life: Duration) -> Pipeline {
    let mut commands = pipe();
    commands.cmd("SET").arg(key).arg(value).arg("EX").arg(life.as_secs()).ignore();
    commands
}

impl RedisStore {
    /// Which keys are there, in one round trip. `EXISTS` rather than `MGET`: nobody's value,
    /// however large, is fetched.
    async fn there(&self, keys: impl Iterator<Item = String>) -> Result<Vec<bool>, StoreError> {
        let mut commands = pipe();
        for key in keys {
            commands.cmd("EXISTS").arg(key);
        }
        self.commands.ask(&commands).await
    }

    /// Adds to a count, and gives it.
    async fn count(&self, key: String, more: i64, life: Duration) -> Result<i64, StoreError> {
        let mut commands = pipe();
        commands.cmd("INCRBY").arg(&key).arg(more);
        commands.cmd("EXPIRE").arg(&key).arg(life.as_secs()).ignore();
        let (count,): (i64,) = self.commands.ask(&commands).await?;
        Ok(count)
    }
}

impl MarkStore for RedisStore {
    async fn marks(&self, tenant: &Tenant, job: JobId) -> Result<Marks, StoreError> {
        let keys = [done_key(tenant, job), cancel_key(tenant, job)];
        match self.there(keys.into_iter()).await?[..] {
            [done, cancelled] => Ok(Marks { done, cancelled }),
            _ => Err(self.commands.unexpected("not one answer for each command")),
        }
    }

    async fn mark_done(&self, tenant: &Tenant, job: JobId) -> Result<(), StoreError> {
        self.commands.ask(&set(done_key(tenant, job), 1, DONE_LEASE)).await
    }

    async fn mark_cancelled(&self, tenant: &Tenant, job: JobId) -> Result<(), StoreError> {
        self.commands.ask(&set(cancel_key(tenant, job), 1, CANCEL_LEASE)).await
    }

    async fn cancelled(&self, jobs: &[(Tenant, JobId)]) -> Result<Vec<bool>, StoreError> {
        let mut found = Vec::with_capacity(jobs.len());
        for jobs in jobs.chunks(MARKS_AT_ONCE) {
            let keys = jobs.iter().map(|(tenant, job)| cancel_key(tenant, *job));
            let there = self.there(keys).await?;
            if there.len() != jobs.len() {
                return Err(self.commands.unexpected("not one answer for each command"));
            }
            found.extend(there);
        }
        Ok(found)
    }

    async fn blame(&self, tenant: &Tenant, job: JobId, more: u32) -> Result<u64, StoreError> {
        let count = self.count(alone_key(tenant, job), more.into(), ALONE_LEASE).await?;
        Ok(u64::try_from(count).unwrap_or(0))
    }

    async fn forgive(&self, tenant: &Tenant, job: JobId, less: u32) -> Result<(), StoreError> {
        let key = || alone_key(tenant, job);
        let count = self.count(key(), -i64::from(less), ALONE_LEASE).await?;
        if count < 0 {
            self.count(key(), -count, ALONE_LEASE).await?;
        }
        Ok(())
    }
}

impl ReleaseStore for RedisStore {
    async fn count_released(
        &self,
        tenant: &Tenant,
        key: EvaluationKeyId,
        coefficients: u64,
    ) -> Result<u64, StoreError> {
        // Redis counts in 64 bits with sign, and refuses what would go beyond.
        let coefficients = coefficients.min(MAX_RELEASED).cast_signed();
        let count = self.count(released_key(tenant, key), coefficients, RELEASED_LEASE).await?;
        u64::try_from(count).map_err(|_| self.commands.unexpected("not a count"))
    }

    async fn released(&self, tenant: &Tenant, key: EvaluationKeyId) -> Result<u64, StoreError> {
        let mut commands = pipe();
        commands.cmd("GETRANGE").arg(released_key(tenant, key)).arg(0).arg(MAX_DIGITS);
        let (count,): (String,) = self.commands.ask(&commands).await?;
        match count.as_str() {
            "" => Ok(0),
            count => count.parse().map_err(|_| self.commands.unexpected("not a count")),
        }
    }
}

impl PresenceStore for RedisStore {
    async fn announce(&self, presence: &Presence) -> Result<(), StoreError> {
        let json = presence.to_json().ok_or(StoreError::InvalidPresence)?;
        let mut commands = set(worker_key(&presence.worker), json, PRESENCE_LEASE);
        let now = Timestamp::now().millis();
        let life = u64::try_from(NAME_LEASE.as_millis()).unwrap_or(u64::MAX);
        commands.cmd("ZADD").arg(WORKERS).arg(now).arg(&presence.worker).ignore();
        commands.cmd("ZREMRANGEBYSCORE").arg(WORKERS).arg("-inf").arg(now.saturating_sub(life));
        commands.ignore();
        commands.cmd("EXPIRE").arg(WORKERS).arg(NAME_LEASE.as_secs()).ignore();
        self.commands.ask(&commands).await
    }

    async fn leave(&self, worker: &str) -> Result<(), StoreError> {
        check_worker_name(worker)?;
        let mut commands = pipe();
        commands.cmd("UNLINK").arg(worker_key(worker)).ignore();
        commands.cmd("ZREM").arg(WORKERS).arg(worker).ignore();
        self.commands.ask(&commands).await
    }

    async fn workers(&self) -> Result<Vec<Presence>, StoreError> {
        let mut newest = pipe();
        newest.cmd("ZRANGE").arg(WORKERS).arg(0).arg(MAX_LISTED_WORKERS - 1).arg("REV");
        let (names,): (Vec<Vec<u8>>,) = self.commands.ask(&newest).await?;
        let names = names.into_iter().filter_map(|name| String::from_utf8(name).ok());
        let mut names: Vec<_> = names.filter(|name| check_worker_name(name).is_ok()).collect();
        names.sort();
        let mut workers = Vec::with_capacity(names.len());
        for names in names.chunks(WORKERS_AT_ONCE) {
            let mut commands = pipe();
            for name in names {
                // One byte more than allowed, to see that there is more.
                commands.cmd("GETRANGE").arg(worker_key(name)).arg(0).arg(MAX_PRESENCE_BYTES);
            }
            let found: Vec<Vec<u8>> = self.commands.ask(&commands).await?;
            workers.extend(
                names.iter().zip(&found).filter_map(|(name, json)| Presence::parse(name, json)),
            );
        }
        Ok(workers)
    }
}
