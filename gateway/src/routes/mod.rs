//! The routes, and their description for machines. Path and method of a route are written once, beside
//! its handler.

pub(crate) mod blobs;
pub(crate) mod feed;
pub(crate) mod jobs;
pub(crate) mod models;

use std::any::Any;
use std::sync::Arc;

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::handler::Handler;
use axum::http::Method;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, get, on};
use cipherscore_common::GatewayStore;
use cipherscore_common::broker::Broker;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::openapi::HttpMethod;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi, Path};

use crate::caller::Caller;
use crate::limits::Transfer;
use crate::problem::{Problem, ProblemCode, ProblemDetails};
use crate::shared::Shared;

/// The interface, for machines.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "cipherscore gateway",
        description = "Encrypted scoring over HTTP. docs/gateway.md says what stands behind it.",
    ),
    paths(
        blobs::put_key, blobs::get_key, blobs::delete_key, blobs::renew_key, blobs::get_released,
        jobs::put_job, jobs::get_job, jobs::delete_job, jobs::cancel_job,
        feed::get_results, feed::settle_results,
        blobs::put_payload, blobs::get_payload, blobs::delete_payload, blobs::renew_payload,
        blobs::get_outputs, blobs::delete_outputs,
        models::list_models, models::get_model, models::get_client_zip, models::get_me,
    ),
    components(schemas(
        ProblemDetails, blobs::KeyInfo, blobs::Released, blobs::PayloadInfo, jobs::JobAnswer,
        feed::FeedEnd, feed::TakenResult, feed::TakenResults, models::ClientZip,
        models::ListedModel, models::ModelList, models::LaneState, models::Lanes,
        models::ModelState, models::CallerLimits, models::CallerInfo,
    )),
    modifiers(&Tokens),
)]
struct Description;

/// How callers say who they are.
struct Tokens;

impl Modify for Tokens {
    fn modify(&self, description: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let components = description.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(scheme));
    }
}

/// The interface, for machines, as JSON.
pub fn description() -> String {
    let mut json = Description::openapi().to_pretty_json().expect("a struct of texts");
    json.push('\n');
    json
}

/// A router of described handlers.
struct Api<B, S>(Router<Arc<Shared<B, S>>>);

impl<B: Broker, S: GatewayStore> Api<B, S> {
    /// Adds a handler where its description says that it is. What answers GET answers HEAD.
    fn add<P: Path, T: 'static>(self, handler: impl Handler<T, Arc<Shared<B, S>>>) -> Self {
        let filter = P::methods().iter().map(filter).reduce(MethodFilter::or);
        let filter = filter.expect("a route has a method");
        Self(self.0.route(&P::path(), on(filter, handler)))
    }
}

fn filter(method: &HttpMethod) -> MethodFilter {
    match method {
        HttpMethod::Get => MethodFilter::GET,
        HttpMethod::Put => MethodFilter::PUT,
        HttpMethod::Post => MethodFilter::POST,
        HttpMethod::Delete => MethodFilter::DELETE,
        HttpMethod::Options => MethodFilter::OPTIONS,
        HttpMethod::Head => MethodFilter::HEAD,
        HttpMethod::Patch => MethodFilter::PATCH,
        HttpMethod::Trace => MethodFilter::TRACE,
    }
}

/// Everything that a gateway answers.
pub(crate) fn router<B: Broker, S: GatewayStore>(shared: &Arc<Shared<B, S>>) -> Router {
    let api = Api(Router::new())
        .add::<blobs::__path_put_key, _>(blobs::put_key::<B, S>)
        .add::<blobs::__path_get_key, _>(blobs::get_key::<B, S>)
        .add::<blobs::__path_delete_key, _>(blobs::delete_key::<B, S>)
        .add::<blobs::__path_renew_key, _>(blobs::renew_key::<B, S>)
        .add::<blobs::__path_get_released, _>(blobs::get_released::<B, S>)
        .add::<jobs::__path_put_job, _>(jobs::put_job::<B, S>)
        .add::<jobs::__path_get_job, _>(jobs::get_job::<B, S>)
        .add::<jobs::__path_delete_job, _>(jobs::delete_job::<B, S>)
        .add::<jobs::__path_cancel_job, _>(jobs::cancel_job::<B, S>)
        .add::<feed::__path_get_results, _>(feed::get_results::<B, S>)
        .add::<feed::__path_settle_results, _>(feed::settle_results::<B, S>)
        .add::<blobs::__path_put_payload, _>(blobs::put_payload::<B, S>)
        .add::<blobs::__path_get_payload, _>(blobs::get_payload::<B, S>)
        .add::<blobs::__path_delete_payload, _>(blobs::delete_payload::<B, S>)
        .add::<blobs::__path_renew_payload, _>(blobs::renew_payload::<B, S>)
        .add::<blobs::__path_get_outputs, _>(blobs::get_outputs::<B, S>)
        .add::<blobs::__path_delete_outputs, _>(blobs::delete_outputs::<B, S>)
        .add::<models::__path_list_models, _>(models::list_models::<B, S>)
        .add::<models::__path_get_model, _>(models::get_model::<B, S>)
        .add::<models::__path_get_client_zip, _>(models::get_client_zip::<B, S>)
        .add::<models::__path_get_me, _>(models::get_me::<B, S>);
    let json: Arc<str> = description().into();
    let openapi = move || async move { ([(CONTENT_TYPE, "application/json")], json.to_string()) };
    let ours = api
        .0
        .route("/openapi.json", get(openapi))
        .method_not_allowed_fallback(|method: Method| async move {
            let detail = format!("this path is not for {method}");
            Problem::new(ProblemCode::MethodNotAllowed, detail)
        })
        .fallback(|| async { Problem::new(ProblemCode::NotFound, "no such path") });
    ours.merge(crate::cml::router(shared))
        .layer(CatchPanicLayer::custom(|_: Box<dyn Any + Send>| panicked().into_response()))
        .layer(from_fn_with_state(Arc::clone(shared), measured::<B, S>))
        .with_state(Arc::clone(shared))
}

/// Counts and times every answer. Labels are paths as they are written here, never as they were asked.
async fn measured<B: Broker, S: GatewayStore>(
    axum::extract::State(shared): axum::extract::State<Arc<Shared<B, S>>>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.extensions().get::<MatchedPath>();
    let path = path.map_or("other", MatchedPath::as_str).to_owned();
    let method = request.method().clone();
    let began = std::time::Instant::now();
    let response = next.run(request).await;
    shared.metrics.answered(&method, path, response.status(), began.elapsed());
    response
}

/// What a mistake of ours is answered with.
pub(crate) fn panicked() -> Problem {
    Problem::new(ProblemCode::Internal, "the gateway made a mistake; its log says more")
}

/// The turn of a transfer, unless only the head is asked for.
pub(crate) async fn turn<B: Broker, S: GatewayStore>(
    shared: &Shared<B, S>,
    caller: &Caller,
    method: &Method,
) -> Result<Option<Transfer>, Problem> {
    match *method {
        Method::HEAD => Ok(None),
        _ => shared.limits.transfer(&caller.gate).await.map(Some),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

    use super::*;

    /// `UPDATE=1 cargo test -p cipherscore-gateway openapi` writes it.
    #[test]
    fn openapi_is_committed_as_the_code_says_it() {
        let path = "../docs/openapi.json";
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(path, description()).unwrap();
        }
        assert!(std::fs::read_to_string(path).unwrap() == description(), "write it with UPDATE=1");
    }

    #[test]
    fn every_path_is_in_the_guide() {
        let guide = std::fs::read_to_string("../docs/gateway.md").unwrap();
        let json: serde_json::Value = serde_json::from_str(&description()).unwrap();
        let paths = json["paths"].as_object().unwrap();
        assert_eq!(paths.len(), 15);
        for (path, methods) in paths {
            for method in methods.as_object().unwrap().keys() {
                let names =
                    [("key", "KEY"), ("model", "MODEL"), ("job", "JOB"), ("client", "CLIENT")];
                let mut said = path.replace("{sha256}", "SHA256");
                for (name, capital) in names {
                    said = said.replace(&format!("{{{name}}}"), capital);
                }
                let said = format!("{} {said}", method.to_uppercase());
                assert!(guide.contains(&said), "{said}");
            }
        }
    }
}
