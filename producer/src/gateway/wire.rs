//! Requests to a gateway: HTTP/1.1 over connections that are kept.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use cipherscore_common::CHUNK_BYTES;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{AUTHORIZATION, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::http::request::Builder;
use hyper::{Method, Request, Response};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::access::GatewayAccess;
use super::problem::{Problem, Trouble};

/// How long the making of a connection may take, TLS included or not.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection that nobody uses is kept: less than the gateway and most proxies keep theirs.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);
/// Connections that nobody uses, at most.
const MAX_IDLE: usize = 8;
/// How long a body may stand still, on its way there or back.
pub(super) const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest time of a `Retry-After` that is kept to.
const MAX_HOLD: Duration = Duration::from_secs(60);
/// Largest body of a problem or a description, in bytes.
const MAX_TEXT_BYTES: usize = 1 << 20;

/// The body of a request.
pub(super) type Sent = UnsyncBoxBody<Bytes, io::Error>;

/// What a request is about. Where the gateway asks to wait with one of them, others go on: a result that
/// is settled may be what a full store waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Concern {
    Jobs,
    Blobs,
    Results,
    Rest,
}

const CONCERNS: usize = 4;

/// Connections to a gateway.
pub(super) struct Wire {
    client: Client<HttpsConnector<HttpConnector>, Sent>,
    base: String,
    token: HeaderValue,
    answer_timeout: Duration,
    /// Before when nothing about a concern is asked.
    holds: Mutex<[Option<Instant>; CONCERNS]>,
}

impl Wire {
    /// Connects later.
    pub(super) fn new(access: GatewayAccess) -> Self {
        let GatewayAccess { base, token, tls, answer_timeout } = access;
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        tcp.set_keepalive(Some(IDLE_TIMEOUT));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(MAX_IDLE)
            .build(connector);
        Self { client, base, token, answer_timeout, holds: Mutex::default() }
    }

    /// Where it is, for texts.
    pub(super) fn server(&self) -> &str {
        &self.base
    }

    /// Begins a request. `path` begins with a slash.
    pub(super) fn request(&self, method: Method, path: &str) -> Builder {
        Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(AUTHORIZATION, self.token.clone())
            .header(USER_AGENT, concat!("cipherscore/", env!("CARGO_PKG_VERSION")))
    }

    /// Sends a request without a body.
    pub(super) async fn ask(
        &self,
        concern: Concern,
        request: Builder,
    ) -> Result<Response<Incoming>, Trouble> {
        self.send(concern, request, empty(), Duration::ZERO).await
    }

    /// Sends a request, and waits for the head of its answer: for as long as the gateway was asked to wait,
    /// and `answer_timeout` more. An answer that is no success is an error.
    pub(super) async fn send(
        &self,
        concern: Concern,
        request: Builder,
        body: Sent,
        asked_to_wait: Duration,
    ) -> Result<Response<Incoming>, Trouble> {
        self.wait_for(concern).await;
        let within = asked_to_wait + self.answer_timeout;
        let answer = timeout(within, self.client.request(build(request, body)?)).await;
        self.accept(concern, answer.map_err(|_| Trouble::silent(within))?).await
    }

    /// Sends a request with a body of any size, chunk by chunk: of what waits to be sent, one is copied at
    /// a time. `sent` is called after each. The gateway may answer before it has the whole.
    pub(super) async fn upload(
        &self,
        concern: Concern,
        request: Builder,
        bytes: &[u8],
        sent: &(dyn Fn() + Sync),
    ) -> Result<Response<Incoming>, Trouble> {
        self.wait_for(concern).await;
        let (chunks, body) = Chunks::channel(bytes.len() as u64);
        let feed = async {
            for chunk in bytes.chunks(CHUNK_BYTES) {
                match timeout(STALL_TIMEOUT, chunks.send(Bytes::copy_from_slice(chunk))).await {
                    Ok(Ok(())) => sent(),
                    // The connection is over, and its answer says why.
                    Ok(Err(_)) => break,
                    Err(_) => return Trouble::silent(STALL_TIMEOUT),
                }
            }
            // The last chunks are still on their way.
            let within = STALL_TIMEOUT + self.answer_timeout;
            sleep(within).await;
            Trouble::silent(within)
        };
        tokio::select! {
            biased;
            answer = self.client.request(build(request, body.boxed_unsync())?) => {
                self.accept(concern, answer).await
            }
            trouble = feed => Err(trouble),
        }
    }

    async fn accept(
        &self,
        concern: Concern,
        answer: Result<Response<Incoming>, hyper_util::client::legacy::Error>,
    ) -> Result<Response<Incoming>, Trouble> {
        let answer = answer.map_err(|error| Trouble::of_connection(&error))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        let after = answer.headers().get(RETRY_AFTER).and_then(|after| after.to_str().ok());
        let after = after.and_then(|after| after.parse().ok()).map(Duration::from_secs);
        let body = read(answer, MAX_TEXT_BYTES).await.unwrap_or_default();
        let problem = Problem::new(status, after, &body);
        if let Some(after) = problem.retry_after {
            self.hold(concern, after.min(MAX_HOLD), problem.code == "rate_limited");
        }
        Err(Trouble::Refused(problem))
    }

    /// Whoever asks next waits.
    fn hold(&self, concern: Concern, time: Duration, all: bool) {
        let until = Instant::now() + time;
        let mut holds = self.holds.lock();
        for (index, hold) in holds.iter_mut().enumerate() {
            if all || index == concern as usize {
                *hold = (*hold).max(Some(until));
            }
        }
    }

    async fn wait_for(&self, concern: Concern) {
        let hold = self.holds.lock()[concern as usize];
        if let Some(until) = hold {
            sleep_until(until).await;
        }
    }
}

fn build(request: Builder, body: Sent) -> Result<Request<Sent>, Trouble> {
    request.body(body).map_err(|error| Trouble::Nonsense(error.to_string()))
}

/// No body.
pub(super) fn empty() -> Sent {
    Empty::new().map_err(never).boxed_unsync()
}

/// A body that is at hand.
pub(super) fn whole(bytes: impl Into<Bytes>) -> Sent {
    Full::new(bytes.into()).map_err(never).boxed_unsync()
}

fn never(never: Infallible) -> io::Error {
    match never {}
}

/// The body of an answer, if it is not too large.
pub(super) async fn read(answer: Response<Incoming>, limit: usize) -> Result<Vec<u8>, Trouble> {
    let (mut body, mut bytes) = (answer.into_body(), Vec::new());
    while let Some(more) = next_bytes(&mut body, STALL_TIMEOUT).await? {
        if bytes.len() + more.len() > limit {
            return Err(Trouble::Nonsense(format!("an answer of more than {limit} bytes")));
        }
        bytes.extend_from_slice(&more);
    }
    Ok(bytes)
}

/// The next bytes of a body that is read as it comes; none at its end.
pub(super) async fn next_bytes(
    body: &mut Incoming,
    within: Duration,
) -> Result<Option<Bytes>, Trouble> {
    loop {
        let frame = match timeout(within, body.frame()).await {
            Err(_) => return Err(Trouble::silent(within)),
            Ok(None) => return Ok(None),
            Ok(Some(Err(error))) => return Err(Trouble::of_connection(&error)),
            Ok(Some(Ok(frame))) => frame,
        };
        // Trailers say nothing here.
        if let Ok(bytes) = frame.into_data() {
            return Ok(Some(bytes));
        }
    }
}

/// JSON of an answer.
pub(super) async fn read_json<T: serde::de::DeserializeOwned>(
    answer: Response<Incoming>,
) -> Result<T, Trouble> {
    let body = read(answer, MAX_TEXT_BYTES).await?;
    serde_json::from_slice(&body).map_err(|error| Trouble::Nonsense(error.to_string()))
}

/// A body that is made while it is sent, of a length that is known.
struct Chunks {
    chunks: mpsc::Receiver<Bytes>,
    left: u64,
}

impl Chunks {
    fn channel(bytes: u64) -> (mpsc::Sender<Bytes>, Self) {
        let (sender, chunks) = mpsc::channel(1);
        (sender, Self { chunks, left: bytes })
    }
}

impl Body for Chunks {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.chunks.poll_recv(context).map(|chunk| match chunk {
            Some(chunk) => {
                self.left = self.left.saturating_sub(chunk.len() as u64);
                Some(Ok(Frame::data(chunk)))
            }
            None => Some(Err(io::Error::other("it was given up"))),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
