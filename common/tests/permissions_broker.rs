//! The files of `deploy/rabbitmq/` on a real RabbitMQ: what they make is what the programs expect,
//! and who may do what.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod amqp;
mod deploy;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use amqp::{broker, next};
use base64::Engine as _;
use cipherscore_common::broker::{Broker, BrokerError, Disposition, QueuePrefetch};
use cipherscore_common::message::{Message, headers};
use cipherscore_common::topology::{
    DEAD, Declare, ExchangeKind, JOBS, Lane, Queue, REPLIES, RETRY, RETRY_STEP_HEADER, ReplyQueue,
    RetryStep, Topology, UNROUTED, job_queue,
};
use cipherscore_common::{JobId, ModelId};
use cipherscore_testbed::{RabbitMq, RabbitMqOptions};
use deploy::{Secrets, deploy, text};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, ErrorKind};
use serde_json::{Value, json};

fn definitions() -> Value {
    serde_json::from_str(&text(&deploy("rabbitmq/definitions.json"))).unwrap()
}

struct Fixture {
    node: RabbitMq,
    secrets: Secrets,
    /// Where the management API is.
    management: SocketAddr,
}

impl Fixture {
    /// A node with the settings of `deploy/`; without its limits, which the machine may not have.
    fn new() -> Self {
        let configuration = text(&deploy("rabbitmq/rabbitmq.conf"));
        let elsewhere = ["#", "load_definitions", "disk_free_limit"];
        let configuration = configuration.lines().filter(|line| {
            !line.is_empty() && !elsewhere.iter().any(|start| line.starts_with(start))
        });
        let mut configuration: Vec<_> = configuration.map(str::to_owned).collect();
        let management = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        configuration.push(format!("management.tcp.ip = {}", management.ip()));
        configuration.push(format!("management.tcp.port = {}", management.port()));
        let plugins = vec!["rabbitmq_management"];
        let options = RabbitMqOptions { configuration, plugins, ..RabbitMqOptions::default() };
        let node = RabbitMq::start_with(options).unwrap();
        let fixture = Self { node, secrets: Secrets::make(), management };
        let files = std::fs::read_dir(fixture.secrets.path("definitions.d")).unwrap();
        let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        files.sort();
        assert_eq!(files.len(), 7, "{files:?}");
        files.iter().for_each(|file| fixture.node.import_definitions(file).unwrap());
        fixture
    }

    /// One for all tests that run at about the same time; it ends with the last of them.
    fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Fixture>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let fixture = Arc::new(Self::new());
            *shared = Arc::downgrade(&fixture);
            fixture
        })
    }

    fn url(&self, user: &str) -> String {
        self.node.url_for(user, &self.secrets.password(user, "broker"))
    }

    /// Asks the management API: the status, and what it says.
    fn ask(&self, user: &str, method: &str, path: &str) -> (u16, Value) {
        let login = format!("{user}:{}", self.secrets.password(user, "broker"));
        let login = base64::engine::general_purpose::STANDARD.encode(login);
        let mut stream = TcpStream::connect(self.management).unwrap();
        let question = format!(
            "{method} {path} HTTP/1.0\r\nAuthorization: Basic {login}\r\n\
             Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}"
        );
        stream.write_all(question.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap_or_default())
    }

    async fn user(&self, name: &str) -> User {
        let properties = lapin::ConnectionProperties::default();
        User(lapin::Connection::connect(&self.url(name), properties).await.unwrap())
    }
}

/// The reply code by which the broker refused.
type Answer = Result<(), u16>;
const OK: Answer = Ok(());
/// The user may not.
const FORBIDDEN: Answer = Err(403);
/// The user may, but not so: with a user id that is another's.
const FORGED: Answer = Err(406);

/// Somebody who tries, each time on a channel of its own: a refusal closes the channel.
struct User(lapin::Connection);

fn answer<T>(result: lapin::Result<T>) -> Answer {
    match result.as_ref().map_err(lapin::Error::kind) {
        Ok(_) => Ok(()),
        Err(ErrorKind::ProtocolError(said)) => Err(said.get_id()),
        Err(other) => panic!("{other:?}"),
    }
}

impl User {
    async fn channel(&self) -> Channel {
        self.0.create_channel().await.unwrap()
    }

    async fn publish(&self, exchange: &str, key: &str, user_id: Option<&str>) -> Answer {
        let channel = self.channel().await;
        channel.confirm_select(Default::default()).await.unwrap();
        let mut properties = BasicProperties::default();
        if let Some(user_id) = user_id {
            properties = properties.with_user_id(user_id.into());
        }
        let options = Default::default();
        let sent =
            channel.basic_publish(exchange.into(), key.into(), options, b"x", properties).await;
        match sent {
            Ok(confirm) => answer(confirm.await),
            Err(error) => answer::<()>(Err(error)),
        }
    }

    async fn declare(&self, queue: &str, dead_letter: Option<&str>) -> Answer {
        let mut arguments = FieldTable::default();
        if let Some(exchange) = dead_letter {
            let exchange = lapin::types::AMQPValue::LongString(exchange.into());
            arguments.insert("x-dead-letter-exchange".into(), exchange);
        }
        let options = lapin::options::QueueDeclareOptions { durable: true, ..Default::default() };
        answer(self.channel().await.queue_declare(queue.into(), options, arguments).await)
    }

    async fn look_at(&self, queue: &str) -> Answer {
        let options = lapin::options::QueueDeclareOptions { passive: true, ..Default::default() };
        answer(self.channel().await.queue_declare(queue.into(), options, Default::default()).await)
    }

    async fn bind(&self, queue: &str, exchange: &str, key: &str) -> Answer {
        let (options, arguments) = Default::default();
        let channel = self.channel().await;
        let (queue, exchange, key) = (queue.into(), exchange.into(), key.into());
        answer(channel.queue_bind(queue, exchange, key, options, arguments).await)
    }

    async fn bind_exchange(&self, to: &str, from: &str, key: &str) -> Answer {
        let (options, arguments) = Default::default();
        let channel = self.channel().await;
        let (to, from, key) = (to.into(), from.into(), key.into());
        answer(channel.exchange_bind(to, from, key, options, arguments).await)
    }

    async fn get(&self, queue: &str) -> Answer {
        answer(self.channel().await.basic_get(queue.into(), Default::default()).await)
    }

    async fn consume(&self, queue: &str) -> Answer {
        let (options, arguments) = Default::default();
        let channel = self.channel().await;
        answer(channel.basic_consume(queue.into(), "".into(), options, arguments).await)
    }

    async fn purge(&self, queue: &str) -> Answer {
        answer(self.channel().await.queue_purge(queue.into(), Default::default()).await)
    }

    async fn delete(&self, queue: &str) -> Answer {
        answer(self.channel().await.queue_delete(queue.into(), Default::default()).await)
    }

    async fn declare_exchange(&self, name: &str) -> Answer {
        let (options, arguments) = Default::default();
        let kind = lapin::ExchangeKind::Direct;
        let channel = self.channel().await;
        answer(channel.exchange_declare(name.into(), kind, options, arguments).await)
    }

    async fn delete_exchange(&self, name: &str) -> Answer {
        answer(self.channel().await.exchange_delete(name.into(), Default::default()).await)
    }
}

fn reply_queue(tenant_name: &str) -> ReplyQueue {
    ReplyQueue::new(&tenant_name.parse().unwrap(), &JobId::random().to_string()).unwrap()
}

/// A job as a client publishes it.
fn job(model: ModelId, reply_to: &ReplyQueue) -> Message {
    let mut job = amqp::job(model);
    (job.tenant, job.reply_to) = (reply_to.tenant().clone(), reply_to.clone());
    job.to_message()
}

fn one(queue: impl Into<String>) -> QueuePrefetch {
    QueuePrefetch { queue: queue.into(), prefetch: 1 }
}

#[test]
fn definitions_are_the_topology_that_workers_declare() {
    let topology = Topology::shared();
    let exchanges = topology.exchanges.iter().map(|exchange| {
        let kind = match exchange.kind {
            ExchangeKind::Direct => "direct",
            ExchangeKind::Topic => "topic",
            ExchangeKind::Fanout => "fanout",
            ExchangeKind::Headers => "headers",
        };
        let alternate = exchange.alternate.map(|name| ("alternate-exchange", name));
        json!({
            "name": exchange.name, "vhost": "/", "type": kind, "durable": true,
            "auto_delete": false, "internal": false,
            "arguments": alternate.into_iter().collect::<BTreeMap<_, _>>(),
        })
    });
    let queues = topology.queues.iter().map(|queue| {
        json!({
            "name": queue.name, "vhost": "/", "durable": true, "auto_delete": false,
            "arguments": arguments(queue),
        })
    });
    let bindings = topology.queues.iter().map(|queue| {
        let arguments = match queue.binding.retry_step {
            Some(step) => json!({ "x-match": "all", RETRY_STEP_HEADER: step.name() }),
            None => json!({}),
        };
        json!({
            "source": queue.binding.exchange, "vhost": "/", "destination": queue.name,
            "destination_type": "queue", "routing_key": queue.name, "arguments": arguments,
        })
    });
    let file = definitions();
    assert_eq!(file["exchanges"], Value::from_iter(exchanges));
    assert_eq!(file["queues"], Value::from_iter(queues));
    assert_eq!(file["bindings"], Value::from_iter(bindings));
    assert!(file.get("users").is_none(), "users are made by setup.sh");
}

fn arguments(queue: &Queue) -> Value {
    let mut arguments = json!({ "x-queue-type": "quorum" });
    if let Some(exchange) = queue.dead_letter {
        arguments["x-dead-letter-exchange"] = exchange.into();
        arguments["x-dead-letter-strategy"] = "at-least-once".into();
        arguments["x-overflow"] = "reject-publish".into();
    }
    if let Some(time) = queue.message_ttl {
        arguments["x-message-ttl"] = u64::try_from(time.as_millis()).unwrap().into();
    }
    arguments
}

/// An administrator, who may make everything, finds nothing that differs from what it would make.
#[tokio::test]
async fn what_the_definitions_make_is_equivalent_to_what_workers_declare() {
    let fixture = Fixture::shared();
    let administrator = broker(&fixture.node.url());
    administrator.declare(&Topology::shared(), Declare::Create).await.unwrap();
}

#[tokio::test]
async fn a_job_goes_to_a_worker_and_its_reply_comes_back() {
    let fixture = Fixture::shared();
    let (alice, worker) = (broker(&fixture.url("alice")), broker(&fixture.url("worker")));
    let (queue, model) = (reply_queue("alice"), amqp::random_model());
    // What the programs do first: look at what is shared, make what is theirs.
    worker.declare(&Topology::shared(), Declare::Verify).await.unwrap();
    worker.declare(&Topology::of_model(model), Declare::Create).await.unwrap();
    alice.declare(&Topology::shared(), Declare::Verify).await.unwrap();
    alice.declare(&Topology::of_client(&queue), Declare::Create).await.unwrap();

    let sent = job(model, &queue);
    alice.publish(&sent).await.unwrap();
    let normal = one(job_queue(model, Lane::Normal));
    let mut jobs = worker.subscribe(std::slice::from_ref(&normal)).await.unwrap();
    let delivery = next(&mut jobs).await;
    assert_eq!(delivery.message.user_id.as_deref(), Some("alice"));

    // Put off: the tenant's user id cannot be carried on, so it becomes a header.
    let mut again = Message { exchange: RETRY.into(), ..delivery.message.clone() };
    let publisher = again.user_id.take().unwrap();
    again.set(headers::PUBLISHED_BY, publisher);
    again.set(RETRY_STEP_HEADER, RetryStep::after(0).name());
    worker.publish(&again).await.unwrap();
    delivery.settle(Disposition::Ack).await.unwrap();
    let delivery = next(&mut jobs).await;
    assert_eq!(delivery.message.user_id.as_deref(), Some("worker"));
    assert_eq!(delivery.message.text(headers::PUBLISHED_BY), Some("alice"));

    let reply = amqp::reply(JobId::random()).to_message(&queue);
    worker.publish(&reply).await.unwrap();
    delivery.settle(Disposition::Ack).await.unwrap();
    let mut replies = alice.subscribe(&[one(queue.to_string())]).await.unwrap();
    let delivery = next(&mut replies).await;
    assert_eq!(delivery.message.message_id, reply.message_id);
    delivery.settle(Disposition::Ack).await.unwrap();

    // Nobody's reply is parked: the topic exchange has the alternate one.
    worker.publish(&amqp::reply(JobId::random()).to_message(&reply_queue("bob"))).await.unwrap();
    assert!(broker(&fixture.node.url()).queue_state(UNROUTED).await.unwrap().is_some());

    // Rejected: the broker puts it into the dead-letter queue, for the operator.
    alice.publish(&sent).await.unwrap();
    next(&mut jobs).await.settle(Disposition::DeadLetter).await.unwrap();
    let operator = broker(&fixture.url("operator"));
    let mut dead = operator.subscribe(&[one(DEAD)]).await.unwrap();
    let mut delivery = next(&mut dead).await;
    while delivery.message.message_id != sent.message_id {
        // Another test's.
        delivery.settle(Disposition::Ack).await.unwrap();
        delivery = next(&mut dead).await;
    }
    // Replayed in the tenant's name, which only an operator may.
    assert_eq!(delivery.message.user_id.as_deref(), Some("alice"));
    operator.publish(&Message { exchange: JOBS.into(), ..delivery.message.clone() }).await.unwrap();
    delivery.settle(Disposition::Ack).await.unwrap();
    assert_eq!(next(&mut jobs).await.message.user_id.as_deref(), Some("alice"));
}

#[tokio::test]
async fn a_tenant_can_do_no_more() {
    let fixture = Fixture::shared();
    let (model, bobs) = (amqp::random_model(), reply_queue("bob"));
    let jobs = job_queue(model, Lane::Normal);
    let worker = broker(&fixture.url("worker"));
    worker.declare(&Topology::of_model(model), Declare::Create).await.unwrap();
    let bob = broker(&fixture.url("bob"));
    bob.declare(&Topology::of_client(&bobs), Declare::Create).await.unwrap();
    let (alice, bobs, own) =
        (fixture.user("alice").await, bobs.to_string(), reply_queue("alice").to_string());

    assert_eq!(alice.declare(&own, None).await, OK);
    assert_eq!(alice.bind(&own, REPLIES, &own).await, OK);
    assert_eq!(alice.publish(JOBS, &jobs, None).await, OK);
    assert_eq!(alice.publish(JOBS, &jobs, Some("alice")).await, OK);
    for forged in ["bob", "worker", "operator"] {
        assert_eq!(alice.publish(JOBS, &jobs, Some(forged)).await, FORGED, "{forged}");
    }
    for exchange in ["", REPLIES, RETRY, DEAD, UNROUTED, "amq.direct", "amq.topic"] {
        assert_eq!(alice.publish(exchange, &bobs, None).await, FORBIDDEN, "{exchange:?}");
    }
    // Others' replies: by their queues, by their keys, and by patterns of keys.
    for queue in [&bobs, &jobs, DEAD, UNROUTED, "cs.retry.1s"] {
        assert_eq!(alice.get(queue).await, FORBIDDEN, "{queue}");
        assert_eq!(alice.consume(queue).await, FORBIDDEN, "{queue}");
        assert_eq!(alice.purge(queue).await, FORBIDDEN, "{queue}");
        assert_eq!(alice.delete(queue).await, FORBIDDEN, "{queue}");
    }
    for key in [&bobs, "#", "*", "cs.reply.#", "cs.reply.*.*", "cs.reply.alice.#"] {
        assert_eq!(alice.bind(&own, REPLIES, key).await, FORBIDDEN, "{key}");
        assert_eq!(alice.bind_exchange(JOBS, REPLIES, key).await, FORBIDDEN, "{key}");
    }
    assert_eq!(alice.bind(&bobs, REPLIES, &bobs).await, FORBIDDEN);
    for exchange in [JOBS, RETRY, DEAD, UNROUTED] {
        assert_eq!(alice.bind(&own, exchange, &jobs).await, FORBIDDEN, "{exchange}");
    }
    // Others' names, names that only look like one's own, and names that the broker chooses.
    for queue in [&bobs, "cs.reply.alice2.x", "cs.reply.alicex", "x.cs.reply.alice.x", "q", ""] {
        assert_eq!(alice.declare(queue, None).await, FORBIDDEN, "{queue:?}");
    }
    for exchange in [DEAD, REPLIES, RETRY] {
        let queue = reply_queue("alice").to_string();
        assert_eq!(alice.declare(&queue, Some(exchange)).await, FORBIDDEN, "{exchange}");
    }
    for exchange in [JOBS, "mine"] {
        assert_eq!(alice.declare_exchange(exchange).await, FORBIDDEN, "{exchange}");
        assert_eq!(alice.delete_exchange(exchange).await, FORBIDDEN, "{exchange}");
    }
    // RabbitMQ asks for no permission to look at a queue, which tells how many messages it has.
    assert_eq!(alice.look_at(&bobs).await, OK);
    assert_eq!(alice.delete(&own).await, OK);
}

#[tokio::test]
async fn a_worker_can_do_no_more() {
    let fixture = Fixture::shared();
    let (model, bobs) = (amqp::random_model(), reply_queue("bob"));
    let jobs = job_queue(model, Lane::High);
    let bob = broker(&fixture.url("bob"));
    bob.declare(&Topology::of_client(&bobs), Declare::Create).await.unwrap();
    let (user, bobs) = (fixture.user("worker").await, bobs.to_string());
    let worker = broker(&fixture.url("worker"));
    worker.declare(&Topology::of_model(model), Declare::Create).await.unwrap();
    // Also when they are there.
    worker.declare(&Topology::of_model(model), Declare::Create).await.unwrap();

    assert_eq!(user.publish(DEAD, &jobs, None).await, OK);
    for forged in ["bob", "operator"] {
        assert_eq!(user.publish(RETRY, &jobs, Some(forged)).await, FORGED, "{forged}");
    }
    for exchange in ["", JOBS, UNROUTED, "amq.direct", "amq.topic"] {
        assert_eq!(user.publish(exchange, &jobs, None).await, FORBIDDEN, "{exchange:?}");
    }
    for key in ["x", &jobs, "cs.reply.bob.x.y", "cs.reply.Bob.x"] {
        assert_eq!(user.publish(REPLIES, key, None).await, FORBIDDEN, "{key}");
    }
    for queue in [&bobs, DEAD, UNROUTED, "cs.retry.1s"] {
        assert_eq!(user.get(queue).await, FORBIDDEN, "{queue}");
        assert_eq!(user.consume(queue).await, FORBIDDEN, "{queue}");
        assert_eq!(user.purge(queue).await, FORBIDDEN, "{queue}");
        assert_eq!(user.delete(queue).await, FORBIDDEN, "{queue}");
        assert_eq!(user.declare(queue, None).await, FORBIDDEN, "{queue}");
    }
    for queue in ["cs.jobs.x.high", &format!("{jobs}2"), "q", ""] {
        assert_eq!(user.declare(queue, None).await, FORBIDDEN, "{queue:?}");
    }
    for exchange in [REPLIES, RETRY, DEAD, UNROUTED] {
        assert_eq!(user.bind(&jobs, exchange, &bobs).await, FORBIDDEN, "{exchange}");
    }
    for exchange in [JOBS, REPLIES, "mine"] {
        assert_eq!(user.declare_exchange(exchange).await, FORBIDDEN, "{exchange}");
        assert_eq!(user.delete_exchange(exchange).await, FORBIDDEN, "{exchange}");
    }
    let error = worker.declare(&Topology::shared(), Declare::Create).await.unwrap_err();
    assert!(matches!(error, BrokerError::Refused { .. }), "{error}");
}

#[tokio::test]
async fn an_operator_reads_what_is_dead_and_no_jobs() {
    let fixture = Fixture::shared();
    let model = amqp::random_model();
    let jobs = job_queue(model, Lane::Normal);
    let worker = broker(&fixture.url("worker"));
    worker.declare(&Topology::of_model(model), Declare::Create).await.unwrap();
    let operator = fixture.user("operator").await;
    for exchange in ["", REPLIES, RETRY, DEAD] {
        assert_eq!(operator.publish(exchange, &jobs, None).await, FORBIDDEN, "{exchange:?}");
    }
    assert_eq!(operator.get(&jobs).await, FORBIDDEN);
    assert_eq!(operator.declare("q", None).await, FORBIDDEN);
    assert_eq!(operator.get(UNROUTED).await, OK);
}

/// How long it may take until the management API counts what is there: it does so every 5 s.
const COUNTED: Duration = Duration::from_secs(60);

/// What KEDA asks, as whom the chart in `deploy/helm` asks. Jobs that are evaluated count.
#[tokio::test]
async fn metrics_counts_jobs_that_wait_or_run() {
    let fixture = Fixture::shared();
    let (model, queue) = (amqp::random_model(), reply_queue("alice"));
    let (alice, worker) = (broker(&fixture.url("alice")), broker(&fixture.url("worker")));
    worker.declare(&Topology::of_model(model), Declare::Create).await.unwrap();
    for _ in 0..3 {
        alice.publish(&job(model, &queue)).await.unwrap();
    }
    let mut jobs = worker.subscribe(&[one(job_queue(model, Lane::Normal))]).await.unwrap();
    let running = next(&mut jobs).await;

    let names = format!("%5Ecs%5C.jobs%5C.{model}%5C.%28high%7Cnormal%29%24");
    let path = format!(
        "/api/queues/%2F?page=1&use_regex=true&pagination=false&name={names}&page_size=500"
    );
    let since = Instant::now();
    loop {
        let (status, said) = fixture.ask("metrics", "GET", &path);
        assert_eq!((status, &said["page_count"]), (200, &1.into()), "{said}");
        let queues = said["items"].as_array().unwrap();
        assert_eq!(queues.len(), 2, "{said}");
        let count = |what: &str| -> u64 { queues.iter().filter_map(|q| q[what].as_u64()).sum() };
        if [count("messages"), count("messages_unacknowledged")] == [3, 1] {
            break;
        }
        assert!(since.elapsed() < COUNTED, "{said}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    running.settle(Disposition::Ack).await.unwrap();
}

#[tokio::test]
async fn metrics_can_do_nothing_but_count() {
    let fixture = Fixture::shared();
    let model = amqp::random_model();
    let jobs = job_queue(model, Lane::Normal);
    let worker = broker(&fixture.url("worker"));
    worker.declare(&Topology::of_model(model), Declare::Create).await.unwrap();
    let user = fixture.user("metrics").await;
    for exchange in ["", JOBS, REPLIES, RETRY, DEAD, UNROUTED] {
        assert_eq!(user.publish(exchange, &jobs, None).await, FORBIDDEN, "{exchange:?}");
        assert_eq!(user.bind(&jobs, exchange, &jobs).await, FORBIDDEN, "{exchange:?}");
    }
    for queue in [&jobs, DEAD, UNROUTED, "cs.retry.1s"] {
        assert_eq!(user.get(queue).await, FORBIDDEN, "{queue}");
        assert_eq!(user.consume(queue).await, FORBIDDEN, "{queue}");
        assert_eq!(user.purge(queue).await, FORBIDDEN, "{queue}");
        assert_eq!(user.delete(queue).await, FORBIDDEN, "{queue}");
    }
    for queue in ["q", "", "cs.reply.metrics.x"] {
        assert_eq!(user.declare(queue, None).await, FORBIDDEN, "{queue:?}");
    }
    let queue = format!("/api/queues/%2F/{jobs}");
    let refused = [
        ("GET", "/api/definitions".to_owned()),
        ("GET", "/api/users".to_owned()),
        ("PUT", "/api/users/mallory".to_owned()),
        ("PUT", "/api/queues/%2F/q".to_owned()),
        ("DELETE", queue.clone()),
        ("DELETE", format!("{queue}/contents")),
        ("POST", format!("{queue}/get")),
        ("POST", "/api/exchanges/%2F/cs.jobs/publish".to_owned()),
    ];
    for (method, path) in refused {
        let (status, said) = fixture.ask("metrics", method, &path);
        assert!((400..500).contains(&status), "{method} {path}: {status} {said}");
    }
    assert_eq!(fixture.ask("metrics", "GET", &queue).0, 200, "it is there still");
    // Tenants and workers have no business there.
    for user in ["alice", "worker"] {
        assert_eq!(fixture.ask(user, "GET", &queue).0, 401, "{user}");
    }
}

/// It publishes jobs and takes the replies of its own queue of each tenant; other clients' replies are
/// not its, nor does it answer.
#[tokio::test]
async fn a_gateway_has_one_queue_of_each_tenant() {
    let fixture = Fixture::shared();
    let gateway = fixture.user("gateway").await;
    assert_eq!(gateway.publish(JOBS, "nobody", Some("gateway")).await, OK);
    assert_eq!(gateway.publish(JOBS, "nobody", Some("alice")).await, FORGED);
    for tenant in ["alice", "carol"] {
        let queue = ReplyQueue::new(&tenant.parse().unwrap(), "gateway").unwrap().to_string();
        let broker = broker(&fixture.url("gateway"));
        let own = Topology::of_client(&queue.parse().unwrap());
        broker.declare(&own, Declare::Create).await.unwrap();
        assert!(broker.subscribe(&[one(queue.clone())]).await.is_ok());
        assert_eq!(gateway.publish(REPLIES, &queue, None).await, FORBIDDEN);
    }
    let other = reply_queue("alice").to_string();
    assert_eq!(gateway.declare(&other, None).await, FORBIDDEN);
    for exchange in [RETRY, DEAD, UNROUTED] {
        assert_eq!(gateway.publish(exchange, "x", None).await, FORBIDDEN, "{exchange}");
    }
    assert_eq!(gateway.get(DEAD).await, FORBIDDEN);
    let model = amqp::random_model();
    let worker = broker(&fixture.url("worker"));
    worker.declare(&Topology::of_model(model), Declare::Create).await.unwrap();
    let jobs = job_queue(model, Lane::Normal);
    assert_eq!(gateway.get(&jobs).await, FORBIDDEN);
    // How full it is may be asked.
    assert_eq!(gateway.look_at(&jobs).await, OK);
}
