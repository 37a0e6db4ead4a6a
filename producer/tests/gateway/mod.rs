//! A gateway as broker and store, request by request, as `docs/gateway.md` says them.

mod blobs;
mod feed;
mod killed;
mod scripted;

use std::time::Duration;

use cipherscore_common::broker::{Broker, BrokerError, QueuePrefetch, QueueState};
use cipherscore_common::message::{
    Job, JobTerms, Message, Outcome, Payload, ProtocolVersion, Reply, Timings, headers,
};
use cipherscore_common::topology::{Declare, Lane, ReplyQueue, Topology, job_queue};
use cipherscore_common::{
    Blob, BlobStore, Digest, EvaluationKeyId, JobId, Lease, ModelId, OwnerStore, StoreError, Tenant,
};
use cipherscore_producer::gateway::GatewayError;
use serde_json::json;

use self::scripted::{Scripted, TENANT, TOKEN, ok, open, problem, status};

const CLIENT: &str = "client-1";
/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

fn tenant() -> Tenant {
    TENANT.parse().unwrap()
}

fn model() -> ModelId {
    ModelId::of(b"a model")
}

fn queue() -> ReplyQueue {
    ReplyQueue::new(&tenant(), CLIENT).unwrap()
}

fn job(id: JobId) -> Message {
    Job {
        version: ProtocolVersion::V2,
        id,
        tenant: tenant(),
        reply_to: queue(),
        correlation_id: Some("an order".into()),
        model_id: model(),
        lane: Lane::High,
        key_id: Some(EvaluationKeyId::of(b"a key")),
        rows: 7,
        deadline: None,
        terms: JobTerms { planned: Some(Duration::from_micros(90)), ..JobTerms::default() },
        attempt: 0,
        trace: None,
        payload: Payload::Inline(b"rows".to_vec()),
    }
    .to_message()
}

fn reply(id: JobId) -> Message {
    Reply {
        version: ProtocolVersion::V2,
        job: id,
        correlation_id: None,
        model_id: Some(model()),
        owner_id: None,
        manifest_id: None,
        worker: "w-1".into(),
        timings: Timings { evaluate: Duration::from_micros(3400), ..Timings::default() },
        trace: None,
        outcome: Outcome::Scored(Payload::Inline(b"outputs".to_vec())),
    }
    .to_message(&queue())
}

#[tokio::test]
async fn a_job_goes_as_the_page_says() {
    let server = Scripted::start(|_| status(202, "{}")).await;
    let (client, id) = (server.client().await, JobId::random());
    let mut message = job(id);
    message.set("cs-opt-colour", "blue");
    client.publish(&message).await.unwrap();
    let [asked] = &server.asked()[..] else { panic!("one request") };
    assert_eq!(asked.what, format!("PUT /v1/models/{}/jobs/{id}", model()));
    assert_eq!(asked.body, message.body);
    for (name, expected) in [
        ("content-type", "application/vnd.cipherscore.body"),
        ("cs-client", "client-1"),
        ("cs-correlation-id", "an order"),
        (headers::ROWS, "7"),
        (headers::LANE, "high"),
        (headers::PLANNED, "90"),
        ("cs-opt-colour", "blue"),
        ("content-length", &message.body.len().to_string()),
    ] {
        assert_eq!(asked.header(name), Some(expected), "{name}");
    }
    assert_eq!(asked.header(headers::KEY_ID), message.text(headers::KEY_ID));
    // The token says the tenant, and the path the model.
    for name in [headers::TENANT, headers::MODEL_ID, headers::ATTEMPT] {
        assert_eq!(asked.header(name), None, "{name}");
    }
}

#[tokio::test]
async fn what_is_said_of_a_job_is_what_a_broker_says() {
    let temporary = |error: &BrokerError| matches!(error, BrokerError::Unavailable { .. });
    let refused = |error: &BrokerError| matches!(error, BrokerError::Refused { .. });
    let unroutable = |error: &BrokerError| matches!(error, BrokerError::Unroutable { .. });
    let full = |error: &BrokerError| matches!(error, BrokerError::Full { .. });
    type Is = fn(&BrokerError) -> bool;
    let cases: [(u16, &str, Is); 7] = [
        (404, "unknown_model", unroutable),
        (503, "queue_full", full),
        (503, "unavailable", temporary),
        (429, "rate_limited", temporary),
        (409, "job_conflict", refused),
        (401, "unauthorized", refused),
        (500, "internal", refused),
    ];
    for (number, code, is) in cases {
        let server = Scripted::start(move |_| problem(number, code)).await;
        let error = server.client().await.publish(&job(JobId::random())).await.unwrap_err();
        assert!(is(&error), "{code}: {error:?}");
        assert!(!format!("{error} {error:?}").contains(TOKEN));
    }
    // It was published before, and its result was taken.
    let server = Scripted::start(|_| problem(410, "job_settled")).await;
    server.client().await.publish(&job(JobId::random())).await.unwrap();
}

#[tokio::test]
async fn what_is_not_a_job_of_the_tokens_tenant_is_not_sent() {
    let server = Scripted::start(|_| panic!("nothing is asked")).await;
    let client = server.client().await;
    let theirs = ReplyQueue::new(&"other".parse().unwrap(), "client-1").unwrap();
    let message = Message { reply_to: Some(theirs.to_string()), ..job(JobId::random()) };
    let no_job = Message { exchange: "cs.dead".into(), ..job(JobId::random()) };
    let long = Message { correlation_id: Some("x".repeat(191)), ..job(JobId::random()) };
    for wrong in [message, no_job, reply(JobId::random()), long] {
        let refused = client.publish(&wrong).await;
        assert!(matches!(refused, Err(BrokerError::Refused { .. })), "{refused:?}");
    }
    for queue in [theirs.to_string(), job_queue(model(), Lane::High)] {
        let refused = client.subscribe(&[QueuePrefetch { queue, prefetch: 1 }]).await.map(drop);
        assert!(matches!(refused, Err(BrokerError::Refused { .. })), "{refused:?}");
    }
    let key = Blob::evaluation_key(&"other".parse().unwrap(), b"key".to_vec()).unwrap();
    let refused = client.put(&key, Some(Lease::DEFAULT), &|| ()).await;
    assert!(matches!(refused, Err(StoreError::Refused { .. })), "{refused:?}");
    assert!(client.check(&"other".parse().unwrap()).await.is_err());
    assert!(client.check(&tenant()).await.is_ok());
    let settings = client.require_tenant(&"other".parse().unwrap());
    assert!(matches!(settings, Err(GatewayError::OtherTenant { .. })), "{settings:?}");
    assert_eq!(client.require_tenant(&Tenant::default()).unwrap(), tenant());
}

#[tokio::test]
async fn who_is_away_or_does_not_know_us_is_an_error_at_once() {
    let server = Scripted::start(|_| panic!("nothing is asked")).await;
    let client = server.client().await;
    for declare in [Declare::Create, Declare::Verify, Declare::Leave] {
        client.declare(&Topology::of_client(&queue()), declare).await.unwrap();
    }
    let url = server.client().await;
    drop(url);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = open(&format!("http://{free}"), TOKEN).await.map(drop).unwrap_err().to_string();
    assert!(error.contains("refused"), "{error}");
    drop(server);
    let gone = client.declare(&Topology::of_client(&queue()), Declare::Verify).await;
    assert!(gone.is_err_and(|error| error.is_temporary()));
}

#[tokio::test]
async fn queues_models_and_jobs_are_asked_for_by_their_paths() {
    let zip = b"a client.zip";
    let server = Scripted::start(move |asked| {
        let lanes = json!({"high": {"messages": 0, "consumers": 3},
            "normal": {"messages": 17, "consumers": 2}});
        let client_zip = json!({"bytes": zip.len(), "sha256": Digest::of(zip).to_string()});
        let model_id = model().to_string();
        match asked.what.split('/').next_back() {
            Some("client.zip") => {
                let mut answer = ok(&zip[..]);
                let digest = Digest::of(zip).to_string().parse().unwrap();
                answer.headers_mut().insert("cs-payload-sha256", digest);
                answer
            }
            Some("cancel") => status(202, "{}"),
            Some("models") => {
                let model = json!({"model_id": model_id, "client_zip": client_zip, "workers": 3});
                ok(json!({"models": [model]}).to_string())
            }
            _ => ok(json!({"model_id": model_id, "client_zip": null, "lanes": lanes}).to_string()),
        }
    })
    .await;
    let (client, id) = (server.client().await, JobId::random());
    let state = client.queue_state(&job_queue(model(), Lane::Normal)).await;
    assert_eq!(state, Ok(Some(QueueState { messages: 17, consumers: 2 })));
    client.cancel(&tenant(), id).await.unwrap();
    let [served] = &client.models().await.unwrap()[..] else { panic!("one model") };
    assert_eq!((served.model_id, served.workers), (model(), 3));
    assert_eq!(served.client_zip.as_ref().unwrap().bytes, zip.len() as u64);
    assert_eq!(client.client_zip(model()).await.unwrap(), zip);
    let model = model();
    let expected = [
        format!("GET /v1/models/{model}"),
        format!("POST /v1/jobs/{id}/cancel"),
        "GET /v1/models".to_owned(),
        format!("GET /v1/models/{model}/client.zip"),
    ];
    assert_eq!(server.paths(), expected);
}
