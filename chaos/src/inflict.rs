//! What each fault does.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use fastrand::Rng;
use parking_lot::{Mutex, MutexGuard};

use crate::fleet::Fleet;
use crate::schedule::Fault;
use crate::services::Services;
use crate::worker::{EXECUTIONS, trap};

/// How long a worker stands still.
const WORKER_PAUSE: Duration = Duration::from_secs(3);
/// How long the broker stands still.
const BROKER_PAUSE: Duration = Duration::from_secs(5);
/// How long the store stands still.
const STORE_PAUSE: Duration = Duration::from_secs(3);
/// How long the broker is short of memory.
const ALARM: Duration = Duration::from_secs(4);
/// How long the network stands still.
const FREEZE: Duration = Duration::from_secs(6);
/// How long a trap may wait for a worker to step into it.
const TRAP_PATIENCE: Duration = Duration::from_secs(120);
/// How long the first evaluation may take to come after the broker came back.
const RECOVERY_PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// Most bytes that pass before a connection is cut: those of a few replies or of many jobs.
const MAX_MIDWAY_BYTES: u32 = 60_000;

/// Everything that can be broken, and who counts.
pub struct Inflictor {
    /// Broker, store, network.
    pub services: Services,
    /// The workers.
    pub fleet: Mutex<Fleet>,
    /// What workers and the run share.
    pub folder: PathBuf,
    recoveries: Mutex<Vec<Duration>>,
}

impl Inflictor {
    /// Nothing is broken yet.
    pub fn new(services: Services, fleet: Fleet, folder: PathBuf) -> Self {
        Self { services, fleet: Mutex::new(fleet), folder, recoveries: Mutex::default() }
    }

    /// The workers.
    pub fn fleet(&self) -> MutexGuard<'_, Fleet> {
        self.fleet.lock()
    }

    /// How long it took, after each kill of the broker, until something was evaluated again.
    pub fn recoveries(&self) -> Vec<Duration> {
        self.recoveries.lock().clone()
    }

    /// How many evaluations were begun.
    pub fn executions(&self) -> anyhow::Result<usize> {
        self.count(EXECUTIONS)
    }

    /// The length of one of the workers' tallies.
    pub fn count(&self, name: &str) -> anyhow::Result<usize> {
        match std::fs::metadata(self.folder.join(name)) {
            Ok(metadata) => Ok(usize::try_from(metadata.len())?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error).context("a tally of the workers"),
        }
    }

    /// Does it, and waits until it is over. Blocks.
    pub fn inflict(self: &Arc<Self>, fault: Fault, seed: u64) -> anyhow::Result<()> {
        let mut random = Rng::with_seed(seed);
        match fault {
            Fault::WorkerKill => while !self.fleet().kill(&mut random)? {},
            Fault::WorkerCrash(point) => self.spring(point)?,
            Fault::WorkerPause => {
                let index = random.usize(..self.fleet().len());
                self.fleet().signal(index, "STOP");
                std::thread::sleep(WORKER_PAUSE);
                self.fleet().signal(index, "CONT");
            }
            Fault::BrokerKill => {
                let mut rabbitmq = self.services.rabbitmq();
                rabbitmq.kill();
                rabbitmq.restart()?;
                drop(rabbitmq);
                self.recover()?;
            }
            Fault::BrokerPause => {
                let rabbitmq = self.services.rabbitmq();
                rabbitmq.pause()?;
                std::thread::sleep(BROKER_PAUSE);
                rabbitmq.resume()?;
            }
            Fault::BrokerCloses => {
                self.services.rabbitmq().close_all_connections("a fault on purpose")?;
            }
            Fault::MemoryAlarm => {
                let rabbitmq = self.services.rabbitmq();
                rabbitmq.set_memory_alarm(true)?;
                std::thread::sleep(ALARM);
                rabbitmq.set_memory_alarm(false)?;
            }
            Fault::StoreKill => {
                let mut redis = self.services.redis();
                redis.kill();
                std::thread::sleep(Duration::from_secs(1));
                redis.restart()?;
            }
            Fault::StorePause => {
                let redis = self.services.redis();
                redis.pause()?;
                std::thread::sleep(STORE_PAUSE);
                redis.resume()?;
            }
            Fault::Cut => {
                self.services.workers.cut();
            }
            Fault::CutMidway => {
                let sides = [&self.services.workers, &self.services.owners];
                sides[random.usize(..2)].cut_after(random.u32(1..MAX_MIDWAY_BYTES));
            }
            Fault::Freeze => {
                self.services.workers.freeze();
                std::thread::sleep(FREEZE);
                self.services.workers.resume();
            }
        }
        Ok(())
    }

    /// Ends the next worker that passes this point.
    fn spring(&self, point: &str) -> anyhow::Result<()> {
        let trap = trap(&self.folder, point);
        let started = Instant::now();
        // One of an earlier fault is sprung first.
        while trap.exists() && started.elapsed() < TRAP_PATIENCE {
            std::thread::sleep(LOOK_INTERVAL);
        }
        std::fs::write(&trap, "")?;
        while trap.exists() {
            ensure!(started.elapsed() < TRAP_PATIENCE, "no worker passed {point}");
            std::thread::sleep(LOOK_INTERVAL);
        }
        Ok(())
    }

    fn recover(&self) -> anyhow::Result<()> {
        let (started, before) = (Instant::now(), self.executions()?);
        while self.executions()? == before {
            if started.elapsed() > RECOVERY_PATIENCE {
                return Ok(());
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
        let mut recoveries = self.recoveries.lock();
        recoveries.push(started.elapsed());
        Ok(())
    }
}
