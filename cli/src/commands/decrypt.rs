//! `cipherscore decrypt`

use std::path::PathBuf;

use anyhow::Context;
use cipherscore_producer::key_folder::KeyFolder;
use cipherscore_producer::rows::{Columns, ScoreWriter};
use clap::Args;
use serde::Serialize;

use super::{read_bounded, read_client, report, require_separate_json, write_output};
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

    /// Encrypted outputs, as `evaluate` wrote them.
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
        let model = read_client(&self.client)?;
        let encryption =
            KeyFolder::new(&self.keys).encryption(model, || self.passphrase.existing())?;
        let decrypt = |path: &PathBuf| {
            let bytes = read_bounded(path, MAX_OUTPUT_BYTES)?;
            encryption.decrypt_file(&bytes).with_context(|| path.display().to_string())
        };
        let mut rows = 0;
        write_output(&self.output, |file| {
            let columns = if self.integers { Columns::Integers } else { Columns::Scores };
            let mut scores = ScoreWriter::new(file, encryption.model(), columns)?;
            for path in &self.input {
                let integers = decrypt(path)?;
                integers.rows().try_for_each(|row| scores.write(row))?;
                rows += integers.len();
            }
            Ok(scores.finish()?)
        })?;
        let decrypted = Decrypted { rows, output: self.output };
        report(json, &decrypted, |decrypted| eprintln!("{} rows decrypted", decrypted.rows))
    }
}

#[derive(Serialize)]
struct Decrypted {
    rows: usize,
    output: PathBuf,
}
