//! `cipherscore keygen`

use std::collections::BTreeMap;
use std::path::PathBuf;

use cipherscore_artifact::key_file::evaluation_keys_of;
use cipherscore_common::{EvaluationKeyId, FormName, OwnerId};
use cipherscore_producer::client_zip::OpenClient;
use cipherscore_producer::key_folder::KeyFolder;
use cipherscore_producer::model::{ClientModel, EncryptionError, NewKeys};
use clap::Args;
use serde::Serialize;

use super::{read_model_or_function, report, size};
use crate::passphrase::PassphraseSource;
use crate::print::say;
use crate::progress;

/// Make a data owner's keys: a secret client key, and the evaluation key for the server.
///
/// Writes DIR/client.key (secret, mode 0600), DIR/evaluation.key (for the server; in Concrete's
/// format for Concrete ML's models, and not there for models that need none) and DIR/keys.json (the
/// evaluation keys' ids, and whose the keys are). Of models that score single rows also DIR/rows.state,
/// which counts what must be limited: keep it with the keys. An artifact with several forms has one
/// file of each kind for all of them.
#[derive(Args)]
pub(crate) struct Keygen {
    /// client.zip of the model or function.
    #[arg(long, value_name = "ZIP")]
    client: PathBuf,

    /// Folder for the keys.
    #[arg(long, value_name = "DIR")]
    keys: PathBuf,

    /// Replace keys that are there. What they encrypted is lost.
    #[arg(long)]
    force: bool,

    /// Make new keys in the place of those that are there, and keep these in DIR/retired-TIME: a key
    /// folder, by which what is on its way can be decrypted. For keys that are burned or used up, and
    /// before somebody else gets to know what was decrypted.
    #[arg(long, conflicts_with = "force")]
    rotate: bool,

    /// Encrypt the client key with a passphrase. Implied when a passphrase is given.
    #[arg(long)]
    encrypt: bool,

    #[command(flatten)]
    passphrase: PassphraseSource,
}

#[derive(Serialize)]
struct Generated {
    keys: PathBuf,
    /// Of a file that is one key.
    #[serde(skip_serializing_if = "Option::is_none")]
    evaluation_key_id: Option<EvaluationKeyId>,
    /// Of each key in a file with sections by form. The file has a digest too, which names no key.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    evaluation_key_sections: BTreeMap<FormName, EvaluationKeyId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner_id: Option<OwnerId>,
    evaluation_key_bytes: usize,
    client_key_encrypted: bool,
    /// Where the keys before them are.
    #[serde(skip_serializing_if = "Option::is_none")]
    retired: Option<PathBuf>,
}

/// A rotation that an earlier process had begun.
#[derive(Serialize)]
struct Finished {
    keys: PathBuf,
    retired: PathBuf,
}

impl Keygen {
    pub(crate) fn run(self, json: bool) -> anyhow::Result<()> {
        let client = read_model_or_function(&self.client)?;
        let folder = KeyFolder::new(&self.keys);
        if self.rotate
            && let Some(retired) = folder.finish_rotation()?
        {
            return report(json, &Finished { keys: self.keys, retired }, |finished| {
                say!("the rotation that was interrupted is done: its new keys are in use");
                say!("retired         {}", finished.retired.display());
            });
        }
        if !self.force && !self.rotate {
            folder.require_vacant()?;
        }
        // Who had a passphrase before has one again.
        let has_passphrase = self.rotate && folder.is_encrypted()?;
        let encrypt = self.encrypt || self.passphrase.is_given() || has_passphrase;
        let passphrase = encrypt.then(|| self.passphrase.new_passphrase()).transpose()?;
        let keys = match &client {
            OpenClient::Model(model) => generate(&**model, json)?,
            OpenClient::Function(function) => {
                with_bar(function.key_steps(), json, |made| function.make_keys(made))?
            }
        };
        let retired = match self.rotate {
            true => Some(folder.rotate(&keys, passphrase)?),
            false => {
                folder.store(&keys, passphrase)?;
                None
            }
        };
        let named = keys.evaluation.as_deref().map(evaluation_keys_of).transpose()?;
        let ids = named.into_iter().flatten().map(|(form, key)| (form, EvaluationKeyId::of(key)));
        let (sections, whole): (Vec<_>, Vec<_>) = ids.partition(|(form, _)| form.is_some());
        let generated = Generated {
            evaluation_key_id: whole.first().map(|(_, id)| *id),
            evaluation_key_sections: sections
                .into_iter()
                .filter_map(|(form, id)| Some((form?, id)))
                .collect(),
            retired,
            owner_id: keys.owner,
            evaluation_key_bytes: keys.evaluation.as_ref().map_or(0, Vec::len),
            client_key_encrypted: encrypt,
            keys: self.keys,
        };
        report(json, &generated, |generated| generated.print(&folder))
    }
}

impl Generated {
    /// For people.
    fn print(&self, folder: &KeyFolder) {
        let secret = if self.client_key_encrypted { "encrypted" } else { "mode 0600" };
        say!("client key      {} (secret, {secret})", self.keys.join("client.key").display());
        match self.evaluation_key_bytes {
            0 => say!("evaluation key  none: this model is evaluated without one"),
            bytes => {
                let path = folder.evaluation_key_path();
                say!("evaluation key  {} ({})", path.display(), size(bytes));
            }
        }
        if let Some(id) = self.evaluation_key_id {
            say!("id              {id}");
        }
        for (form, id) in &self.evaluation_key_sections {
            say!("id of {:<9} {id}", form.to_string());
        }
        if let Some(owner) = self.owner_id {
            say!("owner           {owner} (public; rows and results carry it)");
        }
        if let Some(retired) = &self.retired {
            say!("retired         {} (the keys before)", retired.display());
        }
    }
}

/// Makes keys, with a bar over the evaluation keys, which take the time.
pub(super) fn generate(model: &dyn ClientModel, json: bool) -> anyhow::Result<NewKeys> {
    with_bar(model.interface().key_steps, json, |made| model.make_keys(made))
}

fn with_bar(
    steps: u64,
    json: bool,
    make: impl FnOnce(&dyn Fn()) -> Result<NewKeys, EncryptionError>,
) -> anyhow::Result<NewKeys> {
    let bar = progress::bar(json, steps, "making keys");
    let keys = make(&|| bar.inc(1))?;
    bar.finish_and_clear();
    Ok(keys)
}
