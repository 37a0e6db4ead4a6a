//! `/livez`, `/readyz` and `/metrics`, for whoever runs the worker, and the question to them.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use cipherscore_common::Store;
use cipherscore_common::broker::Broker;
use cipherscore_common::health::{self, Condition, Health};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use crate::pulse::LONGEST_STEP;
use crate::shared::Shared;
use crate::{exposition, queues};

/// After what time without a sign of life the supervisor counts as dead: it gives one each second.
const LONGEST_SILENCE: Duration = Duration::from_secs(30);
/// How much longer than its own limits a message may be on its way before the outbox counts as
/// stuck.
const SENDING_MARGIN: Duration = Duration::from_secs(60);
/// How long the question may take.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest answer, in bytes.
const MAX_ANSWER_BYTES: u64 = 4096;

/// What `/livez` says.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Liveness {
    /// Whether nothing is stuck.
    alive: bool,
    /// What is stuck: `supervisor`, `compute`, `outbox`.
    stuck: Vec<String>,
    /// For how long the supervisor has given no sign of life, in seconds.
    supervisor_silent_seconds: f64,
    /// For how long no computation has got further while one runs, in seconds.
    compute_silent_seconds: f64,
    /// For how long the oldest message is on its way to the broker, in seconds.
    outbox_silent_seconds: f64,
}

/// What `/readyz` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    /// Whether all of it is well.
    pub ready: bool,
    /// What is not: `consumer`, `store`, `models`.
    pub missing: Vec<String>,
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
    let looked = Arc::clone(&shared);
    tokio::select! {
        ended = health::serve(listener, shared) => ended,
        () = queues::look(looked) => Ok(()),
    }
}

impl<B: Broker, S: Store> Health for Shared<B, S> {
    fn liveness(&self) -> Condition {
        let liveness = liveness(self);
        Condition::new(liveness.alive, &liveness)
    }

    fn readiness(&self) -> Condition {
        let readiness = readiness(self);
        Condition::new(readiness.ready, &readiness)
    }

    fn metrics(&self) -> String {
        exposition::render(self)
    }
}

fn liveness<B: Broker, S: Store>(shared: &Shared<B, S>) -> Liveness {
    // Connecting and confirming, each within its limit; then it is given up, and tried again.
    let longest_sending = shared.confirm_timeout * 2 + SENDING_MARGIN;
    let silences = [
        shared.services.since_tick(),
        shared.pools.silence(),
        shared.sending.oldest().unwrap_or_default(),
    ];
    judge(silences, longest_sending)
}

/// Of supervisor, compute and outbox: for how long each has been silent.
fn judge([supervisor, compute, outbox]: [Duration; 3], longest_sending: Duration) -> Liveness {
    let stuck = names([
        ("supervisor", supervisor >= LONGEST_SILENCE),
        ("compute", compute >= LONGEST_STEP),
        ("outbox", outbox >= longest_sending),
    ]);
    Liveness {
        alive: stuck.is_empty(),
        stuck,
        supervisor_silent_seconds: supervisor.as_secs_f64(),
        compute_silent_seconds: compute.as_secs_f64(),
        outbox_silent_seconds: outbox.as_secs_f64(),
    }
}

fn readiness<B: Broker, S: Store>(shared: &Shared<B, S>) -> Readiness {
    let consuming = shared.services.is_consuming();
    let store = shared.services.does_store_answer();
    let models = shared.models().ids().count();
    let missing = names([("consumer", !consuming), ("store", !store), ("models", models == 0)]);
    Readiness { ready: missing.is_empty(), missing, consuming, store, models }
}

/// The names of those that are so.
fn names<const N: usize>(all: [(&str, bool); N]) -> Vec<String> {
    all.into_iter().filter(|(_, is)| *is).map(|(name, _)| name.to_owned()).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stuck_is_named() {
        let sending = Duration::from_secs(80);
        let well = [LONGEST_SILENCE, LONGEST_STEP, sending].map(|limit| limit / 2);
        assert!(judge(well, sending).alive);
        for (index, name) in ["supervisor", "compute", "outbox"].into_iter().enumerate() {
            let mut silences = well;
            silences[index] *= 2;
            let liveness = judge(silences, sending);
            assert_eq!((liveness.alive, liveness.stuck), (false, vec![name.to_owned()]));
        }
    }
}
