//! A worker in miniature: honest answers by the real evaluator, and dishonest ones on request.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cipherscore_artifact::server::open_server;
use cipherscore_common::broker::{Broker, Disposition, MemoryBroker, QueuePrefetch, Subscription};
use cipherscore_common::message::{ErrorCode, Job, Outcome, Payload, Reply, Timings};
use cipherscore_common::topology::{Declare, Lane, Topology, job_queue};
use cipherscore_common::{
    Blob, BlobKind, BlobName, BlobReader, Digest, FormName, JobId, Lease, MemoryStore, ModelId,
    Store,
};
use cipherscore_compiler::{Bins, CompileOptions, WantedForms, compile, read};
use cipherscore_concrete::evaluator::CircuitEvaluator;
use cipherscore_concrete::recorder::RecorderCommand;
use cipherscore_concrete::server::ServerArtifact;
use cipherscore_engine::bulk::artifact::BulkServerArtifact;
use cipherscore_engine::bulk::evaluator::BulkEvaluator;
use cipherscore_engine::evaluator::{Evaluator, PreparedKey};
use cipherscore_producer::client_zip::open_client;
use cipherscore_producer::key_folder::KeyFolder;
use cipherscore_producer::model::{ClientModel, Encryption, FormChoice, model_in_form};
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// How long a test waits for what must come. Machines that run tests are slow at times.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const LINEAR: &str = "linear_regression";
pub(crate) const TREE: &str = "decision_tree_classifier";

pub(crate) fn testdata(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata").join(path)
}

/// A model, its data owner's keys, and a folder for files.
pub(crate) struct Owner {
    pub(crate) name: &'static str,
    pub(crate) model: Arc<dyn ClientModel>,
    pub(crate) keys: KeyFolder,
    pub(crate) folder: TempDir,
    pub(crate) evaluator: Arc<dyn Evaluator>,
    /// Of the form for single rows, if the model has it.
    pub(crate) rows_evaluator: Option<Arc<dyn Evaluator>>,
}

/// A hidden model of `testdata/models`, compiled: `client.zip` and `server.zip`.
pub(crate) fn compiled(name: &str, forms: WantedForms) -> (Vec<u8>, Vec<u8>) {
    let model = std::fs::read(testdata(&format!("models/{name}/model.txt"))).unwrap();
    let options = CompileOptions { bins: Bins::Used, forms, ..CompileOptions::default() };
    let compiled = compile(&read(&model, None).unwrap(), &options).unwrap();
    (compiled.client_zip, compiled.server_zip)
}

impl Owner {
    /// A model with both forms.
    pub(crate) fn of_both(name: &'static str) -> Self {
        let (client, server) = compiled(name, WantedForms::Both);
        let model = open_client(&client).unwrap();
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("client.zip"), &client).unwrap();
        let keys = make_keys(&*model, &folder.path().join("keys"));
        let forms = open_server(&server, None, NonZeroUsize::MIN).unwrap();
        let evaluator = |form| Arc::clone(&forms.get(Some(form)).unwrap().evaluator);
        let rows_evaluator = Some(evaluator(FormName::Rows));
        Self { name, model, keys, folder, evaluator: evaluator(FormName::Bulk), rows_evaluator }
    }

    /// With its model in one form.
    pub(crate) fn encryption_in(&self, form: FormName) -> Arc<dyn Encryption> {
        let model = model_in_form(Arc::clone(&self.model), FormChoice::Only(form), 1).unwrap();
        self.keys.encryption(model.it, || Ok(None)).unwrap()
    }

    /// A hidden model of `testdata/models` that was compiled.
    pub(crate) fn compiled(name: &'static str) -> Self {
        let (client, server) = compiled(name, WantedForms::Bulk);
        let model = open_client(&client).unwrap();
        let folder = TempDir::new().unwrap();
        let keys = make_keys(&*model, &folder.path().join("keys"));
        let server = BulkServerArtifact::open(&server).unwrap();
        let evaluator = Arc::new(BulkEvaluator::new(server).unwrap());
        Self { name, model, keys, folder, evaluator, rows_evaluator: None }
    }

    pub(crate) fn new(name: &'static str) -> Self {
        let read = |path: String| std::fs::read(testdata(&path)).unwrap();
        let model = open_client(&read(format!("concrete/{name}/client.zip"))).unwrap();
        let folder = TempDir::new().unwrap();
        let keys = make_keys(&*model, &folder.path().join("keys"));
        let recorder = RecorderCommand::new("there is none", Vec::new());
        let server = read(format!("imported/{name}.zip"));
        let server = ServerArtifact::open(&server, &recorder).unwrap();
        let evaluator = Arc::new(CircuitEvaluator::new(server).unwrap());
        Self { name, model, keys, folder, evaluator, rows_evaluator: None }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn model_id(&self) -> ModelId {
        self.evaluator.requirements().model_id
    }

    pub(crate) fn encryption(&self) -> Arc<dyn Encryption> {
        self.keys.encryption(Arc::clone(&self.model), || Ok(None)).unwrap()
    }

    /// The committed rows, so many times over, as a file.
    pub(crate) fn input(&self, times: usize) -> PathBuf {
        let text = std::fs::read_to_string(testdata(&format!("concrete/{}/rows.csv", self.name)));
        let text = text.unwrap();
        let (header, rows) = text.split_once('\n').unwrap();
        let path = self.path("rows.csv");
        std::fs::write(&path, format!("{header}\n{}", rows.repeat(times))).unwrap();
        path
    }

    /// What Concrete ML decrypts for these rows.
    pub(crate) fn expected(&self, times: usize) -> Vec<Vec<i64>> {
        let text = std::fs::read(testdata(&format!("concrete/{}/expected.json", self.name)));
        let json: serde_json::Value = serde_json::from_slice(&text.unwrap()).unwrap();
        let rows: Vec<Vec<i64>> = serde_json::from_value(json["outputs"].clone()).unwrap();
        std::iter::repeat_n(rows, times).flatten().collect()
    }
}

pub(crate) fn make_keys(model: &dyn ClientModel, folder: &Path) -> KeyFolder {
    let folder = KeyFolder::new(folder);
    folder.store(&model.make_keys(&|| ()).unwrap(), None).unwrap();
    folder
}

/// Broker and store of one test.
#[derive(Clone, Default)]
pub(crate) struct Services {
    pub(crate) broker: MemoryBroker,
    pub(crate) store: MemoryStore,
}

/// What the worker does with a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Conduct {
    Answer,
    /// The same reply, three times.
    AnswerOften,
    /// Outputs go to the store, whatever their size.
    AnswerByStore,
    /// As before, but the store loses them.
    LoseOutputs,
    /// Outputs that are none.
    Nonsense,
    /// Outputs of single rows that somebody made up: whole, and of no row.
    MadeUp,
    Refuse(ErrorCode),
    /// Never, and the job stays unsettled.
    Keep,
}

/// Decides by the number of the job, from 0, and the job.
type Decide = Box<dyn FnMut(usize, &Job) -> Conduct + Send>;

/// A worker that runs until it is dropped; what it has kept goes back then.
pub(crate) struct Worker {
    task: JoinHandle<()>,
    seen: Arc<Mutex<Vec<Job>>>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Worker {
    pub(crate) async fn start(
        services: &Services,
        owner: &Owner,
        decide: impl FnMut(usize, &Job) -> Conduct + Send + 'static,
    ) -> Self {
        Self::start_at(services.broker.clone(), services.store.clone().into(), owner, decide).await
    }

    /// The same, with any broker and any store.
    pub(crate) async fn start_at<B: Broker, S: Store>(
        broker: B,
        store: Arc<S>,
        owner: &Owner,
        decide: impl FnMut(usize, &Job) -> Conduct + Send + 'static,
    ) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        declare(&broker, owner).await;
        let bench = Bench {
            broker,
            store,
            evaluator: Arc::clone(&owner.evaluator),
            rows_evaluator: owner.rows_evaluator.clone(),
            model_id: owner.model_id(),
            keys: HashMap::new(),
            seen: Arc::clone(&seen),
        };
        let task = tokio::spawn(bench.run(Box::new(decide)));
        Self { task, seen }
    }

    /// The jobs that came, in their order.
    pub(crate) fn seen(&self) -> Vec<Job> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) async fn stop(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

/// Declares what a worker of the model declares.
pub(crate) async fn serve(services: &Services, owner: &Owner) {
    declare(&services.broker, owner).await;
}

async fn declare<B: Broker>(broker: &B, owner: &Owner) {
    for topology in [Topology::shared(), Topology::of_model(owner.model_id())] {
        broker.declare(&topology, Declare::Create).await.unwrap();
    }
}

struct Bench<B, S> {
    broker: B,
    store: Arc<S>,
    evaluator: Arc<dyn Evaluator>,
    rows_evaluator: Option<Arc<dyn Evaluator>>,
    model_id: ModelId,
    keys: HashMap<BlobName, Arc<PreparedKey>>,
    seen: Arc<Mutex<Vec<Job>>>,
}

impl<B: Broker, S: Store> Bench<B, S> {
    async fn run(mut self, mut decide: Decide) {
        let queues = Lane::ALL
            .map(|lane| QueuePrefetch { queue: job_queue(self.model_id, lane), prefetch: 100 });
        let mut subscription = self.broker.subscribe(&queues).await.unwrap();
        let mut kept = Vec::new();
        for number in 0.. {
            let delivery = subscription.next().await.unwrap();
            let job = Job::from_message(&delivery.message).unwrap();
            self.seen.lock().unwrap().push(job.clone());
            let conduct = decide(number, &job);
            if conduct == Conduct::Keep {
                kept.push(delivery);
                continue;
            }
            let outcome = self.outcome(&job, conduct).await;
            let reply = Reply {
                version: job.version,
                job: job.id,
                correlation_id: job.correlation_id.clone(),
                model_id: Some(self.model_id),
                owner_id: job.terms.owner_id,
                manifest_id: None,
                worker: "worker in miniature".into(),
                timings: Timings::default(),
                trace: job.trace,
                outcome,
            };
            let times = if conduct == Conduct::AnswerOften { 3 } else { 1 };
            for _ in 0..times {
                self.broker.publish(&reply.to_message(&job.reply_to)).await.unwrap();
            }
            delivery.settlement.settle(Disposition::Ack).await.unwrap();
        }
    }

    async fn outcome(&mut self, job: &Job, conduct: Conduct) -> Outcome {
        let outputs = match conduct {
            Conduct::Refuse(code) => {
                return Outcome::Failed { code, reason: "on request".into() };
            }
            Conduct::Nonsense => Ok(b"nonsense".to_vec()),
            Conduct::MadeUp => self.evaluate(job).await.map(made_up),
            _ => self.evaluate(job).await,
        };
        let outputs = match outputs {
            Ok(outputs) => outputs,
            Err(code) => return Outcome::Failed { code, reason: "as it is".into() },
        };
        if !matches!(conduct, Conduct::AnswerByStore | Conduct::LoseOutputs) {
            return Outcome::Scored(Payload::Inline(outputs));
        }
        let (blob, stored) = Blob::payload(&job.tenant, BlobKind::Reply, outputs).unwrap();
        if conduct == Conduct::AnswerByStore {
            self.store.put(&blob, Some(Lease::DEFAULT), &|| ()).await.unwrap();
        }
        Outcome::Scored(Payload::Stored(stored))
    }

    async fn evaluate(&mut self, job: &Job) -> Result<Vec<u8>, ErrorCode> {
        let read = async |name: &BlobName| {
            let reader = BlobReader::open(&*self.store, name).await.ok()?;
            reader.read_all(1 << 30).await.ok()
        };
        let payload = match &job.payload {
            Payload::Inline(bytes) => bytes.clone(),
            Payload::Stored(stored) => {
                let (tenant, kind) = (job.tenant.clone(), BlobKind::Job);
                let name = BlobName { tenant, kind, id: stored.sha256 };
                read(&name).await.ok_or(ErrorCode::BlobMissing)?
            }
        };
        let evaluator = match job.terms.form {
            Some(FormName::Rows) => self.rows_evaluator.clone().ok_or(ErrorCode::WrongShape)?,
            _ => Arc::clone(&self.evaluator),
        };
        let mut key = None;
        if evaluator.requirements().needs_key {
            let id = job.key_id.ok_or(ErrorCode::KeyMissing)?;
            let name = BlobName::evaluation_key(&job.tenant, id);
            let bytes = read(&name).await.ok_or(ErrorCode::KeyMissing)?;
            let prepare = || Arc::new(evaluator.prepare(bytes).unwrap());
            key = Some(Arc::clone(self.keys.entry(name).or_insert_with(prepare)));
        }
        let mut evaluation = evaluator.begin(key, job.rows).unwrap();
        evaluation.push(&payload, &|| false).map_err(|_| ErrorCode::WrongShape)?;
        evaluation.finish(&|| false).map_err(|_| ErrorCode::WrongShape)
    }
}

/// A reply of single rows with other words, under a digest of them: anybody can make it.
pub(crate) fn made_up(mut reply: Vec<u8>) -> Vec<u8> {
    const TEXT: &[u8] = b"cipherscore row engine: digests of replies, version 1";
    let end = reply.len() - 32;
    reply[64..end].fill(0x5a);
    let length = u32::try_from(TEXT.len()).unwrap().to_le_bytes();
    let digest = Digest::of(&[&length[..], TEXT, &reply[..end]].concat());
    reply[end..].copy_from_slice(&digest.to_bytes());
    reply
}

/// Waits until something is so.
pub(crate) async fn until(mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "it never became so");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Ids of jobs.
pub(crate) fn ids(jobs: &[Job]) -> Vec<JobId> {
    jobs.iter().map(|job| job.id).collect()
}
