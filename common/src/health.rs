//! `/livez`, `/readyz` and `/metrics` over HTTP, for whoever runs a process.

use std::io;
use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use tokio::net::TcpListener;

/// What Prometheus asks for, and everything else reads.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const JSON: &str = "application/json";

/// Whether something is well, and what there is to say of it.
pub struct Condition {
    is_well: bool,
    json: String,
}

impl Condition {
    /// Of what says more as JSON.
    pub fn new(is_well: bool, said: &impl Serialize) -> Self {
        // Whatever cannot be written is not well.
        let json = serde_json::to_string(said);
        Self { is_well: is_well && json.is_ok(), json: json.unwrap_or_default() }
    }
}

impl IntoResponse for Condition {
    fn into_response(self) -> Response {
        let code = if self.is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        (code, [(CONTENT_TYPE, JSON)], self.json).into_response()
    }
}

/// A process that says how it is.
pub trait Health: Send + Sync + 'static {
    /// Whether nothing is stuck. What is stuck is helped by a restart.
    fn liveness(&self) -> Condition;

    /// Whether it does its work. What is not ready waits for something else.
    fn readiness(&self) -> Condition;

    /// What it counted and measured, as OpenMetrics text.
    fn metrics(&self) -> String;
}

/// Answers until the process ends.
pub async fn serve(listener: TcpListener, process: Arc<impl Health>) -> io::Result<()> {
    let (alive, ready) = (Arc::clone(&process), Arc::clone(&process));
    let metrics = move || async move { ([(CONTENT_TYPE, OPEN_METRICS)], process.metrics()) };
    let router = Router::new()
        .route("/livez", get(move || async move { alive.liveness() }))
        .route("/readyz", get(move || async move { ready.readiness() }))
        .route("/metrics", get(metrics));
    axum::serve(listener, router).await
}
