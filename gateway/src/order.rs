//! A job as HTTP says it: headers of the request as those of a message, checked as the workers check
//! them.

use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use cipherscore_common::message::{
    ADDED_PREFIX, HeaderValue, Job, MAX_CORRELATION_BYTES, Message, Payload, ProtocolVersion,
    Timestamp, TraceParent, headers,
};
use cipherscore_common::telemetry::trace::trace_state;
use cipherscore_common::topology::{MAX_CLIENT_LENGTH, ReplyQueue};
use cipherscore_common::{Digest, JobId, ModelId, OwnerId, Tenant};

use crate::kept::correlate;
use crate::problem::{Problem, ProblemCode};

/// Type of a body that is a payload.
const OCTET_STREAM: &str = "application/octet-stream";
/// Type of a body that is a body of the protocol.
pub(crate) const PROTOCOL_BODY: &str = "application/vnd.cipherscore.body";
/// Header with the name of the feed.
pub(crate) const CLIENT: &str = "cs-client";
/// Header with the caller's correlation id.
pub(crate) const CORRELATION_ID: &str = "cs-correlation-id";
/// Header with the owner id.
pub(crate) const OWNER_ID: &str = "cs-owner-id";
/// Header with the digest of the body.
pub(crate) const PAYLOAD_SHA256: &str = "cs-payload-sha256";
/// What a job is, in AMQP's words.
const JOB_TYPE: &str = "cipherscore.job";
/// Client of the reply queue of every tenant that all gateways share.
pub(crate) const GATEWAY_CLIENT: &str = "gateway";

/// Longest correlation id of a caller, in bytes: beside the name of its feed.
pub(crate) const MAX_CALLER_CORRELATION: usize = MAX_CORRELATION_BYTES - MAX_CLIENT_LENGTH - 1;
/// Most headers of later versions that are sent on, and longest value of one, in bytes.
const MAX_ADDED: usize = 16;
const MAX_ADDED_BYTES: usize = 512;

const TEXTS: [&str; 7] = [
    headers::KEY_ID,
    headers::LANE,
    headers::DEADLINE_CLASS,
    headers::FORM,
    headers::MANIFEST_ID,
    headers::TRACE_PARENT,
    headers::TRACE_STATE,
];
const INTEGERS: [&str; 4] =
    [headers::ROWS, headers::DEADLINE, headers::PLANNED, headers::PUBLISHED];

/// Whether the body is a payload or a body of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyForm {
    Payload,
    Protocol,
}

/// A job without its rows.
#[derive(Debug)]
pub(crate) struct Order {
    /// Its headers.
    message: Message,
    pub(crate) id: JobId,
    pub(crate) form: BodyForm,
    /// In whose feed its result goes.
    pub(crate) client: Option<String>,
    owner_id: Option<OwnerId>,
    /// Digest of the body, as the caller says it.
    pub(crate) sha256: Option<Digest>,
}

impl Order {
    /// Reads and checks what the head of the request says.
    pub(crate) fn read(
        tenant: &Tenant,
        model_id: ModelId,
        id: JobId,
        said: &HeaderMap,
    ) -> Result<Self, Problem> {
        let form = body_form(said)?;
        let client = text(said, CLIENT)?;
        if let Some(client) = client {
            ReplyQueue::new(tenant, client).map_err(|_| {
                let most = MAX_CLIENT_LENGTH;
                Problem::malformed(format!("{CLIENT}: 1 to {most} characters of a-z, 0-9 and -"))
            })?;
        }
        let correlation_id = text(said, CORRELATION_ID)?;
        if correlation_id.is_some_and(|id| id.len() > MAX_CALLER_CORRELATION) {
            let most = MAX_CALLER_CORRELATION;
            return Err(Problem::malformed(format!("{CORRELATION_ID}: at most {most} bytes")));
        }
        let reply_to = ReplyQueue::new(tenant, GATEWAY_CLIENT)
            .map_err(|error| Problem::malformed(error.to_string()))?;
        let mut message = Message {
            kind: Some(JOB_TYPE.into()),
            message_id: Some(id.to_string()),
            correlation_id: Some(correlate(client, correlation_id)),
            reply_to: Some(reply_to.to_string()),
            ..Message::default()
        };
        message.set(headers::TENANT, tenant.to_string());
        message.set(headers::MODEL_ID, model_id.to_string());
        copy_headers(said, &mut message)?;
        let sha256 = parse(said, PAYLOAD_SHA256)?;
        let owner_id = parse(said, OWNER_ID)?;
        let client = client.map(str::to_owned);
        let order = Self { message, id, form, client, owner_id, sha256 };
        // Before anything is received.
        order.job(Payload::Inline(Vec::new()))?;
        Ok(order)
    }

    /// The job with its rows.
    pub(crate) fn job(&self, payload: Payload) -> Result<Job, Problem> {
        // A body that is certainly right stands for the one that is not here yet.
        let message = Message { body: empty_body(), ..self.message.clone() };
        let mut job = Job::from_message(&message)?;
        job.payload = payload;
        job.terms.owner_id = self.owner_id;
        Ok(job)
    }

    /// The job that a body of the protocol carries.
    pub(crate) fn job_of_body(&self, body: Vec<u8>) -> Result<Job, Problem> {
        let job = Job::from_message(&Message { body, ..self.message.clone() })?;
        match self.owner_id {
            Some(owner) if job.terms.owner_id != Some(owner) => {
                Err(Problem::malformed(format!("{OWNER_ID} is another than that of the body")))
            }
            _ => Ok(job),
        }
    }

    /// The message that carries a job to the workers.
    pub(crate) fn message(&self, mut job: Job) -> Message {
        job.trace = job.trace.or_else(|| Some(TraceParent::random()));
        let mut message = job.to_message();
        let published = self.message.published().unwrap_or_else(Timestamp::now);
        message.set(headers::PUBLISHED, published.millis());
        if let Some(state) = trace_state(&self.message) {
            message.set(headers::TRACE_STATE, state);
        }
        for (name, value) in &self.message.headers {
            if name.starts_with(ADDED_PREFIX) {
                message.set(name, value.clone());
            }
        }
        message
    }
}

/// A body without rows.
fn empty_body() -> Vec<u8> {
    // Version, owner id, form, length.
    let mut body = vec![0; 2 + 16 + 4 + 8];
    body[..2].copy_from_slice(&ProtocolVersion::V2.number().to_le_bytes());
    body
}

fn body_form(said: &HeaderMap) -> Result<BodyForm, Problem> {
    let kind = text(said, CONTENT_TYPE.as_str())?.unwrap_or(OCTET_STREAM);
    let kind = kind.split(';').next().unwrap_or_default().trim();
    match kind {
        _ if kind.eq_ignore_ascii_case(OCTET_STREAM) => Ok(BodyForm::Payload),
        _ if kind.eq_ignore_ascii_case(PROTOCOL_BODY) => Ok(BodyForm::Protocol),
        _ => Err(Problem::new(
            ProblemCode::UnsupportedMediaType,
            format!("the body of a job is {OCTET_STREAM} or {PROTOCOL_BODY}"),
        )),
    }
}

fn copy_headers(said: &HeaderMap, message: &mut Message) -> Result<(), Problem> {
    for name in TEXTS {
        if let Some(value) = text(said, name)? {
            message.set(name, value);
        }
    }
    for name in INTEGERS {
        let Some(value) = text(said, name)? else { continue };
        let is_number =
            (1..=19).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_digit());
        let number = is_number.then(|| value.parse::<i64>().ok()).flatten();
        let number = number.ok_or_else(|| Problem::malformed(format!("{name} is no integer")))?;
        message.headers.insert(name.to_owned(), HeaderValue::Integer(number));
    }
    let added = said.keys().filter(|name| name.as_str().starts_with(ADDED_PREFIX));
    for (index, name) in added.enumerate() {
        let value = text(said, name.as_str())?.unwrap_or_default();
        if index == MAX_ADDED || value.len() > MAX_ADDED_BYTES {
            return Err(Problem::malformed(format!(
                "at most {MAX_ADDED} headers {ADDED_PREFIX}*, of at most {MAX_ADDED_BYTES} bytes"
            )));
        }
        message.set(name.as_str(), value);
    }
    Ok(())
}

/// A header that may be missing, but not wrong, and not twice.
pub(crate) fn text<'a>(said: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Problem> {
    let mut values = said.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    match (value.to_str(), values.next()) {
        (Ok(text), None) => Ok(Some(text)),
        (Ok(_), Some(_)) => Err(Problem::malformed(format!("{name} is there twice"))),
        (Err(_), _) => Err(Problem::malformed(format!("{name} is not of printable ASCII"))),
    }
}

/// As [`text`], parsed.
pub(crate) fn parse<T>(said: &HeaderMap, name: &str) -> Result<Option<T>, Problem>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    let parsed = text(said, name)?.map(str::parse).transpose();
    parsed.map_err(|error| Problem::malformed(format!("{name}: {error}")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

    use std::str::FromStr as _;

    use axum::http::HeaderName;
    use cipherscore_common::contract::fixtures::tenant;
    use cipherscore_common::topology::Lane;

    use super::*;

    fn read(said: &[(&str, &str)]) -> Result<Order, Problem> {
        let mut headers = HeaderMap::new();
        for (name, value) in said {
            headers.append(HeaderName::from_str(name).unwrap(), value.parse().unwrap());
        }
        Order::read(&tenant("bank"), ModelId::of(b"model"), JobId::from_bytes([9; 16]), &headers)
    }

    #[test]
    fn headers_of_a_request_are_those_of_the_message() {
        let key = Digest::of(b"key").to_string();
        let owner = "00112233445566778899aabbccddeeff";
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let order = read(&[
            ("cs-rows", "17"),
            ("cs-key-id", &key),
            ("cs-owner-id", owner),
            ("cs-client", "c-1"),
            ("cs-correlation-id", "mine/too"),
            ("cs-lane", "high"),
            ("cs-deadline-ms", "1790000000000"),
            ("cs-form", "rows"),
            ("cs-planned-us", "250"),
            ("cs-opt-colour", "green"),
            ("cs-published-ms", "1790000000000"),
            ("traceparent", trace),
            ("tracestate", "a=1"),
            ("content-type", "Application/Octet-Stream; x=y"),
        ])
        .unwrap();
        let job = order.job(Payload::Inline(vec![1, 2])).unwrap();
        assert_eq!((job.rows, job.lane, job.tenant.as_str()), (17, Lane::High, "bank"));
        assert_eq!(job.reply_to.to_string(), "cs.reply.bank.gateway");
        assert_eq!(job.terms.owner_id.unwrap().to_string(), owner);
        let message = order.message(job.clone());
        assert_eq!(Job::from_message(&message).unwrap(), job);
        assert_eq!(message.correlation_id.as_deref(), Some("c-1/mine/too"));
        assert_eq!(message.text("cs-opt-colour"), Some("green"));
        assert_eq!(message.text("tracestate"), Some("a=1"));
        assert_eq!(message.published().unwrap().millis(), 1_790_000_000_000);
        assert_eq!(message.user_id, None, "the broker is told by the connection");
    }

    #[test]
    fn a_body_of_the_protocol_says_the_rest() {
        let order = read(&[("cs-rows", "1"), ("content-type", PROTOCOL_BODY)]).unwrap();
        let mut job = order.job(Payload::Inline(vec![1, 2, 3])).unwrap();
        for version in ProtocolVersion::ALL {
            job.version = version;
            let read = order.job_of_body(job.to_message().body).unwrap();
            assert_eq!((read.version, &read.payload), (version, &job.payload));
        }
        let refused = order.job_of_body(vec![3, 0, 9]).unwrap_err();
        assert_eq!(refused.code(), Some(ProblemCode::UnsupportedVersion));
        let refused = order.job_of_body(vec![2, 0, 9]).unwrap_err();
        assert_eq!(refused.code(), Some(ProblemCode::Malformed));
    }

    #[test]
    fn what_is_wrong_is_named_before_a_body_is_read() {
        let rows = ("cs-rows", "1");
        let (long, many) = ("x".repeat(MAX_CALLER_CORRELATION + 1), "y".repeat(513));
        for (wrong, name) in [
            (("cs-lane", "middle"), "cs-lane"),
            (("cs-key-id", "00"), "cs-key-id"),
            (("cs-owner-id", "zz"), "cs-owner-id"),
            (("cs-client", "Über"), "cs-client"),
            (("cs-client", "a.b"), "cs-client"),
            (("cs-correlation-id", &*long), "cs-correlation-id"),
            (("cs-deadline-ms", "-1"), "cs-deadline-ms"),
            (("cs-planned-us", "99999999999999"), "cs-planned-us"),
            (("cs-form", "square"), "cs-form"),
            (("cs-opt-much", &*many), "cs-opt-"),
            (("cs-payload-sha256", "ab"), "cs-payload-sha256"),
            (rows, "cs-rows is there twice"),
        ] {
            let problem = read(&[rows, wrong]).unwrap_err();
            assert_eq!(problem.code(), Some(ProblemCode::Malformed), "{wrong:?}");
            assert!(problem.detail().contains(name), "{}", problem.detail());
        }
        assert!(read(&[]).unwrap_err().detail().contains("cs-rows"));
        let kind = read(&[rows, ("content-type", "text/plain")]).unwrap_err();
        assert_eq!(kind.code(), Some(ProblemCode::UnsupportedMediaType));
    }
}
