//! Concrete ML's own deployment server, spoken to its published clients: `get_client`, `add_key` and
//! `compute` under a base URL for each model. These clients have no token and name no model; they are one
//! tenant together, whose keys have ids drawn at random, and go after a time.
//!
//! Form fields, status codes and bytes are those of its `server.py` (FastAPI); what it calls a user's
//! mistake has FastAPI's form, whatever else goes wrong is its `Internal Server Error`.

mod form;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use cipherscore_common::broker::Broker;
use cipherscore_common::message::{Outcome, Payload, Timestamp, headers};
use cipherscore_common::{
    BlobKind, BlobName, BlobWriter, Digest, ErrorClass, EvaluationKeyId, GatewayStore, JobId,
    MAX_BLOB_BYTES, ModelId, NoteName,
};
use serde_json::json;
use tracing::{debug, warn};

use self::form::{Form, Part, missing};
use crate::caller::Caller;
use crate::download::{send_whole, sent_body};
use crate::kept::Kept;
use crate::order::Order;
use crate::problem::{Problem, ProblemCode};
use crate::publish::Sent;
use crate::receive::Incoming;
use crate::shared::Shared;

/// Largest field of a form that is no file, in bytes.
const MAX_FIELD_BYTES: u64 = 256;
/// Room of a form around its file, in bytes.
const FORM_BYTES: u64 = 64 << 10;
/// Bytes before a value in the rows of a job, and in its outputs: its length (`docs/formats.md`).
const LENGTH_BYTES: usize = 4;
const ZIP: HeaderValue = HeaderValue::from_static("application/zip");

/// What this surface answers instead of what was asked.
pub(crate) enum CmlError {
    /// A mistake of the caller that FastAPI finds.
    Form(serde_json::Value),
    /// What its `HTTPException` is.
    Said(StatusCode, String, Option<Duration>),
    /// What its server does not expect either.
    Unexpected(String),
}

impl IntoResponse for CmlError {
    fn into_response(self) -> Response {
        match self {
            Self::Form(detail) => {
                let json = Json(json!({ "detail": [detail] }));
                (StatusCode::UNPROCESSABLE_ENTITY, json).into_response()
            }
            Self::Said(status, detail, after) => {
                let mut response = (status, Json(json!({ "detail": detail }))).into_response();
                if let Some(after) = after {
                    response.headers_mut().insert(RETRY_AFTER, after.as_secs().max(1).into());
                }
                response
            }
            Self::Unexpected(reason) => {
                warn!(reason, "a client of Concrete ML has no answer");
                (StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error").into_response()
            }
        }
    }
}

impl From<Problem> for CmlError {
    fn from(problem: Problem) -> Self {
        let status = problem.status();
        match problem.code() {
            None | Some(ProblemCode::Internal) => Self::Unexpected(problem.detail().to_owned()),
            Some(_) if status == StatusCode::NOT_FOUND => {
                Self::Unexpected(problem.detail().to_owned())
            }
            Some(_) => {
                let after = (status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS)
                    .then_some(Duration::from_secs(1));
                Self::Said(status, problem.detail().to_owned(), after)
            }
        }
    }
}

impl From<cipherscore_common::StoreError> for CmlError {
    fn from(error: cipherscore_common::StoreError) -> Self {
        Problem::from(error).into()
    }
}

type Held<B, S> = State<Arc<Shared<B, S>>>;

/// The three routes; none where no model is named.
pub(crate) fn router<B: Broker, S: GatewayStore>(
    shared: &Arc<Shared<B, S>>,
) -> Router<Arc<Shared<B, S>>> {
    if shared.cml.models.is_empty() {
        return Router::new();
    }
    Router::new()
        .route("/cml/{model}/get_client", get(get_client::<B, S>))
        .route("/cml/{model}/add_key", post(add_key::<B, S>))
        .route("/cml/{model}/compute", post(compute::<B, S>))
        // Bounded by the limits of the tenant.
        .layer(DefaultBodyLimit::disable())
}

impl<B: Broker, S: GatewayStore> Shared<B, S> {
    fn cml_model(&self, name: &str) -> Result<ModelId, CmlError> {
        let found = self.cml.models.get(name).copied();
        found.ok_or_else(|| CmlError::Said(StatusCode::NOT_FOUND, "Not Found".into(), None))
    }

    fn anonymous(&self) -> Result<Caller, CmlError> {
        Ok(Caller::enter(self, self.cml.tenant.clone())?)
    }

    /// The form of a request, bounded in size and time.
    fn form(&self, request: Request<Body>, limit: u64) -> Result<Form, CmlError> {
        let (parts, body) = request.into_parts();
        let body = Incoming::new(&parts.headers, body, limit + FORM_BYTES, self.pace())?;
        Form::new(&parts.headers, body)
    }

    /// The key of a uid, whose leases are renewed; theirs stay as long as the server runs.
    async fn key_of(&self, uid: &str) -> Result<EvaluationKeyId, CmlError> {
        let unknown = || CmlError::Unexpected("no key of this uid, or it went away".into());
        let (tenant, lease) = (&self.cml.tenant, self.cml.lease);
        let name = NoteName::Key(uid.parse::<JobId>().map_err(|_| unknown())?);
        let note = self.store.noted(tenant, name).await?.ok_or_else(unknown)?;
        let text = std::str::from_utf8(&note).map_err(|_| unknown())?;
        let id: EvaluationKeyId = text.parse().map_err(|_| unknown())?;
        let key = BlobName::evaluation_key(tenant, id);
        match self.store.touch(&key, Some(lease)).await {
            Err(error) if error.class() == ErrorClass::Unavailable => return Err(error.into()),
            Err(_) => return Err(unknown()),
            Ok(()) => {}
        }
        self.store.note_again(tenant, name, &note, lease).await?;
        Ok(id)
    }

    /// Publishes one value as a job, and waits for its reply.
    async fn evaluate(
        self: &Arc<Self>,
        caller: &Caller,
        model: ModelId,
        key: EvaluationKeyId,
        value: Vec<u8>,
    ) -> Result<(JobId, Kept), CmlError> {
        let (job, tenant) = (JobId::random(), &caller.tenant);
        let mut said = HeaderMap::new();
        let deadline = Timestamp::now().millis().saturating_add(millis(self.cml.timeout));
        said.insert(headers::ROWS, 1.into());
        said.insert(headers::DEADLINE, deadline.into());
        crate::download::insert(&mut said, headers::KEY_ID, &key.to_string());
        let order = Order::read(tenant, model, job, &said)?;
        let limit = value.len() as u64;
        let body = Incoming::new(&said, Body::from(value), limit, self.pace())?;
        let gate = Arc::clone(&caller.gate);
        let sent = Sent { tenant: tenant.clone(), gate, body };
        self.publish(&order, sent).await?;
        match self.wait_for(tenant, job, self.cml.timeout).await? {
            Some(kept) => Ok((job, kept)),
            None => {
                // Nobody will ask for it.
                let _ = self.settle(tenant, job).await;
                Err(CmlError::Unexpected(format!("job {job} was not answered in time")))
            }
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// `GET /get_client`: the bytes of client.zip.
async fn get_client<B: Broker, S: GatewayStore>(
    State(shared): Held<B, S>,
    Path(model): Path<String>,
    request: Request<Body>,
) -> Result<Response, CmlError> {
    let model = shared.cml_model(&model)?;
    let caller = shared.anonymous()?;
    let (parts, _) = request.into_parts();
    let turn = crate::routes::turn(&shared, &caller, &parts.method).await?;
    let downloaded = shared.download(shared.client_zip(model), &parts.headers, turn).await;
    let mut response = downloaded.map_err(|problem| match problem.code() {
        // As theirs says it.
        Some(ProblemCode::BlobMissing) => {
            let detail = "Could not find client.".to_owned();
            CmlError::Said(StatusCode::INTERNAL_SERVER_ERROR, detail, None)
        }
        _ => problem.into(),
    })?;
    response.headers_mut().insert(CONTENT_TYPE, ZIP);
    Ok(response)
}

/// `POST /add_key`: the file `key`; answers `{"uid": ..}`.
async fn add_key<B: Broker, S: GatewayStore>(
    State(shared): Held<B, S>,
    Path(model): Path<String>,
    request: Request<Body>,
) -> Result<Response, CmlError> {
    shared.cml_model(&model)?;
    let caller = shared.anonymous()?;
    let limit = caller.gate.limits.max_key_size.as_u64().min(MAX_BLOB_BYTES);
    let mut form = shared.form(request, limit)?;
    let inner = Arc::clone(&shared);
    // A connection that is lost midway must not leave half of a key behind.
    let added = shared.tasks.spawn(async move {
        let _turn = inner.limits.transfer(&caller.gate).await?;
        let mut key = None;
        while let Some(mut part) = form.next().await? {
            match part.name() {
                "key" if key.is_none() => key = Some(take_key(&inner, &caller, &mut part).await?),
                _ => _ = part.bytes(MAX_FIELD_BYTES).await?,
            }
        }
        let key: EvaluationKeyId = key.ok_or_else(|| CmlError::Form(missing("key")))?;
        let uid = JobId::random_v4();
        let (tenant, lease) = (&caller.tenant, inner.cml.lease);
        let note = key.to_string().into_bytes();
        inner.store.note(tenant, NoteName::Key(uid), &note, lease).await?;
        debug!(%key, "a key was added");
        Ok::<_, CmlError>(Json(json!({ "uid": uid })).into_response())
    });
    added.await.unwrap_or_else(|error| Err(CmlError::Unexpected(error.to_string())))
}

async fn take_key<B: Broker, S: GatewayStore>(
    shared: &Shared<B, S>,
    caller: &Caller,
    part: &mut Part,
) -> Result<EvaluationKeyId, CmlError> {
    let mut writer = BlobWriter::new(&shared.store, &caller.tenant, BlobKind::Key);
    let sent = async {
        while let Some(piece) = part.next().await? {
            caller.gate.send(piece.len() as u64)?;
            writer.push(&piece).await?;
        }
        Ok::<_, CmlError>(())
    };
    if let Err(error) = sent.await {
        let _ = writer.give_up().await;
        return Err(error);
    }
    let written = writer.finish(Some(shared.cml.lease)).await?;
    Ok(EvaluationKeyId::new(written.stored.sha256))
}

/// `POST /compute`: the file `model_input` and the field `uid`; answers the bytes of the output.
async fn compute<B: Broker, S: GatewayStore>(
    State(shared): Held<B, S>,
    Path(model): Path<String>,
    request: Request<Body>,
) -> Result<Response, CmlError> {
    let model = shared.cml_model(&model)?;
    let caller = shared.anonymous()?;
    let limit = shared.cml.max_input_size.as_u64();
    let mut form = shared.form(request, limit)?;
    let turn = shared.limits.transfer(&caller.gate).await?;
    let (mut input, mut uid) = (None, None);
    while let Some(mut part) = form.next().await? {
        match part.name() {
            "model_input" => input = Some(part.bytes(limit).await?),
            "uid" => uid = Some(part.bytes(MAX_FIELD_BYTES).await?),
            _ => _ = part.bytes(MAX_FIELD_BYTES).await?,
        }
    }
    let input = input.ok_or_else(|| CmlError::Form(missing("model_input")))?;
    let uid = uid.ok_or_else(|| CmlError::Form(missing("uid")))?;
    let key = shared.key_of(&String::from_utf8_lossy(&uid)).await?;
    let length = u32::try_from(input.len()).unwrap_or(u32::MAX);
    let value = [&length.to_le_bytes()[..], &input].concat();
    drop((input, turn));
    let (job, kept) = shared.evaluate(&caller, model, key, value).await?;
    let reply = kept.reply().map_err(Problem::from)?;
    let outputs = match reply.outcome {
        Outcome::Scored(payload) => payload,
        Outcome::Failed { code, reason } => {
            let _ = shared.settle(&caller.tenant, job).await;
            return Err(CmlError::Unexpected(format!("job {job}: {code}: {reason}")));
        }
    };
    send_outputs(shared, caller, job, outputs).await
}

/// The value of outputs that are one row of one value, as theirs has no bytes before it.
async fn send_outputs<B: Broker, S: GatewayStore>(
    shared: Arc<Shared<B, S>>,
    caller: Caller,
    job: JobId,
    outputs: Payload,
) -> Result<Response, CmlError> {
    let several = || CmlError::Unexpected(format!("job {job}: not one value as output"));
    match outputs {
        Payload::Inline(bytes) => {
            let (length, value) = bytes.split_first_chunk::<LENGTH_BYTES>().ok_or_else(several)?;
            if usize::try_from(u32::from_le_bytes(*length)) != Ok(value.len()) {
                return Err(several());
            }
            let response = Response::new(Body::from(value.to_vec()));
            let _ = shared.settle(&caller.tenant, job).await;
            Ok(response)
        }
        Payload::Stored(stored) => {
            let turn = shared.limits.transfer(&caller.gate).await?;
            let id: Digest = stored.sha256;
            let name = BlobName { tenant: caller.tenant.clone(), kind: BlobKind::Reply, id };
            shared.store.info(&name).await?;
            let (pieces, body) = sent_body();
            let inner = Arc::clone(&shared);
            shared.tasks.spawn(async move {
                send_whole(&inner.store, &name, LENGTH_BYTES, pieces).await;
                let _ = inner.settle(&caller.tenant, job).await;
                drop(turn);
            });
            Ok(Response::new(body))
        }
    }
}
