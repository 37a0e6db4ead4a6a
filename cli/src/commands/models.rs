//! `cipherscore models`

use std::path::{Path, PathBuf};

use anyhow::ensure;
use cipherscore_common::{Blob, BlobKind, BlobStore, Lease, ModelId, Tenant};
use cipherscore_engine::artifact::MAX_ZIP_BYTES;
use clap::{Args, Subcommand};

use super::store::{Listed, StoreOptions, push, report_list, wait};
use super::{open_server, read_bounded, read_client, read_server, require_one_model};

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

        /// The client.zip of the same model, for gateways to hand out to data owners. Workers cannot
        /// read it.
        #[arg(long, value_name = "ZIP")]
        client: Option<PathBuf>,
    },
    /// Show the models in the store.
    List,
}

impl Models {
    pub(crate) fn run(self, json: bool) -> anyhow::Result<()> {
        let (store, tenant) = self.store.open()?;
        let tenant = &tenant;
        match self.command {
            ModelsCommand::Push { server_zip, ttl, client } => {
                let (blob, model_id) = portable_model(&server_zip, tenant)?;
                let client = client.map(|path| client_zip(&path, &server_zip, tenant, model_id));
                // Before anything is sent.
                let client = client.transpose()?;
                let pushed = push(&store, &blob, ttl, json)?;
                let client = client.map(|blob| push(&store, &blob, ttl, json)).transpose()?;
                pushed.with_client(client).report(json)
            }
            ModelsCommand::List => {
                let found = wait(store.list(tenant, BlobKind::Model))?;
                report_list(json, found.into_iter().map(Listed::from).collect())
            }
        }
    }
}

/// Opens and checks a zip. A raw one is refused before anything of it runs.
fn portable_model(path: &Path, tenant: &Tenant) -> anyhow::Result<(Blob, ModelId)> {
    let zip = read_bounded(path, MAX_ZIP_BYTES)?;
    let server = read_server(path, &zip)?;
    ensure!(
        !server.holds_machine_code(),
        "{0} is raw: it holds machine code, which workers do not take from the store. Import it \
         first: cipherscore import {0} --output imported.zip",
        path.display()
    );
    let model_id = open_server(path, &server)?.preferred.evaluator.requirements().model_id;
    Ok((Blob::model(tenant, model_id, zip)?, model_id))
}

/// Opens a `client.zip`, which must be of the model of the other one.
fn client_zip(
    path: &Path,
    server_zip: &Path,
    tenant: &Tenant,
    model_id: ModelId,
) -> anyhow::Result<Blob> {
    let server = read_bounded(server_zip, MAX_ZIP_BYTES)?;
    require_one_model(&*read_client(path)?, server_zip, &server)?;
    Ok(Blob::client_zip(tenant, model_id, read_bounded(path, MAX_ZIP_BYTES)?)?)
}
