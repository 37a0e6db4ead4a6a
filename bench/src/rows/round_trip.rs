//! Events of one row through RabbitMQ, Redis and a worker process, at a rate, and where the time goes.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use anyhow::{Context, ensure};
use cipherscore_common::message::{Job, JobTerms, Payload, ProtocolVersion};
use cipherscore_common::topology::Lane;
use cipherscore_common::{Blob, EvaluationKeyId, FormName, JobId, ModelId, OwnerId, Tenant};
use cipherscore_compiler::{Bins, CompileOptions, WantedForms, compile, read};
use cipherscore_engine::compiled::CompiledServerArtifact;
use cipherscore_engine::rows::client::{ReplyCounts, RowClient, RowUpload};
use cipherscore_engine::rows::program::{PathEdge, RowProgram};
use cipherscore_engine::rows::ring::RowRing;
use cipherscore_engine::rows::secret::RowSecretKey;
use cipherscore_testbed::{RabbitMq, Redis};

use super::Amount;
use crate::bulk::{Training, example};
use crate::data_owner::{Answer, DataOwner, Round};
use crate::machine::Watch;
use crate::numbers::Numbers;
use crate::steps::{StepMetric, Steps};
use crate::table::{Table, Target, quantile, sorted};
use crate::workers::{Starter, WORKER, WorkerProcess, program};

const NAME: &str = "XGB 50 x 4, breast cancer, through the queue";
/// Threads of the worker.
const THREADS: usize = 2;
/// Events a second.
const RATES: [u32; 3] = [1, 50, 100];
/// The rate that has targets.
const TARGET_RATE: u32 = 50;
/// A worker's own steps.
const STEPS: StepMetric = StepMetric { name: "cipherscore_step_seconds", label: "step" };
/// Steps of a worker before the broker has the reply, beside key and evaluation.
const BEFORE_REPLY: [&str; 4] = ["validate", "marks", "admit", "release"];
/// Steps in which broker and store are told, on which nobody waits but the first.
const TELLING: [&str; 3] = ["reply", "mark_done", "settle"];

/// A model and its data owner.
struct Event {
    model: ModelId,
    server_zip: Vec<u8>,
    program: RowProgram,
    client: RowClient,
    owner: OwnerId,
    key: Vec<u8>,
}

impl Event {
    fn new() -> anyhow::Result<Self> {
        let trained = read(&example("model.json")?, None)?;
        let options = CompileOptions {
            calibration: Some(Training::read(&trained)?.calibration()),
            bins: Bins::Used,
            forms: WantedForms::Both,
            ..CompileOptions::default()
        };
        let server_zip = compile(&trained, &options)?.server_zip;
        let artifact = CompiledServerArtifact::open(&server_zip)?;
        let rows = artifact.rows.context("the model has no row form")?;
        let parameters = rows.specs.parameters;
        let ring = RowRing::new(&parameters.keys)?;
        let secret = RowSecretKey::generate(&parameters.keys)?;
        let key = secret.evaluation_key(&ring)?;
        let owner = OwnerId::from_bytes([1; 16]).context("an owner id")?;
        let model = artifact.model_id;
        let client = RowClient::new(ring, parameters, model, owner, &secret)?;
        let program = rows.program.into_program();
        Ok(Self { model, server_zip, program, client, owner, key })
    }

    fn row(&self, seed: u64) -> Vec<bool> {
        let mut numbers = Numbers::new(seed);
        (0..self.program.columns).map(|_| numbers.below(2) == 1).collect()
    }

    fn job(&self, upload: &RowUpload, owner: &DataOwner) -> Job {
        let terms = JobTerms {
            owner_id: Some(self.owner),
            form: Some(FormName::Rows),
            ..JobTerms::default()
        };
        Job {
            version: ProtocolVersion::V2,
            id: JobId::random(),
            tenant: Tenant::default(),
            reply_to: owner.reply_to.clone(),
            correlation_id: None,
            model_id: self.model,
            lane: Lane::Normal,
            key_id: Some(EvaluationKeyId::of(&self.key)),
            rows: 1,
            deadline: None,
            terms,
            attempt: 0,
            trace: None,
            payload: Payload::Inline(upload.bytes.clone()),
        }
    }

    /// Fails unless a reply has the row's sums.
    fn require_exact(&self, row: &[bool], upload: &RowUpload, reply: &[u8]) -> anyhow::Result<()> {
        let sums = self.client.decrypt(upload.digest, 1, reply, &mut ReplyCounts::default())?;
        let holds = |edge: &PathEdge| row[edge.column as usize] == edge.wanted;
        let plain = self.program.regions.iter().map(|region| {
            let leaves = region.trees.iter().flat_map(|tree| &tree.leaves);
            let reached = leaves.filter(|leaf| leaf.path.iter().all(holds));
            u64::try_from(reached.map(|leaf| leaf.value).sum::<i64>() + region.offset)
        });
        let plain = plain.collect::<Result<Vec<_>, _>>()?;
        ensure!(sums == [plain], "a reply is wrong");
        Ok(())
    }

    /// Encrypts, publishes and checks so many events, so many a second.
    async fn run(
        &self,
        owner: &mut DataOwner,
        events: usize,
        interval: Duration,
    ) -> anyhow::Result<Round> {
        let rows: Vec<_> = (0..events).map(|event| self.row(event as u64)).collect();
        let encrypt = |row| self.client.encrypt(&[row], &ReplyCounts::default());
        let uploads = rows.iter().map(encrypt).collect::<Result<Vec<_>, _>>()?;
        let jobs: Vec<_> = uploads.iter().map(|upload| self.job(upload, owner)).collect();
        let round = owner.run_at(&jobs, interval).await?;
        let sent: BTreeMap<_, _> =
            jobs.iter().map(|job| job.id).zip(rows.iter().zip(&uploads)).collect();
        for Answer { job, outputs, .. } in &round.answers {
            let (row, upload) = sent.get(job).context("a reply to no event")?;
            let outputs = outputs.as_deref().context("a reply of one row is in the store")?;
            self.require_exact(row, upload, outputs)?;
        }
        Ok(round)
    }
}

#[tokio::main]
pub(super) async fn measure(amount: &Amount, table: &mut Table) -> anyhow::Result<()> {
    let worker = program(WORKER, "")?;
    eprintln!("{NAME}: starting RabbitMQ and Redis");
    let (rabbitmq, redis) = (RabbitMq::start()?, Redis::start()?);
    let starter = Starter::new(worker, rabbitmq.url(), redis.url());
    let mut owner = DataOwner::new(&starter.broker_url, &starter.store_url).await?;
    let event = Event::new()?;
    owner.put_key(&Blob::evaluation_key(&Tenant::default(), event.key.clone())?).await?;
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let worker = starter.start_watched(&event.server_zip, THREADS, &address.to_string())?;
    let mut workers = [worker];
    owner.expect_workers(event.model, &mut workers).await?;
    // The first event fetches the key, and some more fill caches.
    event.run(&mut owner, 20, Duration::from_millis(20)).await?;
    let services = [rabbitmq.process_id(), redis.process_id()];
    for rate in RATES {
        eprintln!("{NAME}: {rate} events/s");
        let processes = services.into_iter().flatten().chain([workers[0].id()]).collect();
        let watch = Watch::start(processes);
        let at_rate = AtRate { event: &event, address, rate, amount };
        let values = at_rate.measure(&mut owner).await?;
        at_rate.add(values, watch.others(), table);
    }
    workers.into_iter().try_for_each(WorkerProcess::end)
}

/// A rate of events.
struct AtRate<'a> {
    event: &'a Event,
    address: SocketAddr,
    rate: u32,
    amount: &'a Amount,
}

/// Milliseconds of each repetition.
#[derive(Default)]
struct Values {
    /// p50, p99 and p99.9.
    round_trip: [Vec<f64>; 3],
    evaluate: Vec<f64>,
    path: Vec<f64>,
    before_reply: Vec<f64>,
    steps: BTreeMap<&'static str, Vec<f64>>,
}

impl AtRate<'_> {
    async fn measure(&self, owner: &mut DataOwner) -> anyhow::Result<Values> {
        let interval = Duration::from_secs(1) / self.rate;
        let events = (self.amount.seconds * self.rate) as usize;
        let mut values = Values::default();
        for _ in 0..self.amount.round_trips {
            let before = Steps::of(self.address, STEPS)?;
            let round = self.event.run(owner, events, interval).await?;
            let after = Steps::of(self.address, STEPS)?;
            let seconds = |time: fn(&Answer) -> f64| {
                sorted(&round.answers.iter().map(time).collect::<Vec<_>>())
            };
            let round_trips = seconds(|answer| answer.round_trip.as_secs_f64());
            for (values, share) in values.round_trip.iter_mut().zip([0.5, 0.99, 0.999]) {
                values.push(1e3 * quantile(&round_trips, share));
            }
            let evaluate = seconds(|answer| answer.timings.evaluate.as_secs_f64());
            values.evaluate.push(1e3 * quantile(&evaluate, 0.5));
            values.path.push(1e3 * quantile(&seconds(Answer::path), 0.5));
            let mut of_worker = 0.0;
            for step in BEFORE_REPLY.into_iter().chain(TELLING) {
                let time = after.since(&before, step)?;
                values.steps.entry(step).or_default().push(time);
                of_worker += if BEFORE_REPLY.contains(&step) { time } else { 0.0 };
            }
            values.before_reply.push(of_worker);
        }
        Ok(values)
    }

    fn add(&self, values: Values, others: f64, table: &mut Table) {
        let name = |what: &str| format!("{NAME}, {} events/s: {what}", self.rate);
        let target = |limit| (self.rate == TARGET_RATE).then_some(Target::AtMost(limit));
        let [p50, p99, p999] = values.round_trip;
        table.add(name("round trip, p50"), "ms", p50, target(8.0), others);
        table.add(name("round trip, p99"), "ms", p99, target(20.0), others);
        table.add(name("round trip, p99.9"), "ms", p999, None, others);
        table.add(name("evaluation, p50"), "ms", values.evaluate, None, others);
        table.add(name("everything else, p50"), "ms", values.path, None, others);
        let own = "the worker's own part before the reply, mean";
        table.add(name(own), "ms", values.before_reply, target(1.5), others);
        for (step, times) in values.steps {
            table.add(name(&format!("step {step}, mean")), "ms", times, None, others);
        }
    }
}
