//! Section `[http]`: how events come over HTTP, and how they are answered.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::time::Duration;

use bytesize::ByteSize;
use cipherscore_common::Digest;
use serde::Deserialize;

/// Where it listens unless it is told otherwise: beside `health.listen`.
const PORT: u16 = 8487;

/// Section `[http]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpSection {
    /// Where it listens.
    pub listen: SocketAddr,
    /// SHA-256 of each bearer token that is let in; none where everybody is.
    pub tokens: Vec<Digest>,
    /// Whether everybody who reaches another address than a loopback one is let in.
    pub allow_anyone: bool,
    /// How long whoever asks waits, unless the header `cs-wait` says it.
    #[serde(with = "humantime_serde")]
    pub wait: Duration,
    /// How long the body of a request may take to arrive.
    #[serde(with = "humantime_serde")]
    pub body_timeout: Duration,
    /// Largest body of a request.
    pub max_body: ByteSize,
    /// Events of a request, at most.
    pub max_events: NonZeroUsize,
    /// Connections at a time, at most.
    pub max_connections: NonZeroUsize,
    /// Memory of requests that are not answered.
    pub memory: ByteSize,
    /// Memory of scores that are kept for events that come again.
    pub remembered: ByteSize,
}

impl Default for HttpSection {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)),
            tokens: Vec::new(),
            allow_anyone: false,
            wait: Duration::from_secs(30),
            body_timeout: Duration::from_secs(10),
            max_body: ByteSize::mib(4),
            max_events: NonZeroUsize::MIN.saturating_add(9_999),
            max_connections: NonZeroUsize::MIN.saturating_add(1_023),
            memory: ByteSize::mib(128),
            remembered: ByteSize::mib(32),
        }
    }
}

impl HttpSection {
    /// Memory of scores that are kept, in bytes.
    pub(in crate::bridge) fn remembered_bytes(&self) -> usize {
        usize::try_from(self.remembered.as_u64()).unwrap_or(usize::MAX)
    }

    /// Largest body of a request, in bytes.
    pub(in crate::bridge) fn max_body_bytes(&self) -> usize {
        usize::try_from(self.max_body.as_u64()).unwrap_or(usize::MAX)
    }
}
