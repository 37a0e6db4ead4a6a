//! The figures of a run.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::ledger::Standing;
use crate::schedule::Amounts;

/// Memory of a worker with nothing to do, in bytes, the parts of the program that it uses among it:
/// 20 MB after its start and 31 MB after some hundred jobs, doubled.
const BASE_MEMORY: u64 = 64 << 20;
/// Most memory of a job that is held, in bytes: a megabyte in its message, and one in its reply.
const JOB_MEMORY: u64 = 2 << 20;

/// What became of a run.
#[derive(Debug, Clone, Default)]
pub struct RunReport {
    /// Which schedule.
    pub seed: u64,
    /// Workers at a time, and jobs that each evaluates at a time.
    pub workers: usize,
    /// Jobs that a worker evaluates at a time.
    pub slots: usize,
    /// Deliveries that a worker holds at a time.
    pub prefetch: usize,
    /// Whether workers hold evaluation keys.
    pub has_keys: bool,
    /// From the first publication to the last answer.
    pub time: Duration,
    /// What was asked and answered.
    pub standing: Standing,
    /// Rows in all answered jobs with scores.
    pub rows: usize,
    /// What went wrong on purpose.
    pub faults: Amounts,
    /// Workers that died: on purpose, and by rows that kill.
    pub deaths: usize,
    /// Of these, by rows that kill.
    pub killed_by_rows: usize,
    /// Evaluations that were begun of jobs that have scores.
    pub executions: usize,
    /// Jobs that have scores.
    pub scored: usize,
    /// Replies that the client dropped, since the job was answered.
    pub suppressed: usize,
    /// Jobs in the dead-letter queue, by code; each id once.
    pub dead: BTreeMap<String, usize>,
    /// Messages in the dead-letter queue beyond one for each job.
    pub dead_copies: usize,
    /// What must be in the dead-letter queue and is not, or the other way round.
    pub dead_wrong: Vec<String>,
    /// Messages left in job queues and among the unrouted replies.
    pub left_over: u32,
    /// Workers that ended though nobody killed them.
    pub surprises: Vec<String>,
    /// From the moment the broker lets clients in again to the next evaluation, for each kill.
    pub broker_recoveries: Vec<Duration>,
    /// Resident memory of the largest worker at a time, in bytes: seconds since the start, bytes.
    pub memory: Vec<(f64, u64)>,
    /// How long all workers took to end after SIGTERM, when there was nothing to do.
    pub end: Duration,
}

impl RunReport {
    /// Evaluations beyond one for each job.
    pub fn extra_executions(&self) -> usize {
        self.executions.saturating_sub(self.scored)
    }

    /// Extra executions that the faults explain, by jobs that a worker may have begun and not
    /// settled: when it dies, and when all of them lose the broker. That is what is in the slots
    /// and, of quick models, what is evaluated and waits for a confirm: at most the prefetch.
    pub fn explained_executions(&self) -> usize {
        let lost = self.faults.disconnections();
        self.slots.max(self.prefetch) * (self.deaths + self.workers * lost)
    }

    /// Most memory that a worker may take, in bytes: what it takes by itself, and each job that it
    /// holds, with its reply. Keys are bounded by the workers' own account, and nothing is said here.
    fn most_memory(&self) -> Option<u64> {
        let held = self.prefetch.max(self.slots) as u64;
        (!self.has_keys).then_some(BASE_MEMORY + held * JOB_MEMORY)
    }

    /// What must not be.
    pub fn violations(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut require = |holds: bool, what: String| {
            if !holds {
                found.push(what);
            }
        };
        let standing = &self.standing;
        let lost = standing.asked - standing.answered;
        require(lost == 0, format!("{lost} jobs lost"));
        require(standing.duplicates == 0, format!("{} answered twice", standing.duplicates));
        require(standing.strangers == 0, format!("{} answers to nothing", standing.strangers));
        require(
            standing.wrong == 0,
            format!("{} wrong: {:#?}", standing.wrong, standing.described),
        );
        require(self.dead_wrong.is_empty(), format!("dead letters: {:#?}", self.dead_wrong));
        let (extra, explained) = (self.extra_executions(), self.explained_executions());
        require(extra <= explained, format!("{extra} extra executions, {explained} explained"));
        let taken = self.memory_by_quarter().into_iter().max().unwrap_or_default();
        let most = self.most_memory().unwrap_or(u64::MAX);
        require(taken <= most, format!("a worker took {taken} bytes of memory, more than {most}"));
        require(self.left_over == 0, format!("{} messages left over", self.left_over));
        require(self.surprises.is_empty(), format!("surprises: {:#?}", self.surprises));
        found
    }

    /// The largest resident memory of a worker in each quarter of the run, in bytes.
    pub fn memory_by_quarter(&self) -> [u64; 4] {
        let end = self.memory.last().map_or(1.0, |(seconds, _)| *seconds);
        let mut most = [0; 4];
        for (at, bytes) in &self.memory {
            let quarter = (1..4).filter(|quarter| at / end > f64::from(*quarter) / 4.0).count();
            most[quarter] = most[quarter].max(*bytes);
        }
        most
    }
}

impl fmt::Display for RunReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (standing, faults) = (&self.standing, &self.faults);
        let seconds = self.time.as_secs_f64();
        let mut line = |what: &str, value: String| writeln!(f, "| {what} | {value} |");
        line("what", "figure".into())?;
        line("---", "---".into())?;
        line("seed", self.seed.to_string())?;
        line("workers x slots", format!("{} x {}", self.workers, self.slots))?;
        line("prefetch of quick models", self.prefetch.to_string())?;
        line(
            "jobs",
            format!("{} ({} with scores, {} rows)", standing.asked, self.scored, self.rows),
        )?;
        line("time", format!("{:.1} min, {:.1} jobs/s", seconds / 60.0, self.jobs_per_second()))?;
        line("**lost**", (standing.asked - standing.answered).to_string())?;
        line("**duplicates visible to the client**", standing.duplicates.to_string())?;
        line("**wrong**", standing.wrong.to_string())?;
        line("worker kills at any moment", faults.worker_kills.to_string())?;
        line("worker kills at a crash point", faults.worker_crashes.to_string())?;
        line("worker kills by rows", self.killed_by_rows.to_string())?;
        line("workers stopped for seconds", faults.worker_pauses.to_string())?;
        line("broker kills", faults.broker_kills.to_string())?;
        line("broker stopped for seconds", faults.broker_pauses.to_string())?;
        line("all connections closed by the broker", faults.broker_closes.to_string())?;
        line("memory alarms", faults.memory_alarms.to_string())?;
        line("store kills", faults.store_kills.to_string())?;
        line("store stopped for seconds", faults.store_pauses.to_string())?;
        line("connections of all workers cut", faults.cuts.to_string())?;
        line("connections cut in the middle of a message", faults.midway_cuts.to_string())?;
        line("network frozen for seconds", faults.freezes.to_string())?;
        let (extra, explained) = (self.extra_executions(), self.explained_executions());
        line("extra executions", format!("{extra} (bound {explained})"))?;
        line("duplicate replies suppressed", self.suppressed.to_string())?;
        line("dead letters", format!("{:?}, {} copies", self.dead, self.dead_copies))?;
        line(
            "longest time without an answer",
            format!("{:.1} s", standing.longest_silence.as_secs_f64()),
        )?;
        let recoveries =
            self.broker_recoveries.iter().map(|time| format!("{:.2}", time.as_secs_f64()));
        line("broker back to next evaluation, s", recoveries.collect::<Vec<_>>().join(", "))?;
        let quarters = self.memory_by_quarter().map(|bytes| format!("{:.0}", bytes as f64 / 1e6));
        line("largest worker in each quarter, MB", quarters.join(", "))?;
        line("idle workers end after SIGTERM", format!("{:.2} s", self.end.as_secs_f64()))
    }
}

impl RunReport {
    /// Answers a second, outages included.
    pub fn jobs_per_second(&self) -> f64 {
        self.standing.answered as f64 / self.time.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}
