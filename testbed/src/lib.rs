//! Private servers for tests, benchmarks and `cargo xtask demo`: child processes with their own port, folder and
//! password, stopped for certain.
//!
//! A server ends when its value is dropped. It also ends when this process dies without dropping
//! anything, `kill -9` included: a watching shell holds the reading end of a pipe whose writing
//! end only this process has, and kills the server at its end.
//! (`PR_SET_PDEATHSIG` would need unsafe code, and follows the thread that started the server
//! rather than the process.)
//!
//! RabbitMQ runs without `epmd`, Erlang's port mapper, which is one for all nodes of a machine and
//! outlives them. The processes below the server, port programs of Erlang, end with it: dropping
//! waits until they are gone.
//!
//! Programs that are missing are installed where we are root and there is `apt-get`, without
//! starting their services.

mod clock;
mod fresh;
mod install;
mod process;
mod rabbitmq;
mod redis;
mod relay;
mod running;
mod tls;
mod watched;

use std::io;
use std::path::PathBuf;

use thiserror::Error;

pub use clock::Clock;
pub use install::find_or_install;
pub use process::Process;
pub use rabbitmq::{RabbitMq, RabbitMqOptions, User};
pub use redis::{Redis, RedisOptions};
pub use relay::{AmqpMethod, Relay};
pub use running::{AnyRabbitMq, AnyRedis, BROKER_URL, REDIS_URL};
pub use tls::{Certificates, Tls};

/// How much of a log is shown, in characters.
const SHOWN_CHARACTERS: usize = 2000;

/// Why there is no server.
#[derive(Debug, Error)]
pub enum TestbedError {
    /// The program is not installed, and it is not ours to install it.
    #[error(
        "{program} is not installed. Install it (Debian and Ubuntu: apt-get install {package}), \
         or run as root where there is apt-get. Tests that need only a server take one that runs \
         ({BROKER_URL}, {REDIS_URL}); this one needs its own"
    )]
    Missing {
        /// Which program.
        program: &'static str,
        /// Debian's package with it.
        package: &'static str,
    },
    /// Debian's package could not be installed.
    #[error("installing {package} failed: {reason}")]
    Install {
        /// Which package.
        package: &'static str,
        /// What apt-get said.
        reason: String,
    },
    /// It runs, but gives no answer; or it ended at once.
    #[error("{program} does not answer: {log}")]
    Silent {
        /// Which program.
        program: &'static str,
        /// Of its log, what may explain it.
        log: String,
    },
    /// The server's own tool refused.
    #[error("{program} {command} failed: {reason}")]
    Command {
        /// Which tool.
        program: &'static str,
        /// Its first argument.
        command: String,
        /// What it said.
        reason: String,
    },
    /// The server refused.
    #[error("{program} refused: {reason}")]
    Refused {
        /// Which program.
        program: &'static str,
        /// What it said.
        reason: String,
    },
    /// A file or process of ours.
    #[error("{what}: {source}")]
    Io {
        /// What was to be done.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

fn io_error(what: &'static str) -> impl Fn(io::Error) -> TestbedError {
    move |source| TestbedError::Io { what, source }
}

/// The end of a text.
fn tail(text: &str) -> String {
    let text = text.trim();
    let start = text.char_indices().rev().nth(SHOWN_CHARACTERS).map_or(0, |(index, _)| index);
    text[start..].to_owned()
}

/// What follows the first error in a log, or else the log's end. The first error is the cause; an
/// Erlang node prints pages of consequences after it.
fn complaint(log: &str) -> String {
    let mut lines = log.lines().skip_while(|line| !line.to_lowercase().contains("error"));
    match lines.next() {
        None => tail(log),
        Some(first) => {
            let text = lines.fold(first.to_owned(), |text, line| text + "\n" + line);
            text.chars().take(SHOWN_CHARACTERS).collect()
        }
    }
}

/// Where a program is, if it is installed. The name may be a whole path.
fn find_program(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Where Debian puts servers, which not every PATH names.
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    folders.map(|folder| folder.join(program)).find(|candidate| candidate.is_file())
}
