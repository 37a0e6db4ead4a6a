//! `cipherscore models`

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use cipherscore_common::{Blob, BlobKind, BlobStore, Digest, Lease, ModelId, Tenant};
use cipherscore_engine::artifact::MAX_ZIP_BYTES;
use cipherscore_producer::client_zip::{OpenClient, open_model_or_function};
use cipherscore_producer::fleet::FleetStore;
use cipherscore_producer::gateway::ServedModel;
use clap::{Args, Subcommand};
use serde::Serialize;

use super::fleet::{FleetStoreOptions, OpenFleetStore};
use super::store::{Listed, push, report_list};
use super::{
    is_standard, open_server, read_bounded, read_client, read_server, report, require_folder_of,
    require_one_model, size, write_output,
};
use crate::exit::UsageError;
use crate::print::say;

/// Put models into the store, from which the workers take them by their model id; and get from a gateway
/// what a data owner begins with.
#[derive(Args)]
pub(crate) struct Models {
    #[command(subcommand)]
    command: ModelsCommand,

    #[command(flatten)]
    store: FleetStoreOptions,
}

#[derive(Subcommand)]
enum ModelsCommand {
    /// Send a server.zip that was imported or compiled to the store, not through a gateway. Prints its
    /// model id.
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
    /// Show the models in the store, or those behind a gateway.
    List,
    /// Get the client.zip of a model from a gateway: with it a data owner makes keys (`cipherscore keygen`)
    /// and encrypts rows. Ask whoever runs the fleet for the model id, or see `models list`.
    Client {
        /// Model id.
        #[arg(value_name = "MODEL_ID")]
        model: ModelId,

        /// Where it goes; - is standard output.
        #[arg(long, short, value_name = "ZIP", default_value = "client.zip")]
        output: PathBuf,
    },
}

/// A `client.zip` that was fetched.
#[derive(Serialize)]
struct Fetched<'a> {
    model_id: ModelId,
    bytes: usize,
    sha256: Digest,
    output: &'a Path,
}

impl Models {
    pub(crate) fn run(self, json: bool) -> anyhow::Result<()> {
        let opened = self.store.open()?;
        let OpenFleetStore { store, tenant, .. } = &opened;
        match (self.command, store) {
            (ModelsCommand::Push { .. }, FleetStore::Gateway(_)) => Err(UsageError(
                "models are put into the store, and not through a gateway: give --redis URL",
            )
            .into()),
            (ModelsCommand::Push { server_zip, ttl, client }, FleetStore::Redis(_)) => {
                let (blob, model_id) = portable_model(&server_zip, tenant)?;
                let client = client.map(|path| client_zip(&path, &server_zip, tenant, model_id));
                // Before anything is sent.
                let client = client.transpose()?;
                let pushed = push(&opened, &blob, ttl, json)?;
                let client = client.map(|blob| push(&opened, &blob, ttl, json)).transpose()?;
                pushed.with_client(client).report(json)
            }
            (ModelsCommand::List, FleetStore::Redis(store)) => {
                let found = opened.wait(store.list(tenant, BlobKind::Model))?;
                report_list(json, found.into_iter().map(Listed::from).collect())
            }
            (ModelsCommand::List, FleetStore::Gateway(client)) => {
                report(json, &opened.wait(client.models())?, |models| {
                    models.iter().for_each(print_served);
                })
            }
            (ModelsCommand::Client { .. }, FleetStore::Redis(_)) => Err(UsageError(
                "which gateway? A client.zip comes from one: give --gateway URL, or set \
                 CIPHERSCORE_GATEWAY_URL",
            )
            .into()),
            (ModelsCommand::Client { model, output }, FleetStore::Gateway(client)) => {
                require_folder_of(&output)?;
                let zip = opened.wait(client.client_zip(model))?;
                require_client(&zip, model)?;
                write_output(&output, |file| Ok(file.write_all(&zip)?))?;
                let (bytes, sha256) = (zip.len(), Digest::of(&zip));
                let fetched = Fetched { model_id: model, bytes, sha256, output: &output };
                // Standard output has the zip then.
                match is_standard(&output) {
                    true => Ok(()),
                    false => report(json, &fetched, |fetched| say!("{}", fetched.output.display())),
                }
            }
        }
    }
}

/// A zip of another model would encrypt for that one. Those of Concrete ML do not say of which they are.
fn require_client(zip: &[u8], model: ModelId) -> anyhow::Result<()> {
    let opened = open_model_or_function(zip).context("what the gateway sent")?;
    if let OpenClient::Model(client) = &opened {
        ensure!(
            client.model_id().is_none_or(|said| said == model),
            "what the gateway sent is the client.zip of another model; tell whoever runs the fleet"
        );
    }
    Ok(())
}

fn print_served(model: &ServedModel) {
    let zip = match &model.client_zip {
        Some(zip) => size(usize::try_from(zip.bytes).unwrap_or(usize::MAX)),
        None => "none".to_owned(),
    };
    say!("{}  client.zip {zip:>10}  {} workers", model.model_id, model.workers);
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
