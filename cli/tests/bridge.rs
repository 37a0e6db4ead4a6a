//! `cipherscore bridge` as a data owner runs it: from lines to lines, and from queue to queue of a broker
//! of the owner's own, killed again and again.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod support;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use cipherscore_common::broker::amqp::{AmqpBroker, AmqpConfig};
use cipherscore_common::broker::{Broker, Disposition, QueuePrefetch, Subscription};
use cipherscore_common::message::{Message, headers};
use cipherscore_common::topology::{Binding, Declare, Exchange, ExchangeKind, Queue, Topology};
use serde_json::{Value, json};
use support::{Example, Fixture, PATIENCE, Ran, Running, examples, own_address, text, wait_until};

/// Events that are published at once in the test with kills.
const EVENTS: usize = 2000;
/// Scores between two kills.
const BETWEEN_KILLS: usize = 400;
/// Events that a bridge may take from its queue and not settle.
const PREFETCH: usize = 100;
/// Virtual host, user and exchange of the owner.
const OWNER: &str = "shop";
const PASSWORD: &str = "0wner-and-secret";

#[test]
fn from_lines_to_lines_and_from_queue_to_queue() {
    let fixture = Fixture::start();
    let tree = fixture.example("iris_decision_tree");
    let linear = fixture.example("breast_cancer_logistic_regression");
    let worker = fixture.worker(&examples());
    refused(&fixture, &tree);
    lines(&fixture, &tree);
    interrupted(&fixture, &tree);
    queues(&fixture, &linear);
    worker.terminate();
    worker.end();
}

/// The rows of an example as events, whose ids are their numbers.
fn events(example: &Example) -> Vec<Value> {
    let text = fs::read_to_string(example.file("rows.csv")).unwrap();
    let event = |(id, line): (usize, &str)| {
        let mut event = json!({ "id": id });
        for (feature, value) in line.split(',').enumerate() {
            event[format!("f{feature}")] = value.parse::<f64>().unwrap().into();
        }
        event
    };
    text.lines().skip(1).enumerate().map(event).collect()
}

/// The clear model's scores of these rows.
fn clear(example: &Example) -> Vec<Vec<f64>> {
    let text = fs::read_to_string(example.file("clear.csv")).unwrap();
    let line = |line: &str| line.split(',').map(|cell| cell.parse().unwrap()).collect();
    text.lines().skip(1).map(line).collect()
}

/// The score is that of the row that its event's id numbers.
fn assert_score(score: &Value, clear: &[Vec<f64>]) -> usize {
    let id: usize = score["event"]["id"].as_str().unwrap().parse().unwrap();
    let found: Vec<f64> = serde_json::from_value(score["probabilities"].clone()).unwrap();
    let expected = &clear[id % clear.len()];
    let same = found.iter().zip(expected).all(|(a, b)| (a - b).abs() <= 1e-12);
    assert!(same && found.len() == expected.len(), "{id}: {found:?}, clear {expected:?}");
    id
}

/// A configuration with a model, and what else it needs.
fn config(fixture: &Fixture, name: &str, example: &Example, more: &str) -> PathBuf {
    let path = fixture.path(name);
    let (artifact, keys) = (text(&example.folder), text(&example.keys));
    let model = format!("[[models]]\nname = 'model'\nartifact = '{artifact}'\nkeys = '{keys}'\n");
    fs::write(&path, format!("{more}\n{model}")).unwrap();
    path
}

fn lines_config(fixture: &Fixture, example: &Example) -> (PathBuf, PathBuf) {
    let dead = fixture.path("dead.jsonl");
    let more = format!("[dead_letters]\nfile = '{}'\n[health]\nlisten = ''\n", text(&dead));
    (config(fixture, "lines.toml", example, &more), dead)
}

fn with_input<'a>(fixture: &'a Fixture, config: &Path, input: Stdio) -> Running<'a> {
    let mut command = fixture.command(&["bridge", "--config", text(config)]);
    command.stdin(input);
    fixture.start_command(command)
}

fn refused(fixture: &Fixture, tree: &Example) {
    let (lines, _) = lines_config(fixture, tree);
    let unknown = config(fixture, "unknown.toml", tree, "[source]\nqueues = 'a'\n");
    assert!(fixture.refusal(&["bridge", "--config", text(&unknown)]).contains("\"queues\""));
    let nowhere = config(fixture, "nowhere.toml", tree, "[health]\nlisten = ''\n");
    let bridge = ["bridge", "--log-level", "off", "--config"];
    let refusal = |file: &PathBuf| fixture.refusal(&[&bridge[..], &[text(file)]].concat());
    assert!(refusal(&nowhere).contains("dead_letters.file is not configured"));
    let both = fixture.refusal(&[&["--json"], &bridge[..], &[text(&lines)]].concat());
    assert!(both.contains("where the scores go"), "{both}");
}

fn lines(fixture: &Fixture, tree: &Example) {
    let (config, dead) = lines_config(fixture, tree);
    let (input, clear) = (fixture.path("events.jsonl"), clear(tree));
    let mut lines: Vec<_> = events(tree).iter().map(Value::to_string).collect();
    for (more, code) in [(None, 0), (Some("{\"id\": 99, \"f0\": null}"), 2)] {
        lines.extend(more.map(str::to_owned));
        fs::write(&input, lines.join("\n")).unwrap();
        let Ran { code: found, stdout, stderr } =
            with_input(fixture, &config, File::open(&input).unwrap().into()).end();
        assert_eq!(found, Some(code), "{stderr}");
        let scores = stdout.lines().map(|line| serde_json::from_str(line).unwrap());
        let mut ids: Vec<_> = scores.map(|score| assert_score(&score, &clear)).collect();
        ids.sort_unstable();
        assert_eq!(ids, (0..clear.len()).collect::<Vec<_>>());
        assert!(stderr.contains("38 events scored"), "{stderr}");
    }
    let dead = fs::read_to_string(dead).unwrap();
    assert!(dead.lines().count() == 1 && dead.contains("feature f0, at /f0"), "{dead}");
}

/// Whoever reads the scores is told that there should be more.
fn interrupted(fixture: &Fixture, tree: &Example) {
    let (config, _) = lines_config(fixture, tree);
    let (reader, mut writer) = std::io::pipe().unwrap();
    let run = with_input(fixture, &config, reader.into());
    writeln!(writer, "{}", events(tree)[0]).unwrap();
    wait_until("no score", || !run.stdout().is_empty());
    run.signal("INT");
    let ran = run.end();
    assert_eq!(ran.code, Some(130), "{}", ran.stderr);
    assert!(ran.stderr.contains("1 events scored"), "{}", ran.stderr);
}

/// The owner's queues, over connections of their own.
struct Shop {
    broker: AmqpBroker,
    runtime: tokio::runtime::Runtime,
    url: String,
}

impl Shop {
    fn open(fixture: &Fixture) -> Self {
        let services = fixture.services();
        let ctl = |words: &[&str]| services.0.ctl(words).unwrap();
        ctl(&["add_vhost", OWNER]);
        ctl(&["add_user", OWNER, PASSWORD]);
        ctl(&["set_permissions", "-p", OWNER, OWNER, ".*", ".*", ".*"]);
        let (_, address) = fixture.broker_url.rsplit_once('@').unwrap();
        let address = address.split('/').next().unwrap();
        let url = format!("amqp://{OWNER}:{PASSWORD}@{address}/{OWNER}");
        let broker = AmqpBroker::new(AmqpConfig::parse(&url).unwrap()).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let exchange = Exchange { name: OWNER, kind: ExchangeKind::Direct, alternate: None };
        let queue = |name: &str| Queue {
            name: name.to_owned(),
            dead_letter: None,
            message_ttl: None,
            expires: None,
            binding: Binding { exchange: OWNER, retry_step: None },
        };
        let queues = ["payments", "scores", "dead"].map(queue).into();
        let topology = Topology { exchanges: vec![exchange], queues };
        runtime.block_on(broker.declare(&topology, Declare::Create)).unwrap();
        Self { broker, runtime, url }
    }

    fn publish(&self, id: &str, body: &str) {
        let message = Message {
            exchange: OWNER.into(),
            routing_key: "payments".into(),
            content_type: Some("application/json".into()),
            message_id: Some(id.into()),
            body: body.into(),
            ..Message::default()
        };
        self.runtime.block_on(self.broker.publish(&message)).unwrap();
    }

    fn waiting(&self, queue: &str) -> usize {
        let state = self.runtime.block_on(self.broker.queue_state(queue)).unwrap().unwrap();
        usize::try_from(state.messages).unwrap()
    }

    /// All that is in a queue.
    fn take(&self, queue: &str) -> Vec<Message> {
        let count = self.waiting(queue);
        self.runtime.block_on(async {
            let wanted = [QueuePrefetch { queue: queue.into(), prefetch: u16::MAX }];
            let mut subscription = self.broker.subscribe(&wanted).await.unwrap();
            let mut messages = Vec::new();
            while messages.len() < count {
                let delivery = subscription.next().await.unwrap();
                delivery.settlement.settle(Disposition::Ack).await.unwrap();
                messages.push(delivery.message);
            }
            messages
        })
    }
}

fn get(address: &str, path: &str) -> String {
    let Ok(mut stream) = TcpStream::connect(address) else { return String::new() };
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// A bridge that scores stands still, with more to do than what is underway.
fn halt_at_work(shop: &Shop, run: &Running<'_>, mut publish: impl FnMut()) {
    loop {
        let goal = shop.waiting("scores") + BETWEEN_KILLS;
        if shop.waiting("payments") < EVENTS / 2 {
            publish();
        }
        wait_until("no scores", || shop.waiting("scores") >= goal);
        run.signal("STOP");
        // What is on its way to and from it while it stands still is no more than this.
        if shop.waiting("payments") > 2 * PREFETCH {
            return;
        }
        run.signal("CONT");
    }
}

/// Killed while it scores, three times; the last one stops in order. Every event has its score, and
/// whatever was scored twice has the same key twice.
fn queues(fixture: &Fixture, linear: &Example) {
    let (shop, clear, events) = (Shop::open(fixture), clear(linear), events(linear));
    let address = own_address().to_string();
    let url_file = fixture.path("owner-url");
    fs::write(&url_file, &shop.url).unwrap();
    let config = config(
        fixture,
        "queues.toml",
        linear,
        &format!(
            "[source]\nkind = 'amqp'\nqueue = 'payments'\nprefetch = {PREFETCH}\n\
             [sink]\nkind = 'amqp'\nexchange = '{OWNER}'\nrouting_key = 'scores'\n\
             [dead_letters]\nkind = 'amqp'\nexchange = '{OWNER}'\nrouting_key = 'dead'\n\
             [owner]\nurl_file = '{}'\n[bridge]\nmax_rows = 3\n[health]\nlisten = '{address}'\n",
            text(&url_file)
        ),
    );
    let mut published = 0;
    let mut publish = || {
        for id in published..published + EVENTS {
            let mut event = events[id % events.len()].clone();
            event["id"] = id.into();
            shop.publish(&id.to_string(), &event.to_string());
        }
        published += EVENTS;
    };
    publish();
    shop.publish("half", "{\"f0\": 1}");
    let bridge = ["bridge", "--config", text(&config)];
    for _ in 0..3 {
        let run = fixture.begin(&bridge);
        halt_at_work(&shop, &run, &mut publish);
        run.signal("KILL");
        let ran = run.end();
        assert!(!ran.stderr.contains(PASSWORD), "a password was printed");
    }
    let run = fixture.begin(&bridge);
    wait_until("it is not ready", || get(&address, "/readyz").starts_with("HTTP/1.0 200"));
    wait_until("events wait", || {
        let underway = |line: &str| line == "cipherscore_bridge_events_underway 0";
        shop.waiting("payments") == 0 && get(&address, "/metrics").lines().any(underway)
    });
    assert!(get(&address, "/livez").starts_with("HTTP/1.0 200"));
    let metrics = get(&address, "/metrics");
    let measured = "cipherscore_bridge_stage_seconds_count{stage=\"whole\"} ";
    let whole = metrics.lines().find_map(|line| line.strip_prefix(measured)).unwrap();
    assert!(whole.parse::<u64>().unwrap() > 0, "{metrics}");
    run.signal("TERM");
    let ran = run.end();
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);

    let mut scores = BTreeMap::new();
    let messages = shop.take("scores");
    for message in &messages {
        let score: Value = serde_json::from_slice(&message.body).unwrap();
        let id = assert_score(&score, &clear);
        assert_eq!(message.correlation_id, Some(id.to_string()));
        let before = scores.insert(message.message_id.clone().unwrap(), id);
        assert!(before.is_none_or(|before| before == id));
    }
    println!("{published} events, {} scores that came again", messages.len() - scores.len());
    assert_eq!(scores.into_values().collect::<std::collections::BTreeSet<_>>().len(), published);
    let dead = shop.take("dead");
    assert!(!dead.is_empty());
    for message in dead {
        assert_eq!(message.message_id.as_deref(), Some("half"));
        assert_eq!(message.text(headers::DEAD_CODE), Some("unreadable"));
        assert!(message.text(headers::DEAD_REASON).unwrap().contains("feature f1"));
    }
    assert_eq!(shop.waiting("payments"), 0);
}
