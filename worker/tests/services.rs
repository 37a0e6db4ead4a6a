//! What becomes of a job, with a real RabbitMQ and a real Redis.

use std::sync::Mutex;
use std::time::Duration;

use cipherscore_common::broker::Broker as _;
use cipherscore_common::broker::amqp::{AmqpBroker, AmqpConfig};
use cipherscore_common::message::{ErrorCode, headers};
use cipherscore_common::topology::{Lane, job_queue};
use cipherscore_common::{Blob, BlobName, RedisConfig, RedisStore};
use cipherscore_testbed::{RabbitMq, Redis, User};
use cipherscore_worker::Tenants;

use crate::outcomes;
use crate::outcomes::bulk::{Bulk, Damage};
use crate::support::{Example, Services, Tester};

/// Both services, private to this test program.
struct Real {
    rabbitmq: Mutex<RabbitMq>,
    redis: Mutex<Redis>,
    broker_url: String,
    store_url: String,
}

impl Real {
    fn start() -> Self {
        let (rabbitmq, redis) = (RabbitMq::start().unwrap(), Redis::start().unwrap());
        let (broker_url, store_url) = (rabbitmq.url(), redis.url());
        Self { rabbitmq: Mutex::new(rabbitmq), redis: Mutex::new(redis), broker_url, store_url }
    }

    fn broker_at(url: &str) -> AmqpBroker {
        let config = AmqpConfig::parse(url).unwrap();
        AmqpBroker::new(config.with_confirm_timeout(Duration::from_secs(5))).unwrap()
    }

    /// A user of the broker, as whom somebody connects.
    fn broker_as(&self, name: &str) -> AmqpBroker {
        let rabbitmq = self.rabbitmq.lock().unwrap();
        let all = ".*";
        let user = User {
            name,
            password: "known to the test",
            configure: all,
            write: all,
            read: all,
            ..User::default()
        };
        rabbitmq.add_user(&user).unwrap();
        Self::broker_at(&rabbitmq.url_for(name, user.password))
    }
}

impl Services for Real {
    type B = AmqpBroker;
    type S = RedisStore;

    fn broker(&self) -> AmqpBroker {
        Self::broker_at(&self.broker_url)
    }

    fn store(&self) -> RedisStore {
        RedisStore::new(&RedisConfig::parse(&self.store_url).unwrap()).unwrap()
    }
}

/// One program of tests and one pair of services: they take seconds to start.
#[tokio::test(flavor = "multi_thread")]
async fn outcomes_with_real_services() {
    let services = Real::start();
    let (tree, linear) = (Example::tree(), Example::linear());
    outcomes::scores(&services, &tree, &linear).await;
    outcomes::refusals(&services, &tree, &linear).await;
    outcomes::keys(&services, &tree).await;
    wrong_digest(&services, &tree).await;
    outcomes::bulk::bulk(&services, &Bulk::new(), Some(Chunks(&services))).await;
    outcomes::dead_letters(&services, &linear).await;
    outcomes::poison(&services, &linear).await;
    outcomes::once(&services, &linear).await;
    outcomes::stopped_midway(&services, &tree).await;
    outcomes::drained(&services, &tree).await;
    forged(&services, &linear).await;
    store_away(&services, &tree, &linear).await;
    broker_away(&services, &tree).await;
    let (trees, linears) = ([&tree, &Example::tree()], [&linear, &Example::linear()]);
    outcomes::fleet(&services, trees, linears, 200).await;
}

/// What the store holds under the id of a key is another key.
async fn wrong_digest(services: &Real, tree: &Example) {
    let mut worker = services.start_worker(|_| ()).await;
    let mut tester = services.tester("digest").await;
    tester.put_key(tree).await;
    let name = BlobName::evaluation_key(&tester.tenant, tree.key_id());
    overwrite(services, &chunk(&name, 5)).await;
    tester.expect_failure(&tester.job(tree, &[0]), ErrorCode::WrongDigest).await;
    worker.drain();
    worker.ended().await;
}

/// Pattern of the name under which Redis has a chunk.
fn chunk(name: &BlobName, index: u32) -> String {
    format!("cs:{}:{}:{}:chunk:*:{index}", name.tenant, name.kind, name.id)
}

/// Writes one byte into the chunk with this pattern of a name, past the store.
async fn overwrite(services: &Real, pattern: &str) {
    let (mut connection, key) = chunk_key(services, pattern).await;
    let mut set = redis::cmd("SETRANGE");
    set.arg(key).arg(100).arg("x").query_async::<()>(&mut connection).await.unwrap();
}

async fn chunk_key(services: &Real, pattern: &str) -> (redis::aio::MultiplexedConnection, String) {
    let client = redis::Client::open(services.store_url.as_str()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut keys = redis::cmd("KEYS");
    let mut keys: Vec<String> = keys.arg(pattern).query_async(&mut connection).await.unwrap();
    assert_eq!(keys.len(), 1);
    (connection, keys.swap_remove(0))
}

/// The chunks in the middle of uploads.
struct Chunks<'a>(&'a Real);

impl Damage for Chunks<'_> {
    async fn change(&self, blob: &Blob) {
        overwrite(self.0, &chunk(blob.name(), 2)).await;
    }

    async fn remove(&self, blob: &Blob) {
        let (mut connection, key) = chunk_key(self.0, &chunk(blob.name(), 2)).await;
        redis::cmd("DEL").arg(key).query_async::<()>(&mut connection).await.unwrap();
    }
}

/// The broker says whose a job is, and nobody is answered in another one's queue.
async fn forged(services: &Real, linear: &Example) {
    let worker_broker = services.broker_as("worker");
    let by_user = |config: &mut cipherscore_worker::config::WorkerConfig| {
        config.worker.tenants = Tenants::ByUser;
        config.worker.gateway_users = vec!["gateway".into()];
    };
    let mut worker = crate::support::start_worker(&worker_broker, services.store(), by_user).await;
    let mut alice = Tester::new(services.broker_as("alice"), services.store(), "alice").await;
    let mut bob = Tester::new(services.broker_as("bob"), services.store(), "bob").await;
    alice.expect_scores(linear, &[0]).await;

    // Alice says that she is Bob, and wants the answer herself.
    let mut job = alice.job(linear, &[0]);
    job.tenant = bob.tenant.clone();
    alice.expect_failure(&job, ErrorCode::Forbidden).await;

    // Alice wants Bob to get the answer.
    let mut job = alice.job(linear, &[0]);
    job.reply_to = bob.reply_to.clone();
    alice.publish(&job).await;
    let dead = alice.dead().await;
    assert_eq!(dead.text(headers::DEAD_CODE), Some(ErrorCode::Forbidden.as_str()));
    assert_eq!(dead.text(headers::PUBLISHED_BY), Some("alice"));
    assert!(bob.reply_within(Duration::from_millis(300)).await.is_none());

    // A gateway publishes for Bob, and is answered where Bob is; it gives nobody what is another one's.
    let gateway = services.broker_as("gateway");
    let mut job = bob.job(linear, &[0]);
    gateway.publish(&job.to_message()).await.unwrap();
    assert_eq!(bob.reply().await.job, job.id);
    job.reply_to = alice.reply_to.clone();
    gateway.publish(&job.to_message()).await.unwrap();
    let dead = bob.dead().await;
    assert_eq!(dead.text(headers::DEAD_CODE), Some(ErrorCode::Forbidden.as_str()));
    assert_eq!(dead.text(headers::PUBLISHED_BY), Some("gateway"));
    assert!(alice.reply_within(Duration::from_millis(300)).await.is_none());
    worker.drain();
    worker.ended().await;
}

/// A store that is away puts jobs off; when it is back they are done, and nobody is told twice.
async fn store_away(services: &Real, tree: &Example, linear: &Example) {
    let mut worker = services.start_worker(|_| ()).await;
    let mut tester = services.tester("store-away").await;
    tester.expect_scores(linear, &[0]).await;
    services.redis.lock().unwrap().kill();
    let jobs: Vec<_> = (0..5).map(|row| tester.job(linear, &[row])).collect();
    for job in &jobs {
        tester.publish(job).await;
    }
    assert!(tester.reply_within(Duration::from_secs(3)).await.is_none());
    services.redis.lock().unwrap().restart().unwrap();
    let mut answered: Vec<_> = Vec::new();
    for _ in &jobs {
        let reply = tester.reply().await;
        let number = jobs.iter().position(|job| job.id == reply.job).unwrap();
        let scores = linear.decrypt(&tester.outputs(&reply).await, 1);
        crate::support::assert_same_scores(&scores, &linear.clear(&[number]));
        answered.push(number);
    }
    answered.sort_unstable();
    assert_eq!(answered, [0, 1, 2, 3, 4]);
    // The restart has lost all keys: that is the producer's to mend.
    let job = tester.job(tree, &[0]);
    tester.expect_failure(&job, ErrorCode::KeyMissing).await;
    tester.put_key(tree).await;
    tester.expect_scores(tree, &[0]).await;
    worker.drain();
    worker.ended().await;
}

/// A broker that dies while a job is evaluated delivers it again; it is answered once more at
/// most, under the same id.
async fn broker_away(services: &Real, tree: &Example) {
    let mut worker = services.start_worker(|_| ()).await;
    let mut tester = services.tester("broker-away").await;
    tester.put_key(tree).await;
    tester.expect_scores(tree, &[0]).await;
    let rows: Vec<_> = (0..30).collect();
    let job = tester.job(tree, &rows);
    tester.publish(&job).await;
    while worker.presence().jobs == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // RabbitMQ 3.10 keeps what it confirmed only some time after a queue was made.
    tokio::time::sleep(Duration::from_secs(2)).await;
    {
        let mut rabbitmq = services.rabbitmq.lock().unwrap();
        rabbitmq.kill();
        rabbitmq.restart().unwrap();
    }
    tester.reconnect().await;
    let reply = tester.reply().await;
    assert_eq!(reply.job, job.id);
    let scores = tree.decrypt(&tester.outputs(&reply).await, job.rows);
    crate::support::assert_same_scores(&scores, &tree.clear(&rows));
    // It is delivered again, once the worker consumes again, and the mark of what is done answers
    // that.
    let (broker, queue) = (services.broker(), job_queue(tree.id, Lane::Normal));
    let settled = async {
        loop {
            let state = broker.queue_state(&queue).await.unwrap().unwrap();
            if (state.messages, state.consumers, worker.presence().jobs) == (0, 1, 0) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(crate::support::PATIENCE, settled).await.unwrap();
    assert!(tester.reply_within(Duration::from_secs(1)).await.is_none());
    worker.drain();
    worker.ended().await;
    assert_eq!(broker.queue_state(&queue).await.unwrap().unwrap().messages, 0);
}
