//! What gateways know of jobs: small keys, results, and a stream for each client, named in
//! `docs/formats.md`.

use redis::{Pipeline, pipe};

use super::RedisStore;
use crate::store::StoreError;
use crate::store::results::{
    FeedEntry, JobState, MAX_FEED_ENTRIES, MAX_NOTE_BYTES, MAX_RESULT_BYTES, NoteName, ResultStore,
    SETTLED_LEASE,
};
use crate::timestamp::Timestamp;
use crate::{JobId, Lease, Tenant};

/// Field of a feed's entries.
const JOB: &str = "job";
/// Entries of a feed that are taken out by one command.
const DROPPED_AT_ONCE: usize = 1000;

fn note_key(tenant: &Tenant, name: NoteName) -> String {
    match name {
        NoteName::Job(job) => format!("cs:{tenant}:note:{job}"),
        NoteName::Key(id) => format!("cs:{tenant}:uid:{id}"),
    }
}

fn result_key(tenant: &Tenant, job: JobId) -> String {
    format!("cs:{tenant}:result:{job}")
}

fn settled_key(tenant: &Tenant, job: JobId) -> String {
    format!("cs:{tenant}:settled:{job}")
}

fn feed_key(tenant: &Tenant, client: &str) -> String {
    format!("cs:{tenant}:feed:{client}")
}

/// One byte more than allowed, to see that there is more.
fn read(commands: &mut Pipeline, key: &str, limit: usize) {
    commands.cmd("GETRANGE").arg(key).arg(0).arg(limit);
}

/// What is not there is read as nothing, and nothing that is written is empty. What is longer than it may
/// be was not written by us.
fn found(bytes: Vec<u8>, limit: usize) -> Option<Vec<u8>> {
    (1..=limit).contains(&bytes.len()).then_some(bytes)
}

impl ResultStore for RedisStore {
    async fn job_state(&self, tenant: &Tenant, job: JobId) -> Result<JobState, StoreError> {
        let mut commands = pipe();
        commands.cmd("EXISTS").arg(settled_key(tenant, job));
        read(&mut commands, &note_key(tenant, NoteName::Job(job)), MAX_NOTE_BYTES);
        commands.cmd("EXISTS").arg(result_key(tenant, job));
        let (settled, note, ended): (bool, Vec<u8>, bool) = self.commands.ask(&commands).await?;
        Ok(JobState { settled, note: found(note, MAX_NOTE_BYTES), ended })
    }

    async fn note(
        &self,
        tenant: &Tenant,
        name: NoteName,
        note: &[u8],
        lease: Lease,
    ) -> Result<Vec<u8>, StoreError> {
        let key = note_key(tenant, name);
        let mut commands = pipe();
        commands.cmd("SET").arg(&key).arg(note).arg("NX").arg("EX").arg(lease.seconds()).ignore();
        read(&mut commands, &key, MAX_NOTE_BYTES);
        let (there,): (Vec<u8>,) = self.commands.ask(&commands).await?;
        Ok(there)
    }

    async fn note_again(
        &self,
        tenant: &Tenant,
        name: NoteName,
        note: &[u8],
        lease: Lease,
    ) -> Result<(), StoreError> {
        let mut set = pipe();
        set.cmd("SET").arg(note_key(tenant, name)).arg(note).arg("EX").arg(lease.seconds());
        self.commands.ask(set.ignore()).await
    }

    async fn noted(&self, tenant: &Tenant, name: NoteName) -> Result<Option<Vec<u8>>, StoreError> {
        let mut commands = pipe();
        read(&mut commands, &note_key(tenant, name), MAX_NOTE_BYTES);
        let (note,): (Vec<u8>,) = self.commands.ask(&commands).await?;
        Ok(found(note, MAX_NOTE_BYTES))
    }

    async fn forget_note(&self, tenant: &Tenant, name: NoteName) -> Result<(), StoreError> {
        let mut commands = pipe();
        commands.cmd("UNLINK").arg(note_key(tenant, name)).ignore();
        self.commands.ask(&commands).await
    }

    async fn keep_result(
        &self,
        tenant: &Tenant,
        job: JobId,
        client: Option<&str>,
        result: &[u8],
        lease: Lease,
    ) -> Result<bool, StoreError> {
        let mut set = pipe();
        set.cmd("SET").arg(result_key(tenant, job)).arg(result).arg("NX");
        set.arg("EX").arg(lease.seconds());
        let (first,): (Option<String>,) = self.chunks.ask(&set).await?;
        // Also of one that was here: whoever kept it may have ended before this line.
        if let Some(client) = client {
            let key = feed_key(tenant, client);
            let oldest = Timestamp::now().millis().saturating_sub(lease.seconds() * 1000);
            let mut add = pipe();
            add.cmd("XADD").arg(&key).arg("MINID").arg("~").arg(oldest);
            add.arg("*").arg(JOB).arg(job.to_string()).ignore();
            add.cmd("EXPIRE").arg(&key).arg(lease.seconds()).ignore();
            self.commands.ask::<()>(&add).await?;
        }
        Ok(first.is_some())
    }

    async fn result(&self, tenant: &Tenant, job: JobId) -> Result<Option<Vec<u8>>, StoreError> {
        let mut commands = pipe();
        read(&mut commands, &result_key(tenant, job), MAX_RESULT_BYTES);
        let (result,): (Vec<u8>,) = self.chunks.ask(&commands).await?;
        Ok(found(result, MAX_RESULT_BYTES))
    }

    async fn settle(&self, tenant: &Tenant, job: JobId) -> Result<(), StoreError> {
        let mut commands = pipe();
        commands.cmd("SET").arg(settled_key(tenant, job)).arg(1);
        commands.arg("EX").arg(SETTLED_LEASE.as_secs()).ignore();
        let keys = [note_key(tenant, NoteName::Job(job)), result_key(tenant, job)];
        commands.cmd("UNLINK").arg(&keys[..]).ignore();
        self.commands.ask(&commands).await
    }

    async fn feed(
        &self,
        tenant: &Tenant,
        client: &str,
        after: Option<FeedEntry>,
        most: usize,
    ) -> Result<Vec<(FeedEntry, JobId)>, StoreError> {
        let start = after.map_or("-".to_owned(), |after| format!("({after}"));
        let mut range = pipe();
        range.cmd("XRANGE").arg(feed_key(tenant, client)).arg(start).arg("+");
        range.arg("COUNT").arg(most.clamp(1, MAX_FEED_ENTRIES));
        let (entries,): (Vec<(String, Vec<String>)>,) = self.commands.ask(&range).await?;
        // What is no entry of ours is passed over.
        let ours = entries.into_iter().filter_map(|(entry, fields)| match &fields[..] {
            [field, job] if field == JOB => Some((entry.parse().ok()?, job.parse().ok()?)),
            _ => None,
        });
        Ok(ours.collect())
    }

    async fn drop_entries(
        &self,
        tenant: &Tenant,
        client: &str,
        entries: &[FeedEntry],
    ) -> Result<(), StoreError> {
        for some in entries.chunks(DROPPED_AT_ONCE) {
            let ids: Vec<_> = some.iter().map(ToString::to_string).collect();
            let mut commands = pipe();
            commands.cmd("XDEL").arg(feed_key(tenant, client)).arg(ids).ignore();
            self.commands.ask::<()>(&commands).await?;
        }
        Ok(())
    }
}
