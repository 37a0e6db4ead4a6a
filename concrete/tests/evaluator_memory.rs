//! The bound on a job's memory, against the process's own.
//!
//! One test alone in its process: the peak of resident memory belongs to it.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod cases;
mod jobs;

use cipherscore_engine::evaluator::Evaluator;
use jobs::{GO_ON, Party, case, party, two_by_two};

/// A field of /proc/self/status, in bytes.
fn status(field: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    let kibibytes: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kibibytes * 1024
}

/// By how much a job raises the peak of resident memory; none where the peak cannot be reset.
fn measure(party: &Party, body: &[u8], rows: u32) -> Option<usize> {
    const RESET_PEAK: &str = "5";
    std::fs::write("/proc/self/clear_refs", RESET_PEAK).ok()?;
    let before = status("VmRSS:");
    let result = party.run(body.chunks(1 << 20), rows, GO_ON).unwrap();
    assert!(!result.is_empty());
    Some(status("VmHWM:").saturating_sub(before))
}

#[test]
fn jobs_stay_within_the_bound() {
    /// What the allocator, the pool and the first use of code take once.
    const PROCESS_BYTES: usize = 8 << 20;
    let linear = party(two_by_two());
    let row = linear.body(&[vec![vec![1; 10], vec![2; 10]]]);
    let mut jobs = vec![(&linear, row.repeat(5000), 5000)];
    if let (case, Some(tree)) = case("decision_tree_classifier") {
        let rows: Vec<_> = case.expected().quantized.into_iter().map(|row| vec![row]).collect();
        jobs.push((tree, tree.body(&rows), u32::try_from(rows.len()).unwrap()));
    }
    for (party, body, rows) in jobs {
        let Some(measured) = measure(party, &body, rows) else { return };
        let bound = party.evaluator.footprint(rows).memory_bytes;
        eprintln!("{rows} rows: {measured} bytes measured, {bound} estimated");
        assert!(measured <= bound + PROCESS_BYTES, "{measured} {bound}");
    }
}
