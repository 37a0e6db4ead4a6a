//! A connection that is made when it is needed, and made anew when it broke.

use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lapin::tcp::AsyncTcpStream;
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{Channel, ConnectionProperties, ErrorKind};
use parking_lot::Mutex as SyncMutex;
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
    /// Whether this side ended it, which lapin notices later.
    killed: AtomicBool,
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
        *self.0.lock() = Some(copy.into());
        Ok(())
    }

    fn shut_down(&self) {
        if let Some(socket) = self.0.lock().take() {
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

/// Something that the broker was asked for and has not answered. **Whoever gives up waiting ends the
/// connection**, by a timeout or by dropping the future: the broker may still do it when nobody is
/// there to see. A consumer that comes late takes messages that nobody settles; a message that is
/// half written keeps its channel from being closed; an answer that comes to a closed channel ends
/// the connection anyway, at another time. With the connection all of it is gone, at the broker as
/// well, and what was unsettled comes again.
///
/// Every wait for an answer goes through [`Slot::answer`] or holds one of these. The only one that
/// lives longer is the cancelling of a consumer, which is still read until its subscription ends.
pub(super) struct Begun(Option<Arc<Link>>);

impl Begun {
    pub(super) fn on(link: &Arc<Link>) -> Self {
        Self(Some(link.clone()))
    }

    /// The answer is here.
    pub(super) fn answered(mut self) {
        self.0 = None;
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if let Some(link) = &self.0 {
            link.kill();
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
        let (killed, idle) = (AtomicBool::new(false), SyncMutex::default());
        Ok(Self { connection, socket, killed, idle })
    }

    pub(super) fn is_up(&self) -> bool {
        !self.is_killed() && self.connection.status().connected()
    }

    fn is_killed(&self) -> bool {
        self.killed.load(Ordering::Relaxed)
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
        self.killed.store(true, Ordering::Relaxed);
        self.socket.shut_down();
    }

    /// What an error of lapin on this connection is to us.
    pub(super) fn error(&self, server: &str, error: &lapin::Error) -> BrokerError {
        match broker_error(server, error) {
            BrokerError::Unavailable { server, .. } if self.is_killed() => {
                let reason = "an answer did not come in time, which ended the connection".into();
                BrokerError::Unavailable { server, reason }
            }
            other => other,
        }
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

    /// Waits for an answer on a connection; after the timeout the connection ends, see [`Begun`].
    pub(super) async fn answer<T>(
        &self,
        link: &Arc<Link>,
        answer: impl Future<Output = lapin::Result<T>>,
    ) -> Result<T, BrokerError> {
        let begun = Begun::on(link);
        let answered = self.answer_in_time(link, answer).await?;
        begun.answered();
        answered
    }

    /// Waits for an answer: within, what it says; without, that there is none in time.
    pub(super) async fn answer_in_time<T>(
        &self,
        link: &Link,
        answer: impl Future<Output = lapin::Result<T>>,
    ) -> Result<Result<T, BrokerError>, BrokerError> {
        let limit = self.config.confirm_timeout;
        match timeout(limit, answer).await {
            Ok(answered) => Ok(answered.map_err(|error| link.error(&self.config.server(), &error))),
            Err(_) => Err(self.unavailable(format!("no answer within {limit:?}"))),
        }
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
