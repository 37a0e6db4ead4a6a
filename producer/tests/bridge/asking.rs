//! Asking for scores, as bytes on a socket.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use crate::support::PATIENCE;

pub(super) const JSON: &str = "application/json";

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: String,
}

impl Answer {
    fn read(stream: &mut TcpStream) -> Self {
        let mut bytes = Vec::new();
        // A connection that the other side has reset has said before what it had to say.
        _ = stream.read_to_end(&mut bytes);
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").expect("no answer");
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let header = |line: &str| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_ascii_lowercase(), value.to_owned())
        };
        Self { status, headers: lines.map(header).collect(), body: body.to_owned() }
    }

    pub(super) fn kind(&self) -> &str {
        &self.headers["content-type"]
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// Status and code of a problem.
    pub(super) fn problem(&self) -> (u16, String) {
        let problem = self.json();
        assert_eq!(self.kind(), "application/problem+json");
        assert_eq!(problem["status"], self.status);
        (self.status, problem["code"].as_str().unwrap().to_owned())
    }
}

pub(super) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends a request as it is, and waits for what comes back.
pub(super) async fn exchange(address: SocketAddr, request: String) -> Answer {
    let exchange = move || {
        let mut stream = connect(address);
        // It may be refused before it is whole.
        _ = stream.write_all(request.as_bytes());
        Answer::read(&mut stream)
    };
    tokio::task::spawn_blocking(exchange).await.unwrap()
}

pub(super) fn request(headers: &[(&str, &str)], body: &str) -> String {
    let header = |(name, value): &(&str, &str)| format!("{name}: {value}\r\n");
    let headers: String = headers.iter().map(header).collect();
    let length = body.len();
    format!(
        "POST /score HTTP/1.1\r\nHost: here\r\nConnection: close\r\nContent-Length: {length}\r\n\
         {headers}\r\n{body}"
    )
}

pub(super) async fn post(address: SocketAddr, kind: &str, body: impl ToString) -> Answer {
    exchange(address, request(&[("Content-Type", kind)], &body.to_string())).await
}
