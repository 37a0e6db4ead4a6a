//! Jobs: published, asked for, cancelled, settled.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use cipherscore_common::broker::Broker;
use cipherscore_common::message::{Outcome, Payload, Reply, headers as names};
use cipherscore_common::{
    BlobKind, BlobName, Digest, FeedEntry, GatewayStore, JobId, ModelId, Tenant,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::caller::{Caller, InPath, InQuery, wait};
use crate::download::{insert, send_whole, sent_body};
use crate::kept::Kept;
use crate::note::JobNote;
use crate::order::{CORRELATION_ID, OWNER_ID, Order, PAYLOAD_SHA256};
use crate::problem::{Problem, ProblemCode, ProblemDetails};
use crate::publish::{Accepted, Sent, body_limit};
use crate::receive::Incoming;
use crate::shared::Shared;
use crate::wake::Awaited;

/// Version of the protocol in which a reply was written.
const PROTOCOL_VERSION: &str = "cs-protocol-version";

/// A job, as far as it is.
#[derive(Serialize, ToSchema)]
pub(crate) struct JobAnswer {
    /// Which job.
    #[schema(value_type = String)]
    job_id: JobId,
    /// `accepted`, `known`: accepted before, `pending`: not ended, `cancelling`.
    state: &'static str,
}

type Held<B, S> = State<Arc<Shared<B, S>>>;
type Answer = Result<Response, Problem>;

/// Publish a job. It is with the broker when this is answered with 202.
#[utoipa::path(
    put, path = "/v1/models/{model}/jobs/{job}", tag = "jobs",
    params(
        ("model" = String, Path, description = "model id"),
        ("job" = String, Path, description = "a UUID that the caller draws"),
        ("cs-rows" = u32, Header, description = "number of rows"),
        ("cs-key-id" = Option<String>, Header, description = "evaluation key id"),
        ("cs-owner-id" = Option<String>, Header, description = "of the client key of the rows"),
        ("cs-client" = Option<String>, Header, description = "in whose feed the result goes"),
        ("cs-correlation-id" = Option<String>, Header, description = "comes back with the result"),
        ("cs-payload-sha256" = Option<String>, Header, description = "digest of the body"),
        ("cs-lane" = Option<String>, Header, description = "high or normal"),
        ("cs-deadline-ms" = Option<i64>, Header, description = "milliseconds since 1970"),
        ("cs-deadline-class" = Option<String>, Header, description = "immediate, interactive or deferred"),
        ("cs-form" = Option<String>, Header, description = "bulk or rows"),
        ("cs-planned-us" = Option<i64>, Header, description = "planned microseconds of evaluation"),
        ("cs-manifest-id" = Option<String>, Header, description = "of the artifact that the caller has"),
        ("cs-published-ms" = Option<i64>, Header, description = "milliseconds since 1970"),
        ("traceparent" = Option<String>, Header, description = "W3C Trace Context"),
        ("tracestate" = Option<String>, Header, description = "W3C Trace Context"),
    ),
    request_body(
        description = "the encrypted rows, or a body of the protocol",
        content(
            (String = "application/octet-stream"),
            (String = "application/vnd.cipherscore.body"),
        ),
    ),
    responses(
        (status = 202, description = "the broker has it", body = JobAnswer),
        (status = "4XX", description = "why not", body = ProblemDetails),
        (status = 503, description = "not now: send it again under the same id", body = ProblemDetails),
    ),
    security(("token" = [])),
)]
pub(crate) async fn put_job<B: Broker, S: GatewayStore>(
    State(shared): Held<B, S>,
    caller: Caller,
    InPath((model, job)): InPath<(ModelId, JobId)>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let order = Order::read(&caller.tenant, model, job, &headers)?;
    let limit = body_limit(order.form, &caller.gate);
    let body = Incoming::new(&headers, body, limit, shared.pace())?;
    let inner = Arc::clone(&shared);
    // Done to its end, whoever waits for it.
    let published = shared.tasks.spawn(async move {
        let (tenant, gate) = (caller.tenant.clone(), Arc::clone(&caller.gate));
        inner.publish(&order, Sent { tenant, gate, body }).await
    });
    let state = match published.await.unwrap_or_else(|_| Err(super::panicked()))? {
        Accepted::Published => "accepted",
        Accepted::Known => "known",
    };
    let mut headers = HeaderMap::new();
    insert(&mut headers, LOCATION, &format!("/v1/jobs/{job}"));
    Ok((StatusCode::ACCEPTED, headers, Json(JobAnswer { job_id: job, state })).into_response())
}

/// What may follow the question mark of a job.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WaitQuery {
    wait: Option<String>,
}

/// Wait for the result of a job, and read its outputs.
#[utoipa::path(
    get, path = "/v1/jobs/{job}", tag = "jobs",
    params(
        ("job" = String, Path, description = "job id"),
        ("wait" = Option<String>, Query, description = "how long to wait for it, 0s to 60s"),
    ),
    responses(
        (status = 200, description = "the outputs", body = String, content_type = "application/octet-stream"),
        (status = 202, description = "it has not ended", body = JobAnswer),
        (status = 422, description = "it has ended without outputs", body = ProblemDetails),
        (status = 404, description = "there is no such job", body = ProblemDetails),
        (status = 410, description = "it was settled", body = ProblemDetails),
    ),
    security(("token" = [])),
)]
pub(crate) async fn get_job<B: Broker, S: GatewayStore>(
    State(shared): Held<B, S>,
    caller: Caller,
    method: axum::http::Method,
    InPath(job): InPath<JobId>,
    InQuery(query): InQuery<WaitQuery>,
) -> Answer {
    let time = wait(query.wait.as_deref())?;
    match shared.wait_for(&caller.tenant, job, time).await? {
        Some(kept) => {
            let turn = super::turn(&shared, &caller, &method).await?;
            shared.job_response(&caller.tenant, job, &kept, turn).await
        }
        None => {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, 1.into());
            let json = Json(JobAnswer { job_id: job, state: "pending" });
            Ok((StatusCode::ACCEPTED, headers, json).into_response())
        }
    }
}

impl<B: Broker, S: GatewayStore> Shared<B, S> {
    /// The reply of a job; nothing where it does not come within the time.
    pub(crate) async fn wait_for(
        &self,
        tenant: &Tenant,
        job: JobId,
        time: std::time::Duration,
    ) -> Result<Option<Kept>, Problem> {
        let awaited = Awaited::Job(tenant.clone(), job);
        self.waiters.wait(awaited, time, &self.stop, || self.result_of(tenant, job)).await
    }

    /// The reply of a job; nothing where it has not come yet.
    async fn result_of(&self, tenant: &Tenant, job: JobId) -> Result<Option<Kept>, Problem> {
        let state = self.store.job_state(tenant, job).await?;
        if state.settled {
            let detail = "the job is over, and was let go";
            return Err(Problem::new(ProblemCode::JobSettled, detail));
        }
        if state.ended
            && let Some(bytes) = self.store.result(tenant, job).await?
        {
            let kept = Kept::from_bytes(&bytes).filter(|kept| kept.reply().is_ok());
            let damaged = || {
                let detail = "the result is damaged in the store: publish the job anew";
                Problem::new(ProblemCode::BlobMissing, detail)
            };
            return kept.map(Some).ok_or_else(damaged);
        }
        match state.note {
            Some(_) => Ok(None),
            None => {
                let detail = "no such job of this tenant, or its lease is over";
                Err(Problem::new(ProblemCode::UnknownJob, detail))
            }
        }
    }

    async fn job_response(
        self: &Arc<Self>,
        tenant: &Tenant,
        job: JobId,
        kept: &Kept,
        turn: Option<crate::limits::Transfer>,
    ) -> Answer {
        let reply = kept.reply()?;
        let payload = match &reply.outcome {
            Outcome::Scored(payload) => payload.clone(),
            Outcome::Failed { code, reason } => {
                let mut response = Problem::outcome(*code, reason.as_str()).into_response();
                describe_reply(job, &reply, kept, response.headers_mut());
                return Ok(response);
            }
        };
        let mut response = Response::new(Body::empty());
        let headers = response.headers_mut();
        describe_reply(job, &reply, kept, headers);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        headers.insert(CONTENT_LENGTH, payload.len().into());
        match payload {
            Payload::Inline(bytes) => {
                insert(headers, PAYLOAD_SHA256, &Digest::of(&bytes).to_string());
                if turn.is_some() {
                    *response.body_mut() = Body::from(bytes);
                }
            }
            Payload::Stored(stored) => {
                insert(headers, PAYLOAD_SHA256, &stored.sha256.to_string());
                let id = stored.sha256;
                let name = BlobName { tenant: tenant.clone(), kind: BlobKind::Reply, id };
                // Whether they are there is said before the first byte.
                let info = self.store.info(&name).await?;
                if info.bytes != stored.bytes {
                    let detail = "the outputs in the store are others: publish the job anew";
                    return Err(Problem::new(ProblemCode::BlobMissing, detail));
                }
                let Some(turn) = turn else { return Ok(response) };
                let (pieces, body) = sent_body();
                *response.body_mut() = body;
                let shared = Arc::clone(self);
                self.tasks.spawn(async move {
                    send_whole(&shared.store, &name, 0, pieces).await;
                    drop(turn);
                });
            }
        }
        Ok(response)
    }

    /// Lets everything of a job go; says whether there was anything.
    pub(crate) async fn settle(&self, tenant: &Tenant, job: JobId) -> Result<bool, Problem> {
        let state = self.store.job_state(tenant, job).await?;
        let note = JobNote::of(&state);
        if state.note.is_none() && !state.ended {
            return Ok(state.settled);
        }
        let outputs = match state.ended {
            true => self.store.result(tenant, job).await?.as_deref().and_then(outputs_of),
            false => {
                // Workers that have not begun need not.
                self.store.mark_cancelled(tenant, job).await?;
                None
            }
        };
        self.store.settle(tenant, job).await?;
        if let Some(payload) = note.and_then(|note| note.payload) {
            self.remove(tenant, BlobKind::Job, payload).await;
        }
        if let Some(outputs) = outputs {
            self.remove(tenant, BlobKind::Reply, outputs).await;
        }
        Ok(true)
    }
}

/// The outputs of a result, if they are in the store.
fn outputs_of(bytes: &[u8]) -> Option<Digest> {
    match Kept::from_bytes(bytes)?.reply().ok()?.outcome {
        Outcome::Scored(Payload::Stored(stored)) => Some(stored.sha256),
        _ => None,
    }
}

/// What a reply says beside its outputs.
fn describe_reply(job: JobId, reply: &Reply, kept: &Kept, headers: &mut HeaderMap) {
    insert(headers, names::JOB_ID, &job.to_string());
    insert(headers, names::OUTCOME, reply.outcome.name());
    insert(headers, PROTOCOL_VERSION, &reply.version.number().to_string());
    let micros = |time: std::time::Duration| time.as_micros().to_string();
    insert(headers, names::KEY_TIME, &micros(reply.timings.key));
    insert(headers, names::EVALUATE_TIME, &micros(reply.timings.evaluate));
    let texts = [names::MODEL_ID, names::WORKER, names::MANIFEST_ID, names::TRACE_PARENT];
    for name in texts.into_iter().chain([names::TRACE_STATE]) {
        if let Some(text) = kept.text(name).filter(|text| !text.is_empty()) {
            insert(headers, name, text);
        }
    }
    if let Some(owner) = reply.owner_id {
        insert(headers, OWNER_ID, &owner.to_string());
    }
    if let Some(id) = &reply.correlation_id {
        insert(headers, CORRELATION_ID, id);
    }
}

/// What may follow the question mark where a job is settled.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EntryQuery {
    entry: Option<String>,
}

/// Let everything of a job go; cancel it, if it has not ended.
#[utoipa::path(
    delete, path = "/v1/jobs/{job}", tag = "jobs",
    params(
        ("job" = String, Path, description = "job id"),
        ("entry" = Option<String>, Query, description = "its entry in the feed"),
    ),
    responses(
        (status = 204, description = "nothing of it is left"),
        (status = 404, description = "there is no such job", body = ProblemDetails),
    ),
    security(("token" = [])),
)]
pub(crate) async fn delete_job<B: Broker, S: GatewayStore>(
    State(shared): Held<B, S>,
    caller: Caller,
    InPath(job): InPath<JobId>,
    InQuery(query): InQuery<EntryQuery>,
) -> Result<StatusCode, Problem> {
    let entry = query.entry.as_deref().map(str::parse::<FeedEntry>).transpose();
    let entry = entry.map_err(|error| Problem::malformed(format!("entry: {error}")))?;
    let tenant = &caller.tenant;
    if let Some(entry) = entry {
        let state = shared.store.job_state(tenant, job).await?;
        if let Some(client) = JobNote::of(&state).and_then(|note| note.client) {
            shared.store.drop_entries(tenant, &client, &[entry]).await?;
        }
    }
    match shared.settle(tenant, job).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => {
            let detail = "no such job of this tenant, or its lease is over";
            Err(Problem::new(ProblemCode::UnknownJob, detail))
        }
    }
}

/// Ask the workers not to evaluate a job.
#[utoipa::path(
    post, path = "/v1/jobs/{job}/cancel", tag = "jobs",
    params(("job" = String, Path, description = "job id")),
    responses(
        (status = 202, description = "they are asked", body = JobAnswer),
        (status = 404, description = "there is no such job", body = ProblemDetails),
        (status = 410, description = "it was settled", body = ProblemDetails),
    ),
    security(("token" = [])),
)]
pub(crate) async fn cancel_job<B: Broker, S: GatewayStore>(
    State(shared): Held<B, S>,
    caller: Caller,
    InPath(job): InPath<JobId>,
) -> Answer {
    // Refuses what is not there, or is over.
    shared.wait_for(&caller.tenant, job, std::time::Duration::ZERO).await?;
    shared.store.mark_cancelled(&caller.tenant, job).await?;
    let json = JobAnswer { job_id: job, state: "cancelling" };
    Ok((StatusCode::ACCEPTED, Json(json)).into_response())
}
