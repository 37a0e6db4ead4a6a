//! What is sent to whoever asks: scores, and problems as RFC 9457 has them.

use std::sync::Arc;
use std::time::Duration;

use cipherscore_common::message::HeaderValue;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::http::HeaderValue as FieldValue;
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

use super::Answer;
use super::body::{BATCH, CLOUD_HEADER, LINES, encode};
use super::memory::Room;
use crate::bridge::cloud::{ATTRIBUTE, JSON, STRUCTURED};
use crate::bridge::record::{DeadCode, DeadReason, Ended, Record};

/// MIME type of a problem.
const PROBLEM: &str = "application/problem+json";
/// Seconds after which it is worth to ask again.
const ASK_AGAIN: &str = "1";

/// Why something has no score: an answer of its own, or an element of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    status: StatusCode,
    /// For programs.
    code: &'static str,
    /// For people.
    detail: String,
}

impl Problem {
    fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into() }
    }

    pub(super) fn unauthorized() -> Self {
        let detail = "name a token of http.tokens: `Authorization: Bearer TOKEN`";
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
    }

    pub(super) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "scores are at /score")
    }

    pub(super) fn not_allowed() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "not_allowed", "events are sent by POST")
    }

    pub(super) fn media_type() -> Self {
        let detail = "say what comes by its content type: application/json, lines of it \
                      (application/x-ndjson), or CloudEvents in JSON";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media_type", detail)
    }

    pub(super) fn malformed(detail: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed", detail)
    }

    pub(super) fn large_body(max_bytes: usize) -> Self {
        let detail = format!("the body is larger than http.max_body, which is {max_bytes} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
    }

    pub(super) fn many_events(max_events: usize) -> Self {
        let detail = format!("more events than http.max_events, which is {max_events}");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
    }

    pub(super) fn slow(limit: Duration) -> Self {
        let limit = humantime::format_duration(limit);
        let detail = format!("the body took longer than http.body_timeout, which is {limit}");
        Self::new(StatusCode::REQUEST_TIMEOUT, "slow", detail)
    }

    pub(super) fn busy() -> Self {
        let detail = "http.memory is full of requests that are not answered: ask later";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail)
    }

    pub(super) fn stopping() -> Self {
        let detail = "the bridge stops: ask again, under the same id where the event has one";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", detail)
    }

    pub(super) fn late() -> Self {
        let detail = "no score within the time that was waited; the event may still be scored: ask \
                      again under its id";
        Self::new(StatusCode::GATEWAY_TIMEOUT, "late", detail)
    }

    /// Of an event that is among the dead letters.
    fn of(reason: &DeadReason) -> Self {
        let status = match reason.code {
            DeadCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            DeadCode::Unreadable | DeadCode::NoRoute | DeadCode::OutOfRange => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            DeadCode::NotScored => StatusCode::BAD_GATEWAY,
        };
        Self::new(status, reason.code.as_str(), reason.text.clone())
    }

    #[cfg(test)]
    pub(super) fn status(&self) -> u16 {
        self.status.as_u16()
    }

    /// Its type is that of its status alone; what programs go by is the code.
    fn json(&self) -> Value {
        json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or_default(),
            "status": self.status.as_u16(),
            "code": self.code,
            "detail": self.detail,
        })
    }

    pub(super) fn answer(&self) -> Answer {
        let mut answer = answer(self.status, PROBLEM, self.json().to_string().into());
        let more = match self.status {
            StatusCode::SERVICE_UNAVAILABLE => (RETRY_AFTER, ASK_AGAIN),
            StatusCode::METHOD_NOT_ALLOWED => (ALLOW, "POST"),
            StatusCode::UNAUTHORIZED => (WWW_AUTHENTICATE, "Bearer"),
            _ => return answer,
        };
        answer.headers_mut().insert(more.0, FieldValue::from_static(more.1));
        answer
    }
}

/// What became of an event, for whoever asked.
type Outcome = Result<Ended, Problem>;

/// How a request is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AnswerForm {
    /// A score, or a problem.
    One,
    /// An array with one for each event, in their order.
    Array,
    /// The same as lines.
    Lines,
}

impl AnswerForm {
    /// The answer, which has the memory of its request until it is sent.
    pub(super) fn answer(self, outcomes: Vec<Outcome>, room: Arc<Room>) -> Answer {
        let outcomes: Vec<_> = outcomes.into_iter().map(scored).collect();
        let (separator, ends) = match self {
            Self::One => {
                return match outcomes.into_iter().next() {
                    Some(Ok(score)) => one(&score, room),
                    Some(Err(problem)) => problem.answer(),
                    None => answer(StatusCode::OK, JSON, Bytes::new()),
                };
            }
            Self::Array => (b",\n".as_slice(), ["[", "]\n"]),
            Self::Lines => (b"\n".as_slice(), ["", "\n"]),
        };
        let status = match outcomes.iter().all(Result::is_ok) {
            true => StatusCode::OK,
            false => StatusCode::MULTI_STATUS,
        };
        let kind = match self {
            Self::Lines => LINES[0],
            _ if !outcomes.is_empty() && outcomes.iter().all(is_structured) => BATCH,
            _ => JSON,
        };
        let mut body = ends[0].as_bytes().to_vec();
        for (place, outcome) in outcomes.iter().enumerate() {
            if place > 0 {
                body.extend_from_slice(separator);
            }
            match outcome {
                Ok(score) => body.extend_from_slice(&score.body),
                Err(problem) => body.extend_from_slice(problem.json().to_string().as_bytes()),
            }
        }
        body.extend_from_slice(ends[1].as_bytes());
        answer(status, kind, Bytes::from_owner(Held { body, _room: room }))
    }
}

fn scored(outcome: Outcome) -> Result<Arc<Record>, Problem> {
    match outcome? {
        Ended::Scored(score) => Ok(score),
        Ended::Dead(reason) => Err(Problem::of(&reason)),
    }
}

fn is_structured(outcome: &Result<Arc<Record>, Problem>) -> bool {
    let kind = |score: &Arc<Record>| score.content_type.as_deref() == Some(STRUCTURED);
    outcome.as_ref().is_ok_and(kind)
}

/// A score alone, with its attributes in headers where it has any: CloudEvents' binary mode.
fn one(score: &Record, room: Arc<Room>) -> Answer {
    let body = Bytes::from_owner(Held { body: score.body.clone(), _room: room });
    let mut answer = answer(StatusCode::OK, JSON, body);
    let headers = answer.headers_mut();
    if let Some(kind) = score.content_type.as_deref().and_then(|kind| kind.parse().ok()) {
        headers.insert(CONTENT_TYPE, kind);
    }
    for (name, value) in &score.headers {
        let HeaderValue::Text(text) = value else { continue };
        let attribute = name.strip_prefix(ATTRIBUTE);
        let name = attribute.map(|attribute| format!("{CLOUD_HEADER}{attribute}").parse());
        if let (Some(Ok::<HeaderName, _>(name)), Ok(value)) = (name, encode(text).parse()) {
            headers.insert(name, value);
        }
    }
    answer
}

fn answer(status: StatusCode, kind: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, FieldValue::from_static(kind));
    answer
}

/// A body, and the memory that it takes.
struct Held {
    body: Vec<u8>,
    _room: Arc<Room>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}
