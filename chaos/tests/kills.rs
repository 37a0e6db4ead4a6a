//! Everything breaks while jobs are under way: none is lost, none is answered twice, none is wrong.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::time::Duration;

use cipherscore_chaos::load::Pace;
use cipherscore_chaos::owner::Owner;
use cipherscore_chaos::report::RunReport;
use cipherscore_chaos::run::{RunPlan, run};
use cipherscore_chaos::schedule::Amounts;

/// Deaths with two causes, at most: a worker is killed in the moment in which it dies by itself.
const COINCIDENCES: usize = 3;

fn check(report: &RunReport) {
    println!("{report}");
    assert_eq!(report.violations(), Vec::<String>::new());
}

/// 2,000 jobs of real ciphertexts, of them about 20 that nobody can do: some kill seven workers each.
#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_jobs_under_kills_of_everything() {
    let faults = Amounts {
        worker_kills: 11,
        worker_crashes: 9,
        broker_kills: 3,
        store_kills: 2,
        midway_cuts: 5,
        ..Amounts::default()
    };
    let plan = RunPlan {
        program: env!("CARGO_BIN_EXE_cipherscore-chaos").into(),
        owners: vec![Owner::open("ann", "breast_cancer_logistic_regression").unwrap()],
        pace: Pace { jobs: 2000, time: Duration::from_secs(40), poison_percent: 1.0, seed: 2026 },
        workers: 3,
        slots: 2,
        prefetch: 16,
        faults,
    };
    let report = run(plan).await.unwrap();
    check(&report);
    assert_eq!(report.standing.asked, 2000);
    let causes = 20 + report.killed_by_rows;
    assert!(report.deaths + COINCIDENCES >= causes, "{} died of {causes}", report.deaths);
    assert!(report.dead.values().sum::<usize>() > 5, "{:?}", report.dead);
    // Whatever is called poison has ended as many workers as it may, alone or beside others.
    let poison = report.dead.get("poison").copied().unwrap_or_default();
    assert!(report.killed_by_rows >= 5 * poison, "{} killed", report.killed_by_rows);
}

/// 300 jobs of two tenants, half of them with bootstraps and an evaluation key in the store.
#[tokio::test(flavor = "multi_thread")]
async fn bootstrapped_jobs_of_two_tenants_under_kills() {
    let faults = Amounts { worker_kills: 14, worker_crashes: 6, ..Amounts::default() };
    let plan = RunPlan {
        program: env!("CARGO_BIN_EXE_cipherscore-chaos").into(),
        owners: vec![
            Owner::open("ann", "breast_cancer_logistic_regression").unwrap(),
            Owner::open("bob", "iris_decision_tree").unwrap(),
        ],
        pace: Pace { jobs: 300, time: Duration::from_secs(40), poison_percent: 0.0, seed: 7 },
        workers: 3,
        slots: 1,
        prefetch: 16,
        faults,
    };
    let report = run(plan).await.unwrap();
    check(&report);
    assert_eq!(report.standing.answered, 300);
    assert!((20 - COINCIDENCES..=20).contains(&report.deaths), "{} workers died", report.deaths);
}
