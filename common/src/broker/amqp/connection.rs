//! A connection that is made when it is needed, and made anew when it broke.

use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex as SyncMutex, PoisonError};
use std::time::Duration;

use lapin::tcp::AsyncTcpStream;
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{Channel, ConnectionProperties, ErrorKind};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::config::AmqpConfig;
use crate::broker::BrokerError;

const REPLY_SUCCESS: u16 = 200;

// Of AMQP's and RabbitMQ's reply codes, those after which the same may succeed later.
const CONNECTION_FORCED: u16 = 320;
const RESOURCE_ERROR: u16 = 506;
const INTERNAL_ERROR: u16 = 541;
pub(super) const NOT_FOUND: u16 = 404;
pub(super) const PRECONDITION_FAILED: u16 = 406;

/// The error that lapin's is to us.
pub(super) fn broker_error(server: &str, error: &lapin::Error) -> BrokerError {
    let (refused, reason) = match error.kind() {
        ErrorKind::ProtocolError(said) => {
            let reason = said.get_message().to_string();
            let temporary = matches!(said.get_id(), CONNECTION_FORCED | RESOURCE_ERROR | INTERNAL_ERROR)
                    // A queue whose node is away is "not found" too.
                    || reason.contains("down or inaccessible");
            (!temporary, reason)
        }
        // TLS: a certificate that is missing or of another authority, or no TLS at all.
        ErrorKind::IOError(error) => {
            (error.kind() == io::ErrorKind::InvalidData, error.to_string())
        }
        ErrorKind::AuthProviderError(_) | ErrorKind::InvalidProtocolVersion(_) => {
            (true, error.to_string())
        }
        _ => (false, error.to_string()),
    };
    let server = server.to_owned();
    match refused {
        true => BrokerError::Refused { server, reason },
        false => BrokerError::Unavailable { server, reason },
    }
}

/// The reply code of an error that the broker sent.
pub(super) fn reply_code(error: &lapin::Error) -> Option<u16> {
    match error.kind() {
        ErrorKind::ProtocolError(said) => Some(said.get_id()),
        _ => None,
    }
}

/// A connection that was up at least once.
pub(super) struct Link {
    connection: lapin::Connection,
    socket: Socket,
    /// Channels with confirms that nobody publishes on.
    pub(super) idle: SyncMutex<Vec<Channel>>,
}

/// A second handle of the connection's socket. lapin ends a connection by asking the broker; one
/// that does not answer, or that reads nothing while memory is short, keeps lapin's thread and
/// its queue of frames alive. Shutting the socket down ends them at once.
#[derive(Clone, Default)]
struct Socket(Arc<SyncMutex<Option<std::net::TcpStream>>>);

impl Socket {
    fn keep(&self, socket: &impl AsFd) -> io::Result<()> {
        let copy = socket.as_fd().try_clone_to_owned()?;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(copy.into());
        Ok(())
    }

    fn shut_down(&self) {
        if let Some(socket) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // It fails when the connection is gone already.
            socket.shutdown(Shutdown::Both).ok();
        }
    }
}

/// Ends the socket unless the handshake succeeds, also when nobody waits for it any more.
struct HandshakeGuard(Option<Socket>);

impl Drop for HandshakeGuard {
    fn drop(&mut self) {
        if let Some(socket) = self.0.take() {
            socket.shut_down();
        }
    }
}

impl Link {
    async fn open(config: &AmqpConfig, purpose: &str) -> Result<Self, BrokerError> {
        let runtime = lapin::runtime::default_runtime()
            .map_err(|error| broker_error(&config.server(), &error))?;
        let name = format!("{} ({purpose})", config.name);
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let socket = Socket::default();
        let (kept, tls, limit) = (socket.clone(), config.tls.clone(), config.connect_timeout);
        let reactor = runtime.clone();
        // lapin runs this on a thread of its own, which a timeout outside would leave behind.
        let connect = async move |uri: AMQPUri, _| {
            let connecting = async {
                let host = uri.authority.host.as_str();
                let addresses = tokio::net::lookup_host((host, uri.authority.port)).await?;
                let addresses: Vec<_> = addresses.collect();
                let stream = AsyncTcpStream::connect(&reactor, addresses).await?;
                if let AsyncTcpStream::Plain(plain) = &stream {
                    plain.get_ref().set_nodelay(true)?;
                    kept.keep(plain.get_ref())?;
                }
                if uri.scheme == AMQPScheme::AMQP {
                    return Ok(stream);
                }
                let stream = stream.into_tls(host, tls.as_ref()).await?;
                // Built without its feature, lapin would go on without TLS: this names a variant
                // that is there only with it.
                match stream {
                    AsyncTcpStream::Rustls(_) => Ok(stream),
                    _ => Err(io::Error::new(io::ErrorKind::InvalidData, "there is no TLS")),
                }
            };
            let connected: io::Result<_> = match timeout(limit, connecting).await {
                Ok(connected) => connected,
                Err(_) => Err(io::ErrorKind::TimedOut.into()),
            };
            connected.map_err(lapin::Error::from)
        };
        let mut guard = HandshakeGuard(Some(socket.clone()));
        let connecting =
            lapin::Connection::connector(config.uri.clone(), runtime, connect, properties);
        let connection = match timeout(config.connect_timeout, connecting).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return Err(broker_error(&config.server(), &error)),
            Err(_) => {
                let reason = format!("no connection within {:?}", config.connect_timeout);
                return Err(BrokerError::Unavailable { server: config.server(), reason });
            }
        };
        guard.0 = None;
        Ok(Self { connection, socket, idle: SyncMutex::default() })
    }

    pub(super) fn is_up(&self) -> bool {
        self.connection.status().connected()
    }

    /// Whether the broker takes no messages for now.
    pub(super) fn is_blocked(&self) -> bool {
        self.connection.status().blocked()
    }

    pub(super) async fn channel(&self) -> lapin::Result<Channel> {
        self.connection.create_channel().await
    }

    /// Ends it without asking: everybody who waits for something on it gets an error.
    pub(super) fn kill(&self) {
        self.socket.shut_down();
    }

    async fn close(&self, limit: Duration) {
        let closing = self.connection.close(REPLY_SUCCESS, "OK".into());
        if timeout(limit, closing).await.is_err() {
            self.kill();
        }
    }
}

/// The place of a connection.
pub(super) struct Slot {
    pub(super) config: Arc<AmqpConfig>,
    purpose: &'static str,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    link: Option<Arc<Link>>,
    failed: Option<(Instant, BrokerError)>,
}

impl Slot {
    pub(super) fn new(config: Arc<AmqpConfig>, purpose: &'static str) -> Self {
        Self { config, purpose, state: Mutex::default() }
    }

    /// The connection, made when there is none or a broken one. Who waited while somebody else
    /// tried in vain gets the same error, and does not try again.
    pub(super) async fn get(&self) -> Result<Arc<Link>, BrokerError> {
        let asked = Instant::now();
        let mut state = self.state.lock().await;
        if let Some(link) = state.link.as_ref().filter(|link| link.is_up()) {
            return Ok(link.clone());
        }
        if let Some((_, error)) = state.failed.as_ref().filter(|(at, _)| *at > asked) {
            return Err(error.clone());
        }
        state.link = None;
        match Link::open(&self.config, self.purpose).await {
            Ok(link) => {
                state.failed = None;
                Ok(state.link.insert(Arc::new(link)).clone())
            }
            Err(error) => {
                state.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// Whether there is a connection on which the broker takes no messages for now. One that is
    /// being made is not blocked.
    pub(super) fn is_blocked(&self) -> bool {
        let state = self.state.try_lock();
        let link = state.as_ref().ok().and_then(|state| state.link.as_ref());
        link.is_some_and(|link| link.is_up() && link.is_blocked())
    }

    /// Waits for an answer on a connection, with a timeout.
    pub(super) async fn answer<T>(
        &self,
        answer: impl Future<Output = lapin::Result<T>>,
    ) -> Result<T, BrokerError> {
        let limit = self.config.confirm_timeout;
        let Ok(answered) = timeout(limit, answer).await else {
            return Err(self.unavailable(format!("no answer within {limit:?}")));
        };
        answered.map_err(|error| broker_error(&self.config.server(), &error))
    }

    pub(super) fn unavailable(&self, reason: impl Into<String>) -> BrokerError {
        BrokerError::Unavailable { server: self.config.server(), reason: reason.into() }
    }

    /// Ends the connection in order.
    pub(super) async fn close(&self, limit: Duration) {
        let link = self.state.lock().await.link.take();
        if let Some(link) = link {
            link.close(limit).await;
        }
    }
}
