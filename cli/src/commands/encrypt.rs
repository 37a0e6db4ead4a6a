//! `cipherscore encrypt`

use std::path::PathBuf;

use anyhow::Context;
use cipherscore_concrete::values::write_value;
use cipherscore_engine::parameters::Compression;
use cipherscore_producer::files::{Access, write_atomically};
use cipherscore_producer::key_folder::KeyFolder;
use cipherscore_producer::rows::RowReader;
use clap::Args;
use serde::Serialize;

use super::{open_client, open_input, report};
use crate::passphrase::PassphraseSource;
use crate::print::say;
use crate::progress;

/// Quantise and encrypt rows, each into a file in Concrete's format.
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

    /// A file for each row, or one folder for row-000000-0.bin (row, argument) and so on.
    #[arg(long, value_name = "FILE", num_args = 1.., required = true)]
    output: Vec<PathBuf>,

    #[command(flatten)]
    passphrase: PassphraseSource,
}

#[derive(Serialize)]
struct Encrypted {
    files: Vec<PathBuf>,
}

impl Encrypt {
    pub(crate) fn run(self, json: bool) -> anyhow::Result<()> {
        let artifact = open_client(&self.client)?;
        let keys = KeyFolder::new(&self.keys)
            .client_keys(artifact.keyset(), || self.passphrase.existing())?;
        let mut rows = RowReader::new(open_input(&self.input)?, artifact.features())
            .with_context(|| self.input.display().to_string())?;
        let mut names = self.names()?;
        let counter = progress::rows(json, None, 0);
        let mut files = Vec::new();
        loop {
            let next = rows.take(1).with_context(|| self.input.display().to_string())?;
            let Some(row) = next.first() else { break };
            let path = names
                .next()
                .with_context(|| format!("more rows than the {} files of --output", files.len()))?;
            let integers = artifact.model().quantise(row)?;
            let gate = artifact.input();
            let value = write_value(gate, Compression::Seed, &keys.encrypt(&integers, gate)?);
            write_atomically(&path, Access::Default, |file| file.write_all(&value))
                .with_context(|| path.display().to_string())?;
            files.push(path);
            counter.set_message(format!("row {}", files.len()));
        }
        counter.finish_and_clear();
        anyhow::ensure!(
            self.names_are_numbered() || names.next().is_none(),
            "{} rows, but {} files of --output",
            files.len(),
            self.output.len()
        );
        report(json, &Encrypted { files }, |encrypted| {
            say!("{} rows encrypted", encrypted.files.len());
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
