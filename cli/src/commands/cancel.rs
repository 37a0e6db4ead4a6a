//! `cipherscore cancel`

use cipherscore_common::{JobId, MarkStore, Tenant};
use clap::Args;
use serde::Serialize;

use super::report;
use super::store::{StoreOptions, wait};
use crate::print::say;

/// Ask the workers not to evaluate a job.
///
/// A job that is not done by then is answered with `cancelled`. One tenant cannot cancel another's
/// jobs.
#[derive(Args)]
pub(crate) struct Cancel {
    /// Ids of jobs, as `submit` and the workers' logs say them.
    #[arg(required = true, value_name = "JOB_ID")]
    jobs: Vec<JobId>,

    #[command(flatten)]
    store: StoreOptions,
}

#[derive(Serialize)]
struct Cancelled {
    tenant: Tenant,
    jobs: Vec<JobId>,
}

impl Cancel {
    pub(crate) fn run(self, json: bool) -> anyhow::Result<()> {
        let (store, tenant) = self.store.open()?;
        wait(async {
            for job in &self.jobs {
                store.mark_cancelled(&tenant, *job).await?;
            }
            anyhow::Ok(())
        })?;
        report(json, &Cancelled { tenant, jobs: self.jobs }, |cancelled| {
            cancelled.jobs.iter().for_each(|job| say!("{job} is marked as cancelled"));
        })
    }
}
