//! Who asks: the tenant of the token, let in by its limits; and what else is read of a request's head.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, Path, Query};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use cipherscore_common::broker::Broker;
use cipherscore_common::{GatewayStore, Lease, Tenant};
use serde::de::DeserializeOwned;
use tokio::sync::OwnedSemaphorePermit;

use crate::limits::Gate;
use crate::order::parse;
use crate::problem::{Problem, ProblemCode};
use crate::shared::{MAX_WAIT, Shared};

/// Header with how long something shall stay.
pub(crate) const LEASE: &str = "cs-lease";

/// Who asks, and is let in for as long as this is held.
pub(crate) struct Caller {
    pub(crate) tenant: Tenant,
    pub(crate) gate: Arc<Gate>,
    _entered: OwnedSemaphorePermit,
}

impl Caller {
    /// Lets a tenant in.
    pub(crate) fn enter<B: Broker, S: GatewayStore>(
        shared: &Shared<B, S>,
        tenant: Tenant,
    ) -> Result<Self, Problem> {
        let gate = shared.limits.gate(&tenant);
        let entered = gate.enter()?;
        Ok(Self { tenant, gate, _entered: entered })
    }
}

impl<B: Broker, S: GatewayStore> FromRequestParts<Arc<Shared<B, S>>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(
        parts: &mut Parts,
        shared: &Arc<Shared<B, S>>,
    ) -> Result<Self, Problem> {
        let refused = |detail| Problem::new(ProblemCode::Unauthorized, detail);
        let said = parts.headers.get(AUTHORIZATION);
        let said = said.ok_or_else(|| refused("send Authorization: Bearer TOKEN"))?;
        let token = said.to_str().ok().and_then(|said| said.split_once(' '));
        let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let (_, token) = token.ok_or_else(|| refused("send Authorization: Bearer TOKEN"))?;
        let tokens = Arc::clone(&shared.tokens.read());
        let tenant = tokens.tenant(token.trim()).cloned();
        let tenant = tenant.ok_or_else(|| refused("the token is not valid, or not any more"))?;
        Self::enter(shared, tenant)
    }
}

/// Parts of the path.
pub(crate) struct InPath<T>(pub(crate) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for InPath<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let found = Path::from_request_parts(parts, state).await;
        let Path(found) = found.map_err(|error| Problem::malformed(error.body_text()))?;
        Ok(Self(found))
    }
}

/// What follows the question mark.
pub(crate) struct InQuery<T>(pub(crate) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for InQuery<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let found = Query::from_request_parts(parts, state).await;
        let Query(found) = found.map_err(|error| Problem::malformed(error.body_text()))?;
        Ok(Self(found))
    }
}

/// How long to wait: `30s`, or `30`.
pub(crate) fn wait(text: Option<&str>) -> Result<Duration, Problem> {
    let Some(text) = text else { return Ok(Duration::ZERO) };
    let seconds = text.strip_suffix('s').unwrap_or(text);
    let is_number = (1..=2).contains(&seconds.len()) && seconds.bytes().all(|b| b.is_ascii_digit());
    let seconds = is_number.then(|| seconds.parse().ok()).flatten();
    let wait = seconds.map(Duration::from_secs).filter(|wait| *wait <= MAX_WAIT);
    let most = MAX_WAIT.as_secs();
    wait.ok_or_else(|| Problem::malformed(format!("wait: from 0s to {most}s")))
}

/// How long something shall stay, within what is allowed.
pub(crate) fn lease(
    headers: &axum::http::HeaderMap,
    default: Lease,
    most: Lease,
) -> Result<Lease, Problem> {
    Ok(parse(headers, LEASE)?.unwrap_or(default).min(most))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

    use super::*;

    #[test]
    fn a_wait_is_of_seconds() {
        for (text, seconds) in [("0", 0), ("30s", 30), ("7", 7), ("60s", 60)] {
            assert_eq!(wait(Some(text)).unwrap(), Duration::from_secs(seconds));
        }
        assert_eq!(wait(None).unwrap(), Duration::ZERO);
        for wrong in ["", "s", "61s", "-1", "+1", "1m", "1.5s", "999999999999999999999"] {
            assert!(wait(Some(wrong)).is_err(), "{wrong}");
        }
    }
}
