//! `cipherscore keygen`

use std::path::PathBuf;

use cipherscore_common::{EvaluationKeyId, OwnerId};
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
/// evaluation key's id, and whose the keys are). Of models that score single rows also DIR/rows.state,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    evaluation_key_id: Option<EvaluationKeyId>,
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
        let generated = Generated {
            evaluation_key_id: keys.evaluation.as_deref().map(EvaluationKeyId::of),
            retired,
            owner_id: keys.owner,
            evaluation_key_bytes: keys.evaluation.as_ref().map_or(0, Vec::len),
            client_key_encrypted: encrypt,
            keys: self.keys,
        };
        report(json, &generated, |generated| {
            let secret = if generated.client_key_encrypted { "encrypted" } else { "mode 0600" };
            say!(
                "client key      {} (secret, {secret})",
                generated.keys.join("client.key").display()
            );
            match generated.evaluation_key_id {
                Some(id) => {
                    let path = folder.evaluation_key_path();
                    let size = size(generated.evaluation_key_bytes);
                    say!("evaluation key  {} ({size})", path.display());
                    say!("id              {id}");
                }
                None => say!("evaluation key  none: this model is evaluated without one"),
            }
            if let Some(owner) = generated.owner_id {
                say!("owner           {owner} (public; rows and results carry it)");
            }
            if let Some(retired) = &generated.retired {
                say!("retired         {} (the keys before)", retired.display());
            }
        })
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
