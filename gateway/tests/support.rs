//! A fleet with a gateway, and a client that speaks HTTP over a socket.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use cipherscore_artifact::clear::{ClearFeature, ClearModel};
use cipherscore_artifact::client_zip::open_client;
use cipherscore_artifact::matrix::Matrix;
use cipherscore_artifact::model::{ClientModel, Encryption};
use cipherscore_common::broker::amqp::{AmqpBroker, AmqpConfig};
use cipherscore_common::{JobId, ModelId, RedisConfig, RedisStore, Tenant};
use cipherscore_concrete::recorder::RecorderCommand;
use cipherscore_gateway::config::GatewayConfig;
use cipherscore_gateway::{Gateway, GatewayHandle, TokenFile};
use cipherscore_testbed::{RabbitMq, Redis};
use cipherscore_worker::config::WorkerConfig;
use cipherscore_worker::{Tenants, Worker, WorkerHandle};
use http_body_util::BodyExt as _;
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpStream;

/// How long a test waits for what must come. Machines that run tests are slow at times.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Broker, store, a folder, and a model that encrypts nothing.
pub(crate) struct Fleet {
    pub(crate) rabbitmq: RabbitMq,
    pub(crate) redis: Redis,
    pub(crate) folder: TempDir,
    pub(crate) token: String,
    pub(crate) model_id: ModelId,
    pub(crate) encryption: Arc<dyn Encryption>,
    model: Arc<dyn ClientModel>,
}

impl Fleet {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let features = vec![ClearFeature { name: "amount".into(), weight: -0.5 }];
        let zips = ClearModel { features, intercept: 2.0 }.zips().unwrap();
        std::fs::create_dir(folder.path().join("models")).unwrap();
        std::fs::write(folder.path().join("models/clear.zip"), &zips.server).unwrap();
        let model = open_client(&zips.client).unwrap();
        let keys = model.make_keys(&|| ()).unwrap();
        let encryption = Arc::clone(&model).with_key(&keys.client).unwrap();
        let tenant: Tenant = "bank".parse().unwrap();
        let token = TokenFile::new(folder.path().join("tokens")).add(&tenant).unwrap().0;
        Self {
            rabbitmq: RabbitMq::start().unwrap(),
            redis: Redis::start().unwrap(),
            folder,
            token,
            model_id: model.model_id().unwrap(),
            encryption,
            model,
        }
    }

    fn broker(&self) -> AmqpBroker {
        let config = AmqpConfig::parse(&self.rabbitmq.url()).unwrap();
        AmqpBroker::new(config.with_confirm_timeout(Duration::from_secs(5))).unwrap()
    }

    pub(crate) fn store(&self) -> RedisStore {
        RedisStore::new(&RedisConfig::parse(&self.redis.url()).unwrap()).unwrap()
    }

    /// A worker that believes the gateway whose a job is.
    pub(crate) async fn start_worker(&self) -> WorkerHandle<AmqpBroker, RedisStore> {
        let mut config = WorkerConfig::default();
        config.models.folder = Some(self.folder.path().join("models"));
        config.health.listen = None;
        config.worker.max_job_rows = 1_000_000;
        config.worker.tenants = Tenants::ByUser;
        config.worker.worker_users = vec!["nobody".into()];
        config.worker.gateway_users = vec![RabbitMq::USER.into()];
        let recorder = RecorderCommand::new("/nonexistent", Vec::new());
        let worker = Worker::open(config, self.broker(), self.store(), recorder).await.unwrap();
        worker.start().await.unwrap()
    }

    pub(crate) fn tokens(&self) -> PathBuf {
        self.folder.path().join("tokens")
    }

    pub(crate) fn config(&self) -> GatewayConfig {
        let mut config = GatewayConfig::default();
        config.gateway.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        config.gateway.tokens_file = Some(self.tokens());
        config.health.listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        config.gateway.grace_period = Duration::from_secs(5);
        config
    }

    pub(crate) async fn start_gateway(&self, config: GatewayConfig) -> GatewayHandle {
        let gateway = Gateway::open(config, self.broker(), self.store()).unwrap();
        let handle = gateway.start().await.unwrap();
        let ready = async {
            while ask(handle.health.unwrap(), "GET", "/readyz", &[], b"").await.unwrap().status
                != StatusCode::OK
            {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, ready).await.unwrap();
        handle
    }

    /// Rows of one feature, as the model takes them.
    pub(crate) fn rows(&self, values: &[f64]) -> Vec<u8> {
        self.encryption.encrypt(&Matrix::new(1, values.to_vec())).unwrap().body
    }

    /// What the outputs of rows say.
    pub(crate) fn scores(&self, outputs: &[u8], rows: u32) -> Vec<f64> {
        let integers = self.encryption.decrypt(outputs, rows, None).unwrap();
        integers.rows().map(|row| self.model.scores(row).unwrap()[0]).collect()
    }

    /// Asks with the token of the bank.
    pub(crate) async fn ask(
        &self,
        at: SocketAddr,
        method: &str,
        path: &str,
        said: &[(&str, &str)],
        body: &[u8],
    ) -> std::io::Result<HttpAnswer> {
        let bearer = format!("Bearer {}", self.token);
        let said = [said, &[("authorization", bearer.as_str())]].concat();
        ask(at, method, path, &said, body).await
    }

    /// Waits until a worker serves the model, as a client sees it.
    pub(crate) async fn wait_for_worker(&self, at: SocketAddr) {
        let path = format!("/v1/models/{}", self.model_id);
        let served = async {
            loop {
                let answer = self.ask(at, "GET", &path, &[], b"").await.unwrap();
                if answer.status == StatusCode::OK
                    && answer.json()["lanes"]["normal"]["consumers"] != 0
                {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, served).await.unwrap();
    }

    pub(crate) fn job_path(&self, job: JobId) -> String {
        format!("/v1/models/{}/jobs/{job}", self.model_id)
    }
}

/// What was answered.
pub(crate) struct HttpAnswer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl HttpAnswer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    pub(crate) fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// One request on a connection of its own.
pub(crate) async fn ask(
    at: SocketAddr,
    method: &str,
    path: &str,
    said: &[(&str, &str)],
    body: &[u8],
) -> std::io::Result<HttpAnswer> {
    let stream = TcpStream::connect(at).await?;
    let (mut sender, connection) =
        handshake::<_, Body>(TokioIo::new(stream)).await.map_err(std::io::Error::other)?;
    let connection = tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(path).header("host", "gateway");
    for (name, value) in said {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::from(body.to_vec())).unwrap();
    let response = sender.send_request(request).await.map_err(std::io::Error::other)?;
    let (parts, body) = response.into_parts();
    let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
    connection.abort();
    Ok(HttpAnswer { status: parts.status, headers: parts.headers, body })
}
