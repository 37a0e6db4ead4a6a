//! Jobs and replies as AMQP messages: what is in properties and headers, for other languages and
//! the management page, and what is in the body.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use super::body::{
    OwnedPayload, has_payload, read_payload, read_reason, read_version, write_payload, write_reason,
};
use super::{
    BodyError, ErrorCode, Job, JobTerms, MAX_CORRELATION_BYTES, Outcome, ProtocolVersion, Reply,
    Timestamp, Timings,
};
use crate::topology::{JOBS, Lane, REPLIES, ReplyQueue, job_queue};
use crate::worker_name::MAX_WORKER_LENGTH;
use crate::{JobId, ModelId};

/// Names of headers.
pub mod headers {
    /// Digest of the original `server.zip`.
    pub const MODEL_ID: &str = "cs-model-id";
    /// Digest of the serialised evaluation key; absent for linear circuits.
    pub const KEY_ID: &str = "cs-key-id";
    /// Whose job.
    pub const TENANT: &str = "cs-tenant";
    /// Number of rows.
    pub const ROWS: &str = "cs-rows";
    /// Form in which the rows are encrypted. In version 2.
    pub const FORM: &str = "cs-form";
    /// Microseconds that evaluation is planned to take on one thread. In version 2.
    pub const PLANNED: &str = "cs-planned-us";
    /// How soon the scores are wanted. In version 2.
    pub const DEADLINE_CLASS: &str = "cs-deadline-class";
    /// Digest of the signed manifest of an artifact. In version 2.
    pub const MANIFEST_ID: &str = "cs-manifest-id";
    /// Milliseconds since 1970 after which the scores are of no use.
    pub const DEADLINE: &str = "cs-deadline-ms";
    /// How many times the job was put off.
    pub const ATTEMPT: &str = "cs-attempt";
    /// `high` or `normal`.
    pub const LANE: &str = "cs-lane";
    /// W3C trace context.
    pub const TRACE_PARENT: &str = "traceparent";
    /// W3C trace context, of vendors.
    pub const TRACE_STATE: &str = "tracestate";
    /// When the job was published, in milliseconds since 1970 by its publisher's clock.
    pub const PUBLISHED: &str = "cs-published-ms";
    /// Which job a reply answers.
    pub const JOB_ID: &str = "cs-job-id";
    /// `scored`, or an error code.
    pub const OUTCOME: &str = "cs-outcome";
    /// Which worker answered.
    pub const WORKER: &str = "cs-worker";
    /// Microseconds that the evaluation key took.
    pub const KEY_TIME: &str = "cs-key-us";
    /// Microseconds that evaluation took.
    pub const EVALUATE_TIME: &str = "cs-evaluate-us";
    /// Who published a job that a worker published again: the broker's validated user id of the
    /// first publication, believed only from a worker.
    pub const PUBLISHED_BY: &str = "cs-published-by";
    /// How often a job came back before a worker published it again: the broker counts from
    /// nothing then.
    pub const RETURNED: &str = "cs-returned";
    /// Why a job is in the dead-letter queue: an error code.
    pub const DEAD_CODE: &str = "cs-dead-code";
    /// Why a job is in the dead-letter queue, for people.
    pub const DEAD_REASON: &str = "cs-dead-reason";
}

const JOB_TYPE: &str = "cipherscore.job";
/// AMQP `type` of a reply.
pub const REPLY_TYPE: &str = "cipherscore.reply";
const SCORED: &str = "scored";
/// Longest error code that a newer worker may use, in characters.
const MAX_CODE_LENGTH: usize = 64;

/// The value of a header. Of AMQP's many kinds these two are used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderValue {
    /// A long string.
    Text(String),
    /// A signed 64-bit integer; integers of other lengths are read as well.
    Integer(i64),
}

/// A message, as brokers carry it: all are persistent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Message {
    /// Exchange it is published to, or came from.
    pub exchange: String,
    /// By which it is routed.
    pub routing_key: String,
    /// AMQP `content-type`; none for bytes of no particular kind, as jobs and replies are.
    pub content_type: Option<String>,
    /// AMQP `type`.
    pub kind: Option<String>,
    /// AMQP `message-id`.
    pub message_id: Option<String>,
    /// AMQP `correlation-id`.
    pub correlation_id: Option<String>,
    /// AMQP `reply-to`.
    pub reply_to: Option<String>,
    /// AMQP `user-id`, which the broker compares with the user of the connection.
    pub user_id: Option<String>,
    /// AMQP `headers`.
    pub headers: BTreeMap<String, HeaderValue>,
    /// Body.
    pub body: Vec<u8>,
}

/// Why a message is no job or no reply, as its answer says it.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// For programs.
    pub code: ErrorCode,
    /// For people.
    pub reason: String,
}

impl Refusal {
    /// A refusal.
    pub fn new(code: ErrorCode, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }

    pub(super) fn malformed(reason: impl Into<String>) -> Self {
        Self::new(ErrorCode::Malformed, reason)
    }
}

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Self {
        let code = match error {
            BodyError::Version(_) | BodyError::DigestKind(_) => ErrorCode::UnsupportedVersion,
            BodyError::TooLarge(_) => ErrorCode::TooLarge,
            BodyError::Form(_) => ErrorCode::Malformed,
        };
        Self::new(code, error.to_string())
    }
}

impl Message {
    /// Sets a header.
    pub fn set(&mut self, name: &str, value: impl Into<HeaderValue>) {
        self.headers.insert(name.to_owned(), value.into());
    }

    /// A header that is text.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.headers.get(name) {
            Some(HeaderValue::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// Parses a header that must be there.
    fn require<T: FromStr<Err: Display>>(&self, name: &str) -> Result<T, Refusal> {
        self.optional(name)?.ok_or_else(|| Refusal::malformed(format!("{name} is missing")))
    }

    /// Parses a header that may be missing, but not wrong.
    pub(super) fn optional<T: FromStr<Err: Display>>(
        &self,
        name: &str,
    ) -> Result<Option<T>, Refusal> {
        match self.headers.get(name) {
            None => Ok(None),
            Some(HeaderValue::Text(text)) => match text.parse() {
                Ok(value) => Ok(Some(value)),
                Err(error) => Err(Refusal::malformed(format!("{name}: {error}"))),
            },
            Some(HeaderValue::Integer(_)) => Err(Refusal::malformed(format!("{name} is not text"))),
        }
    }

    pub(super) fn integer<T: TryFrom<i64>>(&self, name: &str) -> Result<Option<T>, Refusal> {
        match self.headers.get(name) {
            None => Ok(None),
            Some(HeaderValue::Integer(value)) => match T::try_from(*value) {
                Ok(value) => Ok(Some(value)),
                Err(_) => Err(Refusal::malformed(format!("{name} is out of range: {value}"))),
            },
            Some(HeaderValue::Text(_)) => {
                Err(Refusal::malformed(format!("{name} is not an integer")))
            }
        }
    }

    /// The version of its body; the oldest that this program speaks, where it is another.
    pub fn version(&self) -> ProtocolVersion {
        read_version(&self.body).unwrap_or(ProtocolVersion::OLDEST)
    }

    /// The job that this message says it is, as far as that can be read. For the answer to one
    /// that cannot be read otherwise.
    pub fn job_id(&self) -> Option<JobId> {
        self.message_id.as_deref()?.parse().ok()
    }

    /// The reply queue that this message names.
    pub fn reply_queue(&self) -> Option<ReplyQueue> {
        self.reply_to.as_deref()?.parse().ok()
    }

    /// How many times it was put off.
    pub fn attempt(&self) -> u32 {
        self.integer(headers::ATTEMPT).ok().flatten().unwrap_or_default()
    }

    /// When it was first published, as its publisher says.
    pub fn published(&self) -> Option<Timestamp> {
        self.integer(headers::PUBLISHED).ok().flatten().map(Timestamp::from_millis)
    }

    /// How often workers gave it back before it was published again.
    pub fn returned_before(&self) -> u32 {
        self.integer(headers::RETURNED).ok().flatten().unwrap_or_default()
    }

    /// Whether its payload is in it, and not in the store.
    pub fn has_payload(&self) -> bool {
        has_payload(&self.body)
    }

    /// The model that this message names.
    pub fn model_id(&self) -> Option<ModelId> {
        self.text(headers::MODEL_ID)?.parse().ok()
    }

    fn require_kind(&self, kind: &str) -> Result<(), Refusal> {
        match self.kind.as_deref() {
            Some(found) if found == kind => Ok(()),
            _ => Err(Refusal::malformed(format!("its type is not {kind}"))),
        }
    }

    fn worker(&self) -> Result<String, Refusal> {
        match self.optional::<String>(headers::WORKER)? {
            Some(worker) if worker.len() > MAX_WORKER_LENGTH => {
                Err(Refusal::malformed("cs-worker is too long"))
            }
            worker => Ok(worker.unwrap_or_default()),
        }
    }

    fn correlation(&self) -> Result<Option<String>, Refusal> {
        match &self.correlation_id {
            Some(id) if id.len() > MAX_CORRELATION_BYTES => {
                Err(Refusal::malformed("the correlation id is too long"))
            }
            id => Ok(id.clone()),
        }
    }
}

/// Whole microseconds, as headers have them.
pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl From<String> for HeaderValue {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for HeaderValue {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<u32> for HeaderValue {
    fn from(number: u32) -> Self {
        Self::Integer(number.into())
    }
}

impl From<u64> for HeaderValue {
    fn from(number: u64) -> Self {
        Self::Integer(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl Job {
    /// The message that carries it to the workers.
    pub fn to_message(&self) -> Message {
        let mut message = Message {
            exchange: JOBS.into(),
            routing_key: job_queue(self.model_id, self.lane),
            kind: Some(JOB_TYPE.into()),
            message_id: Some(self.id.to_string()),
            correlation_id: self.correlation_id.clone(),
            reply_to: Some(self.reply_to.to_string()),
            body: write_payload(self.version, self.terms.owner_id, &self.payload),
            ..Message::default()
        };
        message.set(headers::TENANT, self.tenant.to_string());
        message.set(headers::MODEL_ID, self.model_id.to_string());
        message.set(headers::LANE, self.lane.to_string());
        message.set(headers::ROWS, self.rows);
        message.set(headers::ATTEMPT, self.attempt);
        if let Some(key) = self.key_id {
            message.set(headers::KEY_ID, key.to_string());
        }
        if let Some(deadline) = self.deadline {
            message.set(headers::DEADLINE, deadline.millis());
        }
        if self.version >= ProtocolVersion::V2 {
            self.terms.set(&mut message);
        }
        if let Some(trace) = self.trace {
            message.set(headers::TRACE_PARENT, trace.to_string());
        }
        message
    }

    /// Reads a job. Whether it may be done is not decided here.
    pub fn from_message(message: &Message) -> Result<Self, Refusal> {
        message.require_kind(JOB_TYPE)?;
        // First: the headers of another version may be others.
        let version = read_version(&message.body)?;
        let OwnedPayload { owner, payload } = read_payload(&message.body)?;
        let id = message.message_id.as_deref().unwrap_or_default();
        let reply_to = message.reply_to.as_deref().unwrap_or_default();
        let malformed = |error: &dyn Display| Refusal::malformed(error.to_string());
        let rows = message.integer(headers::ROWS)?;
        Ok(Self {
            version,
            id: id.parse().map_err(|error| malformed(&error))?,
            reply_to: reply_to.parse().map_err(|error| malformed(&error))?,
            correlation_id: message.correlation()?,
            tenant: message.require(headers::TENANT)?,
            model_id: message.require(headers::MODEL_ID)?,
            lane: message.optional::<Lane>(headers::LANE)?.unwrap_or_default(),
            key_id: message.optional(headers::KEY_ID)?,
            rows: rows.ok_or_else(|| Refusal::malformed("cs-rows is missing"))?,
            deadline: message.integer(headers::DEADLINE)?.map(Timestamp::from_millis),
            terms: match version {
                ProtocolVersion::V1 => JobTerms::default(),
                ProtocolVersion::V2 => JobTerms { owner_id: owner, ..JobTerms::of(message)? },
            },
            attempt: message.integer(headers::ATTEMPT)?.unwrap_or_default(),
            // What is not understood is left out, as W3C asks.
            trace: message.optional(headers::TRACE_PARENT).unwrap_or_default(),
            payload,
        })
    }
}

impl Reply {
    /// The message that carries it to a client.
    pub fn to_message(&self, reply_to: &ReplyQueue) -> Message {
        let body = match &self.outcome {
            Outcome::Scored(payload) => write_payload(self.version, self.owner_id, payload),
            Outcome::Failed { reason, .. } => write_reason(self.version, reason),
        };
        let mut message = Message {
            exchange: REPLIES.into(),
            routing_key: reply_to.to_string(),
            kind: Some(REPLY_TYPE.into()),
            // One job has one reply, however often it is sent.
            message_id: Some(self.job.to_string()),
            correlation_id: self.correlation_id.clone(),
            body,
            ..Message::default()
        };
        message.set(headers::JOB_ID, self.job.to_string());
        message.set(headers::OUTCOME, self.outcome.name());
        message.set(headers::WORKER, self.worker.as_str());
        message.set(headers::KEY_TIME, micros(self.timings.key));
        message.set(headers::EVALUATE_TIME, micros(self.timings.evaluate));
        if let Some(model) = self.model_id {
            message.set(headers::MODEL_ID, model.to_string());
        }
        if self.version >= ProtocolVersion::V2 {
            let manifest_id = self.manifest_id;
            JobTerms { manifest_id, ..JobTerms::default() }.set(&mut message);
        }
        if let Some(trace) = self.trace {
            message.set(headers::TRACE_PARENT, trace.to_string());
        }
        message
    }

    /// Reads a reply.
    pub fn from_message(message: &Message) -> Result<Self, Refusal> {
        message.require_kind(REPLY_TYPE)?;
        let version = read_version(&message.body)?;
        let manifest_id = match version {
            ProtocolVersion::V1 => None,
            ProtocolVersion::V2 => message.optional(headers::MANIFEST_ID)?,
        };
        let (owner_id, outcome) = match message.require::<String>(headers::OUTCOME)?.as_str() {
            SCORED => {
                let OwnedPayload { owner, payload } = read_payload(&message.body)?;
                (owner, Outcome::Scored(payload))
            }
            code => (None, failed(code, &message.body)?),
        };
        let time = |name| {
            let micros = message.integer(name)?.unwrap_or_default();
            Ok::<_, Refusal>(Duration::from_micros(micros))
        };
        Ok(Self {
            version,
            job: message.require(headers::JOB_ID)?,
            correlation_id: message.correlation()?,
            model_id: message.optional(headers::MODEL_ID)?,
            owner_id,
            manifest_id,
            worker: message.worker()?,
            timings: Timings {
                key: time(headers::KEY_TIME)?,
                evaluate: time(headers::EVALUATE_TIME)?,
            },
            trace: message.optional(headers::TRACE_PARENT).unwrap_or_default(),
            outcome,
        })
    }
}

/// A code that only a newer worker knows is read as an internal error rather than not at all: who
/// waits for the reply shall hear of it.
fn failed(code: &str, body: &[u8]) -> Result<Outcome, Refusal> {
    let form = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
    if let Ok(code) = code.parse() {
        return Ok(Outcome::Failed { code, reason: read_reason(body)? });
    }
    if !((1..=MAX_CODE_LENGTH).contains(&code.len()) && code.bytes().all(form)) {
        return Err(Refusal::malformed("cs-outcome is neither scored nor an error code"));
    }
    let reason = format!("{code}: {}", read_reason(body)?);
    Ok(Outcome::Failed { code: ErrorCode::Internal, reason })
}
