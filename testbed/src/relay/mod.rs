//! A network that can be broken: TCP connections to a server, passed on by this process.

mod methods;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;

pub use self::methods::AmqpMethod;
use self::methods::Methods;
use crate::{TestbedError, io_error};

/// Bytes that are passed on at a time.
const BUFFER_BYTES: usize = 16 << 10;
/// A budget that no test uses up.
const WITHOUT_END: i64 = i64::MAX / 2;

/// Passes TCP connections on to a server, until it is told to do something else. It runs on a
/// thread of its own, and ends with its value; what is connected then is cut.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    orders: watch::Sender<Orders>,
    counters: Arc<Counters>,
    thread: Option<JoinHandle<()>>,
}

/// What the connections have to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Orders {
    target: SocketAddr,
    mode: Mode,
    /// Before anything is passed on, in either direction.
    delay: Duration,
    /// Connections that were made under another number end.
    generation: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Pass,
    /// Everything stays open, and nothing arrives.
    Freeze,
    /// The server's ends are closed, the clients' are not, and nothing arrives.
    HalfOpen,
    /// Nobody gets in.
    Refuse,
    End,
}

#[derive(Debug)]
struct Counters {
    /// Bytes from clients that may still pass, before their connection is cut.
    budget: AtomicI64,
    open: AtomicUsize,
    /// Connections that the budget has cut.
    cut: AtomicUsize,
    /// Which answer is to be held back, and for how long; taken by the connection that asks first.
    hold: Mutex<Option<(AmqpMethod, Duration)>>,
}

impl Relay {
    /// Listens on a free port of the loopback interface.
    pub fn start(target: SocketAddr) -> Result<Self, TestbedError> {
        let listen = || {
            let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            listener.set_nonblocking(true)?;
            Ok((listener.local_addr()?, listener))
        };
        let (address, listener) = listen().map_err(io_error("listening for a relay"))?;
        let orders = Orders { target, mode: Mode::Pass, delay: Duration::ZERO, generation: 0 };
        let (orders, received) = watch::channel(orders);
        let budget = AtomicI64::new(WITHOUT_END);
        let (open, cut) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let counters = Counters { budget, open, cut, hold: Mutex::new(None) };
        let counters = Arc::new(counters);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(io_error("starting a relay"))?;
        let shared = counters.clone();
        let thread = std::thread::Builder::new().name("relay".into()).spawn(move || {
            // An error of the listener shows as a server that does not answer.
            let _ = runtime.block_on(listen_on(listener, received, shared));
        });
        let thread = thread.map_err(io_error("starting a relay"))?;
        Ok(Self { address, orders, counters, thread: Some(thread) })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.counters.open.load(Ordering::SeqCst)
    }

    /// Ends all connections at once, in the middle of whatever they were saying. New ones are let
    /// in. Returns how many there were.
    pub fn cut(&self) -> usize {
        let open = self.connections();
        self.orders.send_modify(|orders| orders.generation += 1);
        open
    }

    /// Lets so many more bytes of the clients pass, all together, and cuts the connection that
    /// sends the last one. Once; afterwards everything passes again.
    pub fn cut_after(&self, bytes: u32) {
        self.counters.budget.store(bytes.into(), Ordering::SeqCst);
    }

    /// How many connections [`cut_after`](Self::cut_after) has ended.
    pub fn cut_midway(&self) -> usize {
        self.counters.cut.load(Ordering::SeqCst)
    }

    /// Holds everything back this long, in both directions.
    pub fn delay(&self, delay: Duration) {
        self.orders.send_modify(|orders| orders.delay = delay);
    }

    /// Holds back the answer to the next such method, with everything else that the server says on
    /// that connection, for so long. Once; other connections are not touched.
    pub fn hold_answer(&self, method: AmqpMethod, time: Duration) {
        *self.counters.hold() = Some((method, time));
    }

    /// Whether somebody asked what [`hold_answer`](Self::hold_answer) waits for.
    pub fn has_held(&self) -> bool {
        self.counters.hold().is_none()
    }

    /// Keeps all connections open, lets new ones in, and passes nothing on: a network that drops
    /// every packet.
    pub fn freeze(&self) {
        self.set(Mode::Freeze);
    }

    /// Closes the connections towards the server, and leaves the clients in the belief that theirs
    /// are open: a server's machine that lost its power.
    pub fn half_open(&self) {
        self.set(Mode::HalfOpen);
    }

    /// Ends all connections and lets no new ones in.
    pub fn refuse(&self) {
        self.set(Mode::Refuse);
        self.cut();
    }

    /// Passes everything on again. What was half open is cut.
    pub fn resume(&self) {
        self.set(Mode::Pass);
    }

    fn set(&self, mode: Mode) {
        self.orders.send_modify(|orders| orders.mode = mode);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.set(Mode::End);
        if let Some(thread) = self.thread.take() {
            // It has nothing to tell.
            let _ = thread.join();
        }
    }
}

async fn listen_on(
    listener: std::net::TcpListener,
    mut orders: watch::Receiver<Orders>,
    counters: Arc<Counters>,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let arrived = tokio::select! {
            arrived = listener.accept() => arrived,
            ended = orders.wait_for(|orders| orders.mode == Mode::End) => {
                drop(ended);
                return Ok(());
            }
        };
        let Ok((client, _)) = arrived else { continue };
        if orders.borrow().mode == Mode::Refuse {
            continue;
        }
        tokio::spawn(connection(client, orders.clone(), counters.clone()));
    }
}

/// One connection, from its beginning to its end, whoever ends it.
async fn connection(
    client: TcpStream,
    mut orders: watch::Receiver<Orders>,
    counters: Arc<Counters>,
) {
    let generation = orders.borrow().generation;
    let open = Open::new(&counters);
    let mut watched = orders.clone();
    let over = watched.wait_for(|orders| orders.generation != generation);
    let passed = async {
        // A frozen network answers no handshake either.
        if orders.wait_for(|orders| orders.mode == Mode::Pass).await.is_err() {
            return;
        }
        let target = orders.borrow().target;
        let Ok(server) = TcpStream::connect(target).await else { return };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        pass(client, server, orders, &counters).await;
    };
    tokio::select! {
        _ = over => {}
        () = passed => {}
    }
    drop(open);
}

/// Passes bytes in both directions until either side ends, or the server's end is taken away: then
/// the client's stays open until it is cut.
async fn pass(
    client: TcpStream,
    server: TcpStream,
    orders: watch::Receiver<Orders>,
    counters: &Counters,
) {
    let (mut client_reads, mut client_writes) = client.into_split();
    let (server_reads, server_writes) = server.into_split();
    let mut watched = orders.clone();
    let (held, until) = watch::channel(Instant::now());
    let half_open = {
        let up = Direction::Up { counters, methods: Methods::new(), held };
        let up = pump(&mut client_reads, server_writes, orders.clone(), up);
        let down = pump(server_reads, &mut client_writes, orders.clone(), Direction::Down(until));
        tokio::select! {
            () = up => false,
            () = down => false,
            ordered = watched.wait_for(|orders| orders.mode == Mode::HalfOpen) => ordered.is_ok(),
        }
    };
    if half_open {
        let _ = watched.wait_for(|orders| orders.mode != Mode::HalfOpen).await;
    }
}

/// What is special about bytes that go one way.
enum Direction<'a> {
    /// From the client: counted, and searched for a question whose answer is held back.
    Up { counters: &'a Counters, methods: Methods, held: watch::Sender<Instant> },
    /// From the server: held back until then.
    Down(watch::Receiver<Instant>),
}

impl Direction<'_> {
    /// How many of these bytes may pass, once they may.
    async fn admit(&mut self, bytes: &[u8]) -> usize {
        match self {
            Self::Up { counters, methods, held } => {
                if let Some(time) = counters.holds(methods, bytes) {
                    held.send_replace(Instant::now() + time);
                }
                counters.allow(bytes.len())
            }
            Self::Down(until) => {
                let until = *until.borrow();
                tokio::time::sleep_until(until).await;
                bytes.len()
            }
        }
    }
}

/// Passes bytes in one direction. The end of one direction is the end of both: neither AMQP nor
/// Redis goes on after it.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut orders: watch::Receiver<Orders>,
    mut direction: Direction<'_>,
) {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else { return };
        let delay = orders.borrow().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if orders.wait_for(|orders| orders.mode == Mode::Pass).await.is_err() {
            return;
        }
        let allowed = direction.admit(&buffer[..read]).await;
        if to.write_all(&buffer[..allowed]).await.is_err() || allowed < read {
            return;
        }
    }
}

impl Counters {
    /// How many of these bytes may pass. Fewer than all: their connection ends.
    fn allow(&self, bytes: usize) -> usize {
        let wanted = i64::try_from(bytes).unwrap_or(i64::MAX);
        let left = self.budget.fetch_sub(wanted, Ordering::SeqCst);
        if left >= wanted {
            return bytes;
        }
        self.budget.store(WITHOUT_END, Ordering::SeqCst);
        self.cut.fetch_add(1, Ordering::SeqCst);
        usize::try_from(left).unwrap_or(0)
    }

    /// For how long the server's answer is held back, if these bytes ask for it.
    fn holds(&self, methods: &mut Methods, bytes: &[u8]) -> Option<Duration> {
        let mut hold = self.hold();
        let found = methods.contain(bytes, hold.map(|(method, _)| method));
        if found { hold.take().map(|(_, time)| time) } else { None }
    }

    fn hold(&self) -> MutexGuard<'_, Option<(AmqpMethod, Duration)>> {
        self.hold.lock()
    }
}

/// Counts a connection as open while it is there.
struct Open<'a>(&'a Counters);

impl<'a> Open<'a> {
    fn new(counters: &'a Counters) -> Self {
        counters.open.fetch_add(1, Ordering::SeqCst);
        Self(counters)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}
