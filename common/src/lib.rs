//! What two processes must agree on: tenants, jobs and replies, exchanges and queues, and the store
//! of evaluation keys, models and large bodies.
//!
//! No mathematics is in here, and no format of Concrete: to this crate a key is bytes.
//!
//! # What is in Redis
//!
//! A blob (an evaluation key, a model, or the rows of a job or outputs of a reply that are too many
//! for a message) is one meta key and its chunks. `TENANT` is 1 to 64 characters of `a-z`, `0-9`
//! and `-`; `KIND` is `key`, `model`, `job` or `reply`; `ID` is 64 lower-case hexadecimal digits;
//! `UPLOAD`, drawn at random for every upload, is 16; `N` counts from 0.
//!
//! | name | value |
//! |---|---|
//! | `cs:TENANT:KIND:ID:meta` | JSON, below; at most 4 KiB |
//! | `cs:TENANT:KIND:ID:chunk:UPLOAD:N` | bytes `N` MiB to `N + 1` MiB of the blob; the last chunk may be shorter, none is empty |
//!
//! ```json
//! {"format_version":1,"kind":"key","bytes":37732352,"chunks":36,
//!  "sha256":"17262651...","upload":"9c1d3f0a5e7b2468","created_by":"0.1.0"}
//! ```
//!
//! `sha256` is the digest of the whole blob. It is the `ID`, except of a model, whose `ID` is the
//! digest of the original `server.zip`: another import of it may have other bytes.
//!
//! The meta key is written last: a blob without one is not there. It names one upload, so that two
//! uploads side by side, or one that replaces what somebody is reading, do not mix: the upload it
//! named before expires after [`CHUNK_GRACE`]. Everything expires unless it is renewed
//! ([`BlobStore::touch`]), except models without a lease, which stay; chunks outlive their meta
//! key by [`CHUNK_GRACE`], so that who began to read can finish. Chunks of an upload that was
//! given up expire [`UPLOAD_LEASE`] after they were written.
//!
//! Beside the blobs are marks on jobs, and who works. `JOB` is a UUID in lower case, `WORKER` is 1
//! to 128 characters of `a-z`, `A-Z`, `0-9`, `-`, `.` and `_`.
//!
//! | name | value | expires after |
//! |---|---|---|
//! | `cs:TENANT:done:JOB` | `1`: the reply of this job is at the broker | [`DONE_LEASE`] |
//! | `cs:TENANT:cancel:JOB` | `1`: nobody wants this job any more | [`CANCEL_LEASE`] |
//! | `cs:TENANT:alone:JOB` | how often this job was begun alone, in decimal digits | [`ALONE_LEASE`] |
//! | `cs:_worker:WORKER` | [`Presence`] as JSON, at most [`MAX_PRESENCE_BYTES`] | [`PRESENCE_LEASE`] |
//! | `cs:_workers` | sorted set of worker names, by the time of their last announcement in milliseconds since 1970 | a day |
//!
//! That a mark is there is all that counts; its value is not read. The sorted set only says which
//! names to look up, so that a list does not go through all keys: who is listed is decided by
//! `cs:_worker:WORKER`, and names are taken out of the set a day after they were last announced.
//! No tenant's name has a `_`, so no tenant's rule covers these keys.
//!
//! # Permissions
//!
//! `deploy/redis/roles/` has rules for tenants, workers and operators, which need no other commands
//! than these: `SET`, `GETRANGE`, `EXISTS`, `EXPIRE`, `PERSIST`, `PTTL`, `SCAN` and `UNLINK`; for the
//! list of workers `ZADD`, `ZRANGE`, `ZREM` and `ZREMRANGEBYSCORE`.
//!
//! `SCAN`, which list and remove need, shows the names of all tenants, though not their values.
//! Redis 6.2 or newer, 7.0 for these rules; not a Redis Cluster.

pub mod broker;
pub mod config;
mod lease;
pub mod message;
mod store;
pub mod telemetry;
mod tenant;
pub mod topology;

pub use cipherscore_ids::{Digest, EvaluationKeyId, InvalidId, JobId, ModelId};
pub use lease::{InvalidLease, Lease, MAX_LEASE_SECONDS};
#[cfg(any(test, fuzzing))]
pub use store::fuzzing;
pub use store::marks::{
    ALONE_LEASE, Activity, CANCEL_LEASE, DONE_LEASE, MAX_LISTED_WORKERS, MAX_PRESENCE_BYTES,
    MAX_WORKER_LENGTH, MarkStore, Marks, PRESENCE_LEASE, Presence, RELEASED_LEASE,
};
pub use store::memory::MemoryStore;
pub use store::reader::BlobReader;
pub use store::redis::config::{InvalidRedisUrl, RedisConfig};
pub use store::redis::{CHUNK_GRACE, RedisStore, UPLOAD_LEASE};
pub use store::{
    Blob, BlobInfo, BlobKind, BlobName, BlobStore, CHUNK_BYTES, ErrorClass, MAX_BLOB_BYTES,
    MAX_LISTED_BLOBS, Progress, Put, Store, StoreError,
};
pub use tenant::{InvalidTenant, MAX_TENANT_LENGTH, Tenant};
