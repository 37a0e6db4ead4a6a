//! The routes, on a broker and a store in memory.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod blobs;
mod cml;
mod feed;
mod jobs;
mod refusals;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use cipherscore_common::broker::{
    Broker as _, Disposition, MemoryBroker, QueuePrefetch, Subscription as _,
};
use cipherscore_common::contract::fixtures::tenant;
use cipherscore_common::message::{Job, Message, Outcome, Payload, Reply, Timings};
use cipherscore_common::topology::{Declare, Lane, Topology, job_queue};
use cipherscore_common::{Blob, BlobKind, BlobStore as _, JobId, MemoryStore, ModelId};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tower::ServiceExt as _;

use crate::config::GatewayConfig;
use crate::gateway::Gateway;
use crate::routes::router;
use crate::shared::Shared;
use crate::tokens::TokenFile;

const PATIENCE: Duration = Duration::from_secs(60);

/// A gateway that takes replies, two tenants with tokens, and what its workers would be.
struct World {
    shared: Arc<Shared<MemoryBroker, MemoryStore>>,
    router: Router,
    /// Of bank and of shop.
    tokens: [String; 2],
    broker: MemoryBroker,
    store: MemoryStore,
    model: ModelId,
    _folder: tempfile::TempDir,
}

/// What was answered.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    /// Refused with this status and code.
    fn refused(&self, status: u16, code: &str) {
        let said = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status.as_u16(), status, "{said}");
        let json = self.json();
        assert_eq!((&json["code"], &json["status"]), (&code.into(), &status.into()));
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(json["type"], format!("urn:cipherscore:problem:{code}"));
    }

    /// Lines of a feed, and what its last one says.
    fn lines(&self) -> (Vec<Value>, Option<String>) {
        let text = std::str::from_utf8(&self.body).unwrap();
        let mut lines: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let end = lines.pop().unwrap();
        assert!(end.get("job_id").is_none(), "{end}");
        (lines, end["next"].as_str().map(str::to_owned))
    }
}

impl World {
    async fn new() -> Self {
        Self::with(|_| ()).await
    }

    async fn with(change: impl FnOnce(&mut GatewayConfig)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        let file = TokenFile::new(&path);
        let tokens = ["bank", "shop"].map(|name| file.add(&tenant(name)).unwrap().0);
        let mut config = GatewayConfig::default();
        config.gateway.tokens_file = Some(path);
        change(&mut config);
        let (broker, store) = (MemoryBroker::default(), MemoryStore::default());
        let model = ModelId::of(b"model");
        broker.declare(&Topology::shared(), Declare::Create).await.unwrap();
        broker.declare(&Topology::of_model(model), Declare::Create).await.unwrap();
        let gateway = Gateway::open(config, broker.as_user("gateway"), store.clone()).unwrap();
        let shared = Arc::clone(&gateway.shared);
        tokio::spawn(Arc::clone(&shared).take_replies());
        let router = router(&shared);
        while !shared.condition.is_consuming.load(std::sync::atomic::Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Self { shared, router, tokens, broker, store, model, _folder: folder }
    }

    /// Asks as the bank.
    async fn ask(&self, method: &str, path: &str, said: &[(&str, &str)], body: &[u8]) -> Answer {
        self.ask_as(Some(&self.tokens[0]), method, path, said, body).await
    }

    async fn ask_as(
        &self,
        token: Option<&str>,
        method: &str,
        path: &str,
        said: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in said {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_vec())).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes().to_vec();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    fn job_path(&self, job: JobId) -> String {
        format!("/v1/models/{}/jobs/{job}", self.model)
    }

    /// Publishes a job of few rows.
    async fn publish(&self, client: Option<&str>, rows: &[u8]) -> JobId {
        let job = JobId::random();
        let mut said = vec![("cs-rows", "1")];
        said.extend(client.map(|client| ("cs-client", client)));
        let answer = self.ask("PUT", &self.job_path(job), &said, rows).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{:?}", answer.body);
        job
    }

    /// Takes the next job as a worker does, and answers it unless there is no outcome.
    async fn work(&self, outcome: impl FnOnce(&Job) -> Outcome) -> (Message, Job) {
        let worker = self.broker.as_user("worker");
        let queue = |lane| QueuePrefetch { queue: job_queue(self.model, lane), prefetch: 1 };
        let mut jobs = worker.subscribe(&Lane::ALL.map(queue)).await.unwrap();
        let delivery = tokio::time::timeout(PATIENCE, jobs.next()).await.unwrap().unwrap();
        let message = delivery.message.clone();
        let job = Job::from_message(&message).unwrap();
        let reply = Reply {
            version: job.version,
            job: job.id,
            correlation_id: job.correlation_id.clone(),
            model_id: Some(job.model_id),
            owner_id: job.terms.owner_id,
            manifest_id: None,
            worker: "w-1".into(),
            timings: Timings { key: Duration::ZERO, evaluate: Duration::from_micros(1234) },
            trace: job.trace,
            outcome: outcome(&job),
        };
        worker.publish(&reply.to_message(&job.reply_to)).await.unwrap();
        delivery.settle(Disposition::Ack).await.unwrap();
        (message, job)
    }

    /// As [`Self::work`], with outputs in the message.
    async fn score(&self, outputs: &[u8]) -> (Message, Job) {
        self.work(|_| Outcome::Scored(Payload::Inline(outputs.to_vec()))).await
    }

    /// As [`Self::work`], with outputs in the store.
    async fn score_large(&self, owner: &str, outputs: Vec<u8>) {
        let (blob, stored) = Blob::payload(&tenant(owner), BlobKind::Reply, outputs).unwrap();
        self.store.put(&blob, None, &|| ()).await.unwrap();
        self.work(|_| Outcome::Scored(Payload::Stored(stored))).await;
    }

    /// Jobs that wait for a worker.
    async fn waiting(&self) -> u32 {
        let mut all = 0;
        for lane in Lane::ALL {
            let state = self.broker.queue_state(&job_queue(self.model, lane)).await.unwrap();
            all += state.unwrap().messages;
        }
        all
    }

    async fn blobs(&self, owner: &str, kind: BlobKind) -> usize {
        self.store.list(&tenant(owner), kind).await.unwrap().len()
    }
}
