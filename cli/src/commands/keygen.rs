//! `cipherscore keygen`

use std::path::PathBuf;

use cipherscore_concrete::keys::write_evaluation_keys;
use cipherscore_engine::artifact::Digest;
use cipherscore_engine::client_keys::ClientKeys;
use cipherscore_engine::evaluation_keys::EvaluationKeys;
use cipherscore_engine::parameters::KeysetParameters;
use cipherscore_producer::key_folder::KeyFolder;
use clap::Args;
use serde::Serialize;

use super::{open_client, report, size};
use crate::passphrase::PassphraseSource;
use crate::print::say;
use crate::progress;

/// Make a data owner's keys: a secret client key, and the evaluation key for the server.
///
/// Writes DIR/client.key (secret, mode 0600), DIR/evaluation.key (for the server, in Concrete's
/// format) and DIR/keys.json (the evaluation key's id).
#[derive(Args)]
pub(crate) struct Keygen {
    /// client.zip of the model.
    #[arg(long, value_name = "ZIP")]
    client: PathBuf,

    /// Folder for the keys.
    #[arg(long, value_name = "DIR")]
    keys: PathBuf,

    /// Replace keys that are there. What they encrypted is lost.
    #[arg(long)]
    force: bool,

    /// Encrypt the client key with a passphrase. Implied when a passphrase is given.
    #[arg(long)]
    encrypt: bool,

    #[command(flatten)]
    passphrase: PassphraseSource,
}

#[derive(Serialize)]
struct Generated {
    keys: PathBuf,
    evaluation_key_id: Digest,
    evaluation_key_bytes: usize,
    client_key_encrypted: bool,
}

impl Keygen {
    pub(crate) fn run(self, json: bool) -> anyhow::Result<()> {
        let artifact = open_client(&self.client)?;
        let folder = KeyFolder::new(&self.keys);
        if !self.force {
            folder.require_vacant()?;
        }
        let encrypt = self.encrypt || self.passphrase.is_given();
        let passphrase = encrypt.then(|| self.passphrase.new_passphrase()).transpose()?;
        let (client_keys, evaluation_keys) = generate(artifact.keyset(), json)?;
        let evaluation_keys = write_evaluation_keys(&evaluation_keys, artifact.keyset());
        let generated = Generated {
            evaluation_key_id: folder.store(&client_keys, &evaluation_keys, passphrase)?,
            evaluation_key_bytes: evaluation_keys.len(),
            client_key_encrypted: encrypt,
            keys: self.keys,
        };
        report(json, &generated, |generated| {
            let secret = if generated.client_key_encrypted { "encrypted" } else { "mode 0600" };
            say!(
                "client key      {} (secret, {secret})",
                generated.keys.join("client.key").display()
            );
            say!(
                "evaluation key  {} ({})",
                folder.evaluation_key_path().display(),
                size(generated.evaluation_key_bytes)
            );
            say!("id              {}", generated.evaluation_key_id);
        })
    }
}

/// Makes keys, with a bar over the evaluation keys, which take the time.
pub(super) fn generate(
    parameters: &KeysetParameters,
    json: bool,
) -> anyhow::Result<(ClientKeys, EvaluationKeys)> {
    let count = parameters.bootstrap_keys.len() + parameters.keyswitch_keys.len();
    let bar = progress::bar(json, count as u64, "making keys");
    let client_keys = ClientKeys::generate(parameters);
    let evaluation_keys = client_keys.evaluation_keys(parameters, &|| bar.inc(1))?;
    bar.finish_and_clear();
    Ok((client_keys, evaluation_keys))
}
