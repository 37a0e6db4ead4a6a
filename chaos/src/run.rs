//! A run: load, faults, and the figures afterwards.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use cipherscore_common::ModelId;
use cipherscore_common::broker::{Broker, amqp::AmqpBroker};
use cipherscore_common::topology::{Lane, job_queue};
use cipherscore_testbed::RabbitMqOptions;
use fastrand::Rng;
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::audit;
use crate::fleet::{Fleet, Start};
use crate::inflict::Inflictor;
use crate::load::{Load, Pace};
use crate::owner::Owner;
use crate::report::RunReport;
use crate::schedule::{Amounts, Planned, schedule};
use crate::services::Services;
use crate::worker::{KILLED, MODELS};

/// How long nothing may be answered, while jobs wait, before the rest counts as lost.
const PATIENCE: Duration = Duration::from_secs(240);
/// How long after the last answer a second one may come.
const AFTERWARDS: Duration = Duration::from_secs(3);
/// How often we look whether workers died.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// How often memory is looked at.
const MEMORY_INTERVAL: Duration = Duration::from_secs(1);
/// How long a worker may take to begin.
const START_PATIENCE: Duration = Duration::from_secs(120);
/// Returns after which a job is poison. More than workers have unless told otherwise: here one dies
/// every two seconds, and two of them by chance while the same good job runs alone.
const MAX_RETURNS: u32 = 6;
/// Grace period of the workers.
const GRACE_PERIOD: Duration = Duration::from_secs(30);

/// Memory of the workers: at which second, and how many bytes.
type Memory = Arc<Mutex<Vec<(f64, u64)>>>;

/// What is to be done.
pub struct RunPlan {
    /// The program with the subcommand `worker`.
    pub program: PathBuf,
    /// Whose jobs, in turn.
    pub owners: Vec<Owner>,
    /// How many jobs, and how fast.
    pub pace: Pace,
    /// How many workers.
    pub workers: usize,
    /// Jobs that each evaluates at a time.
    pub slots: usize,
    /// Jobs of a linear model that each holds at a time.
    pub prefetch: usize,
    /// Which faults.
    pub faults: Amounts,
}

/// Does it. An error means that nothing is known; what was found is in the report.
pub async fn run(plan: RunPlan) -> anyhow::Result<RunReport> {
    let RunPlan { program, owners, pace, workers, slots, prefetch, faults } = plan;
    let has_keys = owners.iter().any(|owner| owner.key.is_some());
    let folder = tempfile::Builder::new().prefix("cipherscore-chaos-").tempdir()?;
    let models = write_models(&folder, &owners)?;
    let services = tokio::task::spawn_blocking(|| Services::start(RabbitMqOptions::default()));
    let services = services.await??;
    let start = how_to_start(program, &folder, &services, slots, prefetch);
    let broker = services.broker()?;
    let load = Arc::new(Load::open(owners, &services).await?);
    let fleet = Fleet::start(start, workers)?;
    expect_consumers(&broker, &models, workers).await?;
    let inflictor = Arc::new(Inflictor::new(services, fleet, folder.path().to_owned()));

    let memory = Memory::default();
    let (time, mut beside) = act(&load, &inflictor, &memory, pace, &faults).await?;
    audit::settled(&broker, &models).await.ok();
    tokio::time::sleep(AFTERWARDS).await;
    beside.shutdown().await;

    let standing = load.ledger.standing();
    let dead = audit::dead_letters(&broker, &load.ledger.dead()).await?;
    let (executions, killed_by_rows) = (inflictor.executions()?, inflictor.count(KILLED)?);
    let broker_recoveries = inflictor.recoveries();
    let inflictor = sole(inflictor).await?;
    let fleet = inflictor.fleet.into_inner();
    let (deaths, surprises) = (fleet.deaths(), fleet.surprises().to_vec());
    let end = tokio::task::spawn_blocking(move || fleet.end(GRACE_PERIOD)).await??;
    // What a worker had taken and not settled is back by now.
    let left_over = audit::left_over(&broker, &models).await?;
    let scored = standing.answered.saturating_sub(load.ledger.dead().len());
    let memory = memory.lock().clone();
    Ok(RunReport {
        seed: pace.seed,
        workers,
        slots,
        prefetch,
        has_keys,
        time,
        rows: load.rows(),
        faults,
        deaths,
        killed_by_rows,
        executions,
        scored,
        suppressed: load.suppressed(),
        dead: dead.by_code,
        dead_copies: dead.copies,
        dead_wrong: dead.wrong,
        left_over,
        surprises,
        broker_recoveries,
        memory,
        end,
        standing,
    })
}

/// Publishes and breaks until all is answered. Returns how long that took, and what goes on beside.
async fn act(
    load: &Arc<Load>,
    inflictor: &Arc<Inflictor>,
    memory: &Memory,
    pace: Pace,
    faults: &Amounts,
) -> anyhow::Result<(Duration, JoinSet<anyhow::Result<()>>)> {
    let started = Instant::now();
    let mut beside = JoinSet::new();
    beside.spawn(load.clone().receive());
    beside.spawn(watch(inflictor.clone(), memory.clone(), started));
    let planned = schedule(faults, pace.jobs, pace.seed);
    let published = load.publish(pace);
    let broken = break_things(inflictor.clone(), load.clone(), planned, pace.seed);
    let answered = async {
        tokio::try_join!(published, broken)?;
        wait_for_answers(load).await;
        anyhow::Ok(())
    };
    tokio::select! {
        answered = answered => answered?,
        ended = beside.join_next() => match ended {
            Some(ended) => ended??,
            None => bail!("nobody watches"),
        }
    }
    Ok((started.elapsed(), beside))
}

/// How workers of these services are started: on one thread, without an HTTP port.
pub fn how_to_start(
    program: PathBuf,
    folder: &TempDir,
    services: &Services,
    slots: usize,
    prefetch: usize,
) -> Start {
    Start {
        role: "worker",
        program,
        arguments: vec!["worker".into()],
        begun: None,
        folder: folder.path().to_owned(),
        broker_url: services.workers_url().to_owned(),
        store_url: services.store_url().to_owned(),
        settings: vec![
            "worker.threads=1".into(),
            format!("worker.slots={slots}"),
            format!("worker.linear_prefetch={prefetch}"),
            format!("worker.max_returns={MAX_RETURNS}"),
            format!("worker.grace_period={}s", GRACE_PERIOD.as_secs()),
            "health.listen=".into(),
        ],
        variables: Vec::new(),
    }
}

/// Puts the models where workers under test look for them.
pub fn write_models(folder: &TempDir, owners: &[Owner]) -> anyhow::Result<BTreeSet<ModelId>> {
    let models = folder.path().join(MODELS);
    std::fs::create_dir(&models)?;
    for owner in owners {
        std::fs::write(models.join(format!("{}.zip", owner.model_id)), &owner.server_zip)?;
    }
    Ok(owners.iter().map(|owner| owner.model_id).collect())
}

/// Waits until so many workers take jobs.
pub async fn expect_consumers(
    broker: &AmqpBroker,
    models: &BTreeSet<ModelId>,
    workers: usize,
) -> anyhow::Result<()> {
    let started = Instant::now();
    for id in models {
        let queue = job_queue(*id, Lane::Normal);
        loop {
            let state = broker.queue_state(&queue).await?;
            if state.is_some_and(|state| state.consumers as usize >= workers) {
                break;
            }
            ensure!(started.elapsed() < START_PATIENCE, "the workers do not begin");
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }
    Ok(())
}

/// Starts dead workers again, and looks at the memory of all.
async fn watch(inflictor: Arc<Inflictor>, memory: Memory, started: Instant) -> anyhow::Result<()> {
    let mut looked = started;
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let inflictor = inflictor.clone();
        let largest = tokio::task::spawn_blocking(move || {
            let mut fleet = inflictor.fleet();
            fleet.revive().map(|()| fleet.memory().into_iter().max())
        });
        let largest = largest.await??;
        if let (Some(bytes), true) = (largest, looked.elapsed() >= MEMORY_INTERVAL) {
            looked = Instant::now();
            let at = started.elapsed().as_secs_f64();
            memory.lock().push((at, bytes));
        }
    }
}

/// Lets every fault happen when its time has come, beside those that are not over.
async fn break_things(
    inflictor: Arc<Inflictor>,
    load: Arc<Load>,
    planned: Vec<Planned>,
    seed: u64,
) -> anyhow::Result<()> {
    let mut random = Rng::with_seed(seed);
    let mut breaking = JoinSet::new();
    for Planned { at, fault } in planned {
        while load.published.load(Ordering::SeqCst) < at {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let (inflictor, seed) = (inflictor.clone(), random.u64(..));
        eprintln!("after {at} jobs: {fault:?}");
        breaking.spawn_blocking(move || {
            inflictor.inflict(fault, seed).with_context(|| format!("{fault:?}"))
        });
    }
    while let Some(broken) = breaking.join_next().await {
        broken??;
    }
    Ok(())
}

/// Takes it out of the hands of threads that cannot be stopped and have almost ended.
async fn sole(mut inflictor: Arc<Inflictor>) -> anyhow::Result<Inflictor> {
    let started = Instant::now();
    loop {
        inflictor = match Arc::try_unwrap(inflictor) {
            Ok(sole) => return Ok(sole),
            Err(shared) => shared,
        };
        ensure!(started.elapsed() < PATIENCE, "something still breaks things");
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Waits until all jobs are answered, or none is for a long time.
async fn wait_for_answers(load: &Load) {
    let mut last = (load.ledger.standing().answered, Instant::now());
    loop {
        let standing = load.ledger.standing();
        if standing.answered == standing.asked {
            return;
        }
        if standing.answered > last.0 {
            last = (standing.answered, Instant::now());
        } else if last.1.elapsed() > PATIENCE {
            eprintln!("{} of {} answered; no more come", standing.answered, standing.asked);
            return;
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}
