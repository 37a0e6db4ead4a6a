//! Connections: accepted as far as there is room for them, each with its times.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use cipherscore_common::GatewayStore;
use cipherscore_common::broker::Broker;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use crate::shared::Shared;

/// How long the beginning of TLS may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a connection that are buffered each way.
const BUFFER_BYTES: usize = 64 << 10;
/// After what time a new connection is tried again where the system has no room for one.
const NO_ROOM_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections until the gateway stops, and answers them until they end.
pub(crate) async fn serve<B: Broker, S: GatewayStore>(
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
    router: Router,
    shared: Arc<Shared<B, S>>,
) {
    let most = usize::try_from(shared.settings.max_connections.get()).unwrap_or(usize::MAX);
    let room = Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
    loop {
        // Whoever comes while there is no room waits before the door.
        let accepted = async {
            let place = Arc::clone(&room).acquire_owned().await;
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            accepted = accepted => accepted,
            () = shared.stop.cancelled() => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(reason = %error, "no connection is accepted");
                sleep(NO_ROOM_PAUSE).await;
                continue;
            }
        };
        let (router, acceptor) = (router.clone(), acceptor.clone());
        let inner = Arc::clone(&shared);
        shared.tasks.spawn(async move {
            let connected = inner.metrics.connected();
            if let Err(error) = connection(stream, acceptor, router, &inner).await {
                debug!(reason = %error, "a connection ended");
            }
            drop((connected, place));
        });
    }
}

async fn connection<B: Broker, S: GatewayStore>(
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    router: Router,
    shared: &Shared<B, S>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = TimeoutStream::new(stream);
    // Who does not read what it asked for is not waited for.
    stream.set_write_timeout(Some(shared.settings.write_timeout));
    let stream = Box::pin(stream);
    match acceptor {
        None => answer(stream, router, shared).await,
        Some(acceptor) => {
            let stream = timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await??;
            answer(stream, router, shared).await
        }
    }
}

async fn answer<B: Broker, S: GatewayStore>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    shared: &Shared<B, S>,
) -> io::Result<()> {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new());
    builder.header_read_timeout(shared.settings.header_timeout);
    builder.max_buf_size(BUFFER_BYTES);
    let service = TowerToHyperService::new(router);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let answered = tokio::select! {
        answered = connection.as_mut() => answered,
        () = shared.stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    answered.map_err(io::Error::other)
}
