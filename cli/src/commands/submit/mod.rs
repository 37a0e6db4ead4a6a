//! `cipherscore submit`

mod exchange;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, ensure};
use cipherscore_common::message::Timestamp;
use cipherscore_common::topology::{Lane, ReplyQueue};
use cipherscore_common::{JobId, Lease, ModelId};
use cipherscore_concrete::framing::{frame_values, split_values};
use cipherscore_producer::client::Client;
use cipherscore_producer::events::{Event, Events};
use cipherscore_producer::files::{Access, write_atomically};
use cipherscore_producer::model::{read_rows_file, write_rows_file};
use cipherscore_producer::note::NoteFile;
use cipherscore_producer::score::unique_client;
use clap::Args;
use serde::Serialize;

use self::exchange::Exchange;
use super::services::ServiceOptions;
use super::store::wait;
use super::{printable, read_bounded, report, require_folder_of};
use crate::print::say;

/// Largest ciphertext file, in bytes.
const MAX_INPUT_BYTES: usize = 1 << 30;

/// Have rows evaluated that another program encrypted, and wait for their results.
///
/// Files of Concrete ML's models are in Concrete's own formats: what the real FHEModelClient
/// serialises goes in, what comes out it can decrypt, and each file is one row. Files of compiled
/// models hold many rows, as `encrypt` wrote them. Each file is one job, or as many as --arguments
/// says. Its id goes to standard error when it is published: `cipherscore cancel` takes it.
///
/// Which job a result belongs to is kept beside it, in OUTPUT.job, until the result is there: after
/// Ctrl-C or a crash the same command goes on, waits for the same jobs, and has nothing evaluated
/// again that was evaluated.
///
/// Exit code: 0 all rows have results, 2 some have none, 1 an error.
#[derive(Args)]
pub(crate) struct Submit {
    /// Model id.
    #[arg(long, value_name = "ID")]
    model: ModelId,

    /// Serialised evaluation keys. Linear models need none.
    #[arg(long, value_name = "FILE")]
    evaluation_key: Option<PathBuf>,

    /// Encrypted rows.
    #[arg(long, value_name = "FILE", num_args = 1.., required = true)]
    input: Vec<PathBuf>,

    /// Where the encrypted results go, in the order of the inputs. With --arguments, as many of
    /// every job as the function has outputs.
    #[arg(long, value_name = "FILE", num_args = 1.., required = true)]
    output: Vec<PathBuf>,

    /// Inputs of the function, such as 4 of encrypted training: so many files are one job, whose
    /// outputs may be inputs of the next `submit` without being decrypted in between.
    #[arg(long, value_name = "N", default_value = "1")]
    arguments: NonZeroUsize,

    /// How long to wait, after which workers leave the jobs alone: a number and d, h, m or s.
    #[arg(long, value_name = "TIME", default_value = "10m")]
    timeout: Lease,

    /// Queue of the model: high before normal.
    #[arg(long, value_name = "LANE")]
    lane: Option<Lane>,

    #[command(flatten)]
    services: ServiceOptions,
}

/// What came of the files of one job.
#[derive(Debug, Clone, Serialize)]
struct Submitted {
    inputs: Vec<PathBuf>,
    job: JobId,
    /// None without a result.
    outputs: Vec<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    worker: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Submit {
    pub(crate) fn run(self, json: bool) -> anyhow::Result<ExitCode> {
        self.count_jobs()?;
        for file in &self.input {
            let file_size =
                std::fs::metadata(file).with_context(|| file.display().to_string())?.len();
            ensure!(
                file_size <= MAX_INPUT_BYTES as u64,
                "{}: larger than {MAX_INPUT_BYTES} bytes",
                file.display()
            );
        }
        self.output.iter().try_for_each(|file| require_folder_of(file))?;
        let services = self.services.open()?;
        let store = Arc::new(services.store()?);
        let broker = Arc::new(services.broker.clone());
        let settings = &services.settings.producer;
        let notes = self.open_notes()?;
        let client = match client_of(&notes)? {
            Some(client) => client.to_owned(),
            None => unique_client(&settings.client),
        };
        let queue = ReplyQueue::new(&settings.tenant, &client)?;
        let mut options = settings.client_options();
        options.lane = self.lane.unwrap_or(options.lane);
        let events = Events::new(|event| {
            if let Event::Waiting { reason, .. } = event {
                eprintln!("waiting: {}", printable(&reason));
            }
        });
        let submitted = wait(async {
            services.require_store(&store).await?;
            let client = Client::open(broker, store, queue, options, events).await?;
            Exchange::new(&self, client, settings.key_lease).run(notes).await
        })?;
        let failed = submitted.iter().any(|file| file.error.is_some());
        report(json, &submitted, |submitted| {
            for Submitted { inputs, job, outputs, error, .. } in submitted {
                let inputs = names(inputs);
                match error {
                    None => say!("{inputs} -> {}  job {job}", names(outputs)),
                    Some(error) => say!("{inputs} failed  job {job}: {}", printable(error)),
                }
            }
        })?;
        Ok(if failed { ExitCode::from(2) } else { ExitCode::SUCCESS })
    }

    /// Files of each job, in and out.
    fn files(&self) -> anyhow::Result<impl Iterator<Item = (&[PathBuf], &[PathBuf])>> {
        let outputs = self.output.chunks_exact(self.output.len() / self.count_jobs()?);
        Ok(self.input.chunks_exact(self.arguments.get()).zip(outputs))
    }

    /// The notes of the jobs, each beside the first of its outputs.
    fn open_notes(&self) -> anyhow::Result<Vec<NoteFile>> {
        self.files()?.map(|(_, outputs)| Ok(NoteFile::open(&outputs[0])?)).collect()
    }

    /// Every job has as many files, in and out.
    fn count_jobs(&self) -> anyhow::Result<usize> {
        let (inputs, outputs) = (self.input.len(), self.output.len());
        let arguments = self.arguments.get();
        let jobs = inputs / arguments;
        ensure!(
            inputs.is_multiple_of(arguments),
            "{inputs} input files, where each job takes {arguments} (--arguments)"
        );
        match arguments {
            1 => ensure!(
                inputs == outputs,
                "{inputs} input and {outputs} output files; each input has one output"
            ),
            _ => ensure!(
                outputs.is_multiple_of(jobs),
                "{outputs} output files for {jobs} jobs; each has a file for every output of the \
                 function"
            ),
        }
        Ok(jobs)
    }
}

/// Whose reply queue the jobs of an earlier process have, if there are any.
fn client_of(notes: &[NoteFile]) -> anyhow::Result<Option<&str>> {
    let now = Timestamp::now();
    let mut clients = notes.iter().filter_map(|note| Some(note.found(now)?.client.as_str()));
    let client = clients.next();
    ensure!(
        clients.all(|other| Some(other) == client),
        "these outputs wait for jobs of several interrupted commands; repeat each of them"
    );
    Ok(client)
}

/// Files by their names, for people.
pub(super) fn names(files: &[PathBuf]) -> String {
    files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// The files of a job as its payload, and how many rows they say that they have: none, where they
/// are the values of one row, as Concrete's client writes them.
fn read_rows(paths: &[PathBuf]) -> anyhow::Result<(Option<u32>, Vec<u8>)> {
    let read = |path: &PathBuf| read_bounded(path, MAX_INPUT_BYTES);
    let files = paths.iter().map(read).collect::<anyhow::Result<Vec<_>>>()?;
    if let [file] = files.as_slice()
        && let Ok((rows, body)) = read_rows_file(file)
    {
        return Ok((Some(rows), body.to_vec()));
    }
    Ok((None, frame_values(files)))
}

/// Writes results in the form of their rows.
fn write_results(paths: &[PathBuf], rows: Option<u32>, outputs: &[u8]) -> anyhow::Result<()> {
    match (rows, paths) {
        (Some(rows), [path]) => write(path, &write_rows_file(usize::try_from(rows)?, outputs)?),
        _ => write_values(paths, outputs),
    }
}

/// Writes the values of the one framed row, as Concrete's client reads them.
fn write_values(paths: &[PathBuf], outputs: &[u8]) -> anyhow::Result<()> {
    let values = split_values(outputs)?;
    ensure!(
        values.len() == paths.len(),
        "a result of {} values, for which {} files of --output are given",
        values.len(),
        paths.len()
    );
    paths.iter().zip(values).try_for_each(|(path, value)| write(path, value))
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    write_atomically(path, Access::Default, |file| file.write_all(bytes))
        .with_context(|| path.display().to_string())
}
