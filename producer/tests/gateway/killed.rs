//! Files through a real gateway, with RabbitMQ and Redis or both in memory behind it: nothing is lost and
//! nothing comes twice, whenever the gateway is killed.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use cipherscore_common::broker::amqp::{AmqpBroker, AmqpConfig};
use cipherscore_common::broker::{Broker, Subscription};
use cipherscore_common::contract::fixtures::{key, tenant};
use cipherscore_common::message::Payload;
use cipherscore_common::{
    BlobKind, BlobStore, GatewayStore, JobId, MemoryStore, RedisConfig, RedisStore, Tenant,
};
use cipherscore_gateway::config::GatewayConfig;
use cipherscore_gateway::{Gateway, TokenFile};
use cipherscore_producer::events::Events;
use cipherscore_producer::gateway::{GatewayAccess, GatewayClient, GatewaySettings};
use cipherscore_producer::score::{RowsPerJob, ScoreRequest, score};
use cipherscore_producer::submit::submit;
use cipherscore_testbed::{Certificates, RabbitMq, Redis, Relay};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use super::feed::subscribe;
use super::scripted::open;
use crate::support::{Conduct, LINEAR, Owner, Services, TREE, Worker, ids, until};
use crate::{score as scoring, submit as submitting};

/// The committed rows are eight, and a job has three.
const TIMES: usize = 4;
const ROWS: u64 = 8 * TIMES as u64;
const JOBS: usize = 11;
/// How long a killed gateway is away.
const AWAY: Duration = Duration::from_millis(700);

/// What a gateway keeps when it is killed: its address and its tokens.
struct Place {
    folder: TempDir,
    token: String,
    tenant: Tenant,
    address: SocketAddr,
    certificates: Option<Certificates>,
    /// What is between it and the broker, if anything.
    relay: Option<Relay>,
}

impl Place {
    fn new(tenant: Tenant) -> Self {
        let folder = TempDir::new().unwrap();
        let (token, _) = TokenFile::new(folder.path().join("tokens")).add(&tenant).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        Self { folder, token, tenant, address, certificates: None, relay: None }
    }

    async fn client(&self) -> GatewayClient {
        open(&format!("http://{}", self.address), &self.token).await.unwrap()
    }
}

/// A gateway on threads of its own: what ends them kills it.
struct Running(Option<Runtime>);

impl Running {
    /// Begins where it was before. `services` are opened in its threads.
    fn start<B: Broker, S: GatewayStore>(
        place: &mut Place,
        services: impl FnOnce() -> (B, S) + Send,
    ) -> Self {
        let mut config = GatewayConfig::default();
        config.gateway.listen = place.address;
        config.gateway.tokens_file = Some(place.folder.path().join("tokens"));
        config.health.listen = None;
        if let Some(certificates) = &place.certificates {
            config.tls.certificate_file = Some(certificates.server_certificate());
            config.tls.key_file = Some(certificates.server_key());
        }
        // This thread is of another runtime.
        let started = std::thread::scope(|scope| {
            let start = || {
                let runtime =
                    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
                let handle = runtime.block_on(async {
                    let (broker, store) = services();
                    Gateway::open(config, broker, store).unwrap().start().await.unwrap()
                });
                (runtime, handle.address)
            };
            scope.spawn(start).join().unwrap()
        });
        place.address = started.1;
        Self(Some(started.0))
    }

    fn kill(&mut self) {
        self.0.take().expect("it runs").shutdown_background();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.0.is_some() {
            self.kill();
        }
    }
}

fn request(owner: &Owner, place: &Place) -> ScoreRequest {
    let mut request = scoring::request(owner, &owner.input(TIMES));
    request.settings.tenant = place.tenant.clone();
    request
}

/// Scores a file while the gateway is killed each time that the worker has seen so many jobs.
async fn score_killed<B: Broker, S: GatewayStore>(
    place: &mut Place,
    owner: &Owner,
    worker: &Worker,
    kills: &[usize],
    services: impl Fn() -> (B, S) + Send + Sync,
) {
    let mut running = Running::start(place, &services);
    let client = place.client().await;
    let (broker, store) = (Arc::new(client.clone()), Arc::new(client));
    let request = request(owner, place);
    let faults = async {
        for kill in kills {
            until(|| worker.seen().len() >= *kill).await;
            running.kill();
            // A connection of lapin outlives the threads of its runtime, but no process.
            place.relay.as_ref().map(Relay::cut);
            tokio::time::sleep(AWAY).await;
            running = Running::start(place, &services);
        }
    };
    let (report, ()) = tokio::join!(score(broker, store, request, Events::ignored()), faults);
    let report = report.unwrap();
    assert_eq!((report.rows_scored, report.rows_failed), (ROWS, 0), "{report:?}");
    assert_eq!((report.jobs_published, report.jobs_published_again), (JOBS as u64, 0));
    assert_eq!(scoring::integers(&report.output), scoring::all(owner.expected(TIMES)));
    let mut jobs = ids(&worker.seen());
    jobs.sort();
    jobs.dedup();
    assert_eq!(jobs.len(), JOBS, "no job is lost, and none is made twice");
    drop(running);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_scored_while_the_gateway_is_killed() {
    let (services, owner) = (Services::default(), Owner::new(LINEAR));
    let conduct = |number, _: &_| match number % 2 {
        0 => Conduct::AnswerByStore,
        _ => Conduct::Answer,
    };
    let worker = Worker::start(&services, &owner, conduct).await;
    let mut place = Place::new(tenant("bank"));
    let behind = || (services.broker.clone(), services.store.clone());
    score_killed(&mut place, &owner, &worker, &[2, 6], behind).await;
    // Outputs go with their results.
    let left = services.store.list(&place.tenant, BlobKind::Reply).await.unwrap();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_scored_with_rabbitmq_and_redis_behind_a_gateway_that_is_killed() {
    let (rabbit, redis) = (RabbitMq::start().unwrap(), Redis::start().unwrap());
    let (amqp, url) = (rabbit.url(), redis.url());
    let broker = |url: &str| AmqpBroker::new(AmqpConfig::parse(url).unwrap()).unwrap();
    let store = || RedisStore::new(&RedisConfig::parse(&url).unwrap()).unwrap();
    let owner = Owner::new(LINEAR);
    let conduct = |_, _: &_| Conduct::Answer;
    let worker = Worker::start_at(broker(&amqp), Arc::new(store()), &owner, conduct).await;
    let mut place = Place::new(tenant("bank"));
    let relay = Relay::start(rabbit.address()).unwrap();
    let relayed = rabbit.url_at(relay.address());
    place.relay = Some(relay);
    score_killed(&mut place, &owner, &worker, &[3, 7], || (broker(&relayed), store())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_too_many_for_a_message_go_by_the_store_and_with_their_job() {
    let (services, owner) = (Services::default(), Owner::new(LINEAR));
    let worker = Worker::start(&services, &owner, |_, _: &_| Conduct::AnswerByStore).await;
    let mut place = Place::new(tenant("bank"));
    let behind = (services.broker.clone(), services.store.clone());
    let _running = Running::start(&mut place, || behind);
    let client = Arc::new(place.client().await);
    let mut request = request(&owner, &place);
    request.input = owner.input(2000);
    request.rows_per_job = RowsPerJob::Given(NonZeroU32::new(8000).unwrap());
    let scored = score(Arc::clone(&client), Arc::clone(&client), request, Events::ignored()).await;
    let report = scored.unwrap();
    assert_eq!((report.rows_scored, report.jobs_published), (16000, 2));
    assert_eq!(scoring::integers(&report.output), scoring::all(owner.expected(2000)));
    let stored = |payload: &Payload| matches!(payload, Payload::Stored(_));
    assert!(worker.seen().iter().all(|job| stored(&job.payload)));
    for kind in [BlobKind::Job, BlobKind::Reply] {
        assert!(services.store.list(&place.tenant, kind).await.unwrap().is_empty(), "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_submitted_and_nothing_is_left_in_the_feed() {
    let (services, owner) = (Services::default(), Owner::new(TREE));
    let worker = Worker::start(&services, &owner, |_, _: &_| Conduct::AnswerOften).await;
    let mut place = Place::new(tenant("bank"));
    let behind = (services.broker.clone(), services.store.clone());
    let _running = Running::start(&mut place, || behind);
    let client = Arc::new(place.client().await);
    let mut request = submitting::request(&owner, 2);
    request.settings.tenant = place.tenant.clone();
    let (broker, store) = (Arc::clone(&client), Arc::clone(&client));
    let submitted = submit(broker, store, request, Events::ignored()).await.unwrap();
    assert!(submitted.iter().all(|files| files.error.is_none()), "{submitted:?}");
    submitting::assert_results(&owner, 2);
    let mut jobs = ids(&worker.seen());
    jobs.sort();
    let mut told: Vec<JobId> = submitted.iter().map(|files| files.job).collect();
    told.sort();
    assert_eq!(jobs, told);
    let name = worker.seen()[0].reply_to.client().to_owned();
    let mut feed = subscribe(&client, &name, 5).await;
    let left = tokio::time::timeout(AWAY, feed.next()).await;
    assert!(left.is_err(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_is_known_by_its_certificate() {
    let (certificates, others) = (Certificates::make().unwrap(), Certificates::make().unwrap());
    let services = Services::default();
    let mut place = Place::new(tenant("bank"));
    place.certificates = Some(certificates.clone());
    let _running = Running::start(&mut place, || (services.broker, services.store));
    let open = async |ca_file| {
        let settings = GatewaySettings {
            url: Some(format!("https://{}", place.address).into()),
            token: Some(place.token.clone().into()),
            ca_file: Some(ca_file),
            ..GatewaySettings::default()
        };
        let access = GatewayAccess::from_section(&settings, Duration::from_secs(10)).unwrap();
        GatewayClient::open(access).await
    };
    let client = open(certificates.authority()).await.unwrap();
    assert_eq!(*client.tenant(), place.tenant);
    let error = open(others.authority()).await.map(drop).unwrap_err().to_string();
    assert!(error.contains("certificate"), "{error}");
    assert!(!error.contains(&place.token), "{error}");
}

/// What every store does, as far as a gateway lets a data owner do it.
mod contract {
    use super::*;

    async fn gateway() -> (GatewayClient, (Running, Place)) {
        let mut place = Place::new(tenant("a"));
        let services = Services::default();
        let running = Running::start(&mut place, || (services.broker, MemoryStore::default()));
        (place.client().await, (running, place))
    }

    cipherscore_common::store_contract!(
        gateway,
        tokio::test,
        the_same_again_is_renewed_and_not_sent,
        what_is_not_there_is_not_found,
        a_reader_keeps_its_limit,
    );

    #[tokio::test]
    async fn what_was_put_is_described_and_not_handed_out() {
        let (client, _alive) = gateway().await;
        let blob = key("a");
        let lease = Some("1h".parse().unwrap());
        client.put(&blob, lease, &|| ()).await.unwrap();
        let info = client.info(blob.name()).await.unwrap();
        assert_eq!((info.bytes, info.sha256), (blob.bytes().len() as u64, blob.name().id));
        assert!(info.expires_in.unwrap() <= Duration::from_secs(60 * 60));
        assert!(client.chunk(&info, 0).await.is_err());
    }
}
