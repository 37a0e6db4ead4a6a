//! `cipherscore decrypt`

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use cipherscore_artifact::content::Content;
use cipherscore_producer::client_zip::OpenClient;
use cipherscore_producer::key_folder::KeyFolder;
use cipherscore_producer::model::ClientModel;
use cipherscore_producer::rows::{ScoreColumns, ScoreWriter};
use clap::Args;
use serde::Serialize;

use super::function::{self, Converted};
use super::{read_content, read_model_or_function, report, require_separate_json, write_output};
use crate::passphrase::PassphraseSource;

/// Largest output file, in bytes.
const MAX_OUTPUT_BYTES: usize = 1 << 30;

/// Decrypt evaluated rows and turn them into scores, or the outputs of a function into tables.
///
/// Of a model all rows go into one table of scores. Of a function, such as encrypted training, each
/// file becomes a table of de-quantised numbers, in the form that `encrypt` reads. Files are outputs
/// in their order, or by name:
///
/// --input weights.bin bias.bin --output weights.csv bias.csv
///
/// --input weights=last.bin --output weights.csv
#[derive(Args)]
pub(crate) struct Decrypt {
    /// client.zip of the model.
    #[arg(long, value_name = "ZIP")]
    client: PathBuf,

    /// Folder with the keys, made by `keygen`.
    #[arg(long, value_name = "DIR")]
    keys: PathBuf,

    /// Encrypted outputs, as `evaluate` or `submit` wrote them. Of a function as FILE or NAME=FILE.
    #[arg(long, value_name = "FILE", num_args = 1.., required = true)]
    input: Vec<PathBuf>,

    /// CSV to write: proba_0,.. of a classifier, prediction of a regressor; - for standard output.
    /// Of a function one for each file of --input.
    #[arg(long, value_name = "CSV", num_args = 1.., required = true)]
    output: Vec<PathBuf>,

    /// Write the decrypted integers before dequantisation instead of scores.
    #[arg(long)]
    integers: bool,

    #[command(flatten)]
    passphrase: PassphraseSource,
}

impl Decrypt {
    pub(crate) fn run(self, json: bool) -> anyhow::Result<()> {
        self.output.iter().try_for_each(|output| require_separate_json(json, output))?;
        match read_model_or_function(&self.client)? {
            OpenClient::Model(model) => self.decrypt_rows(model, json),
            OpenClient::Function(function) => {
                let folder = KeyFolder::new(&self.keys);
                let encryption =
                    folder.function_encryption(function, || self.passphrase.existing())?;
                let values =
                    function::decrypt(&encryption, &self.input, &self.output, self.integers)?;
                report(json, &Values { values }, |Values { values }| {
                    eprintln!("{} values decrypted", values.len());
                })
            }
        }
    }

    fn decrypt_rows(self, model: Arc<dyn ClientModel>, json: bool) -> anyhow::Result<()> {
        let [output] = self.output.as_slice() else {
            bail!("{} files of --output, where the scores go into one", self.output.len());
        };
        let encryption =
            KeyFolder::new(&self.keys).encryption(model, || self.passphrase.existing())?;
        let decrypt = |path: &PathBuf| {
            let bytes = read_content(path, Content::Ciphertexts, MAX_OUTPUT_BYTES)?;
            encryption.decrypt_file(&bytes).with_context(|| path.display().to_string())
        };
        let mut rows = 0;
        write_output(output, |file| {
            let columns = if self.integers { ScoreColumns::Integers } else { ScoreColumns::Scores };
            let mut scores = ScoreWriter::new(file, encryption.model(), columns)?;
            for path in &self.input {
                let integers = decrypt(path)?;
                integers.rows().try_for_each(|row| scores.write(row))?;
                rows += integers.len();
            }
            Ok(scores.finish()?)
        })?;
        let decrypted = Decrypted { rows, output: output.clone() };
        report(json, &decrypted, |decrypted| eprintln!("{} rows decrypted", decrypted.rows))
    }
}

#[derive(Serialize)]
struct Decrypted {
    rows: usize,
    output: PathBuf,
}

#[derive(Serialize)]
struct Values {
    values: Vec<Converted>,
}
