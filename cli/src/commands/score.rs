//! `cipherscore score`

use std::num::{NonZeroU16, NonZeroU32};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, ensure};
use cipherscore_common::topology::LaneChoice;
use cipherscore_common::{ModelId, OwnerStore};
use cipherscore_engine::artifact::MAX_ZIP_BYTES;
use cipherscore_producer::events::Events;
use cipherscore_producer::fleet::FleetAccess;
use cipherscore_producer::key_folder::KeyFolder;
use cipherscore_producer::model::{Chosen, ClientModel};
use cipherscore_producer::rows::{RowFormat, RowReader, ScoreColumns};
use cipherscore_producer::score::{RowsPerJob, ScoreReport, ScoreRequest, ledger_folder, score};
use clap::Args;
use indicatif::ProgressBar;
use serde::Serialize;

use super::fleet::{FleetOptions, OpenFleet};
use super::{
    FormOption, InputColumns, encryption_of, is_standard, open_input, open_server, read_bounded,
    read_client, read_server, require_folder_of, require_one_model,
};
use crate::exit::Exit;
use crate::passphrase::PassphraseSource;
use crate::print::say;
use crate::progress::{self, Watcher};

/// Rows that are counted before a form is chosen: more take the same one.
const COUNTED_ROWS: usize = 1 << 14;

/// Score a file of rows of any length by the workers behind a queue.
///
/// Rows are encrypted here and scores decrypted here; gateway, broker, store and workers see ciphertexts
/// only. The input is cut into jobs, of which a bounded number is in flight. What became of them is
/// kept in OUTPUT.ledger: after Ctrl-C or a crash the same command goes on, and publishes no job
/// again that is done. The output appears at the end, in the order of the input; rows without
/// scores are empty lines in it, and OUTPUT.failed.csv says why. Run the command again to try
/// them again, except for those of which a reply was bad: to try these as well, which tells the worker
/// that it was, score to another OUTPUT. When all rows have scores the ledger goes: the same command then scores all of them
/// anew and replaces OUTPUT. The broker removes the run's empty reply queue after a week.
///
/// Exit code: 0 all rows have scores, 2 some have none, 1 an error, 130 interrupted.
#[derive(Args)]
pub(crate) struct Score {
    /// Folder with client.zip, and with server.zip (raw, imported or compiled) unless --model is
    /// given or the model is a compiled one.
    #[arg(long, value_name = "DIR")]
    artifact: PathBuf,

    /// Model id, for who has no server.zip.
    #[arg(long, value_name = "ID")]
    model: Option<ModelId>,

    /// Folder with the keys, made by `keygen`.
    #[arg(long, value_name = "DIR")]
    keys: PathBuf,

    /// CSV with a header and one row of raw features a line.
    #[arg(long, value_name = "CSV")]
    input: PathBuf,

    /// CSV to write: proba_0,.. of a classifier, prediction of a regressor.
    #[arg(long, value_name = "CSV")]
    output: PathBuf,

    /// Write the decrypted integers before dequantisation instead of scores.
    #[arg(long)]
    integers: bool,

    /// Rows of a job. If not given, the model decides: of a compiled one as many as are encrypted
    /// together, of Concrete ML's up to 1000 of a linear one, and as many as make about 500
    /// bootstraps of another.
    #[arg(long, value_name = "N")]
    rows_per_job: Option<NonZeroU32>,

    /// Jobs that are published and not answered, at most; 16 if not given.
    #[arg(long, value_name = "N")]
    in_flight: Option<NonZeroU16>,

    /// Queue of the model: high before normal; auto if not given, which is high for single rows that take
    /// less than 50 ms, and normal for all else.
    #[arg(long, value_name = "LANE")]
    lane: Option<LaneChoice>,

    /// Publish unanswered jobs of an interrupted run again at once, instead of waiting for them
    /// until their deadline.
    #[arg(long)]
    republish: bool,

    #[command(flatten)]
    form: FormOption,

    #[command(flatten)]
    columns: InputColumns,

    #[command(flatten)]
    passphrase: PassphraseSource,

    #[command(flatten)]
    fleet: FleetOptions,
}

impl Score {
    pub(crate) fn run(self, json: bool) -> anyhow::Result<ExitCode> {
        ensure!(
            !is_standard(&self.output),
            "--output - is not possible: a run can be gone on with only when it has a file. Use \
             `cipherscore predict` for pipes"
        );
        require_folder_of(&self.output)?;
        let model = read_client(&self.artifact.join("client.zip"))?;
        let (model_id, bootstraps) = self.model(&*model)?;
        let mut opened = self.fleet.open()?;
        let settings = &mut opened.settings.producer;
        settings.in_flight = self.in_flight.unwrap_or(settings.in_flight);
        settings.lane = self.lane.unwrap_or(settings.lane);
        let rows = count_rows(&self.input, &*model, self.columns.format())?;
        let keys = KeyFolder::new(&self.keys);
        let Chosen { it: encryption, why } =
            encryption_of(&keys, model, self.form.form, rows, &self.passphrase)?;
        let model = encryption.model();
        if let (Some(form), Some(why), false) = (model.form(), &why, json) {
            eprintln!("form {form}: {why}");
        }
        let rows_per_job = match self.rows_per_job.or(settings.rows_per_job()) {
            Some(rows) => RowsPerJob::Given(rows),
            None => RowsPerJob::Suggested(model.rows_per_job(bootstraps)),
        };
        let request = ScoreRequest {
            encryption,
            model_id,
            keys,
            input: self.input,
            format: self.columns.format(),
            output: self.output.clone(),
            columns: if self.integers { ScoreColumns::Integers } else { ScoreColumns::Scores },
            rows_per_job,
            republish: self.republish,
            settings: settings.clone(),
        };
        let bar = progress::scores(json);
        let outcome = run(&opened, request, &bar);
        bar.finish_and_clear();
        match outcome? {
            Some(report) => finish(json, &Scored { report, form_reason: why }),
            None => {
                let ledger = ledger_folder(&self.output);
                eprintln!("stopped. The same command goes on from {}", ledger.display());
                Ok(Exit::Interrupted.into())
            }
        }
    }

    /// Which model, and how many bootstraps a row of it takes if the circuit is here to tell. The
    /// machine code of a raw zip is not looked at.
    fn model(&self, client: &dyn ClientModel) -> anyhow::Result<(ModelId, Option<usize>)> {
        let path = self.artifact.join("server.zip");
        let said = client.model_id();
        if let Some(model) = self.model.or(said)
            && !path.exists()
        {
            ensure!(
                said.is_none_or(|said| said == model),
                "client.zip is of another model than that of --model"
            );
            return Ok((model, None));
        }
        ensure!(
            path.exists(),
            "which model? There is no server.zip in {}; give --model ID, as whoever has it reads \
             from `cipherscore inspect server.zip`",
            self.artifact.display()
        );
        let (found, bootstraps) = inspect(&path, client)?;
        ensure!(
            self.model.is_none_or(|model| model == found),
            "{} is model {found}, which is not the one of --model",
            path.display()
        );
        Ok((found, bootstraps))
    }
}

fn inspect(path: &Path, client: &dyn ClientModel) -> anyhow::Result<(ModelId, Option<usize>)> {
    let zip = read_bounded(path, MAX_ZIP_BYTES)?;
    require_one_model(client, path, &zip)?;
    let server = read_server(path, &zip)?;
    let bootstraps = match server.holds_machine_code() {
        true => None,
        false => {
            Some(open_server(path, &server)?.preferred.facts.cost.unwrap_or_default().bootstraps)
        }
    };
    Ok((server.model_id()?, bootstraps))
}

/// None when it was interrupted.
fn run(
    opened: &OpenFleet,
    request: ScoreRequest,
    bar: &ProgressBar,
) -> anyhow::Result<Option<ScoreReport>> {
    let FleetAccess { broker, store } = opened.fleet.clone();
    let watcher = Watcher::new(bar.clone());
    let events = Events::new(move |event| watcher.show(event));
    opened.wait(async {
        // Later a store that is away is waited for; at the beginning its address may be wrong.
        store.check(&request.settings.tenant).await?;
        tokio::select! {
            report = score(broker, store, request, events) => anyhow::Ok(report.map(Some)?),
            _ = tokio::signal::ctrl_c() => Ok(None),
        }
    })
}

/// What was done, and why in that form.
#[derive(Serialize)]
struct Scored {
    #[serde(flatten)]
    report: ScoreReport,
    #[serde(skip_serializing_if = "Option::is_none")]
    form_reason: Option<String>,
}

/// Rows of a file as far as their number decides about a form; what is wrong with them is found later.
fn count_rows(path: &Path, model: &dyn ClientModel, format: RowFormat) -> anyhow::Result<u64> {
    if model.forms().is_empty() {
        return Ok(0);
    }
    let rows = RowReader::new(open_input(path)?, &model.interface().features, format);
    let rows = rows.and_then(|mut rows| rows.take(COUNTED_ROWS));
    Ok(rows.with_context(|| path.display().to_string())?.len() as u64)
}

fn finish(json: bool, scored: &Scored) -> anyhow::Result<ExitCode> {
    let report = &scored.report;
    if json {
        say!("{}", serde_json::to_string_pretty(scored)?);
    } else {
        eprintln!(
            "{} of {} rows scored in {:.1} s by {} jobs of up to {} rows: {}",
            report.rows_scored,
            report.rows,
            report.seconds,
            report.jobs_published,
            report.rows_per_job,
            report.output.display()
        );
        if let Some(failed) = &report.failed {
            eprintln!("{} rows failed; why is in {}", report.rows_failed, failed.display());
        }
    }
    Ok(match report.rows_failed {
        0 => Exit::Done.into(),
        _ => Exit::SomeRowsFailed.into(),
    })
}
