//! `cipherscore decrypt`

use std::path::PathBuf;

use anyhow::Context;
use cipherscore_concrete::values::read_value;
use cipherscore_producer::key_folder::KeyFolder;
use cipherscore_producer::rows::{Columns, ScoreWriter};
use clap::Args;
use serde::Serialize;

use super::{open_client, read_bounded, report, require_separate_json, write_output};
use crate::passphrase::PassphraseSource;

/// Largest output file, in bytes.
const MAX_OUTPUT_BYTES: usize = 1 << 30;

/// Decrypt evaluated rows and turn them into scores.
#[derive(Args)]
pub(crate) struct Decrypt {
    /// client.zip of the model.
    #[arg(long, value_name = "ZIP")]
    client: PathBuf,

    /// Folder with the keys, made by `keygen`.
    #[arg(long, value_name = "DIR")]
    keys: PathBuf,

    /// Encrypted outputs, one file for each row.
    #[arg(long, value_name = "FILE", num_args = 1.., required = true)]
    input: Vec<PathBuf>,

    /// CSV to write: proba_0,.. of a classifier, prediction of a regressor; - for standard output.
    #[arg(long, value_name = "CSV")]
    output: PathBuf,

    /// Write the decrypted integers before dequantisation instead of scores.
    #[arg(long)]
    integers: bool,

    #[command(flatten)]
    passphrase: PassphraseSource,
}

impl Decrypt {
    pub(crate) fn run(self, json: bool) -> anyhow::Result<()> {
        require_separate_json(json, &self.output)?;
        let artifact = open_client(&self.client)?;
        let keys = KeyFolder::new(&self.keys)
            .client_keys(artifact.keyset(), || self.passphrase.existing())?;
        let gate = artifact.output();
        let decrypt = |path: &PathBuf| {
            let bytes = read_bounded(path, MAX_OUTPUT_BYTES)?;
            let value = read_value(gate, &bytes).with_context(|| path.display().to_string())?;
            anyhow::Ok(keys.decrypt(&value, gate)?)
        };
        write_output(&self.output, |file| {
            let columns = if self.integers { Columns::Integers } else { Columns::Scores };
            let mut scores = ScoreWriter::new(file, &artifact, columns)?;
            for path in &self.input {
                scores.write(&decrypt(path)?)?;
            }
            Ok(scores.finish()?)
        })?;
        let decrypted = Decrypted { rows: self.input.len(), output: self.output };
        report(json, &decrypted, |decrypted| eprintln!("{} rows decrypted", decrypted.rows))
    }
}

#[derive(Serialize)]
struct Decrypted {
    rows: usize,
    output: PathBuf,
}
