//! What every server gets anew: a folder, ports, a password.

use std::io::{self, Read};
use std::net::{Ipv4Addr, TcpListener};

use tempfile::TempDir;

use crate::{TestbedError, io_error};

/// A folder that only we may read.
pub(crate) fn folder(prefix: &str) -> Result<TempDir, TestbedError> {
    let folder = tempfile::Builder::new().prefix(prefix).tempdir();
    folder.map_err(io_error("making a private folder"))
}

/// Different free ports of the loopback interface, free until somebody else takes them.
pub(crate) fn ports<const N: usize>() -> Result<[u16; N], TestbedError> {
    let listen = || {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        Ok((listener.local_addr()?.port(), listener))
    };
    let listeners: io::Result<Vec<_>> = std::iter::repeat_with(listen).take(N).collect();
    let listeners = listeners.map_err(io_error("finding a free port"))?;
    Ok(std::array::from_fn(|index| listeners[index].0))
}

/// 128 random bits, in hexadecimal digits.
pub(crate) fn password() -> Result<String, TestbedError> {
    let mut bytes = [0; 16];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(io_error("making a password"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
