//! A bridge, killed with everything around it: every event has its score, and none is wrong.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::path::Path;
use std::time::Duration;

use cipherscore_chaos::bridge::{BridgePlan, EventPace, run_with_bridge};

/// Two kills of each: the bridge, a worker, both brokers, the store. The program is the one that
/// `cargo xtask test` has built beside ours.
#[tokio::test(flavor = "multi_thread")]
async fn every_event_has_its_score_under_kills_of_everything() {
    let program = Path::new(env!("CARGO_BIN_EXE_cipherscore-chaos")).with_file_name("cipherscore");
    assert!(program.is_file(), "cargo build --release -p cipherscore");
    let plan = BridgePlan {
        program,
        pace: EventPace {
            events: 500,
            time: Duration::from_secs(50),
            unreadable_percent: 2.0,
            seed: 2026,
        },
        workers: 2,
        kills: 10,
    };
    let report = run_with_bridge(plan).await.unwrap();
    println!("{report}");
    assert_eq!(report.violations(), Vec::<String>::new());
    let standing = &report.standing;
    assert_eq!(standing.scored + standing.dead, 500);
    assert!(standing.dead > 0 && report.bridge_deaths >= 1, "{report}");
}
