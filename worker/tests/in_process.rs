//! What becomes of a job, with broker and store in this process.

use crate::outcomes::bulk::Bulk;
use crate::support::{Example, InProcess};

#[tokio::test(flavor = "multi_thread")]
async fn outcomes_in_process() {
    let (tree, linear) = (Example::tree(), Example::linear());
    let services = InProcess::default();
    crate::outcomes::scores(&services, &tree, &linear).await;
    crate::outcomes::refusals(&services, &tree, &linear).await;
    crate::outcomes::keys(&services, &tree).await;
    crate::outcomes::bulk::bulk(&services, &Bulk::new(), None::<()>).await;
    crate::outcomes::dead_letters(&services, &linear).await;
    crate::outcomes::poison(&services, &linear).await;
    crate::outcomes::once(&services, &linear).await;
    crate::outcomes::stopped_midway(&services, &tree).await;
    crate::outcomes::drained(&services, &tree).await;
}
