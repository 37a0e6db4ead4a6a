//! The store in Redis: 1 MiB chunks and a meta key, as the crate's documentation describes.

pub(crate) mod config;
mod lane;
mod marks;
mod meta;
mod results;
mod uploads;

use std::collections::BTreeSet;
use std::time::Duration;

use redis::{Pipeline, pipe};

use self::config::RedisConfig;
use self::lane::Lane;
use self::meta::{MAX_META_BYTES, chunk_key, meta_key};
use super::{Blob, BlobInfo, BlobKind, BlobName, BlobStore, CHUNK_BYTES};
use super::{ErrorClass, MAX_LISTED_BLOBS, Progress, Put, StoreError};
use crate::{Lease, Tenant};

/// How long the chunks of an upload wait for its end.
pub const UPLOAD_LEASE: Duration = Duration::from_secs(60 * 60);
/// How much longer chunks live than the meta key that names them.
pub const CHUNK_GRACE: Duration = Duration::from_secs(10 * 60);
/// How long an answer to a small command may take.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(2);
/// How long sending or fetching one chunk may take.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(15);
/// Keys that Redis looks at for one answer to SCAN.
const SCAN_KEYS: usize = 1000;
/// Blobs that are described by one round trip.
const LISTED_AT_ONCE: usize = 500;

/// A meta key's value as it is read, and as it is read again when it was written.
#[cfg(any(test, fuzzing))]
pub(super) fn check_meta(name: &BlobName, json: &[u8]) -> Option<(BlobInfo, BlobInfo)> {
    let info = meta::parse(name, json, None).ok()?;
    let again =
        meta::parse(name, &meta::to_json(&info), None).expect("what was read can be written");
    Some((info, again))
}

/// The store in Redis.
///
/// Chunks have a connection of their own: a slow one would hold up, and time out, the small
/// commands behind it.
pub struct RedisStore {
    commands: Lane,
    chunks: Lane,
}

impl RedisStore {
    /// Names a store; connections are made when they are needed.
    pub fn new(config: &RedisConfig) -> Result<Self, StoreError> {
        Ok(Self {
            commands: Lane::new(config, COMMAND_TIMEOUT)?,
            chunks: Lane::new(config, CHUNK_TIMEOUT)?,
        })
    }

    /// Sends all chunks under names that nothing but this blob is written to.
    async fn upload(
        &self,
        blob: &Blob,
        info: &BlobInfo,
        progress: Progress<'_>,
    ) -> Result<(), StoreError> {
        for (index, chunk) in (0..).zip(blob.bytes.chunks(CHUNK_BYTES)) {
            let mut set = pipe();
            set.cmd("SET").arg(chunk_key(info, index)).arg(chunk);
            set.arg("EX").arg(UPLOAD_LEASE.as_secs()).ignore();
            self.chunks.ask::<()>(&set).await?;
            progress();
        }
        Ok(())
    }

    /// Sets the life of all chunks. Says whether all were there.
    async fn renew_chunks(
        &self,
        info: &BlobInfo,
        lease: Option<Lease>,
    ) -> Result<bool, StoreError> {
        let life = lease.map(|lease| lease.duration() + CHUNK_GRACE);
        let keys: Vec<_> = (0..info.chunks()).map(|index| chunk_key(info, index)).collect();
        let mut commands = pipe();
        keys.iter().for_each(|key| set_life(&mut commands, key, life));
        commands.cmd("EXISTS").arg(&keys);
        let (there,): (u64,) = self.commands.ask(&commands).await?;
        Ok(there == info.chunks())
    }

    /// Makes an upload the blob, and lets the one that it replaces go.
    async fn commit(&self, info: &BlobInfo, lease: Option<Lease>) -> Result<(), StoreError> {
        let mut set = pipe();
        set.cmd("SET").arg(meta_key(&info.name)).arg(meta::to_json(info)).arg("GET");
        if let Some(lease) = lease {
            set.arg("EX").arg(lease.seconds());
        }
        let (before,): (Option<Vec<u8>>,) = self.commands.ask(&set).await?;
        let before = before.and_then(|json| meta::parse(&info.name, &json, None).ok());
        // The same upload, when this command had to be sent twice.
        if let Some(before) = before.filter(|before| before.upload != info.upload) {
            let mut commands = pipe();
            for index in 0..before.chunks() {
                set_life(&mut commands, &chunk_key(&before, index), Some(CHUNK_GRACE));
            }
            self.commands.ask::<()>(&commands).await?;
        }
        Ok(())
    }

    /// Takes out a payload by what its meta key says, in two round trips: there is one for each
    /// large job, and a look at every key of Redis would be too much. An upload that was given up
    /// expires.
    async fn remove_payload(&self, name: &BlobName) -> Result<(), StoreError> {
        let info = self.info(name).await?;
        let mut unlink = pipe();
        let chunks = (0..info.chunks()).map(|index| chunk_key(&info, index));
        unlink.cmd("UNLINK").arg(meta_key(name)).arg(Vec::from_iter(chunks)).ignore();
        self.commands.ask::<()>(&unlink).await
    }

    /// Names of keys of one pattern. Redis looks at every key that it has.
    async fn scan(&self, pattern: &str, limit: usize) -> Result<BTreeSet<Vec<u8>>, StoreError> {
        let mut keys = BTreeSet::new();
        let mut cursor = 0_u64;
        loop {
            let mut scan = pipe();
            scan.cmd("SCAN").arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(SCAN_KEYS);
            let ((next, found),): ((u64, Vec<Vec<u8>>),) = self.commands.ask(&scan).await?;
            keys.extend(found);
            if next == 0 || keys.len() > limit {
                return Ok(keys);
            }
            cursor = next;
        }
    }

    /// Describes blobs, in their order; `None` for those that are not there.
    async fn describe(&self, names: &[BlobName]) -> Result<Vec<Option<BlobInfo>>, StoreError> {
        let mut commands = pipe();
        for name in names {
            // One byte more than allowed, to see that there is more.
            commands.cmd("GETRANGE").arg(meta_key(name)).arg(0).arg(MAX_META_BYTES);
            commands.cmd("PTTL").arg(meta_key(name));
        }
        let answers: Vec<redis::Value> = self.commands.ask(&commands).await?;
        if answers.len() != 2 * names.len() {
            return Err(self.commands.unexpected("not one answer for each command"));
        }
        let mut found = Vec::with_capacity(names.len());
        for (name, answers) in names.iter().zip(answers.chunks(2)) {
            let json: Vec<u8> = redis::from_redis_value_ref(&answers[0])
                .map_err(|_| self.commands.unexpected("a meta key that is no string"))?;
            let left: i64 = redis::from_redis_value_ref(&answers[1])
                .map_err(|_| self.commands.unexpected("a time to live that is no number"))?;
            // Negative: it does not expire.
            let expires_in = u64::try_from(left).ok().map(Duration::from_millis);
            found.push(match meta::parse(name, &json, expires_in) {
                Err(StoreError::NotFound { .. }) => None,
                other => Some(other?),
            });
        }
        Ok(found)
    }
}

/// Sets after what time a key is gone.
fn set_life(commands: &mut Pipeline, key: &str, life: Option<Duration>) {
    match life {
        Some(life) => commands.cmd("EXPIRE").arg(key).arg(life.as_secs()).ignore(),
        None => commands.cmd("PERSIST").arg(key).ignore(),
    };
}

impl BlobStore for RedisStore {
    async fn put(
        &self,
        blob: &Blob,
        lease: Option<Lease>,
        progress: Progress<'_>,
    ) -> Result<Put, StoreError> {
        let lacking = |error: &StoreError| {
            matches!(error.class(), ErrorClass::NotFound | ErrorClass::Damaged)
        };
        match self.info(&blob.name).await {
            Ok(before) if before.sha256 == blob.sha256 => match self.touch(&blob.name, lease).await
            {
                Ok(()) => return Ok(Put::AlreadyThere),
                Err(error) if lacking(&error) => {}
                Err(error) => return Err(error),
            },
            Ok(_) => {}
            Err(error) if lacking(&error) => {}
            Err(error) => return Err(error),
        }
        let info = blob.info(lease);
        self.upload(blob, &info, progress).await?;
        if !self.renew_chunks(&info, lease).await? {
            return Err(StoreError::damaged(&info.name, "chunks went away while it was sent"));
        }
        self.commit(&info, lease).await?;
        Ok(Put::Stored)
    }

    async fn info(&self, name: &BlobName) -> Result<BlobInfo, StoreError> {
        let found = self.describe(std::slice::from_ref(name)).await?.pop().flatten();
        found.ok_or_else(|| StoreError::not_found(name))
    }

    async fn chunk(&self, info: &BlobInfo, index: u64) -> Result<Vec<u8>, StoreError> {
        let mut get = pipe();
        // One byte more than a chunk has, to see that there is more, and no more than that.
        get.cmd("GETRANGE").arg(chunk_key(info, index)).arg(0).arg(CHUNK_BYTES);
        let (chunk,): (Vec<u8>,) = self.chunks.ask(&get).await?;
        match chunk.is_empty() {
            true => Err(StoreError::damaged(&info.name, format!("chunk {index} is missing"))),
            false => Ok(chunk),
        }
    }

    async fn touch(&self, name: &BlobName, lease: Option<Lease>) -> Result<(), StoreError> {
        let info = self.info(name).await?;
        // Chunks first: at no time does the meta key outlive them.
        if !self.renew_chunks(&info, lease).await? {
            return Err(StoreError::damaged(name, "chunks are missing"));
        }
        let key = meta_key(name);
        let mut commands = pipe();
        set_life(&mut commands, &key, lease.map(Lease::duration));
        commands.cmd("EXISTS").arg(&key);
        match self.commands.ask::<(u64,)>(&commands).await? {
            (0,) => Err(StoreError::not_found(name)),
            _ => Ok(()),
        }
    }

    async fn remove(&self, name: &BlobName) -> Result<(), StoreError> {
        if matches!(name.kind, BlobKind::Job | BlobKind::Reply) {
            return self.remove_payload(name).await;
        }
        let mut unlink = pipe();
        // First, so that nobody begins to read.
        unlink.cmd("UNLINK").arg(meta_key(name));
        let (removed,): (u64,) = self.commands.ask(&unlink).await?;
        let left = self.scan(&meta::pattern_of_blob(name), usize::MAX).await?;
        if !left.is_empty() {
            let mut unlink = pipe();
            unlink.cmd("UNLINK").arg(Vec::from_iter(left)).ignore();
            self.commands.ask::<()>(&unlink).await?;
        }
        match removed {
            0 => Err(StoreError::not_found(name)),
            _ => Ok(()),
        }
    }

    async fn list(&self, tenant: &Tenant, kind: BlobKind) -> Result<Vec<BlobInfo>, StoreError> {
        let limit = MAX_LISTED_BLOBS;
        let keys = self.scan(&meta::pattern_of_metas(tenant, kind), limit).await?;
        if keys.len() > limit {
            return Err(StoreError::TooMany { tenant: tenant.clone(), kind, limit });
        }
        let ids = keys.iter().filter_map(|key| meta::id_of_meta(key, tenant, kind));
        let names: Vec<_> = ids.map(|id| BlobName { tenant: tenant.clone(), kind, id }).collect();
        let mut found = Vec::with_capacity(names.len());
        for names in names.chunks(LISTED_AT_ONCE) {
            found.extend(self.describe(names).await?.into_iter().flatten());
        }
        Ok(found)
    }
}
