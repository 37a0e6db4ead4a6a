//! Models, and who the caller is.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use cipherscore_common::broker::Broker;
use cipherscore_common::message::ProtocolVersion;
use cipherscore_common::topology::{Lane, job_queue};
use cipherscore_common::{
    BlobInfo, BlobKind, BlobName, Digest, ErrorClass, GatewayStore, MAX_FEED_ENTRIES, ModelId,
    Tenant,
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::caller::{Caller, InPath};
use crate::download::insert;
use crate::order::text;
use crate::problem::{Problem, ProblemCode, ProblemDetails};
use crate::shared::{MAX_WAIT, Shared};

/// A `client.zip` that is handed out.
#[derive(Serialize, ToSchema)]
pub(crate) struct ClientZip {
    /// Size.
    bytes: u64,
    /// Digest of its bytes.
    #[schema(value_type = String)]
    sha256: Digest,
}

impl From<BlobInfo> for ClientZip {
    fn from(info: BlobInfo) -> Self {
        Self { bytes: info.bytes, sha256: info.sha256 }
    }
}

/// A model in a list.
#[derive(Serialize, ToSchema)]
pub(crate) struct ListedModel {
    /// Which model.
    #[schema(value_type = String)]
    model_id: ModelId,
    /// What is handed out of it.
    client_zip: Option<ClientZip>,
    /// Workers that say they have it.
    workers: usize,
}

/// The models that there are.
#[derive(Serialize, ToSchema)]
pub(crate) struct ModelList {
    /// By their ids.
    models: Vec<ListedModel>,
}

/// How full the queue of a lane is.
#[derive(Serialize, ToSchema)]
pub(crate) struct LaneState {
    /// Jobs that wait.
    messages: u32,
    /// Workers that take them.
    consumers: u32,
}

/// The queues of a model.
#[derive(Serialize, ToSchema)]
pub(crate) struct Lanes {
    high: LaneState,
    normal: LaneState,
}

/// A model.
#[derive(Serialize, ToSchema)]
pub(crate) struct ModelState {
    /// Which model.
    #[schema(value_type = String)]
    model_id: ModelId,
    /// What is handed out of it.
    client_zip: Option<ClientZip>,
    /// Its queues; none where no worker has ever served it.
    lanes: Option<Lanes>,
}

/// What a tenant may.
#[derive(Serialize, ToSchema)]
pub(crate) struct CallerLimits {
    /// Largest payload of a job.
    max_job_bytes: u64,
    /// Largest evaluation key.
    max_key_bytes: u64,
    /// Longest lease of keys and payloads.
    max_lease: String,
    /// How long results wait.
    result_lease: String,
    /// Longest `wait`.
    max_wait_seconds: u64,
    /// Largest `max`.
    max_results: usize,
}

/// Who asks.
#[derive(Serialize, ToSchema)]
pub(crate) struct CallerInfo {
    /// The tenant of the token.
    #[schema(value_type = String)]
    tenant: Tenant,
    /// Versions of bodies of the protocol that are spoken here.
    protocol_versions: Vec<u16>,
    /// What it may.
    limits: CallerLimits,
}

type Held<B, S> = State<Arc<Shared<B, S>>>;

impl<B: Broker, S: GatewayStore> Shared<B, S> {
    /// Where the `client.zip` of a model is.
    pub(crate) fn client_zip(&self, model: ModelId) -> BlobName {
        BlobName::client_zip(&self.settings.model_tenant, model)
    }

    async fn client_zip_of(&self, model: ModelId) -> Result<Option<ClientZip>, Problem> {
        match self.store.info(&self.client_zip(model)).await {
            Ok(info) => Ok(Some(info.into())),
            Err(error) if matches!(error.class(), ErrorClass::NotFound | ErrorClass::Damaged) => {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn lane(&self, model: ModelId, lane: Lane) -> Result<Option<LaneState>, Problem> {
        let state = self.broker.queue_state(&job_queue(model, lane)).await?;
        Ok(state.map(|state| LaneState { messages: state.messages, consumers: state.consumers }))
    }
}

/// List the models.
#[utoipa::path(
    get, path = "/v1/models", tag = "models",
    responses((status = 200, description = "those that there are", body = ModelList)),
    security(("token" = [])),
)]
pub(crate) async fn list_models<B: Broker, S: GatewayStore>(
    State(shared): Held<B, S>,
    _caller: Caller,
) -> Result<Json<ModelList>, Problem> {
    let zips = shared.store.list(&shared.settings.model_tenant, BlobKind::Client).await?;
    let mut models: BTreeMap<ModelId, (Option<ClientZip>, usize)> = BTreeMap::new();
    for info in zips {
        let model = ModelId::new(info.name.id);
        models.entry(model).or_default().0 = Some(info.into());
    }
    for worker in shared.store.workers().await? {
        for model in worker.models {
            models.entry(model).or_default().1 += 1;
        }
    }
    let listed = |(model_id, (client_zip, workers))| ListedModel { model_id, client_zip, workers };
    Ok(Json(ModelList { models: models.into_iter().map(listed).collect() }))
}

/// Say how a model's queues are, and whether its client.zip is handed out.
#[utoipa::path(
    get, path = "/v1/models/{model}", tag = "models",
    params(("model" = String, Path, description = "model id")),
    responses(
        (status = 200, description = "it is there", body = ModelState),
        (status = 404, description = "there is neither a queue nor a client.zip", body = ProblemDetails),
    ),
    security(("token" = [])),
)]
pub(crate) async fn get_model<B: Broker, S: GatewayStore>(
    State(shared): Held<B, S>,
    _caller: Caller,
    InPath(model_id): InPath<ModelId>,
) -> Result<Json<ModelState>, Problem> {
    let client_zip = shared.client_zip_of(model_id).await?;
    let high = shared.lane(model_id, Lane::High).await?;
    let normal = shared.lane(model_id, Lane::Normal).await?;
    let lanes = high.zip(normal).map(|(high, normal)| Lanes { high, normal });
    if client_zip.is_none() && lanes.is_none() {
        let detail =
            format!("no worker has ever served model {model_id}, and it has no client.zip");
        return Err(Problem::new(ProblemCode::UnknownModel, detail));
    }
    Ok(Json(ModelState { model_id, client_zip, lanes }))
}

/// Hand out the client.zip of a model.
#[utoipa::path(
    get, path = "/v1/models/{model}/client.zip", tag = "models",
    params(
        ("model" = String, Path, description = "model id"),
        ("range" = Option<String>, Header, description = "one span: bytes=A-B"),
        ("if-none-match" = Option<String>, Header, description = "the ETag that the caller has"),
    ),
    responses(
        (status = 200, description = "all of it", body = String, content_type = "application/zip"),
        (status = 206, description = "the span", body = String, content_type = "application/zip"),
        (status = 304, description = "the caller has it"),
        (status = 404, description = "there is none", body = ProblemDetails),
    ),
    security(("token" = [])),
)]
pub(crate) async fn get_client_zip<B: Broker, S: GatewayStore>(
    State(shared): Held<B, S>,
    caller: Caller,
    method: Method,
    InPath(model): InPath<ModelId>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let name = shared.client_zip(model);
    let info = shared.store.info(&name).await?;
    let tag = format!("\"{}\"", info.sha256);
    if text(&headers, IF_NONE_MATCH.as_str())?.is_some_and(|said| said.contains(&tag)) {
        let mut headers = HeaderMap::new();
        insert(&mut headers, ETAG, &tag);
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    let turn = super::turn(&shared, &caller, &method).await?;
    let mut response = shared.download(name, &headers, turn).await?;
    insert(response.headers_mut(), ETAG, &tag);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/zip"));
    Ok(response)
}

/// Say who the caller is, and what it may.
#[utoipa::path(
    get, path = "/v1/me", tag = "me",
    responses((status = 200, description = "the tenant of the token", body = CallerInfo)),
    security(("token" = [])),
)]
pub(crate) async fn get_me<B: Broker, S: GatewayStore>(
    State(shared): Held<B, S>,
    caller: Caller,
) -> Json<CallerInfo> {
    let limits = CallerLimits {
        max_job_bytes: caller.gate.limits.max_job_size.as_u64(),
        max_key_bytes: caller.gate.limits.max_key_size.as_u64(),
        max_lease: shared.settings.max_lease.to_string(),
        result_lease: shared.settings.result_lease.to_string(),
        max_wait_seconds: MAX_WAIT.as_secs(),
        max_results: MAX_FEED_ENTRIES,
    };
    let protocol_versions = ProtocolVersion::ALL.map(ProtocolVersion::number).into();
    Json(CallerInfo { tenant: caller.tenant.clone(), protocol_versions, limits })
}
