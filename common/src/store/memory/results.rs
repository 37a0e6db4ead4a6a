//! What gateways know of jobs.

use tokio::time::Instant;

use super::MemoryStore;
use crate::store::StoreError;
use crate::store::results::{
    FeedEntry, JobState, MAX_FEED_ENTRIES, NoteName, ResultStore, SETTLED_LEASE,
};
use crate::timestamp::Timestamp;
use crate::{JobId, Lease, Tenant};

impl ResultStore for MemoryStore {
    async fn job_state(&self, tenant: &Tenant, job: JobId) -> Result<JobState, StoreError> {
        let (small, key) = (self.small(), (tenant.clone(), job));
        let note = small.notes.get(&(tenant.clone(), NoteName::Job(job)));
        Ok(JobState {
            settled: small.settled.contains_key(&key),
            note: note.map(|(note, _)| note.clone()),
            ended: small.results.contains_key(&key),
        })
    }

    async fn note(
        &self,
        tenant: &Tenant,
        name: NoteName,
        note: &[u8],
        lease: Lease,
    ) -> Result<Vec<u8>, StoreError> {
        let new = || (note.to_vec(), Instant::now() + lease.duration());
        let mut small = self.small();
        Ok(small.notes.entry((tenant.clone(), name)).or_insert_with(new).0.clone())
    }

    async fn note_again(
        &self,
        tenant: &Tenant,
        name: NoteName,
        note: &[u8],
        lease: Lease,
    ) -> Result<(), StoreError> {
        let entry = (note.to_vec(), Instant::now() + lease.duration());
        self.small().notes.insert((tenant.clone(), name), entry);
        Ok(())
    }

    async fn noted(&self, tenant: &Tenant, name: NoteName) -> Result<Option<Vec<u8>>, StoreError> {
        let small = self.small();
        Ok(small.notes.get(&(tenant.clone(), name)).map(|(note, _)| note.clone()))
    }

    async fn forget_note(&self, tenant: &Tenant, name: NoteName) -> Result<(), StoreError> {
        self.small().notes.remove(&(tenant.clone(), name));
        Ok(())
    }

    async fn keep_result(
        &self,
        tenant: &Tenant,
        job: JobId,
        client: Option<&str>,
        result: &[u8],
        lease: Lease,
    ) -> Result<bool, StoreError> {
        let (mut small, expires) = (self.small(), Instant::now() + lease.duration());
        let is_first = !small.results.contains_key(&(tenant.clone(), job));
        if is_first {
            small.results.insert((tenant.clone(), job), (result.to_vec(), expires));
        }
        if let Some(client) = client {
            let number = small.entries;
            small.entries += 1;
            let entry = FeedEntry { millis: Timestamp::now().millis(), number };
            let feed = small.feeds.entry((tenant.clone(), client.to_owned())).or_default();
            // The clock may have been set back.
            let entry = feed.last_key_value().map_or(entry, |(last, _)| FeedEntry {
                millis: entry.millis.max(last.millis),
                ..entry
            });
            feed.insert(entry, job);
        }
        Ok(is_first)
    }

    async fn result(&self, tenant: &Tenant, job: JobId) -> Result<Option<Vec<u8>>, StoreError> {
        let small = self.small();
        Ok(small.results.get(&(tenant.clone(), job)).map(|(result, _)| result.clone()))
    }

    async fn settle(&self, tenant: &Tenant, job: JobId) -> Result<(), StoreError> {
        let (mut small, key) = (self.small(), (tenant.clone(), job));
        small.results.remove(&key);
        small.notes.remove(&(tenant.clone(), NoteName::Job(job)));
        small.settled.insert(key, Instant::now() + SETTLED_LEASE);
        Ok(())
    }

    async fn feed(
        &self,
        tenant: &Tenant,
        client: &str,
        after: Option<FeedEntry>,
        most: usize,
    ) -> Result<Vec<(FeedEntry, JobId)>, StoreError> {
        let small = self.small();
        let feed = small.feeds.get(&(tenant.clone(), client.to_owned()));
        let later = |entry: &FeedEntry| after.is_none_or(|after| *entry > after);
        let found = feed.into_iter().flatten().filter(|(entry, _)| later(entry));
        let found = found.map(|(entry, job)| (*entry, *job));
        Ok(found.take(most.clamp(1, MAX_FEED_ENTRIES)).collect())
    }

    async fn drop_entries(
        &self,
        tenant: &Tenant,
        client: &str,
        entries: &[FeedEntry],
    ) -> Result<(), StoreError> {
        if let Some(feed) = self.small().feeds.get_mut(&(tenant.clone(), client.to_owned())) {
            feed.retain(|entry, _| !entries.contains(entry));
        }
        Ok(())
    }
}
