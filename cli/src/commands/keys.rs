//! `cipherscore keys`

use std::path::PathBuf;

use anyhow::bail;
use cipherscore_artifact::key_file::evaluation_keys_of;
use cipherscore_common::{
    Blob, BlobKind, BlobName, BlobStore, EvaluationKeyId, Lease, RedisStore, ReleaseStore,
    StoreError, Tenant,
};
use cipherscore_producer::fleet::FleetStore;
use cipherscore_producer::key_folder::KeyFolder;
use clap::{Args, Subcommand};

use super::fleet::{FleetStoreOptions, OpenFleetStore};
use super::report;
use super::store::{Listed, Named, Outcome, Pushed, push, report_list};

/// Put evaluation keys into the store, from which the workers take them, or hand them to a gateway.
///
/// Keys there are leased: one that nobody renews goes away. The secret client key never leaves
/// its folder.
#[derive(Args)]
pub(crate) struct Keys {
    #[command(subcommand)]
    command: KeysCommand,

    #[command(flatten)]
    store: FleetStoreOptions,
}

#[derive(Subcommand)]
enum KeysCommand {
    /// Send DIR/evaluation.key, or renew its lease if it is there already. Prints its id. Where it
    /// has a section for each form of a model, these are sent apart: jobs name the one of theirs.
    Push {
        /// Folder that `cipherscore keygen` made.
        #[arg(long, value_name = "DIR")]
        keys: PathBuf,

        /// How long it stays unless it is renewed: a number and d, h, m or s.
        #[arg(long, value_name = "TIME", default_value_t = Lease::DEFAULT)]
        ttl: Lease,
    },
    /// Show the evaluation keys in the store. A gateway has no list of them.
    List,
    /// Renew the lease of an evaluation key.
    Touch {
        /// Evaluation key id.
        id: EvaluationKeyId,

        /// How long it stays from now on: a number and d, h, m or s.
        #[arg(long, value_name = "TIME", default_value_t = Lease::DEFAULT)]
        ttl: Lease,
    },
    /// Take an evaluation key out of the store. Workers that have loaded it may keep it in memory. Keys
    /// of several forms are revoked one by one.
    Revoke {
        /// Evaluation key id, as `keygen`, `keys push` and `keys list` print it.
        id: EvaluationKeyId,
    },
}

impl Keys {
    pub(crate) fn run(self, json: bool) -> anyhow::Result<()> {
        let opened = self.store.open()?;
        let OpenFleetStore { store, tenant, .. } = &opened;
        match self.command {
            KeysCommand::Push { keys, ttl } => {
                let file = KeyFolder::new(keys).evaluation_key_file()?;
                let sections = evaluation_keys_of(&file)?;
                let pushed = sections.iter().map(|(_, key)| {
                    let blob = Blob::evaluation_key(tenant, key.to_vec())?;
                    push(&opened, &blob, Some(ttl), json)
                });
                match pushed.collect::<anyhow::Result<Vec<_>>>()?.as_slice() {
                    [only] => only.report(json),
                    several => report(json, &several, |several| {
                        several.iter().for_each(Pushed::print);
                    }),
                }
            }
            KeysCommand::List => {
                let FleetStore::Redis(store) = store else {
                    bail!(
                        "a gateway has no list of keys: `keys touch ID` says whether it has one, and \
                         `keygen` and `keys push` print their ids"
                    );
                };
                report_list(json, opened.wait(list(store, tenant))?)
            }
            KeysCommand::Touch { id, ttl } => {
                let name = BlobName::evaluation_key(tenant, id);
                opened.wait(store.touch(&name, Some(ttl)))?;
                let expires_in_seconds = ttl.seconds();
                Named::new(&name, Outcome::Renewed { expires_in_seconds }).report(json)
            }
            KeysCommand::Revoke { id } => {
                let name = BlobName::evaluation_key(tenant, id);
                opened.wait(store.remove(&name))?;
                Named::new(&name, Outcome::Revoked { revoked: true }).report(json)
            }
        }
    }
}

/// The keys, each with what was released under it.
async fn list(store: &RedisStore, tenant: &Tenant) -> Result<Vec<Listed>, StoreError> {
    let mut listed = Vec::new();
    for info in store.list(tenant, BlobKind::Key).await? {
        let released = store.released(tenant, EvaluationKeyId::new(info.name.id)).await?;
        listed.push(Listed::from(info).with_released(released));
    }
    Ok(listed)
}
