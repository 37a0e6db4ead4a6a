//! The feed of a client: results as they come, until they are settled.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use cipherscore_common::broker::Broker;
use cipherscore_common::topology::ReplyQueue;
use cipherscore_common::{FeedEntry, GatewayStore, JobId, MAX_FEED_ENTRIES, Tenant};
use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::caller::{Caller, InPath, InQuery, wait};
use crate::download::{Pieces, cut, sent_body};
use crate::kept::Kept;
use crate::problem::{Problem, ProblemDetails};
use crate::receive::Incoming;
use crate::shared::Shared;
use crate::wake::Awaited;

/// Results of one answer, unless said otherwise.
const DEFAULT_MAX: usize = 100;
/// Jobs that are settled at a time.
const SETTLED_AT_ONCE: usize = 16;
/// Largest list of jobs to settle, in bytes.
const MAX_LIST_BYTES: u64 = 1 << 20;
const NDJSON: HeaderValue = HeaderValue::from_static("application/x-ndjson");

/// What may follow the question mark of a feed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FeedQuery {
    wait: Option<String>,
    max: Option<usize>,
    after: Option<String>,
}

/// The last line of a feed.
#[derive(Serialize, ToSchema)]
pub(crate) struct FeedEnd {
    /// What to ask with as `after`.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// A result that was taken.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TakenResult {
    /// Which job.
    #[schema(value_type = String)]
    job_id: JobId,
    /// Its entry in the feed.
    entry: Option<String>,
}

/// Results that were taken.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TakenResults {
    /// At most 1000.
    results: Vec<TakenResult>,
}

type Held<B, S> = State<Arc<Shared<B, S>>>;

fn require_client(tenant: &Tenant, client: &str) -> Result<(), Problem> {
    let named = ReplyQueue::new(tenant, client).map(drop);
    named.map_err(|_| Problem::malformed("a client is named by 1 to 64 of a-z, 0-9 and -"))
}

fn parse_entry(name: &str, entry: Option<&str>) -> Result<Option<FeedEntry>, Problem> {
    let entry = entry.map(str::parse).transpose();
    entry.map_err(|error| Problem::malformed(format!("{name}: {error}")))
}

/// Read the results of a client that are not settled, the oldest first; wait for one, if there is none.
#[utoipa::path(
    get, path = "/v1/clients/{client}/results", tag = "feed",
    params(
        ("client" = String, Path, description = "as the header cs-client of its jobs said it"),
        ("wait" = Option<String>, Query, description = "how long to wait for one, 0s to 60s"),
        ("max" = Option<usize>, Query, description = "how many, 1 to 1000"),
        ("after" = Option<String>, Query, description = "those after this entry only"),
    ),
    responses(
        (status = 200, description = "a line of JSON for each, and a last one", body = String, content_type = "application/x-ndjson"),
        (status = "4XX", description = "why not", body = ProblemDetails),
    ),
    security(("token" = [])),
)]
pub(crate) async fn get_results<B: Broker, S: GatewayStore>(
    State(shared): Held<B, S>,
    caller: Caller,
    InPath(client): InPath<String>,
    InQuery(query): InQuery<FeedQuery>,
) -> Result<Response, Problem> {
    require_client(&caller.tenant, &client)?;
    let time = wait(query.wait.as_deref())?;
    let most = query.max.unwrap_or(DEFAULT_MAX);
    if !(1..=MAX_FEED_ENTRIES).contains(&most) {
        return Err(Problem::malformed(format!("max: from 1 to {MAX_FEED_ENTRIES}")));
    }
    let after = parse_entry("after", query.after.as_deref())?;
    let awaited = Awaited::Client(caller.tenant.clone(), client.clone());
    let (store, tenant, name) = (&shared.store, &caller.tenant, client.as_str());
    let look = || async move {
        let found = store.feed(tenant, name, after, most).await?;
        Ok::<_, Problem>((!found.is_empty()).then_some(found))
    };
    let found = shared.waiters.wait(awaited, time, &shared.stop, look).await?;
    let (pieces, body) = sent_body();
    let found = found.unwrap_or_default();
    // An answer with no results takes no turn.
    let turn = match found.is_empty() {
        true => None,
        false => Some(shared.limits.transfer(&caller.gate).await?),
    };
    let inner = Arc::clone(&shared);
    shared.tasks.spawn(async move {
        inner.send_feed(&caller.tenant, &client, after, found, pieces).await;
        drop((turn, caller));
    });
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, NDJSON);
    Ok(response)
}

impl<B: Broker, S: GatewayStore> Shared<B, S> {
    /// Sends results line by line.
    async fn send_feed(
        &self,
        tenant: &Tenant,
        client: &str,
        after: Option<FeedEntry>,
        found: Vec<(FeedEntry, JobId)>,
        pieces: Pieces,
    ) {
        let next = found.last().map(|(entry, _)| *entry).or(after);
        let mut gone = Vec::new();
        for (entry, job) in found {
            let kept = match self.store.result(tenant, job).await {
                Ok(bytes) => bytes.as_deref().and_then(Kept::from_bytes),
                Err(error) => return cut(&pieces, &error).await,
            };
            let Some(kept) = kept else {
                // It was settled, or its lease is over.
                gone.push(entry);
                continue;
            };
            if pieces.send(Ok(kept.line(job, entry).into())).await.is_err() {
                return;
            }
        }
        let end = FeedEnd { next: next.map(|next| next.to_string()) };
        let mut end = serde_json::to_vec(&end).expect("a struct of one string");
        end.push(b'\n');
        if pieces.send(Ok(end.into())).await.is_ok() && !gone.is_empty() {
            // Else they are passed over again.
            let _ = self.store.drop_entries(tenant, client, &gone).await;
        }
    }
}

/// Let results go that were taken.
#[utoipa::path(
    post, path = "/v1/clients/{client}/settle", tag = "feed",
    params(("client" = String, Path, description = "as the header cs-client of its jobs said it")),
    request_body = TakenResults,
    responses(
        (status = 204, description = "nothing of them is left"),
        (status = "4XX", description = "why not", body = ProblemDetails),
    ),
    security(("token" = [])),
)]
pub(crate) async fn settle_results<B: Broker, S: GatewayStore>(
    State(shared): Held<B, S>,
    caller: Caller,
    InPath(client): InPath<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Problem> {
    require_client(&caller.tenant, &client)?;
    let body = Incoming::new(&headers, body, MAX_LIST_BYTES, shared.pace())?.all().await?;
    let list: TakenResults = serde_json::from_slice(&body)
        .map_err(|error| Problem::malformed(format!("the list of results: {error}")))?;
    if list.results.len() > MAX_FEED_ENTRIES {
        return Err(Problem::malformed(format!("at most {MAX_FEED_ENTRIES} results")));
    }
    let mut entries = Vec::new();
    for result in &list.results {
        entries.extend(parse_entry("entry", result.entry.as_deref())?);
    }
    let tenant = &caller.tenant;
    shared.store.drop_entries(tenant, &client, &entries).await?;
    for some in list.results.chunks(SETTLED_AT_ONCE) {
        let settled: Vec<_> =
            some.iter().map(|result| shared.settle(tenant, result.job_id)).collect();
        try_join_all(settled).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}
