//! `cipherscore submit`

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, ensure};
use cipherscore_common::topology::LaneChoice;
use cipherscore_common::{Lease, ModelId, OwnerStore};
use cipherscore_producer::events::{Event, Events};
use cipherscore_producer::fleet::FleetAccess;
use cipherscore_producer::submit::{JobFiles, MAX_INPUT_BYTES, SubmitRequest, Submitted, submit};
use clap::Args;

use super::fleet::FleetOptions;
use super::{printable, report, require_folder_of, size};
use crate::exit::Exit;
use crate::print::say;
use crate::progress::{self, Watcher};

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
    /// every job as the program has outputs.
    #[arg(long, value_name = "FILE", num_args = 1.., required = true)]
    output: Vec<PathBuf>,

    /// Inputs of the program, such as 4 of encrypted training: so many files are one job, whose
    /// outputs may be inputs of the next `submit` without being decrypted in between.
    #[arg(long, value_name = "N", default_value = "1")]
    arguments: NonZeroUsize,

    /// How long to wait, after which workers leave the jobs alone: a number and d, h, m or s.
    #[arg(long, value_name = "TIME", default_value = "10m")]
    timeout: Lease,

    /// Queue of the model: high before normal. Normal if not given, as files do not say what they take.
    #[arg(long, value_name = "LANE")]
    lane: Option<LaneChoice>,

    #[command(flatten)]
    fleet: FleetOptions,
}

impl Submit {
    pub(crate) fn run(self, json: bool) -> anyhow::Result<ExitCode> {
        let jobs = self.files()?;
        for file in &self.input {
            let file_size =
                std::fs::metadata(file).with_context(|| file.display().to_string())?.len();
            ensure!(
                file_size <= MAX_INPUT_BYTES as u64,
                "{}: larger than {}; encrypt fewer rows at a time, into several files",
                file.display(),
                size(MAX_INPUT_BYTES)
            );
        }
        self.output.iter().try_for_each(|file| require_folder_of(file))?;
        let opened = self.fleet.open()?;
        let FleetAccess { broker, store } = opened.fleet.clone();
        let mut settings = opened.settings.producer.clone();
        settings.lane = self.lane.unwrap_or(settings.lane);
        let bar = progress::jobs(json, jobs.len() as u64);
        let events = events(Watcher::new(bar.clone()));
        let request = SubmitRequest {
            model_id: self.model,
            evaluation_key: self.evaluation_key,
            jobs,
            timeout: self.timeout,
            settings,
        };
        let submitted = opened.wait(async {
            // Later a store that is away is waited for; at the beginning its address may be wrong.
            store.check(&request.settings.tenant).await?;
            anyhow::Ok(submit(broker, store, request, events).await?)
        });
        bar.finish_and_clear();
        let submitted = submitted?;
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
        Ok(if failed { Exit::SomeRowsFailed.into() } else { ExitCode::SUCCESS })
    }

    /// Files of each job, in and out.
    fn files(&self) -> anyhow::Result<Vec<JobFiles>> {
        let outputs = self.output.chunks_exact(self.output.len() / self.count_jobs()?);
        let files = self.input.chunks_exact(self.arguments.get()).zip(outputs);
        let files = files.map(|(inputs, outputs)| {
            let (inputs, outputs) = (inputs.to_vec(), outputs.to_vec());
            JobFiles { inputs, outputs }
        });
        Ok(files.collect())
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
                 program"
            ),
        }
        Ok(jobs)
    }
}

/// Jobs as they are published, and the bar over those that have ended.
fn events(watcher: Watcher) -> Events {
    Events::new(move |event| match event {
        Event::Submitted { inputs, job, again } => {
            let again = if again { " again" } else { "" };
            watcher.tell(&format!("{} is job {job}{again}", names(&inputs)));
        }
        // Why is in the report.
        Event::Scored { .. } | Event::Failed { .. } => watcher.went_on(1),
        event => watcher.show(event),
    })
}

/// Files by their names, for people.
pub(super) fn names(files: &[PathBuf]) -> String {
    files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ")
}
