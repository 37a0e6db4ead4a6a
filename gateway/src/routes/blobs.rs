//! Evaluation keys, payloads and outputs.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use cipherscore_common::broker::Broker;
use cipherscore_common::{
    BlobInfo, BlobKind, BlobName, BlobWriter, Digest, ErrorClass, EvaluationKeyId, GatewayStore,
    Lease, MAX_BLOB_BYTES, Put,
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::caller::{Caller, InPath, lease};
use crate::download::describe;
use crate::problem::{Problem, ProblemDetails};
use crate::publish::{require_digest, take_many};
use crate::receive::Incoming;
use crate::shared::Shared;

/// An evaluation key that is in the store.
#[derive(Serialize, ToSchema)]
pub(crate) struct KeyInfo {
    /// SHA-256 of the key.
    #[schema(value_type = String)]
    key_id: Digest,
    /// Size.
    bytes: u64,
    /// Seconds until it is gone, if nobody renews its lease.
    expires_in: Option<u64>,
    /// Version of the program that put it there.
    created_by: String,
    /// Coefficients of hidden replies that were computed under it.
    released: u64,
}

/// What was said about hidden models under an evaluation key.
#[derive(Serialize, ToSchema)]
pub(crate) struct Released {
    /// SHA-256 of the key.
    #[schema(value_type = String)]
    key_id: Digest,
    /// Coefficients of hidden replies that were computed under it.
    released: u64,
}

/// A payload that is in the store.
#[derive(Serialize, ToSchema)]
pub(crate) struct PayloadInfo {
    /// Digest of its bytes.
    #[schema(value_type = String)]
    sha256: Digest,
    /// Size.
    bytes: u64,
    /// Seconds until it is gone, if nobody renews its lease.
    expires_in: Option<u64>,
    /// Version of the program that put it there.
    created_by: String,
}

impl<B: Broker, S: GatewayStore> Shared<B, S> {
    /// Takes a blob of this name, which is the digest of its bytes.
    async fn take_blob(
        self: &Arc<Self>,
        caller: Caller,
        kind: BlobKind,
        id: Digest,
        lease: Lease,
        (headers, body): (HeaderMap, Body),
    ) -> Result<(StatusCode, BlobInfo), Problem> {
        let limits = &caller.gate.limits;
        let limit = if kind == BlobKind::Key { limits.max_key_size } else { limits.max_job_size };
        let limit = limit.as_u64().min(MAX_BLOB_BYTES);
        let body = Incoming::new(&headers, body, limit, self.pace())?;
        let shared = Arc::clone(self);
        // A connection that is lost midway must not leave half of it behind.
        let taken = self.tasks.spawn(async move {
            let _turn = shared.limits.transfer(&caller.gate).await?;
            let mut writer = BlobWriter::new(&shared.store, &caller.tenant, kind);
            let taken = take_many(&mut writer, &caller.gate, [], body).await;
            if let Err(problem) = taken.and_then(|()| require_digest(Some(id), writer.digest())) {
                let _ = writer.give_up().await;
                return Err(problem);
            }
            let status = match writer.finish(Some(lease)).await?.put {
                Put::Stored => StatusCode::CREATED,
                Put::AlreadyThere => StatusCode::OK,
            };
            let name = BlobName { tenant: caller.tenant.clone(), kind, id };
            Ok((status, shared.store.info(&name).await?))
        });
        taken.await.unwrap_or_else(|_| Err(super::panicked()))
    }

    async fn renew(&self, name: &BlobName, lease: Lease) -> Result<BlobInfo, Problem> {
        self.store.touch(name, Some(lease)).await?;
        Ok(self.store.info(name).await?)
    }

    async fn remove_blob(&self, name: &BlobName) -> Result<StatusCode, Problem> {
        match self.store.remove(name).await {
            Ok(()) => Ok(StatusCode::NO_CONTENT),
            Err(error) if error.class() == ErrorClass::NotFound => Ok(StatusCode::NO_CONTENT),
            Err(error) => Err(error.into()),
        }
    }

    async fn key_response(&self, status: StatusCode, info: BlobInfo) -> Result<Response, Problem> {
        let key_id = info.name.id;
        let released = self.store.released(&info.name.tenant, EvaluationKeyId::new(key_id)).await?;
        let mut headers = HeaderMap::new();
        describe(&info, &mut headers);
        let expires_in = info.expires_in.map(|left| left.as_secs());
        let BlobInfo { bytes, created_by, .. } = info;
        let json = KeyInfo { key_id, bytes, expires_in, created_by, released };
        Ok((status, headers, Json(json)).into_response())
    }
}

fn payload_response(status: StatusCode, info: BlobInfo) -> Response {
    let mut headers = HeaderMap::new();
    describe(&info, &mut headers);
    let expires_in = info.expires_in.map(|left| left.as_secs());
    let BlobInfo { bytes, created_by, sha256, .. } = info;
    let json = PayloadInfo { sha256, bytes, expires_in, created_by };
    (status, headers, Json(json)).into_response()
}

type Held<B, S> = State<Arc<Shared<B, S>>>;
type Answer = Result<Response, Problem>;

/// Put an evaluation key into the store, or renew its lease.
#[utoipa::path(
    put, path = "/v1/keys/{key}", tag = "keys",
    params(
        ("key" = String, Path, description = "SHA-256 of the key"),
        ("cs-lease" = Option<String>, Header, description = "how long it stays: 30d, 12h, 90m, 45s"),
    ),
    request_body(content = String, content_type = "application/octet-stream", description = "the serialised key"),
    responses(
        (status = 201, description = "it was stored", body = KeyInfo),
        (status = 200, description = "it was there, and its lease is renewed", body = KeyInfo),
        (status = "4XX", description = "why not", body = ProblemDetails),
    ),
    security(("token" = [])),
)]
pub(crate) async fn put_key<B: Broker, S: GatewayStore>(
    State(shared): Held<B, S>,
    caller: Caller,
    InPath(key): InPath<EvaluationKeyId>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let lease = lease(&headers, Lease::DEFAULT, shared.settings.max_lease)?;
    let body = (headers, body);
    let (status, info) = shared.take_blob(caller, BlobKind::Key, key.digest(), lease, body).await?;
    shared.key_response(status, info).await
}

/// Describe an evaluation key.
#[utoipa::path(
    get, path = "/v1/keys/{key}", tag = "keys",
    params(("key" = String, Path, description = "SHA-256 of the key")),
    responses(
        (status = 200, description = "it is there", body = KeyInfo),
        (status = 404, description = "it is not", body = ProblemDetails),
    ),
    security(("token" = [])),
)]
pub(crate) async fn get_key<B: Broker, S: GatewayStore>(
    State(shared): Held<B, S>,
    caller: Caller,
    InPath(key): InPath<EvaluationKeyId>,
) -> Answer {
    let info = shared.store.info(&BlobName::evaluation_key(&caller.tenant, key)).await?;
    shared.key_response(StatusCode::OK, info).await
}

/// Set the lease of an evaluation key.
#[utoipa::path(
    post, path = "/v1/keys/{key}/lease", tag = "keys",
    params(
        ("key" = String, Path, description = "SHA-256 of the key"),
        ("cs-lease" = Option<String>, Header, description = "how long it stays: 30d, 12h, 90m, 45s"),
    ),
    responses(
        (status = 200, description = "the lease is set", body = KeyInfo),
        (status = 404, description = "there is no such key", body = ProblemDetails),
    ),
    security(("token" = [])),
)]
pub(crate) async fn renew_key<B: Broker, S: GatewayStore>(
    State(shared): Held<B, S>,
    caller: Caller,
    InPath(key): InPath<EvaluationKeyId>,
    headers: HeaderMap,
) -> Answer {
    let lease = lease(&headers, Lease::DEFAULT, shared.settings.max_lease)?;
    let name = BlobName::evaluation_key(&caller.tenant, key);
    let info = shared.renew(&name, lease).await?;
    shared.key_response(StatusCode::OK, info).await
}

/// Say how much was released under an evaluation key, which may be gone.
#[utoipa::path(
    get, path = "/v1/keys/{key}/released", tag = "keys",
    params(("key" = String, Path, description = "SHA-256 of the key")),
    responses((status = 200, description = "so much", body = Released)),
    security(("token" = [])),
)]
pub(crate) async fn get_released<B: Broker, S: GatewayStore>(
    State(shared): Held<B, S>,
    caller: Caller,
    InPath(key): InPath<EvaluationKeyId>,
) -> Answer {
    let released = shared.store.released(&caller.tenant, key).await?;
    Ok(Json(Released { key_id: key.digest(), released }).into_response())
}

/// Take an evaluation key out of the store.
#[utoipa::path(
    delete, path = "/v1/keys/{key}", tag = "keys",
    params(("key" = String, Path, description = "SHA-256 of the key")),
    responses((status = 204, description = "it is not there any more")),
    security(("token" = [])),
)]
pub(crate) async fn delete_key<B: Broker, S: GatewayStore>(
    State(shared): Held<B, S>,
    caller: Caller,
    InPath(key): InPath<EvaluationKeyId>,
) -> Result<StatusCode, Problem> {
    shared.remove_blob(&BlobName::evaluation_key(&caller.tenant, key)).await
}

fn payload(caller: &Caller, id: Digest) -> BlobName {
    BlobName { tenant: caller.tenant.clone(), kind: BlobKind::Job, id }
}

fn outputs(caller: &Caller, id: Digest) -> BlobName {
    BlobName { tenant: caller.tenant.clone(), kind: BlobKind::Reply, id }
}

/// Put the rows of a job into the store, before a body that names them is published.
#[utoipa::path(
    put, path = "/v1/payloads/{sha256}", tag = "payloads",
    params(
        ("sha256" = String, Path, description = "digest of the bytes"),
        ("cs-lease" = Option<String>, Header, description = "how long they stay: 30d, 12h, 90m, 45s"),
    ),
    request_body(content = String, content_type = "application/octet-stream", description = "the encrypted rows"),
    responses(
        (status = 201, description = "they were stored", body = PayloadInfo),
        (status = 200, description = "they were there, and their lease is renewed", body = PayloadInfo),
        (status = "4XX", description = "why not", body = ProblemDetails),
    ),
    security(("token" = [])),
)]
pub(crate) async fn put_payload<B: Broker, S: GatewayStore>(
    State(shared): Held<B, S>,
    caller: Caller,
    InPath(id): InPath<Digest>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let lease = lease(&headers, Lease::PAYLOAD, shared.settings.max_lease)?;
    let body = (headers, body);
    let (status, info) = shared.take_blob(caller, BlobKind::Job, id, lease, body).await?;
    Ok(payload_response(status, info))
}

/// Describe the rows of a job in the store.
#[utoipa::path(
    get, path = "/v1/payloads/{sha256}", tag = "payloads",
    params(("sha256" = String, Path, description = "digest of the bytes")),
    responses(
        (status = 200, description = "they are there", body = PayloadInfo),
        (status = 404, description = "they are not", body = ProblemDetails),
    ),
    security(("token" = [])),
)]
pub(crate) async fn get_payload<B: Broker, S: GatewayStore>(
    State(shared): Held<B, S>,
    caller: Caller,
    InPath(id): InPath<Digest>,
) -> Answer {
    let info = shared.store.info(&payload(&caller, id)).await?;
    Ok(payload_response(StatusCode::OK, info))
}

/// Set the lease of the rows of a job.
#[utoipa::path(
    post, path = "/v1/payloads/{sha256}/lease", tag = "payloads",
    params(
        ("sha256" = String, Path, description = "digest of the bytes"),
        ("cs-lease" = Option<String>, Header, description = "how long they stay: 30d, 12h, 90m, 45s"),
    ),
    responses(
        (status = 200, description = "the lease is set", body = PayloadInfo),
        (status = 404, description = "they are not there", body = ProblemDetails),
    ),
    security(("token" = [])),
)]
pub(crate) async fn renew_payload<B: Broker, S: GatewayStore>(
    State(shared): Held<B, S>,
    caller: Caller,
    InPath(id): InPath<Digest>,
    headers: HeaderMap,
) -> Answer {
    let lease = lease(&headers, Lease::PAYLOAD, shared.settings.max_lease)?;
    let info = shared.renew(&payload(&caller, id), lease).await?;
    Ok(payload_response(StatusCode::OK, info))
}

/// Take the rows of a job out of the store.
#[utoipa::path(
    delete, path = "/v1/payloads/{sha256}", tag = "payloads",
    params(("sha256" = String, Path, description = "digest of the bytes")),
    responses((status = 204, description = "they are not there any more")),
    security(("token" = [])),
)]
pub(crate) async fn delete_payload<B: Broker, S: GatewayStore>(
    State(shared): Held<B, S>,
    caller: Caller,
    InPath(id): InPath<Digest>,
) -> Result<StatusCode, Problem> {
    shared.remove_blob(&payload(&caller, id)).await
}

/// Read outputs that are in the store, or a span of them.
#[utoipa::path(
    get, path = "/v1/outputs/{sha256}", tag = "payloads",
    params(
        ("sha256" = String, Path, description = "digest of the bytes"),
        ("range" = Option<String>, Header, description = "one span: bytes=A-B"),
    ),
    responses(
        (status = 200, description = "all of them", body = String, content_type = "application/octet-stream"),
        (status = 206, description = "the span", body = String, content_type = "application/octet-stream"),
        (status = "4XX", description = "why not", body = ProblemDetails),
    ),
    security(("token" = [])),
)]
pub(crate) async fn get_outputs<B: Broker, S: GatewayStore>(
    State(shared): Held<B, S>,
    caller: Caller,
    method: axum::http::Method,
    InPath(id): InPath<Digest>,
    headers: HeaderMap,
) -> Answer {
    let turn = super::turn(&shared, &caller, &method).await?;
    shared.download(outputs(&caller, id), &headers, turn).await
}

/// Take outputs out of the store.
#[utoipa::path(
    delete, path = "/v1/outputs/{sha256}", tag = "payloads",
    params(("sha256" = String, Path, description = "digest of the bytes")),
    responses((status = 204, description = "they are not there any more")),
    security(("token" = [])),
)]
pub(crate) async fn delete_outputs<B: Broker, S: GatewayStore>(
    State(shared): Held<B, S>,
    caller: Caller,
    InPath(id): InPath<Digest>,
) -> Result<StatusCode, Problem> {
    shared.remove_blob(&outputs(&caller, id)).await
}
