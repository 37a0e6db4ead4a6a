//! `cipherscore encrypt`

use std::path::PathBuf;

use anyhow::Context;
use cipherscore_producer::files::{Access, write_atomically};
use cipherscore_producer::key_folder::KeyFolder;
use cipherscore_producer::model::Interface;
use cipherscore_producer::rows::RowReader;
use clap::Args;
use serde::Serialize;

use super::{InputColumns, open_input, read_client, report};
use crate::passphrase::PassphraseSource;
use crate::print::say;
use crate::progress;

/// Encrypt rows: of Concrete ML's models each into a file in Concrete's format, of others all into
/// one file.
#[derive(Args)]
pub(crate) struct Encrypt {
    /// client.zip of the model.
    #[arg(long, value_name = "ZIP")]
    client: PathBuf,

    /// Folder with the keys, made by `keygen`.
    #[arg(long, value_name = "DIR")]
    keys: PathBuf,

    /// CSV with a header and one row of raw features a line; - for standard input.
    #[arg(long, value_name = "CSV")]
    input: PathBuf,

    /// A file for each row, or one folder for row-000000-0.bin (row, argument) and so on. One file
    /// for models whose rows are encrypted together.
    #[arg(long, value_name = "FILE", num_args = 1.., required = true)]
    output: Vec<PathBuf>,

    #[command(flatten)]
    columns: InputColumns,

    #[command(flatten)]
    passphrase: PassphraseSource,
}

#[derive(Serialize)]
struct Encrypted {
    rows: usize,
    files: Vec<PathBuf>,
}

impl Encrypt {
    pub(crate) fn run(self, json: bool) -> anyhow::Result<()> {
        let model = read_client(&self.client)?;
        let encryption =
            KeyFolder::new(&self.keys).encryption(model, || self.passphrase.existing())?;
        let model = encryption.model();
        let Interface { features, rows_of_file, .. } = model.interface();
        let named = || self.input.display().to_string();
        let mut reader = RowReader::new(open_input(&self.input)?, features, self.columns.extra())
            .with_context(named)?;
        let mut names = self.names()?;
        let counter = progress::rows(json, None, 0);
        let (mut files, mut rows) = (Vec::new(), 0);
        loop {
            let next = reader.take(rows_of_file.unwrap_or(usize::MAX)).with_context(named)?;
            if next.is_empty() {
                break;
            }
            let path = names
                .next()
                .with_context(|| format!("more rows than the {} files of --output", files.len()))?;
            model.check(&next, rows as u64 + 1).with_context(named)?;
            let bytes = encryption.encrypt_file(&next)?;
            write_atomically(&path, Access::Default, |file| file.write_all(&bytes))
                .with_context(|| path.display().to_string())?;
            files.push(path);
            rows += next.len();
            counter.set_message(format!("row {rows}"));
        }
        counter.finish_and_clear();
        anyhow::ensure!(
            self.names_are_numbered() || names.next().is_none(),
            "rows for {} files, but {} files of --output",
            files.len(),
            self.output.len()
        );
        report(json, &Encrypted { rows, files }, |encrypted| {
            say!("{} rows encrypted", encrypted.rows);
        })
    }

    /// Whether --output is one folder.
    fn names_are_numbered(&self) -> bool {
        let is_folder =
            |path: &PathBuf| path.is_dir() || path.as_os_str().as_encoded_bytes().ends_with(b"/");
        matches!(self.output.as_slice(), [only] if is_folder(only))
    }

    /// The files to write, as given, or numbered in a folder.
    fn names(&self) -> anyhow::Result<Box<dyn Iterator<Item = PathBuf>>> {
        if !self.names_are_numbered() {
            return Ok(Box::new(self.output.clone().into_iter()));
        }
        let folder = self.output[0].clone();
        std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        Ok(Box::new((0..).map(move |row: u64| folder.join(format!("row-{row:06}-0.bin")))))
    }
}
