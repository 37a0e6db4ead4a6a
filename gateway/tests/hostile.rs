//! Hostile input: each has its answer, memory stays flat, and others are served.

use std::net::SocketAddr;
use std::time::Duration;

use axum::http::StatusCode;
use bytesize::ByteSize;
use cipherscore_common::contract::fixtures::bytes;
use cipherscore_common::{BlobKind, BlobStore as _, Digest};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Fleet, PATIENCE};

/// Connections at a time.
const CONNECTIONS: usize = 1000;
/// How much more memory they may take together: half a MiB each.
const MEMORY: u64 = 512 << 20;

/// Sends this much and no more; returns what is answered until the connection ends.
async fn half_sent(at: SocketAddr, text: &str) -> String {
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A connection that is reset has said what it said.
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// Memory of this process, in which the gateway is.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_slow_or_half_sent_ends_and_leaves_nothing() {
    let fleet = Fleet::start();
    let mut config = fleet.config();
    config.gateway.header_timeout = Duration::from_secs(2);
    config.gateway.body_timeout = Duration::from_secs(2);
    config.limits.max_key_size = ByteSize::mib(4);
    let gateway = fleet.start_gateway(config).await;
    let at = gateway.address;
    let key = Digest::of(b"key");
    let head = format!("PUT /v1/keys/{key} HTTP/1.1\r\nHost: x\r\n");
    let token = format!("Authorization: Bearer {}\r\n", fleet.token);
    let (started, slow) = (
        format!("{head}{token}Content-Length: 3000000\r\n\r\n{}", "x".repeat(2_500_000)),
        format!("{head}{token}Transfer-Encoding: chunked\r\n\r\n5\r\nabc"),
    );
    let large = format!("{head}{token}Content-Length: 99999999999\r\n\r\n");
    let nobody = format!("{head}Content-Length: 9\r\n\r\n");
    let (started, slow, large, nobody, headless, nonsense) = tokio::join!(
        half_sent(at, &started),
        half_sent(at, &slow),
        half_sent(at, &large),
        half_sent(at, &nobody),
        half_sent(at, &head),
        half_sent(at, "\u{1}\u{2}\u{3} hello\r\n\r\n"),
    );
    for answer in [started, slow] {
        assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("too_slow"), "{answer}");
    }
    assert!(large.starts_with("HTTP/1.1 413"), "{large}");
    assert!(nobody.starts_with("HTTP/1.1 401"), "{nobody}");
    assert!(headless.is_empty() || headless.starts_with("HTTP/1.1 408"), "{headless}");
    assert!(nonsense.starts_with("HTTP/1.1 400"), "{nonsense}");
    let store = fleet.store();
    assert!(store.list(&"bank".parse().unwrap(), BlobKind::Key).await.unwrap().is_empty());
    // Nor parts of one.
    let mut redis = redis_keys(&fleet).await;
    redis.retain(|name| name.contains(":chunk:"));
    assert_eq!(redis, [""; 0]);
    let me = fleet.ask(at, "GET", "/v1/me", &[], b"").await.unwrap();
    assert_eq!(me.status, StatusCode::OK);
    gateway.stop().await;
}

/// Names of all keys.
async fn redis_keys(fleet: &Fleet) -> Vec<String> {
    let client = redis::Client::open(fleet.redis.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    redis::cmd("KEYS").arg("*").query_async(&mut connection).await.unwrap()
}

/// Both ends of every connection are files of this process.
fn allow_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_connections_take_little_and_others_are_served() {
    allow_files();
    let fleet = Fleet::start();
    let gateway = fleet.start_gateway(fleet.config()).await;
    let at = gateway.address;
    let before = memory();
    let key = bytes((2 << 20) + 1);
    let path = format!("/v1/keys/{}", Digest::of(&key));
    let put = fleet.ask(at, "PUT", &path, &[], &key).await.unwrap();
    assert_eq!(put.status, StatusCode::CREATED);
    // Each has sent half of a head, or asked and does not read.
    let mut held = Vec::new();
    for number in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(at).await.unwrap();
        let text = match number % 2 {
            0 => "GET /v1/me HTTP/1.1\r\nHost: x\r\n".to_owned(),
            _ => "GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n".repeat(50),
        };
        stream.write_all(text.as_bytes()).await.unwrap();
        held.push(stream);
    }
    let answers = async {
        for _ in 0..20 {
            let me = fleet.ask(at, "GET", "/v1/me", &[], b"").await.unwrap();
            assert_eq!(me.status, StatusCode::OK);
        }
    };
    tokio::time::timeout(PATIENCE, answers).await.unwrap();
    let more = memory().saturating_sub(before);
    assert!(more < MEMORY, "{more} bytes more");
    drop(held);
    gateway.stop().await;
}

/// The broker is away: the caller is told to come again, and the same again is accepted later.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_away_is_said_and_waited_for() {
    let mut fleet = Fleet::start();
    let gateway = fleet.start_gateway(fleet.config()).await;
    let at = gateway.address;
    let worker = fleet.start_worker().await;
    fleet.wait_for_worker(at).await;
    let job = cipherscore_common::JobId::random();
    let (path, said) = (fleet.job_path(job), [("cs-rows", "1")]);
    let rows = fleet.rows(&[1.0]);
    // RabbitMQ 3.10 keeps what it confirmed, and the queue, only some time after a queue was made.
    tokio::time::sleep(Duration::from_secs(2)).await;
    fleet.rabbitmq.kill();
    let away = fleet.ask(at, "PUT", &path, &said, &rows).await.unwrap();
    assert_eq!(
        (away.status, away.code().as_str()),
        (StatusCode::SERVICE_UNAVAILABLE, "unavailable")
    );
    assert!(away.headers.contains_key("retry-after"));
    fleet.rabbitmq.restart().unwrap();
    let published = async {
        while fleet.ask(at, "PUT", &path, &said, &rows).await.unwrap().status
            != StatusCode::ACCEPTED
        {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(PATIENCE, published).await.unwrap();
    let waits = format!("/v1/jobs/{job}?wait=60s");
    let answer = fleet.ask(at, "GET", &waits, &[], b"").await.unwrap();
    assert_eq!(fleet.scores(&answer.body, 1), [1.5]);
    fleet.redis.kill();
    let away = fleet.ask(at, "GET", "/v1/models", &[], b"").await.unwrap();
    assert_eq!(away.status, StatusCode::SERVICE_UNAVAILABLE);
    drop(worker);
    gateway.stop().await;
}
