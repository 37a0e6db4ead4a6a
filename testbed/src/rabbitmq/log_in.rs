//! The first steps of AMQP 0-9-1: a node that answers them takes clients, and knows the password.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long one answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);
const PROTOCOL: &[u8] = b"AMQP\x00\x00\x09\x01";
/// Class and method.
const START: [u8; 4] = [0, 10, 0, 10];
const START_OK: [u8; 4] = [0, 10, 0, 11];
const TUNE: [u8; 4] = [0, 10, 0, 30];
const METHOD_FRAME: u8 = 1;
const FRAME_END: u8 = 0xCE;
/// Longer than any frame before tuning.
const MAX_FRAME_BYTES: usize = 64 * 1024;

/// Only the right password makes the server go on to tuning; a stranger does not know it.
pub(super) fn log_in(address: SocketAddr, user: &str, password: &str) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(PROTOCOL)?;
    expect(&mut stream, START)?;
    stream.write_all(&start_ok(user, password)?)?;
    expect(&mut stream, TUNE)
}

/// No client properties, the mechanism PLAIN, and the locale.
fn start_ok(user: &str, password: &str) -> io::Result<Vec<u8>> {
    let no_properties = 0_u32.to_be_bytes();
    let response = format!("\0{user}\0{password}");
    let response_length = u32::try_from(response.len()).map_err(io::Error::other)?.to_be_bytes();
    let payload = [
        &START_OK[..],
        &no_properties,
        b"\x05PLAIN",
        &response_length,
        response.as_bytes(),
        b"\x05en_US",
    ]
    .concat();
    let length = u32::try_from(payload.len()).map_err(io::Error::other)?.to_be_bytes();
    Ok([&[METHOD_FRAME, 0, 0][..], &length, &payload, &[FRAME_END]].concat())
}

fn expect(stream: &mut TcpStream, method: [u8; 4]) -> io::Result<()> {
    let mut head = [0; 7];
    stream.read_exact(&mut head)?;
    let [kind, _, _, length @ ..] = head;
    let length = u32::from_be_bytes(length) as usize;
    if kind != METHOD_FRAME || length > MAX_FRAME_BYTES {
        return Err(io::Error::other("no method frame"));
    }
    let mut payload = vec![0; length + 1];
    stream.read_exact(&mut payload)?;
    match payload.starts_with(&method) {
        true => Ok(()),
        false => Err(io::Error::other("another method")),
    }
}
