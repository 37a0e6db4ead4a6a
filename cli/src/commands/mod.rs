//! One module for each command, and what they share.

pub(crate) mod bridge;
pub(crate) mod cancel;
pub(crate) mod compile;
pub(crate) mod decrypt;
pub(crate) mod demo;
pub(crate) mod dlq;
pub(crate) mod encrypt;
pub(crate) mod evaluate;
pub(crate) mod fleet;
mod function;
pub(crate) mod gateway;
pub(crate) mod import;
pub(crate) mod inspect;
pub(crate) mod keygen;
pub(crate) mod keys;
pub(crate) mod models;
pub(crate) mod predict;
pub(crate) mod score;
pub(crate) mod services;
pub(crate) mod status;
pub(crate) mod store;
pub(crate) mod submit;
pub(crate) mod worker;

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use cipherscore_artifact::content::Content;
use cipherscore_artifact::server::{Forms, ServerZip};
use cipherscore_concrete::recorder::RecorderCommand;
use cipherscore_engine::artifact::MAX_ZIP_BYTES;
use cipherscore_producer::client_zip::{OpenClient, open_client, open_model_or_function};
use cipherscore_producer::files::{Access, write_atomically};
use cipherscore_producer::key_folder::KeyFolder;
use cipherscore_producer::model::{
    Chosen, ClientModel, Encryption, FormChoice, encryption_in_form, model_in_form,
};
use cipherscore_producer::rows::{
    CategoryFields, ExtraColumns, FirstLine, MissingMarks, RowFormat,
};
use clap::Args;
use serde::Serialize;

use crate::passphrase::PassphraseSource;
use crate::print::say;

pub(crate) use cipherscore_artifact::facts::{printable, size};

/// First argument that makes this program the recorder of a circuit.
pub(crate) const RECORDER_COMMAND: &str = "record-circuit";

/// Standard input or output in place of a file.
const STANDARD: &str = "-";

fn is_standard(path: &Path) -> bool {
    path == Path::new(STANDARD)
}

/// Reads a file that must not be larger than `limit` bytes.
fn read_bounded(path: &Path, limit: usize) -> anyhow::Result<Vec<u8>> {
    let bytes = read_start(path, limit)?;
    require_bounded(path, &bytes, limit)?;
    Ok(bytes)
}

/// A file of this kind of at most so many bytes. One of another kind is named, whatever its size.
fn read_content(path: &Path, content: Content, limit: usize) -> anyhow::Result<Vec<u8>> {
    let bytes = read_start(path, limit)?;
    content.require(&bytes).with_context(|| path.display().to_string())?;
    require_bounded(path, &bytes, limit)?;
    Ok(bytes)
}

/// A file, or one byte more of it than the limit.
fn read_start(path: &Path, limit: usize) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path).with_context(|| path.display().to_string())?;
    let read = file.take(limit as u64 + 1).read_to_end(&mut bytes);
    read.with_context(|| path.display().to_string())?;
    Ok(bytes)
}

fn require_bounded(path: &Path, bytes: &[u8], limit: usize) -> anyhow::Result<()> {
    anyhow::ensure!(
        bytes.len() <= limit,
        "{}: larger than {}, which such a file never is; is it the right one?",
        path.display(),
        size(limit)
    );
    Ok(())
}

fn read_client(path: &Path) -> anyhow::Result<Arc<dyn ClientModel>> {
    let zip = read_bounded(path, MAX_ZIP_BYTES)?;
    open_client(&zip).with_context(|| path.display().to_string())
}

/// Opens the `client.zip` of a model or of a function.
fn read_model_or_function(path: &Path) -> anyhow::Result<OpenClient> {
    let zip = read_bounded(path, MAX_ZIP_BYTES)?;
    open_model_or_function(&zip).with_context(|| path.display().to_string())
}

/// Finds out what kind of `server.zip` the bytes of a file are.
fn read_server<'a>(path: &Path, zip: &'a [u8]) -> anyhow::Result<ServerZip<'a>> {
    ServerZip::read(zip).with_context(|| path.display().to_string())
}

/// Opens a `server.zip` of any kind, to be evaluated by the threads of this process.
fn open_server(path: &Path, zip: &ServerZip<'_>) -> anyhow::Result<Forms> {
    let forms = zip.open(Some(&recorder()?), threads());
    forms.with_context(|| path.display().to_string())
}

/// Threads of this process that evaluate.
fn threads() -> NonZeroUsize {
    NonZeroUsize::new(rayon::current_num_threads()).unwrap_or(NonZeroUsize::MIN)
}

/// Both zips of a folder must be of one model.
fn require_one_model(client: &dyn ClientModel, path: &Path, zip: &[u8]) -> anyhow::Result<()> {
    ensure!(
        client.fits(zip).with_context(|| path.display().to_string())?,
        "{} is not of the same model as the client.zip beside it",
        path.display()
    );
    Ok(())
}

/// Which form of a compiled model rows take.
#[derive(Args)]
pub(crate) struct FormOption {
    /// Form in which rows are encrypted: rows, one at a time, in milliseconds; bulk, thousands at a
    /// time, in microseconds each; or auto, the one whose time and bytes, at 100 Mbit/s, are less for
    /// the number of rows. Models of Concrete ML have one form, which has no name.
    #[arg(long, value_name = "FORM", default_value_t = FormChoice::Auto, value_parser = parse_form)]
    form: FormChoice,
}

fn parse_form(text: &str) -> anyhow::Result<FormChoice> {
    text.parse().map_err(|_| anyhow::anyhow!("auto, rows or bulk"))
}

/// What encrypts so many rows with the keys of a folder. Keys that were made before the model had a
/// second form are for the first, and then nothing is to be chosen.
fn encryption_of(
    folder: &KeyFolder,
    model: Arc<dyn ClientModel>,
    choice: FormChoice,
    rows: u64,
    passphrase: &PassphraseSource,
) -> anyhow::Result<Chosen<dyn Encryption>> {
    let open = |model| folder.encryption(model, || passphrase.existing());
    if let FormChoice::Auto = choice {
        return Ok(encryption_in_form(open(model)?, choice, rows)?);
    }
    let Chosen { it: model, why } = model_in_form(model, choice, rows)?;
    Ok(Chosen { it: open(model)?, why })
}

/// How the columns of a file are found.
#[derive(Args)]
pub(crate) struct InputColumns {
    /// Pass over columns that are no features of the model. Without this, they are an error. Only
    /// for models whose features have names: those of Concrete ML are found by their positions.
    #[arg(long)]
    ignore_extra_columns: bool,

    /// The first line is a row like the others: the columns are the model's features in their
    /// order.
    #[arg(long, conflicts_with = "ignore_extra_columns")]
    no_header: bool,

    /// What stands for a missing value, beside empty fields, nan, NA, null, None and the like: a number
    /// such as -999, or a text such as ?. May be given several times. With `compile` they become the
    /// model's, for rows to come as well; none says that there are none.
    #[arg(long, value_name = "MARK", allow_hyphen_values = true)]
    missing: Vec<String>,

    /// What is between the fields of a line: one character, or tab.
    #[arg(long, value_name = "C", default_value = ",", value_parser = parse_separator)]
    separator: u8,

    /// Columns of categories hold their codes: the positions in the trained model's own list, which are
    /// not those of another data frame. Without this, they hold the names, where the model has names.
    #[arg(long)]
    category_codes: bool,
}

/// One character of ASCII that no number has.
fn parse_separator(text: &str) -> anyhow::Result<u8> {
    match text {
        "tab" | "\\t" => Ok(b'\t'),
        _ => match *text.as_bytes() {
            [sign]
                if sign == b'\t' || (sign.is_ascii_punctuation() && !b"\"-+._".contains(&sign)) =>
            {
                Ok(sign)
            }
            _ => bail!("one character, such as ; or |, or tab"),
        },
    }
}

/// Said for [`InputColumns::missing`] where a model has no marks.
const NO_MARKS: &str = "none";

impl InputColumns {
    fn first_line(&self) -> FirstLine {
        match (self.no_header, self.ignore_extra_columns) {
            (true, _) => FirstLine::Row,
            (false, true) => FirstLine::Header(ExtraColumns::Ignore),
            (false, false) => FirstLine::Header(ExtraColumns::Refuse),
        }
    }

    /// What stands for a missing value, as it is said; none where nothing is said of it.
    fn marks(&self) -> Option<MissingMarks> {
        let marks = self.missing.iter().map(String::as_str).filter(|mark| *mark != NO_MARKS);
        (!self.missing.is_empty()).then(|| MissingMarks::of(marks))
    }

    /// The numbers among them. A text says nothing about numbers, so that there are none and they stay open.
    fn missing_numbers(&self) -> Option<Vec<f64>> {
        let numbers = self.marks().map(|marks| marks.numbers)?;
        let is_said = !numbers.is_empty() || self.missing.iter().any(|mark| mark == NO_MARKS);
        is_said.then_some(numbers)
    }

    fn format(&self) -> RowFormat {
        RowFormat {
            separator: self.separator,
            missing: self.marks().unwrap_or_default(),
            categories: match self.category_codes {
                true => CategoryFields::Codes,
                false => CategoryFields::Names,
            },
            ..self.first_line().into()
        }
    }
}

/// This program, as the recorder.
fn recorder() -> anyhow::Result<RecorderCommand> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    Ok(RecorderCommand::new(program, vec![RECORDER_COMMAND.into()]))
}

fn open_input(path: &Path) -> anyhow::Result<Box<dyn Read>> {
    if is_standard(path) {
        return Ok(Box::new(io::stdin()));
    }
    let file = File::open(path).with_context(|| path.display().to_string())?;
    Ok(Box::new(BufReader::new(file)))
}

/// Writes the output file whole or not at all; standard output as it comes.
fn write_output(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    if is_standard(path) {
        return write(&mut io::stdout().lock());
    }
    write_atomically(path, Access::Default, write).with_context(|| path.display().to_string())
}

/// Before anything is computed: where the output goes must be there.
fn require_folder_of(output: &Path) -> anyhow::Result<()> {
    let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty());
    let missing = folder.filter(|folder| !folder.is_dir());
    missing.map_or(Ok(()), |folder| {
        bail!("{}: there is no folder {}; make it first", output.display(), folder.display())
    })
}

/// Scores and a report cannot share standard output.
fn require_separate_json(json: bool, output: &Path) -> anyhow::Result<()> {
    anyhow::ensure!(
        !(json && is_standard(output)),
        "--json prints on standard output; give --output a file"
    );
    Ok(())
}

/// Prints a report as JSON, or whatever `human` prints of it.
fn report<T: Serialize>(json: bool, report: &T, human: impl FnOnce(&T)) -> anyhow::Result<()> {
    match json {
        true => say!("{}", serde_json::to_string_pretty(report)?),
        false => human(report),
    }
    Ok(())
}
