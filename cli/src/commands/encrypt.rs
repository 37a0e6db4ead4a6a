//! `cipherscore encrypt`

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use cipherscore_common::FormName;
use cipherscore_producer::client_zip::OpenClient;
use cipherscore_producer::files::{Access, write_atomically};
use cipherscore_producer::key_folder::KeyFolder;
use cipherscore_producer::model::{Admitted, Chosen, ClientModel, Interface, RefusedRow};
use cipherscore_producer::rows::RowReader;
use clap::Args;
use serde::Serialize;

use super::function::{self, Converted};
use super::{FormOption, InputColumns, encryption_of, open_input, read_model_or_function, report};
use crate::passphrase::PassphraseSource;
use crate::print::say;
use crate::progress;

/// Encrypt rows, or the arguments of a function.
///
/// Rows of Concrete ML's models go each into a file in Concrete's format, those of compiled models
/// all into one file. What is encrypted for single rows is remembered in the key folder, which alone
/// decrypts what comes back.
///
/// A function, such as encrypted training, has several inputs, which `inspect` lists with their
/// names and shapes. Each takes a table, in their order or by name:
///
/// --input x.csv y.csv weights.csv bias.csv
///
/// --input x=next.csv y=labels.csv
///
/// A table has a header, as many columns as the last dimension of the shape, and the other
/// dimensions as lines; a table with twice as many lines holds two values, and so on. Each value is
/// encrypted into a file of its own.
#[derive(Args)]
pub(crate) struct Encrypt {
    /// client.zip of the model.
    #[arg(long, value_name = "ZIP")]
    client: PathBuf,

    /// Folder with the keys, made by `keygen`.
    #[arg(long, value_name = "DIR")]
    keys: PathBuf,

    /// CSV with one row of raw features a line; - for standard input. Of a function a
    /// table for each input, as FILE or NAME=FILE.
    #[arg(long, value_name = "CSV", num_args = 1.., required = true)]
    input: Vec<PathBuf>,

    /// A file for each row, or one folder for row-000000-0.bin (row, argument) and so on. One file
    /// for models whose rows are encrypted together. Of a function a file for each value, or one
    /// folder for x-000000.bin (input, value) and so on.
    #[arg(long, value_name = "FILE", num_args = 1.., required = true)]
    output: Vec<PathBuf>,

    #[command(flatten)]
    form: FormOption,

    #[command(flatten)]
    columns: InputColumns,

    #[command(flatten)]
    passphrase: PassphraseSource,
}

#[derive(Serialize)]
struct Encrypted {
    rows: usize,
    files: Vec<PathBuf>,
    /// In which form, and why; nothing of a model that can have one only.
    #[serde(skip_serializing_if = "Option::is_none")]
    form: Option<FormName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    form_reason: Option<String>,
}

#[derive(Serialize)]
struct Values {
    values: Vec<Converted>,
}

impl Encrypt {
    pub(crate) fn run(self, json: bool) -> anyhow::Result<()> {
        match read_model_or_function(&self.client)? {
            OpenClient::Model(model) => self.encrypt_rows(model, json),
            OpenClient::Function(function) => {
                let folder = KeyFolder::new(&self.keys);
                let encryption =
                    folder.function_encryption(function, || self.passphrase.existing())?;
                let values = function::encrypt(
                    &encryption,
                    &self.input,
                    self.columns.first_line(),
                    &self.output,
                )?;
                report(json, &Values { values }, |Values { values }| {
                    for Converted { argument, files } in values {
                        say!("{argument}: {} encrypted", files.len());
                    }
                })
            }
        }
    }

    fn encrypt_rows(self, model: Arc<dyn ClientModel>, json: bool) -> anyhow::Result<()> {
        let [input] = self.input.as_slice() else {
            bail!("{} files of --input, where a model takes one with all rows", self.input.len());
        };
        let Interface { features, rows_of_file, .. } = &model.interface().clone();
        let named = || input.display().to_string();
        let mut reader = RowReader::new(open_input(input)?, features, self.columns.format())
            .with_context(named)?;
        let mut read = || reader.take(rows_of_file.unwrap_or(usize::MAX)).with_context(named);
        let mut next = read()?;
        let (folder, rows) = (KeyFolder::new(&self.keys), next.len() as u64);
        let Chosen { it: encryption, why } =
            encryption_of(&folder, model, self.form.form, rows, &self.passphrase)?;
        let model = encryption.model();
        let form = model.form();
        let mut names = self.names()?;
        let counter = progress::rows(json, None, 0);
        let (mut files, mut rows) = (Vec::new(), 0);
        while !next.is_empty() {
            let path = names
                .next()
                .with_context(|| format!("more rows than the {} files of --output", files.len()))?;
            let count = next.len();
            let Admitted { rows: next_rows, refused } =
                model.admit(next, rows as u64 + 1).with_context(named)?;
            require_all(&refused).with_context(named)?;
            let bytes = encryption.encrypt_file(&next_rows)?;
            write_atomically(&path, Access::Default, |file| file.write_all(&bytes))
                .with_context(|| path.display().to_string())?;
            files.push(path);
            rows += count;
            counter.set_message(format!("row {rows}"));
            next = read()?;
        }
        counter.finish_and_clear();
        anyhow::ensure!(
            function::only_folder(&self.output).is_some() || names.next().is_none(),
            "rows for {} files, but {} files of --output",
            files.len(),
            self.output.len()
        );
        report(json, &Encrypted { rows, files, form, form_reason: why }, |encrypted| {
            say!("{} rows encrypted", encrypted.rows);
            if let (Some(form), Some(why)) = (encrypted.form, &encrypted.form_reason) {
                say!("form {form}: {why}");
            }
        })
    }

    /// The files to write, as given, or numbered in a folder.
    fn names(&self) -> anyhow::Result<Box<dyn Iterator<Item = PathBuf>>> {
        let Some(folder) = function::only_folder(&self.output).map(Path::to_owned) else {
            return Ok(Box::new(self.output.clone().into_iter()));
        };
        std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        Ok(Box::new((0..).map(move |row: u64| folder.join(format!("row-{row:06}-0.bin")))))
    }
}

/// A file has no place for rows without scores: all of them are named.
fn require_all(refused: &[RefusedRow]) -> anyhow::Result<()> {
    const NAMED: usize = 20;
    let named: Vec<_> = refused.iter().take(NAMED).map(|row| row.reason.as_str()).collect();
    anyhow::ensure!(
        refused.is_empty(),
        "{} rows that the model does not take, where a file of rows has no place for them: {}{}",
        refused.len(),
        named.join("; "),
        if refused.len() > NAMED { "; .." } else { "" }
    );
    Ok(())
}
