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
    /// Ids of the traces and of the spans that it is linked to.
    links: Vec<(Vec<u8>, Vec<u8>)>,
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
                links: span.links.into_iter().map(|link| (link.trace_id, link.span_id)).collect(),
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

/// An event alone takes its trace to the worker; the job of several is linked to each.
#[test]
fn the_way_of_an_event_continues_its_trace() {
    let (fixture, collector) = (Fixture::start(), Collector::start());
    let tree = fixture.example("iris_decision_tree");
    let worker = fixture.worker(&examples());
    let rows = std::fs::read_to_string(tree.file("rows.csv")).unwrap();
    let row = rows.lines().nth(1).unwrap();
    let event = |id: u8| {
        let mut data = serde_json::json!({});
        for (feature, value) in row.split(',').enumerate() {
            data[format!("f{feature}")] = value.parse::<f64>().unwrap().into();
        }
        serde_json::json!({ "specversion": "1.0", "id": id.to_string(), "source": "/shop",
            "type": "row", "traceparent": parent(id), "data": data })
    };
    for (ids, max_rows) in [(1..=1, 1), (2..=4, 3)] {
        let name = format!("{max_rows}.toml");
        let config = fixture.path(&name);
        let (artifact, keys) = (text(&tree.folder), text(&tree.keys));
        let dead = fixture.path("dead.jsonl");
        std::fs::write(
            &config,
            format!(
                "[bridge]\nmax_wait = '10s'\nmax_rows = {max_rows}\n\
                 [events]\nformat = 'cloudevents'\n[health]\nlisten = ''\n\
                 [dead_letters]\nfile = '{}'\n\
                 [[models]]\nname = 'a'\nartifact = '{artifact}'\nkeys = '{keys}'\n",
                text(&dead)
            ),
        )
        .unwrap();
        let input = fixture.path("events.jsonl");
        let lines: Vec<_> = ids.map(|id| event(id).to_string()).collect();
        std::fs::write(&input, lines.join("\n")).unwrap();
        let mut command = fixture.command(&["bridge", "--config", text(&config)]);
        collector.name_to(&mut command);
        command.stdin(std::fs::File::open(&input).unwrap());
        let ran = fixture.start_command(command).end();
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    }
    worker.terminate();
    worker.end();
    continued(&collector.spans());
}

/// Trace and span of an event's sender.
fn parent(id: u8) -> String {
    format!("00-{:032x}-{:016x}-01", id, 16 * u16::from(id))
}

fn continued(spans: &[Span]) {
    let of = |trace: &[u8], name: &str| {
        let found: Vec<_> =
            spans.iter().filter(|span| span.trace == trace && span.name == name).collect();
        assert_eq!(found.len(), 1, "{name}: {spans:#?}");
        found[0]
    };
    let trace = |id: u8| u128::from(id).to_be_bytes();
    for id in 1..=4 {
        let event = of(&trace(id), "event");
        assert_eq!(event.parent, (16 * u64::from(id)).to_be_bytes());
        assert_eq!(
            (event.service.as_str(), event.kind),
            ("cipherscore-bridge", SpanKind::Consumer.into())
        );
        for step in ["gather", "sink"] {
            assert_eq!(of(&trace(id), step).parent, event.id);
        }
    }
    let alone = of(&trace(1), "score");
    assert_eq!(alone.parent, of(&trace(1), "event").id);
    assert_eq!(of(&trace(1), "send").parent, alone.id);
    let shared: Vec<_> =
        spans.iter().filter(|span| span.name == "score" && span.id != alone.id).collect();
    assert_eq!(shared.len(), 1, "{spans:#?}");
    let shared = shared[0];
    assert!(shared.parent.is_empty() && (1..=4).all(|id| shared.trace != trace(id)));
    let events = (2..=4).map(|id| of(&trace(id), "event"));
    let links: BTreeSet<_> = events.map(|event| (event.trace.clone(), event.id.clone())).collect();
    assert_eq!(shared.links.iter().cloned().collect::<BTreeSet<_>>(), links);
    assert_eq!(of(&shared.trace, "send").parent, shared.id);
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
