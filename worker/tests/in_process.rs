//! What becomes of a job, with broker and store in this process.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod outcomes;
mod support;

use outcomes::bulk::Bulk;
use support::{Example, InProcess};

#[tokio::test(flavor = "multi_thread")]
async fn outcomes_in_process() {
    let (tree, linear) = (Example::tree(), Example::linear());
    let services = InProcess::default();
    outcomes::scores(&services, &tree, &linear).await;
    outcomes::refusals(&services, &tree, &linear).await;
    outcomes::keys(&services, &tree).await;
    outcomes::bulk::bulk(&services, &Bulk::new(), None::<()>).await;
    outcomes::dead_letters(&services, &linear).await;
    outcomes::poison(&services, &linear).await;
    outcomes::once(&services, &linear).await;
    outcomes::stopped_midway(&services, &tree).await;
    outcomes::drained(&services, &tree).await;
}
