//! What the machine is, and who uses it meanwhile, from `/proc`.

use std::fs::read_to_string;
use std::time::Instant;

use anyhow::Context;
use serde::Serialize;

/// Ticks of a second in `/proc`, on every architecture that we run on.
const TICKS_PER_SECOND: f64 = 100.0;

/// Where the figures are from.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    /// Processors, and how many.
    pub(crate) name: String,
    /// Load average of the last minute.
    pub(crate) load_before: String,
}

impl Machine {
    pub(crate) fn here() -> Self {
        let info = read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| {
            let line = info.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let model = field("model name").unwrap_or_else(|| "unknown processor".into());
        let count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let avx512 = field("flags").is_some_and(|flags| flags.split(' ').any(|x| x == "avx512f"));
        let avx512 = if avx512 { " with AVX-512" } else { "" };
        Self { name: format!("{count} cores {model}{avx512}"), load_before: load() }
    }
}

/// Load average of the last minute.
pub(crate) fn load() -> String {
    let text = read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or("unknown").to_owned()
}

/// Processor time that a process has used, in seconds; 0 when it is gone.
pub(crate) fn processor_seconds(process: u32) -> f64 {
    let text = read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The name, in parentheses, may hold anything.
    let fields: Vec<_> = text.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok());
    (ticks(11).unwrap_or(0.0) + ticks(12).unwrap_or(0.0)) / TICKS_PER_SECOND
}

/// Largest memory that a process has had so far, in bytes.
pub(crate) fn peak_memory(process: u32) -> anyhow::Result<f64> {
    let text = read_to_string(format!("/proc/{process}/status"))?;
    let line = text.lines().find(|line| line.starts_with("VmHWM:")).context("no VmHWM")?;
    let kibibytes: f64 = line.split_whitespace().nth(1).context("no number")?.parse()?;
    Ok(kibibytes * 1024.0)
}

/// Watches how much of the machine is used by processes that are none of ours.
pub(crate) struct Watch {
    ours: Vec<u32>,
    since: Instant,
    ours_before: f64,
    all_before: f64,
}

impl Watch {
    /// From now on. The processes stay until the end.
    pub(crate) fn start(mut ours: Vec<u32>) -> Self {
        ours.push(std::process::id());
        let ours_before = ours.iter().map(|process| processor_seconds(*process)).sum();
        Self { ours, since: Instant::now(), ours_before, all_before: busy_seconds() }
    }

    /// Processors that others used, on the average.
    pub(crate) fn others(&self) -> f64 {
        let ours: f64 = self.ours.iter().map(|process| processor_seconds(*process)).sum();
        let others = busy_seconds() - self.all_before - (ours - self.ours_before);
        (others / self.since.elapsed().as_secs_f64()).max(0.0)
    }
}

/// Time that all processors together were not idle, in seconds.
fn busy_seconds() -> f64 {
    let text = read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let ticks: Vec<f64> = line.split_whitespace().filter_map(|x| x.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq, steal; guests are within user.
    let busy = [0, 1, 2, 5, 6, 7].iter().filter_map(|index| ticks.get(*index));
    busy.sum::<f64>() / TICKS_PER_SECOND
}
