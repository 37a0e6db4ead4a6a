//! Errors, as RFC 9457 has them: `application/problem+json`, with a stable code.

use std::time::Duration;

use axum::Json;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use cipherscore_common::broker::BrokerError;
use cipherscore_common::message::{ErrorCode, Refusal, headers};
use cipherscore_common::{BlobKind, ErrorClass, StoreError};
use serde::Serialize;
use tracing::warn;
use utoipa::ToSchema;

/// What all types of problems begin with.
const TYPE_PREFIX: &str = "urn:cipherscore:problem:";
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");
/// After what time something that is away is asked for again.
const SOON: Duration = Duration::from_secs(1);

/// Defines the codes with status, text and title, so that none of them is forgotten.
macro_rules! problem_codes {
    ($($name:ident = $status:ident, $text:literal, $title:literal;)*) => {
        /// Why a request is not answered as it was asked.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum ProblemCode {
            $($name,)*
        }

        impl ProblemCode {
            /// All of them.
            #[cfg(test)]
            pub(crate) const ALL: &'static [Self] = &[$(Self::$name),*];

            const fn parts(self) -> (StatusCode, &'static str, &'static str) {
                match self {
                    $(Self::$name => (StatusCode::$status, $text, $title),)*
                }
            }
        }
    };
}

problem_codes! {
    Malformed = BAD_REQUEST, "malformed", "not of the documented form";
    UnsupportedVersion = BAD_REQUEST, "unsupported_version", "a version that is not spoken here";
    Unauthorized = UNAUTHORIZED, "unauthorized", "no valid token";
    NotFound = NOT_FOUND, "not_found", "no such path";
    UnknownModel = NOT_FOUND, "unknown_model", "no such model";
    UnknownJob = NOT_FOUND, "unknown_job", "no such job";
    KeyMissing = NOT_FOUND, "key_missing", "no such evaluation key";
    BlobMissing = NOT_FOUND, "blob_missing", "no such bytes";
    MethodNotAllowed = METHOD_NOT_ALLOWED, "method_not_allowed", "not with this method";
    TooSlow = REQUEST_TIMEOUT, "too_slow", "the body came too slowly";
    JobConflict = CONFLICT, "job_conflict", "another job has this id";
    JobSettled = GONE, "job_settled", "the job is over";
    TooLarge = PAYLOAD_TOO_LARGE, "too_large", "too large";
    UnsupportedMediaType = UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "not in this form";
    Range = RANGE_NOT_SATISFIABLE, "range", "not in these bytes";
    WrongDigest = UNPROCESSABLE_ENTITY, "wrong_digest", "other bytes than was said";
    RateLimited = TOO_MANY_REQUESTS, "rate_limited", "too many requests";
    TooMany = TOO_MANY_REQUESTS, "too_many", "too many requests at the same time";
    Quota = TOO_MANY_REQUESTS, "quota", "too many bytes";
    Internal = INTERNAL_SERVER_ERROR, "internal", "a mistake of the gateway";
    Unavailable = SERVICE_UNAVAILABLE, "unavailable", "broker or store is away";
    QueueFull = SERVICE_UNAVAILABLE, "queue_full", "the queue of the model is full";
    Busy = SERVICE_UNAVAILABLE, "busy", "the gateway is busy";
}

impl ProblemCode {
    pub(crate) const fn as_str(self) -> &'static str {
        self.parts().1
    }

    pub(crate) const fn status(self) -> StatusCode {
        self.parts().0
    }
}

/// The body of an error.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProblemDetails {
    /// `urn:cipherscore:problem:CODE`.
    #[serde(rename = "type")]
    kind: String,
    /// The code in a few words.
    title: &'static str,
    /// The status of the answer.
    status: u16,
    /// For programs; does not change.
    code: &'static str,
    /// For people.
    detail: String,
}

/// A request that is not answered as it was asked, or a job without outputs.
#[derive(Debug)]
pub(crate) struct Problem {
    what: What,
    detail: String,
    retry_after: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    /// Of the request.
    Request(ProblemCode),
    /// Of the job: the request was right.
    Outcome(ErrorCode),
}

impl Problem {
    pub(crate) fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        let what = What::Request(code);
        let retry_after = matches!(
            code,
            ProblemCode::Unavailable
                | ProblemCode::QueueFull
                | ProblemCode::Busy
                | ProblemCode::TooMany
        )
        .then_some(SOON);
        Self { what, detail: detail.into(), retry_after }
    }

    pub(crate) fn malformed(detail: impl Into<String>) -> Self {
        Self::new(ProblemCode::Malformed, detail)
    }

    /// A job that ended without outputs.
    pub(crate) fn outcome(code: ErrorCode, reason: impl Into<String>) -> Self {
        let what = What::Outcome(code);
        Self { what, detail: reason.into(), retry_after: None }
    }

    /// After what time it may go better.
    pub(crate) fn after(self, time: Duration) -> Self {
        Self { retry_after: Some(time), ..self }
    }

    /// Of the request; none where the job has ended without outputs.
    pub(crate) fn code(&self) -> Option<ProblemCode> {
        match self.what {
            What::Request(code) => Some(code),
            What::Outcome(_) => None,
        }
    }

    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    pub(crate) fn status(&self) -> StatusCode {
        match self.what {
            What::Request(code) => code.status(),
            What::Outcome(_) => StatusCode::UNPROCESSABLE_ENTITY,
        }
    }
}

/// Whole seconds, at least one.
fn seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0 || time.is_zero())
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status();
        let (code, title) = match self.what {
            What::Request(code) => (code.as_str(), code.parts().2),
            What::Outcome(code) => (code.as_str(), "the job has no outputs"),
        };
        if status.is_server_error() {
            warn!(code, detail = self.detail, "a request was not answered");
        }
        let details = ProblemDetails {
            kind: format!("{TYPE_PREFIX}{code}"),
            title,
            status: status.as_u16(),
            code,
            detail: self.detail,
        };
        let mut response = (status, Json(details)).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, PROBLEM_JSON);
        if let What::Outcome(code) = self.what {
            headers.insert(headers::OUTCOME, HeaderValue::from_static(code.as_str()));
        }
        if let Some(time) = self.retry_after {
            headers.insert(RETRY_AFTER, seconds(time).into());
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<StoreError> for Problem {
    /// What is not whole in the store is as good as not there.
    fn from(error: StoreError) -> Self {
        let code = match (&error, error.class()) {
            (StoreError::TooLarge { .. }, _) => ProblemCode::TooLarge,
            (StoreError::Empty { .. }, _) => ProblemCode::Malformed,
            (StoreError::NotFound { name } | StoreError::Damaged { name, .. }, _) => {
                match name.kind {
                    BlobKind::Key => ProblemCode::KeyMissing,
                    _ => ProblemCode::BlobMissing,
                }
            }
            (_, ErrorClass::Unavailable) => ProblemCode::Unavailable,
            _ => ProblemCode::Internal,
        };
        let detail = match code {
            // Where the store is is not for strangers.
            ProblemCode::Unavailable => "the store is not available for now".to_owned(),
            ProblemCode::Internal => "the store does not let the gateway do it".to_owned(),
            ProblemCode::Malformed => "there is nothing in the body".to_owned(),
            _ => error.to_string(),
        };
        if matches!(code, ProblemCode::Unavailable | ProblemCode::Internal) {
            warn!(reason = %error, "the store");
        }
        Self::new(code, detail)
    }
}

impl From<BrokerError> for Problem {
    fn from(error: BrokerError) -> Self {
        warn!(reason = %error, "the broker");
        match error {
            BrokerError::Full { .. } => {
                Self::new(ProblemCode::QueueFull, "the model's queue takes no more for now")
            }
            BrokerError::Unroutable { .. } => Self::new(
                ProblemCode::UnknownModel,
                "no worker has ever served this model: its queue is missing at the broker",
            ),
            BrokerError::Refused { .. } => {
                Self::new(ProblemCode::Internal, "the broker does not let the gateway do it")
            }
            BrokerError::Unavailable { .. } | BrokerError::Unconfirmed { .. } => Self::new(
                ProblemCode::Unavailable,
                "the broker has not confirmed it: send it again under the same id",
            ),
        }
    }
}

/// A message that the workers would refuse for its form.
impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let code = match refusal.code {
            ErrorCode::UnsupportedVersion => ProblemCode::UnsupportedVersion,
            ErrorCode::TooLarge => ProblemCode::TooLarge,
            _ => ProblemCode::Malformed,
        };
        Self::new(code, refusal.reason)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

    use super::*;

    #[test]
    fn codes_are_documented_with_their_status() {
        let page = std::fs::read_to_string("../docs/gateway.md").unwrap();
        for code in ProblemCode::ALL {
            let line = format!("| {} | `{}` |", code.status().as_u16(), code.as_str());
            assert!(page.contains(&line), "{line}");
        }
        let lines = page.lines().filter(|line| {
            let status = line.strip_prefix("| ").and_then(|line| line.split(' ').next());
            status.is_some_and(|status| status.parse::<u16>().is_ok())
        });
        assert_eq!(lines.count(), ProblemCode::ALL.len());
    }

    #[test]
    fn what_may_go_better_says_when() {
        let problem = Problem::new(ProblemCode::RateLimited, "slow down");
        let response = problem.after(Duration::from_millis(1500)).into_response();
        assert_eq!(response.headers()[RETRY_AFTER], "2");
        let response = Problem::new(ProblemCode::Unavailable, "away").into_response();
        assert_eq!(response.headers()[RETRY_AFTER], "1");
        let response = Problem::outcome(ErrorCode::Poison, "deaths").into_response();
        assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(response.headers()[headers::OUTCOME], "poison");
    }
}
