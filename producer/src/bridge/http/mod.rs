//! Events over HTTP: whoever asks for scores waits for them, and is answered.
//!
//! `POST /score` takes one event or many. A request is taken when all of it is here, is known to be of
//! somebody who may ask, and has memory; then each of its events goes the way that any does. It is answered
//! when all of them are settled, or when whoever asked wants to wait no longer.

mod answers;
mod body;
mod memory;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use cipherscore_common::Digest;
use cipherscore_common::broker::{Settled, Settling};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{AUTHORIZATION, HeaderMap};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use subtle::ConstantTimeEq as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tracing::warn;

use self::answers::Problem;
use self::body::BodyForm;
use self::memory::{Memory, Room};
use super::record::{
    Arrival, Claim, DeadLetterSink, DeadReason, EndError, Ended, EventSource, FromSource, Record,
    ScoreSink, Waiting,
};
use super::settings::HttpSection;
use super::state::BridgeState;

/// Where scores are asked for.
const PATH: &str = "/score";
/// Header that says how long whoever asks waits, as text such as `250ms`.
const WAIT_HEADER: &str = "cs-wait";
/// Longest wait that may be asked for.
const LONGEST_WAIT: Duration = Duration::from_secs(60 * 60);
/// Longest head of a request, in bytes.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// How long a head may take to arrive, and a connection may wait for its next request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take to read an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Pause after a connection that the system does not give us.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is sent to whoever asks.
type Answer = Response<Full<Bytes>>;

/// An event of a request, until the bridge takes it.
struct Queued {
    record: Record,
    asker: Asker,
}

/// Who waits for a score.
struct Asker {
    answer: oneshot::Sender<Ended>,
    /// Of its request.
    _room: Arc<Room>,
}

impl Claim for Asker {
    /// Whoever has gone, or waits no longer, asks again, if at all.
    fn settle(self: Box<Self>, ended: &Ended) -> Settling {
        let told = match self.answer.send(ended.clone()) {
            Ok(()) => Settled::Told,
            Err(_) => Settled::ComesAgain,
        };
        Box::pin(std::future::ready(Ok(told)))
    }

    fn wants_score(&self) -> bool {
        true
    }
}

/// Events of whoever asks for their scores over HTTP.
pub struct HttpSource {
    queued: mpsc::UnboundedReceiver<Queued>,
    stop: watch::Sender<bool>,
    /// Ends with this.
    server: JoinSet<()>,
    address: SocketAddr,
}

impl HttpSource {
    /// Listens from now on; connections are those of the runtime in which this is called.
    ///
    /// # Errors
    /// An address that cannot be had, or would be open to everybody; bounds that do not fit each other.
    pub async fn open(section: &HttpSection, state: &Arc<BridgeState>) -> Result<Self, String> {
        let is_closed = section.listen.ip().is_loopback() || !section.tokens.is_empty();
        if !is_closed && !section.allow_anyone {
            let address = section.listen;
            return Err(format!(
                "http.listen, {address}, can be reached from elsewhere: name http.tokens, or say \
                 http.allow_anyone where something else keeps strangers away"
            ));
        }
        let memory = Memory::new(section)?;
        let in_listen = |error| format!("http.listen, {}: {error}", section.listen);
        let listener = TcpListener::bind(section.listen).await.map_err(in_listen)?;
        let address = listener.local_addr().map_err(in_listen)?;
        let (queue, queued) = mpsc::unbounded_channel();
        let (stop, stopped) = watch::channel(false);
        let (section, state) = (section.clone(), Arc::clone(state));
        let server = Arc::new(Server { section, memory, queue, stopped, state });
        let mut tasks = JoinSet::new();
        tasks.spawn(server.serve(listener));
        Ok(Self { queued, stop, server: tasks, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next event that somebody still waits for.
    async fn take(&mut self) -> Result<FromSource, EndError> {
        loop {
            let Some(Queued { record, asker }) = self.queued.recv().await else {
                return Err(EndError::Gone("nothing listens any more".into()));
            };
            if !asker.answer.is_closed() {
                return Ok(FromSource::Event(Arrival { record, claim: Box::new(asker) }));
            }
        }
    }
}

impl EventSource for HttpSource {
    fn next(&mut self) -> Waiting<'_, Result<FromSource, EndError>> {
        Box::pin(self.take())
    }

    fn close(&mut self) -> Waiting<'_, ()> {
        Box::pin(async move {
            self.stop.send_replace(true);
            self.queued.close();
            // Whoever waits for what is not begun is told so.
            while self.queued.try_recv().is_ok() {}
            while self.server.join_next().await.is_some() {}
        })
    }
}

/// Scores, and reasons why there are none, go to whoever asked, and nowhere else.
pub struct AnswerAlone;

impl ScoreSink for AnswerAlone {
    fn put<'a>(&'a self, _: &'a Record) -> Waiting<'a, Result<(), EndError>> {
        Box::pin(async { Ok(()) })
    }
}

impl DeadLetterSink for AnswerAlone {
    fn keep<'a>(&'a self, _: &'a Record, _: &'a DeadReason) -> Waiting<'a, Result<(), EndError>> {
        Box::pin(async { Ok(()) })
    }
}

/// What all connections share.
struct Server {
    section: HttpSection,
    memory: Memory,
    /// Bounded by the memory that its events hold.
    queue: mpsc::UnboundedSender<Queued>,
    stopped: watch::Receiver<bool>,
    state: Arc<BridgeState>,
}

impl Server {
    /// Answers until it is stopped, and then what was asked before.
    async fn serve(self: Arc<Self>, listener: TcpListener) {
        let places = Arc::new(Semaphore::new(self.section.max_connections.get()));
        let mut connections = JoinSet::new();
        loop {
            let accepted = async {
                let place = Arc::clone(&places).acquire_owned().await;
                (listener.accept().await, place)
            };
            tokio::select! {
                biased;
                () = stopped(self.stopped.clone()) => break,
                Some(_) = connections.join_next() => {}
                accepted = accepted => match accepted {
                    // The semaphore is never closed.
                    (Ok((stream, _)), Ok(place)) => {
                        _ = connections.spawn(Arc::clone(&self).connection(stream, place));
                    }
                    (Err(error), _) => {
                        warn!(%error, "a connection was not accepted");
                        sleep(ACCEPT_PAUSE).await;
                    }
                    (_, Err(_)) => return,
                }
            }
        }
        drop(listener);
        while connections.join_next().await.is_some() {}
    }

    /// Each state of a connection has an end: the head, the body, the wait for scores, the answer.
    async fn connection(self: Arc<Self>, stream: TcpStream, place: OwnedSemaphorePermit) {
        // An answer is whole when it is written; without this it is only slower.
        _ = stream.set_nodelay(true);
        let (idle, idles) = watch::channel(Some(Instant::now()));
        let server = Arc::clone(&self);
        let service = service_fn(move |request| {
            let (server, idle) = (Arc::clone(&server), idle.clone());
            async move {
                idle.send_replace(None);
                let answer = server.answer(request).await;
                idle.send_replace(Some(Instant::now()));
                Ok::<_, Infallible>(answer)
            }
        });
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
        builder.max_buf_size(MAX_HEAD_BYTES);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        tokio::select! {
            // Errors are the client's: it went away, or does not speak HTTP.
            _ = connection.as_mut() => return,
            () = stuck(idles.clone()) => return,
            () = stopped(self.stopped.clone()) => connection.as_mut().graceful_shutdown(),
        }
        tokio::select! {
            _ = connection => {}
            () = stuck(idles) => {}
        }
        drop(place);
    }

    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let begun = Instant::now();
        let answer = self.scores(request, begun).await;
        let answer = answer.unwrap_or_else(|problem| problem.answer());
        self.state.meters().request(answer.status().as_u16());
        answer
    }

    async fn scores(&self, request: Request<Incoming>, begun: Instant) -> Result<Answer, Problem> {
        let (head, body) = request.into_parts();
        self.admit(&head)?;
        let form = BodyForm::of(&head.headers)?;
        let until = begun + self.wait(&head.headers)?;
        let max_body = self.section.max_body_bytes();
        let room = self.memory.for_body(body.size_hint().upper())?;
        let whole = timeout(self.section.body_timeout, whole(body, max_body)).await;
        let bytes = whole.map_err(|_| Problem::slow(self.section.body_timeout))??;
        let (form, events) = form.events(&head.headers, &bytes, self.section.max_events.get())?;
        let room = Arc::new(self.memory.for_events(room, bytes.len(), events.len())?);
        drop(bytes);
        let waiting: Result<Vec<_>, _> =
            events.into_iter().map(|record| self.ask(record, &room)).collect();
        let mut all = Vec::new();
        for answered in waiting? {
            all.push(match timeout_at(until, answered).await {
                Ok(Ok(ended)) => Ok(ended),
                // The bridge ends with the event unsettled.
                Ok(Err(_)) => Err(Problem::stopping()),
                Err(_) => Err(Problem::late()),
            });
        }
        Ok(form.answer(all, room))
    }

    /// Who may ask, and for what.
    fn admit(&self, head: &Parts) -> Result<(), Problem> {
        if !self.is_known(&head.headers) {
            return Err(Problem::unauthorized());
        }
        match (head.uri.path() == PATH, head.method == Method::POST) {
            (true, true) if *self.stopped.borrow() => Err(Problem::stopping()),
            (true, true) => Ok(()),
            (true, false) => Err(Problem::not_allowed()),
            (false, _) => Err(Problem::not_found()),
        }
    }

    fn is_known(&self, headers: &HeaderMap) -> bool {
        if self.section.tokens.is_empty() {
            return true;
        }
        let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = given.and_then(|given| given.split_once(' '));
        let Some((_, token)) = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        else {
            return false;
        };
        let given = Digest::of(token.trim().as_bytes());
        // All of them, whichever it is.
        let is_same = |known: &Digest| bool::from(known.to_bytes().ct_eq(&given.to_bytes()));
        self.section.tokens.iter().fold(false, |is_known, known| is_known | is_same(known))
    }

    fn wait(&self, headers: &HeaderMap) -> Result<Duration, Problem> {
        let Some(value) = headers.get(WAIT_HEADER) else { return Ok(self.section.wait) };
        let wait = value.to_str().ok().and_then(|text| humantime::parse_duration(text).ok());
        wait.filter(|wait| *wait <= LONGEST_WAIT).ok_or_else(|| {
            Problem::malformed(format!("{WAIT_HEADER} is a time such as 250ms, of at most 1h"))
        })
    }

    /// Has an event scored.
    fn ask(&self, record: Record, room: &Arc<Room>) -> Result<oneshot::Receiver<Ended>, Problem> {
        let (answer, answered) = oneshot::channel();
        let asker = Asker { answer, _room: Arc::clone(room) };
        let queued = self.queue.send(Queued { record, asker });
        queued.map(|()| answered).map_err(|_| Problem::stopping())
    }
}

/// The body of a request, if it is not too large.
async fn whole(mut body: Incoming, max_bytes: usize) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Problem::malformed("the body ends too early".into()))?;
        let Ok(data) = frame.into_data() else { continue };
        if data.len() > max_bytes - bytes.len() {
            return Err(Problem::large_body(max_bytes));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

/// Until it is stopped.
async fn stopped(mut stopped: watch::Receiver<bool>) {
    // The source is gone, or says so.
    _ = stopped.wait_for(|is_stopped| *is_stopped).await;
}

/// Until a client has neither read its answer nor asked again for too long.
async fn stuck(mut idles: watch::Receiver<Option<Instant>>) {
    loop {
        let since = *idles.borrow_and_update();
        let changed = async {
            if idles.changed().await.is_err() {
                // Its connection ends by itself.
                std::future::pending::<()>().await;
            }
        };
        match since {
            None => changed.await,
            Some(since) => tokio::select! {
                () = sleep_until(since + ANSWER_TIMEOUT) => return,
                () = changed => {}
            },
        }
    }
}
