//! Ids: digests that whoever holds the bytes can recompute, the ids of jobs and of data owners, and the
//! names of forms.
//!
//! An id is text of one form: two texts are two ids. Every kind of id is a type of its own, so that
//! one cannot stand for another.

mod digest;
mod form;
mod job;
mod owner;
mod text;

pub use digest::{Digest, EvaluationKeyId, Hasher, KeysetId, ModelId};
pub use form::{FormName, UnknownForm};
pub use job::JobId;
pub use owner::OwnerId;
use thiserror::Error;

/// Text that is no id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InvalidId {
    /// Not a digest.
    #[error("not an id of 64 lower-case hexadecimal digits")]
    Digest,
    /// Not the id of a data owner.
    #[error("not an owner id of 32 lower-case hexadecimal digits, or all of them 0")]
    Owner,
    /// Not the id of a job.
    #[error("not a job id: a UUID in lower case, with hyphens")]
    Job,
}
