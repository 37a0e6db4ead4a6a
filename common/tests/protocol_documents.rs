//! `docs/protocol.md` and `docs/asyncapi.yaml` say what the code does.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]
#![allow(dead_code, reason = "the fixtures serve other test programs too")]

#[path = "support/fixtures.rs"]
mod fixtures;

use std::collections::BTreeSet;

use cipherscore_common::message::{
    ErrorCode, MAX_BODY_BYTES, MAX_CORRELATION_BYTES, MAX_INLINE_BYTES, MAX_REASON_BYTES,
};
use cipherscore_common::topology::{RETRY_STEP_HEADER, ReplyQueue, Topology};
use cipherscore_common::{CHUNK_BYTES, MAX_BLOB_BYTES, MAX_TENANT_LENGTH, MAX_WORKER_LENGTH};
use cipherscore_common::{Digest, ModelId};
use fixtures::text;

const PROTOCOL: &str = include_str!("../../docs/protocol.md");
const ASYNCAPI: &str = include_str!("../../docs/asyncapi.yaml");

/// Read from the source, so that none can be forgotten here.
fn headers() -> BTreeSet<&'static str> {
    let source = include_str!("../src/message/envelope.rs");
    let module = source.split_once("pub mod headers {").unwrap().1.split_once("\n}").unwrap().0;
    let names =
        module.lines().filter_map(|line| line.split_once(": &str = \"")?.1.strip_suffix("\";"));
    names.chain([RETRY_STEP_HEADER]).collect()
}

fn codes() -> BTreeSet<&'static str> {
    ErrorCode::ALL.iter().map(|code| code.as_str()).collect()
}

fn section(title: &str) -> &'static str {
    let rest = PROTOCOL.split_once(&format!("\n## {title}\n")).unwrap().1;
    rest.split_once("\n## ").map_or(rest, |(section, _)| section)
}

/// What is between backquotes in the first column of a section's tables.
fn first_column(section: &'static str) -> BTreeSet<&'static str> {
    let cells = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    cells.map(|(cell, _)| cell).collect()
}

#[test]
fn the_examples_are_the_fixtures() {
    let names = ["job-inline", "job-stored", "reply-failed"];
    for name in names.into_iter().flat_map(|name| [name.to_owned(), format!("{name}-v2")]) {
        let file = text(&format!("{name}.hex"));
        let example: Vec<_> = file.lines().skip(1).map(|line| format!("    {line}")).collect();
        assert!(PROTOCOL.contains(&example.join("\n")), "{name}");
    }
}

#[test]
fn headers_and_codes_are_those_of_the_code() {
    assert_eq!(first_column(section("Headers")), headers());
    assert_eq!(first_column(section("Error codes")), codes());
    let keys =
        ASYNCAPI.lines().filter_map(|line| line.strip_prefix("          ")?.strip_suffix(':'));
    let keys = keys.filter(|key| key.starts_with("cs-") || key.starts_with("trace"));
    assert_eq!(keys.collect::<BTreeSet<_>>(), headers());
    let values = ASYNCAPI.lines().filter_map(|line| line.strip_prefix("              - "));
    let values: BTreeSet<_> = values.filter(|value| *value != "scored").collect();
    assert_eq!(values, codes());
}

#[test]
fn exchanges_queues_and_times_are_those_of_the_code() {
    let shared = Topology::shared();
    let section = section("Exchanges and queues");
    let rows = first_column(section);
    for exchange in &shared.exchanges {
        assert!(rows.contains(exchange.name), "{}", exchange.name);
        assert!(ASYNCAPI.contains(&format!("exchange: {{ name: {}, ", exchange.name)));
    }
    let client: ReplyQueue = "cs.reply.a.b".parse().unwrap();
    let others = [Topology::of_client(&client), Topology::of_model(ModelId::new(Digest::of(b"")))];
    for queue in shared.queues.iter().chain(others.iter().flat_map(|one| &one.queues)) {
        for time in [queue.message_ttl, queue.expires].into_iter().flatten() {
            assert!(section.contains(&time.as_millis().to_string()), "{}", queue.name);
        }
        if let Some(exchange) = queue.dead_letter {
            assert!(section.contains(&format!("x-dead-letter-exchange: {exchange}")));
        }
    }
}

#[test]
fn limits_are_those_of_the_code() {
    let grouped = |number: u64| {
        let digits = number.to_string();
        let groups = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy);
        groups.collect::<Vec<_>>().join(",")
    };
    let limits = [
        ("body of a message", MAX_BODY_BYTES as u64),
        ("payload in a message", MAX_INLINE_BYTES as u64),
        ("payload in the store", MAX_BLOB_BYTES),
        ("chunk", CHUNK_BYTES as u64),
        ("reason", MAX_REASON_BYTES as u64),
        ("`correlation_id`", MAX_CORRELATION_BYTES as u64),
        ("tenant, client", MAX_TENANT_LENGTH as u64),
        ("`cs-worker`", MAX_WORKER_LENGTH as u64),
    ];
    for (name, limit) in limits {
        let row = format!("| {name} | {} |", grouped(limit));
        assert!(section("Limits").contains(&row), "{row}");
    }
}
