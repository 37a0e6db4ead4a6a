//! `cipherscore cancel`

use cipherscore_common::{JobId, OwnerStore, Tenant};
use clap::Args;
use serde::Serialize;

use super::fleet::FleetStoreOptions;
use super::report;
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
    store: FleetStoreOptions,
}

#[derive(Serialize)]
struct Cancelled {
    tenant: Tenant,
    jobs: Vec<JobId>,
}

impl Cancel {
    pub(crate) fn run(self, json: bool) -> anyhow::Result<()> {
        let opened = self.store.open()?;
        opened.wait(async {
            for job in &self.jobs {
                opened.store.cancel(&opened.tenant, *job).await?;
            }
            anyhow::Ok(())
        })?;
        let tenant = opened.tenant.clone();
        report(json, &Cancelled { tenant, jobs: self.jobs }, |cancelled| {
            cancelled.jobs.iter().for_each(|job| say!("{job} is marked as cancelled"));
        })
    }
}
