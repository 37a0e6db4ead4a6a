//! A network that can be broken, on purpose.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use cipherscore_testbed::{AmqpMethod, Relay};

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long it waits for what must not come.
const SILENCE: Duration = Duration::from_millis(200);

/// A relay to a server of ours, with one connection through it: the client's end and the server's.
fn connected() -> (Relay, TcpStream, TcpStream, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let relay = Relay::start(listener.local_addr().unwrap()).unwrap();
    let client = TcpStream::connect(relay.address()).unwrap();
    let (server, _) = listener.accept().unwrap();
    for end in [&client, &server] {
        end.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    (relay, client, server, listener)
}

fn expect(stream: &mut TcpStream, bytes: &[u8]) {
    let mut read = vec![0; bytes.len()];
    stream.read_exact(&mut read).unwrap();
    assert_eq!(read, bytes);
}

fn expect_end(stream: &mut TcpStream) {
    match stream.read(&mut [0]) {
        Ok(0) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("{other:?} instead of the end"),
    }
}

fn expect_silence(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(SILENCE)).unwrap();
    let read = stream.read(&mut [0]).unwrap_err();
    assert_eq!(read.kind(), ErrorKind::WouldBlock);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
}

#[test]
fn bytes_pass_in_both_directions_and_ends_too() {
    let (relay, mut client, mut server, _listener) = connected();
    client.write_all(b"question").unwrap();
    expect(&mut server, b"question");
    server.write_all(b"answer").unwrap();
    expect(&mut client, b"answer");
    assert_eq!(relay.connections(), 1);
    drop(client);
    expect_end(&mut server);
}

#[test]
fn a_cut_ends_what_is_connected_and_lets_others_in() {
    let (relay, mut client, mut server, listener) = connected();
    assert_eq!(relay.cut(), 1);
    expect_end(&mut client);
    expect_end(&mut server);
    let mut client = TcpStream::connect(relay.address()).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    client.write_all(b"again").unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    expect(&mut server, b"again");
}

#[test]
fn a_budget_cuts_in_the_middle_of_a_message() {
    let (relay, mut client, mut server, _listener) = connected();
    relay.cut_after(3);
    client.write_all(b"message").unwrap();
    expect(&mut server, b"mes");
    expect_end(&mut server);
    expect_end(&mut client);
    assert_eq!(relay.cut_midway(), 1);
}

#[test]
fn a_frozen_network_loses_nothing_that_tcp_would_keep() {
    let (relay, mut client, mut server, _listener) = connected();
    relay.freeze();
    client.write_all(b"late").unwrap();
    expect_silence(&mut server);
    relay.resume();
    expect(&mut server, b"late");
}

#[test]
fn a_half_open_connection_is_closed_at_one_end() {
    let (relay, mut client, mut server, _listener) = connected();
    relay.half_open();
    expect_end(&mut server);
    expect_silence(&mut client);
    relay.resume();
    expect_end(&mut client);
}

#[test]
fn delays_and_refusals() {
    let (relay, mut client, mut server, _listener) = connected();
    relay.delay(SILENCE);
    let started = Instant::now();
    client.write_all(b"slow").unwrap();
    expect(&mut server, b"slow");
    assert!(started.elapsed() >= SILENCE);
    relay.refuse();
    expect_end(&mut client);
    let mut refused = TcpStream::connect(relay.address()).unwrap();
    refused.set_read_timeout(Some(PATIENCE)).unwrap();
    expect_end(&mut refused);
}

#[test]
fn an_answer_is_held_back_on_the_connection_that_asks() {
    const TIME: Duration = Duration::from_millis(600);
    let (relay, mut client, mut server, listener) = connected();
    let mut other = TcpStream::connect(relay.address()).unwrap();
    let (mut others_server, _) = listener.accept().unwrap();
    relay.hold_answer(AmqpMethod::BasicConsume, TIME);
    let question = b"AMQP\0\0\x09\x01\x01\0\x01\0\0\0\x04\0\x3c\0\x14\xce";
    client.write_all(&question[..10]).unwrap();
    expect(&mut server, &question[..10]);
    assert!(!relay.has_held());
    client.write_all(&question[10..]).unwrap();
    let asked = Instant::now();
    expect(&mut server, &question[10..]);
    assert!(relay.has_held());
    server.write_all(b"answer").unwrap();
    expect_silence(&mut client);
    for (stream, end) in [(&mut other, &mut others_server), (&mut client, &mut server)] {
        stream.write_all(b"more").unwrap();
        expect(end, b"more");
    }
    others_server.write_all(b"another").unwrap();
    other.set_read_timeout(Some(PATIENCE)).unwrap();
    expect(&mut other, b"another");
    expect(&mut client, b"answer");
    assert!(asked.elapsed() >= TIME, "{:?}", asked.elapsed());
}
