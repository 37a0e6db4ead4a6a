//! Traces and log lines of a fleet: a producer, a broker, a worker, and a collector that is this
//! test, each in a process of its own.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Attribute;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message as _;
use serde_json::Value;
use support::{Fixture, examples, text, wait_until};

/// A span, as the collector got it.
#[derive(Debug, Clone)]
struct Span {
    service: String,
    name: String,
    trace: Vec<u8>,
    id: Vec<u8>,
    parent: Vec<u8>,
    kind: i32,
    message: Option<String>,
}

/// OTLP over HTTP, as much of it as a collector needs.
struct Collector {
    address: SocketAddr,
    spans: Arc<Mutex<Vec<Span>>>,
}

impl Collector {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let spans = Arc::<Mutex<Vec<Span>>>::default();
        let kept = spans.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let kept = kept.clone();
                std::thread::spawn(move || serve(stream.unwrap(), &kept));
            }
        });
        Self { address, spans }
    }

    fn spans(&self) -> Vec<Span> {
        self.spans.lock().unwrap().clone()
    }

    /// What turns traces on, in OpenTelemetry's own words.
    fn name_to(&self, command: &mut Command) {
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", self.address));
        command.env("OTEL_BSP_SCHEDULE_DELAY", "200");
    }
}

fn serve(stream: TcpStream, spans: &Mutex<Vec<Span>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut writer = stream;
    loop {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or_default() == 0 {
                return;
            }
            match line.trim_end().to_lowercase() {
                end if end.is_empty() => break,
                line => head.push(line),
            }
        }
        assert!(head[0].starts_with("post /v1/traces http/1.1"), "{head:?}");
        assert!(head.contains(&"content-type: application/x-protobuf".to_owned()), "{head:?}");
        let length = head.iter().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        let mut body = vec![0; length.parse().unwrap()];
        reader.read_exact(&mut body).unwrap();
        let request = ExportTraceServiceRequest::decode(&body[..]).unwrap();
        spans.lock().unwrap().extend(read(request));
        write!(writer, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
    }
}

fn read(request: ExportTraceServiceRequest) -> Vec<Span> {
    let text = |value: Option<Attribute>| match value {
        Some(Attribute::StringValue(text)) => Some(text),
        _ => None,
    };
    let mut spans = Vec::new();
    for of_service in request.resource_spans {
        let attributes = of_service.resource.unwrap().attributes;
        let named = attributes.into_iter().find(|attribute| attribute.key == "service.name");
        let service = text(named.unwrap().value.unwrap().value).unwrap();
        for span in of_service.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            let mut attributes = span.attributes.into_iter();
            let message = attributes.find(|attribute| attribute.key == "messaging.message.id");
            spans.push(Span {
                service: service.clone(),
                name: span.name,
                trace: span.trace_id,
                id: span.span_id,
                parent: span.parent_span_id,
                kind: span.kind,
                message: message.and_then(|message| text(message.value?.value)),
            });
        }
    }
    spans
}

#[test]
fn a_job_is_one_trace_and_its_steps_are_logged() {
    let (fixture, collector) = (Fixture::start(), Collector::start());
    let tree = fixture.example("iris_decision_tree");
    let health = format!("health.listen={}", free_address());
    let models = examples();
    let words = ["worker", "start", "--models", text(&models), "--set", &health];
    let logged = ["--log-format", "json", "--log-level", "debug"];
    let mut command = fixture.command(&[&words[..], &logged].concat());
    collector.name_to(&mut command);
    let worker = fixture.start_command(command);
    let is_ready = || fixture.run(&["worker", "health", "--set", &health]).code == Some(0);
    wait_until("the worker is not ready", is_ready);

    let output = fixture.path("scores.csv");
    let mut command = fixture.command(&tree.score(&tree.file("rows.csv"), &output, &["--json"]));
    collector.name_to(&mut command);
    let report = fixture.start_command(command).end().json(0);
    tree.assert_scores(&output);
    let jobs = usize::try_from(report["jobs_published"].as_u64().unwrap()).unwrap();
    assert!(jobs > 1);
    // The producer has sent all of its spans; the worker is on its way.
    let answered = || collector.spans().iter().filter(|span| span.name == "process").count();
    wait_until("spans of the worker are missing", || answered() >= jobs);
    worker.signal("TERM");
    let ended = worker.end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);

    let spans = collector.spans();
    linked(&spans, jobs);
    steps_are_logged(&ended.stderr, &spans, jobs);
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Each job is a trace of its own, from the producer to the worker and back.
fn linked(spans: &[Span], jobs: usize) {
    let mut traces: BTreeMap<&[u8], Vec<&Span>> = BTreeMap::new();
    spans.iter().for_each(|span| traces.entry(&span.trace).or_default().push(span));
    assert_eq!(traces.len(), jobs, "{spans:#?}");
    let mut key_steps = BTreeSet::new();
    for trace in traces.values() {
        let one = |service: &str, name: &str| {
            let found: Vec<_> =
                trace.iter().filter(|span| span.service == service && span.name == name).collect();
            assert_eq!(found.len(), 1, "{service} {name}: {trace:#?}");
            found[0]
        };
        let producer = |name| one("cipherscore", name);
        let worker = |name| one("cipherscore-worker", name);
        let (sent, processed, evaluated) =
            (producer("send"), worker("process"), worker("evaluate"));
        let (replied, received) = (worker("send"), producer("receive"));
        assert_eq!(sent.parent, Vec::<u8>::new());
        assert_eq!(processed.parent, sent.id);
        assert_eq!(evaluated.parent, processed.id);
        assert_eq!(replied.parent, processed.id);
        assert_eq!(received.parent, replied.id);
        for (span, kind) in [
            (sent, SpanKind::Producer),
            (processed, SpanKind::Consumer),
            (replied, SpanKind::Producer),
            (received, SpanKind::Consumer),
            (evaluated, SpanKind::Internal),
        ] {
            assert_eq!(span.kind, i32::from(kind), "{span:?}");
        }
        assert!(sent.message.is_some());
        assert_eq!([&processed.message, &replied.message, &received.message], [&sent.message; 3]);
        // The first job fetches the key, within its own trace.
        for span in trace.iter().filter(|span| span.name.ends_with(" key")) {
            assert_eq!(span.parent, processed.id);
            assert!(key_steps.insert(span.name.clone()), "the key is fetched once");
        }
    }
    assert_eq!(key_steps, ["fetch key", "prepare key"].map(str::to_owned).into());
}

/// One line for each step of a job, with its ids; and the trace of a line is that of the spans.
fn steps_are_logged(printed: &str, spans: &[Span], jobs: usize) {
    let lines: Vec<Value> =
        printed.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let sent = spans.iter().filter(|span| span.service == "cipherscore" && span.name == "send");
    let mut count = 0;
    for span in sent {
        let job = span.message.as_deref().unwrap();
        let steps: Vec<_> = lines
            .iter()
            .filter(|line| line["span"]["id"] == job)
            .filter(|line| line["target"].as_str().unwrap().starts_with("cipherscore"))
            .inspect(|line| {
                let trace: String = span.trace.iter().map(|byte| format!("{byte:02x}")).collect();
                assert_eq!(line["span"]["trace"], trace.as_str(), "{line}");
                assert_eq!(line["span"]["tenant"], "default", "{line}");
            })
            .map(|line| line["message"].as_str().unwrap())
            .filter(|message| !message.contains("key"))
            .collect();
        assert_eq!(steps, ["begun", "evaluated", "answered", "the broker was told"], "{job}");
        count += 1;
    }
    assert_eq!(count, jobs);
}
