//! What is killed around a bridge, and the bridge itself.

use std::sync::Arc;
use std::time::Duration;

use cipherscore_testbed::RabbitMq;
use fastrand::Rng;
use parking_lot::Mutex;
use serde::Serialize;

use crate::fleet::Fleet;
use crate::services::Services;

/// How long the store is away.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// What is killed, by SIGKILL, and started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BridgeFault {
    /// The bridge.
    Bridge,
    /// A worker.
    Worker,
    /// The fleet's broker; its data stays.
    Broker,
    /// The fleet's store; what it wrote stays.
    Store,
    /// The broker with the owner's queues; its data stays.
    OwnersBroker,
}

impl BridgeFault {
    /// In the order in which kills are dealt out.
    pub const ALL: [Self; 5] =
        [Self::Bridge, Self::Worker, Self::Broker, Self::Store, Self::OwnersBroker];

    /// So many kills, of each in turn.
    pub fn deal(kills: usize) -> Vec<Self> {
        Self::ALL.into_iter().cycle().take(kills).collect()
    }
}

/// Everything that a run kills.
pub(super) struct BridgeSite {
    pub(super) services: Services,
    pub(super) owners: Mutex<RabbitMq>,
    pub(super) workers: Mutex<Fleet>,
    pub(super) bridge: Mutex<Fleet>,
}

impl BridgeSite {
    /// Kills it, and waits until it is there again. Blocks.
    pub(super) fn inflict(self: &Arc<Self>, fault: BridgeFault, seed: u64) -> anyhow::Result<()> {
        let mut random = Rng::with_seed(seed);
        match fault {
            BridgeFault::Bridge => while !self.bridge.lock().kill(&mut random)? {},
            BridgeFault::Worker => while !self.workers.lock().kill(&mut random)? {},
            BridgeFault::Broker => {
                let mut broker = self.services.rabbitmq();
                broker.kill();
                broker.restart()?;
            }
            BridgeFault::OwnersBroker => {
                let mut broker = self.owners.lock();
                broker.kill();
                broker.restart()?;
            }
            BridgeFault::Store => {
                let mut store = self.services.redis();
                store.kill();
                std::thread::sleep(STORE_PAUSE);
                store.restart()?;
            }
        }
        Ok(())
    }

    /// Starts what died again.
    pub(super) fn revive(&self) -> anyhow::Result<()> {
        self.workers.lock().revive()?;
        self.bridge.lock().revive()
    }

    /// Messages of the owner's queue that wait or are underway, by `rabbitmqctl`. Blocks.
    pub(super) fn unsettled(&self, queue: &str) -> anyhow::Result<u64> {
        let listed = self.owners.lock().ctl(&["list_queues", "name", "messages"])?;
        let line =
            listed.lines().find_map(|line| line.trim().strip_prefix(queue)?.strip_prefix('\t'));
        let count = line.ok_or_else(|| anyhow::anyhow!("no queue {queue} in:\n{listed}"))?;
        Ok(count.trim().parse()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_are_dealt_out_evenly() {
        let kills = BridgeFault::deal(21);
        let of = |fault| kills.iter().filter(|kill| **kill == fault).count();
        assert_eq!(BridgeFault::ALL.map(of), [5, 4, 4, 4, 4]);
    }
}
