//! What jobs cost on their way through RabbitMQ and Redis, with workers as separate processes.

use anyhow::{Context, ensure};
use cipherscore_testbed::{RabbitMq, Redis};

use crate::data_owner::{DataOwner, Round};
use crate::machine::{Machine, Watch, peak_memory, processor_seconds};
use crate::models::Model;
use crate::options::Options;
use crate::table::{Table, Target, median, quantile, sorted};
use crate::workers::{Starter, WORKER, WorkerProcess, program, recorder};

const LINEAR: &str = "examples/breast_cancer_logistic_regression";
const TREE: &str = "examples/iris_decision_tree";
/// Of the models in the sources, the one with the largest evaluation key: 77 MB.
const LARGE_KEY: &str = "testdata/ensembles/xgb50x4_breast_cancer";
/// Jobs that are published before the replies to earlier ones.
const IN_FLIGHT: usize = 64;
/// Jobs in flight where the evaluation is all that counts: every worker always has the next one.
const IN_FLIGHT_PER_WORKER: usize = 4;

/// How much is measured.
struct Amount {
    repetitions: usize,
    linear_jobs: usize,
    linear_jobs_one_by_one: usize,
    tree_jobs_one_by_one: usize,
    tree_jobs: usize,
}

const FULL: Amount = Amount {
    repetitions: 5,
    linear_jobs: 4000,
    linear_jobs_one_by_one: 200,
    tree_jobs_one_by_one: 10,
    tree_jobs: 40,
};

const QUICK: Amount = Amount {
    repetitions: 1,
    linear_jobs: 500,
    linear_jobs_one_by_one: 50,
    tree_jobs_one_by_one: 3,
    tree_jobs: 6,
};

/// The services, and one client of them.
struct Bench {
    rabbitmq: RabbitMq,
    redis: Redis,
    starter: Starter,
    owner: DataOwner,
    amount: Amount,
}

#[tokio::main]
pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    let machine = Machine::here();
    let program = program(WORKER, "clear")?;
    eprintln!("making keys, encrypting rows");
    let open = |folder| Model::open(folder, &recorder(&program));
    let (linear, tree, large) = (open(LINEAR)?, open(TREE)?, open(LARGE_KEY)?);
    eprintln!("starting RabbitMQ and Redis");
    let (rabbitmq, redis) = (RabbitMq::start()?, Redis::start()?);
    let starter = Starter::new(program, rabbitmq.url(), redis.url());
    let owner = DataOwner::new(&starter.broker_url, &starter.store_url).await?;
    for key in [&tree, &large].into_iter().filter_map(|model| model.key.as_ref()) {
        owner.put_key(key).await?;
    }
    let amount = if options.quick { QUICK } else { FULL };
    let mut table = Table::new(machine, amount.repetitions);
    let mut bench = Bench { rabbitmq, redis, starter, owner, amount };
    bench.quick("jobs of the clear engine", &Model::clear()?, &mut table).await?;
    bench.quick("linear jobs", &linear, &mut table).await?;
    bench.path(&tree, &mut table).await?;
    bench.key(&large, &mut table).await?;
    bench.two_workers(&tree, &mut table).await?;
    match options.json {
        true => println!("{}", serde_json::to_string_pretty(&table)?),
        false => print!("{}", table.markdown()),
    }
    Ok(())
}

impl Bench {
    /// How many jobs a second, where evaluation takes next to nothing.
    async fn quick(&mut self, jobs: &str, model: &Model, table: &mut Table) -> anyhow::Result<()> {
        eprintln!("{jobs}");
        let worker = self.worker(model).await?;
        self.jobs(model, self.amount.linear_jobs / 4, IN_FLIGHT).await?;
        let watch = self.watch(&[worker.id()]);
        let mut many: [Vec<f64>; 4] = Default::default();
        let mut one: [Vec<f64>; 2] = Default::default();
        for _ in 0..self.amount.repetitions {
            let before = processor_seconds(worker.id());
            let round = self.jobs(model, self.amount.linear_jobs, IN_FLIGHT).await?;
            let jobs = round.answers.len() as f64;
            many[0].push(jobs / round.time.as_secs_f64());
            let latencies = round_trips(&round);
            many[1].push(1e3 * quantile(&latencies, 0.5));
            many[2].push(1e3 * quantile(&latencies, 0.99));
            many[3].push(1e3 * (processor_seconds(worker.id()) - before) / jobs);
            let round = self.jobs(model, self.amount.linear_jobs_one_by_one, 1).await?;
            let latencies = round_trips(&round);
            one[0].push(1e3 * quantile(&latencies, 0.5));
            one[1].push(1e3 * quantile(&latencies, 0.99));
        }
        let others = watch.others();
        let [rate, middle, slow, processor] = many;
        let name = |what: &str| format!("{jobs}, {IN_FLIGHT} in flight: {what}");
        table.add(name("rate"), "jobs/s", rate, Some(Target::AtLeast(1000.0)), others);
        table.add(name("round trip, p50"), "ms", middle, None, others);
        table.add(name("round trip, p99"), "ms", slow, None, others);
        table.add(name("processor time of the worker, a job"), "ms", processor, None, others);
        let [middle, slow] = one;
        let name = |what: &str| format!("{jobs}, one in flight: round trip, {what}");
        table.add(name("p50"), "ms", middle, None, others);
        table.add(name("p99"), "ms", slow, None, others);
        self.end(model, [worker]).await
    }

    /// What a job with bootstraps costs besides its evaluation.
    async fn path(&mut self, model: &Model, table: &mut Table) -> anyhow::Result<()> {
        eprintln!("tree jobs, one by one");
        let worker = self.worker(model).await?;
        self.jobs(model, 2, 1).await?;
        let watch = self.watch(&[worker.id()]);
        let mut values: [Vec<f64>; 3] = Default::default();
        for _ in 0..self.amount.repetitions {
            let answers = self.jobs(model, self.amount.tree_jobs_one_by_one, 1).await?.answers;
            let evaluate = answers.iter().map(|answer| answer.timings.evaluate.as_secs_f64());
            let evaluate = median(&evaluate.collect::<Vec<_>>());
            let path = median(&answers.iter().map(|answer| answer.path()).collect::<Vec<_>>());
            values[0].push(1e3 * evaluate);
            values[1].push(1e3 * path);
            values[2].push(100.0 * path / evaluate);
        }
        let others = watch.others();
        let [evaluate, path, share] = values;
        table.add("tree job: evaluation on 2 threads", "ms", evaluate, None, others);
        table.add("tree job: everything else, key in the cache", "ms", path, None, others);
        let name = "tree job: everything else, of its evaluation";
        table.add(name, "%", share, Some(Target::AtMost(5.0)), others);
        self.end(model, [worker]).await
    }

    /// What the first job with a key pays, and the memory of the worker. A new worker each time.
    async fn key(&mut self, model: &Model, table: &mut Table) -> anyhow::Result<()> {
        eprintln!("large keys");
        let mut values: [Vec<f64>; 6] = Default::default();
        let mut others = Vec::new();
        for _ in 0..self.amount.repetitions {
            let worker = self.worker(model).await?;
            let base = peak_memory(worker.id())?;
            let watch = self.watch(&[worker.id()]);
            self.jobs(model, 1, 1).await?;
            others.push(watch.others());
            let peak = peak_memory(worker.id())?;
            let key = worker.key_fetched()?;
            ensure!(key.serialised_bytes == model.key_bytes as u64, "another key was fetched");
            let serialised = key.serialised_bytes as f64;
            let limit = key.prepared_bytes as f64 + 1.3 * serialised;
            values[0].push(key.fetch_seconds);
            values[1].push(key.prepare_seconds);
            values[2].push(serialised / 1e6);
            values[3].push(base / 1e6);
            values[4].push((peak - base) / 1e6);
            values[5].push(100.0 * (peak - base) / limit);
            self.end(model, [worker]).await?;
        }
        let others = median(&others);
        let [fetch, prepare, serialised, base, peak, share] = values;
        table.add("large key: serialised", "MB", serialised, None, others);
        let limit = Some(Target::AtMost(0.6));
        table.add("large key: fetching and checking", "s", fetch, limit, others);
        let limit = Some(Target::AtMost(2.0));
        table.add("large key: preparing on 2 threads", "s", prepare, limit, others);
        table.add("worker's memory before its first job", "MB", base, None, others);
        table.add("worker's peak memory above that", "MB", peak, None, others);
        let name = "worker's peak above that, of prepared + 1.3 x serialised";
        table.add(name, "%", share, Some(Target::AtMost(100.0)), others);
        Ok(())
    }

    /// One worker on one thread against two of them, in turn.
    async fn two_workers(&mut self, model: &Model, table: &mut Table) -> anyhow::Result<()> {
        eprintln!("two workers against one");
        let mut values: [Vec<f64>; 3] = Default::default();
        let mut others = Vec::new();
        for _ in 0..self.amount.repetitions {
            let mut rates = [0.0; 2];
            for (count, rate) in [1, 2].into_iter().zip(&mut rates) {
                let workers = self.workers(model, count, 1).await?;
                let in_flight = IN_FLIGHT_PER_WORKER * workers.len();
                self.warm_up(model, workers.len(), in_flight).await?;
                let processes: Vec<_> = workers.iter().map(|worker| worker.id()).collect();
                let watch = self.watch(&processes);
                let round = self.jobs(model, self.amount.tree_jobs, in_flight).await?;
                others.push(watch.others());
                *rate = round.answers.len() as f64 / round.time.as_secs_f64();
                self.end(model, workers).await?;
            }
            values[0].push(rates[0]);
            values[1].push(rates[1]);
            values[2].push(rates[1] / rates[0]);
        }
        let others = median(&others);
        let [one, two, ratio] = values;
        table.add("tree jobs, one worker on one thread", "jobs/s", one, None, others);
        table.add("tree jobs, two workers on one thread each", "jobs/s", two, None, others);
        let name = "tree jobs, two workers against one";
        table.add(name, "times", ratio, Some(Target::AtLeast(1.8)), others);
        Ok(())
    }

    /// One worker on two threads.
    async fn worker(&self, model: &Model) -> anyhow::Result<WorkerProcess> {
        let mut workers = self.workers(model, 1, 2).await?;
        workers.pop().context("no worker")
    }

    async fn workers(
        &self,
        model: &Model,
        count: usize,
        threads: usize,
    ) -> anyhow::Result<Vec<WorkerProcess>> {
        let workers = (0..count).map(|_| self.starter.start(&model.server_zip, threads));
        let mut workers = workers.collect::<anyhow::Result<Vec<_>>>()?;
        self.owner.expect_workers(model.id, &mut workers).await?;
        Ok(workers)
    }

    /// Gives jobs out until every worker has the key.
    async fn warm_up(
        &mut self,
        model: &Model,
        workers: usize,
        in_flight: usize,
    ) -> anyhow::Result<()> {
        let mut seen = std::collections::BTreeSet::new();
        while seen.len() < workers {
            let round = self.jobs(model, in_flight, in_flight).await?;
            seen.extend(round.answers.into_iter().map(|answer| answer.worker));
        }
        Ok(())
    }

    async fn jobs(
        &mut self,
        model: &Model,
        count: usize,
        in_flight: usize,
    ) -> anyhow::Result<Round> {
        let jobs = model.jobs(count, &self.owner.reply_to);
        self.owner.run(&jobs, in_flight).await
    }

    async fn end(
        &self,
        model: &Model,
        workers: impl IntoIterator<Item = WorkerProcess>,
    ) -> anyhow::Result<()> {
        workers.into_iter().try_for_each(|worker| worker.end())?;
        self.owner.expect_workers(model.id, &mut []).await
    }

    fn watch(&self, workers: &[u32]) -> Watch {
        let services = [self.rabbitmq.process_id(), self.redis.process_id()];
        Watch::start(services.into_iter().flatten().chain(workers.iter().copied()).collect())
    }
}

/// In seconds, in order of size.
fn round_trips(round: &Round) -> Vec<f64> {
    let seconds = round.answers.iter().map(|answer| answer.round_trip.as_secs_f64());
    sorted(&seconds.collect::<Vec<_>>())
}
