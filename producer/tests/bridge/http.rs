//! Scores over HTTP.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use cipherscore_common::Digest;
use cipherscore_common::broker::MemoryBroker;
use cipherscore_producer::bridge::http::{AnswerAlone, HttpSource};
use cipherscore_producer::bridge::queue::QueueSink;
use cipherscore_producer::bridge::settings::{BridgeSettings, EventKind, HttpSection, ScoreForm};
use cipherscore_producer::bridge::{BridgeState, Ends, event_key};
use serde_json::{Value, json};

use super::asking::{JSON, connect, exchange, post, request};
use super::support::{Bridge, SHOP, clear_scores, event, settings, shop, take, waiting};
use crate::support::{Conduct, Owner, PATIENCE, Services, TREE, Worker, until};

fn http_settings(owner: &Owner) -> BridgeSettings {
    let listen = "127.0.0.1:0".parse().unwrap();
    let http = HttpSection { listen, wait: PATIENCE, ..HttpSection::default() };
    BridgeSettings { http, ..settings(owner) }
}

/// A bridge whose scores go to whoever asks, and, of a shop, to its queues before.
async fn start(
    services: &Services,
    settings: BridgeSettings,
    shop: Option<&MemoryBroker>,
) -> (Bridge, SocketAddr) {
    let state = Arc::new(BridgeState::default());
    let source = HttpSource::open(&settings.http, &state).await.unwrap();
    let address = source.address();
    let source = Box::new(source);
    let ends = match shop {
        None => Ends { source, sink: Box::new(AnswerAlone), dead_letters: Box::new(AnswerAlone) },
        Some(shop) => {
            let sink = |queue: &str| {
                Box::new(QueueSink::new(Arc::new(shop.clone()), SHOP.into(), queue.into()))
            };
            Ends { source, sink: sink("scores"), dead_letters: sink("dead") }
        }
    };
    (Bridge::start_with(services, settings, ends, state).await, address)
}

fn assert_score(owner: &Owner, score: &Value, id: usize) {
    assert_eq!(score["probabilities"], json!(clear_scores(owner, id)), "{score}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_is_answered_event_by_event_in_their_order() {
    let (services, owner) = (Services::default(), Owner::new(TREE));
    let _worker = Worker::start(&services, &owner, |_, _| Conduct::Answer).await;
    let (bridge, address) = start(&services, http_settings(&owner), None).await;

    let one = post(address, JSON, event(&owner, 3)).await;
    assert_eq!((one.status, one.kind()), (200, JSON), "{one:?}");
    assert_score(&owner, &one.json(), 3);
    assert_eq!(one.json()["key"], event_key("events", "3").to_string());

    let mut events: Vec<_> = (0..20).map(|id| event(&owner, id)).collect();
    // Places are enough: these have no id, and this one no feature.
    events.iter_mut().for_each(|event| _ = event.as_object_mut().unwrap().remove("id"));
    events[7]["f0"] = "seven".into();
    let many = post(address, JSON, json!(events)).await;
    assert_eq!((many.status, many.kind()), (207, JSON));
    let answers = many.json();
    assert_eq!(answers.as_array().unwrap().len(), 20);
    for (id, answer) in answers.as_array().unwrap().iter().enumerate() {
        match id {
            7 => assert_eq!(
                (&answer["status"], &answer["code"]),
                (&422.into(), &"unreadable".into())
            ),
            id => assert_score(&owner, answer, id),
        }
    }

    let lines: Vec<_> = (0..5).map(|id| event(&owner, id).to_string()).collect();
    let lines = post(address, "application/x-ndjson", lines.join("\n")).await;
    assert_eq!((lines.status, lines.kind()), (200, "application/x-ndjson"));
    for (id, line) in lines.body.lines().enumerate() {
        assert_score(&owner, &serde_json::from_str(line).unwrap(), id);
    }
    assert_eq!(lines.body.lines().count(), 5);

    let alone = post(address, JSON, json!({ "id": "a", "f0": null })).await;
    assert_eq!(alone.problem(), (422, "unreadable".into()));
    assert!(alone.json()["detail"].as_str().unwrap().contains("f0"));
    assert_eq!(post(address, JSON, "[]").await.body, "[]\n");
    let metrics = bridge.state.metrics();
    assert!(metrics.contains("http_requests_total{status=\"207\"} 1"), "{metrics}");
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cloud_events_come_in_each_mode_of_http() {
    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let (services, owner) = (Services::default(), Owner::new(TREE));
    let _worker = Worker::start(&services, &owner, |_, _| Conduct::Answer).await;
    let mut settings = http_settings(&owner);
    settings.events.format = EventKind::CloudEvents;
    settings.scores.format = ScoreForm::CloudEvents;
    let (bridge, address) = start(&services, settings.clone(), None).await;
    let structured = |id: &str| {
        json!({ "specversion": "1.0", "id": id, "source": "/shop",
        "type": "payment", "traceparent": PARENT, "data": event(&owner, 1) })
    };

    let one = post(address, "application/cloudevents+json", structured("a")).await;
    assert_eq!((one.status, one.kind()), (200, "application/cloudevents+json"), "{one:?}");
    assert_eq!(
        (&one.json()["type"], &one.json()["traceparent"]),
        (&"cipherscore.score".into(), &PARENT.into())
    );
    assert_score(&owner, &one.json()["data"], 1);
    let batch = "application/cloudevents-batch+json";
    let both = post(address, batch, json!([structured("b"), structured("c")])).await;
    assert_eq!((both.status, both.kind()), (200, batch));
    let ids = [&both.json()[0]["data"]["event"]["id"], &both.json()[1]["data"]["event"]["id"]];
    assert_eq!(ids, ["b", "c"]);
    bridge.stop().await;

    settings.scores.format = ScoreForm::BinaryCloudEvents;
    settings.scores.source = "the bridge".into();
    let (bridge, address) = start(&services, settings, None).await;
    let headers = [
        ("Content-Type", JSON),
        ("ce-specversion", "1.0"),
        ("ce-id", "%C3%B6"),
        ("ce-source", "/shop"),
        ("ce-type", "payment"),
        ("traceparent", PARENT),
    ];
    let binary = exchange(address, request(&headers, &event(&owner, 2).to_string())).await;
    assert_eq!((binary.status, binary.kind()), (200, JSON), "{binary:?}");
    assert_eq!(binary.headers["ce-source"], "the%20bridge");
    assert_eq!(binary.headers["ce-traceparent"], PARENT);
    assert_eq!(binary.headers["ce-id"], event_key("/shop", "\u{f6}").to_string());
    assert_score(&owner, &binary.json(), 2);
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_no_longer_is_told_and_asks_again() {
    let (services, owner) = (Services::default(), Owner::new(TREE));
    let worker = Worker::start(&services, &owner, |_, _| Conduct::Keep).await;
    let (bridge, address) = start(&services, http_settings(&owner), None).await;
    let body = event(&owner, 5).to_string();
    let hurried = |wait| request(&[("Content-Type", JSON), ("cs-wait", wait)], &body);
    // On a busy machine that may be over before the bridge has taken it.
    while bridge.state.counts().taken == 0 {
        let begun = Instant::now();
        let late = exchange(address, hurried("100ms")).await;
        assert_eq!(late.problem(), (504, "late".into()));
        assert!(begun.elapsed() >= Duration::from_millis(100));
        assert!(late.json()["detail"].as_str().unwrap().contains("may still be scored"));
    }
    for wait in ["soon", "2h", "-1s"] {
        assert_eq!(exchange(address, hurried(wait)).await.problem(), (400, "malformed".into()));
    }

    // It is underway: who asks for it now waits for the same score.
    let patient: Vec<_> = (0..3).map(|_| tokio::spawn(exchange(address, hurried("60s")))).collect();
    until(|| bridge.state.counts().taken == 4).await;
    worker.stop().await;
    let worker = Worker::start(&services, &owner, |_, _| Conduct::Answer).await;
    let mut bodies = Vec::new();
    for asked in patient {
        let answer = asked.await.unwrap();
        assert_score(&owner, &answer.json(), 5);
        bodies.push(answer.body);
    }
    // It is remembered, and so is its score.
    bodies.push(exchange(address, hurried("60s")).await.body);
    assert!(bodies.iter().all(|body| *body == bodies[0]));
    assert_eq!(worker.seen().len(), 1);
    let report = bridge.stop().await;
    assert_eq!((report.counts.scored, report.counts.duplicates), (1, 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_for_scores_is_refused() {
    let (services, owner) = (Services::default(), Owner::new(TREE));
    let _worker = Worker::start(&services, &owner, |_, _| Conduct::Answer).await;
    let mut settings = http_settings(&owner);
    settings.http.max_body = ByteSize::kib(8);
    settings.http.max_events = std::num::NonZeroUsize::MIN.saturating_add(9);
    settings.http.memory = ByteSize::kib(40);
    settings.http.body_timeout = Duration::from_millis(300);
    settings.bridge.max_event_size = ByteSize::kib(1);
    let (bridge, address) = start(&services, settings, None).await;
    let problem = async |request: String| exchange(address, request).await.problem();
    let of = |status, code: &str| (status, code.to_owned());
    let kind = [("Content-Type", JSON)];
    let body = event(&owner, 1).to_string();
    let whole = request(&kind, &body);

    let other = exchange(address, whole.replacen("POST", "PUT", 1)).await;
    assert_eq!(
        (other.problem(), other.headers["allow"].as_str()),
        (of(405, "not_allowed"), "POST")
    );
    assert_eq!(problem(whole.replacen("/score", "/scores", 1)).await, of(404, "not_found"));
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    assert_eq!(problem(request(&form, &body)).await, of(415, "media_type"));
    assert_eq!(problem(request(&kind, "[{}, {]")).await, of(400, "malformed"));
    assert_eq!(problem(request(&kind, "[1,2,3,4,5,6,7,8,9,10,11]")).await, of(413, "too_large"));
    let large = format!("{{\"id\": \"{}\"}}", "x".repeat(2000));
    assert_eq!(problem(request(&kind, &large)).await, of(413, "too_large"));
    let larger = "x".repeat(9000);
    assert_eq!(problem(request(&kind, &larger)).await, of(413, "too_large"));
    let chunked = format!(
        "POST /score HTTP/1.1\r\nHost: here\r\nConnection: close\r\nContent-Type: {JSON}\r\n\
         Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{larger}\r\n0\r\n\r\n",
        larger.len()
    );
    assert_eq!(problem(chunked).await, of(413, "too_large"));

    // Nothing becomes of what is not whole.
    let slow = whole[..whole.len() - 1].to_owned();
    assert_eq!(problem(slow.clone()).await, of(408, "slow"));
    let taken = bridge.state.counts().taken;
    let half = tokio::task::spawn_blocking(move || {
        let mut stream = connect(address);
        stream.write_all(slow.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        _ = stream.read_to_end(&mut rest);
    });
    half.await.unwrap();
    assert_eq!(exchange(address, whole).await.status, 200);
    assert_eq!(bridge.state.counts().taken, taken + 1);
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_that_is_full_keeps_others_out_for_a_while() {
    let (services, owner) = (Services::default(), Owner::new(TREE));
    let worker = Worker::start(&services, &owner, |_, _| Conduct::Keep).await;
    let mut settings = http_settings(&owner);
    settings.http.max_body = ByteSize::kib(8);
    settings.http.max_events = std::num::NonZeroUsize::MIN.saturating_add(9);
    settings.http.memory = ByteSize::kib(34);
    let (bridge, address) = start(&services, settings, None).await;
    let many: Vec<_> = (0..10).map(|id| event(&owner, id)).collect();
    let many = json!(many).to_string();
    let asked = tokio::spawn(post(address, JSON, many.clone()));
    until(|| bridge.state.counts().taken == 10).await;
    let others: Vec<_> = (0..20).map(|_| tokio::spawn(post(address, JSON, many.clone()))).collect();
    let mut busy = 0;
    until(|| bridge.state.metrics().contains("http_requests_total{status=\"503\"}")).await;
    worker.stop().await;
    let _worker = Worker::start(&services, &owner, |_, _| Conduct::Answer).await;
    for other in others {
        let answer = other.await.unwrap();
        if answer.status == 503 {
            assert_eq!(answer.headers["retry-after"], "1");
            assert_eq!(answer.problem().1, "busy");
            busy += 1;
        }
    }
    assert!(busy > 0);
    assert_eq!(asked.await.unwrap().status, 200);
    assert_eq!(post(address, JSON, many).await.status, 200);
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_kept_out() {
    let (services, owner) = (Services::default(), Owner::new(TREE));
    let _worker = Worker::start(&services, &owner, |_, _| Conduct::Answer).await;
    let state = Arc::new(BridgeState::default());
    let open = HttpSection { listen: "0.0.0.0:0".parse().unwrap(), ..HttpSection::default() };
    let refused = HttpSource::open(&open, &state).await.err().unwrap();
    assert!(refused.contains("http.tokens"), "{refused}");
    let allowed = HttpSection { allow_anyone: true, ..open.clone() };
    assert!(HttpSource::open(&allowed, &state).await.is_ok());
    let tokens = ["old", "new"].map(|token| Digest::of(token.as_bytes()));
    let closed = HttpSection { tokens: tokens.into(), ..open };
    assert!(HttpSource::open(&closed, &state).await.is_ok());

    let mut settings = http_settings(&owner);
    settings.http.tokens = tokens.into();
    let (bridge, address) = start(&services, settings, None).await;
    let body = event(&owner, 1).to_string();
    let with = |token: &str| request(&[("Content-Type", JSON), ("Authorization", token)], &body);
    for token in ["Bearer old", "bearer new"] {
        assert_eq!(exchange(address, with(token)).await.status, 200, "{token}");
    }
    let nobody = request(&[("Content-Type", JSON)], &body);
    for stranger in [with("Bearer ol"), with("Basic old"), with("old"), with("Bearer"), nobody] {
        let answer = exchange(address, stranger).await;
        assert_eq!(answer.problem(), (401, "unauthorized".into()));
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
    }
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_is_answered_when_the_sink_has_the_score() {
    let (services, owner) = (Services::default(), Owner::new(TREE));
    let _worker = Worker::start(&services, &owner, |_, _| Conduct::Answer).await;
    let full = shop(&["scores", "dead"]).await;
    let (bridge, address) = start(&services, http_settings(&owner), Some(&full)).await;
    let answer = post(address, JSON, event(&owner, 1)).await;
    assert_eq!(waiting(&full, "scores").await, 1);
    assert_eq!(take(&full, "scores", 1).await[0].body, answer.body.as_bytes());
    let dead = post(address, JSON, "{\"id\": 2}").await;
    assert_eq!(dead.problem(), (422, "unreadable".into()));
    assert_eq!(take(&full, "dead", 1).await[0].body, b"{\"id\": 2}");
    bridge.stop().await;

    // There is no queue for scores, so that nobody has one.
    let none = shop(&["dead"]).await;
    let mut settings = http_settings(&owner);
    settings.http.wait = Duration::from_millis(300);
    let (bridge, address) = start(&services, settings, Some(&none)).await;
    let late = post(address, JSON, event(&owner, 1)).await;
    assert_eq!(late.problem(), (504, "late".into()));
    until(|| bridge.state.readiness().waiting.contains_key("sink")).await;
    bridge.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_that_stops_answers_what_was_asked() {
    let (services, owner) = (Services::default(), Owner::new(TREE));
    let worker = Worker::start(&services, &owner, |_, _| Conduct::Keep).await;
    let (mut bridge, address) = start(&services, http_settings(&owner), None).await;
    let asked = tokio::spawn(post(address, JSON, event(&owner, 1)));
    // One that nobody uses at the moment does not keep it.
    let idle = connect(address);
    until(|| bridge.state.counts().taken == 1).await;
    bridge.say_stop();
    until(|| TcpStream::connect(address).is_err()).await;
    worker.stop().await;
    let _worker = Worker::start(&services, &owner, |_, _| Conduct::Answer).await;
    let report = bridge.end().await;
    assert_eq!((report.counts.scored, report.is_complete), (1, false));
    let answer = asked.await.unwrap();
    assert_eq!(answer.status, 200);
    assert_score(&owner, &answer.json(), 1);
    drop(idle);
}
