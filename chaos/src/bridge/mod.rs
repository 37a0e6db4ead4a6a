//! A run with a bridge: events go in, everything is killed around it, and what comes out is compared.
//!
//! The bridge is the released program between two brokers: the fleet's, with its store and workers, and
//! one of the owner with queues of events, scores and dead letters. In the end, after scores with one key
//! are taken for one, every event must have its score, with the values that the model computed
//! beforehand; every event that has no features must be a dead letter; nothing may be left in the queue
//! of events; and no process may have ended that nobody killed.

mod faults;
mod known;
mod queues;
mod report;
mod score_ledger;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use cipherscore_testbed::{RabbitMq, RabbitMqOptions};
use fastrand::Rng;
use parking_lot::Mutex;
use tokio::task::{JoinSet, spawn_blocking};

pub use self::faults::BridgeFault;
pub use self::queues::EventPace;
pub use self::report::BridgeRunReport;
pub use self::score_ledger::{EventStanding, ExpectedEnd, ScoreLedger};

use self::faults::BridgeSite;
use self::known::{KnownRows, LABELS};
use self::queues::{OwnerQueues, QUEUES};
use crate::fleet::{Fleet, Start};
use crate::schedule::{Planned, spread};
use crate::services::Services;

/// How long no event may end, while some wait, before the rest counts as lost.
const PATIENCE: Duration = Duration::from_secs(240);
/// How often is looked whether something died.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// How often is looked what is left in the queues: by `rabbitmqctl`, which takes half a second.
const COUNT_INTERVAL: Duration = Duration::from_secs(2);
/// Grace period of bridge and workers.
const GRACE_PERIOD: Duration = Duration::from_secs(30);
/// Returns after which a worker calls a job poison. More than workers have unless told otherwise: here
/// one dies every few seconds, by chance while the same job runs.
const MAX_RETURNS: u32 = 6;
/// What a bridge logs once it has reached its services.
const BEGUN: &str = "the bridge takes events";

/// What is to be done.
pub struct BridgePlan {
    /// The program `cipherscore`.
    pub program: PathBuf,
    /// Which events, and how fast.
    pub pace: EventPace,
    /// How many workers.
    pub workers: usize,
    /// How many kills in all.
    pub kills: usize,
}

/// Does it. An error means that nothing is known; what was found is in the report.
pub async fn run_with_bridge(plan: BridgePlan) -> anyhow::Result<BridgeRunReport> {
    let BridgePlan { program, pace, workers, kills } = plan;
    let folder = tempfile::Builder::new().prefix("cipherscore-chaos-").tempdir()?;
    let path = folder.path().to_owned();
    let (program_here, path_here) = (program.clone(), path.clone());
    eprintln!("compiling the model, scoring its rows once");
    let known = spawn_blocking(move || KnownRows::prepare(&program_here, &path_here)).await??;
    eprintln!("starting two RabbitMQ and a Redis");
    let services = spawn_blocking(|| Services::start(RabbitMqOptions::default())).await??;
    let owners = spawn_blocking(RabbitMq::start).await??;
    let queues = Arc::new(OwnerQueues::open(&owners.url(), known).await?);
    let how = HowToStart { program: &program, folder: &path, services: &services };
    let bridge = Fleet::start(how.bridge(&owners.url(), &queues.known)?, 1)?;
    let fleet = Fleet::start(how.worker(&queues.known)?, workers)?;
    let site = Arc::new(BridgeSite {
        services,
        owners: Mutex::new(owners),
        workers: Mutex::new(fleet),
        bridge: Mutex::new(bridge),
    });
    queues.expect_bridge(PATIENCE).await?;
    let dealt = BridgeFault::deal(kills);
    let mut counted = BTreeMap::new();
    dealt.iter().for_each(|fault| *counted.entry(*fault).or_default() += 1);

    let started = Instant::now();
    let mut beside = JoinSet::new();
    beside.spawn(queues.clone().read_scores());
    beside.spawn(queues.clone().read_dead_letters());
    let mut watched = JoinSet::new();
    watched.spawn(watch(site.clone()));
    let acted = act(&site, &queues, pace, spread(dealt, pace.events, pace.seed));
    tokio::select! {
        acted = acted => acted?,
        ended = beside.join_next() => return early(ended),
        ended = watched.join_next() => return early(ended),
    }
    let seconds = started.elapsed().as_secs_f64();
    watched.shutdown().await;
    let end = end_bridge(&site).await?;
    // Whatever the bridge had taken and not settled is back by now.
    let left_over = unsettled(&site, QUEUES[0]).await?;
    drain(&site).await?;
    beside.shutdown().await;
    let standing = queues.ledger.standing();
    let (workers_fleet, bridge_fleet) = (site.workers.lock(), site.bridge.lock());
    Ok(BridgeRunReport {
        seed: pace.seed,
        workers,
        seconds,
        longest_silence_seconds: standing.longest_silence.as_secs_f64(),
        standing,
        published_again: queues.published_again.load(Ordering::SeqCst),
        kills: counted,
        bridge_deaths: bridge_fleet.deaths(),
        worker_deaths: workers_fleet.deaths(),
        failed_starts: bridge_fleet.failed_starts(),
        surprises: [bridge_fleet.surprises(), workers_fleet.surprises()].concat(),
        end,
        left_over,
    })
}

fn early<T>(
    ended: Option<Result<anyhow::Result<()>, tokio::task::JoinError>>,
) -> anyhow::Result<T> {
    match ended {
        Some(ended) => ended??,
        None => bail!("nobody watches"),
    }
    bail!("somebody who watches has ended")
}

/// How bridge and workers are started.
struct HowToStart<'a> {
    program: &'a Path,
    folder: &'a Path,
    services: &'a Services,
}

impl HowToStart<'_> {
    fn bridge(&self, owner_url: &str, known: &KnownRows) -> anyhow::Result<Start> {
        let config = self.folder.join("bridge.toml");
        let [artifact, keys] = [&known.artifact, &known.keys].map(|path| path.display());
        let labels = LABELS.map(|label| format!("'{label}'")).join(", ");
        let text = format!(
            "{}[bridge]\ngrace_period = '{}s'\n[health]\nlisten = ''\n[[models]]\nname = 'biopsy'\n\
             artifact = '{artifact}'\nkeys = '{keys}'\nlabels = [{labels}]\n",
            OwnerQueues::sections(),
            GRACE_PERIOD.as_secs()
        );
        std::fs::write(&config, text)?;
        let config = config.to_str().context("the folder is not UTF-8")?;
        Ok(Start {
            role: "bridge",
            arguments: ["bridge", "--config", config].map(str::to_owned).into(),
            begun: Some(BEGUN),
            broker_url: self.services.owners_url().to_owned(),
            variables: vec![("CIPHERSCORE_OWNER__URL", owner_url.to_owned())],
            ..self.start()
        })
    }

    fn worker(&self, known: &KnownRows) -> anyhow::Result<Start> {
        let models = self.folder.join("models");
        std::fs::create_dir(&models)?;
        std::fs::copy(known.artifact.join("server.zip"), models.join("server.zip"))?;
        let models = models.to_str().context("the folder is not UTF-8")?;
        let settings = [
            "worker.threads=1".to_owned(),
            format!("worker.max_returns={MAX_RETURNS}"),
            format!("worker.grace_period={}s", GRACE_PERIOD.as_secs()),
            "health.listen=".to_owned(),
        ];
        Ok(Start {
            role: "worker",
            arguments: ["worker", "start", "--models", models].map(str::to_owned).into(),
            settings: settings.into(),
            ..self.start()
        })
    }

    /// What both have in common.
    fn start(&self) -> Start {
        Start {
            role: "process",
            program: self.program.to_owned(),
            arguments: Vec::new(),
            begun: None,
            folder: self.folder.to_owned(),
            broker_url: self.services.workers_url().to_owned(),
            store_url: self.services.store_url().to_owned(),
            settings: Vec::new(),
            variables: Vec::new(),
        }
    }
}

/// Publishes and kills until every event has ended and none is in the queue, or none ends any more.
async fn act(
    site: &Arc<BridgeSite>,
    queues: &Arc<OwnerQueues>,
    pace: EventPace,
    planned: Vec<Planned<BridgeFault>>,
) -> anyhow::Result<()> {
    tokio::try_join!(queues.publish(pace), kill(site, queues, planned, pace.seed))?;
    let mut last = (0, Instant::now());
    loop {
        let standing = queues.ledger.standing();
        if standing.lost() == 0 && unsettled(site, QUEUES[0]).await? == 0 {
            return Ok(());
        }
        // Scores that came again are progress too.
        let ends = standing.ended() + standing.duplicates + standing.dead_copies;
        if ends > last.0 {
            last = (ends, Instant::now());
        } else if last.1.elapsed() > PATIENCE {
            eprintln!("{} events have not ended; no more do", standing.lost());
            return Ok(());
        }
        tokio::time::sleep(COUNT_INTERVAL).await;
    }
}

/// Lets every kill happen when its time has come, beside those that are not over.
async fn kill(
    site: &Arc<BridgeSite>,
    queues: &OwnerQueues,
    planned: Vec<Planned<BridgeFault>>,
    seed: u64,
) -> anyhow::Result<()> {
    let mut random = Rng::with_seed(seed);
    let mut killing = JoinSet::new();
    for Planned { at, fault } in planned {
        while queues.published.load(Ordering::SeqCst) < at {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let (site, seed) = (site.clone(), random.u64(..));
        let scored = queues.ledger.standing().scored;
        eprintln!("after {at} events, of which {scored} have scores: kill {fault:?}");
        killing.spawn_blocking(move || {
            site.inflict(fault, seed).with_context(|| format!("killing {fault:?}"))
        });
    }
    while let Some(killed) = killing.join_next().await {
        killed??;
    }
    Ok(())
}

/// Starts what died again.
async fn watch(site: Arc<BridgeSite>) -> anyhow::Result<()> {
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let site = site.clone();
        spawn_blocking(move || site.revive()).await??;
    }
}

async fn unsettled(site: &Arc<BridgeSite>, queue: &'static str) -> anyhow::Result<u64> {
    let site = site.clone();
    spawn_blocking(move || site.unsettled(queue)).await?
}

/// Waits until all scores and dead letters are read.
async fn drain(site: &Arc<BridgeSite>) -> anyhow::Result<()> {
    let started = Instant::now();
    for queue in &QUEUES[1..] {
        while unsettled(site, queue).await? > 0 {
            ensure!(started.elapsed() < PATIENCE, "{queue} is not read to its end");
            tokio::time::sleep(COUNT_INTERVAL).await;
        }
    }
    Ok(())
}

/// Ends the bridge by SIGTERM. Says how it ended, if not with 0.
async fn end_bridge(site: &Arc<BridgeSite>) -> anyhow::Result<Option<String>> {
    let site = site.clone();
    let ended = spawn_blocking(move || site.bridge.lock().terminate(GRACE_PERIOD)).await?;
    Ok(ended.err().map(|error| format!("{error:#}")))
}
