//! What two processes must agree on: tenants, jobs and replies, exchanges and queues, and the store
//! of evaluation keys, models and large bodies.
//!
//! No mathematics is in here, and no format of Concrete: to this crate a key is bytes.
//!
//! What is in Redis, key by key, is in `docs/formats.md`; which commands each role may use, in
//! `docs/operations.md` and `deploy/redis/roles/`.

pub mod broker;
pub mod config;
#[cfg(feature = "contract")]
pub mod contract;
pub mod health;
mod lease;
pub mod message;
mod pauses;
mod store;
mod stored;
pub mod telemetry;
mod tenant;
mod timestamp;
pub mod topology;
mod worker_name;

pub use cipherscore_ids::{
    Digest, EvaluationKeyId, FormName, Hasher, InvalidId, JobId, ModelId, OwnerId,
};
pub use lease::{InvalidLease, Lease, MAX_LEASE_SECONDS};
pub use pauses::Pauses;
#[cfg(any(test, fuzzing))]
pub use store::fuzzing;
pub use store::marks::{ALONE_LEASE, CANCEL_LEASE, DONE_LEASE, MarkStore, Marks};
pub use store::memory::MemoryStore;
pub use store::owner::OwnerStore;
pub use store::presence::{
    Activity, MAX_LISTED_WORKERS, MAX_PRESENCE_BYTES, PRESENCE_LEASE, Presence,
};
pub use store::reader::BlobReader;
pub use store::redis::config::{InvalidRedisUrl, RedisConfig};
pub use store::redis::{CHUNK_GRACE, RedisStore, UPLOAD_LEASE};
pub use store::releases::{RELEASED_LEASE, ReleaseStore};
pub use store::results::{
    FeedEntry, InvalidFeedEntry, JobState, MAX_FEED_ENTRIES, MAX_NOTE_BYTES, MAX_RESULT_BYTES,
    NoteName, ResultStore, SETTLED_LEASE,
};
pub use store::uploads::{BlobWriter, UploadName, UploadStore, Written};
pub use store::workers::PresenceStore;
pub use store::{
    Blob, BlobInfo, BlobKind, BlobName, BlobStore, CHUNK_BYTES, ErrorClass, GatewayStore,
    MAX_BLOB_BYTES, MAX_LISTED_BLOBS, Progress, Put, Store, StoreError,
};
pub use tenant::{InvalidTenant, MAX_TENANT_LENGTH, Tenant};
pub use worker_name::MAX_WORKER_LENGTH;
