//! `/livez` and `/readyz`, for whoever runs the worker, and the question to them.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use cipherscore_common::Store;
use cipherscore_common::broker::Broker;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use crate::shared::Shared;

/// After what time without a sign of life the supervisor counts as dead.
const LONGEST_SILENCE: Duration = Duration::from_secs(30);
/// How long the question may take.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest answer, in bytes.
const MAX_ANSWER_BYTES: u64 = 4096;

/// What `/readyz` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    /// Whether all of it is well.
    pub ready: bool,
    /// Messages are being taken from the queues.
    pub consuming: bool,
    /// The store answers.
    pub store: bool,
    /// Number of models.
    pub models: usize,
}

/// Answers until the process ends.
pub(crate) async fn serve<B: Broker, S: Store>(
    listener: TcpListener,
    shared: Arc<Shared<B, S>>,
) -> io::Result<()> {
    let alive = shared.clone();
    let livez = move || async move {
        match alive.services.since_tick() < LONGEST_SILENCE {
            true => (StatusCode::OK, "alive"),
            false => (StatusCode::SERVICE_UNAVAILABLE, "the supervisor gives no sign of life"),
        }
    };
    let readyz = move || async move {
        let readiness = readiness(&shared);
        let code = match readiness.ready {
            true => StatusCode::OK,
            false => StatusCode::SERVICE_UNAVAILABLE,
        };
        (code, Json(readiness))
    };
    let router = Router::new().route("/livez", get(livez)).route("/readyz", get(readyz));
    axum::serve(listener, router).await
}

fn readiness<B: Broker, S: Store>(shared: &Shared<B, S>) -> Readiness {
    let consuming = shared.services.is_consuming();
    let store = !shared.services.is_store_away();
    let models = shared.models().ids().count();
    Readiness { ready: consuming && store && models > 0, consuming, store, models }
}

/// Asks a worker on this machine.
pub(crate) fn ask(address: SocketAddr) -> io::Result<Readiness> {
    let mut stream = TcpStream::connect_timeout(&address, QUESTION_TIMEOUT)?;
    stream.set_read_timeout(Some(QUESTION_TIMEOUT))?;
    let question = format!("GET /readyz HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(question.as_bytes())?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER_BYTES).read_to_string(&mut answer)?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
    serde_json::from_str(body).map_err(io::Error::other)
}
