//! A server that answers as a test says, and remembers what it was asked.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use cipherscore_producer::gateway::{GatewayAccess, GatewayClient, GatewayError, GatewaySettings};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Largest body that a test sends, in bytes.
const MAX_BODY_BYTES: usize = 8 << 20;
pub(crate) const TOKEN: &str = "hush-this-is-a-token";
pub(crate) const TENANT: &str = "bank";

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// Method, path and query.
    pub(crate) what: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

type Answer = dyn Fn(&Asked) -> Response + Send + Sync;

struct Script {
    asked: Mutex<Vec<Asked>>,
    answer: Box<Answer>,
}

/// It runs until it is dropped.
pub(crate) struct Scripted {
    script: Arc<Script>,
    url: String,
    task: JoinHandle<()>,
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Scripted {
    /// `GET /v1/me` is answered by itself.
    pub(crate) async fn start(answer: impl Fn(&Asked) -> Response + Send + Sync + 'static) -> Self {
        let script = Arc::new(Script { asked: Mutex::default(), answer: Box::new(answer) });
        let router = Router::new().fallback(take).with_state(Arc::clone(&script));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { script, url, task }
    }

    /// A client that has asked who it is.
    pub(crate) async fn client(&self) -> GatewayClient {
        open(&self.url, TOKEN).await.unwrap()
    }

    /// All requests but those that ask who one is.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        let asked = self.script.asked.lock().unwrap();
        asked.iter().filter(|asked| asked.what != "GET /v1/me").cloned().collect()
    }

    /// What was asked, without headers and bodies.
    pub(crate) fn paths(&self) -> Vec<String> {
        self.asked().into_iter().map(|asked| asked.what).collect()
    }
}

pub(crate) async fn open(url: &str, token: &str) -> Result<GatewayClient, GatewayError> {
    let settings = GatewaySettings {
        url: Some(url.to_owned().into()),
        token: Some(token.to_owned().into()),
        ..GatewaySettings::default()
    };
    GatewayClient::open(GatewayAccess::from_section(&settings, Duration::from_secs(10)).unwrap())
        .await
}

async fn take(State(script): State<Arc<Script>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let what = format!("{} {}", head.method, head.uri);
    let body = to_bytes(body, MAX_BODY_BYTES).await.unwrap().to_vec();
    let asked = Asked { what, headers: head.headers, body };
    script.asked.lock().unwrap().push(asked.clone());
    if asked.header("authorization") != Some(&format!("Bearer {TOKEN}")) {
        return problem(401, "unauthorized");
    }
    if asked.what == "GET /v1/me" {
        let limits = json!({"max_wait_seconds": 1, "max_results": 1000});
        return ok(json!({"tenant": TENANT, "limits": limits}).to_string());
    }
    (script.answer)(&asked)
}

pub(crate) fn ok(body: impl Into<Body>) -> Response {
    status(200, body)
}

pub(crate) fn status(status: u16, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

/// An error as the page has it, to be waited out within a second where it says so.
pub(crate) fn problem(number: u16, code: &str) -> Response {
    let json = json!({"type": format!("urn:cipherscore:problem:{code}"), "title": "no",
        "status": number, "code": code, "detail": "as the test says"});
    let mut response = status(number, json.to_string());
    if matches!(number, 429 | 503) {
        response.headers_mut().insert("retry-after", "1".parse().unwrap());
    }
    response
}
