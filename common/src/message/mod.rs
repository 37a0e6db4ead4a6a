//! Jobs and replies, and how they are written as AMQP messages. `docs/protocol.md` says it byte by
//! byte.

mod body;
mod code;
mod envelope;
mod terms;
mod version;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

pub use body::{BodyError, MAX_BODY_BYTES, MAX_INLINE_BYTES, MAX_REASON_BYTES};
pub use code::{ErrorCode, UnknownErrorCode};
pub use envelope::{HeaderValue, Message, REPLY_TYPE, Refusal, headers};
pub use terms::{ADDED_PREFIX, DeadlineClass, InvalidDeadlineClass, JobTerms, MAX_PLANNED};
pub use version::ProtocolVersion;

pub use crate::stored::StoredPayload;
pub use crate::timestamp::Timestamp;
use crate::topology::{Lane, ReplyQueue};
use crate::{Digest, EvaluationKeyId, JobId, ModelId, OwnerId, Tenant};

/// Longest correlation id, in bytes.
pub const MAX_CORRELATION_BYTES: usize = 255;

/// A request to evaluate one model on encrypted rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// The version in which it is written.
    pub version: ProtocolVersion,
    /// Which job. Published again, it stays the same.
    pub id: JobId,
    /// Whose it is.
    pub tenant: Tenant,
    /// Where the reply goes.
    pub reply_to: ReplyQueue,
    /// Whatever the producer wants to see in the reply, at most [`MAX_CORRELATION_BYTES`].
    pub correlation_id: Option<String>,
    /// Which model.
    pub model_id: ModelId,
    /// In which of the model's queues.
    pub lane: Lane,
    /// Which key; none for a linear circuit.
    pub key_id: Option<EvaluationKeyId>,
    /// How many rows.
    pub rows: u32,
    /// When the scores are of no use any more.
    pub deadline: Option<Timestamp>,
    /// What it says of itself in version 2.
    pub terms: JobTerms,
    /// How many times it was put off.
    pub attempt: u32,
    /// Where its trace began.
    pub trace: Option<TraceParent>,
    /// The encrypted rows.
    pub payload: Payload,
}

/// The message that answers a job.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// The version in which it is written: that of the job.
    pub version: ProtocolVersion,
    /// Which job it answers.
    pub job: JobId,
    /// From the job.
    pub correlation_id: Option<String>,
    /// Which model; none when the job's could not be read.
    pub model_id: Option<ModelId>,
    /// Whose rows were evaluated, from the job; of outputs in version 2 only.
    pub owner_id: Option<OwnerId>,
    /// The signed manifest of the artifact that was evaluated; in version 2 only.
    pub manifest_id: Option<Digest>,
    /// Which worker, for people; at most [`MAX_WORKER_LENGTH`](crate::MAX_WORKER_LENGTH)
    /// characters.
    pub worker: String,
    /// How long the parts of it took.
    pub timings: Timings,
    /// From the job.
    pub trace: Option<TraceParent>,
    /// Outputs, or why there are none.
    pub outcome: Outcome,
}

/// What came of a job.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The encrypted outputs.
    Scored(Payload),
    /// None, and why.
    Failed {
        /// For programs.
        code: ErrorCode,
        /// For people.
        reason: String,
    },
}

impl Outcome {
    /// `scored`, or the error code: the value of [`headers::OUTCOME`].
    pub fn name(&self) -> &'static str {
        match self {
            Self::Scored(_) => "scored",
            Self::Failed { code, .. } => code.as_str(),
        }
    }
}

/// Where the time of a job went, as its worker saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timings {
    /// Fetching, checking and preparing the evaluation key; about zero when it was in the cache.
    pub key: Duration,
    /// Evaluation.
    pub evaluate: Duration,
}

/// The body of a job or of a reply: in the message, or in the store.
#[derive(Clone, PartialEq, Eq)]
pub enum Payload {
    /// In the message; at most [`MAX_INLINE_BYTES`].
    Inline(Vec<u8>),
    /// In the store, as a blob of the job's tenant.
    Stored(StoredPayload),
}

/// Never the bytes.
impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inline(bytes) => write!(f, "{} bytes", bytes.len()),
            Self::Stored(stored) => write!(f, "{} bytes in the store", stored.bytes),
        }
    }
}

impl Payload {
    /// Size, in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Stored(stored) => stored.bytes,
        }
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Where a trace began: W3C Trace Context, version 00.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    trace_id: u128,
    parent_id: u64,
    flags: u8,
}

/// Text that is no `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not a W3C traceparent of version 00")]
pub struct InvalidTraceParent;

impl TraceParent {
    /// The start of a trace of its own.
    pub fn random() -> Self {
        let (trace_id, parent_id) = (uuid::Uuid::new_v4().as_u128(), uuid::Uuid::new_v4());
        Self { trace_id, parent_id: parent_id.as_u64_pair().1, flags: 1 }
    }

    /// A span of a trace; none where an id is zero.
    pub(crate) fn new(trace_id: u128, parent_id: u64, sampled: bool) -> Option<Self> {
        let valid = trace_id != 0 && parent_id != 0;
        valid.then_some(Self { trace_id, parent_id, flags: sampled.into() })
    }

    /// Trace, span, and whether it is recorded.
    pub(crate) fn parts(&self) -> (u128, u64, bool) {
        (self.trace_id, self.parent_id, self.flags & 1 == 1)
    }

    /// Names the trace.
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace_id)
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.parent_id, self.flags)
    }
}

impl FromStr for TraceParent {
    type Err = InvalidTraceParent;

    fn from_str(text: &str) -> Result<Self, InvalidTraceParent> {
        let parts: Vec<_> = text.split('-').collect();
        let ["00", trace, parent, flags] = parts[..] else { return Err(InvalidTraceParent) };
        let hexadecimal = |part: &str, length| {
            let digits = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            part.len() == length && part.bytes().all(digits)
        };
        if !(hexadecimal(trace, 32) && hexadecimal(parent, 16) && hexadecimal(flags, 2)) {
            return Err(InvalidTraceParent);
        }
        let number = |part| u128::from_str_radix(part, 16).map_err(|_| InvalidTraceParent);
        let invalid = |_| InvalidTraceParent;
        let trace_id = number(trace)?;
        let parent_id = u64::try_from(number(parent)?).map_err(invalid)?;
        let flags = u8::try_from(number(flags)?).map_err(invalid)?;
        match (trace_id, parent_id) {
            (0, _) | (_, 0) => Err(InvalidTraceParent),
            _ => Ok(Self { trace_id, parent_id, flags }),
        }
    }
}
