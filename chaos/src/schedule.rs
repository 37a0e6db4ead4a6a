//! Which faults happen, and when.

use clap::Args;
use fastrand::Rng;

use crate::worker::CRASH_POINTS;

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A worker is killed, whatever it does.
    WorkerKill,
    /// The next worker that passes this crash point dies there.
    WorkerCrash(&'static str),
    /// A worker stands still for some seconds.
    WorkerPause,
    /// The broker is killed, and starts again with its data.
    BrokerKill,
    /// The broker stands still for some seconds.
    BrokerPause,
    /// The broker closes all connections, as an operator can order.
    BrokerCloses,
    /// The broker is short of memory for some seconds, and takes no messages.
    MemoryAlarm,
    /// The store is killed, and starts again with what it wrote.
    StoreKill,
    /// The store stands still for some seconds.
    StorePause,
    /// All connections between workers and broker are cut.
    Cut,
    /// A connection to the broker is cut in the middle of a message: a job's or a reply's.
    CutMidway,
    /// Nothing passes between workers and broker for some seconds.
    Freeze,
}

/// How often each fault happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Args)]
pub struct Amounts {
    /// Workers killed at any moment.
    #[arg(long, default_value_t = 0)]
    pub worker_kills: usize,
    /// Workers that die at a crash point.
    #[arg(long, default_value_t = 0)]
    pub worker_crashes: usize,
    /// Workers that stand still.
    #[arg(long, default_value_t = 0)]
    pub worker_pauses: usize,
    /// Kills of the broker.
    #[arg(long, default_value_t = 0)]
    pub broker_kills: usize,
    /// How often the broker stands still.
    #[arg(long, default_value_t = 0)]
    pub broker_pauses: usize,
    /// How often the broker closes all connections.
    #[arg(long, default_value_t = 0)]
    pub broker_closes: usize,
    /// How often the broker is short of memory.
    #[arg(long, default_value_t = 0)]
    pub memory_alarms: usize,
    /// Kills of the store.
    #[arg(long, default_value_t = 0)]
    pub store_kills: usize,
    /// How often the store stands still.
    #[arg(long, default_value_t = 0)]
    pub store_pauses: usize,
    /// How often all connections of the workers are cut.
    #[arg(long, default_value_t = 0)]
    pub cuts: usize,
    /// How often a connection is cut in the middle of a message.
    #[arg(long, default_value_t = 0)]
    pub midway_cuts: usize,
    /// How often the network stands still.
    #[arg(long, default_value_t = 0)]
    pub freezes: usize,
}

impl Amounts {
    /// A bit of everything, for a run of so many minutes.
    pub fn for_minutes(minutes: f64) -> Self {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a small positive number"
        )]
        let times = |per_minute: f64| (minutes * per_minute).round().max(1.0) as usize;
        Self {
            worker_kills: times(4.0),
            worker_crashes: times(4.0),
            worker_pauses: times(0.5),
            broker_kills: times(0.4),
            broker_pauses: times(0.2),
            broker_closes: times(0.3),
            memory_alarms: times(0.2),
            store_kills: times(0.4),
            store_pauses: times(0.2),
            cuts: times(0.6),
            midway_cuts: times(1.0),
            freezes: times(0.3),
        }
    }

    /// Whether nothing at all goes wrong.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// How often connections of all workers end, so that whatever they hold comes again. What only
    /// stands still for some seconds, less than two heartbeats, ends none.
    pub fn disconnections(&self) -> usize {
        self.broker_kills + self.cuts + self.broker_closes + self.midway_cuts
    }

    fn faults(&self) -> Vec<Fault> {
        let points = CRASH_POINTS.into_iter().cycle().take(self.worker_crashes);
        let mut faults: Vec<_> = points.map(Fault::WorkerCrash).collect();
        let rest = [
            (Fault::WorkerKill, self.worker_kills),
            (Fault::WorkerPause, self.worker_pauses),
            (Fault::BrokerKill, self.broker_kills),
            (Fault::BrokerPause, self.broker_pauses),
            (Fault::BrokerCloses, self.broker_closes),
            (Fault::MemoryAlarm, self.memory_alarms),
            (Fault::StoreKill, self.store_kills),
            (Fault::StorePause, self.store_pauses),
            (Fault::Cut, self.cuts),
            (Fault::CutMidway, self.midway_cuts),
            (Fault::Freeze, self.freezes),
        ];
        for (fault, times) in rest {
            faults.extend(std::iter::repeat_n(fault, times));
        }
        faults
    }
}

/// A fault, and after how many published jobs, or events, it happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planned<F = Fault> {
    /// After so many.
    pub at: usize,
    /// What happens.
    pub fault: F,
}

/// All faults in their order, while jobs are published. The same seed gives the same schedule.
pub fn schedule(amounts: &Amounts, jobs: usize, seed: u64) -> Vec<Planned> {
    spread(amounts.faults(), jobs, seed)
}

/// Faults in an order of chance, each at a moment of chance while so many jobs, or events, are published.
/// The same seed gives the same order and moments.
pub fn spread<F>(mut faults: Vec<F>, jobs: usize, seed: u64) -> Vec<Planned<F>> {
    let mut random = Rng::with_seed(seed);
    random.shuffle(&mut faults);
    let mut planned: Vec<_> = faults
        .into_iter()
        .map(|fault| Planned { at: random.usize(jobs / 50..=jobs - jobs / 20), fault })
        .collect();
    planned.sort_by_key(|planned| planned.at);
    planned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_its_schedule_again_and_every_fault_is_in_it() {
        let amounts = Amounts::for_minutes(3.0);
        let planned = schedule(&amounts, 1000, 7);
        assert_eq!(planned, schedule(&amounts, 1000, 7));
        assert_ne!(planned, schedule(&amounts, 1000, 8));
        assert_eq!(planned.len(), amounts.faults().len());
        let crashes =
            planned.iter().filter(|planned| matches!(planned.fault, Fault::WorkerCrash(_)));
        assert_eq!(crashes.count(), amounts.worker_crashes);
        assert!(planned.iter().all(|planned| (20..=950).contains(&planned.at)));
    }
}
