//! The figures of a run with a bridge.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::faults::BridgeFault;
use super::score_ledger::EventStanding;

/// What became of a run with a bridge.
#[derive(Debug, Clone, Default, Serialize)]
pub struct BridgeRunReport {
    /// Which schedule.
    pub seed: u64,
    /// Worker processes.
    pub workers: usize,
    /// From the first publication until nothing was left to do.
    pub seconds: f64,
    /// What was published, and what came of it.
    #[serde(flatten)]
    pub standing: EventStanding,
    /// Longest time in which no event ended, while some were waited for.
    pub longest_silence_seconds: f64,
    /// Publications that were not confirmed, and tried again: an event may be in the queue twice.
    pub published_again: usize,
    /// Kills, by what was killed.
    pub kills: BTreeMap<BridgeFault, usize>,
    /// Bridges that died.
    pub bridge_deaths: usize,
    /// Workers that died.
    pub worker_deaths: usize,
    /// Bridges that ended at once since a service was away, and were started again.
    pub failed_starts: usize,
    /// Processes that ended though nobody killed them.
    pub surprises: Vec<String>,
    /// How the last bridge ended after SIGTERM, if not with 0.
    pub end: Option<String>,
    /// Events in the source queue at the end.
    pub left_over: u64,
}

impl BridgeRunReport {
    /// What must not be.
    pub fn violations(&self) -> Vec<String> {
        let standing = &self.standing;
        let lost = standing.lost();
        let holds = [
            (lost == 0, format!("{lost} events without their end")),
            (standing.wrong == 0, format!("{} wrong: {:#?}", standing.wrong, standing.described)),
            (self.left_over == 0, format!("{} events left in the source queue", self.left_over)),
            (self.surprises.is_empty(), format!("surprises: {:#?}", self.surprises)),
            (self.end.is_none(), format!("the bridge's end: {:?}", self.end)),
        ];
        holds.into_iter().filter(|(holds, _)| !holds).map(|(_, what)| what).collect()
    }

    /// Events a second, outages included.
    pub fn events_per_second(&self) -> f64 {
        self.standing.ended() as f64 / self.seconds.max(f64::MIN_POSITIVE)
    }
}

impl fmt::Display for BridgeRunReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let standing = &self.standing;
        let mut line = |what: &str, value: String| writeln!(f, "| {what} | {value} |");
        line("what", "figure".into())?;
        line("---", "---".into())?;
        line("seed", self.seed.to_string())?;
        line("workers", self.workers.to_string())?;
        let events = standing.events + standing.unreadable;
        line("events", format!("{events} ({} of them unreadable)", standing.unreadable))?;
        let (minutes, rate) = (self.seconds / 60.0, self.events_per_second());
        line("time", format!("{minutes:.1} min, {rate:.1} events/s"))?;
        line("**without a score**", (standing.events - standing.scored).to_string())?;
        line("**wrong**", standing.wrong.to_string())?;
        line("scores that came again, with the same key", standing.duplicates.to_string())?;
        let missing = standing.unreadable - standing.dead;
        line("dead letters", format!("{}, {missing} missing", standing.dead))?;
        line("dead letters that came again", standing.dead_copies.to_string())?;
        line("left in the source queue", self.left_over.to_string())?;
        for (name, fault) in [
            ("kills of the bridge", BridgeFault::Bridge),
            ("kills of workers", BridgeFault::Worker),
            ("kills of the fleet's broker", BridgeFault::Broker),
            ("kills of the fleet's store", BridgeFault::Store),
            ("kills of the owner's broker", BridgeFault::OwnersBroker),
        ] {
            line(name, self.kills.get(&fault).copied().unwrap_or_default().to_string())?;
        }
        line("bridges that found a service away", self.failed_starts.to_string())?;
        line("publications that were tried again", self.published_again.to_string())?;
        line("read again by the oracle", standing.read_again.to_string())?;
        let silence = self.longest_silence_seconds;
        line("longest time without a score", format!("{silence:.1} s"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_not_be_is_said() {
        let standing = EventStanding {
            events: 2,
            scored: 2,
            unreadable: 1,
            dead: 1,
            ..EventStanding::default()
        };
        let sound = BridgeRunReport { standing, seconds: 1.5, ..BridgeRunReport::default() };
        assert_eq!(sound.violations(), Vec::<String>::new());
        assert!((sound.events_per_second() - 2.0).abs() < 1e-9);
        let wrong: [fn(&mut BridgeRunReport); 6] = [
            |report| report.standing.scored = 1,
            |report| report.standing.dead = 0,
            |report| report.standing.wrong = 1,
            |report| report.left_over = 1,
            |report| report.surprises.push("it ended".into()),
            |report| report.end = Some("1".into()),
        ];
        for change in wrong {
            let mut report = sound.clone();
            change(&mut report);
            assert_eq!(report.violations().len(), 1, "{report}");
        }
        let json = serde_json::to_value(&sound).unwrap();
        assert_eq!((&json["scored"], &json["left_over"]), (&2.into(), &0.into()));
    }
}
