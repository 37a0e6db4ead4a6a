//! `cipherscore models`

use std::path::{Path, PathBuf};

use anyhow::ensure;
use cipherscore_common::{Blob, BlobKind, BlobStore, Lease, Tenant};
use cipherscore_engine::artifact::MAX_ZIP_BYTES;
use clap::{Args, Subcommand};

use super::store::{Listed, StoreOptions, push, report_list, wait};
use super::{open_server, read_bounded, read_server};

/// Put models into the store, from which the workers take them by their model id.
#[derive(Args)]
pub(crate) struct Models {
    #[command(subcommand)]
    command: ModelsCommand,

    #[command(flatten)]
    store: StoreOptions,
}

#[derive(Subcommand)]
enum ModelsCommand {
    /// Send a server.zip that was imported or compiled. Prints its model id.
    Push {
        /// What `cipherscore import` or `cipherscore compile` wrote; a raw zip, with machine code,
        /// is refused.
        #[arg(value_name = "ZIP")]
        server_zip: PathBuf,

        /// How long it stays: a number and d, h, m or s. For good if not given.
        #[arg(long, value_name = "TIME")]
        ttl: Option<Lease>,
    },
    /// Show the models in the store.
    List,
}

impl Models {
    pub(crate) fn run(self, json: bool) -> anyhow::Result<()> {
        let (store, tenant) = self.store.open()?;
        let tenant = &tenant;
        match self.command {
            ModelsCommand::Push { server_zip, ttl } => {
                let blob = portable_model(&server_zip, tenant)?;
                push(&store, &blob, ttl, json)?.report(json)
            }
            ModelsCommand::List => {
                let found = wait(store.list(tenant, BlobKind::Model))?;
                report_list(json, found.into_iter().map(Listed::from).collect())
            }
        }
    }
}

/// Opens and checks a zip. A raw one is refused before anything of it runs.
fn portable_model(path: &Path, tenant: &Tenant) -> anyhow::Result<Blob> {
    let zip = read_bounded(path, MAX_ZIP_BYTES)?;
    let server = read_server(path, &zip)?;
    ensure!(
        !server.holds_machine_code(),
        "{0} is raw: it holds machine code, which workers do not take from the store. Import it \
         first: cipherscore import {0} --output imported.zip",
        path.display()
    );
    let model_id = open_server(path, &server)?.preferred.evaluator.requirements().model_id;
    Ok(Blob::model(tenant, model_id, zip)?)
}
