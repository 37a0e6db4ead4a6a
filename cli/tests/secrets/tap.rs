//! Hears what programs and a server say to each other.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What went through one connection in one direction.
type Stream = Arc<Mutex<Vec<u8>>>;

/// A relay to a server, on a port of its own, which keeps all bytes. It ends with the process.
pub(crate) struct Tap {
    address: SocketAddr,
    streams: Arc<Mutex<Vec<Stream>>>,
}

impl Tap {
    /// In front of the server that a URL names.
    pub(crate) fn of(url: &str) -> Self {
        let server: SocketAddr = authority(url).parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, streams) = (listener.local_addr().unwrap(), Arc::default());
        let all: Arc<Mutex<Vec<Stream>>> = Arc::clone(&streams);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.unwrap();
                let Ok(server) = TcpStream::connect(server) else { continue };
                let reversed = (server.try_clone().unwrap(), client.try_clone().unwrap());
                for (from, to) in [(client, server), reversed] {
                    let stream = Stream::default();
                    all.lock().unwrap().push(Arc::clone(&stream));
                    std::thread::spawn(move || relay(from, to, &stream));
                }
            }
        });
        Self { address, streams }
    }

    /// The same URL, by way of this.
    pub(crate) fn url(&self, url: &str) -> String {
        url.replace(&authority(url), &self.address.to_string())
    }

    /// What was heard until now, stream by stream.
    pub(crate) fn heard(&self) -> Vec<Vec<u8>> {
        let streams = self.streams.lock().unwrap();
        streams.iter().map(|stream| stream.lock().unwrap().clone()).collect()
    }
}

/// Host and port.
fn authority(url: &str) -> String {
    let (_, after) = url.rsplit_once('@').unwrap();
    after.split('/').next().unwrap().to_owned()
}

fn relay(mut from: TcpStream, mut to: TcpStream, stream: &Stream) {
    let mut piece = vec![0; 1 << 16];
    while let Ok(length @ 1..) = from.read(&mut piece) {
        stream.lock().unwrap().extend_from_slice(&piece[..length]);
        if to.write_all(&piece[..length]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}
