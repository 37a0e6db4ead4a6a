//! Private servers for tests and the demo: child processes with their own port, folder and
//! password, stopped for certain.
//!
//! A server ends when its value is dropped. It also ends when this process dies without dropping
//! anything, `kill -9` included: a watching shell holds the reading end of a pipe whose writing
//! end only this process has, and kills the server at its end.
//! (`PR_SET_PDEATHSIG` would need unsafe code, and follows the thread that started the server
//! rather than the process.)

mod install;
mod process;
mod redis;

use std::io;
use std::path::PathBuf;

use thiserror::Error;

pub use redis::Redis;

/// Why there is no server.
#[derive(Debug, Error)]
pub enum TestbedError {
    /// The program is not installed, and it is not ours to install it.
    #[error(
        "{program} is not installed. Install it (Debian and Ubuntu: apt-get install {package}), \
         or run as root where there is apt-get"
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
        /// The end of its log.
        log: String,
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

/// Where a program is, if it is installed.
fn find_program(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Where Debian puts servers, which not every PATH names.
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    folders.map(|folder| folder.join(program)).find(|candidate| candidate.is_file())
}
