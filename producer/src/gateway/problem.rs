//! What a gateway says when it does not do something, and what that is for a broker and a store.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use cipherscore_common::broker::BrokerError;
use cipherscore_common::message::Message;
use cipherscore_common::topology::JOBS;
use cipherscore_common::{BlobName, StoreError};
use hyper::StatusCode;
use serde::Deserialize;

/// Longest text of a gateway that is repeated, in characters.
const MAX_DETAIL: usize = 1000;

/// Why there is no answer, or none that is wanted.
#[derive(Debug)]
pub(super) enum Trouble {
    /// It is not to be reached, or silent.
    Away(String),
    /// It is not trusted.
    Untrusted(String),
    /// It answered, and did not do it.
    Refused(Problem),
    /// It answered something that makes no sense.
    Nonsense(String),
}

/// An error of the gateway, as RFC 9457 has it.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    /// For programs; empty where a proxy answered.
    pub(super) code: String,
    /// For people.
    pub(super) detail: String,
    /// When to try again.
    pub(super) retry_after: Option<Duration>,
}

/// What of its body is looked at.
#[derive(Deserialize)]
struct Form {
    code: String,
    #[serde(default)]
    title: String,
    #[serde(default)]
    detail: String,
}

impl Problem {
    pub(super) fn new(status: StatusCode, retry_after: Option<Duration>, body: &[u8]) -> Self {
        let Ok(Form { code, title, detail }) = serde_json::from_slice(body) else {
            return Self { status, code: String::new(), detail: status.to_string(), retry_after };
        };
        let detail = if detail.is_empty() { title } else { detail };
        let detail = detail.chars().take(MAX_DETAIL).collect();
        Self { status, code, detail, retry_after }
    }

    fn is(&self, code: &str) -> bool {
        self.code == code
    }

    /// Whether the same may succeed later. A proxy in between may answer for a gateway that is away.
    pub(super) fn is_temporary(&self) -> bool {
        matches!(
            self.status,
            StatusCode::REQUEST_TIMEOUT
                | StatusCode::TOO_MANY_REQUESTS
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT
        ) || self.is("wrong_digest")
    }

    /// Whether the thing that was asked for is not there, and not the path to it.
    pub(super) fn is_missing(&self) -> bool {
        self.status == StatusCode::NOT_FOUND && !self.is("not_found")
    }

    /// The job is over and its result was let go.
    pub(super) fn is_settled(&self) -> bool {
        self.status == StatusCode::GONE
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.status, self.code.as_str()) {
            (StatusCode::UNAUTHORIZED, _) => f.write_str(
                "it does not take the token: ask whoever runs the gateway for one that is valid",
            ),
            (_, "") => write!(f, "it answers {}", self.detail),
            (_, code) => write!(f, "{code}: {}", self.detail),
        }
    }
}

impl Trouble {
    /// Of a connection. What is behind a certificate that is not trusted does not change by waiting.
    pub(super) fn of_connection(error: &(dyn Error + 'static)) -> Self {
        let (mut reasons, mut next) = (Vec::new(), Some(error));
        let mut untrusted = false;
        while let Some(error) = next {
            untrusted |= is_untrusted(error);
            let text = error.to_string();
            if reasons.last().is_none_or(|last: &String| !last.ends_with(&text)) {
                reasons.push(text);
            }
            next = error.source();
        }
        let reason = reasons.join(": ");
        if untrusted { Self::Untrusted(reason) } else { Self::Away(reason) }
    }

    /// A request that takes too long.
    pub(super) fn silent(within: Duration) -> Self {
        Self::Away(format!("no answer within {} s", within.as_secs()))
    }

    /// What it is to who publishes this, or does something else with a broker.
    pub(super) fn of_broker(self, server: &str, message: Option<&Message>) -> BrokerError {
        let server = server.to_owned();
        let queue = || message.map(|message| message.routing_key.clone()).unwrap_or_default();
        match self {
            Self::Away(reason) => BrokerError::Unavailable { server, reason },
            Self::Refused(problem) if problem.is("unknown_model") => {
                BrokerError::Unroutable { exchange: JOBS.into(), routing_key: queue() }
            }
            Self::Refused(problem) if problem.is("queue_full") => {
                BrokerError::Full { exchange: JOBS.into(), routing_key: queue() }
            }
            Self::Refused(problem) if problem.is_temporary() => {
                BrokerError::Unavailable { server, reason: problem.to_string() }
            }
            Self::Refused(problem) => BrokerError::Refused { server, reason: problem.to_string() },
            Self::Untrusted(reason) | Self::Nonsense(reason) => {
                BrokerError::Refused { server, reason }
            }
        }
    }

    /// What it is to who does something with a blob.
    pub(super) fn of_blob(self, server: &str, name: &BlobName) -> StoreError {
        match self {
            Self::Refused(problem) if problem.is_missing() => {
                StoreError::NotFound { name: name.clone() }
            }
            other => other.of_store(server),
        }
    }

    /// What it is to who does something else with a store.
    pub(super) fn of_store(self, server: &str) -> StoreError {
        let server = server.to_owned();
        match self {
            Self::Away(reason) => StoreError::Unavailable { server, reason },
            Self::Refused(problem) if problem.is("quota") => {
                StoreError::Full { server, reason: problem.to_string() }
            }
            Self::Refused(problem) if problem.is_temporary() => {
                StoreError::Unavailable { server, reason: problem.to_string() }
            }
            Self::Refused(problem) => StoreError::Refused { server, reason: problem.to_string() },
            Self::Untrusted(reason) => StoreError::Refused { server, reason },
            Self::Nonsense(reason) => StoreError::Unexpected { server, reason },
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Away(reason) | Self::Untrusted(reason) => f.write_str(reason),
            Self::Refused(problem) => problem.fmt(f),
            Self::Nonsense(reason) => write!(f, "an answer that makes no sense: {reason}"),
        }
    }
}

/// rustls is inside of an error of input and output, which names the causes of its inner error as its own.
fn is_untrusted(error: &(dyn Error + 'static)) -> bool {
    let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    let found = match inner {
        Some(inner) => inner.downcast_ref::<rustls::Error>(),
        None => error.downcast_ref(),
    };
    matches!(found, Some(rustls::Error::InvalidCertificate(_)))
}

#[cfg(test)]
mod tests {
    use cipherscore_common::{Digest, ErrorClass, EvaluationKeyId, Tenant};

    use super::*;

    const SERVER: &str = "https://host";

    fn problem(status: u16, code: &str) -> Trouble {
        let body = format!(r#"{{"code": "{code}", "title": "title", "detail": "why"}}"#);
        let status = StatusCode::from_u16(status).unwrap();
        Trouble::Refused(Problem::new(status, None, body.as_bytes()))
    }

    /// The table of `docs/gateway.md`.
    #[test]
    fn each_code_is_waited_for_or_not() {
        for (status, code, is_waited_for) in [
            (400, "malformed", false),
            (400, "unsupported_version", false),
            (401, "unauthorized", false),
            (404, "not_found", false),
            (404, "blob_missing", false),
            (405, "method_not_allowed", false),
            (408, "too_slow", true),
            (409, "job_conflict", false),
            (413, "too_large", false),
            (415, "unsupported_media_type", false),
            (416, "range", false),
            (422, "wrong_digest", true),
            (429, "rate_limited", true),
            (429, "too_many", true),
            (429, "quota", true),
            (429, "a code of later", true),
            (500, "internal", false),
            (503, "unavailable", true),
            (503, "queue_full", true),
            (503, "busy", true),
        ] {
            let error = problem(status, code).of_broker(SERVER, None);
            assert_eq!(error.is_temporary(), is_waited_for, "{code}: {error}");
            let error = problem(status, code).of_store(SERVER);
            assert_eq!(error.class() == ErrorClass::Unavailable, is_waited_for, "{code}: {error}");
        }
    }

    #[test]
    fn what_is_missing_is_told_from_a_path_that_is_none() {
        let key = EvaluationKeyId::new(Digest::of(b"key"));
        let name = BlobName::evaluation_key(&Tenant::default(), key);
        let error = problem(404, "key_missing").of_blob(SERVER, &name);
        assert_eq!(error, StoreError::NotFound { name: name.clone() });
        let error = problem(404, "not_found").of_blob(SERVER, &name);
        assert!(matches!(error, StoreError::Refused { .. }), "{error}");
        let message = Message { routing_key: "queue".into(), ..Message::default() };
        let error = problem(404, "unknown_model").of_broker(SERVER, Some(&message));
        let expected =
            BrokerError::Unroutable { exchange: JOBS.into(), routing_key: "queue".into() };
        assert_eq!(error, expected);
    }

    #[test]
    fn a_proxy_and_a_wrong_token_say_what_to_do() {
        let html = Problem::new(StatusCode::BAD_GATEWAY, None, b"<html>");
        assert!(html.is_temporary());
        assert_eq!(html.to_string(), "it answers 502 Bad Gateway");
        let Trouble::Refused(token) = problem(401, "unauthorized") else { unreachable!() };
        assert!(token.to_string().contains("ask whoever runs the gateway"), "{token}");
    }
}
